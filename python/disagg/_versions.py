"""Versions, build profile and threads; warns on a debug build."""

from __future__ import annotations

import os
import platform
import sys
import warnings

from disagg import _core
from disagg.errors import DataError

_core.kernels_at(os.path.join(os.path.dirname(__file__), "data", "kernels"))  # noqa: PTH118, PTH120 - cheaper to import
_NATIVE = _core.versions()

__version__: str = _NATIVE["version"]

if _NATIVE["profile"] == "debug":
    warnings.warn("disagg is a debug build: correct, but many times slower", UserWarning, stacklevel=3)


def _origin() -> str:
    try:
        return _core.kernels_origin()
    except DataError as e:
        return f"damaged: {e}"


def versions() -> dict[str, str]:
    """Give what `show_versions` prints, as a dict."""
    from importlib import metadata

    found = {
        "disagg": __version__,
        "build": str(_NATIVE["profile"]),
        "threads": str(_core.num_threads()),
        "kernel pack": _origin(),
        "python": sys.version.split()[0],
        "platform": platform.platform(terse=True),
    }
    for package in ("numpy", "matplotlib", "pandas", "polars", "pyarrow", "xarray", "ipywidgets", "tqdm"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def check() -> list[tuple[str, str]]:
    """Check that the installation is whole: its files against the list that was installed, every table by reading it.

    Returns
    -------
    list
        ``(file, what is wrong)`` each; empty if all is well. Files of an editable installation are not checked.
    """
    import base64
    import hashlib
    from importlib import metadata

    problems: list[tuple[str, str]] = []
    try:
        installed = metadata.distribution("disagg")
    except metadata.PackageNotFoundError:
        installed = None
    if installed is not None and installed.version != __version__:
        problems.append((str(_core.__file__), f"is of version {__version__}, the package of {installed.version}"))
    for file in (installed.files if installed is not None else None) or []:
        if file.hash is None or file.hash.mode != "sha256":
            continue
        path = str(file.locate())
        try:
            with open(path, "rb") as opened:  # noqa: PTH123 - importing disagg does not import pathlib
                digest = hashlib.sha256(opened.read()).digest()
        except OSError as e:
            problems.append((path, f"cannot be read: {e.strerror}"))
            continue
        if base64.urlsafe_b64encode(digest).rstrip(b"=").decode() != file.hash.value:
            problems.append((path, "is not the file that was installed"))
    try:
        problems += _core.kernels_damaged()
    except DataError as e:
        problems.append((e.path, e.message))
    return problems


def show_versions(*, check: bool = False) -> None:
    """Print version, build profile, threads and the versions of optional packages.

    Parameters
    ----------
    check
        Whether to verify the installation as well, as ``disagg doctor`` does: its files against the list that was
        installed, and every table of kernels by reading it.

    Raises
    ------
    DataError
        If `check` finds a file or a table that is damaged or of another installation.

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
    if check:
        problems = _check()
        if problems:
            path, message = problems[0]
            more = f" (and {len(problems) - 1} more: see `disagg doctor`)" if len(problems) > 1 else ""
            raise DataError(path, message + more)
        print(f"{'checked':<12}every file and every table is as it was shipped")  # noqa: T201


_check = check


def set_num_threads(n: int) -> None:
    """Set the number of worker threads of the native core.

    Parameters
    ----------
    n
        Threads; 0: one per core, or ``DISAGG_NUM_THREADS`` if that is set. At most 1,024, or ``DISAGG_MOST_THREADS``.

    Raises
    ------
    SpecError
        If `n` is negative or more than that.

    Examples
    --------
    >>> import disagg as dg
    >>> dg.set_num_threads(0)
    """
    _core.set_num_threads(n)
