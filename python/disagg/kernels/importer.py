"""Reading parquet tables of kernel measurements into plain arrays.

The one door for measurements that are not in the shipped pack: a newer ``aiconfigurator-core``
wheel (unpacked or installed) or a user's own directory in the same layout. A file is read as a
whole or refused with file, column and row; nothing is read by half. Needs pyarrow
(``pip install disagg[kernels]``).
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from disagg.errors import DataError

from . import layout

Array = npt.NDArray[Any]


class KernelDataError(DataError, ValueError):
    """A file of measurements cannot be used.

    Attributes
    ----------
    path : str
        The file (or directory) at fault.
    column : str or None
    row : int or None
        Row of the file, counted from 0.
    """

    def __init__(self, path: Any, message: str, column: str | None = None, row: int | None = None) -> None:
        where = str(path)
        if column is not None:
            where += f", column '{column}'"
        if row is not None:
            where += f", row {row}"
        super().__init__(where, message)
        self.path, self.column, self.row = str(path), column, row
        self._where = where

    def __str__(self) -> str:
        """Where it is and what is wrong."""
        return f"{self._where}: {self.message}"

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), (self.path, self.message, self.column, self.row))


def find_root(path: str | os.PathLike[str]) -> Path:
    """The directory below which ``<system>/<family>/<framework>/<version>`` starts.

    Accepts that directory itself, an unpacked wheel, or the installed package's directory.
    """
    base = Path(path)
    if not base.is_dir():
        raise KernelDataError(base, "no such directory")
    wheels = ("aiconfigurator_core", "aisimulate_core")
    for inner in ("", "data", "systems/data", *(f"{wheel}/systems/data" for wheel in wheels)):
        root = base / inner
        if root.is_dir() and next(root.glob(f"*/*/*/*/*{layout.SUFFIX}"), None) is not None:
            return root
    raise KernelDataError(
        base, f"no measurements here: expected <system>/<family>/<framework>/<version>/<table>{layout.SUFFIX}"
    )


def find_tables(root: Path) -> list[tuple[str, str, str, str, str, Path]]:
    """``(system, family, framework, version, table, path)`` of every table, sorted."""
    found = []
    for path in root.glob(f"*/*/*/*/*{layout.SUFFIX}"):
        system, family, framework, version, file = path.relative_to(root).parts
        found.append((system, family, framework, version, file.removesuffix(layout.SUFFIX), path))
    return sorted(found)


def read_table(path: str | os.PathLike[str], table: str | None = None) -> dict[str, Array]:
    """All columns of one parquet file but the descriptive ones, rows in the order of the file.

    Keys are arrays of ``int64`` or ``object`` (of ``str``), measures ``float64`` in the units of the file. A file that
    is truncated or no parquet, lacks a column, or holds a null, a negative or a non-finite number is a KernelDataError.
    """
    path = Path(path)
    if table is None:
        table = path.name.removesuffix(layout.SUFFIX)
    raw = _read_arrow(path)
    columns: dict[str, Array] = {}
    for name in raw.column_names:
        if name in layout.DESCRIPTIVE:
            continue
        column = raw.column(name)
        if column.null_count:
            row = int(np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False))[0])
            raise KernelDataError(path, "no value", name, row)
        columns[name] = _measure(path, name, column) if layout.is_measure(name) else _key(path, name, column)
    if raw.num_rows == 0:
        raise KernelDataError(path, "the table has no rows")
    if not any(layout.is_measure(name) for name in columns):
        raise KernelDataError(path, "no measured column ('latency', or a name that ends in '_us' or '_ms')", "latency")
    for name in layout.required(table):
        if name not in columns:
            raise KernelDataError(path, f"missing; the file has {', '.join(raw.column_names)}", name)
    return columns


def import_dir(path: str | os.PathLike[str], *, name: str) -> list[dict[str, Any]]:
    """Read every table below a directory in the layout of :mod:`disagg.kernels.layout`, sorted; `name` is the source's.

    Each is a dict of ``source, system, family, framework, version, table, path, sha256, columns``; ``columns`` as
    :func:`read_table` gives them. The first file that cannot be read as a whole is a KernelDataError.
    """
    if not name or not name.strip():
        raise KernelDataError(path, "name= must say what these measurements are called")
    root = find_root(path)
    names = ("system", "family", "framework", "version", "table")
    return [
        {
            "source": name,
            **dict(zip(names, found, strict=True)),
            "path": file.relative_to(root).as_posix(),
            "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
            "columns": read_table(file, found[-1]),
        }
        for *found, file in find_tables(root)
    ]


def _read_arrow(path: Path) -> Any:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise ImportError("reading parquet needs pyarrow: pip install 'disagg[kernels]'") from error
    try:
        # ParquetFile and not read_table: the latter would look for partitions in the path.
        with pq.ParquetFile(path) as file:
            return file.read()
    except FileNotFoundError:
        raise KernelDataError(path, "no such file") from None
    except (pa.ArrowException, OSError) as error:
        raise KernelDataError(path, f"not a readable parquet file: {str(error).splitlines()[0]}") from error


def _measure(path: Path, name: str, column: Any) -> Array:
    values: Array = column.to_numpy(zero_copy_only=False)
    if not np.issubdtype(values.dtype, np.number):
        raise KernelDataError(path, f"expected numbers, found {column.type}", name)
    values = values.astype(np.float64)
    bad = np.flatnonzero(~np.isfinite(values) | (values < 0.0))
    if len(bad):
        row = int(bad[0])
        what = "negative" if values[row] < 0.0 else "not a finite number"
        raise KernelDataError(path, f"{values[row]} is {what}", name, row)
    return values


def _key(path: Path, name: str, column: Any) -> Array:
    values: Array = column.to_numpy(zero_copy_only=False)
    kind = values.dtype.kind
    if kind in "iub":
        return values.astype(np.int64)
    if kind == "f":
        with np.errstate(invalid="ignore"):
            whole: Array = values.astype(np.int64)
        bad = np.flatnonzero(whole != values)
        if len(bad):
            raise KernelDataError(path, f"{values[bad[0]]} is not a whole number", name, int(bad[0]))
        return whole
    if kind == "O" and all(isinstance(v, str) for v in values):
        return values
    raise KernelDataError(path, f"expected integers or text, found {column.type}", name)
