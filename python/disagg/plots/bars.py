"""Bars: where time and memory go, and the stages of a pipeline."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from disagg._documents import plot
from disagg._frame_base import FrameBase
from disagg.errors import SpecError
from disagg.plots import _style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from disagg.frame import Frame

# Parts beyond this many are drawn together as "other": more colours than that cannot be told apart.
MOST_PARTS = 8


def _stacks(frame: Frame, bars: list[str], part: str, value: str) -> tuple[list[str], dict[str, Any]]:
    """Sum `value` over (bar, part): names of the bars, and one array of heights a part, largest first."""
    names = [
        " ".join(str(v) for v in key if v not in ("", None)) for key in zip(*(frame[b] for b in bars), strict=True)
    ]
    columns = list(dict.fromkeys(names))
    where = np.array([columns.index(n) for n in names])
    values = frame[value].astype(np.float64)
    heights: dict[str, Any] = {}
    for name in dict.fromkeys(frame[part].tolist()):
        mine = frame[part] == name
        heights[str(name)] = np.bincount(where[mine], weights=values[mine], minlength=len(columns))
    ordered = sorted(heights, key=lambda n: -float(heights[n].sum()))
    if len(ordered) > MOST_PARTS:
        rest = ordered[MOST_PARTS - 1 :]
        other = sum(heights[n] for n in rest)
        heights = {**{n: heights[n] for n in ordered[: MOST_PARTS - 1]}, f"other ({len(rest)})": other}
        ordered = list(heights)
    return columns, {n: heights[n] for n in ordered}


def _draw(ax: Axes, columns: list[str], heights: dict[str, Any]) -> None:
    bottom = np.zeros(len(columns))
    for i, (name, height) in enumerate(heights.items()):
        colour, hatch = _style.PALETTE[i % len(_style.PALETTE)], _style.HATCHES[i // len(_style.PALETTE) % 4]
        ax.barh(columns, height, left=bottom, label=name, color=colour, hatch=hatch, edgecolor="white", linewidth=0.5)
        bottom = bottom + height
    ax.invert_yaxis()
    ax.grid(visible=False, axis="y")
    ax.legend(frameon=False, fontsize="small", loc="center left", bbox_to_anchor=(1.0, 0.5))


def _joined(frames: Frame | Mapping[str, Any], attribute: str) -> Frame:
    """One frame of several named ones (or of results that hold one), with the name as a column."""
    if not isinstance(frames, Mapping):
        return frames
    parts = {str(k): f if isinstance(f, FrameBase) else getattr(f, attribute) for k, f in frames.items()}
    if not parts:
        return cast("Frame", FrameBase({}))
    first = next(iter(parts.values()))
    columns = {c: np.concatenate([p[c] for p in parts.values()]) for c in first.columns}
    columns["estimate"] = np.concatenate([np.full(len(p), k) for k, p in parts.items()])
    return cast("Frame", type(first)(columns))


def _bars(frame: Frame, *names: str) -> list[str]:
    found = [n for n in ("estimate", *names) if n in frame]
    if not found:
        raise SpecError([("frame", f"has none of the columns {', '.join(names)}", "give a frame of an estimate")])
    return found


@plot
def breakdown(
    frame: Frame | Mapping[str, Any], *, part: str = "op", unit: str = "share", ax: Axes | None = None
) -> Axes:
    """Draw where time goes: one stacked bar a phase and pool.

    Parameters
    ----------
    frame
        An estimate's ``.breakdown`` (columns phase, pool, op, ms, share, evidence), or a dict of names
        to estimates or breakdowns.
    part
        Column that splits a bar: ``"op"`` or ``"evidence"``.
    unit
        ``"share"``: of the phase's operator time, so that a decode step and a prefill are both legible (the
        milliseconds stand beside each bar); ``"ms"``: milliseconds.

    Examples
    --------
    >>> import disagg as dg
    >>> f = dg.Frame({"phase": ["decode"] * 2, "pool": ["ffn"] * 2, "op": ["experts", "a2f"], "ms": [3.0, 1.0]})
    >>> dg.plots.breakdown(f, unit="ms").get_xlabel()
    'time (ms)'
    """
    if unit not in ("share", "ms"):
        raise SpecError([("unit", f"'{unit}' is not known", "expected 'share' or 'ms'")])
    table = _joined(frame, "breakdown")
    bars = _bars(table, "phase", "pool") if len(table) else []
    ax = _style.axes(ax, height=1.5 + 0.4 * _count(table, bars))
    ax.set_xlabel("time (ms)" if unit == "ms" else "share of the phase's operator time (%)")
    if not bars:
        return _style.nothing(ax, "the breakdown is empty")
    columns, heights = _stacks(table, bars, part, "ms")
    total = np.sum(list(heights.values()), axis=0)
    scale = np.ones(len(columns))
    if unit == "share":
        phases = [n for n in bars if n != "pool"]
        names, whole = _stacks(table, phases, part, "ms")
        sums = dict(zip(names, np.sum(list(whole.values()), axis=0), strict=True))
        scale = np.array([100 / max(next(v for n, v in sums.items() if c.startswith(n)), 1e-300) for c in columns])
    _draw(ax, columns, {n: h * scale for n, h in heights.items()})
    for i, ms in enumerate(total):
        ax.text(ms * scale[i], i, f" {_style.number(ms)} ms", va="center", fontsize="small")
    ax.margins(x=0.15)
    return ax


@plot
def memory(frame: Frame | Mapping[str, Any], *, ax: Axes | None = None) -> Axes:
    """Draw what fills each GPU of each pool.

    Parameters
    ----------
    frame
        An estimate's ``.memory`` (columns pool, item, gib), or a dict of names to estimates or such
        frames. An item named ``capacity`` is drawn as a line.

    Examples
    --------
    >>> import disagg as dg
    >>> f = dg.Frame({"pool": ["ffn", "ffn"], "item": ["weights", "capacity"], "gib": [90.0, 180.0]})
    >>> dg.plots.memory(f).get_xlabel()
    'memory per GPU (GiB)'
    """
    table = _joined(frame, "memory")
    bars = _bars(table, "pool") if len(table) else []
    ax = _style.axes(ax, height=1.5 + 0.5 * _count(table, bars))
    ax.set_xlabel("memory per GPU (GiB)")
    if not bars:
        return _style.nothing(ax, "the memory table is empty")
    limits = table.filter(table["item"] == "capacity")
    columns, heights = _stacks(table.filter(table["item"] != "capacity"), bars, "item", "gib")
    _draw(ax, columns, heights)
    for row in limits.rows():
        name = " ".join(str(row[b]) for b in bars if row[b] not in ("", None))
        if name in columns:
            at = columns.index(name)
            ax.plot([row["gib"]] * 2, [at - 0.45, at + 0.45], color="0.3", linewidth=2, zorder=3)
    return ax


@plot
def pipeline(frame: Frame, *, ax: Axes | None = None) -> Axes:
    """Draw the stage times of a micro-batch pipeline; the slowest stage is named.

    Parameters
    ----------
    frame
        An estimate's ``.pipeline``: a column ``stage``, perhaps ``phase``, and times in ``ms`` or ``us``.

    Examples
    --------
    >>> import disagg as dg
    >>> f = dg.Frame({"stage": ["attention", "a2f", "ffn", "f2a"], "us": [80.0, 30.0, 95.0, 30.0]})
    >>> dg.plots.pipeline(f).get_title()
    'the slowest stage is ffn'
    """
    unit = next((u for u in ("us", "ms") if u in frame), None)
    ax = _style.axes(ax, height=1.5 + 0.4 * min(len(frame), 20))
    ax.set_xlabel(f"time of one micro-batch and layer ({unit or 'ms'})")
    if len(frame) == 0 or unit is None:
        return _style.nothing(ax, "this plan has no pipeline")
    times = frame[unit].astype(np.float64)
    phases = frame["phase"].tolist() if "phase" in frame else [""] * len(frame)
    stages = frame["stage"].tolist()
    names = [f"{p} {s}".strip() for p, s in zip(phases, stages, strict=True)]
    slow = int(np.nanargmax(times))
    colours = [_style.PALETTE[3] if t == times[slow] else _style.PALETTE[0] for t in times]
    ax.barh(names, times, color=colours)
    ax.invert_yaxis()
    ax.grid(visible=False, axis="y")
    ax.set_title(f"the slowest stage is {names[slow]}", fontsize="medium")
    return ax


def _count(frame: Frame, bars: list[str]) -> int:
    """How many bars there will be."""
    return min(len(set(zip(*(frame[b].tolist() for b in bars), strict=True))), 20) if bars else 2
