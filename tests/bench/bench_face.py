"""What the Python face costs, and what threads bring: ratios on this machine, never a gate on seconds."""

from __future__ import annotations

import pickle
import statistics
import time

import numpy as np

import disagg as dg
from disagg import _core


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
