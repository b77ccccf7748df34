"""The walk from one set of assumptions to another, as a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from disagg._documents import plot
from disagg.errors import SpecError
from disagg.plots import _style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from disagg.frame import Frame

_VALUES = ("tokens_per_s", "tokens_per_s_per_gpu", "tokens_per_s_per_user")


@plot
def audit(frame: Frame, *, level: str | None = None, ax: Axes | None = None) -> Axes:
    """Draw an audit: where every level stands after each switch, or the waterfall of one level.

    Parameters
    ----------
    frame
        What ``Study.audit()`` gave.
    level
        One level: its waterfall, a bar a switch. None: all levels, a line each; open markers keep no limit.

    Examples
    --------
    >>> import disagg as dg
    >>> walk = dg.Frame({"step": [0, 1, 2], "switch": ["from", "copies", "to"], "value": ["a", "x", "b"],
    ...                  "level": ["pd"] * 3, "effect": [0.0, 5.0, 0.0], "tokens_per_s": [10.0, 15.0, 15.0],
    ...                  "feasible": [True] * 3})
    >>> dg.plots.audit(walk, level="pd").get_xlabel()
    'output tokens/s'
    """
    value = next((v for v in _VALUES if v in frame), None)
    if value is None or "switch" not in frame:
        raise SpecError([("frame", "is not an audit", "give what Study.audit() gave")])
    known = _style.in_order(frame, "level")
    if level is not None and level not in known:
        raise SpecError([("level", f"'{level}' is not in the audit", f"there are {', '.join(known)}")])
    first = frame.filter(frame["level"] == (level or known[0]))
    names = [
        f"{s}: {v}" if s in ("from", "to") else f"{s} = {v}"
        for s, v in zip(first["switch"].tolist(), first["value"].tolist(), strict=True)
    ]
    ax = _style.axes(ax, width=7.2, height=1.3 + 0.3 * len(names))
    rows = np.arange(len(names))
    ax.set_yticks(rows, names, fontsize="small")
    ax.invert_yaxis()
    ax.set_xlabel(_style.label(value))
    if level is not None:
        _waterfall(ax, first, value)
        ax.set_title(level, fontsize="medium")
        return ax
    for name, (colour, marker) in _style.styles(known).items():
        mine = frame.filter(frame["level"] == name)
        x = mine[value].astype(np.float64)
        ax.plot(x, rows, color=colour, linewidth=1.2, alpha=0.7)
        met = mine["feasible"].astype(bool)
        ax.plot(x[met], rows[met], marker, color=colour, label=name, linestyle="none")
        ax.plot(x[~met], rows[~met], marker, markerfacecolor="white", markeredgecolor=colour, linestyle="none")
    ax.plot([], [], "o", markerfacecolor="white", markeredgecolor="0.3", linestyle="none", label="keeps no limit")
    ax.legend(frameon=False, fontsize="small", loc="center left", bbox_to_anchor=(1.0, 0.5))
    return ax


def _waterfall(ax: Axes, frame: Frame, value: str) -> None:
    """One bar a switch, from where the level stood to where it stands; the ends from zero."""
    after = frame[value].astype(np.float64)
    effect = frame["effect"].astype(np.float64)
    for i, (name, stand, change) in enumerate(zip(frame["switch"].tolist(), after, effect, strict=True)):
        if name in ("from", "to"):
            ax.barh(i, stand, color=_style.PALETTE[7])
            ax.text(stand, i, f" {_style.number(stand)}", va="center", fontsize="small")
            continue
        ax.barh(i, change, left=stand - change, color=_style.PALETTE[2] if change >= 0 else _style.PALETTE[3])
        sign = "+" if change >= 0 else "-"
        if abs(change) > 1e-9:  # noqa: PLR2004 - rounding
            text = f" {sign}{_style.number(abs(change))}"
            ax.text(max(stand, stand - change), i, text, va="center", fontsize="small")
    ax.margins(x=0.15)
