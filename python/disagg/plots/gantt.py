"""Who is busy when: the micro-batch pipeline as a Gantt chart."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from disagg._documents import plot
from disagg.plots import _style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from disagg.frame import Frame


__all__ = ["timeline"]

_STAGES = ("attention", "a2f", "ffn", "f2a")
_LABELS = {"attention": "attention GPUs", "a2f": "network A2F", "ffn": "FFN GPUs", "f2a": "network F2A"}


@plot
def timeline(frame: Frame, *, phase: str | None = None, ax: Axes | None = None) -> Axes:
    """Draw who is busy when over a few layers: one row a resource (and attention group), one colour a micro-batch.

    Parameters
    ----------
    frame
        An estimate's ``.timeline``: columns ``phase stage attention_group microbatch layer start_us end_us``
        (without groups there is one).
    phase
        Which phase to draw; None: the first there is.

    Examples
    --------
    >>> import disagg as dg
    >>> f = dg.Frame({"phase": ["decode"] * 2, "stage": ["attention", "ffn"], "microbatch": [0, 0],
    ...               "layer": [4, 4], "start_us": [0.0, 80.0], "end_us": [80.0, 150.0]})
    >>> dg.plots.timeline(f).get_title()
    'decode: ffn is idle 53 % of the time shown'
    """
    groups = frame["attention_group"] if "attention_group" in frame.columns else np.zeros(len(frame), dtype=np.int64)
    lanes = int(groups.max()) + 1 if len(frame) else 1
    # A group has its own attention GPUs and links; the FFN pool is all groups'.
    rows_of = [(stage, g) for stage in _STAGES for g in range(1 if stage == "ffn" else lanes)]
    ax = _style.axes(ax, width=8.0, height=2.6 * max(1.0, len(rows_of) / 5))
    ax.set_xlabel("microseconds")
    if len(frame) == 0:
        return _style.nothing(ax, "this plan has no pipeline")
    phases = frame["phase"].tolist()
    wanted = phases[0] if phase is None else phase
    keep = np.array([p == wanted for p in phases])
    if not keep.any():
        return _style.nothing(ax, f"this plan has no {wanted} pipeline")
    stages = np.array(frame["stage"].tolist())[keep]
    parts, layers, groups = frame["microbatch"][keep], frame["layer"][keep], groups[keep]
    row = {r: i for i, r in enumerate(rows_of)}
    at = np.array([row[s, 0 if s == "ffn" else int(g)] for s, g in zip(stages, groups, strict=True)])
    # Micro-batches of different groups are different ones.
    parts = parts * lanes + groups
    start, end = frame["start_us"][keep].astype(np.float64), frame["end_us"][keep].astype(np.float64)
    first = int(layers.min())
    for m in sorted({int(p) for p in parts}):
        mine = parts == m
        # Neighbouring layers differ in shade, so that the eye can follow one through the stages.
        shade = [0.95 if (int(n) - first) % 2 == 0 else 0.6 for n in layers[mine]]
        colour = _style.PALETTE[m % len(_style.PALETTE)]
        bars = ax.barh(
            at[mine], end[mine] - start[mine], left=start[mine], height=0.7, color=colour, edgecolor="white",
            linewidth=0.5, label=f"micro-batch {m}" if lanes == 1 else f"group {m % lanes}, micro-batch {m // lanes}",
        )  # fmt: skip
        for bar, alpha in zip(bars, shade, strict=True):
            bar.set_alpha(alpha)
    named = [_LABELS[s] + (f", group {g}" if lanes > 1 and s != "ffn" else "") for s, g in rows_of]
    ax.set_yticks(range(len(rows_of)), named)
    ax.set_ylim(len(rows_of) - 0.5, -0.5)
    ax.grid(visible=False, axis="y")
    whole = float(end.max() - start.min())
    computing = [s for s in ("attention", "ffn") if (stages == s).any()]
    busy = {s: float((end - start)[stages == s].sum()) / whole / (1 if s == "ffn" else lanes) for s in computing}
    idle = min(busy, key=lambda s: busy[s])
    ax.set_title(
        f"{wanted}: {idle} is idle {1 - busy[idle]:.0%} of the time shown".replace("%", " %"), fontsize="medium"
    )
    if len({int(p) for p in parts}) > 1:
        # Below the axis label, however many lanes the axes are high.
        below = -0.24 / max(1.0, len(rows_of) / 5)
        columns = 4 if lanes == 1 else 2
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, below), ncols=columns, frameon=False, fontsize="small")
    return ax
