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
from disagg.specs._base import checked, told
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


@told(_core.kernels_systems)
def systems() -> list[str]:
    return _core.kernels_systems()


@told(_core.kernels_frameworks)
def frameworks(system: str) -> list[str]:
    return _core.kernels_frameworks(system)


@told(_core.kernels_tables)
def tables(system: str, framework: str) -> Frame:
    return Frame._from_core(_core.kernels_tables(system, framework))


@told(_core.kernels_table)
def table(system: str, framework: str, name: str, *, version: str | None = None) -> Frame:
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


@told(_core.kernels_lookup)
def lookup(
    system: str, framework: str, table: str, *, version: str | None = None, measure: str | None = None, **keys: Any
) -> Latency:
    shape, flat = _keys(keys)
    found = Frame._from_core(_core.kernels_lookup(system, framework, table, version, measure, flat))
    if shape == ():
        row = found.row(0)
        return Latency(row["ms"], row["evidence"], row["source"])
    return Latency(*(found[n].reshape(shape) for n in ("ms", "evidence", "source")))


@told(_core.kernels_import)
def import_dir(path: str | os.PathLike[str], *, name: str) -> int:
    from disagg.kernels import importer

    return _core.kernels_import(name, importer.import_dir(path, name=name))


@told(_core.kernels_report)
def report(
    system: str = "b200_sxm",
    framework: str = "sglang",
    *,
    samples: int = 30,
    seed: int = 0,
    device: Device | None = None,
    progress: Progress = None,
) -> Frame:
    if samples < 1 or seed < 0:
        raise SpecError([("samples" if samples < 1 else "seed", "is too small", "samples from 1, seed from 0")])
    with reporter(progress, "tables") as callback:
        rows = _core.kernels_report(system, framework, device or Device.preset(system), samples, seed, callback)
    return Frame._from_core(rows, system=system, framework=framework, samples=samples, seed=seed)


@told(_core.kernels_suspects)
def suspects(
    system: str = "b200_sxm",
    framework: str = "sglang",
    *,
    device: Device | None = None,
    progress: Progress = None,
) -> Frame:
    with reporter(progress, "tables") as callback:
        rows = _core.kernels_suspects(system, framework, device or Device.preset(system), callback)
    return Frame._from_core(rows, system=system, framework=framework)
