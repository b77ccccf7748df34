"""Plots of simulations: latency distributions, what instances did, goodput against rate."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from disagg._documents import plot
from disagg.plots import _style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from disagg.frame import Frame

KINDS = ("decode", "prefill", "mixed", "transfer")


@plot
def latency(frame: Frame, *, metric: str = "ttft_ms", ax: Axes | None = None) -> Axes:
    """Draw the share of requests below each latency, with the 50, 90 and 99 % points.

    Parameters
    ----------
    frame
        ``run.requests``.
    metric
        Which column, ms.

    Examples
    --------
    >>> import disagg as dg
    >>> dg.plots.latency(dg.Frame({"ttft_ms": [10.0, 20.0, 40.0]})).get_xlabel()
    'TTFT (ms)'
    """
    ax = _style.axes(ax)
    ax.set_xlabel(_style.label(metric))
    ax.set_ylabel("requests (%)")
    values = np.sort(frame[metric][~np.isnan(frame[metric])])
    if len(values) == 0:
        return _style.nothing(ax, "no request has it")
    ax.step(values, 100 * np.arange(1, len(values) + 1) / len(values), where="post", color=_style.PALETTE[0])
    for i, p in enumerate((50, 90, 99), 1):
        x = float(np.percentile(values, p))
        ax.axvline(x, color=_style.PALETTE[i], linestyle="--", label=f"{p} %: {_style.number(x)}")
    ax.legend(frameon=False)
    if values[0] > 0 and values[-1] > 100 * values[0]:
        ax.set_xscale("log")
    ax.set_ylim(0, 101)
    return ax


@plot
def instances(frame: Frame, *, ax: Axes | None = None) -> Axes:
    """Draw what each instance did over time.

    Parameters
    ----------
    frame
        ``run.timeline``.
    """
    ax = _style.axes(ax)
    ax.set_xlabel("time (s)")
    ax.set_ylabel("instance")
    if len(frame) == 0:
        return _style.nothing(ax, "no steps")
    for kind, colour in zip(KINDS, _style.PALETTE, strict=False):
        part = frame.filter(kind=kind)
        if len(part):
            shift = np.where(part["lane"] > 0, 0.3, 0.0)
            ax.barh(
                part["instance"] + shift, part["end_s"] - part["start_s"], left=part["start_s"],
                height=np.where(part["lane"] > 0, 0.15, 0.5), color=colour, label=kind, linewidth=0,
            )  # fmt: skip
    ax.legend(frameon=False, loc="upper right")
    ax.set_yticks(np.unique(frame["instance"]))
    return ax


@plot
def goodput(frame: Frame, *, ax: Axes | None = None) -> Axes:
    """Draw goodput against arrival rate.

    Parameters
    ----------
    frame
        What ``goodput_curve`` gave.
    """
    ax = _style.axes(ax)
    ax.set_xlabel("arrivals (requests/s)")
    ax.set_ylabel("inside the SLO (requests/s)")
    if len(frame) == 0:
        return _style.nothing(ax, "no rate")
    ax.plot(frame["rate"], frame["goodput_requests_per_s"], marker="o", color=_style.PALETTE[0])
    ax.plot(frame["rate"], frame["rate"], color="0.6", linestyle=":", label="all of them")
    highest = frame.attrs.get("highest_rate")
    if highest is not None:
        ax.axvline(float(highest), color=_style.PALETTE[3], linestyle="--", label=f"holds to {float(highest):.3g}/s")
    ax.legend(frameon=False)
    ax.set_xlim(left=0)
    ax.set_ylim(bottom=0)
    return ax


@plot
def kept(frame: Frame, within: npt.NDArray[np.bool_], *, windows: int = 24, ax: Axes | None = None) -> Axes:
    """Draw arrivals over time, and how many of them kept the limits.

    Parameters
    ----------
    frame
        ``run.requests``.
    within
        Which of them finished inside the limits.
    windows
        Into how many parts the time of arrivals is cut.
    """
    ax = _style.axes(ax)
    ax.set_xlabel("arrival (s)")
    ax.set_ylabel("requests/s")
    came = ~np.isnan(frame["arrival_s"])
    at = frame["arrival_s"][came]
    if len(at) == 0 or at.max() == at.min():
        return _style.nothing(ax, "no time between arrivals")
    edges = np.linspace(at.min(), at.max(), windows + 1)
    width = edges[1] - edges[0]
    for mask, label, colour in ((came, "arrived", "0.75"), (came & within, "inside the SLO", _style.PALETTE[0])):
        counts, _ = np.histogram(frame["arrival_s"][mask], bins=edges)
        ax.stairs(counts / width, edges, fill=True, color=colour, label=label)
    ax.legend(frameon=False)
    ax.set_xlim(edges[0], edges[-1])
    ax.set_ylim(bottom=0)
    return ax
