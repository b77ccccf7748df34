"""Optional packages: imported where they are used, with an error that says how to get them."""

from __future__ import annotations

import importlib
from typing import Any

from disagg.errors import MissingPackageError


def require(name: str, *, extra: str) -> Any:
    """Import an optional package.

    Parameters
    ----------
    name
        Module to import, e.g. ``"matplotlib.pyplot"``.
    extra
        The extra of disagg that brings it, e.g. ``"plot"``.

    Returns
    -------
    module
        The module.

    Raises
    ------
    MissingPackageError
        If it is not installed; the message holds the pip command.

    Examples
    --------
    >>> from disagg._optional import require
    >>> require("json", extra="plot").dumps(1)
    '1'
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as e:
        package = name.split(".", maxsplit=1)[0]
        if e.name is not None and e.name.split(".")[0] != package:
            raise
        raise MissingPackageError(package, extra) from e
