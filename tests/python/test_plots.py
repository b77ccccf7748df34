"""Line 10 of the notebook contract: plots return Axes, take ax=, label units, and say when there is nothing to draw."""

import math

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb

import disagg as dg
from disagg.plots import _style

BREAKDOWN = dg.Frame(
    {
        "phase": ["decode", "decode", "prefill", "prefill"],
        "pool": ["attention", "ffn", "attention", "ffn"],
        "op": ["attention", "experts", "attention", "experts"],
        "ms": [3.0, 1.0, 300.0, 100.0],
        "share": [0.75, 0.25, 0.75, 0.25],
        "evidence": ["measured", "roofline", "measured", "measured"],
    }
)
MEMORY = dg.Frame(
    {
        "pool": ["ffn"] * 3 + ["attention"],
        "item": ["weights", "kv", "capacity", "weights"],
        "gib": [90.0, 10.0, 180.0, 20.0],
    }
)
PIPELINE = dg.Frame({"stage": ["attention", "a2f", "ffn", "f2a"], "ms": [0.8, 0.3, 0.95, 0.3]})
POINTS = dg.Frame(
    {
        "level": ["pd", "pd", "pd+afd", "pd+afd", "aggregated"],
        "tokens_per_s_per_user": [50.0, 90.0, 60.0, 99.0, 40.0],
        "tokens_per_s_per_gpu": [900.0, 400.0, 950.0, 300.0, 1000.0],
        "tokens_per_s": [9000.0, 4000.0, 9500.0, 3000.0, 10000.0],
        "attention_gpus": [0, 0, 16, 32, 0],
        "ffn_gpus": [0, 0, 112, 96, 0],
        "feasible": [True, True, True, True, False],
    }
)

MEASURED = dg.Frame(
    {
        "metric": ["tpot_ms"] * 3,
        "framework": ["vllm", "vllm", "sglang"],
        "target": [10.0, 20.0, 40.0],
        "predicted": [9.0, 21.0, 30.0],
    }
)
CASES = [
    (dg.plots.accuracy, MEASURED, ("measured TPOT (ms)", "predicted TPOT (ms)")),
    (dg.plots.pareto, POINTS, ("output tokens/s per user", "output tokens/s per GPU")),
    (dg.plots.ratio, POINTS, ("attention share of the GPUs (%)", "output tokens/s")),
    (dg.plots.breakdown, BREAKDOWN, ("share of the phase's operator time (%)", "")),
    (dg.plots.memory, MEMORY, ("memory per GPU (GiB)", "")),
    (dg.plots.pipeline, PIPELINE, ("time of one micro-batch and layer (ms)", "")),
]


@pytest.mark.parametrize(("plot", "frame", "labels"), CASES)
def test_axes_with_labels_on_given_axes(plot, frame, labels):
    ax = plot(frame)
    assert isinstance(ax, Axes)
    assert (ax.get_xlabel(), ax.get_ylabel()) == labels
    _, mine = plt.subplots()
    assert plot(frame, ax=mine) is mine
    ax.figure.canvas.draw()


@pytest.mark.parametrize(("plot", "frame", "labels"), CASES)
def test_nothing_to_draw_is_said(plot, frame, labels):
    ax = plot(frame.head(0))
    assert any("nothing to draw" in t.get_text() for t in ax.texts)
    assert ax.get_xlabel() == labels[0]
    ax.figure.canvas.draw()


def test_no_feasible_point_is_said():
    nobody = POINTS.filter(feasible=False)
    for plot in (dg.plots.pareto, dg.plots.ratio):
        assert any("no feasible" in t.get_text() for t in plot(nobody).texts)


def test_levels_keep_their_colours():
    whole, part = dg.plots.pareto(POINTS), dg.plots.pareto(POINTS.filter(level="pd+afd"))
    colour = {line.get_label(): line.get_color() for line in whole.lines}
    assert {line.get_label(): line.get_color() for line in part.lines} == {"pd+afd": colour["pd+afd"]}


def test_breakdown_adds_up():
    ax = dg.plots.breakdown(BREAKDOWN)
    assert math.isclose(sum(p.get_width() for p in ax.patches), 200.0)  # two phases of 100 %
    ax = dg.plots.breakdown(BREAKDOWN, unit="ms", part="evidence")
    assert math.isclose(sum(p.get_width() for p in ax.patches), 404.0)
    with pytest.raises(dg.SpecError, match="unit"):
        dg.plots.breakdown(BREAKDOWN, unit="hours")


def test_many_parts_are_drawn_as_other():
    ops = [f"op{i}" for i in range(20)]
    f = dg.Frame({"phase": ["decode"] * 20, "pool": ["w"] * 20, "op": ops, "ms": np.arange(1.0, 21.0)})
    ax = dg.plots.breakdown(f, unit="ms")
    names = [t.get_text() for t in ax.get_legend().get_texts()]
    assert names[-1] == "other (13)"
    assert math.isclose(sum(p.get_width() for p in ax.patches), 210.0)


def test_several_estimates_stand_side_by_side():
    ax = dg.plots.breakdown({"a": BREAKDOWN, "b": BREAKDOWN})
    assert {t.get_text() for t in ax.get_yticklabels()} >= {"a decode attention", "b prefill ffn"}


def test_the_slowest_stage_is_named():
    assert dg.plots.pipeline(PIPELINE).get_title() == "the slowest stage is ffn"


def test_the_palette_differs_for_colour_blind_readers():
    # Viénot, Brettel & Mollon 1999: what a protanope and a deuteranope see, in linear light.
    seen = {
        "protan": np.array([[0.1124, 0.8876, 0.0], [0.1124, 0.8876, 0.0], [0.0040, -0.0040, 1.0]]),
        "deutan": np.array([[0.2928, 0.7072, 0.0], [0.2928, 0.7072, 0.0], [-0.0223, 0.0223, 1.0]]),
    }
    for matrix in seen.values():
        colours = [matrix @ np.array(to_rgb(c)) ** 2.2 for c in _style.PALETTE[:4]]
        apart = [np.linalg.norm(a - b) for i, a in enumerate(colours) for b in colours[:i]]
        assert min(apart) > 0.05
    # And levels differ by marker too.
    assert len(set(_style.MARKERS)) == len(_style.MARKERS)


def test_labels_spell_out_units():
    assert _style.label("ttft_ms") == "TTFT (ms)"
    assert _style.label("memory_gib") == "memory (GiB)"
    assert _style.label("tokens_per_s_per_gpu") == "output tokens/s per GPU"


def test_no_window_is_ever_shown(monkeypatch):
    monkeypatch.setattr(plt, "show", lambda *_, **__: pytest.fail("plt.show() was called"))
    for plot, frame, _ in CASES:
        plot(frame)
