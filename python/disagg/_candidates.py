"""Candidates of a space: gone through, or asked of a sampler; judged by price or by simulation, in the core."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from disagg import _ask, _core
from disagg._serve import estimate
from disagg.errors import Problem, SpecError
from disagg.frame import Frame
from disagg.optimum import Optimum
from disagg.progress import Progress, reporter
from disagg.result import Estimate
from disagg.run import Run
from disagg.simulate import Fixed, simulate
from disagg.space import Space
from disagg.specs import PARTS, SLO
from disagg.specs.plan import plan_from_dict
from disagg.trace import Trace

REPLAY = ("scheduler", "router", "prefix_cache", "kv_blocks")
OPTIONS = ("trace", "slo", "timing", *REPLAY)


def served(given: Trace | Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Give what every candidate serves, and how; None: steady states are judged."""
    if given is None:
        return None
    options = {"trace": given} if isinstance(given, Trace) else dict(given)
    problems = [
        Problem(f"simulate.{n}", "is not an option", _core.near(str(n), list(OPTIONS)))
        for n in options
        if n not in OPTIONS
    ]
    if not isinstance(options.get("trace"), Trace):
        problems.append(Problem("simulate.trace", "is required", "a dg.Trace"))
    for name, kind in (("slo", SLO), ("timing", Fixed)):
        if not isinstance(options.get(name), (kind, type(None))):
            problems.append(Problem(f"simulate.{name}", "does not fit", f"a dg.{kind.__name__}"))
    if problems:
        raise SpecError(problems)
    return options


def judge(
    space: Space,
    objective: str,
    constraints: list[str],
    how: dict[str, Any] | None,
    seed: int,
    *,
    runnable: bool,
) -> _core.Search:
    """Give what judges the points: by their steady state, or by the requests they serve."""
    requests = None
    if how is not None:
        timing = how.get("timing")
        fixed = None if timing is None else timing._raw()
        options = json.dumps({n: how[n] for n in REPLAY if n in how})
        requests = (how["trace"]._raw, how.get("slo"), fixed, options, seed)
    return _core.Search(space._core, space._points, objective, constraints, runnable, requests)


def result(space: Space, point: int, how: dict[str, Any] | None, seed: int) -> Estimate | Run:
    """Give the estimate of a point, or its run."""
    raw = json.loads(space._core.question(point))
    parts: dict[str, Any] = {n: kind.from_dict(raw[n]) for n, kind in PARTS.items() if raw.get(n) is not None}
    asked = {"plan": plan_from_dict(raw["plan"]), "framework": raw.get("framework")}
    if how is None:
        return estimate(**parts, **asked)
    del parts["workload"]
    replay = {n: v for n, v in how.items() if n != "slo"}
    run: Run = simulate(**parts, **asked, **replay, seed=seed, progress=False)
    return run


def search(  # noqa: PLR0917 - as `optimize` has them
    space: Space,
    judge: _core.Search,
    best: Callable[[int], Estimate | Run],
    constraints: list[str],
    method: str,
    trials: int,
    seed: int,
    partial: bool,
    progress: Progress,
) -> Optimum:
    """Go through the points, or ask for them, and tell what was found."""
    complete = True
    with reporter(progress, "points") as report:
        try:
            if method == "optuna":
                _ask.ask(space, judge, trials, seed, report)
            else:
                judge.run(report)
        except KeyboardInterrupt:
            if not partial or not len(Frame._from_core(judge.points())):
                raise
            complete = False
    point, ties = judge.best()
    metric, more = judge.objective
    points, certificate, found = Frame._from_core(judge.points()), Frame._from_core(judge.certificate()), best(point)
    scalars = {
        "objective": f"{'max' if more else 'min'} {metric}",
        "constraints": constraints,
        "method": method,
        "simulated": isinstance(found, Run),
        "complete": complete,
        "value": float(points.filter(point=point)[metric][0]),
        "point": point,
        "ties": ties,
        "axes": [a["path"] for a in json.loads(space.to_json())["axes"]],
        "best": json.loads(found.to_json()),
        "space": space.to_json(),
    }
    return Optimum(scalars, {"points": points, "certificate": certificate})
