"""The house style: palette, labels with units, axes that keep out of the way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from disagg._optional import require

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from disagg.frame import Frame

# Okabe and Ito, "Color Universal Design" (2008): eight colours that colour-blind readers can tell apart.
PALETTE = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#F0E442", "#777777")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
HATCHES = ("", "//", "..", "xx")

# The four levels keep their colours in every plot.
LEVELS = ("aggregated", "pd", "aggregated+afd", "pd+afd")
EVIDENCE = ("measured", "interpolated", "scaled", "extrapolated", "roofline")

_WORDS = {
    "ttft": "TTFT",
    "tpot": "TPOT",
    "itl": "ITL",
    "kv": "KV",
    "gpu": "GPU",
    "gpus": "GPUs",
    "afd": "AFD",
    "ffn": "FFN",
    "tp": "TP",
    "dp": "DP",
    "ep": "EP",
    "isl": "ISL",
    "osl": "OSL",
}
_UNITS = {"ms": "ms", "us": "us", "s": "s", "bytes": "bytes", "gib": "GiB", "w": "W", "usd": "USD"}
_RATES = {
    "tokens_per_s": "output tokens/s",
    "tokens_per_s_per_gpu": "output tokens/s per GPU",
    "tokens_per_s_per_user": "output tokens/s per user",
    "requests_per_s": "requests/s",
    "usd_per_mtok": "USD per million tokens",
    "joules_per_token": "J per output token",
    "measured_share": "share of time that is measured",
}


def label(column: str) -> str:
    """Give a column's name with its unit, as an axis says it."""
    if column in _RATES:
        return _RATES[column]
    *words, last = column.split("_")
    if words and last in _UNITS:
        return f"{' '.join(_WORDS.get(w, w) for w in words)} ({_UNITS[last]})"
    return " ".join(_WORDS.get(w, w) for w in [*words, last])


def number(value: float) -> str:
    """Give a number in three digits, never as a power of ten."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"  # noqa: PLR2004


def axes(ax: Axes | None, *, width: float = 6.4, height: float = 4.0) -> Axes:
    """Give the axes to draw on: the caller's, or new ones."""
    if ax is None:
        plt = require("matplotlib.pyplot", extra="plot")
        _, ax = plt.subplots(figsize=(width, height), layout="constrained")
    assert ax is not None  # noqa: S101 - for the type checker
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(visible=True, color="0.5", alpha=0.25, linewidth=0.6)
    ax.set_axisbelow(True)
    return ax


def nothing(ax: Axes, why: str) -> Axes:
    """Say in the middle of the plot that there is nothing to draw, and why."""
    ax.text(0.5, 0.5, f"nothing to draw: {why}", ha="center", va="center", transform=ax.transAxes, color="0.5")
    ax.grid(visible=False)
    return ax


def styles(values: list[Any]) -> dict[Any, tuple[str, str]]:
    """Give each value a colour and a marker; levels keep theirs, others take them in order."""
    found: dict[Any, tuple[str, str]] = {}
    others = 0
    for value in values:
        if value in LEVELS:
            i = LEVELS.index(value)
        else:
            i = others % len(PALETTE)
            others += 1
        found[value] = (PALETTE[i], MARKERS[i])
    return found


def in_order(frame: Frame, column: str) -> list[Any]:
    """Give the distinct values of a column in order of first appearance; levels and evidence in their own."""
    seen = list(dict.fromkeys(frame[column].tolist()))
    for fixed in (LEVELS, EVIDENCE):
        if seen and all(v in fixed for v in seen):
            return [v for v in fixed if v in seen]
    return seen
