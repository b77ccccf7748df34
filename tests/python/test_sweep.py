"""Spaces and sweeps: the same rows on any executor, nothing lost, nothing twice."""

import concurrent.futures as cf
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import disagg as dg
from disagg import _core
from disagg._checkpoint import Checkpoint

AXES = {
    "plan.parallel.tp": [1, 2, 4, 8],
    "plan.parallel.dp": [1, 2, 4, 8],
    "plan.batch": list(range(1, 33)),
    "plan.chunk_tokens": [512, 1024],
}


def make(axes=AXES, where=("tp * dp <= 8",), **more):
    return dg.Space(
        model=dg.Model("Qwen/Qwen3-30B-A3B"),
        cluster=dg.Cluster("h200_sxm", gpus=8),
        workload=dg.Workload.preset("paper-chat"),
        axes=axes,
        where=where,
        **more,
    )


@pytest.fixture(scope="module")
def space():
    return make()


@pytest.fixture(scope="module")
def rows(space):
    return dg.sweep(space, progress=False)


def same(a, b):
    return a.columns == b.columns and all(np.array_equal(a[n], b[n], equal_nan=a[n].dtype.kind == "f") for n in a)


def test_a_space_is_a_value(space):
    assert space.size == 10 * 32 * 2 == len(space)
    for twin in (pickle.loads(pickle.dumps(space)), dg.Space.from_json(space.to_json())):
        assert twin == space and hash(twin) == hash(space)
    part = space.slice(10, 20)
    assert part.size == 10 and pickle.loads(pickle.dumps(part)) == part != space
    assert part.points["point"].tolist() == list(range(10, 20))
    assert "640 points" in repr(space) and "<script" not in space._repr_html_()


def test_rows_agree_with_estimates(space, rows):
    held, rows = rows, dg.sweep(space, runnable=False, progress=False)
    # What a server starts is priced the same whether the rest is or not.
    assert same(held.filter(held["runnable"]), rows.filter(rows["runnable"])) and 0 < held["runnable"].sum() < len(held)
    question = dg.Model("Qwen/Qwen3-30B-A3B"), dg.Cluster("h200_sxm", gpus=8), dg.Workload.preset("paper-chat")
    for i in range(0, len(rows), 97):
        row = rows.row(i)
        parallel = dg.Parallel(tp=row["plan.parallel.tp"], dp=row["plan.parallel.dp"])
        plan = dg.Aggregated(parallel=parallel, batch=row["plan.batch"], chunk_tokens=row["plan.chunk_tokens"])
        est = dg.estimate(*question, plan)
        assert (row["ttft_ms"], row["tokens_per_s"]) == (est.ttft_ms, est.tokens_per_s)


def test_every_number_is_that_of_the_estimate():
    cheap = dg.Device.preset("h100_sxm").replace(usd_per_hour=1.0)
    unit = dg.AFD(
        attention=dg.Pool(gpus=2, device=cheap), ffn=dg.Pool(gpus=4), batch=16, chunk_tokens=560, microbatches=2
    )
    metrics = [
        "ttft_ms", "tpot_ms", "itl_worst_ms", "requests_per_s", "tokens_per_s", "tokens_per_s_per_gpu",
        "tokens_per_s_per_user", "concurrency", "memory_gib", "usd_per_mtok",
    ]  # fmt: skip
    row = dg.sweep(make({"plan": [unit]}, ()), metrics=metrics, progress=False).row(0)
    est = dg.estimate(
        dg.Model("Qwen/Qwen3-30B-A3B"), dg.Cluster("h200_sxm", gpus=8), dg.Workload.preset("paper-chat"), unit
    )
    assert row["status"] == "ok"
    assert {m: row[m] for m in metrics[:-2]} == {m: getattr(est, m) for m in metrics[:-2]}
    assert row["usd_per_mtok"] == est.usd_per_mtok


def test_whole_specs_can_be_axes():
    plans = [
        dg.Aggregated(parallel=dg.Parallel(tp=2), batch=4),
        dg.AFD(attention=dg.Pool(gpus=2), ffn=dg.Pool(gpus=6), batch=8),
    ]
    found = dg.sweep(make({"plan": plans, "model": ["Qwen/Qwen3-30B-A3B", "openai/gpt-oss-120b"]}, ()), progress=False)
    assert set(found["status"]) == {"ok"} and len(set(found["tpot_ms"])) == 4
    assert set(found["model"].tolist()) == {"Qwen/Qwen3-30B-A3B", "openai/gpt-oss-120b"}


@pytest.mark.parametrize("n", [1, 10, 200])
@pytest.mark.parametrize("method", ["grid", "lhs", "sobol"])
def test_samples_are_rows_of_the_whole(space, rows, n, method):
    part = space.sample(n, method=method, seed=2)
    found = dg.sweep(part, progress=False)
    assert len(found) == n and same(found, rows.take(found["point"]))


def test_threads_and_forkserver_give_the_same_bits(space, rows):
    with cf.ThreadPoolExecutor(2) as pool:
        assert same(dg.sweep(space, executor=pool, progress=False), rows)
    with cf.ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("forkserver")) as pool:
        assert same(dg.sweep(space, executor=pool, progress=False), rows)


@pytest.mark.slow
def test_loky_gives_the_same_bits_and_survives_a_dead_worker(space, rows):
    loky = pytest.importorskip("loky")
    assert same(dg.sweep(space, executor="processes", progress=False), rows)
    pool = loky.get_reusable_executor()
    pid = pool.submit(os.getpid).result()
    os.kill(pid, signal.SIGKILL)
    assert same(dg.sweep(space, executor="processes", progress=False), rows)
    loky.get_reusable_executor().shutdown(kill_workers=True)


def questions_cross(executor):
    """Units of explore and regimes bring back the same bits too."""
    model, cluster, chat = (
        dg.Model("Qwen/Qwen3-30B-A3B"),
        dg.Cluster("h200_sxm", gpus=4),
        dg.Workload.preset("paper-chat"),
    )
    slo = dg.SLO(tpot_ms=15)
    study, twin = (dg.explore(model, cluster, chat, slo, executor=e, progress=False) for e in (executor, None))
    assert same(study.points, twin.points) and study.estimates == twin.estimates
    cells = (dg.regimes(model, cluster, workloads=chat, slo=slo, executor=e, progress=False) for e in (executor, None))
    assert same(*cells)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_dask_gives_the_same_bits(space, rows):
    distributed = pytest.importorskip("distributed")
    cluster = distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, host="127.0.0.1"
    )
    with cluster, distributed.Client(cluster) as client:
        assert same(dg.sweep(space, executor=client, progress=False), rows)
        questions_cross(client)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_ray_gives_the_same_bits(space, rows):
    ray = pytest.importorskip("ray")
    ray.init(num_cpus=2, include_dashboard=False, logging_level="ERROR")
    try:
        assert same(dg.sweep(space, executor="ray", progress=False), rows)
        questions_cross("ray")
    finally:
        ray.shutdown()


class Flaky:
    """Fails the first time each unit is tried, or always."""

    def __init__(self, error, always=False):
        self.error, self.always, self.seen = error, always, set()

    def submit(self, fn, /, *args):
        future = cf.Future()
        key = args[1].tobytes()
        if self.always or key not in self.seen:
            self.seen.add(key)
            future.set_exception(self.error)
        else:
            future.set_result(fn(*args))
        return future


def test_a_unit_that_fails_is_tried_again(space, rows):
    assert same(dg.sweep(space, executor=Flaky(OSError("lost")), progress=False), rows)


def test_a_unit_that_always_fails_is_an_error_that_names_it(space):
    with pytest.raises(dg.DisaggError, match=r"points \d+ to \d+ could not be priced: OSError\('lost'\)"):
        dg.sweep(space, executor=Flaky(OSError("lost"), always=True), progress=False)


def test_an_executor_that_cannot_pickle_is_refused(space):
    with pytest.raises(dg.SpecError, match="executor: cannot carry the work"):
        dg.sweep(space, executor=Flaky(pickle.PicklingError("no"), always=True), progress=False)
    with pytest.raises(dg.SpecError, match="executor: 'clouds' does not fit"):
        dg.sweep(space, executor="clouds", progress=False)


def test_a_checkpoint_takes_up_where_it_was_cut(tmp_path, space, rows):
    path = tmp_path / "study.ckpt"

    def stop(done, _):
        if done > 100:
            raise KeyboardInterrupt

    part = dg.sweep(space, checkpoint=path, partial=True, progress=stop)
    assert 0 < len(part) < len(rows) and part.attrs["complete"] is False
    assert same(part, rows.take(part["point"]))
    # A torn record at the end (power cut) is cut off, not believed.
    with path.open("ab") as file:
        file.write(b"\x07torn")
    priced = []
    whole = dg.sweep(space, checkpoint=path, progress=lambda done, _: priced.append(done))
    assert same(whole, rows) and whole.attrs["complete"] is True and min(priced) > len(part)
    before = path.stat().st_size
    assert same(dg.sweep(space, checkpoint=path, progress=False), rows) and path.stat().st_size == before


def test_a_checkpoint_of_another_study_is_refused(tmp_path, space):
    path = tmp_path / "study.ckpt"
    dg.sweep(space.slice(0, 3), checkpoint=path, progress=False)
    with pytest.raises(dg.SpecError, match="belongs to another study: metrics differ"):
        dg.sweep(space.slice(0, 3), metrics=["tpot_ms"], checkpoint=path, progress=False)
    with pytest.raises(dg.SpecError, match="belongs to another study: points differ"):
        dg.sweep(space, checkpoint=path, progress=False)
    path.write_text("hello")
    with pytest.raises(dg.DataError, match="is not a checkpoint"):
        dg.sweep(space, checkpoint=path, progress=False)


KILLED = """
import os, signal, sys
import disagg as dg
from disagg import _checkpoint
space = dg.Space.from_json(open(sys.argv[1]).read())
add = _checkpoint.Checkpoint.add
def count(self, *a):
    add(self, *a)
    if len(self.units) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
_checkpoint.Checkpoint.add = count
dg.sweep(space, checkpoint=sys.argv[2], progress=False)
"""


def test_kill_9_in_the_middle_loses_nothing(tmp_path, space, rows):
    (tmp_path / "space.json").write_text(space.to_json())
    path = tmp_path / "study.ckpt"
    done = subprocess.run([sys.executable, "-c", KILLED, tmp_path / "space.json", path], check=False)
    assert done.returncode == -signal.SIGKILL
    found = Checkpoint(path, _identity(space), space.size)
    found.close()
    kept = sum(b - a for a, b in found.units)
    assert 0 < kept < space.size
    first = []
    assert same(dg.sweep(space, checkpoint=path, progress=lambda n, _: first.append(n)), rows)
    assert min(first) > kept


def _identity(space):
    return {
        "space": space.to_json(),
        "points": None,
        "metrics": ["ttft_ms", "tpot_ms", "tokens_per_s"],
        "runnable": True,
        "kernels": _core.kernels_identity(),
        "version": dg.__version__,
    }


def test_progress_counts_to_the_end_and_stop_is_prompt(space):
    seen = []
    dg.sweep(space, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (space.size, space.size) and seen == sorted(seen)
    big = make({**AXES, "plan.batch": list(range(1, 2000))})
    timer = []

    def stop(done, _):
        if done:
            timer.append(time.monotonic())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        dg.sweep(big, progress=stop)
    assert timer


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"axes": {"plan.parallel.tpp": [1]}}, "axes.plan.parallel.tpp: has no field 'tpp'; did you mean 'tp'"),
        ({"axes": {"plan.batch": 4}}, "axes.plan.batch: 4 is not a list of values"),
        ({"axes": {"plan.batch": [float("nan")]}}, "axes.plan.batch: nan cannot be a value"),
        ({"axes": {"plan.batch": []}}, "axes.plan.batch: has no values"),
        ({"where": ["tp > 8"]}, "where: no point keeps 'tp > 8'"),
        ({"where": ["tp > 4", "tp < 4"]}, "no point keeps 'tp > 4' and 'tp < 4' together"),
        ({"where": ["tp = 4"]}, "did you mean '=='"),
        ({"where": [3]}, r"where\[0\]: 3 is not text"),
        ({"where": ["(" * 100_000 + "tp" + ")" * 100_000]}, "bytes long, 10000 are the most"),
        ({"where": ["(" * 1000 + "tp" + ")" * 1000]}, "more than 100 brackets"),
    ],
)
def test_wrong_spaces_say_what_is_wrong(change, said):
    with pytest.raises(dg.SpecError, match=said):
        make(**{"axes": AXES, "where": (), **change})


def test_wrong_questions_say_what_is_wrong(space):
    with pytest.raises(dg.SpecError, match=r"metrics\[0\]: 'ttft' is not a metric; did you mean 'ttft_ms'"):
        dg.sweep(space, metrics=["ttft"])
    with pytest.raises(dg.SpecError, match="method: 'sobel' is not a way to sample"):
        space.sample(3, method="sobel")
    with pytest.raises(dg.SpecError, match="n: -1 does not fit"):
        space.sample(-1)
    with pytest.raises(dg.SpecError, match="slice: 5 to 1000000 does not lie"):
        space.slice(5, 1_000_000)
