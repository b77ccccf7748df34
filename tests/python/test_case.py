"""A case says what the functions are told one by one, and asks them the same: to the bit, with the same errors."""

import copy
import itertools
import json
import pickle

import numpy as np
import pytest

import disagg as dg
from disagg import Case

SLO = dg.SLO(ttft_ms=1500, tpot_ms=40)
AXES = {"plan.parallel.tp": [1, 2], "plan.batch": [8, 32]}
PLAN = dg.Aggregated(parallel=dg.Parallel(tp=2), batch=16)
MODEL = dg.Model("Qwen/Qwen3-30B-A3B")
CLUSTER = dg.Cluster("h200_sxm", gpus=2)
WORK = dg.Workload(isl=1500, osl=100)
HOW = {
    "framework": "vllm",
    "quant": dg.Quant(kv="fp8"),
    "serving": dg.Serving(prefill_interval=2),
    "assumptions": dg.Assumptions.physical(),
}
FIRST = (MODEL, CLUSTER, WORK)


SAID = itertools.chain.from_iterable(itertools.combinations(HOW, n) for n in range(len(HOW) + 1))
# Every part that may be left out, said or not.
CASES = [{name: HOW[name] for name in said} for said in SAID]


def same(a, b):
    """Equal frames, not-a-number with itself."""
    assert a.columns == b.columns and len(a) == len(b)
    for name in a.columns:
        np.testing.assert_array_equal(np.asarray(a[name]), np.asarray(b[name]), name)


def facts(result):
    return {k: v for k, v in json.loads(result.to_json()).items() if k != "seconds"}


@pytest.mark.parametrize("how", CASES, ids=lambda how: "+".join(how) or "nothing")
def test_an_estimate_is_the_functions(how):
    case = Case(*FIRST, **how)
    assert case.estimate(PLAN).to_json() == dg.estimate(*FIRST, PLAN, **how).to_json()
    loaded = case.estimate(PLAN, load=0.5)
    assert loaded.to_json() == dg.estimate(*FIRST, PLAN, load=0.5, **how).to_json()


def test_every_question_is_the_functions():
    case = Case(*FIRST, **HOW)
    trace = dg.Trace.poisson(WORK, rate=2.0, n=40, seed=1)
    options = {"levels": ["aggregated", "pd"], "progress": False}
    mine, theirs = case.explore(SLO, **options), dg.explore(*FIRST, SLO, **options, **HOW)
    same(mine.table, theirs.table)
    same(mine.points, theirs.points)
    paper = dg.Assumptions.paper()
    level = {"levels": ["aggregated"]}
    same(case.audit(SLO, paper, **level), dg.explore(*FIRST, SLO, **level, **HOW).audit(paper))
    run, alone = case.simulate(PLAN, trace, seed=3), dg.simulate(MODEL, CLUSTER, PLAN, trace, seed=3, **HOW)
    same(run.requests, alone.requests)
    runs = case.simulate(PLAN, [trace, trace], seed=[3, 4])
    assert len(runs) == 2
    same(runs[0].requests, alone.requests)
    space = dg.Space(model=MODEL, cluster=CLUSTER, workload=WORK, axes=AXES, where=["tp <= 2"], plan=PLAN, **HOW)
    around = {"where": ["tp <= 2"], "plan": PLAN}
    assert case.space(AXES, **around) == space
    same(case.sweep(AXES, **around, metrics=["ttft_ms"]), dg.sweep(space, metrics=["ttft_ms"]))
    best = case.optimize(AXES, objective="tokens_per_s", constraints=["tpot_ms <= 40"], **around)
    assert best.to_json() == dg.optimize(space, objective="tokens_per_s", constraints=["tpot_ms <= 40"]).to_json()
    moved = case.sensitivity(PLAN, parameters=["isl", "tflops"], step=0.2)
    same(moved, dg.sensitivity(dg.estimate(*FIRST, PLAN, **HOW), parameters=["isl", "tflops"], step=0.2))
    own = case.regimes([SLO, dg.SLO(tpot_ms=8)], levels=["aggregated", "pd"])
    limits = {"slo": [SLO, dg.SLO(tpot_ms=8)], "levels": ["aggregated", "pd"]}
    same(own, dg.regimes(MODEL, CLUSTER, workloads=WORK, **limits, **HOW))
    wider = case.regimes(SLO, isl=[500, 1500], osl=100, clusters=[CLUSTER, CLUSTER.replace(gpus=4)], levels="pd")
    clusters = [CLUSTER, CLUSTER.replace(gpus=4)]
    same(wider, dg.regimes(MODEL, clusters, isl=[500, 1500], osl=100, slo=SLO, levels="pd", **HOW))


def test_several_frameworks_are_compared_and_one_prices_a_plan():
    case = Case(*FIRST, framework=["trtllm", "vllm"])
    assert case.framework == ("trtllm", "vllm")
    options = {"levels": ["aggregated"], "progress": False}
    theirs = dg.explore(*FIRST, SLO, framework=["trtllm", "vllm"], **options)
    same(case.explore(SLO, **options).frameworks, theirs.frameworks)
    with pytest.raises(dg.SpecError, match="framework: 2 names, but an estimate is priced"):
        case.estimate(PLAN)
    assert Case(*FIRST, framework=["vllm"]) == Case(*FIRST, framework="vllm")


WRONG = [
    (lambda: Case("Qwen/Qwen3-30B-A3B", CLUSTER, WORK), ["model"], "write dg.Model("),
    (lambda: Case("m", "c", WORK, serving=3), ["model", "cluster", "serving"], "dg.Cluster("),
    (lambda: Case(MODEL, CLUSTER), ["workload"], "is required by Case"),
    (lambda: Case(*FIRST, frameworks="vllm"), ["frameworks"], "did you mean 'framework'"),
    (lambda: Case(*FIRST, "vllm"), [""], "Case takes 3 argument"),
    (lambda: Case(*FIRST, framework=3), ["framework"], "not a list of names"),
    (lambda: Case(*FIRST, framework=[]), ["framework"], "no framework is named"),
    (lambda: Case(*FIRST, quant=dg.Quant(gemm="nvfp4")), ["quant.gemm"], "FP4"),
    (lambda: Case(*FIRST).replace(gpus=3), ["gpus"], "is not an argument of Case"),
    (lambda: Case(*FIRST, framework="vlm"), ["framework"], "did you mean 'vllm'"),
    (lambda: Case(*FIRST, framework=["vllm", "vlm"]), ["frameworks[1]"], "did you mean 'vllm'"),
    (lambda: Case(*FIRST).estimate(SLO), ["plan"], "Aggregated"),
    (lambda: Case(*FIRST).estimate(PLAN, lod=1), ["lod"], "did you mean 'load'"),
    (lambda: Case(*FIRST).estimate(), ["plan"], "is required by estimate"),
    (lambda: Case(*FIRST).explore(SLO, levls="pd"), ["levls"], "did you mean 'levels'"),
    (lambda: Case(*FIRST).explore(SLO, serving=dg.Serving()), ["serving"], "case.replace(serving=...)"),
    (lambda: Case(*FIRST).explore(PLAN), ["slo"], "SLO"),
    (lambda: Case(*FIRST).sweep({}, metrics=["speed"]), ["metrics[0]"], ""),
    (lambda: Case(*FIRST).sweep({"plan.tp": [1]}), ["axes.plan.tp"], ""),
    (lambda: Case(*FIRST).simulate(PLAN, WORK), ["trace"], "Trace"),
    (lambda: Case(*FIRST).simulate(PLAN, dg.Trace.poisson(WORK, rate=1, n=3), sead=1), ["sead"], "seed"),
    (lambda: Case(*FIRST).sensitivity(PLAN, step=2), ["step"], "0.1"),
    (lambda: Case(*FIRST).regimes(SLO, clusters=[]), ["cluster"], "give at least one"),
    (lambda: Case(*FIRST).regimes(SLO, isl=[], osl=1), ["isl"], "give at least one"),
    (lambda: Case(*FIRST).regimes([]), ["slo"], "give at least one"),
    (lambda: Case.from_dict({**Case(*FIRST).to_dict(), "modl": 1}), ["modl"], "did you mean 'model'"),
    (lambda: Case.from_dict({"model": 3}), ["model"], "dict"),
    (lambda: Case.from_dict(3), ["fields"], "Mapping"),
]


@pytest.mark.parametrize(("call", "paths", "words"), WRONG)
def test_what_is_wrong_is_named(call, paths, words):
    with pytest.raises(dg.SpecError) as e:
        call()
    assert [p.path for p in e.value.problems] == paths
    assert words in str(e.value)


@pytest.mark.parametrize("how", CASES, ids=lambda how: "+".join(how) or "nothing")
def test_it_goes_through_text_pickle_and_copies(how):
    case = Case(*FIRST, **how)
    plain = json.loads(json.dumps(case.to_dict()))
    assert list(plain) == ["model", "cluster", "workload", *(n for n in HOW if n in how)]
    names = {n: getattr(dg, n) for n in ("Model", "Cluster", "Workload", "Quant", "Serving", "Assumptions", "Case")}
    again = [
        Case.from_dict(plain),
        pickle.loads(pickle.dumps(case)),
        copy.copy(case),
        copy.deepcopy(case),
        case.replace(),
        eval(repr(case), names),  # noqa: S307
    ]
    for other in again:
        assert other == case and hash(other) == hash(case) and repr(other) == repr(case)
    assert case != case.replace(workload=WORK.replace(osl=101)) and case != "case"
    assert len({case, *again}) == 1
    html = case._repr_html_()
    assert all(name in html for name in plain)


def test_frozen():
    case = Case(*FIRST)
    with pytest.raises(AttributeError):
        case.model = MODEL
    with pytest.raises(AttributeError):
        del case.model
    assert case.replace(framework="trtllm").framework == "trtllm" and case.framework is None
