"""Profiles and the audit, from Python."""

import pickle

import numpy as np
import pytest

import disagg as dg


@pytest.fixture(scope="module")
def study() -> dg.Study:
    return dg.explore(
        dg.Model("Qwen/Qwen3-30B-A3B"),
        dg.Cluster("b200_sxm", gpus=2),
        dg.Workload(prefix=1024, isl=512, osl=128),
        dg.SLO(ttft_ms=200, tpot_ms=15),
        levels=["aggregated", "pd"],
        frameworks=["trtllm"],
        progress=False,
    )


def test_profiles() -> None:
    for made, name in (
        (dg.Assumptions.physical(), "physical"),
        (dg.Assumptions.paper(), "paper"),
        (dg.Assumptions.aiconfigurator(), "aiconfigurator-0.12"),
    ):
        assert made.profile == name
        assert eval(repr(made), {"Assumptions": dg.Assumptions}) == made  # noqa: S307 - our own repr
        assert dg.Assumptions.from_json(made.to_json()) == made
        assert pickle.loads(pickle.dumps(made)) == made
    paper = dg.Assumptions.paper()
    changed = paper.replace(copies="expected")
    assert changed.copies == "expected"
    assert paper.diff(changed)["name"].tolist() == ["copies"]
    with pytest.raises(dg.SpecError, match="physical"):
        dg.Assumptions("physicl")
    with pytest.raises(dg.SpecError, match="expected"):
        paper.replace(copies="expectd")


def test_the_steps_add_up(study: dg.Study) -> None:
    to = dg.Assumptions.physical().replace(kv_transfer="ignored", worker_corrections="fixed")
    walk = study.audit(to, progress=False)
    assert walk["switch"].tolist()[::2] == ["from", "kv_transfer", "worker_corrections", "to"]
    assert walk.attrs["order"] == "kv_transfer, worker_corrections"
    for level in ("aggregated", "pd"):
        mine = walk.filter(walk["level"] == level)
        assert mine["tokens_per_s"][0] == study.best(level).tokens_per_s
        assert np.isclose(mine["tokens_per_s"][0] + mine["effect"].sum(), mine["tokens_per_s"][-1])
    shapley = study.audit(to, method="shapley", progress=False)
    ends = walk["tokens_per_s"][[0, 1, -2, -1]]
    assert np.allclose(shapley["tokens_per_s"][[0, 1, -2, -1]], ends)
    assert np.allclose(shapley["tokens_per_s"][[-4, -3]], ends[2:])


def test_what_cannot_be_audited_says_why(study: dg.Study) -> None:
    to = dg.Assumptions.physical().replace(kv_transfer="bulk")
    with pytest.raises(dg.SpecError, match="kv_transfer"):
        study.audit(to, order=["kv_transfr"], progress=False)
    with pytest.raises(dg.SpecError, match="order"):
        study.audit(to, method="ordr", progress=False)
    with pytest.raises(dg.SpecError, match="explore again"):
        pickle.loads(pickle.dumps(study)).audit(to)


def test_the_plot_shows_levels_or_one_waterfall(study: dg.Study) -> None:
    pytest.importorskip("matplotlib").use("agg")
    walk = study.audit(dg.Assumptions.physical().replace(worker_corrections="fixed"), progress=False)
    assert dg.plots.audit(walk).get_legend() is not None
    ax = dg.plots.audit(walk, level="pd")
    assert ax.get_title() == "pd"
    assert len(ax.patches) == 3
    with pytest.raises(dg.SpecError, match="aggregated"):
        dg.plots.audit(walk, level="aggregatd")
    with pytest.raises(dg.SpecError, match="not an audit"):
        dg.plots.audit(dg.Frame({"x": [1.0]}))
