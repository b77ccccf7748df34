"""Scatter and line plots: the frontier of the levels, throughput against the attention share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from disagg._documents import plot
from disagg.plots import _style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from disagg.frame import Frame

MOST_DOTS = 3000
MOST_MARKERS = 15


@plot
def pareto(
    frame: Frame,
    *,
    x: str = "tokens_per_s_per_user",
    y: str = "tokens_per_s_per_gpu",
    color: str | None = "level",
    ax: Axes | None = None,
) -> Axes:
    """Draw every point faintly and the frontier of each group as a line.

    Parameters
    ----------
    frame
        Points, e.g. ``study.points``; rows that are not ``feasible`` are left out.
    x, y
        Columns of numbers.
    color
        Column that groups the points; None: one group.

    Examples
    --------
    >>> import disagg as dg
    >>> f = dg.Frame({"level": ["pd", "pd"], "tokens_per_s_per_user": [50.0, 90.0],
    ...               "tokens_per_s_per_gpu": [900.0, 400.0]})
    >>> dg.plots.pareto(f).get_xlabel()
    'output tokens/s per user'
    """
    ax = _style.axes(ax)
    ax.set_xlabel(_style.label(x))
    ax.set_ylabel(_style.label(y))
    if "feasible" in frame:
        frame = frame.filter(np.asarray(frame["feasible"], dtype=bool))
    if len(frame) == 0:
        return _style.nothing(ax, "no feasible point")
    groups: list[Any] = _style.in_order(frame, color) if color is not None and color in frame else [None]
    for i, (group, (colour, marker)) in enumerate(_style.styles(groups).items()):
        part = frame if group is None else frame.filter(**{color or "": group})
        front = part.frontier(x, y)
        some = part.take(slice(None, None, max(1, len(part) // MOST_DOTS)))
        # A later level often holds an earlier one: it is drawn below and wider, so that both stay visible.
        ax.scatter(some[x], some[y], s=6, color=colour, alpha=0.15, linewidths=0, zorder=1, rasterized=True)
        every = max(1, len(front) // MOST_MARKERS)
        wide = 1.2 + 1.2 * i
        style: dict[str, Any] = {
            "color": colour,
            "marker": marker,
            "markersize": 5 + i,
            "markevery": every,
            "linewidth": wide,
        }
        ax.plot(front[x], front[y], label=group, zorder=4 - 0.1 * i, alpha=0.9, **style)
    if groups != [None]:
        ax.legend(frameon=False)
    ax.yaxis.set_major_formatter("{x:,.0f}")
    ax.set_xlim(left=0)
    ax.set_ylim(bottom=0)
    return ax


@plot
def ratio(
    frame: Frame,
    *,
    y: str = "tokens_per_s",
    color: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw the best throughput of each split of an AFD unit against the attention share of its GPUs.

    A mark is a split. They are not joined: odd splits rarely fill the budget without idle GPUs, and of the slots of
    P/D only the frontier is paired, so what lies between two marks is not known.

    Parameters
    ----------
    frame
        Points with ``attention_gpus`` and ``ffn_gpus`` (and perhaps ``feasible``). Of several points
        with one split the best is drawn.
    y
        What to draw.
    color
        Column that groups the points; None: ``level`` if there is one.

    Examples
    --------
    >>> import disagg as dg
    >>> f = dg.Frame({"attention_gpus": [8, 16], "ffn_gpus": [56, 48], "tokens_per_s": [1e5, 2e5]})
    >>> dg.plots.ratio(f).get_xlabel()
    'attention share of the GPUs (%)'
    """
    ax = _style.axes(ax)
    ax.set_xlabel("attention share of the GPUs (%)")
    ax.set_ylabel(_style.label(y))
    attention = frame["attention_gpus"].astype(np.float64)
    ffn = frame["ffn_gpus"].astype(np.float64)
    keep = (attention > 0) & (ffn > 0) & ~np.isnan(frame[y].astype(np.float64))
    if "feasible" in frame:
        keep &= np.asarray(frame["feasible"], dtype=bool)
    part = frame.with_columns(_share=100 * attention / np.maximum(attention + ffn, 1)).filter(keep)
    if len(part) == 0:
        return _style.nothing(ax, "no feasible AFD point")
    color = color if color is not None else ("level" if "level" in part else None)
    groups: list[Any] = _style.in_order(part, color) if color is not None else [None]
    for group, (colour, marker) in _style.styles(groups).items():
        rows = part if group is None else part.filter(**{color or "": group})
        share, at = np.unique(rows["_share"], return_inverse=True)
        best = np.full(len(share), -np.inf)
        np.maximum.at(best, at, rows[y].astype(np.float64))
        ax.scatter(share, best, s=18, color=colour, marker=marker, alpha=0.8, linewidths=0, label=group)
    if groups != [None]:
        ax.legend(frameon=False)
    ax.yaxis.set_major_formatter("{x:,.0f}")
    ax.set_xlim(0, 100)
    ax.set_ylim(bottom=0)
    return ax
