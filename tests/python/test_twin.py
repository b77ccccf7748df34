"""The native simulator against its slow twin, event by event: every first token, end and pass."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import disagg as dg
from twin import Instance, Rank, Request, Twin

MODEL = dg.Model("Qwen/Qwen3-32B")
CLUSTER = dg.Cluster("b200_sxm", gpus=16)
PREFILL_MS, DECODE_MS = 7.0, 3.0
SCHEDULERS = ("chunked-prefill", "prefill-first", "sglang", "static")


def ps(values):
    return [None if np.isnan(v) else round(v * 1e9) for v in values.tolist()]


def of_trace(trace):
    r = trace.requests
    columns = (r["arrival_s"], r["isl"], r["osl"], r["prefix_tokens"])
    rows = zip(*(c.tolist() for c in columns), strict=True)
    return [Request(n, round(a * 1e12), isl, osl, prefix) for n, (a, isl, osl, prefix) in enumerate(rows)]


def agrees(run, twin, requests, *, step_ps):
    r = run.requests
    assert r["status"].tolist() == [q.status for q in requests]
    arrival = np.array([q.arrival for q in requests], dtype=np.int64)
    assert [round(a * 1e12) for a in r["arrival_s"].tolist()] == arrival.tolist()
    assert ps(r["ttft_ms"]) == [None if q.first is None else q.first - q.arrival for q in requests]
    assert ps(r["e2e_ms"]) == [None if q.finish is None else q.finish - q.arrival for q in requests]
    assert r["preemptions"].tolist() == [q.preempted for q in requests]
    # Equal decode steps are one row of the timeline: step by step again.
    t = run.timeline
    rows = zip(*(t[c].tolist() for c in ("start_s", "instance", "end_s", "kind", "batch", "steps")), strict=True)
    passes = []
    for start, instance, end, kind, batch, steps in rows:
        if kind == "transfer":
            continue
        first, last = round(start * 1e12), round(end * 1e12)
        edges = [first + k * step_ps for k in range(steps)] + [last]
        passes += [(a, instance, b, batch) for a, b in pairwise(edges)]
    assert sorted(passes) == sorted(twin.passes)


lengths = st.fixed_dictionaries(
    {
        "isl": st.integers(1, 300),
        "osl": st.integers(1, 40) | st.integers(40, 250),
        "prefix": st.sampled_from([0, 0, 50]),
        "spread": st.booleans(),
    }
)
load = st.fixed_dictionaries(
    {
        "n": st.integers(1, 40),
        "rate": st.sampled_from([2.0, 20.0, 200.0]),
        "cv": st.sampled_from([0.0, 1.0, 3.0]),
        "seed": st.integers(0, 999),
        "users": st.sampled_from([None, None, 1, 5]),
        "think_s": st.sampled_from([0.0, 0.05]),
    }
)
shape = st.fixed_dictionaries(
    {
        "ranks": st.integers(1, 3),
        "replicas": st.integers(1, 2),
        "batch": st.sampled_from([1, 3, 16]),
        "chunk_tokens": st.sampled_from([17, 64, 512]),
        # From barely one request to more than all need: admission waits, and preemption is common.
        "kv_blocks": st.sampled_from([24, 40, 100, 4000]),
    }
)


def draw(lengths, load):
    if lengths["spread"]:
        isl, osl = (dg.Distribution.uniform(1, max(2, lengths[k])) for k in ("isl", "osl"))
    else:
        isl, osl = lengths["isl"], lengths["osl"]
    workload = dg.Workload(isl=isl, osl=osl, prefix=lengths["prefix"])
    if load["users"] is not None:
        trace = dg.Trace.closed(
            workload, concurrency=load["users"], n=load["n"], think_s=load["think_s"], seed=load["seed"]
        )
    else:
        trace = dg.Trace.gamma(workload, rate=load["rate"], cv=load["cv"], n=load["n"], seed=load["seed"])
    return trace, {"users": load["users"], "think": round(load["think_s"] * 1e12)}


def native(plan, trace, kv_blocks, kv=(0.0, 0.0), **choice):
    timing = dg.Fixed(prefill_ms=PREFILL_MS, decode_ms=DECODE_MS, kv_ms=kv[0], kv_us_per_token=kv[1])
    return dg.simulate(MODEL, CLUSTER, plan, trace, timing=timing, kv_blocks=kv_blocks, **choice)


def fixed(decoding, pieces):
    return round(((DECODE_MS if decoding else 0) + (PREFILL_MS if pieces else 0)) * 1e9)


@given(lengths=lengths, load=load, shape=shape, scheduler=st.sampled_from(SCHEDULERS))
def test_aggregated_equals_the_twin(lengths, load, shape, scheduler):
    trace, closed = draw(lengths, load)
    requests = of_trace(trace)
    instances = [
        Instance("mixed", [Rank() for _ in range(shape["ranks"])], shape["chunk_tokens"], shape["batch"])
        for _ in range(shape["replicas"])
    ]
    twin = Twin(instances, scheduler, shape["kv_blocks"], fixed)
    twin.run(requests, **closed)
    plan = dg.Aggregated(
        parallel=dg.Parallel(dp=shape["ranks"]),
        batch=shape["batch"],
        chunk_tokens=shape["chunk_tokens"],
        replicas=shape["replicas"],
    )
    run = native(plan, trace, shape["kv_blocks"], scheduler=scheduler)
    agrees(run, twin, requests, step_ps=round(DECODE_MS * 1e9))


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_a_crowd_in_little_memory_equals_the_twin(scheduler):
    """Admission by room for answers (`sglang`, `static`), preemption (the others), rejection: all of it happens."""
    workload = dg.Workload(isl=dg.Distribution.uniform(1, 120), osl=dg.Distribution.uniform(1, 500))
    trace = dg.Trace.gamma(workload, rate=200, cv=2, n=120, seed=1)
    requests = of_trace(trace)
    twin = Twin([Instance("mixed", [Rank()], 64, 16)], scheduler, 35, fixed)
    twin.run(requests)
    plan = dg.Aggregated(parallel=dg.Parallel(), batch=16, chunk_tokens=64)
    run = native(plan, trace, 35, scheduler=scheduler)
    agrees(run, twin, requests, step_ps=round(DECODE_MS * 1e9))
    assert 0 < sum(q.status == "rejected" for q in requests) < 60
    preempted = sum(q.preempted for q in requests)
    assert preempted > 10 if scheduler in {"chunked-prefill", "prefill-first"} else preempted < 10


pools = st.fixed_dictionaries(
    {
        "prefills": st.integers(1, 2),
        "decodes": st.integers(1, 2),
        "ranks": st.integers(1, 2),
        "batch": st.sampled_from([2, 16]),
        "chunk_tokens": st.sampled_from([64, 512]),
        "kv_blocks": st.sampled_from([24, 40, 100, 4000]),
        # From nothing to more than a prefill step: then prompts wait for the links.
        "kv": st.sampled_from([(0.0, 0.0), (1.0, 0.0), (0.5, 20.0), (20.0, 100.0)]),
    }
)


@given(lengths=lengths, load=load, shape=pools)
def test_prefill_and_decode_equal_the_twin(lengths, load, shape):
    """Back-pressure and KV on the wire included: what decode has no room for stays in prefill's memory."""
    trace, closed = draw(lengths, load)
    requests = of_trace(trace)
    instances = [Instance("prefill", [Rank()], shape["chunk_tokens"], 256) for _ in range(shape["prefills"])] + [
        Instance("decode", [Rank() for _ in range(shape["ranks"])], 8192, shape["batch"])
        for _ in range(shape["decodes"])
    ]
    latency, per_token = shape["kv"]
    twin = Twin(
        instances,
        "chunked-prefill",
        shape["kv_blocks"],
        fixed,
        kv=lambda tokens: round(latency * 1e9 + per_token * 1e6 * tokens),
    )
    twin.run(requests, **closed)
    plan = dg.PD(
        prefill=dg.Workers(
            count=shape["prefills"], parallel=dg.Parallel(), batch=1, chunk_tokens=shape["chunk_tokens"]
        ),
        decode=dg.Workers(
            count=shape["decodes"],
            parallel=dg.Parallel(dp=shape["ranks"]),
            batch=shape["batch"],
            chunk_tokens=8192,
        ),
    )
    run = native(plan, trace, shape["kv_blocks"], kv=shape["kv"])
    agrees(run, twin, requests, step_ps=round(DECODE_MS * 1e9))


def test_prices_of_the_engine_are_those_of_the_public_steps():
    """The twin asks `Estimate.step` before every pass; the native side compiles decode to straight pieces once.

    Prompts go one a pass (`prefill-first`, a budget of one token), so that every pass is a step of one kind.
    """
    trace = dg.Trace.poisson(dg.Workload(isl=dg.Distribution.uniform(50, 900), osl=30), rate=40, n=30, seed=3)
    plan = dg.Aggregated(parallel=dg.Parallel(), batch=8, chunk_tokens=1)
    # The twin knows steps, and nothing of an API server before them.
    service = dg.Assumptions(request_path="service")
    work = dg.Workload.from_trace(trace)
    estimate = dg.estimate(MODEL, CLUSTER, work, plan.replace(chunk_tokens=2048), assumptions=service)

    def price(decoding, pieces):
        if pieces:
            [(new, past)] = pieces
            return round(estimate.step("prefill", batch=1, new=new, past=past).ms * 1e9)
        context = float(np.mean([r.context for r in decoding]))
        return round(estimate.step("decode", batch=len(decoding), context=context).ms * 1e9)

    requests = of_trace(trace)
    twin = Twin([Instance("mixed", [Rank()], 1, 8)], "prefill-first", 4000, price)
    twin.run(requests)
    run = dg.simulate(MODEL, CLUSTER, plan, trace, scheduler="prefill-first", kv_blocks=4000, assumptions=service)
    assert len(twin.passes) == run.utilization["steps"][0]
    ttft = np.array([q.first - q.arrival for q in requests]) / 1e9
    e2e = np.array([q.finish - q.arrival for q in requests]) / 1e9
    assert np.allclose(run.requests["ttft_ms"], ttft, rtol=1e-3)
    assert np.allclose(run.requests["e2e_ms"], e2e, rtol=1e-3)
