"""The verdict of a study, the frameworks behind it, and the spellings of a question."""

import copy
import math
import pickle

import pytest

import disagg as dg

MODEL = dg.Model("Qwen/Qwen3-30B-A3B")
CLUSTER = dg.Cluster("b200_sxm", gpus=4)
WORK = dg.Workload(isl=500, osl=200)
PLAN = dg.Aggregated(parallel=dg.Parallel(tp=2), batch=16)


@pytest.fixture(scope="module")
def found():
    return dg.explore(MODEL, CLUSTER, WORK, dg.SLO(ttft_ms=500, tpot_ms=10))


def test_frameworks_are_compared_and_the_table_has_the_best_of_each_level(found):
    names = dg.kernels.frameworks("b200_sxm")
    lanes = found.frameworks
    assert len(lanes) == len(dg.LEVELS) * len(names)
    for row in found.table.rows():
        own = [r for r in lanes.filter(level=row["level"]).rows() if r["feasible"]]
        assert row["tokens_per_s"] == max(r["tokens_per_s"] for r in own)
        assert row["framework"] == max(own, key=lambda r: r["tokens_per_s"])["framework"]
        assert row["measured_share"] == min(row["tpot_measured_share"], row["ttft_measured_share"])
    winners = {
        n: max((r for r in lanes.filter(framework=n).rows()), key=lambda r: r["tokens_per_s"])["level"] for n in names
    }
    assert any("disagree" in w for w in found.warnings) == (len(set(winners.values())) > 1)


def test_the_verdict_says_what_the_study_found(found):
    v = found.verdict()
    best = found.best()
    assert v.feasible
    assert (v.level, v.framework) == (best.level, best.framework)
    assert v.tokens_per_s_per_gpu == best.tokens_per_s_per_gpu
    assert v.plan == best.plan
    assert v.estimate == best
    assert v.measured_share == min(v.tpot_measured_share, v.ttft_measured_share)
    assert v.usd_per_mtok == best.usd_per_mtok > 0
    others = [r for r in found.frameworks.rows() if r["feasible"] and r["level"] != v.level]
    second = max(others, key=lambda r: r["tokens_per_s"])
    assert (v.second["level"], v.second["framework"]) == (second["level"], second["framework"])
    assert v.second["behind"] == pytest.approx(1 - second["tokens_per_s"] / best.tokens_per_s)
    assert "TPOT" in v.binds or "memory" in v.binds or "TTFT" in v.binds
    assert v.runnable == best.runnable
    assert v.starts.startswith(best.server or "no released server")
    text = str(v)
    assert text.startswith(f"Deploy {v.level} with {v.framework} kernels: ")
    for head in ("plan: ", "starts on: ", "gives: ", "known: ", "second: ", "binds: "):
        assert f"\n  {head}" in text
    assert all(w in text for w in found.warnings)
    assert repr(found).startswith("Study(Deploy ")
    assert str(found).startswith(text)
    page = found._repr_html_()
    assert page.index("Deploy ") < page.index("<table")
    assert "<script" not in page


def test_what_would_flip_it_is_true_of_the_points(found):
    v = found.verdict()
    flips = v.flips
    assert {"ttft_ms", "tpot_ms", "gpus"} == set(flips["what"].tolist())
    points = found.points
    judged = [r for r in flips.rows() if r["what"] != "gpus" and r["side"] == "at"]
    assert len(judged) >= 2
    for r in judged:
        other = "tpot_ms" if r["what"] == "ttft_ms" else "ttft_ms"
        kept = points[r["what"]] <= r["value"]
        kept &= points[other] <= getattr(found.slo, other)
        if not kept.any():
            assert (r["level"], r["tokens_per_s_per_gpu"]) == ("", 0.0)
            continue
        most = points.filter(kept).best("tokens_per_s_per_gpu", feasible=None)["tokens_per_s_per_gpu"]
        assert most >= r["tokens_per_s_per_gpu"] >= most / 1.01
    assert v.would_flip or v.would_not_flip


def test_a_verdict_survives_the_trip(found):
    for other in (dg.Study.from_json(found.to_json()), pickle.loads(pickle.dumps(found)), copy.deepcopy(found)):
        assert other == found
        assert other.verdict() == found.verdict()
        assert str(other) == str(found)
    v = found.verdict()
    assert dg.Verdict.from_json(v.to_json()) == v


def test_nothing_feasible_names_the_nearest_miss_and_what_is_short():
    study = dg.explore(MODEL, CLUSTER, WORK, dg.SLO(ttft_ms=5, tpot_ms=1), levels=["aggregated", "pd"])
    v = study.verdict()
    assert not v.feasible
    assert v.second is None
    assert v.headline.startswith("Nothing keeps the limits (TTFT 5 ms, TPOT 1 ms); nearest: ")
    assert "x)" in v.binds and "below" in v.binds
    over = {e.level: max(e.ttft_ms / 5, e.tpot_ms / 1) for e in study.estimates.values()}
    assert v.level == min(over, key=over.get)
    assert not any("milliseconds" in w for w in study.warnings)
    # Memory is short: how much there is and how much it takes.
    large = dg.explore(dg.Model("deepseek-ai/DeepSeek-V3.2"), dg.Cluster("h100_sxm", gpus=8), WORK, dg.SLO())
    short = large.verdict()
    assert not short.feasible
    assert "GiB (1." in short.binds
    assert "nan" not in str(short)


def test_seconds_for_milliseconds_are_asked_back():
    study = dg.explore(MODEL, CLUSTER, WORK, dg.SLO(ttft_ms=1, tpot_ms=0.010), levels=["aggregated"])
    assert any("did you mean tpot_ms=10?" in w for w in study.warnings)


def test_one_name_for_frameworks_everywhere():
    ask = (MODEL, CLUSTER, WORK, PLAN)
    one = dg.estimate(*ask, framework="vllm")
    assert one == dg.estimate(*ask, frameworks="vllm") == dg.estimate(*ask, frameworks=["vllm"])
    slo = dg.SLO(tpot_ms=10)
    few = {"levels": ["aggregated"]}
    assert dg.explore(MODEL, CLUSTER, WORK, slo, framework="vllm", **few) == dg.explore(
        MODEL, CLUSTER, WORK, slo, frameworks=["vllm"], **few
    )
    cells = {"isl": 500, "osl": 200, "slo": slo, **few}
    assert dg.regimes(MODEL, CLUSTER, framework="vllm", **cells) == dg.regimes(
        MODEL, CLUSTER, frameworks=["vllm"], **cells
    )
    space = {"model": MODEL, "cluster": CLUSTER, "workload": WORK, "plan": PLAN, "axes": {"plan.batch": [4, 8]}}
    assert dg.Space(**space, framework="vllm") == dg.Space(**space, frameworks="vllm")
    assert dg.Space(**space, frameworks=["vllm", "trtllm"]).size == 4
    trace = dg.Trace.poisson(WORK, rate=1.0, n=3, seed=1)
    runs = [
        dg.simulate(MODEL, CLUSTER, PLAN, trace, progress=False, **{n: "vllm"}) for n in ("framework", "frameworks")
    ]
    assert runs[0].percentiles() == runs[1].percentiles()


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: dg.estimate(MODEL, CLUSTER, WORK, PLAN, framework="vllm", frameworks=["vllm"]), "two spellings"),
        (lambda: dg.explore(MODEL, CLUSTER, WORK, dg.SLO(), framework="vllm", frameworks=["vllm"]), "two spellings"),
        (lambda: dg.estimate(MODEL, CLUSTER, WORK, PLAN, frameworks=["vllm", "trtllm"]), "frameworks: 2 names"),
        (lambda: dg.estimate(MODEL, CLUSTER, WORK, PLAN, framework=3), "framework: a int is not a list of names"),
        (lambda: dg.explore(MODEL, CLUSTER, WORK, dg.SLO(), frameworks=["vllm", "vllm"]), "stands twice"),
        (lambda: dg.explore(MODEL, CLUSTER, WORK, dg.SLO(), frameworks=[]), "no framework"),
        (lambda: dg.explore(MODEL, CLUSTER, WORK, dg.SLO(), frameworks=["vlm"]), "did you mean 'vllm'"),
        (lambda: dg.explore("Qwen/Qwen3-30B-A3B", CLUSTER, WORK, dg.SLO()), r"write dg.Model\('Qwen/Qwen3-30B-A3B'\)"),
        (lambda: dg.explore(MODEL, "b200_sxm", WORK, dg.SLO()), r"write dg.Cluster\('b200_sxm', gpus=8\)"),
        (lambda: dg.explore(MODEL, CLUSTER, "paper-chat", dg.SLO()), r"write dg.Workload.preset\('paper-chat'\)"),
        (lambda: dg.explore(MODEL, CLUSTER, WORK, dg.SLO(), levels=["adf"]), "is not a level"),
        (lambda: dg.explore(MODEL, CLUSTER, WORK, dg.SLO(), levels=[]), "no level to explore"),
    ],
)
def test_wrong_names_are_said(call, said):
    with pytest.raises(dg.SpecError, match=said):
        call()


def test_afd_is_both_of_its_levels():
    both = ["aggregated+afd", "pd+afd"]
    study = dg.explore(MODEL, CLUSTER, WORK, dg.SLO(tpot_ms=10), levels="afd", framework="sglang")
    assert study.table["level"].tolist() == both
    assert study.best("afd").level in both
    cells = dg.regimes(MODEL, CLUSTER, isl=500, osl=200, slo=dg.SLO(tpot_ms=10), levels=["afd"], framework="sglang")
    assert "tokens_per_s_per_gpu_pd+afd" in cells and "tokens_per_s_per_gpu_pd" not in cells


def test_a_cell_of_a_map_names_the_winners_kernels(found):
    slo = dg.SLO(ttft_ms=500, tpot_ms=10)
    cells = dg.regimes(MODEL, CLUSTER, workloads=WORK, slo=[slo, dg.SLO(tpot_ms=0.001)])
    row = cells.row(0)
    v = found.verdict()
    assert (row["winner"], row["framework"], row["measured_share"]) == (v.level, v.framework, v.measured_share)
    assert row[f"tokens_per_s_per_gpu_{v.level}"] == v.tokens_per_s_per_gpu
    assert row["agreed"] == (not any("disagree" in w for w in found.warnings))
    assert cells.row(1)["framework"] == cells.row(1)["winner"] == ""


def test_infeasible_rows_never_win(found):
    assert found.points.best("tokens_per_s")["tokens_per_s"] == found.best().tokens_per_s
    frame = dg.Frame({"x": [1.0, 9.0], "feasible": [True, False]})
    assert frame.best("x")["x"] == 1.0
    assert frame.best("x", feasible=None)["x"] == 9.0
    assert frame.best("x", feasible=False)["x"] == 9.0
    with pytest.raises(dg.SpecError, match="no row is feasible"):
        frame.filter(feasible=False).best("x")


def test_one_output_token_has_no_rate_for_a_user():
    once = dg.Workload(isl=500, osl=1)
    e = dg.estimate(MODEL, CLUSTER, once, PLAN)
    assert math.isnan(e.tokens_per_s_per_user)
    assert math.isnan(e.tpot_measured_share)
    assert e.measured_share == e.ttft_measured_share > 0
    with pytest.raises(dg.SpecError, match="objective: one output token a request"):
        dg.explore(MODEL, CLUSTER, once, dg.SLO(ttft_ms=100), objective="tokens_per_s_per_user")
    study = dg.explore(MODEL, CLUSTER, once, dg.SLO(ttft_ms=100, tpot_ms=1))
    assert "nan" not in str(study.verdict())
    space = dg.Space(model=MODEL, cluster=CLUSTER, workload=WORK, plan=PLAN, axes={"workload.osl": [1, 64]})
    rows = dg.sweep(space, metrics=["tokens_per_s_per_user"], progress=False)
    assert math.isnan(rows["tokens_per_s_per_user"][0])
    best = dg.optimize(space, objective="tokens_per_s_per_user", progress=False)
    assert best.choice == {"workload.osl": 64}


def test_a_what_if_device_says_whose_tables_it_reads():
    mine = CLUSTER.device.replace(name="mine", hbm_bytes_per_s=1.5 * CLUSTER.device.hbm_bytes_per_s)
    cluster = CLUSTER.replace(device=mine)
    e = dg.estimate(MODEL, cluster, WORK, PLAN)
    assert e.framework == dg.estimate(MODEL, CLUSTER, WORK, PLAN).framework
    told = [w for w in e.warnings if "what-if" in w]
    assert len(told) == 1
    assert "those of b200_sxm" in told[0] and "HBM bytes/s x 1.5" in told[0]
    assert told[0] in e.explain()
    assert e.evidence_tpot["scaled"] > 0.3
    study = dg.explore(MODEL, cluster, WORK, dg.SLO(tpot_ms=10), levels=["aggregated"])
    assert told[0] in study.warnings
    cells = dg.regimes(MODEL, cluster, isl=500, osl=200, slo=dg.SLO(tpot_ms=10), levels=["aggregated"])
    assert told[0] in cells.attrs["warnings"]
    assert "scaled to a what-if device" in str(study.verdict())


def test_plans_are_hashable():
    parts = [dg.Parallel(tp=2), dg.Workers(count=1, parallel=dg.Parallel()), PLAN, dg.Pool(gpus=4)]
    unit = dg.AFD(attention=dg.Pool(gpus=4), ffn=dg.Pool(gpus=12))
    plans = [*parts, unit, dg.PD(prefill=parts[1], decode=unit)]
    for plan in plans:
        assert hash(plan) == hash(type(plan).from_json(plan.to_json()))
    assert len(set(plans)) == len(plans)


def test_lifting_the_rules_tells_the_gain_and_the_rules_in_the_way():
    model, work = dg.Model("Qwen/Qwen3-235B-A22B"), dg.Workload(isl=4000, osl=500)
    limits = dg.SLO(ttft_ms=2000, tpot_ms=30)
    study = dg.explore(model, dg.Cluster("h200_sxm", gpus=8), work, limits, frameworks="vllm")
    free = dg.explore(model, dg.Cluster("h200_sxm", gpus=8), work, limits, frameworks="vllm", runnable=False)
    rows = list(study.lifted().rows())
    assert [r["level"] for r in rows] == study.table["level"].tolist()
    judged = 0
    for row, held, lifted in zip(rows, study.table.rows(), free.table.rows(), strict=True):
        if not held["feasible"]:
            continue
        judged += 1
        own, most = row["runnable_tokens_per_s_per_gpu"], row["lifted_tokens_per_s_per_gpu"]
        assert own == pytest.approx(held["tokens_per_s_per_gpu"])
        assert most == pytest.approx(lifted["tokens_per_s_per_gpu"])
        assert row["gain"] == pytest.approx(most / own - 1)
        # A gain has a rule in its way, and without one there is nothing to gain.
        assert (row["gain"] > 0) == (row["rules"] != ""), row
    assert judged >= 2
    with pytest.raises(dg.SpecError, match="study: was read back"):
        pickle.loads(pickle.dumps(study)).lifted()


def test_plans_that_nothing_known_tells_apart_are_called_equal(found):
    lanes = [r for r in found.frameworks.rows() if r["feasible"]]
    best = found.best()
    assert any(r["equal"] and r["framework"] == best.framework and r["level"] == best.level for r in lanes)
    assert not any(r["equal"] for r in found.frameworks.rows() if not r["feasible"])
    for level in dg.LEVELS:
        # Of one kind of servers those that give more are equal first.
        for name in {r["framework"] for r in lanes}:
            own = [r for r in lanes if (r["level"], r["framework"]) == (level, name)]
            own.sort(key=lambda r: r["tokens_per_s"])
            assert [r["equal"] for r in own] == sorted(r["equal"] for r in own)
    for r in lanes:
        for figure in ("ttft_ms", "tpot_ms", "tokens_per_s_per_gpu"):
            assert r[f"{figure}_low"] < r[f"{figure}_high"]
    v = found.verdict()
    assert isinstance(v.second["equal"], bool)
    assert ("equal within what is known" in str(v)) == any(
        r["equal"] for r in lanes if r["level"] != best.level or r["framework"] != best.framework
    )
    assert "ms (" in v._scalars["gives"]
    assert "with 80 %" in v._scalars["gives"]


def test_confidence_keeps_the_limits_with_that_chance(found):
    slo = found.slo
    sure = dg.explore(MODEL, CLUSTER, WORK, slo, confidence=0.8)
    with pytest.raises(dg.SpecError, match="confidence: the TTFT that was measured is a client's"):
        dg.explore(MODEL, CLUSTER, WORK, slo, confidence=0.8, assumptions=dg.Assumptions(request_path="service"))
    for edge, row in zip(found.table.rows(), sure.table.rows(), strict=True):
        assert row["level"] == edge["level"]
        if row["feasible"]:
            # Two limits, each kept with half the doubt: the upper ends of the 80 % intervals.
            assert row["tpot_ms_high"] <= slo.tpot_ms * (1 + 1e-6)
            assert row["ttft_ms_high"] <= slo.ttft_ms * (1 + 1e-6)
            assert row["tokens_per_s"] <= edge["tokens_per_s"] * (1 + 1e-9)
    assert any(
        r["tokens_per_s"] < e["tokens_per_s"] for e, r in zip(found.table.rows(), sure.table.rows(), strict=True)
    )
    case = dg.Case(MODEL, CLUSTER, WORK)
    assert case.explore(slo, confidence=0.8).table == sure.table
    surer = dg.explore(MODEL, CLUSTER, WORK, slo, confidence=0.95).table
    assert max(surer["tokens_per_s"]) <= max(sure.table["tokens_per_s"])
    for wrong in (0.0, 1.0, -0.5, 80, math.nan):
        with pytest.raises(dg.SpecError, match="confidence"):
            dg.explore(MODEL, CLUSTER, WORK, slo, confidence=wrong)
    with pytest.raises(dg.SpecError, match=r"did you mean 0.8"):
        dg.explore(MODEL, CLUSTER, WORK, slo, confidence=80)
