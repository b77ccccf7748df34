"""Bounds that are times: moderate inputs, and how soon a stop is heard, on this machine and while nothing else runs."""

from __future__ import annotations

import random
import signal
import statistics
import sys
import threading
import time

import disagg as dg

MODEL, CLUSTER = dg.Model("Qwen/Qwen3-30B-A3B"), dg.Cluster("h200_sxm", gpus=8)
WORKLOAD, SLO = dg.Workload(isl=512, osl=64), dg.SLO(ttft_ms=2000, tpot_ms=50)
PLAN = dg.Aggregated(parallel=dg.Parallel(tp=2), batch=8)


def took(call) -> float:
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def flows(gpus: int):
    r = random.Random(1)
    pairs = [(a := r.randrange(gpus), (a + 1 + r.randrange(gpus - 1)) % gpus) for _ in range(5000)]
    return [(a, b, float(r.randrange(1, 10**9))) for a, b in pairs]


def space(where):
    paths = ["plan.parallel.tp", "plan.parallel.dp", "plan.batch", "plan.chunk_tokens", "workload.isl", "workload.osl"]
    axes = {p: list(range(1, 101)) for p in paths}
    return dg.Space(model=MODEL, cluster=CLUSTER, workload=WORKLOAD, plan=PLAN, axes=axes, where=[where])


def stops(name, call, repeats: int = 200) -> None:
    """How long after a signal the call is back, at random instants of its run."""
    late = []
    old = signal.signal(signal.SIGINT, signal.default_int_handler)
    whole = took(call)
    for k in range(repeats):
        sent = []

        def send(sent=sent):
            sent.append(time.perf_counter())
            signal.raise_signal(signal.SIGINT)

        timer = threading.Timer(random.Random(k).uniform(0.02, 0.9) * min(whole, 5.0), send)
        timer.start()
        try:
            call()
        except KeyboardInterrupt:
            late.append(time.perf_counter() - sent[0])
        finally:
            timer.cancel()
            timer.join()
    signal.signal(signal.SIGINT, old)
    if late:
        late.sort()
        most, middle = late[min(len(late) - 1, int(0.99 * len(late)))], statistics.median(late)
        print(
            f"stop of {name:<10} p50 {middle * 1e3:5.0f} ms, p99 {most * 1e3:5.0f} ms, max {late[-1] * 1e3:5.0f} ms "
            f"of {len(late)} (bound of p99: 100 ms)"
        )


def times() -> None:
    """Moderate inputs."""
    for gpus in (8, 64, 512):
        cluster = dg.Cluster("h200_sxm", gpus=gpus)
        rows = flows(gpus)
        seconds = took(lambda c=cluster, rows=rows: dg.network.flows(c, rows))
        print(f"5,000 flows on {gpus:>4} GPUs  {seconds:6.3f} s (bound: 0.5 s)")
    for groups in (1, 2):
        half = took(
            lambda g=groups: dg.afd.schedule(
                (20, 10, 5, 5), layers=61, microbatches=64, attention_groups=g, duplex="half"
            )
        )
        print(f"schedule, 61 layers, 64 micro-batches, {groups} groups  {half * 1e3:6.2f} ms (bound: 10 ms)")
    for where in (
        "tp * osl <= 100",
        "tp + dp + batch + chunk_tokens + isl + osl <= 300",
        "tp * dp * batch * isl <= 5000",
    ):
        print(f"10^12 points, {where:<50} {took(lambda w=where: space(w)):6.3f} s")
    large = dg.Cluster("h200_sxm", gpus=4096)
    seconds = took(lambda: dg.explore(MODEL, large, WORKLOAD, SLO, progress=False))
    print(f"4,096 GPUs explored  {seconds:6.2f} s (bound: 10 s)")


def main() -> None:
    """All of it, or with `stops` as its argument only those."""
    only = sys.argv[1:] == ["stops"]
    if not only:
        times()
    batches = dg.Space(
        model=MODEL,
        cluster=CLUSTER,
        workload=WORKLOAD,
        plan=PLAN,
        axes={
            "plan.parallel.tp": [1, 2, 4, 8],
            "plan.batch": list(range(1, 1500)),
            "plan.chunk_tokens": [256, 512, 1024],
        },
    )
    lengths = [256 * 2**k for k in range(6)]
    slos = [dg.SLO(ttft_ms=500.0 * k, tpot_ms=10.0 * k) for k in range(1, 11)]
    trace = dg.Trace.poisson(WORKLOAD, rate=400.0, n=200_000)
    wide = dg.Cluster("h200_sxm", gpus=256)
    stops("explore", lambda: dg.explore(MODEL, wide, WORKLOAD, SLO, progress=False))
    stops("regimes", lambda: dg.regimes(MODEL, wide, isl=lengths, osl=64, slo=slos, progress=False))
    stops("audit", lambda: dg.Case(MODEL, wide, WORKLOAD).audit(SLO, progress=False))
    stops("simulate", lambda: dg.simulate(MODEL, CLUSTER, PLAN, trace, progress=False))
    stops("sweep", lambda: dg.sweep(batches, progress=False))
    stops("optimize", lambda: dg.optimize(batches, objective="tokens_per_s", progress=False))


if __name__ == "__main__":
    main()
