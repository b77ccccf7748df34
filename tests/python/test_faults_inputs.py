"""Inputs that are too large, too deep or of the wrong kind: an error that names the field, and soon."""

import json
import os
import subprocess
import sys

import pytest

import disagg as dg

MODEL, CLUSTER = dg.Model("Qwen/Qwen3-30B-A3B"), dg.Cluster("h200_sxm", gpus=8)
WORKLOAD = dg.Workload(isl=512, osl=64)
PLAN = dg.Aggregated(parallel=dg.Parallel(tp=2), batch=8)


def space(axes, where=()):
    return dg.Space(model=MODEL, cluster=CLUSTER, workload=WORKLOAD, plan=PLAN, axes=axes, where=where)


def run(code, **variables):
    env = {**os.environ, **variables}
    return subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)


def test_a_domain_may_be_larger_than_any_table():
    whole = dg.estimate(MODEL, dg.Cluster("h200_sxm", gpus=8, fabric={"domain_gpus": 4096}), WORKLOAD, PLAN)
    for domain in (4104, 8000, 1_000_000):
        cluster = dg.Cluster("h200_sxm", gpus=8, fabric={"domain_gpus": domain})
        assert dg.estimate(MODEL, cluster, WORKLOAD, PLAN).tpot_ms == whole.tpot_ms


def test_threads_are_bounded_and_the_bound_can_be_raised():
    with pytest.raises(dg.SpecError, match="DISAGG_MOST_THREADS") as found:
        dg.set_num_threads(1_000_000)
    assert found.value.path == "n"
    told = "import disagg as dg; print(dg._core.num_threads())"
    more = "import disagg as dg; dg.set_num_threads(2000); print(dg._core.num_threads())"
    assert run(told, DISAGG_NUM_THREADS="1000000").stdout.strip() == "1024"
    assert run(more, DISAGG_MOST_THREADS="1000000").stdout.strip() == "2000"
    assert "SpecError" in run(more).stderr


def test_constraints_over_many_points_are_counted_or_refused_by_name():
    hundred = list(range(1, 101))
    paths = ["plan.parallel.tp", "plan.parallel.dp", "plan.batch", "plan.chunk_tokens", "workload.isl", "workload.osl"]
    s = space(dict.fromkeys(paths, hundred), ["tp * osl == 100"])
    assert s.size == 9 * 100**4
    assert s == space(dict.fromkeys(paths, hundred), ["tp * osl == 100"])
    for listed in (lambda: s.points, lambda: s.slice(0, s.size), lambda: s.sample(2**70)):
        with pytest.raises(dg.SpecError, match="points at once"):
            listed()
    code = f"""
import disagg as dg
m, c, w = dg.Model("Qwen/Qwen3-30B-A3B"), dg.Cluster("h200_sxm", gpus=8), dg.Workload(isl=5, osl=5)
axes = dict.fromkeys({paths!r}, list(range(1, 101)))
dg.Space(model=m, cluster=c, workload=w, axes=axes, where=["tp * dp * batch + chunk_tokens * isl % osl == 7"])
"""
    said = run(code, DISAGG_MOST_STATES="1000").stderr
    assert "SpecError: where:" in said
    assert "DISAGG_MOST_STATES" in said


def test_numbers_that_cannot_be_added_up_are_refused():
    with pytest.raises(dg.SpecError, match="stage_ms"):
        dg.afd.schedule((1e308, 1e308, 1e308, 1e308), layers=61, microbatches=4)
    names = ["alpha_a", "beta_a", "alpha_f", "beta_f", "alpha_c", "beta_c", "batch", "mu_p", "mu_d"]
    refused = 0
    for large in names:
        for barrier in (False, True):
            given = dict.fromkeys(names, 1.0) | {"batch": 8.0, "mu_p": 100.0, "mu_d": 50.0, large: 1e308}
            try:
                found = dg.afd.provision(**given, barrier=barrier)
            except dg.SpecError:
                refused += 1
            else:
                assert 0 < found.throughput < 1e308
                assert 0 < found.ratio < 1e308
    assert refused > len(names)
    with pytest.raises(dg.SpecError, match="value: must be from 0"):
        dg.Distribution.fixed(-1)


def test_configs_that_are_no_files_or_nested_too_deep(tmp_path):
    pipe = tmp_path / "config.json"
    os.mkfifo(pipe)
    with pytest.raises(dg.DataError, match="is not a file"):
        dg.Model(pipe)
    deep = tmp_path / "deep.json"
    deep.write_text("[" * 100_000)
    with pytest.raises(dg.DataError, match="nested too deep"):
        dg.Model(deep)


def test_a_profile_keeps_its_name_while_it_is_itself():
    aic = dg.Assumptions.aiconfigurator()
    assert dg.Assumptions.from_dict({"profile": "aiconfigurator-0.12"}) == aic
    assert dg.Assumptions.from_dict(aic.to_dict()) == aic
    changed = dg.Assumptions.from_dict({**aic.to_dict(), "afd_alpha_scale": 2.0})
    assert changed.profile == "aiconfigurator-0.12*"
    assert dg.Assumptions.from_json(json.dumps({**changed.to_dict(), "profile": aic.profile})) == changed
    with pytest.raises(dg.SpecError, match="banana"):
        dg.Assumptions.from_dict({"profile": "banana"})
