"""How true predictions are: measured against predicted, one mark a measurement."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from disagg._documents import plot
from disagg.plots import _style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from disagg.frame import Frame


@plot
def accuracy(frame: Frame, *, metric: str = "tpot_ms", by: str = "framework", ax: Axes | None = None) -> Axes:
    """Draw predictions against what was measured; the band is 25 % either way.

    Parameters
    ----------
    frame
        What ``dg.validation.run(...)`` gave.
    metric
        Rows of which metric, e.g. ``"tpot_ms"``.
    by
        The column that colours the marks.

    Examples
    --------
    >>> import disagg as dg
    >>> f = dg.Frame({"metric": ["tpot_ms"], "framework": ["vllm"], "target": [10.0], "predicted": [11.0]})
    >>> dg.plots.accuracy(f).get_ylabel()
    'predicted TPOT (ms)'
    """
    rows = frame.filter((frame["metric"] == metric) & (frame["target"] > 0) & (frame["predicted"] > 0))
    ax = _style.axes(ax, width=5.6, height=5.0)
    ax.set_xlabel(f"measured {_style.label(metric)}")
    ax.set_ylabel(f"predicted {_style.label(metric)}")
    if len(rows) == 0:
        return _style.nothing(ax, f"no row has {metric}")
    ends = np.array([rows["target"].min(), rows["target"].max()])
    ax.fill_between(ends, 0.8 * ends, 1.25 * ends, color="0.5", alpha=0.2, linewidth=0, label="within 25 %")
    ax.plot(ends, ends, color="0.3", linewidth=1)
    styles = _style.styles(_style.in_order(rows, by))
    for name, (colour, marker) in styles.items():
        own = rows.filter(rows[by] == name)
        off = float(np.median(np.abs(own["predicted"] / own["target"] - 1)))
        text = f"{name}: {len(own)}, median error {100 * off:.0f} %"
        ax.plot(
            own["target"], own["predicted"], marker, color=colour, markersize=3, alpha=0.4, linestyle="", label=text
        )
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.legend(frameon=False, fontsize="small")
    return ax
