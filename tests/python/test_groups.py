"""Attention groups and pipeline stages of AFD plans, from the keyword to the plot."""

import matplotlib as mpl
import numpy as np
import pytest

import disagg as dg

mpl.use("Agg")

MODEL = dg.Model("deepseek-ai/DeepSeek-V3.2")
CLUSTER = dg.Cluster("b200_sxm", gpus=32)
CHAT = dg.Workload.preset("paper-chat")


def plan(**kw):
    base = {"attention": dg.Pool(gpus=8), "ffn": dg.Pool(gpus=8), "microbatches": 1, "batch": 16, "chunk_tokens": 544}
    return dg.AFD(**{**base, **kw})


def estimate(p, **kw):
    return dg.estimate(MODEL, CLUSTER, CHAT, p, framework="trtllm", **kw)


def test_one_group_and_one_stage_is_the_plan_without_them():
    a, b = plan(), plan(attention_groups=1, pp=1)
    assert a == b
    assert (a.attention_groups, a.pp) == (1, 1)
    old = {k: v for k, v in a.to_dict().items() if k not in ("attention_groups", "pp")}
    assert dg.AFD.from_dict(old) == a
    assert type(a).from_json(plan(attention_groups=2, pp=2).to_json()).attention_groups == 2


def test_groups_fill_the_pool():
    one, two = estimate(plan()), estimate(plan(attention_groups=2))
    ffn = [{(r["phase"], r["stage"]): r["utilization"] for r in e.pipeline.rows()}["decode", "ffn"] for e in (one, two)]
    assert ffn[1] > ffn[0]
    assert two.requests_per_s > one.requests_per_s
    # The same seats; those on their way to the server and back hold none.
    held = [e.concurrency - e.requests_per_s * sum(e.ttft_path_ms.values()) * 1e-3 for e in (one, two)]
    assert held[1] == pytest.approx(held[0], rel=1e-6)
    lanes = two.timeline
    assert set(np.asarray(lanes["attention_group"])) == {0, 1}
    ticks = [t.get_text() for t in two.plot.pipeline().get_yticklabels()]
    assert ticks[:2] == ["attention GPUs, group 0", "attention GPUs, group 1"]
    assert "FFN GPUs" in ticks
    assert len(ticks) == 7
    assert len(one.plot.pipeline().get_yticklabels()) == 4


def test_stages_keep_a_batch_each():
    one, two = estimate(plan()), estimate(plan(pp=2))
    assert (two.gpus_used, one.gpus_used) == (32, 16)
    weights = [e.memory.filter(item="weights")["gib"] for e in (one, two)]
    assert (weights[1] < 0.6 * weights[0]).all()
    assert two.requests_per_s == pytest.approx(2 * one.requests_per_s, rel=0.1)
    assert "pipeline_hop" in two.breakdown["op"].tolist()


@pytest.mark.parametrize(
    ("kw", "path", "said"),
    [
        ({"attention_groups": 3}, "plan.attention_groups", "3 groups do not share 8 attention ranks"),
        ({"pp": 62, "attention": dg.Pool(gpus=1), "ffn": dg.Pool(gpus=1)}, "plan.pp", "62 stages for 61 layers"),
        ({"pp": 3}, "plan", "needs 48 GPUs"),
    ],
)
def test_what_does_not_fit_is_named(kw, path, said):
    with pytest.raises(dg.SpecError, match=said) as e:
        estimate(plan(**kw))
    assert path in str(e.value)


@pytest.mark.parametrize("field", ["attention_groups", "pp"])
def test_published_formulas_refuse_by_switch(field):
    for profile in (dg.Assumptions.paper(), dg.Assumptions.aiconfigurator()):
        with pytest.raises(dg.SpecError, match=r"pipeline_formula=.* has no formula for 2"):
            estimate(plan(**{field: 2}), assumptions=profile)


def test_zero_is_no_count():
    for field in ("attention_groups", "pp"):
        with pytest.raises(dg.SpecError, match=field):
            plan(**{field: 0})


def test_axes_of_a_space():
    space = dg.Space(
        model=MODEL,
        cluster=dg.Cluster("b200_sxm", gpus=64),
        workload=CHAT,
        plan=plan(),
        framework="trtllm",
        axes={
            "plan.attention_groups": [1, 2, 4],
            "plan.pp": [1, 2],
            "plan.microbatches": [1, 2],
            "plan.units": [1, 2],
        },
        where=["attention_groups * microbatches <= 4"],
    )
    f = dg.sweep(space, metrics=["tpot_ms", "tokens_per_s_per_gpu"], progress=False)
    assert len(f) == 20
    assert set(np.asarray(f["plan.attention_groups"])) == {1, 2, 4}
    by = {
        (r["plan.attention_groups"], r["plan.pp"], r["plan.microbatches"], r["plan.units"]): r["tpot_ms"]
        for r in f.rows()
    }
    alone = dg.estimate(
        MODEL, dg.Cluster("b200_sxm", gpus=64), CHAT, plan(attention_groups=2, pp=2), framework="trtllm"
    )
    assert by[2, 2, 1, 1] == alone.tpot_ms
    found = dg.optimize(space, objective="tokens_per_s_per_gpu", constraints=["tpot_ms <= 60"])
    rate, tpot = np.asarray(f["tokens_per_s_per_gpu"]), np.asarray(f["tpot_ms"])
    assert found.best.tokens_per_s_per_gpu == pytest.approx(np.nanmax(rate[tpot <= 60]))


def test_explore_scans_groups_as_the_engine_prices_them():
    study = dg.explore(
        MODEL, CLUSTER, CHAT, dg.SLO(tpot_ms=30), levels=["aggregated+afd"], frameworks=["trtllm"], progress=False
    )
    p = study.points
    groups, m = np.asarray(p["attention_groups"]), np.asarray(p["microbatches"])
    # One and two stand on the coarse grid; four are climbed to where they serve more than two.
    assert {1, 2} <= set(groups) <= {1, 2, 4}
    assert (groups[groups > 1] * m[groups > 1] <= 4).all()
    best = study.best("aggregated+afd")
    again = estimate(best.plan)
    assert again.tokens_per_s == best.tokens_per_s
    for batch in (4, 8, 16, 32, 64):
        four = estimate(plan(attention_groups=4, microbatches=1, batch=batch))
        assert four.tpot_ms > 30 or four.tokens_per_s <= best.tokens_per_s * 1.01
    paper = dg.explore(
        MODEL, CLUSTER, CHAT, dg.SLO(tpot_ms=30), levels=["aggregated+afd"], frameworks=["trtllm"],
        assumptions=dg.Assumptions.paper(), progress=False,
    )  # fmt: skip
    assert set(np.asarray(paper.points["attention_groups"])) == {1}


def test_requests_over_time():
    trace = dg.Trace.poisson(dg.Workload(isl=500, osl=40), rate=20.0, n=200, seed=1)
    for kw in ({"attention_groups": 2}, {"pp": 2}):
        run = dg.simulate(MODEL, CLUSTER, plan(**kw), trace, framework="trtllm", seed=1, progress=False)
        assert run.summary["finished"] == 200


def test_the_schedule_alone():
    stage = (20, 10, 5, 5)
    for layers, m, g in ((1, 1, 1), (61, 1, 3), (61, 2, 2), (7, 3, 4)):
        got = dg.afd.schedule(stage, layers=layers, microbatches=m, attention_groups=g)
        assert got == pytest.approx(layers * max(m * max(20, g * 10), 40))
        alone = dg.afd.schedule(stage, layers=layers, microbatches=m, attention_groups=g, overlapped=False)
        tau = max(20, g * 10)
        assert alone == pytest.approx((layers - 1) * max(m * tau, 40) + (m - 1) * tau + (g - 1) * 10 + 40)
    with pytest.raises(dg.SpecError, match="attention_groups"):
        dg.afd.schedule(stage, layers=1, microbatches=1, attention_groups=0)
