"""What the Python face costs, and what threads bring: ratios on this machine, never a gate on seconds."""

from __future__ import annotations

import pickle
import statistics
import time

import numpy as np

import disagg as dg
from disagg import _core


def least(work, calls):
    """Microseconds of a call: the least of seven rounds of `calls`."""
    rounds = []
    for _ in range(7):
        start = time.perf_counter()
        for _ in range(calls):
            work()
        rounds.append((time.perf_counter() - start) / calls * 1e6)
    return min(rounds)


def border(model, cluster, chat):
    """What specs cost on their way over the border; run with two builds, the ratios are what counts."""
    plan = dg.Aggregated(parallel=dg.Parallel(dp=8), batch=16, chunk_tokens=1024, replicas=8)
    unit = dg.AFD(attention=dg.Pool(gpus=16), ffn=dg.Pool(gpus=48), microbatches=3, batch=8, chunk_tokens=544)
    logged = dg.Workload(lengths=[(i % 100, 500 + i, 100 + i % 50) for i in range(2000)])
    rows = {
        "dg.estimate of a fixed plan": (lambda: dg.estimate(model, cluster, chat, plan), 20),
        "the same of a fixed AFD plan": (lambda: dg.estimate(model, cluster, chat, unit), 20),
        "the same, all of it read": (lambda: dg.estimate(model, cluster, chat, plan).to_json(), 10),
        "plan.replace(batch=32)": (lambda: plan.replace(batch=32), 200),
        "an attribute beside 2,000 lengths": (lambda: logged.prefix_scope, 100),
        "plan.parallel": (lambda: plan.parallel, 200),
        "hash(plan)": (lambda: hash(plan), 200),
    }
    for what, (work, calls) in rows.items():
        work()
        print(f"{what:35} {least(work, calls):10.2f} us")


def seconds(work, repeats=5):
    """Median time of a call."""
    took = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        took.append(time.perf_counter() - start)
    return statistics.median(took)


def main():
    """Print one line a measurement."""
    model, chat = dg.Model("deepseek-ai/DeepSeek-V3.2"), dg.Workload.preset("paper-chat")
    cluster, slo = dg.Cluster("b200_sxm", gpus=64), dg.SLO(ttft_ms=2000, tpot_ms=50)
    plan = dg.Aggregated(parallel=dg.Parallel(dp=8), replicas=8)

    print(f"door                {seconds(lambda: _core._spin(0.0), 50) * 1e3:10.3f} ms a call")
    print(f"a spec              {seconds(lambda: dg.Parallel(tp=8), 200) * 1e6:10.1f} us")
    print(f"an estimate         {seconds(lambda: dg.estimate(model, cluster, chat, plan)) * 1e3:10.2f} ms")
    border(model, cluster, chat)

    x = np.random.default_rng(0).normal(size=1_000_000)
    print(f"a million rows over {seconds(lambda: dg.Frame._from_core(_core._frame(x))) * 1e3:10.2f} ms")

    def search():
        return dg.explore(model, cluster, chat, slo, progress=False)

    study = search()
    dg.set_num_threads(1)
    one = seconds(search, 2)
    dg.set_num_threads(0)
    many = seconds(search, 2)
    print(f"plans a second      {study.priced / many:10.0f}")
    print(f"threads             {one / many:10.2f} times one thread, on {_core.num_threads()}")
    print(f"a study pickled     {seconds(lambda: pickle.loads(pickle.dumps(study)), 2):10.3f} s, {study.priced} plans")


if __name__ == "__main__":
    main()
