"""explore and regimes beyond this process: the same bits on any executor, death, retry, stop."""

from __future__ import annotations

import concurrent.futures as cf
import multiprocessing
import os
import pickle
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import disagg as dg
from disagg._columns import same
from disagg._executor_pool import Calls

MODEL = dg.Model("Qwen/Qwen3-30B-A3B")
CHAT = dg.Workload.preset("paper-chat")
LIMITS = [dg.SLO(ttft_ms=500, tpot_ms=b) for b in (6, 15)]
CLUSTERS = [dg.Cluster("h200_sxm", gpus=2), dg.Cluster("b200_sxm", gpus=2)]
WORKLOADS = [CHAT, dg.Workload(isl=4000, osl=200)]


def explore(**more: Any) -> dg.Study:
    more = {"frameworks": ["trtllm", "sglang"], "progress": False, **more}
    return dg.explore(MODEL, dg.Cluster("h200_sxm", gpus=8), CHAT, dg.SLO(ttft_ms=1000, tpot_ms=15), **more)


def regimes(**more: Any) -> dg.Frame:
    more = {"batches_per_octave": 2, "progress": False, **more}
    return dg.regimes(MODEL, CLUSTERS, workloads=WORKLOADS, slo=LIMITS, **more)


@pytest.fixture(scope="module")
def study() -> dg.Study:
    return explore()


@pytest.fixture(scope="module")
def cells() -> dg.Frame:
    return regimes()


@pytest.fixture(scope="module")
def processes() -> Iterator[cf.Executor]:
    with cf.ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("forkserver")) as pool:
        yield pool


def equal(a: dg.Frame, b: dg.Frame) -> bool:
    return a.columns == b.columns and a.attrs == b.attrs and all(same(a._column(n), b._column(n)) for n in a)


def alike(a: dg.Study, b: dg.Study) -> bool:
    best = set(a.estimates) == set(b.estimates) and all(a.estimates[n] == b.estimates[n] for n in a.estimates)
    return best and equal(a.table, b.table) and equal(a.points, b.points)


class Odd(cf.Executor):
    """Does the units at once, one after another, but has `trouble` with each the first `times` times."""

    def __init__(self, trouble: BaseException, times: int = 1) -> None:
        self.trouble, self.times = trouble, times
        self.seen: dict[Any, int] = {}

    def submit(self, fn: Callable[..., Any], /, *args: Any, **_: Any) -> cf.Future[Any]:
        future: cf.Future[Any] = cf.Future()
        key = pickle.dumps(args[1])
        self.seen[key] = self.seen.get(key, 0) + 1
        if self.seen[key] <= self.times:
            future.set_exception(self.trouble)
        else:
            future.set_result(fn(*args))
        return future


def test_explore_gives_the_same_bits_on_threads_and_processes(study: dg.Study, processes: cf.Executor) -> None:
    assert set(study.points["framework"]) == {"trtllm", "sglang"}
    assert set(study.points["level"]) == set(dg.LEVELS)
    told: list[tuple[int, int]] = []
    with cf.ThreadPoolExecutor(2) as pool:
        assert alike(explore(executor=pool, progress=lambda done, total: told.append((done, total))), study)
    assert told == sorted(told) and told[-1] == (6, 6)
    assert alike(explore(executor=processes), study)


def test_the_frameworks_compared_are_settled_once(processes: cf.Executor) -> None:
    levels = ["aggregated", "pd"]
    found = explore(frameworks=None, levels=levels, executor=processes)
    assert alike(found, explore(frameworks=None, levels=levels))
    assert set(found.points["framework"]) == set(dg.kernels.frameworks("h200_sxm"))
    # The search itself is there too: an audit asks it again.
    to = dg.Assumptions.physical().replace(kv_transfer="ignored")
    assert found.audit(to=to, progress=False)["switch"][0] == "from"


def test_regimes_gives_the_same_bits_on_threads_and_processes(cells: dg.Frame, processes: cf.Executor) -> None:
    assert len(cells) == 8 and cells.attrs["complete"] is True
    told: list[tuple[int, int]] = []
    with cf.ThreadPoolExecutor(2) as pool:
        assert equal(regimes(executor=pool, progress=lambda done, total: told.append((done, total))), cells)
    assert told == sorted(told) and told[-1] == (8, 8)
    assert equal(regimes(executor=processes, partial=True), cells)


@pytest.mark.slow
def test_loky_replaces_a_worker_that_dies_in_the_middle(study: dg.Study, cells: dg.Frame) -> None:
    loky = pytest.importorskip("loky")
    assert equal(regimes(executor="processes"), cells)
    killed: list[int] = []

    def kill(done: int, total: int) -> None:
        if not killed and done < total:
            killed.extend(list(loky.get_reusable_executor()._processes)[:1])
            os.kill(killed[0], signal.SIGKILL)

    assert alike(explore(executor="processes", progress=kill), study)
    assert killed
    loky.get_reusable_executor().shutdown(kill_workers=True)


def test_the_death_of_a_given_executor_is_an_error() -> None:
    with cf.ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("forkserver")) as pool:
        alive = [pool.submit(os.getpid).result()]

        def kill(*_: int) -> None:
            if alive:
                os.kill(alive.pop(), signal.SIGKILL)

        with pytest.raises(dg.DisaggError, match=r"the search of .* could not be done: BrokenProcessPool"):
            explore(executor=pool, progress=kill)
        # It is broken from the start now.
        with pytest.raises(dg.DisaggError, match=r"the map of .* could not be done: BrokenProcessPool"):
            regimes(executor=pool)


def test_a_unit_that_fails_is_tried_three_times(cells: dg.Frame) -> None:
    flaky = Odd(OSError("lost"), times=2)
    assert equal(regimes(executor=flaky), cells)
    assert set(flaky.seen.values()) == {3}
    lost = r"the search of aggregated on \w+ could not be done: OSError\('lost'\)"
    with pytest.raises(dg.DisaggError, match=lost):
        explore(executor=Odd(OSError("lost"), times=3), levels=["aggregated"])


def impossible(n: int, report: object) -> int:
    del report
    raise dg.InfeasibleError("too small", f"{n} GPUs", "1")


def test_an_answer_that_is_an_error_is_not_tried_again() -> None:
    with Watched(2) as pool, pytest.raises(dg.InfeasibleError, match="too small"):
        Calls(impossible, [("one", (8,))]).fly(pool)
    assert len(pool.futures) == 1


@pytest.mark.parametrize("ask", [explore, regimes])
def test_what_does_not_fit_is_refused(ask: Callable[..., Any]) -> None:
    with pytest.raises(dg.SpecError, match="executor: cannot carry the work"):
        ask(executor=Odd(pickle.PicklingError("no")))
    with pytest.raises(dg.SpecError, match="executor: 'clouds' does not fit"):
        ask(executor="clouds")
    # A wrong question is refused here, before anything is sent.
    with pytest.raises(dg.SpecError, match="'pdd' is not a level; did you mean 'pd'"):
        ask(executor=Odd(OSError("lost"), times=9), levels=["pdd"])


class Watched(cf.ThreadPoolExecutor):
    """Threads whose futures are kept."""

    def __init__(self, n: int) -> None:
        super().__init__(n)
        self.futures: list[cf.Future[Any]] = []

    def submit(self, fn: Callable[..., Any], /, *args: Any, **more: Any) -> cf.Future[Any]:
        future = super().submit(fn, *args, **more)
        self.futures.append(future)
        return future


def stop(*_: int) -> None:
    raise KeyboardInterrupt


def test_a_stop_ends_the_units_too() -> None:
    assert threading.current_thread() is threading.main_thread()
    big = dg.Cluster("b200_sxm", gpus=72)
    with Watched(1) as pool:
        with pytest.raises(KeyboardInterrupt):
            dg.explore(dg.Model("deepseek-ai/DeepSeek-V3.2"), big, CHAT, LIMITS[0], executor=pool, progress=stop)
        with pytest.raises(KeyboardInterrupt):
            dg.regimes(MODEL, big, workloads=WORKLOADS, slo=LIMITS, executor=pool, partial=True, progress=stop)
    assert pool.futures
    for future in pool.futures:
        assert future.cancelled() or isinstance(future.exception(), dg.CancelledError)


def test_a_stopped_map_keeps_what_is_done(cells: dg.Frame) -> None:
    def after_one(done: int, total: int) -> None:
        if 0 < done < total:
            raise KeyboardInterrupt

    with cf.ThreadPoolExecutor(1) as pool:
        part = regimes(executor=pool, partial=True, progress=after_one)
    assert 0 < len(part) < len(cells) and part.attrs["complete"] is False
    assert equal(part, dg.Frame._of(cells.take(slice(len(part)))._data, {**cells.attrs, "complete": False}))

    def trouble(done: int, total: int) -> None:
        if done < total:
            raise RuntimeError("not a stop")

    with cf.ThreadPoolExecutor(1) as pool, pytest.raises(RuntimeError, match="not a stop"):
        regimes(executor=pool, partial=True, progress=trouble)
