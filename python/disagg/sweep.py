"""sweep: every point of a space priced, here or beyond one machine, resumable and interruptible."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import closing, nullcontext
from typing import Any, Unpack

import numpy as np

from disagg import _core, executors
from disagg._checkpoint import Checkpoint
from disagg._executor_pool import fly
from disagg._versions import __version__
from disagg.errors import Problem, SpecError
from disagg.frame import Frame
from disagg.progress import reporter
from disagg.space import Space
from disagg.specs._base import takes

__all__ = ["sweep"]

FIRST_UNIT = 32
UNIT_S = 0.2
MOST_UNIT = 65_536

Report = Callable[[int, int], object] | None


class _Work:
    """What is done and what is not, in units of adaptive size."""

    def __init__(self, space: Space, metrics: list[str], checkpoint: Checkpoint | None, *, runnable: bool) -> None:
        self.space, self.metrics, self.checkpoint, self.runnable = space, metrics, checkpoint, runnable
        self.text = space.to_json()
        self.units: dict[tuple[int, int], dict[str, Any]] = {} if checkpoint is None else dict(checkpoint.units)
        self.gaps = [(0, space.size)] if checkpoint is None else checkpoint.missing(space.size)
        self.unit = FIRST_UNIT

    @property
    def done(self) -> int:
        return sum(stop - start for start, stop in self.units)

    def next(self) -> tuple[int, int] | None:
        """Take the next range to price."""
        if not self.gaps:
            return None
        start, stop = self.gaps.pop(0)
        end = min(stop, start + self.unit)
        if end < stop:
            self.gaps.insert(0, (end, stop))
        return start, end

    def call(self, key: tuple[int, int]) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        """Give what prices a range anywhere."""
        return executors.work, (self.text, self.space._numbers(*key), self.metrics, os.getpid(), self.runnable)

    def failed(self, key: tuple[int, int], error: BaseException) -> str:
        """Say that a range has failed for good."""
        kept = "" if self.checkpoint is None else "; the checkpoint keeps what is done: call again"
        return f"points {key[0]} to {key[1]} could not be priced: {error!r}{kept}"

    def finish(self, key: tuple[int, int], result: tuple[float, dict[str, Any]]) -> None:
        """Keep what a range brought back: seconds and columns."""
        seconds, columns = result
        if self.checkpoint is not None:
            self.checkpoint.add(*key, columns)
        self.units[key] = columns
        # Work units of 50 to 500 ms: the next ones take what would have lasted UNIT_S.
        wanted = UNIT_S / max(seconds / (key[1] - key[0]), 1e-9)
        self.unit = int(min(max(wanted, self.unit / 4, 1), self.unit * 4, MOST_UNIT))

    def frame(self, attrs: dict[str, Any]) -> Frame:
        parts = [self.units[key] for key in sorted(self.units)]
        if not parts:
            parts = [executors.work(self.text, self.space._numbers(0, 0), self.metrics, runnable=self.runnable)[1]]
        return Frame({n: np.concatenate([p[n] for p in parts]) for n in parts[0]}, attrs=attrs)


@takes("_Sweep")
def sweep(space: Space, **options: Unpack[_core._Sweep]) -> Frame:
    """Price every point of a space (or of a sample or slice of it).

    Parameters
    ----------
    space
        What to price.

    Returns
    -------
    Frame
        One row a point in the order of their numbers: ``point``, the axes, the metrics, ``feasible``,
        ``runnable``, ``binding`` (what stops it) and ``status`` (``"ok"``, or why it could not be priced).

    Raises
    ------
    SpecError
        If a metric is unknown, the checkpoint belongs to another study or is being written by another sweep, or the
        executor does not fit.
    DataError
        If the checkpoint is not one, or its disk is full or not to be written; a table of kernels is damaged.
    DisaggError
        If a unit of work fails three times or the executor's workers die; a checkpoint keeps the rest.

    Examples
    --------
    >>> import disagg as dg
    >>> space = dg.Space(model=dg.Model("Qwen/Qwen3-30B-A3B"), cluster=dg.Cluster("h200_sxm", gpus=8),
    ...                  workload=dg.Workload.preset("paper-chat"),
    ...                  axes={"plan.parallel.tp": [1, 2], "plan.batch": [8, 64]})
    >>> found = dg.sweep(space)
    >>> found["plan.batch"].tolist(), bool(found["feasible"].all())
    ([8, 64, 8, 64], True)
    """
    metrics, runnable, executor = options["metrics"], options["runnable"], options["executor"]
    if isinstance(metrics, str):
        metrics = [metrics]
    known = _core.design_metrics()
    problems = [
        Problem(f"metrics[{i}]", f"{m!r} is not a metric", _core.near(str(m), known))
        for i, m in enumerate(metrics)
        if m not in known
    ]
    if not metrics:
        problems.append(Problem("metrics", "no metric is asked for", f"known: {', '.join(known)}"))
    if problems:
        raise SpecError(problems)
    identity = {
        "space": space.to_json(),
        "points": None if space._points is None else space._points.tolist(),
        "metrics": list(metrics),
        "runnable": runnable,
        "kernels": _core.kernels_identity(),
        "version": __version__,
    }
    path = options["checkpoint"]
    kept = None if path is None else Checkpoint(path, identity, space.size)
    complete = True
    with nullcontext() if kept is None else closing(kept), reporter(options["progress"], "points") as report:
        work = _Work(space, list(metrics), kept, runnable=runnable)
        try:
            if executor is None:
                _here(work, report)
            else:
                _elsewhere(work, executor, report)
        except KeyboardInterrupt:
            if not options["partial"]:
                raise
            complete = False
    return work.frame({"version": __version__, "space": space.to_json(), "complete": complete})


def _here(work: _Work, report: Report) -> None:
    total = work.space.size
    space = _core.DesignSpace(work.text)
    while (key := work.next()) is not None:
        begin, before = time.perf_counter(), work.done
        tell: Report = None if report is None else (lambda done, _, b=before: report(b + done, total))
        columns, _ = space.price(work.space._numbers(*key), work.metrics, work.runnable, tell)
        work.finish(key, (time.perf_counter() - begin, executors.texts(columns)))
        if report is not None:
            report(work.done, total)


def _elsewhere(work: _Work, executor: Any, report: Report) -> None:
    total = work.space.size
    fly(work, executor, None if report is None else lambda: report(work.done, total))
    if report is not None:
        report(total, total)
