"""Progress of long native work, reported on the caller's thread at most 20 times a second."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from disagg._optional import require
from disagg.errors import SpecError

__all__ = ["Progress", "reporter"]

Progress = bool | Callable[[int, int], object] | None
"""``None``: a bar after one second where somebody can see it; ``True``, ``False``; or ``f(done, total)``."""

PATIENCE_S = 1.0


def _watched() -> bool:
    """Whether anybody would see a bar: a notebook kernel or a terminal."""
    if "ipykernel" in sys.modules:
        return True
    return bool(getattr(sys.stderr, "isatty", lambda: False)())


class _Bar:
    """A tqdm bar that appears after some patience."""

    def __init__(self, label: str, patience_s: float) -> None:
        self._label = label
        self._due = time.monotonic() + patience_s
        self._bar: Any = None

    def __call__(self, done: int, total: int) -> None:
        if self._bar is None:
            if time.monotonic() < self._due:
                return
            self._bar = require("tqdm.auto", extra="notebook").tqdm(total=total or None, desc=self._label)
        if total and self._bar.total != total:
            self._bar.total = total
        self._bar.update(done - self._bar.n)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()


@contextmanager
def reporter(progress: Progress, label: str) -> Iterator[Callable[[int, int], object] | None]:
    """Give the callback that the native core should call (None: none), and tidy up afterwards.

    `label` says what is being done, for the bar; a total of 0 is not known yet. A `progress` that is nothing of its
    kind is a SpecError, ``True`` without tqdm a MissingPackageError.
    """
    if progress is False or (progress is None and not _watched()):
        yield None
    elif progress is None or progress is True:
        try:
            require("tqdm.auto", extra="notebook")
        except ImportError:
            if progress:
                raise
            yield None
            return
        bar = _Bar(label, 0.0 if progress else PATIENCE_S)
        try:
            yield bar
        finally:
            bar.close()
    elif callable(progress):
        yield progress
    else:
        raise SpecError([("progress", f"{progress!r} does not fit", "expected None, True, False or a function")])
