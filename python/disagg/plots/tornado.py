"""A tornado: what moves a metric, the widest on top."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from disagg._documents import plot
from disagg.errors import SpecError
from disagg.plots import _style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from disagg.frame import Frame


@plot
def tornado(frame: Frame, *, metric: str = "tpot_ms", ax: Axes | None = None) -> Axes:
    """Draw a sensitivity: one bar a parameter, from the metric at its low end to that at its high end.

    Parameters
    ----------
    frame
        What ``dg.sensitivity(...)`` gave.
    metric
        Which metric, e.g. ``"tpot_ms"``. Parameters that do not move it are named below the bars.

    Examples
    --------
    >>> import disagg as dg
    >>> f = dg.Frame({"parameter": ["isl"], "unit": ["tokens"], "low": [90.0], "high": [110.0], "status": ["ok"],
    ...               "tpot_ms_low": [9.0], "tpot_ms_high": [11.5]}, attrs={"tpot_ms": 10.0, "step": 0.1})
    >>> dg.plots.tornado(f).get_xlabel()
    'TPOT (ms)'
    """
    known = [c.removesuffix("_low") for c in frame.columns if c.endswith("_low")]
    if not known or "parameter" not in frame:
        raise SpecError([("frame", "is not a sensitivity", "give what dg.sensitivity() gave")])
    if metric not in known:
        raise SpecError([("metric", f"'{metric}' is not in the frame", f"there are {', '.join(known)}")])
    middle = float(frame.attrs[metric])
    rows = sorted(frame.rows(), key=lambda r: -_span(r, metric, middle))
    moving = [r for r in rows if _span(r, metric, middle) > 0 or r["status"] != "ok"]
    ax = _style.axes(ax, width=7.2, height=1.6 + 0.34 * max(len(moving), 1))
    ax.set_xlabel(_style.label(metric))
    if not moving:
        return _style.nothing(ax, f"no parameter moves {metric}")
    for i, (end, colour) in enumerate((("low", _style.PALETTE[0]), ("high", _style.PALETTE[1]))):
        widths = [0.0 if math.isnan(r[f"{metric}_{end}"]) else r[f"{metric}_{end}"] - middle for r in moving]
        sign = "less" if i == 0 else "more"
        ax.barh(range(len(moving)), widths, left=middle, color=colour, height=0.7, label=_ends(frame, sign))
    box = {"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 1}
    for i, row in enumerate(moving):
        if row["status"] != "ok":
            text = f"{row['status']:.60s}"
            at = ax.annotate(text, (middle, i), xytext=(6, 0), textcoords="offset points", va="center", bbox=box)
            at.set(fontsize="x-small", color="0.2")
    ax.axvline(middle, color="0.3", linewidth=1)
    names = [f"{r['parameter']}  {_value(r['low'])} to {_value(r['high'])} {r['unit']}".rstrip() for r in moving]
    ax.set_yticks(range(len(moving)), names, fontsize="small")
    ax.invert_yaxis()
    ax.grid(visible=False, axis="y")
    ax.legend(frameon=False, fontsize="small", loc="lower right")
    still = [str(r["parameter"]) for r in rows if r not in moving]
    if still:
        ax.set_title(f"no effect: {', '.join(still)}", fontsize="small", color="0.4", loc="left", wrap=True)
    return ax


def _span(row: dict[str, Any], metric: str, middle: float) -> float:
    """How far the ends lie apart; a missing end counts as the middle."""
    ends = [middle if math.isnan(x) else float(x) for x in (row[f"{metric}_low"], row[f"{metric}_high"])]
    return max([*ends, middle]) - min([*ends, middle])


def _ends(frame: Frame, sign: str) -> str:
    step = frame.attrs.get("step")
    return f"{sign} of it" if step is None else f"{100 * float(step):.3g} % {sign}"


def _value(x: float) -> str:
    return f"{x:,.0f}" if abs(x) >= 1e4 else f"{x:.4g}"  # noqa: PLR2004 - as tables write them
