"""Candidates of a space: gone through, or asked of a sampler; judged by price or by simulation, in the core."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import astuple
from typing import Any

from disagg import _core
from disagg._serve import estimate
from disagg.errors import Problem, SpecError
from disagg.result import Estimate
from disagg.run import Run
from disagg.simulate import simulate
from disagg.space import Space
from disagg.specs import PARTS, SLO, Fixed
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
        fixed = None if timing is None else astuple(timing)
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
