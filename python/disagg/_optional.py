"""Optional packages: imported where they are used, with an error that says how to get them."""

from __future__ import annotations

import importlib
from typing import Any

from disagg.errors import MissingPackageError


def require(name: str, *, extra: str) -> Any:
    """Import a module of an optional package that `extra` of disagg brings.

    Where it is not installed a `MissingPackageError` says how to get it.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as e:
        package = name.split(".", maxsplit=1)[0]
        if e.name is not None and e.name.split(".")[0] != package:
            raise
        raise MissingPackageError(package, extra) from e
