"""Versions, build profile and threads; warns on a debug build."""

from __future__ import annotations

import os
import platform
import sys
import warnings

from disagg import _core

_core.kernels_at(os.path.join(os.path.dirname(__file__), "data", "kernels"))  # noqa: PTH118, PTH120 - cheaper to import
_NATIVE = _core.versions()

__version__: str = _NATIVE["version"]

if _NATIVE["profile"] == "debug":
    warnings.warn("disagg is a debug build: correct, but many times slower", UserWarning, stacklevel=3)


def versions() -> dict[str, str]:
    """Give what `show_versions` prints, as a dict."""
    from importlib import metadata

    found = {
        "disagg": __version__,
        "build": str(_NATIVE["profile"]),
        "threads": str(_core.num_threads()),
        "kernel pack": _core.kernels_origin(),
        "python": sys.version.split()[0],
        "platform": platform.platform(terse=True),
    }
    for package in ("numpy", "matplotlib", "pandas", "polars", "pyarrow", "xarray", "ipywidgets", "tqdm"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def show_versions() -> None:
    """Print version, build profile, threads and the versions of optional packages.

    Examples
    --------
    >>> import disagg as dg
    >>> dg.show_versions()  # doctest: +ELLIPSIS
    disagg      ...
    build       ...
    threads     ...
    """
    for name, version in versions().items():
        print(f"{name:<12}{version}")  # noqa: T201


def set_num_threads(n: int) -> None:
    """Set the number of worker threads of the native core.

    Parameters
    ----------
    n
        Threads; 0: one per core, or ``DISAGG_NUM_THREADS`` if that is set.

    Raises
    ------
    SpecError
        If `n` is negative.

    Examples
    --------
    >>> import disagg as dg
    >>> dg.set_num_threads(0)
    """
    _core.set_num_threads(n)
