"""Plots that a result offers itself: those of its own tables, filled in."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec

if TYPE_CHECKING:
    from matplotlib.axes import Axes

P = ParamSpec("P")


class Plots:
    """Plots of one result."""

    def __init__(self, of: Any) -> None:
        self._of = of


def drawn(
    function: Callable[Concatenate[Any, P], Axes], table: str | None = None
) -> Callable[Concatenate[Any, P], Axes]:
    """Make a method of a plot: it draws the result's own `table` (None: the result itself)."""

    @functools.wraps(function)
    def method(self: Plots, /, *args: P.args, **kwargs: P.kwargs) -> Axes:
        return function(self._of if table is None else getattr(self._of, table), *args, **kwargs)

    return method
