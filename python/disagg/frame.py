"""Frame: a tidy table of named numpy columns, the form in which every result leaves the core."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from disagg import _core, _html
from disagg._columns import Array, Column, Text, column, plain, ranks, same, unplain
from disagg._optional import require
from disagg.errors import SpecError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

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


class _FramePlots:
    """Plots of frames of one kind."""

    def __init__(self, frame: Frame) -> None:
        self._frame = frame

    def regimes(self, *, x: str | None = None, y: str | None = None, ax: Axes | None = None) -> Axes:
        """Draw the winner of each cell as a map (of what ``dg.regimes(...)`` gave)."""
        from disagg import plots

        return plots.regimes(self._frame, x=x, y=y, ax=ax)


class Frame:
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

    __slots__ = ("_attrs", "_data")

    def __init__(self, columns: Mapping[str, Any], *, attrs: Mapping[str, Any] | None = None) -> None:
        self._adopt({str(name): column(str(name), values) for name, values in columns.items()}, attrs or {})

    def _adopt(self, data: dict[str, Column], attrs: Mapping[str, Any]) -> None:
        lengths = {name: len(values) for name, values in data.items()}
        if len(set(lengths.values())) > 1:
            most = max(lengths.values())
            raise SpecError([(n, f"has {k} rows", f"all columns need {most}") for n, k in lengths.items() if k != most])
        self._data: dict[str, Column] = {n: v if isinstance(v, Text) else v.view() for n, v in data.items()}
        self._attrs: dict[str, Any] = dict(attrs)
        for values in self._data.values():
            if not isinstance(values, Text):
                values.flags.writeable = False

    @classmethod
    def _of(cls, data: dict[str, Column], attrs: Mapping[str, Any]) -> Frame:
        """Make a frame of columns that are already sound, without a copy."""
        self = cls.__new__(cls)
        self._adopt(data, attrs)
        return self

    @classmethod
    def _from_core(cls, payload: tuple[dict[str, Any], dict[str, str]]) -> Frame:
        """Take over what the native core gives: arrays as they are, categories as codes and labels."""
        columns, attrs = payload
        data: dict[str, Column] = {n: Text(*v) if isinstance(v, tuple) else v for n, v in columns.items()}
        return cls._of(data, {k: _attr(v) for k, v in attrs.items()})

    # --- looking ---------------------------------------------------------------------------------

    @property
    def columns(self) -> list[str]:
        """Names of the columns, in order."""
        return list(self._data)

    @property
    def attrs(self) -> dict[str, Any]:
        """Facts about the whole table (a copy)."""
        return dict(self._attrs)

    def __len__(self) -> int:
        """Give the number of rows."""
        return len(next(iter(self._data.values()))) if self._data else 0

    def __getitem__(self, name: str) -> Array:
        """Give one column as a read-only numpy array."""
        values = self._column(name)
        return values.array() if isinstance(values, Text) else values

    def _column(self, name: str) -> Column:
        if name not in self._data:
            raise SpecError([(str(name), "is not a column", _core.near(str(name), self.columns))])
        return self._data[name]

    def __contains__(self, name: object) -> bool:
        """Whether there is such a column."""
        return name in self._data

    def __iter__(self) -> Iterator[str]:
        """Go through the column names."""
        return iter(self._data)

    def _ipython_key_completions_(self) -> list[str]:
        return self.columns

    def row(self, index: int) -> dict[str, Any]:
        """Give one row as a dict of plain Python values.

        Raises
        ------
        IndexError
            If there is no such row.
        """
        found = {}
        for name, values in self._data.items():
            if isinstance(values, Text):
                code = int(values.codes[index])
                found[name] = None if code < 0 else values.labels[code]
            else:
                found[name] = values[index].item()
        return found

    def rows(self) -> Iterator[dict[str, Any]]:
        """Go through the rows as dicts; for small tables."""
        return (self.row(i) for i in range(len(self)))

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

    # --- leaving ---------------------------------------------------------------------------------

    def to_dict(self) -> dict[str, list[Any]]:
        """Give the columns as lists of plain Python values."""
        return {name: self[name].tolist() for name in self.columns}

    def to_json(self) -> str:
        """Give the table as JSON text; `from_json` gives an equal table back, to the last bit."""
        columns = {name: plain(v) for name, v in self._data.items()}
        return json.dumps({"columns": columns, "attrs": self._attrs}, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Frame:
        """Read a table back from the text that `to_json` gave.

        Raises
        ------
        SpecError
            If the text is not such a table.
        """
        try:
            data = json.loads(text)
            return cls._of({n: unplain(c) for n, c in data["columns"].items()}, data["attrs"])
        except (ValueError, KeyError, TypeError, AttributeError, IndexError) as e:
            raise SpecError([("json", f"is not a frame: {e}", "give the text that to_json() gave")]) from e

    def to_pandas(self) -> Any:
        """Give a pandas ``DataFrame`` (needs pandas); ``attrs`` go along."""
        pd = require("pandas", extra="frames")
        frame = pd.DataFrame(
            {
                n: pd.Categorical.from_codes(v.codes, list(v.labels)) if isinstance(v, Text) else v
                for n, v in self._data.items()
            }
        )
        frame.attrs.update(self._attrs)
        return frame

    def to_polars(self) -> Any:
        """Give a polars ``DataFrame`` (needs polars)."""
        pl = require("polars", extra="frames")
        columns = {}
        for name, values in self._data.items():
            if isinstance(values, Text):
                labels = pl.Series(name, [*values.labels, None], dtype=pl.String)
                columns[name] = labels.gather(np.where(values.codes < 0, len(values.labels), values.codes))
            else:
                columns[name] = pl.Series(name, values)
        return pl.DataFrame(columns)

    def to_arrow(self) -> Any:
        """Give a pyarrow ``Table`` (needs pyarrow); ``attrs`` go along as schema metadata."""
        pa = require("pyarrow", extra="frames")
        arrays = {}
        for name, values in self._data.items():
            if isinstance(values, Text):
                codes = pa.array(values.codes, mask=values.codes < 0)
                arrays[name] = pa.DictionaryArray.from_arrays(codes, pa.array(values.labels, type=pa.string()))
            else:
                arrays[name] = pa.array(values)
        table = pa.table(arrays)
        return table.replace_schema_metadata({"disagg": json.dumps(self._attrs)}) if self._attrs else table

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """Hand the table to any Arrow consumer (needs pyarrow)."""
        return self.to_arrow().__arrow_c_stream__(requested_schema)

    def to_parquet(self, path: str | Path) -> None:
        """Write a Parquet file (needs pyarrow)."""
        require("pyarrow.parquet", extra="frames").write_table(self.to_arrow(), str(path))

    def to_xarray(self, dims: Sequence[str]) -> Any:
        """Give an xarray ``Dataset`` over a full grid (needs xarray).

        Parameters
        ----------
        dims
            The columns that span the grid; every combination of their values must stand in
            exactly one row.

        Returns
        -------
        xarray.Dataset
            One variable for every other column.

        Raises
        ------
        SpecError
            If combinations are missing (the first are named) or stand twice.
        """
        xr = require("xarray", extra="frames")
        axes, codes = [], []
        for name in dims:
            values, inverse = np.unique(self[name], return_inverse=True)
            axes.append(values)
            codes.append(inverse)
        shape = tuple(len(a) for a in axes)
        flat = np.ravel_multi_index(codes, shape) if dims else np.zeros(0, dtype=np.intp)
        counts = np.bincount(flat, minlength=int(np.prod(shape)))
        _full_grid(dims, axes, shape, counts)
        order = np.argsort(flat, kind="stable")
        variables = {n: (tuple(dims), self[n][order].reshape(shape)) for n in self.columns if n not in dims}
        return xr.Dataset(variables, coords=dict(zip(dims, axes, strict=True)), attrs=self._attrs)

    @property
    def plot(self) -> _FramePlots:
        """Plots: ``.regimes()``."""
        return _FramePlots(self)

    # --- showing, comparing, keeping -------------------------------------------------------------

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

    def __eq__(self, other: object) -> bool:
        """Compare columns, their order, values (not-a-number equals itself) and attrs."""
        if not isinstance(other, Frame):
            return NotImplemented
        return (
            self.columns == other.columns
            and self._attrs == other._attrs
            and all(same(self._column(n), other._column(n)) for n in self.columns)
        )

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the arrays as they are."""
        return _rebuild, (dict(self._data), self._attrs)

    def __copy__(self) -> Frame:
        """Return itself: it is frozen."""
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Frame:
        """Return itself: it is frozen."""
        return self


def _rebuild(data: dict[str, Column], attrs: dict[str, Any]) -> Frame:
    return Frame._of(data, attrs)


def _attr(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _numbers(frame: Frame, name: str) -> npt.NDArray[np.float64]:
    values = frame._column(name)
    if isinstance(values, Text):
        numeric = [n for n in frame.columns if not isinstance(frame._column(n), Text)]
        raise SpecError([(name, "is not a column of numbers", f"numbers: {', '.join(numeric)}")])
    return values.astype(np.float64)


def _full_grid(dims: Sequence[str], axes: list[Array], shape: tuple[int, ...], counts: Array) -> None:
    if (counts == 1).all() and dims:
        return
    wrong = np.flatnonzero(counts != 1)
    points = []
    for flat in wrong[:3]:
        where = np.unravel_index(int(flat), shape)
        at = ", ".join(f"{d}={a[i]}" for d, a, i in zip(dims, axes, where, strict=True))
        points.append(f"{at} ({'missing' if counts[flat] == 0 else f'{counts[flat]} rows'})")
    more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""  # noqa: PLR2004
    message = f"the rows are not a full grid: {'; '.join(points)}{more}" if points else "no axis was named"
    raise SpecError([("dims", message, "filter to a full grid or name other columns")])
