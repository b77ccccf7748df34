"""Simulations from Python: the contract of Run, common random numbers, goodput, exports."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest

import disagg as dg

MODEL = dg.Model("deepseek-ai/DeepSeek-V3.2")
SMALL = dg.Model("Qwen/Qwen3-30B-A3B")  # two replicas fit the eight GPUs
CLUSTER = dg.Cluster("b200_sxm", gpus=8)
PLAN = dg.Aggregated(parallel=dg.Parallel(dp=8), batch=16)
TRACE = dg.Trace.poisson(dg.Workload(isl=1000, osl=50), rate=20, n=300, seed=2)


@pytest.fixture(scope="module")
def run() -> dg.Run:
    return dg.simulate(MODEL, CLUSTER, PLAN, TRACE)


def test_a_run_adds_up_and_repeats(run: dg.Run) -> None:
    s = run.summary
    assert s["arrivals"] == 300 == s["finished"] + s["rejected"] + s["unfinished"]
    r = run.requests
    assert np.allclose(r["e2e_ms"], r["ttft_ms"] + r["tpot_ms"] * (r["osl"] - 1))
    assert (r["ttft_ms"] > 0).all()
    assert ((run.utilization["busy"] > 0) & (run.utilization["busy"] <= 1)).all()
    assert pickle.loads(pickle.dumps(run)) == run == dg.simulate(MODEL, CLUSTER, PLAN, TRACE)
    median = run.percentiles().filter(percentile=50.0)["ttft_ms"][0]
    assert median == pytest.approx(np.percentile(r["ttft_ms"], 50))


def test_fixed_steps_are_exact() -> None:
    trace = dg.Trace.gamma(dg.Workload(isl=1024, osl=3), rate=1, cv=0, n=4)
    run = dg.simulate(MODEL, CLUSTER, PLAN, trace, timing=dg.Fixed(prefill_ms=20, decode_ms=10))
    assert np.allclose(run.requests["ttft_ms"], 20)
    assert np.allclose(run.requests["tpot_ms"], 10)
    with pytest.raises(dg.SpecError, match="prefill_ms"):
        dg.simulate(MODEL, CLUSTER, PLAN, trace, timing=dg.Fixed(prefill_ms=-1, decode_ms=10))
    with pytest.raises(dg.SpecError, match="prefill-first"):
        dg.simulate(MODEL, CLUSTER, PLAN, trace, scheduler="prefil-first")


def test_an_overload_is_no_steady_state() -> None:
    fixed = dg.Fixed(prefill_ms=50, decode_ms=10)
    plan = dg.Aggregated(parallel=dg.Parallel(dp=8), batch=2, chunk_tokens=1024)
    calm, full = (
        dg.simulate(MODEL, CLUSTER, plan, dg.Trace.poisson(dg.Workload(isl=1000, osl=50), rate=r, n=2000), timing=fixed)
        for r in (2.0, 60.0)
    )
    assert calm.stable
    assert calm.summary["lacks_requests_per_s"] == 0
    low, high = calm.summary["ttft_ms"]["low_95"], calm.summary["ttft_ms"]["high_95"]
    assert low <= calm.ttft_ms <= high
    assert not full.stable
    assert full.summary["lacks_requests_per_s"] > 20
    assert full.summary["ttft_ms"]["half_95"] is None
    assert "the capacity lacks" in full.notes[0]
    assert full.notes[0] in repr(full)
    # No more good requests a second than are served.
    good = full.goodput(dg.SLO(ttft_ms=1e9))
    assert good["share"] == 1
    assert good["requests_per_s"] < 60 - full.summary["lacks_requests_per_s"] + 3
    curve = dg.goodput_curve(MODEL, CLUSTER, plan, TRACE, dg.SLO(ttft_ms=500), rates=[1, 300], timing=fixed)
    assert curve["note"].tolist()[0] == ""
    assert curve["note"].tolist()[1].startswith(("short", "unstable"))


def test_choices_of_a_server_are_named() -> None:
    trace = dg.Trace.poisson(dg.Workload(isl=900, osl=30), rate=60, n=200, seed=1)
    plan = dg.Aggregated(parallel=dg.Parallel(dp=8), batch=16, chunk_tokens=256)
    whole, pieces = (
        dg.simulate(
            MODEL, CLUSTER, plan, trace, kv_blocks=150, kv_admission=a, timing=dg.Fixed(prefill_ms=9, decode_ms=3)
        )
        for a in ("prompt", "chunk")
    )
    assert (whole.summary["kv_admission"], pieces.summary["kv_admission"]) == ("prompt", "chunk")
    assert whole.ttft_ms != pieces.ttft_ms
    assert whole.summary["first_token"] is None
    with pytest.raises(dg.SpecError, match="kv_admission"):
        dg.simulate(MODEL, CLUSTER, plan, trace, kv_admission="chunks")


def test_who_sends_the_first_token_is_the_frameworks() -> None:
    half = dg.Parallel(tp=2)
    plan = dg.PD(
        prefill=dg.Workers(count=1, parallel=half, batch=1), decode=dg.Workers(count=1, parallel=half, batch=64)
    )
    trace = dg.Trace.poisson(dg.Workload(isl=900, osl=60), rate=8, n=600, seed=1)
    fixed = dg.Fixed(prefill_ms=20, decode_ms=15)
    runs = {name: dg.simulate(SMALL, CLUSTER, plan, trace, framework=name, timing=fixed) for name in ("vllm", "sglang")}
    assert [r.summary["first_token"] for r in runs.values()] == ["decode-step", "decode"]
    assert all(r.summary["first_token_source"] for r in runs.values())
    # What is left of the decode step under way, and the first own one.
    later = runs["vllm"].ttft_ms - runs["sglang"].ttft_ms
    assert 15 < later < 23


def test_perfetto_is_a_chrome_trace(run: dg.Run, tmp_path: Path) -> None:
    run.to_perfetto(tmp_path / "run.json")
    events = json.loads((tmp_path / "run.json").read_text())["traceEvents"]
    spans = [e for e in events if e["ph"] == "X"]
    assert len(spans) == len(run.timeline) > 0
    assert all(e["dur"] >= 0 and {"name", "ts", "pid", "tid"} <= set(e) for e in spans)


def test_the_same_requests_are_compared_in_pairs(run: dg.Run) -> None:
    slow = dg.simulate(MODEL, CLUSTER, PLAN, TRACE, timing=dg.Fixed(prefill_ms=200, decode_ms=100))
    table = dg.compare_runs([run, slow])
    row = table.filter(metric="tpot_ms")
    paired = slow.requests["tpot_ms"] - run.requests["tpot_ms"]
    assert row["difference_ms"][0] == pytest.approx(paired.mean())
    assert row["low_95_ms"][0] < row["difference_ms"][0] < row["high_95_ms"][0]
    zero = dg.compare_runs([run, run])
    assert (zero["difference_ms"] == 0).all()
    other = dg.simulate(MODEL, CLUSTER, PLAN, dg.Trace.poisson(dg.Workload(isl=9, osl=9), rate=1, n=3))
    with pytest.raises(dg.SpecError, match="other requests"):
        dg.compare_runs([run, other])


def test_goodput_by_hand(run: dg.Run) -> None:
    r = run.requests
    limit = float(np.percentile(r["ttft_ms"], 60))
    found = run.goodput(dg.SLO(ttft_ms=limit, percentile=90))
    assert found["share"] == pytest.approx((r["ttft_ms"] <= limit).mean())
    assert not found["holds"]


def test_the_highest_rate_holds_and_a_little_more_does_not() -> None:
    fixed = dg.Fixed(prefill_ms=50, decode_ms=10)
    slo = dg.SLO(ttft_ms=2000, percentile=90)
    curve = dg.goodput_curve(MODEL, CLUSTER, PLAN, TRACE, slo, rates=[2000, 1], timing=fixed)
    assert curve["rate"].tolist() == [1, 2000]
    assert curve["holds"].tolist() == [True, False]
    best = float(curve.attrs["highest_rate"])
    for rate, holds in ((best, True), (best * 1.02, False)):
        run = dg.simulate(MODEL, CLUSTER, PLAN, TRACE.scale(rate=rate), timing=fixed)
        assert run.goodput(slo)["holds"] is holds


def test_plots_label_their_axes(run: dg.Run) -> None:
    assert run.plot.latency().get_xlabel() == "TTFT (ms)"
    assert run.plot.timeline().get_xlabel() == "time (s)"
    slo = dg.SLO(ttft_ms=float(np.percentile(run.requests["ttft_ms"], 60)))
    arrived, kept = (p.get_data() for p in run.plot.goodput(slo).patches)
    assert kept.values.sum() / arrived.values.sum() == pytest.approx(run.goodput(slo)["share"])
    empty = dg.Frame({"ttft_ms": np.array([np.nan])})
    assert "nothing to draw" in dg.plots.latency(empty).texts[0].get_text()


def test_runs_side_by_side_have_the_bits_that_they_have_alone() -> None:
    workload = dg.Workload(isl=1000, osl=50)
    traces = [dg.Trace.poisson(workload, rate=20, n=50, seed=s) for s in range(3)]
    plan = dg.Aggregated(parallel=dg.Parallel(dp=4), batch=16, chunk_tokens=1024, replicas=2)
    runs = dg.simulate(SMALL, CLUSTER, plan, traces)
    assert runs == [dg.simulate(SMALL, CLUSTER, plan, t) for t in traces]
    drawn = dg.simulate(SMALL, CLUSTER, plan, traces[:1] * 2, router="power-of-two", seed=[1, 2])
    assert drawn[0] != drawn[1]
    assert drawn[1] == dg.simulate(SMALL, CLUSTER, plan, traces[0], router="power-of-two", seed=2)
    assert isinstance(dg.simulate(SMALL, CLUSTER, plan, traces[:1]), list)
    with pytest.raises(dg.SpecError, match="2 values for 3 traces"):
        dg.simulate(SMALL, CLUSTER, plan, traces, seed=[1, 2])
    with pytest.raises(dg.SpecError, match="empty"):
        dg.simulate(SMALL, CLUSTER, plan, [])


def test_what_happens_when_kv_is_short() -> None:
    plan = dg.Aggregated(parallel=dg.Parallel(dp=8), batch=16, chunk_tokens=2048)
    burst = dg.Trace.poisson(dg.Workload(isl=200, osl=300), rate=1e4, n=64, seed=1)
    drop, swap = (dg.simulate(MODEL, CLUSTER, plan, burst, kv_blocks=64, preemption=p) for p in ("recompute", "swap"))
    assert drop.utilization["preemptions"].sum() > 0
    assert swap.utilization["preemptions"].sum() > 0
    # KV that comes back from the host is not computed again.
    assert swap.utilization["prefill_tokens"].sum() < drop.utilization["prefill_tokens"].sum()
    with pytest.raises(dg.SpecError, match="'swap'"):
        dg.simulate(MODEL, CLUSTER, plan, burst, preemption="swop")


def test_a_plan_without_room_says_what_is_short() -> None:
    halves = dg.Aggregated(parallel=dg.Parallel(dp=4), batch=16, replicas=2)
    with pytest.raises(dg.InfeasibleError, match=r"memory:worker: needs .* GiB on each GPU"):
        dg.simulate(MODEL, CLUSTER, halves, TRACE)
    unit = dg.AFD(attention=dg.Pool(gpus=6), ffn=dg.Pool(gpus=2), microbatches=2, batch=16, chunk_tokens=512)
    with pytest.raises(dg.InfeasibleError, match="memory:ffn: needs"):
        dg.simulate(MODEL, CLUSTER, unit, TRACE)
    # A batch that fits in part runs in part, as on a server.
    wide = dg.Aggregated(parallel=dg.Parallel(dp=8), batch=100_000, chunk_tokens=2048)
    run = dg.simulate(MODEL, CLUSTER, wide, TRACE)
    assert run.finished == 300


def test_caches_forget_and_are_shared(tmp_path: Path) -> None:
    lines = [
        {"timestamp": 1000 * i, "input_length": 5 * 512, "output_length": 2, "hash_ids": [1, 2, 3, 4, i]}
        for i in range(5, 15)
    ]
    file = tmp_path / "shared.jsonl"
    file.write_text("\n".join(json.dumps(x) for x in lines))
    trace = dg.Trace.mooncake(file)
    plan = dg.Aggregated(parallel=dg.Parallel(dp=4), batch=16, chunk_tokens=4096, replicas=2)

    def hits(**options: object) -> int:
        run = dg.simulate(SMALL, CLUSTER, plan, trace, router="round-robin", **options)
        return int((run.requests["prefix_hit_tokens"] > 0).sum())

    # Eight ranks take turns: the first eight requests find their own cache empty.
    assert hits() == 2
    assert hits(cache_ttl_s=0.5) == 0
    assert hits(shared_tier={"tokens": 1_000_000, "gb_per_s": 25}) == 9
    assert hits(shared_tier={"tokens": 1_000_000, "gb_per_s": 25}, prefix_cache=False) == 0
    for wrong, field in (({"tokens": 1}, "gb_per_s"), ({"tokens": 0, "gb_per_s": 1}, "shared_tier")):
        with pytest.raises(dg.SpecError, match=field):
            hits(shared_tier=wrong)


def test_a_run_can_be_stopped_at_a_time() -> None:
    cut = dg.simulate(MODEL, CLUSTER, PLAN, TRACE, stop_s=5)
    s = cut.summary
    assert s["unfinished"] > 0
    assert s["finished"] + s["rejected"] + s["unfinished"] == 300
