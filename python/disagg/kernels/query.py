"""The measured kernels: what there is, whole tables, single times, imports, and how good the predictor is."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from disagg import _core
from disagg.errors import DisaggError, SpecError
from disagg.frame import Frame
from disagg.progress import Progress, reporter
from disagg.specs._base import checked
from disagg.specs.hardware import Device

_in_use = Path(__file__).parents[1] / "data" / "kernels"


class Latency(NamedTuple):
    """A time, how well it is known, and where it comes from; arrays where the keys were arrays."""

    ms: Any
    """Milliseconds."""
    evidence: Any
    """``measured``, ``interpolated``, ``extrapolated`` or ``roofline``."""
    source: Any
    """Framework, version, table and kernel source."""


def shipped() -> Path:
    """Give the directory of the tables that came with the package.

    Examples
    --------
    >>> import disagg as dg
    >>> (dg.kernels.shipped() / "index.json").is_file()
    True
    """
    return Path(__file__).parents[1] / "data" / "kernels"


@checked
def use(path: str | os.PathLike[str]) -> None:
    """Have all later questions answered by another pack (``disagg data build`` makes one); imports are left out of it.

    Parameters
    ----------
    path
        Directory with ``index.json``; ``kernels.shipped()``: the tables that came with the package.

    Raises
    ------
    DataError
        If there is no pack or it is damaged; what was in use stays.

    Examples
    --------
    >>> import disagg as dg
    >>> dg.kernels.use(dg.kernels.shipped())
    """
    global _in_use  # noqa: PLW0603 - the core has one database a process
    _core.kernels_at(str(Path(path)))
    try:
        _core.kernels_origin()
    except DisaggError:
        _core.kernels_at(str(_in_use))
        raise
    _in_use = Path(path)


def in_use() -> Path:
    """Give the directory of the tables that answer.

    Examples
    --------
    >>> import disagg as dg
    >>> dg.kernels.in_use() == dg.kernels.shipped()
    True
    """
    return _in_use


def systems() -> list[str]:
    """List the systems whose kernels were measured.

    Examples
    --------
    >>> import disagg as dg
    >>> "b200_sxm" in dg.kernels.systems()
    True
    """
    return _core.kernels_systems()


@checked
def frameworks(system: str) -> list[str]:
    """List the frameworks that serve on a system (``tables(system, "nccl")`` has the collectives beside them).

    Examples
    --------
    >>> import disagg as dg
    >>> "sglang" in dg.kernels.frameworks("b200_sxm")
    True
    """
    return _core.kernels_frameworks(system)


@checked
def tables(system: str, framework: str) -> Frame:
    """List the tables of a framework on a system.

    Returns
    -------
    Frame
        table, version, rows, default (taken when no version is named), import, repeated (keys measured more
        than once) and spread_median (of those, largest / least - 1).

    Examples
    --------
    >>> import disagg as dg
    >>> "gemm" in dg.kernels.tables("b200_sxm", "sglang")["table"]
    True
    """
    return Frame._from_core(_core.kernels_tables(system, framework))


@checked
def table(system: str, framework: str, name: str, *, version: str | None = None) -> Frame:
    """Give a whole table: key columns, then what was measured, in the units of the source.

    Parameters
    ----------
    system, framework, name
        Which table; the name is that of its parquet file without ``_perf``.

    Raises
    ------
    SpecError
        If there is no such table; near names are listed.
    DataError
        If the pack is damaged.

    Examples
    --------
    >>> import disagg as dg
    >>> len(dg.kernels.table("b200_sxm", "sglang", "gemm")) > 1000
    True
    """
    return Frame._from_core(_core.kernels_table(system, framework, name, version))


# What numpy broadcasts.
_MOST_AXES = 32


def _keys(keys: dict[str, Any]) -> tuple[tuple[int, ...], list[tuple[str, Any]]]:
    """Broadcast the keys: their common shape, and each as numbers or text."""
    arrays: dict[str, npt.NDArray[Any]] = {}
    for name, value in keys.items():
        array = np.asarray(value)
        if array.dtype.kind not in "iufUO" or (array.dtype.kind == "O" and not _texts(array)):
            raise SpecError([(name, f"a value of type {array.dtype} does not fit", "numbers or text")])
        if array.ndim > _MOST_AXES:
            raise SpecError([(name, f"has {array.ndim} axes", f"give at most {_MOST_AXES}")])
        arrays[name] = array
    try:
        shape = np.broadcast_shapes(*(a.shape for a in arrays.values()))
    except ValueError as e:
        shapes = ", ".join(f"{n} {a.shape}" for n, a in arrays.items())
        raise SpecError([("keys", f"the shapes do not go together: {shapes}", "as numpy broadcasts")]) from e
    flat: list[tuple[str, Any]] = []
    for name, array in arrays.items():
        text = array.dtype.kind in "UO"
        if array.ndim == 0:
            flat.append((name, [str(array)] if text else np.array([float(array)])))
        else:
            whole = np.broadcast_to(array, shape).ravel()
            flat.append((name, [str(v) for v in whole] if text else whole.astype(np.float64)))
    return shape, flat


def _texts(array: npt.NDArray[Any]) -> bool:
    return all(isinstance(v, str) for v in array.ravel())


@checked
def lookup(
    system: str, framework: str, table: str, *, version: str | None = None, measure: str | None = None, **keys: Any
) -> Latency:
    """Look up one measured time, or many at once.

    Parameters
    ----------
    system, framework, table
        Which table; the name is that of its parquet file without ``_perf``.
    measure
        A measured column, or several joined by ``+``; None: ``latency``.
    **keys
        The table's own key columns. Numbers may be arrays and broadcast. ``kernel_source`` may be left out:
        the default lane.

    Returns
    -------
    Latency
        ``.ms``, ``.evidence`` and ``.source``: plain values, or arrays of the broadcast shape.

    Raises
    ------
    SpecError
        If a key is unknown, missing or ambiguous; says what to give.

    Examples
    --------
    >>> import disagg as dg
    >>> one = dg.kernels.lookup("b200_sxm", "sglang", "gemm", gemm_dtype="bfloat16", m=[1, 64], n=7168, k=2048)
    >>> one.ms.shape, set(one.evidence.tolist()) <= {"measured", "interpolated"}
    ((2,), True)
    """
    shape, flat = _keys(keys)
    found = Frame._from_core(_core.kernels_lookup(system, framework, table, version, measure, flat))
    if shape == ():
        row = found.row(0)
        return Latency(row["ms"], row["evidence"], row["source"])
    return Latency(*(found[n].reshape(shape) for n in ("ms", "evidence", "source")))


@checked
def import_dir(path: str | os.PathLike[str], *, name: str) -> int:
    """Put the measurements of a directory in front of the shipped ones (needs pyarrow).

    Number formats and shapes that the import lacks are answered by the rows that were there; of what it has, its own
    rows alone. ``Estimate.explain()`` names the tables that answer.

    Parameters
    ----------
    path
        A directory ``<system>/<family>/<framework>/<version>/<table>_perf.parquet``, or an unpacked or installed
        ``aiconfigurator-core``.
    name
        What the source is called wherever its numbers show up; also good as ``version=`` of a look-up.

    Returns
    -------
    int
        Tables imported.

    Raises
    ------
    DataError
        At the first file that cannot be read as a whole; nothing is imported then.
    """
    from disagg.kernels import importer

    return _core.kernels_import(name, importer.import_dir(path, name=name))


@checked
def report(
    system: str = "b200_sxm",
    framework: str = "sglang",
    *,
    samples: int = 30,
    seed: int = 0,
    device: Device | None = None,
    progress: Progress = None,
) -> Frame:
    """Say how good the predictor is: leave-one-out errors by table and hidden axis.

    Parameters
    ----------
    system, framework
        Whose tables.
    samples
        Rows drawn from each table.

    Returns
    -------
    Frame
        table, lane (its number format), axis (what was hidden; ``point``: the one row), edge (the hidden value was
        the first or last), n, median_error and p90_error (relative), noise (median spread of repeats: no predictor
        can do better; NaN where nothing was measured twice), jitter (median fall between neighbours that fall where
        there is more to do: kernel changes and noise, which no smooth predictor follows), aim (median error aimed
        at; 20 % for the 90th percentile), within (whether the lane keeps both).
    """
    if samples < 1 or seed < 0:
        raise SpecError([("samples" if samples < 1 else "seed", "is too small", "samples from 1, seed from 0")])
    with reporter(progress, "tables") as callback:
        rows = _core.kernels_report(system, framework, device or Device.preset(system), samples, seed, callback)
    return Frame._from_core(rows, system=system, framework=framework, samples=samples, seed=seed)


@checked
def suspects(
    system: str = "b200_sxm",
    framework: str = "sglang",
    *,
    device: Device | None = None,
    progress: Progress = None,
) -> Frame:
    """List the lanes whose rows look wrong by rule; each is used unless the reason says otherwise.

    Parameters
    ----------
    system, framework
        Whose tables.

    Returns
    -------
    Frame
        table, lane, reason (a row far off its neighbours, a launch floor far above the roofline, times that fall
        where there is more to do, a balanced load slower than a skewed one).
    """
    with reporter(progress, "tables") as callback:
        rows = _core.kernels_suspects(system, framework, device or Device.preset(system), callback)
    return Frame._from_core(rows, system=system, framework=framework)
