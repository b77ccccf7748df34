"""Units of work under way on an executor: a few more than there are workers, each tried up to three times.

`fly` serves `sweep`, whose units are small and made as it goes; `Calls` is a fixed list of coarse ones, for `explore`
and `regimes`. When the caller is stopped, units not begun are given up and coarse ones in the caller's own process
end within a tenth of a second; one that runs in another process runs to its end there, and nobody waits for it.
"""

from __future__ import annotations

import concurrent.futures as cf
import os
import pickle
import time
from collections.abc import Callable, Hashable, Sequence
from contextlib import ExitStack
from typing import Any, Protocol

from disagg import _core
from disagg.errors import CancelledError, DataError, DisaggError, InfeasibleError, SpecError
from disagg.executors import resolve, width

__all__ = ["Calls", "Units", "fly", "piece"]

ATTEMPTS = 3
TICK_S = 0.05


class Units(Protocol):
    """Work in units, as `fly` takes it."""

    def next(self) -> Hashable | None:
        """Give the key of a unit not yet begun; None: there is none."""

    def call(self, key: Any) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        """Give the function and the arguments that do the unit anywhere."""

    def finish(self, key: Any, result: Any) -> None:
        """Take what the unit brought back."""

    def failed(self, key: Any, error: BaseException) -> str:
        """Say that a unit has failed for good."""


class _Flight:
    """Units of work that are under way on an executor."""

    def __init__(self, work: Units, executor: Any, opened: ExitStack) -> None:
        self.work, self.executor, self.opened = work, executor, opened
        self.pool = opened.enter_context(resolve(executor))
        self.width = 2 * width(executor)
        self.flying: dict[cf.Future[Any], Hashable] = {}
        self.again: list[Hashable] = []
        self.failures: dict[Hashable, int] = {}

    def launch(self) -> bool:
        """Keep as many units under way as there are workers for; False when all is done."""
        while len(self.flying) < self.width and (
            (key := self.again.pop() if self.again else self.work.next()) is not None
        ):
            fn, args = self.work.call(key)
            try:
                future = self.pool.submit(fn, *args)
            except (pickle.PicklingError, TypeError, AttributeError) as e:
                raise _unfit(e) from e
            except cf.BrokenExecutor as e:
                self._retry(key, e)
            else:
                self.flying[future] = key
        return bool(self.flying)

    def land(self) -> None:
        """Take in what has finished within a tick; what failed is tried again."""
        finished, _ = cf.wait(self.flying, timeout=TICK_S, return_when=cf.FIRST_COMPLETED)
        for future in finished:
            key = self.flying.pop(future)
            error = future.exception()
            if error is None:
                self.work.finish(key, future.result())
            else:
                self._retry(key, error)

    def _retry(self, key: Hashable, error: BaseException) -> None:
        if isinstance(error, pickle.PicklingError):
            raise _unfit(error) from error
        self.failures[key] = self.failures.get(key, 0) + 1
        dead = isinstance(error, cf.BrokenExecutor)
        if self.failures[key] >= ATTEMPTS or (dead and self.executor != "processes"):
            raise DisaggError(self.work.failed(key, error)) from error
        self.again.append(key)
        if dead:
            # Loky's dead workers are replaced by asking for the executor again.
            self.pool = self.opened.enter_context(resolve(self.executor))


def _unfit(error: BaseException) -> SpecError:
    return SpecError([("executor", f"cannot carry the work: {error}", "give one that pickles functions and arrays")])


def fly(work: Units, executor: Any, tell: Callable[[], object] | None = None) -> None:
    """Do all units on an executor, as `resolve` takes it; a unit that fails is tried three times.

    `tell` is called at most every 50 ms; what it raises ends the work, and units not yet begun are given up. A unit
    that fails for good is a DisaggError, as are workers that die (those of "processes" are replaced); an executor that
    cannot carry the work is a SpecError.
    """
    told = 0.0
    with ExitStack() as opened:
        flight = _Flight(work, executor, opened)
        try:
            while flight.launch():
                flight.land()
                if tell is not None and time.monotonic() - told > TICK_S:
                    told = time.monotonic()
                    tell()
        finally:
            for future in flight.flying:
                future.cancel()


_HERE = os.urandom(16).hex()
_WANTED: set[str] = set()


def piece(fn: Callable[..., Any], args: tuple[Any, ...], caller: tuple[int, str], token: str, threads: int) -> Any:
    """Do one coarse unit, wherever this runs: ``fn(*args, report)``; `report` is the core's progress callback.

    In the process of its `caller` (process id and mark) a unit ends as soon as nobody wants its `token` any more; a
    worker in another process uses so many `threads`, at most one a core. An error that answers the question, which no
    second try would change, is given like a result.
    """
    report: Callable[..., None] | None = None
    if caller == (os.getpid(), _HERE):

        def report(*_: int) -> None:
            if token not in _WANTED:
                raise CancelledError("the caller was stopped")

        report()
    else:
        _core.set_num_threads(min(threads, os.cpu_count() or 1))
    try:
        return fn(*args, report)
    except (SpecError, InfeasibleError, DataError) as e:
        return e


class Calls:
    """A fixed list of coarse units (seconds rather than milliseconds), with their results in order.

    Each unit is ``fn(*args, report)``, importable where it runs, with a name; `what` makes of a name the first words of
    "... could not be done".
    """

    def __init__(
        self, fn: Callable[..., Any], calls: Sequence[tuple[str, tuple[Any, ...]]], what: Callable[[str], str] = str
    ) -> None:
        self.fn, self.calls, self.what = fn, calls, what
        self.results: list[Any] = [None] * len(calls)
        self.done: list[int] = []
        self._begun = 0
        self._threads = 1
        self._token = os.urandom(16).hex()

    def next(self) -> int | None:
        self._begun += 1
        return self._begun - 1 if self._begun <= len(self.calls) else None

    def call(self, key: int) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        args = (self.fn, self.calls[key][1], (os.getpid(), _HERE), self._token, self._threads)
        return piece, args

    def finish(self, key: int, result: Any) -> None:
        if isinstance(result, DisaggError):
            raise result
        self.results[key] = result
        self.done.append(key)

    def failed(self, key: int, error: BaseException) -> str:
        return f"{self.what(self.calls[key][0])} could not be done: {error!r}"

    def fly(self, executor: Any, tell: Callable[[int], object] | None = None) -> None:
        """Do all units on an executor; `tell` is given the number of those that are done."""
        # Where units are fewer than workers, each takes the threads of several.
        self._threads = max(1, width(executor) // max(1, len(self.calls)))
        _WANTED.add(self._token)
        try:
            fly(self, executor, None if tell is None else lambda: tell(len(self.done)))
        finally:
            _WANTED.discard(self._token)
        if tell is not None:
            tell(len(self.done))
