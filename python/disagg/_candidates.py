"""Candidates: judged by price or by simulation, taken in order or asked of a sampler."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from disagg import _ask, _core
from disagg._judge import Judge, Report, estimated
from disagg._simulated import OPTIONS, Simulated
from disagg.errors import Problem, SpecError
from disagg.frame import Frame
from disagg.optimum import Optimum
from disagg.progress import Progress, reporter
from disagg.space import Space
from disagg.specs import SLO
from disagg.trace import Trace


class Priced:
    """Points by their steady state."""

    def __init__(self, space: Space, objective: str, constraints: list[str], *, runnable: bool) -> None:
        self.space, self.constraints = space, constraints
        self.core = _core.Search(space._core, space._points, objective, constraints, runnable)
        self.metric, self.more = self.core.objective

    def whole(self, report: Report) -> None:
        """Go through all points of the space, priced or left out with a proof."""
        self.core.run(report)

    def take(self, points: Sequence[int]) -> list[float | None]:
        """Objectives of points; None where one does not stand or breaks a limit."""
        found = Frame._from_core(self.core.take(np.asarray(points, dtype=np.int64)))
        good = found["kept"] & ~np.isnan(found[self.metric])
        return [float(v) if k else None for v, k in zip(found[self.metric].tolist(), good.tolist(), strict=True)]

    def frames(self) -> tuple[Frame, Frame]:
        """All that was judged, and the certificate."""
        return Frame._from_core(self.core.points()), Frame._from_core(self.core.certificate())

    def best(self) -> tuple[int, list[int], Any]:
        """The best point, those that tie with it, and its estimate."""
        point, ties = self.core.best()
        return point, ties, estimated(self.space, point)


def judge(  # noqa: PLR0917 - as `optimize` has them
    space: Space,
    objective: str,
    constraints: list[str],
    simulate: Trace | Mapping[str, Any] | None,
    seed: int,
    *,
    runnable: bool,
) -> Judge:
    """Give what judges the points: prices, or simulations of a trace."""
    if simulate is None:
        return Priced(space, objective, constraints, runnable=runnable)
    options = {"trace": simulate} if isinstance(simulate, Trace) else dict(simulate)
    problems = [
        Problem(f"simulate.{n}", "is not an option", _core.near(str(n), list(OPTIONS)))
        for n in options
        if n not in OPTIONS
    ]
    if not isinstance(options.get("trace"), Trace):
        problems.append(Problem("simulate.trace", "is required", "a dg.Trace"))
    if not isinstance(options.get("slo"), (SLO, type(None))):
        problems.append(Problem("simulate.slo", "does not fit", "a dg.SLO"))
    if problems:
        raise SpecError(problems)
    return Simulated(space, objective, constraints, options, seed, runnable=runnable)


def search(  # noqa: PLR0917 - as `optimize` has them
    space: Space, judge: Judge, method: str, trials: int, seed: int, partial: bool, progress: Progress
) -> Optimum:
    """Go through the points, or ask for them, and tell what was found."""
    complete = True
    with reporter(progress, "points") as report:
        try:
            if method == "optuna":
                _ask.ask(space, judge, trials, seed, report)
            else:
                judge.whole(report)
        except KeyboardInterrupt:
            if not partial or not len(judge.frames()[0]):
                raise
            complete = False
    point, ties, best = judge.best()
    points, certificate = judge.frames()
    scalars = {
        "objective": f"{'max' if judge.more else 'min'} {judge.metric}",
        "constraints": judge.constraints,
        "method": method,
        "simulated": isinstance(judge, Simulated),
        "complete": complete,
        "value": float(points.filter(points["point"] == point)[judge.metric][0]),
        "point": point,
        "ties": ties,
        "axes": [a["path"] for a in json.loads(space.to_json())["axes"]],
        "best": json.loads(best.to_json()),
        "space": space.to_json(),
    }
    return Optimum(scalars, {"points": points, "certificate": certificate})
