"""Serving depth from the notebook's side: pools, overlap, drafts, open loops, the drawn schedule."""

from __future__ import annotations

import pytest

import disagg as dg


@pytest.fixture(scope="module")
def question() -> tuple[dg.Model, dg.Cluster, dg.Workload]:
    cluster = dg.Cluster("b200_sxm", gpus=32)
    return dg.Model("deepseek-ai/DeepSeek-V3.2"), cluster, dg.Workload.preset("paper-chat")


def unit(**more: object) -> dg.AFD:
    given = {"attention": dg.Pool(gpus=8), "ffn": dg.Pool(gpus=24), "microbatches": 3, "batch": 32, **more}
    return dg.AFD(**given)  # type: ignore[arg-type]


def test_the_schedule_is_drawn(question):
    est = dg.estimate(*question, unit())
    assert set(est.timeline["stage"].tolist()) == {"attention", "a2f", "ffn", "f2a"}
    assert (est.timeline["end_us"] > est.timeline["start_us"]).all()
    ax = est.plot.pipeline()
    assert "idle" in ax.get_title()
    assert ax.get_xlabel() == "microseconds"
    aggregated = dg.estimate(*question, dg.Aggregated(parallel=dg.Parallel(dp=32)))
    assert len(aggregated.timeline) == 0
    assert aggregated.plot.pipeline() is not None


def test_pools_of_their_own_hardware(question):
    plain = dg.estimate(*question, unit())
    h200 = dg.Device.preset("h200_sxm")
    mixed = dg.estimate(*question, unit(attention=dg.Pool(gpus=8, device=h200)))
    assert mixed.watts < plain.watts
    assert mixed.tpot_ms != plain.tpot_ms
    assert 0.4 * mixed.watts < mixed.watts_drawn < mixed.watts
    assert mixed.watts_drawn < plain.watts_drawn
    assert mixed.joules_per_token == pytest.approx(mixed.watts_drawn / mixed.tokens_per_s)
    what_if = h200.replace(name="what-if", hbm_bytes_per_s=2e12)
    slow = dg.estimate(*question, unit(attention=dg.Pool(gpus=8, device=what_if)))
    assert slow.compute_evidence["scaled"] > 0.3
    assert any("'what-if' was not measured" in w for w in slow.warnings)
    assert slow.tpot_ms > mixed.tpot_ms


def test_open_loops(question):
    plan = dg.PD(
        prefill=dg.Workers(count=2, parallel=dg.Parallel(dp=8)), decode=dg.Workers(count=1, parallel=dg.Parallel(dp=16))
    )
    closed = dg.estimate(*question, plan)
    half = dg.estimate(*question, plan, load=closed.requests_per_s / 2)
    full = dg.estimate(*question, plan, load=closed.requests_per_s * 0.97)
    assert closed.wait_ms == 0
    assert closed.queueing is None
    assert half.queueing is not None
    assert "flow-equivalent" in half.queueing
    assert 0 < half.wait_ms < full.wait_ms
    assert half.tpot_ms < full.tpot_ms <= closed.tpot_ms * 1.01
    with pytest.raises(dg.InfeasibleError, match="requests/s"):
        dg.estimate(*question, plan, load=closed.requests_per_s * 2)
    with pytest.raises(dg.SpecError, match="load"):
        dg.estimate(*question, plan, load=-1)


@pytest.mark.parametrize(
    ("serving", "field"),
    [
        ({"mtp": 2, "acceptance": 2.5}, "acceptance"),
        ({"draft_acceptance": [0.5]}, "draft_acceptance"),
        ({"imbalance": "power_lw_1.2"}, "imbalance"),
        ({"imbalance": [1.0, -1.0]}, "imbalance"),
        ({"imbalance": -1.0}, "imbalance"),
    ],
)
def test_bad_serving_is_named(serving, field):
    with pytest.raises(dg.SpecError, match=field):
        dg.Serving(**serving)


def test_contradictions_are_named(question):
    with pytest.raises(dg.SpecError, match="7 loads"):
        dg.estimate(*question, unit(), serving=dg.Serving(imbalance=[1.0] * 7))
    with pytest.raises(dg.SpecError, match="duplex"):
        dg.estimate(*question, unit(duplex="half"), serving=dg.Serving(fused_dispatch=True))
    with pytest.raises(dg.SpecError, match="micro-batches"):
        dg.estimate(*question, unit(batch=2))


def test_serving_switches_move_the_step(question):
    plain = dg.estimate(*question, unit()).step("decode", batch=32, context=4000)
    drafts = dg.estimate(*question, unit(), serving=dg.Serving(mtp=1, acceptance=0.8))
    fused = dg.estimate(*question, unit(), serving=dg.Serving(fused_dispatch=True))
    copies = dg.estimate(*question, unit(), serving=dg.Serving(eplb_slots=24))
    assert drafts.step("decode", batch=32, context=4000).ms > plain.ms
    assert "draft" in drafts.breakdown["op"].tolist()
    assert fused.step("decode", batch=32, context=4000).ms != plain.ms
    assert copies.step("decode", batch=32, context=4000).ms != plain.ms
