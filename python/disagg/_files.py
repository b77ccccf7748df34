"""Files that a user names: their paths, and what the system says of them, in the package's own errors."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from disagg.errors import DataError, SpecError

__all__ = ["as_path", "explained"]


def as_path(path: object, field: str) -> Path:
    """Give a path that the system can be asked for.

    Parameters
    ----------
    path
        Text, or what names a path (``os.PathLike``).
    field
        The argument, named in errors.

    Returns
    -------
    Path
        The path.

    Raises
    ------
    SpecError
        If it is no path: empty, of another type, or with a character that no file name has.

    Examples
    --------
    >>> from disagg._files import as_path
    >>> as_path("out/rows.csv", "path").name
    'rows.csv'
    """
    text = os.fspath(path) if isinstance(path, (str, os.PathLike)) else None
    if not isinstance(text, str) or not text or "\0" in text or not _sayable(text):
        raise SpecError([(field, f"{path!r:.80} is not a path", "give the name of a file")])
    return Path(text)


def _sayable(text: str) -> bool:
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        return False
    return True


@contextmanager
def explained(path: Path, what: str, then: str = "") -> Iterator[None]:
    """Turn what the system says of a file into a DataError that names it.

    Parameters
    ----------
    path
        The file.
    what
        What it was to do: ``"be read"``.
    then
        What is left to do, put behind the reason.

    Raises
    ------
    DataError
        If the system refused.
    """
    try:
        yield
    except OSError as e:
        raise DataError(str(path), f"cannot {what}: {e.strerror or e}{then}") from e
