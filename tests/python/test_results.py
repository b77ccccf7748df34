"""Lines 4 and 12 of the notebook contract: results compare, explain themselves, travel unharmed."""

import copy
import math
import pickle

import cloudpickle
import pytest

import disagg as dg


def test_estimate_says_what_the_contract_lists(estimate, plan):
    e = estimate
    assert e.level == "aggregated"
    assert e.gpus == 16
    assert e.plan.parallel.dp == plan.parallel.dp
    assert e.plan.batch is not None  # what was left open is filled in
    assert e.tpot_ms > 0
    assert e.ttft_ms > 0
    assert math.isclose(e.tokens_per_s_per_user, 1000 / e.tpot_ms, rel_tol=1e-9)
    assert math.isclose(e.tokens_per_s_per_gpu, e.tokens_per_s / e.gpus, rel_tol=1e-9)
    assert math.isclose(sum(e.evidence.values()), 1.0, abs_tol=1e-9)
    assert list(e.evidence) == ["measured", "interpolated", "extrapolated", "roofline"]
    assert set(e.memory.columns) == {"pool", "item", "gib"}
    assert e.breakdown.columns == ["phase", "pool", "op", "ms", "share", "evidence", "tier"]
    assert len(e.pipeline) == 0
    assert e.framework in {"trtllm", "sglang", "vllm"}
    assert e.assumptions == dg.Assumptions.physical()
    assert e.inputs["model"].name == "deepseek-ai/DeepSeek-V3.2"
    for name in ("usd_per_mtok", "watts", "requests_per_s", "itl_worst_ms", "concurrency"):
        assert getattr(e, name) > 0
    assert e.context_exceeded is False


def test_results_travel(estimate, study):
    for thing in (estimate, study, estimate.step("decode", batch=8)):
        for twin in (
            type(thing).from_json(thing.to_json()),
            pickle.loads(pickle.dumps(thing)),
            cloudpickle.loads(cloudpickle.dumps(thing)),
            copy.copy(thing),
            copy.deepcopy(thing),
        ):
            assert twin == thing
        assert thing != 3
        assert "\n" not in repr(thing)
        assert "<script" not in thing._repr_html_()
        with pytest.raises(AttributeError, match="frozen"):
            thing.anything = 1
        with pytest.raises(dg.SpecError):
            type(thing).from_json("[]")


def test_explain_names_the_breakdown_and_the_evidence(estimate):
    text = estimate.explain()
    for word in ("aggregated on 16 GPUs", "evidence: TTFT ", "; TPOT ", "decode:", "memory of a GPU", "% interpolated"):
        assert word in text


def test_compare_gives_the_reason(model, chat, plan, estimate):
    slower = dg.estimate(model, dg.Cluster("h200_sxm", gpus=16), chat, plan)
    table = estimate.compare(slower)
    assert table.columns == ["quantity", "this", "other", "difference", "ratio", "reason"]
    row = table.filter(quantity="tpot_ms").row(0)
    assert row["other"] - row["this"] == pytest.approx(row["difference"])
    assert "ms" in row["reason"]
    same = estimate.compare(estimate)
    assert set(same["difference"].tolist()) == {0.0}
    assert set(same["reason"].tolist()) == {""}


def test_steps(estimate):
    small, large = estimate.step("decode", batch=1), estimate.step("decode", batch=64)
    assert 0 < small.ms < large.ms
    assert set(small.breakdown["phase"].tolist()) == {"decode"}
    assert estimate.step("prefill", new=512, past=4096).ms > 0
    assert estimate.step("mixed", batch=8, new=512).ms > 0
    with pytest.raises(dg.SpecError, match="did you mean 'decode'"):
        estimate.step("decod")
    with pytest.raises(dg.SpecError, match="batch"):
        estimate.step("decode", batch="many")
    with pytest.raises(dg.SpecError, match=r"dg\.estimate"):
        dg.Estimate({"level": "pd"}, {}).step("decode")


def test_study_answers(study):
    assert study.table["level"].tolist() == list(dg.LEVELS)
    assert study.priced == len(study.points)
    best = study.best()
    assert best.feasible
    assert best.tokens_per_s == max(e.tokens_per_s for e in study.estimates.values() if e.feasible)
    afd = study.best("afd")
    assert afd.level in {"aggregated+afd", "pd+afd"}
    for level in dg.LEVELS:
        row = study.table.filter(level=level).row(0)
        assert study.best(level).tokens_per_s == pytest.approx(row["tokens_per_s"], rel=1e-6)
    with pytest.raises(dg.SpecError, match="did you mean 'pd"):
        study.best("pdd")
    assert study.objective == "tokens_per_s"
    assert study.points.attrs["cluster"] == "Cluster('b200_sxm', gpus=16, nic_gb_per_s=50.0, oversubscription=1.0)"


def test_study_frontier_holds_the_best(study):
    front = study.frontier("pd")
    assert set(front["level"].tolist()) == {"pd"}
    assert all(front["feasible"])
    top = study.points.filter(level="pd", feasible=True).best("tokens_per_s_per_gpu")
    assert front["tokens_per_s_per_gpu"].max() == top["tokens_per_s_per_gpu"]


def test_study_plots(study):
    for name in ("pareto", "breakdown", "ratio", "memory"):
        assert getattr(study.plot, name)().get_xlabel()
    assert study.best("afd").plot.pipeline().get_xlabel()
    assert study.best().plot.breakdown().get_xlabel()
    assert study.best().plot.memory().get_xlabel()


def test_a_level_that_was_not_searched_says_so(model, cluster, chat):
    study = dg.explore(model, cluster, chat, dg.SLO(tpot_ms=50), levels=["aggregated"], progress=False)
    with pytest.raises(dg.SpecError, match="was not searched"):
        study.best("pd")


def test_an_impossible_limit_gives_the_nearest_miss(model, cluster, chat):
    study = dg.explore(model, cluster, chat, dg.SLO(tpot_ms=0.01), levels=["aggregated"], progress=False)
    miss = study.best("aggregated")
    assert not miss.feasible
    assert miss.binding
    assert "infeasible" in repr(study)


@pytest.mark.slow
def test_same_bits_for_any_number_of_threads(model, cluster, chat):
    found = []
    try:
        for n in (1, 3):
            dg.set_num_threads(n)
            study = dg.explore(model, cluster, chat, dg.SLO(tpot_ms=50), levels=["aggregated", "pd"], progress=False)
            found.append((study.table.to_json(), study.points.to_json()))
    finally:
        dg.set_num_threads(0)
    assert found[0] == found[1]


def test_explore_can_be_stopped_and_watched(model, chat):
    calls = []

    def stop(done, _total):
        calls.append(done)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        dg.explore(model, dg.Cluster("b200_sxm", gpus=64), chat, dg.SLO(tpot_ms=50), progress=stop)
    assert len(calls) == 1


def test_wrong_questions_are_refused(model, cluster, chat, plan):
    slo = dg.SLO(tpot_ms=50)
    for call, path in [
        (lambda: dg.explore(model, cluster, chat, slo, levels=["afdd"]), "levels"),
        (lambda: dg.explore(model, cluster, chat, slo, levels=3), "levels"),
        (lambda: dg.explore(model, cluster, chat, slo, frameworks=["vlm"]), "frameworks"),
        (lambda: dg.explore(model, cluster, chat, slo, objective="speed"), "objective"),
        (lambda: dg.explore(model, cluster, chat), "slo"),
        (lambda: dg.estimate(model, cluster, chat, plan, framework="vlm"), "framework"),
        (lambda: dg.estimate(model, cluster, chat, plan, frameworks=["vllm", "sglang"]), "frameworks"),
        (lambda: dg.estimate(model, cluster, chat, plan, quant=3), "quant"),
        (lambda: dg.estimate(model, cluster, chat, plan.replace(replicas=99)), "plan"),
    ]:
        with pytest.raises(dg.SpecError) as caught:
            call()
        assert path in caught.value.path
