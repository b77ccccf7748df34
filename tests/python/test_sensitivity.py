"""dg.sensitivity as a user meets it: tables, plots, wrong input."""

import json
import re

import numpy as np
import pytest

import disagg as dg

METRICS = ("ttft_ms", "tpot_ms", "tokens_per_s_per_gpu", "usd_per_mtok", "joules_per_token")


@pytest.fixture(scope="module")
def found(estimate):
    return dg.sensitivity(estimate)


def _row(frame, name):
    return next(r for r in frame.rows() if r["parameter"] == name)


def test_the_middle_is_the_estimate_and_columns_are_there(found, estimate):
    for metric in METRICS:
        assert found.attrs[metric] == getattr(estimate, metric)
        assert {f"{metric}_low", f"{metric}_high", f"{metric}_elasticity"} <= set(found.columns)
    assert found.attrs["step"] == 0.1
    assert set(found["of"].tolist()) >= {"device", "fabric", "workload", "price"}
    assert np.allclose(found["low"] / found["value"], 0.9) and np.allclose(found["high"] / found["value"], 1.1)


def test_an_end_is_what_estimate_says_of_the_changed_cluster(found, estimate, model, cluster, chat):
    device = cluster.device.replace(hbm_bytes_per_s=cluster.device.hbm_bytes_per_s * 1.1)
    faster = dg.Cluster("b200_sxm", gpus=cluster.gpus, device=device)
    by_hand = dg.estimate(model, faster, chat, estimate.plan, framework=estimate.framework)
    assert _row(found, "hbm_gb_per_s")["tpot_ms_high"] == by_hand.tpot_ms
    longer = dg.Workload(isl=chat.mean["isl"], osl=chat.mean["osl"] * 0.9, prefix=chat.mean["prefix"])
    by_hand = dg.estimate(model, cluster, longer, estimate.plan, framework=estimate.framework)
    assert _row(found, "osl")["tokens_per_s_per_gpu_low"] == by_hand.tokens_per_s_per_gpu


def test_price_is_proportional_and_what_is_not_used_is_still(found):
    price = _row(found, "usd_per_hour")
    assert price["usd_per_mtok_elasticity"] == pytest.approx(1.0, abs=1e-12)
    assert price["tpot_ms_elasticity"] == 0.0
    # Workers of eight GPUs fit into a node.
    nic = _row(found, "nic_gb_per_s")
    assert all(nic[f"{m}_elasticity"] == 0.0 for m in METRICS)


def test_an_open_loop_is_varied_at_its_load(model, cluster, chat, plan):
    closed = dg.estimate(model, cluster, chat, plan)
    loaded = dg.estimate(model, cluster, chat, plan, load=0.5 * closed.requests_per_s)
    found = dg.sensitivity(loaded, parameters=["load", "hbm_gb_per_s"], step=0.2)
    assert found.attrs["ttft_ms"] == loaded.ttft_ms
    assert _row(found, "load")["ttft_ms_elasticity"] > 0
    # The rate is what was asked for, whatever the hardware.
    assert _row(found, "hbm_gb_per_s")["tokens_per_s_per_gpu_elasticity"] == 0.0
    found = dg.sensitivity(loaded, parameters=["load"], step=0.99)
    assert found["status"].tolist() == ["ok"]
    crowded = dg.estimate(model, cluster, chat, plan, load=0.95 * closed.requests_per_s)
    found = dg.sensitivity(crowded, parameters=["load"])
    assert found["status"].tolist()[0].startswith("high: load: the queue grows")
    assert np.isnan(found["ttft_ms_high"][0]) and not np.isnan(found["ttft_ms_elasticity"][0])


def test_the_same_again_after_a_round_trip(estimate, found):
    assert dg.sensitivity(dg.Estimate.from_json(estimate.to_json())) == found
    assert dg.Frame.from_json(found.to_json()) == found


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"parameters": ["hbm_gb"]}, "did you mean 'hbm_gib' (or 'hbm_gb_per_s')"),
        ({"parameters": "nvlink"}, "did you mean 'nvlink_gb_per_s'"),
        ({"parameters": ["acceptance"]}, "there are no draft tokens"),
        ({"parameters": ["load"]}, "give estimate(load=)"),
        ({"parameters": [3]}, "3 is not a name"),
        ({"step": 0}, "between 0 and 1"),
        ({"step": 1.0}, "between 0 and 1"),
        ({"step": "a"}, "step"),
        ({"steps": 0.1}, "did you mean 'step'"),
    ],
)
def test_wrong_input_is_named(estimate, arguments, said):
    with pytest.raises(dg.SpecError, match=re.escape(said)):
        dg.sensitivity(estimate, **arguments)


def test_an_estimate_that_cannot_be_asked_again_says_so(model, chat):
    with pytest.raises(dg.SpecError, match="estimate"):
        dg.sensitivity(dg.Estimate({"level": "pd"}, {}))
    # No estimate of a plan that does not fit can be had; a file kept from elsewhere may hold one.
    kept = dg.Aggregated(parallel=dg.Parallel(dp=8), batch=64)
    text = dg.estimate(model, dg.Cluster("b200_sxm", gpus=8), chat, kept).to_json()
    assert text.count('"batch": 64') == 1
    with pytest.raises(dg.SpecError, match="not feasible: memory:worker"):
        dg.sensitivity(dg.Estimate.from_json(text.replace('"batch": 64', '"batch": 100000')))


def test_the_tornado_is_widest_on_top_and_names_the_rest(estimate, found):
    ax = dg.plots.tornado(found, metric="usd_per_mtok")
    assert ax.get_xlabel() == "USD per million tokens"
    spans = {}
    for bar in ax.patches:
        row = round(bar.get_y() + bar.get_height() / 2)
        spans[row] = spans.get(row, 0.0) + abs(bar.get_width())
    heights = [spans[i] for i in sorted(spans)]
    assert heights[0] == max(heights) and len(heights) == len(ax.get_yticks())
    assert "nic_gb_per_s" in ax.get_title(loc="left")
    ax.figure.canvas.draw()
    assert estimate.plot.sensitivity(parameters=["isl"]).get_xlabel() == "TPOT (ms)"
    still = estimate.plot.sensitivity(parameters=["nic_gb_per_s"])
    assert "nothing to draw" in still.texts[0].get_text()
    with pytest.raises(dg.SpecError, match="there are"):
        dg.plots.tornado(found, metric="tpot")
    with pytest.raises(dg.SpecError, match="not a sensitivity"):
        dg.plots.tornado(dg.Frame({"a": [1]}))


def test_infeasible_ends_are_drawn_with_their_reason(chat):
    plan = dg.Aggregated(parallel=dg.Parallel(dp=8))
    estimate = dg.estimate(dg.Model("Qwen/Qwen3-30B-A3B"), dg.Cluster("h200_sxm", gpus=8), chat, plan)
    found = dg.sensitivity(estimate, parameters=["hbm_gib", "tflops"], step=0.5)
    assert json.loads(json.dumps(found["status"].tolist()))[0] == "low: memory:worker"
    ax = dg.plots.tornado(found)
    assert any("memory:worker" in t.get_text() for t in ax.texts)
