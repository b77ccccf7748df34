"""How a Frame leaves: dicts, JSON, pandas, polars, Arrow, Parquet, xarray."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np

from disagg._columns import Array, Text, plain, unplain
from disagg._frame_base import FrameBase
from disagg._optional import require
from disagg.errors import SpecError


class Exports(FrameBase):
    """Named columns, and the forms in which they leave."""

    __slots__ = ()

    def to_dict(self) -> dict[str, list[Any]]:
        """Give the columns as lists of plain Python values."""
        return {name: self[name].tolist() for name in self.columns}

    def to_json(self) -> str:
        """Give the table as JSON text; `from_json` gives an equal table back, to the last bit."""
        columns = {name: plain(v) for name, v in self._data.items()}
        return json.dumps({"columns": columns, "attrs": self._attrs}, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Self:
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
