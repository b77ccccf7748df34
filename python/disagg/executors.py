"""Executors: the same work units on threads, processes, a dask cluster or ray.

Anything that is a `concurrent.futures.Executor` will do. A unit of `sweep` carries the space as JSON text and
the numbers of its points, one of `explore` or `regimes` its specs (which pickle as JSON); back come plain numpy
arrays; nothing else crosses.
"""

from __future__ import annotations

import concurrent.futures as cf
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, cast

import numpy as np

from disagg import _core
from disagg._optional import require
from disagg.errors import SpecError

__all__ = ["Executor", "resolve", "texts", "width", "work"]

Columns = dict[str, Any]


class Executor(Protocol):
    """What a sweep needs of an executor."""

    def submit(self, fn: Callable[..., Any], /, *args: Any) -> cf.Future[Any]:
        """Start ``fn(*args)`` somewhere and give its future."""


_SPACES: dict[str, _core.DesignSpace] = {}


def texts(columns: Columns) -> Columns:
    """Give what the core gives as plain arrays: categories as text."""
    return {n: np.array(v[1], dtype=str)[v[0]] if isinstance(v, tuple) else v for n, v in columns.items()}


def work(
    text: str, points: Any, metrics: list[str], caller: int | None = None, runnable: bool = True
) -> tuple[float, Columns]:
    """Price points of a space (JSON) by their numbers (int64), wherever this runs: seconds, and columns as arrays.

    A worker in another process than its `caller` uses one thread, for there is one a core. `runnable`: points that no
    server starts are left unpriced.
    """
    begin = time.perf_counter()
    if caller is not None and caller != os.getpid():
        _core.set_num_threads(1)
    space = _SPACES.get(text)
    if space is None:
        if len(_SPACES) >= 8:  # noqa: PLR2004 - a worker rarely serves more spaces than that
            _SPACES.clear()
        space = _SPACES[text] = _core.DesignSpace(text)
    columns, _ = space.price(np.asarray(points, dtype=np.int64), metrics, runnable, None)
    return time.perf_counter() - begin, texts(columns)


def width(executor: Any) -> int:
    """Say how many units may run at once, as far as can be told."""
    cores = getattr(executor, "ncores", None)
    found = getattr(executor, "_max_workers", None) or (sum(cores().values()) if callable(cores) else None)
    return int(found or os.cpu_count() or 1)


class _Ray:
    """Ray's object references as futures."""

    def __init__(self) -> None:
        self._ray = require("ray", extra="ray")
        if not self._ray.is_initialized():
            self._ray.init()

    def submit(self, fn: Callable[..., Any], /, *args: Any) -> cf.Future[Any]:
        return cast("cf.Future[Any]", self._ray.remote(fn).remote(*args).future())


@contextmanager
def resolve(executor: Any) -> Iterator[Executor]:
    """Give the executor that a name or an object stands for; one that was given is left open.

    A `concurrent.futures.Executor`, a dask ``Client``, ``"processes"`` (loky) or ``"ray"``; anything else is a
    SpecError, and a named one that is not installed a MissingPackageError.

    Examples
    --------
    >>> import concurrent.futures as cf
    >>> from disagg.executors import resolve
    >>> with cf.ThreadPoolExecutor(1) as pool, resolve(pool) as executor:
    ...     executor.submit(len, "four").result()
    4
    """
    if executor == "processes":
        yield require("loky", extra="distributed").get_reusable_executor()
    elif executor == "ray":
        yield _Ray()
    elif isinstance(executor, cf.Executor):
        yield executor
    elif callable(getattr(executor, "get_executor", None)):
        yield executor.get_executor(pure=False)
    elif callable(getattr(executor, "submit", None)):
        yield executor
    else:
        hint = "an Executor, a dask Client, 'processes' or 'ray'"
        raise SpecError([("executor", f"{executor!r} does not fit", f"expected {hint}")])
