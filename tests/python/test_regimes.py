"""regimes: one row a cell, the same answer as explore, a map that says what it shows."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
import pytest

import disagg as dg

MODEL = dg.Model("Qwen/Qwen3-30B-A3B")
CLUSTER = dg.Cluster("b200_sxm", gpus=4)
LIMITS = [dg.SLO(ttft_ms=a, tpot_ms=b) for a in (200, 2000) for b in (6, 15, 40)]


@pytest.fixture(scope="module")
def found() -> dg.Frame:
    return dg.regimes(MODEL, CLUSTER, isl=[500, 4000], osl=[200], slo=LIMITS, progress=False)


def test_one_row_a_cell(found: dg.Frame) -> None:
    assert len(found) == 2 * 1 * 6
    assert found["isl"].tolist() == [500.0] * 6 + [4000.0] * 6
    assert found["ttft_limit_ms"].tolist() == [200.0] * 3 + [2000.0] * 3 + [200.0] * 3 + [2000.0] * 3
    assert set(found["winner"].tolist()) <= {"", *dg.LEVELS}
    assert 0 < sum(map(bool, found["winner"].tolist())) <= len(found)
    for row in found.rows():
        rates = [row[f"tokens_per_s_per_gpu_{level}"] for level in dg.LEVELS]
        if not row["winner"]:
            assert max(rates) == 0
            continue
        best, second = sorted(rates, reverse=True)[:2]
        assert row[f"tokens_per_s_per_gpu_{row['winner']}"] == best
        assert row["margin"] == pytest.approx(best / second - 1 if second else np.inf)
        assert row["tie"] == (second >= best * 0.99)
        assert row["ttft_ms"] <= row["ttft_limit_ms"]
        assert row["tpot_ms"] <= row["tpot_limit_ms"]
        assert row[f"binding_{row['winner']}"] == ""


def test_looser_limits_never_serve_less(found: dg.Frame) -> None:
    for level in dg.LEVELS:
        grid = found[f"tokens_per_s_per_gpu_{level}"].reshape(2, 2, 3)
        assert (np.diff(grid, axis=1) >= -1e-2 * grid[:, 1:]).all()
        assert (np.diff(grid, axis=2) >= -1e-2 * grid[:, :, 1:]).all()


def test_a_cell_is_what_explore_says(found: dg.Frame) -> None:
    row = found.row(4)
    study = dg.explore(MODEL, CLUSTER, dg.Workload(isl=500, osl=200), LIMITS[4], progress=False)
    for level in dg.LEVELS:
        own = row[f"tokens_per_s_per_gpu_{level}"]
        best = study.best(level)
        assert own == pytest.approx(best.tokens_per_s_per_gpu if best.feasible else 0.0, rel=0.02)


def test_a_grid_and_a_map(found: dg.Frame) -> None:
    pytest.importorskip("xarray")
    pytest.importorskip("matplotlib")
    grid = found.to_xarray(["isl", "ttft_limit_ms", "tpot_limit_ms"])
    assert grid["winner"].shape == (2, 2, 3)
    one = found.filter(isl=500.0)
    ax = one.plot.regimes()
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("TPOT limit (ms)", "TTFT limit (ms)")
    assert len(ax.patches) == 6
    with pytest.raises(dg.SpecError, match="isl vary too"):
        found.plot.regimes()
    empty = dg.plots.regimes(found.filter(isl=1.0))
    assert "nothing to draw" in empty.texts[0].get_text()


def test_wrong_questions_are_refused() -> None:
    with pytest.raises(dg.SpecError, match="isl: is empty"):
        dg.regimes(MODEL, CLUSTER, osl=100, slo=LIMITS)
    with pytest.raises(dg.SpecError, match=r"cluster\[0\]"):
        dg.regimes(MODEL, [MODEL], isl=1, osl=1, slo=LIMITS)  # type: ignore[list-item]
    with pytest.raises(dg.SpecError, match="'pdd' is not a level"):
        dg.regimes(MODEL, CLUSTER, isl=1, osl=1, slo=LIMITS, levels=["pdd"])
    with pytest.raises(dg.SpecError, match="slo"):
        dg.regimes(MODEL, CLUSTER, isl=1, osl=1, slo=[])


def test_several_clusters_and_workloads() -> None:
    workloads = [dg.Workload.preset("paper-chat"), dg.Workload(isl=300, osl=50)]
    clusters = [CLUSTER, CLUSTER.replace(gpus=2)]
    seen: list[tuple[int, int]] = []
    f = dg.regimes(
        MODEL,
        clusters,
        workloads=workloads,
        slo=dg.SLO(tpot_ms=30),
        levels=["aggregated", "pd"],
        progress=lambda a, b: seen.append((a, b)),
    )
    assert f["gpus"].tolist() == [4, 4, 2, 2]
    assert f["workload"].tolist()[0] == "paper-chat"
    assert np.isinf(f["ttft_limit_ms"]).all()
    assert seen[-1] == (4, 4)


def test_it_stops_when_asked() -> None:
    big = dg.Cluster("b200_sxm", gpus=64)
    began = time.perf_counter()

    def stop(done: int, total: int) -> None:
        del done, total
        if time.perf_counter() - began > 0.3:
            raise KeyboardInterrupt

    assert threading.current_thread() is threading.main_thread()
    with pytest.raises(KeyboardInterrupt):
        dg.regimes(MODEL, big, isl=[1000, 2000, 4000], osl=[500, 1000], slo=LIMITS, progress=stop)


def test_a_stop_keeps_what_is_done_if_asked(found: dg.Frame) -> None:
    def stop(done: int, total: int) -> None:
        if 0 < done < total:
            raise KeyboardInterrupt

    def ask(**more: Any) -> dg.Frame:
        isl = [500, 4000, *range(600, 700)]
        return dg.regimes(MODEL, CLUSTER, isl=isl, osl=[200], slo=LIMITS, **more)

    assert found.attrs["complete"] is True
    part = ask(partial=True, progress=stop)
    assert 0 < len(part) < 102 * 6 and part.attrs["complete"] is False
    # Every row is one of the whole map, in its order, whichever workloads were finished first.
    isl = list(dict.fromkeys(part["isl"].tolist()))[:3]
    whole = dg.regimes(MODEL, CLUSTER, isl=isl, osl=[200], slo=LIMITS)
    known = [tuple(r.values()) for r in whole.rows()]
    kept = [tuple(r.values()) for r in part.rows() if r["isl"] in isl]
    assert kept and [k for k in known if k in kept] == kept
    with pytest.raises(KeyboardInterrupt):
        ask(progress=stop)

    def trouble(done: int, total: int) -> None:
        if 0 < done < total:
            raise RuntimeError("not a stop")

    with pytest.raises(RuntimeError, match="not a stop"):
        ask(partial=True, progress=trouble)

    def late(done: int, total: int) -> None:
        if done == total:
            raise KeyboardInterrupt

    def one(**more: Any) -> dg.Frame:
        return dg.regimes(MODEL, CLUSTER, isl=500, osl=200, slo=LIMITS, progress=late, **more)

    # Too late to stop anything: nothing is lost.
    assert len(one(partial=True)) == 6 and one(partial=True).attrs["complete"] is True
    with pytest.raises(KeyboardInterrupt):
        one()
