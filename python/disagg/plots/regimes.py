"""A map of which level wins where."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from disagg._documents import plot
from disagg._optional import require
from disagg.errors import SpecError
from disagg.plots import _style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from disagg.frame import Frame

AXES = ("tpot_limit_ms", "ttft_limit_ms", "isl", "osl", "prefix", "gpus", "system", "workload")
LENGTHS = ("isl", "osl", "prefix")
NOBODY = "0.85"
MOST_TICKS = 12


@plot
def regimes(frame: Frame, *, x: str | None = None, y: str | None = None, ax: Axes | None = None) -> Axes:
    """Draw the winner of each cell as a map; ties are hatched, cells that no level can serve are grey.

    Parameters
    ----------
    frame
        What ``dg.regimes(...)`` gave, filtered so that only `x` and `y` vary.
    x, y
        Columns along the axes; None: those that vary.

    Raises
    ------
    SpecError
        If more columns vary than there are axes.

    Examples
    --------
    >>> import disagg as dg
    >>> f = dg.Frame({"tpot_limit_ms": [10.0, 20.0], "isl": [500.0, 500.0], "winner": ["pd", "aggregated"],
    ...               "tie": [False, True]})
    >>> dg.plots.regimes(f).get_xlabel()
    'TPOT limit (ms)'
    """
    ax = _style.axes(ax)
    if len(frame) == 0:
        return _style.nothing(ax, "no cell")
    values = {n: _order(frame, n) for n in AXES if n in frame}
    x, y = _choose(values, x, y)
    columns, rows = _order(frame, x), _order(frame, y)
    winners, tied = frame["winner"].tolist(), np.asarray(frame["tie"], dtype=bool)
    at = {v: i for i, v in enumerate(columns)}, {v: i for i, v in enumerate(rows)}
    patch: Any = require("matplotlib.patches", extra="plot")
    colours = {level: c for level, (c, _) in _style.styles(list(_style.LEVELS)).items()}
    for cx, cy, winner, tie in zip(frame[x].tolist(), frame[y].tolist(), winners, tied, strict=True):
        box = patch.Rectangle(
            (at[0][cx] - 0.5, at[1][cy] - 0.5),
            1,
            1,
            facecolor=colours.get(winner, NOBODY),
            hatch="///" if tie else None,
            edgecolor="white",
            linewidth=0.4,
        )
        ax.add_patch(box)
    ax.set_xlim(-0.5, len(columns) - 0.5)
    ax.set_ylim(-0.5, len(rows) - 0.5)
    ax.grid(visible=False)
    ax.set_xlabel(_label(x))
    ax.set_ylabel(_label(y))
    ax.set_xticks(*_ticks(columns))
    ax.set_yticks(*_ticks(rows))
    shown = [patch.Patch(facecolor=c, label=level) for level, c in colours.items() if level in winners]
    if "" in winners:
        shown.append(patch.Patch(facecolor=NOBODY, label="none keeps the limits"))
    if tied.any():
        shown.append(patch.Patch(facecolor="white", edgecolor="0.4", hatch="///", label="tie"))
    ax.legend(handles=shown, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return ax


def _label(name: str) -> str:
    return f"{_style.label(name)} (tokens)" if name in LENGTHS else _style.label(name)


def _order(frame: Frame, name: str) -> list[Any]:
    values = frame[name]
    return np.unique(values).tolist() if values.dtype.kind in "fiu" else _style.in_order(frame, name)


def _choose(values: dict[str, list[Any]], x: str | None, y: str | None) -> tuple[str, str]:
    """Give the two columns of the map; what else varies has no place on it."""
    vary = [n for n, v in values.items() if len(v) > 1]
    if "workload" in vary and len(vary) > 1:
        # A name for lengths that stand in columns of their own.
        vary.remove("workload")
    free = [n for n in vary if n not in (x, y)]
    chosen = [x, y]
    spare = [n for n in values if n not in (x, y)]
    for i, name in enumerate(chosen):
        if name is None:
            chosen[i] = free.pop(0) if free else next(n for n in spare if n not in chosen)
    if free:
        text = f"{', '.join(free)} vary too, and a map has two axes"
        raise SpecError([("frame", text, "filter(...) to one value of each")])
    return str(chosen[0]), str(chosen[1])


def _ticks(values: list[Any]) -> tuple[list[int], list[str]]:
    every = -(-len(values) // MOST_TICKS)
    at = list(range(0, len(values), every))

    def text(v: Any) -> str:
        if not isinstance(v, float | int):
            return str(v)
        return "none" if np.isinf(v) else _style.number(v)

    return at, [text(values[i]) for i in at]
