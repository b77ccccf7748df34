"""sweep: every point of a space priced, here or beyond one machine, resumable and interruptible."""

from __future__ import annotations

import concurrent.futures as cf
import os
import pickle
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np

from disagg import _core, executors
from disagg._checkpoint import Checkpoint
from disagg._versions import __version__
from disagg.errors import DisaggError, Problem, SpecError
from disagg.frame import Frame
from disagg.progress import Progress, reporter
from disagg.space import Space
from disagg.specs._base import checked, expect

__all__ = ["sweep"]

FIRST_UNIT = 32
UNIT_S = 0.2
MOST_UNIT = 65_536
ATTEMPTS = 3
TICK_S = 0.05

Report = Callable[[int, int], object] | None


class _Work:
    """What is done and what is not, in units of adaptive size."""

    def __init__(self, space: Space, metrics: list[str], checkpoint: Checkpoint | None) -> None:
        self.space, self.metrics, self.checkpoint = space, metrics, checkpoint
        self.text = space.to_json()
        self.units: dict[tuple[int, int], dict[str, Any]] = {} if checkpoint is None else dict(checkpoint.units)
        self.gaps = [(0, space.size)] if checkpoint is None else checkpoint.missing(space.size)
        self.unit = FIRST_UNIT

    @property
    def done(self) -> int:
        return sum(stop - start for start, stop in self.units)

    def next(self) -> tuple[int, int] | None:
        """Take the next range to price."""
        if not self.gaps:
            return None
        start, stop = self.gaps.pop(0)
        end = min(stop, start + self.unit)
        if end < stop:
            self.gaps.insert(0, (end, stop))
        return start, end

    def finish(self, key: tuple[int, int], seconds: float, columns: dict[str, Any]) -> None:
        if self.checkpoint is not None:
            self.checkpoint.add(*key, columns)
        self.units[key] = columns
        # Work units of 50 to 500 ms: the next ones take what would have lasted UNIT_S.
        wanted = UNIT_S / max(seconds / (key[1] - key[0]), 1e-9)
        self.unit = int(min(max(wanted, self.unit / 4, 1), self.unit * 4, MOST_UNIT))

    def frame(self, attrs: dict[str, Any]) -> Frame:
        parts = [self.units[key] for key in sorted(self.units)]
        if not parts:
            parts = [executors.work(self.text, self.space._numbers(0, 0), self.metrics)[1]]
        return Frame({n: np.concatenate([p[n] for p in parts]) for n in parts[0]}, attrs=attrs)


@checked
def sweep(
    space: Space,
    *,
    metrics: Sequence[str] = ("ttft_ms", "tpot_ms", "tokens_per_s"),
    executor: Any = None,
    checkpoint: str | os.PathLike[str] | None = None,
    partial: bool = False,
    progress: Progress = None,
) -> Frame:
    """Price every point of a space (or of a sample or slice of it).

    Parameters
    ----------
    space
        What to price.
    metrics
        Numbers wanted for each point: ``ttft_ms``, ``tpot_ms``, ``itl_worst_ms``, ``requests_per_s``,
        ``tokens_per_s``, ``tokens_per_s_per_gpu``, ``tokens_per_s_per_user``, ``concurrency``,
        ``gpus``, ``memory_gib``, ``usd_per_mtok``, ``measured_share``.
    executor
        None: this process, all cores. Or any `concurrent.futures.Executor`, a dask ``Client``,
        ``"processes"`` (loky) or ``"ray"``. The rows are the same, to the last bit.
    checkpoint
        A file that keeps finished work; the same call takes up where it was stopped.
    partial
        Whether stopping (Ctrl-C) gives the rows that are done instead of raising;
        ``attrs["complete"]`` says which.
    progress
        None: a bar after one second where somebody can see it; True; False; or ``f(done, total)``.

    Returns
    -------
    Frame
        One row a point in the order of their numbers: ``point``, the axes, the metrics, ``feasible``,
        ``binding`` (what stops it) and ``status`` (``"ok"``, or why it could not be priced).

    Raises
    ------
    SpecError
        If a metric is unknown, the checkpoint belongs to another study, or the executor does not fit.
    DisaggError
        If a unit of work fails three times or the executor's workers die; a checkpoint keeps the rest.

    Examples
    --------
    >>> import disagg as dg
    >>> space = dg.Space(model=dg.Model("Qwen/Qwen3-30B-A3B"), cluster=dg.Cluster("h200_sxm", gpus=8),
    ...                  workload=dg.Workload.preset("paper-chat"),
    ...                  axes={"plan.parallel.tp": [1, 2], "plan.batch": [8, 64]})
    >>> found = dg.sweep(space)
    >>> found["plan.batch"].tolist(), bool(found["feasible"].all())
    ([8, 64, 8, 64], True)
    """
    expect(space=(space, Space), partial=(partial, bool))
    if isinstance(metrics, str):
        metrics = [metrics]
    known = _core.design_metrics()
    problems = [
        Problem(f"metrics[{i}]", f"{m!r} is not a metric", _core.near(str(m), known))
        for i, m in enumerate(metrics)
        if m not in known
    ]
    if not metrics:
        problems.append(Problem("metrics", "no metric is asked for", f"known: {', '.join(known)}"))
    if problems:
        raise SpecError(problems)
    identity = {
        "space": space.to_json(),
        "points": None if space._points is None else space._points.tolist(),
        "metrics": list(metrics),
        "version": __version__,
    }
    work = _Work(space, list(metrics), None if checkpoint is None else Checkpoint(checkpoint, identity))
    complete = True
    with reporter(progress, "points") as report:
        try:
            if executor is None:
                _here(work, report)
            else:
                _elsewhere(work, executor, report)
        except KeyboardInterrupt:
            if not partial:
                raise
            complete = False
    return work.frame({"version": __version__, "space": space.to_json(), "complete": complete})


def _here(work: _Work, report: Report) -> None:
    total = work.space.size
    space = _core.DesignSpace(work.text)
    while (key := work.next()) is not None:
        begin, before = time.perf_counter(), work.done
        tell: Report = None if report is None else (lambda done, _, b=before: report(b + done, total))
        columns, _ = space.price(work.space._numbers(*key), work.metrics, tell)
        work.finish(key, time.perf_counter() - begin, executors.texts(columns))
        if report is not None:
            report(work.done, total)


class _Flight:
    """Units of work that are under way on an executor."""

    def __init__(self, work: _Work, executor: Any, opened: ExitStack) -> None:
        self.work, self.executor, self.opened = work, executor, opened
        self.pool = opened.enter_context(executors.resolve(executor))
        self.width = 2 * executors.width(executor)
        self.flying: dict[cf.Future[Any], tuple[int, int]] = {}
        self.again: list[tuple[int, int]] = []
        self.failures: dict[tuple[int, int], int] = {}

    def launch(self) -> bool:
        """Keep as many units under way as there are workers for; False when all is done."""
        work = self.work
        while len(self.flying) < self.width and (key := self.again.pop() if self.again else work.next()) is not None:
            try:
                future = self.pool.submit(
                    executors.work, work.text, work.space._numbers(*key), work.metrics, os.getpid()
                )
            except (pickle.PicklingError, TypeError, AttributeError) as e:
                raise _unfit(e) from e
            self.flying[future] = key
        return bool(self.flying)

    def land(self) -> None:
        """Take in what has finished within a tick; what failed is tried again."""
        finished, _ = cf.wait(self.flying, timeout=TICK_S, return_when=cf.FIRST_COMPLETED)
        for future in finished:
            key = self.flying.pop(future)
            error = future.exception()
            if error is None:
                self.work.finish(key, *future.result())
            else:
                self._retry(key, error)

    def _retry(self, key: tuple[int, int], error: BaseException) -> None:
        if isinstance(error, pickle.PicklingError):
            raise _unfit(error) from error
        self.failures[key] = self.failures.get(key, 0) + 1
        dead = isinstance(error, cf.BrokenExecutor)
        if self.failures[key] >= ATTEMPTS or (dead and self.executor != "processes"):
            kept = "" if self.work.checkpoint is None else "; the checkpoint keeps what is done: call again"
            raise DisaggError(f"points {key[0]} to {key[1]} could not be priced: {error!r}{kept}") from error
        self.again.append(key)
        if dead:
            # Loky's dead workers are replaced by asking for the executor again.
            self.pool = self.opened.enter_context(executors.resolve(self.executor))


def _unfit(error: BaseException) -> SpecError:
    return SpecError([("executor", f"cannot carry the work: {error}", "give one that pickles functions and arrays")])


def _elsewhere(work: _Work, executor: Any, report: Report) -> None:
    total, told = work.space.size, 0.0
    with ExitStack() as opened:
        flight = _Flight(work, executor, opened)
        try:
            while flight.launch():
                flight.land()
                if report is not None and time.monotonic() - told > TICK_S:
                    told = time.monotonic()
                    report(work.done, total)
        finally:
            for future in flight.flying:
                future.cancel()
    if report is not None:
        report(total, total)
