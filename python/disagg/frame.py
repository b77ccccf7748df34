"""Frame: a tidy table of named numpy columns, the form in which every result leaves the core."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from disagg import _core, _html, plots
from disagg._columns import Array, Text, column, ranks
from disagg._frame_exports import Exports
from disagg.errors import SpecError
from disagg.plots._owned import Plots, drawn

__all__ = ["Frame"]

Sense = Literal["max", "min"]

_LESS_IS_BETTER = ("_ms", "_s", "_us", "_ns", "_bytes", "_gib", "_gb", "_w", "gpus", "watts", "usd_per_mtok", "error")


def better(column: str, given: Sense | None = None) -> Sense:
    """Which way is better: times, memory, GPUs and money down, everything else up."""
    if given not in (None, "max", "min"):
        raise SpecError([("sense", f"'{given}' is not known", "expected 'max' or 'min'")])
    if given is not None:
        return given
    rate = column.startswith(("tokens_per_s", "requests_per_s", "goodput"))
    return "min" if not rate and column.endswith(_LESS_IS_BETTER) else "max"


class _FramePlots(Plots):
    """Plots of frames of one kind."""

    regimes = drawn(plots.regimes)


class Frame(Exports):
    """Named columns of equal length.

    Parameters
    ----------
    columns
        Column name to values (a sequence or a one-axis array of numbers, truth values or text).
    attrs
        Facts about the whole table (spec, seed, version ...), JSON-able.

    Raises
    ------
    SpecError
        If columns differ in length or hold anything but numbers and text.

    Examples
    --------
    >>> import disagg as dg
    >>> f = dg.Frame({"gpus": [8, 16], "tokens_per_s": [100.0, 180.0]})
    >>> f["tokens_per_s"].max()
    np.float64(180.0)
    >>> f.best("tokens_per_s")["gpus"]
    16
    """

    __slots__ = ()

    # --- choosing --------------------------------------------------------------------------------

    def take(self, index: Any) -> Frame:
        """Give the rows at `index` (positions, a mask or a slice), in that order."""
        return Frame._of({name: values[index] for name, values in self._data.items()}, self._attrs)

    def select(self, *names: str) -> Frame:
        """Give only the named columns."""
        return Frame._of({name: self._column(name) for name in names}, self._attrs)

    def with_columns(self, **columns: Any) -> Frame:
        """Give the same table with columns added or replaced."""
        return Frame._of({**self._data, **{n: column(n, v) for n, v in columns.items()}}, self._attrs)

    def filter(self, mask: Array | Callable[[Frame], Array] | None = None, /, **equals: Any) -> Frame:
        """Keep some rows.

        Parameters
        ----------
        mask
            Truth values, one a row, or a function of the frame that gives them.
        **equals
            Column names and the value each must have.

        Returns
        -------
        Frame
            The rows that satisfy all conditions, in order.

        Raises
        ------
        SpecError
            If a column is unknown or the mask does not fit.

        Examples
        --------
        >>> import disagg as dg
        >>> f = dg.Frame({"level": ["pd", "pd+afd"], "tpot_ms": [20.0, 9.0]})
        >>> len(f.filter(level="pd")), f.filter(lambda f: f["tpot_ms"] < 15)["level"].tolist()
        (1, ['pd+afd'])
        """
        keep = np.ones(len(self), dtype=bool)
        if mask is not None:
            given = np.asarray(mask(self) if callable(mask) else mask)
            if given.shape != keep.shape or given.dtype != np.bool_:
                message = f"has shape {given.shape} of {given.dtype}"
                raise SpecError([("mask", message, f"expected {len(self)} truth values")])
            keep &= given
        for name, value in equals.items():
            values = self._column(name)
            keep &= values.equals(value) if isinstance(values, Text) else np.asarray(values == value, dtype=bool)
        return self.take(keep)

    def sort(self, *names: str, descending: bool = False) -> Frame:
        """Sort by columns, the first one first; equal rows keep their order.

        Examples
        --------
        >>> import disagg as dg
        >>> dg.Frame({"x": [2, 1, 3]}).sort("x", descending=True)["x"].tolist()
        [3, 2, 1]
        """
        order = np.arange(len(self))
        for name in reversed(names):
            keys = ranks(self._column(name))
            keys = keys[order]
            order = order[np.argsort(-keys if descending else keys, kind="stable")]
        return self.take(order)

    def head(self, n: int = 5) -> Frame:
        """Give the first `n` rows."""
        return self.take(slice(0, max(n, 0)))

    def best(self, column: str, *, sense: Sense | None = None, **equals: Any) -> dict[str, Any]:
        """Give the best row as a dict.

        Parameters
        ----------
        column
            What to compare. Rows without a number there do not take part, nor do rows that a column ``feasible``
            says are not (``feasible=None``: they do; ``feasible=False``: only they).
        sense
            ``"max"`` or ``"min"``; None: times, memory, GPUs and money down, everything else up.
        **equals
            Conditions as in `filter`.

        Raises
        ------
        SpecError
            If no row takes part.

        Examples
        --------
        >>> import disagg as dg
        >>> dg.Frame({"tp": [1, 2], "tpot_ms": [9.0, 7.0]}).best("tpot_ms")
        {'tp': 2, 'tpot_ms': 7.0}
        """
        told = "feasible" in self and not isinstance(self._column("feasible"), Text)
        only = told and "feasible" not in equals
        if equals.get("feasible", True) is None:
            del equals["feasible"]
        part = self.filter(**equals) if equals else self
        if only and len(part):
            part = part.filter(feasible=True)
            if not len(part):
                raise SpecError([(column, "no row is feasible", "loosen the limits, or best(..., feasible=None)")])
        values = _numbers(part, column)
        up = better(column, sense) == "max"
        if len(values) == 0 or np.isnan(values).all():
            raise SpecError([(column, "there is no row to choose from", "loosen the conditions")])
        return part.row(int(np.nanargmax(values) if up else np.nanargmin(values)))

    def frontier(
        self,
        x: str,
        y: str,
        z: str | None = None,
        *,
        sense: tuple[Sense | None, ...] = (None, None, None),
        epsilon: float = 0.0,
    ) -> Frame:
        """Give the rows that no other row beats in all of the columns, sorted by `x`.

        Parameters
        ----------
        x, y, z
            Two or three columns of numbers. Rows without a number in one do not take part.
        sense
            ``"max"`` or ``"min"`` for each; None: as in `best`.
        epsilon
            Above 0: rows are given too that would stand were each of their numbers better by this
            fraction; a column ``tie`` says which those are.

        Returns
        -------
        Frame
            The exact Pareto frontier. Of equal rows the first stays.

        Raises
        ------
        SpecError
            If a column is not of numbers or `epsilon` is not from 0 to below 1.

        Examples
        --------
        >>> import disagg as dg
        >>> f = dg.Frame({"tpot_ms": [5.0, 6.0, 7.0], "tokens_per_s": [1.0, 3.0, 2.99]})
        >>> f.frontier("tpot_ms", "tokens_per_s")["tpot_ms"].tolist()
        [5.0, 6.0]
        >>> f.frontier("tpot_ms", "tokens_per_s", epsilon=0.2)["tie"].tolist()
        [False, False, True]
        """
        names = [x, y] if z is None else [x, y, z]
        senses = [*sense, None, None, None][: len(names)]
        values = [_numbers(self, n) for n in names]
        costs = [
            np.ascontiguousarray(-v if better(n, s) == "max" else v)
            for n, s, v in zip(names, senses, values, strict=True)
        ]
        rows, ties = _core.frontier(costs, float(epsilon))
        order = np.argsort(values[0][rows], kind="stable")
        front = self.take(rows[order])
        return front.with_columns(tie=ties[order]) if epsilon > 0 else front

    @property
    def plot(self) -> _FramePlots:
        """Plots: ``.regimes()``."""
        return _FramePlots(self)

    # --- showing -------------------------------------------------------------

    def __repr__(self) -> str:
        """One line: size and column names; a small frame shows its rows too when printed."""
        return f"Frame({len(self)} rows: {', '.join(self.columns)})"

    def __str__(self) -> str:
        """Show the first rows as aligned text."""
        shown = [[_html.cell(v) for v in self.row(i).values()] for i in range(min(len(self), _html.MAX_ROWS))]
        lines = [self.columns, *shown]
        widths = [max(len(r[i]) for r in lines) for i in range(len(self.columns))]
        body = ["  ".join(c.rjust(w) for c, w in zip(r, widths, strict=True)).rstrip() for r in lines]
        more = len(self) - len(shown)
        return "\n".join([*body, f"... {more} more rows"] if more > 0 else body)

    def _repr_html_(self) -> str:
        shown = [[_html.cell(v) for v in self.row(i).values()] for i in range(min(len(self), _html.MAX_ROWS))]
        numeric = [not isinstance(v, Text) and v.dtype.kind in "fiu" for v in self._data.values()]
        title = f"Frame ({len(self)} rows)"
        return _html.table(title, self.columns, shown, numeric=numeric, more=len(self) - len(shown))


def _numbers(frame: Frame, name: str) -> npt.NDArray[np.float64]:
    values = frame._column(name)
    if isinstance(values, Text):
        numeric = [n for n in frame.columns if not isinstance(frame._column(n), Text)]
        raise SpecError([(name, "is not a column of numbers", f"numbers: {', '.join(numeric)}")])
    return values.astype(np.float64)
