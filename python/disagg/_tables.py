"""Tables of a person as columns for the native reader: frames, mappings, Parquet and Arrow files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from os import PathLike, fspath
from typing import Any

import numpy as np
import numpy.typing as npt

from disagg._optional import require
from disagg.errors import SpecError

__all__ = ["columns_of"]

Column = npt.NDArray[np.int64] | npt.NDArray[np.float64] | str
PACKED = {b"PAR1": "pyarrow.parquet", b"ARRO": "pyarrow.feather"}
"""First bytes of files that pyarrow reads."""


def columns_of(table: Any) -> tuple[str, list[tuple[str, Column]] | None]:
    """Give where a table stands, and its columns if the native reader does not read it by itself."""
    if isinstance(table, (str, PathLike)):
        path = fspath(table)
        reader = PACKED.get(_magic(path))
        if reader is None:
            return path, None
        return path, columns_of(require(reader, extra="frames").read_table(path))[1]
    if isinstance(table, (list, tuple)) and table and all(isinstance(row, Mapping) for row in table):
        names = list(dict.fromkeys(name for row in table for name in row))
        table = {name: [row.get(name) for row in table] for name in names}
    if isinstance(table, Mapping):
        names = list(table)
    elif hasattr(table, "column_names"):  # Arrow
        names = list(table.column_names)
    elif hasattr(table, "columns") and hasattr(table, "__getitem__"):
        names = list(table.columns)
    else:
        hint = "a path, a DataFrame, an Arrow table, a mapping of columns or a list of rows"
        raise SpecError([("path_or_frame", f"is a {type(table).__name__}", hint)])
    if len({str(n) for n in names}) < len(names):
        raise SpecError([("path_or_frame", "has two columns of one name", "rename one")])
    return type(table).__name__, [(str(n), _column(table[n])) for n in names]


def _magic(path: str) -> bytes:
    from pathlib import Path

    try:
        with Path(path).open("rb") as file:
            return file.read(4)
    except OSError:
        return b""  # the native reader says what is wrong


def _column(values: Any) -> Column:
    array = np.asarray(values)
    if array.ndim == 1:
        if array.dtype.kind in "iu" and np.can_cast(array.dtype, np.int64):
            return np.ascontiguousarray(array, dtype=np.int64)
        if array.dtype.kind == "f":
            return np.ascontiguousarray(array, dtype=np.float64)
        if array.dtype.kind == "m":
            return np.ascontiguousarray(array / np.timedelta64(1, "s"), dtype=np.float64)
        if array.dtype.kind == "M":
            dates = zip(np.isnat(array).tolist(), np.datetime_as_string(array).tolist(), strict=True)
            return json.dumps([None if gone else date for gone, date in dates])
    return json.dumps([_plain(x) for x in (array if array.ndim == 1 else list(values))])


def _plain(x: Any) -> Any:
    """Give a cell as JSON has it; what is missing is null."""
    if x is None or type(x).__name__ in {"NAType", "NaTType"} or (isinstance(x, float) and not np.isfinite(x)):
        return None
    if isinstance(x, (bool, int, float, str)):
        return x
    for give in ("tolist", "to_list", "as_py"):
        if hasattr(x, give):
            found = getattr(x, give)()
            return [_plain(y) for y in found] if isinstance(found, list) else _plain(found)
    if isinstance(x, (list, tuple)):
        return [_plain(y) for y in x]
    return str(x)
