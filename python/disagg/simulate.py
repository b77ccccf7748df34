"""Simulations: a plan under a trace, request by request."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import astuple
from typing import Any, Unpack, overload

from disagg import _core
from disagg._names import single
from disagg.errors import Problem, SpecError
from disagg.frame import Frame
from disagg.progress import reporter
from disagg.run import Run
from disagg.specs import AFD, PD, SLO, Aggregated, Cluster, Fixed, Model, Workload
from disagg.specs._base import expect, takes, told
from disagg.trace import Trace

__all__ = ["Fixed", "goodput_curve", "simulate"]

SPANS = 100_000
"""Stretches of time that a run keeps for its timeline."""
_ASKED = {"framework", "frameworks", "quant", "serving", "assumptions", "timing", "progress", "seed"}
"""Options that say what is simulated; the others are settings of the simulator."""


_Plan = Aggregated | PD | AFD


def _engine(
    model: Model, cluster: Cluster, plan: _Plan, trace: Trace, how: Mapping[str, Any]
) -> tuple[_core.Engine, tuple[float, float, float, float] | None, str]:
    """Give the engine of a plan, fixed times if there are any, and the settings of the simulator as JSON."""
    for name, value in (("cache_ttl_s", how["cache_ttl_s"]), ("stop_s", how.get("stop_s"))):
        if value is not None and not math.isfinite(value):
            raise SpecError([Problem(name, f"must be above 0, is {value}", "seconds")])
    lane = single(how["framework"], how["frameworks"], "a simulation")
    specs = (how["quant"], how["serving"], how["assumptions"])
    engine = _core.Engine(_core.Case(model, cluster, Workload.from_trace(trace), lane, *specs), plan)
    settings = {n: dict(v) if isinstance(v, Mapping) else v for n, v in how.items() if n not in _ASKED}
    timing = how["timing"]
    return engine, None if timing is None else astuple(timing), json.dumps(settings)


@overload
def simulate(model: Model, cluster: Cluster, plan: _Plan, trace: Trace, **options: Unpack[_core._Simulate]) -> Run: ...
@overload
def simulate(
    model: Model, cluster: Cluster, plan: _Plan, trace: Sequence[Trace], **options: Unpack[_core._Simulate]
) -> list[Run]: ...
@takes("_Simulate")
def simulate(
    model: Model, cluster: Cluster, plan: _Plan, trace: Trace | Sequence[Trace], **options: Unpack[_core._Simulate]
) -> Run | list[Run]:
    """Replay a trace through a plan, request by request, priced by the compiled engine.

    Parameters
    ----------
    trace
        What arrives. A list of traces (of several seeds, say) gives a list of runs, side by side on all
        cores; what the plan leaves open is then chosen for the first.

    Returns
    -------
    Run or list of Run
        Requests in ms, instances, timeline; a list if `trace` is one.

    Raises
    ------
    SpecError
        If an input does not fit; every problem is named.
    InfeasibleError
        If the plan does not fit the GPUs.

    Examples
    --------
    >>> import disagg as dg
    >>> trace = dg.Trace.gamma(dg.Workload(isl=1024, osl=200), rate=1.0, cv=0.0, n=5)
    >>> plan = dg.Aggregated(parallel=dg.Parallel(dp=8), batch=16)
    >>> run = dg.simulate(dg.Model("deepseek-ai/DeepSeek-V3.2"), dg.Cluster("b200_sxm", gpus=8), plan, trace,
    ...                   timing=dg.Fixed(prefill_ms=20, decode_ms=10))
    >>> run.finished, round(run.ttft_ms, 6)
    (5, 28.0)
    """
    jobs = _jobs(trace, options["seed"])
    engine, fixed, settings = _engine(model, cluster, plan, jobs[0][0], options)
    with reporter(options["progress"], "runs" if len(jobs) > 1 else "requests") as report:
        found = _core.simulate(engine, [(t._raw, s) for t, s in jobs], fixed, settings, SPANS, report)
    runs = [Run._from_core(one) for one in found]
    return runs[0] if isinstance(trace, Trace) else runs


def _jobs(trace: Trace | Sequence[object], seed: int | Sequence[object]) -> list[tuple[Trace, int]]:
    """Pair traces with their seeds; one seed goes with all traces."""
    expect(trace=(trace, Trace, Sequence), seed=(seed, int, Sequence))
    given = [trace] if isinstance(trace, Trace) else list(trace)
    drawn = [seed] * len(given) if isinstance(seed, int) else list(seed)
    traces = [t for t in given if isinstance(t, Trace)]
    seeds = [s for s in drawn if isinstance(s, int) and s >= 0]
    problems = [Problem(f"trace[{i}]", "is not a Trace", "") for i, t in enumerate(given) if not isinstance(t, Trace)]
    problems += [
        Problem(f"seed[{i}]", "is not a whole number from 0", "") for i, s in enumerate(drawn) if s not in seeds
    ]
    if not given:
        problems.append(Problem("trace", "is an empty list", "at least one trace"))
    if len(given) != len(drawn):
        problems.append(Problem("seed", f"has {len(drawn)} values for {len(given)} traces", "one, or as many"))
    if problems:
        raise SpecError(problems)
    return list(zip(traces, seeds, strict=True))


@told(_core.goodput_curve, "_Replay")
def goodput_curve(
    model: Model,
    cluster: Cluster,
    plan: _Plan,
    trace: Trace,
    slo: SLO,
    *,
    rates: Sequence[float],
    seed: int = 0,
    **options: Unpack[_core._Replay],
) -> Frame:
    how = options
    engine, fixed, settings = _engine(model, cluster, plan, trace, how)
    wanted: list[Any] = [float(r) for r in rates]
    with reporter(how["progress"], "requests") as report:
        return Frame._from_core(_core.goodput_curve(engine, trace._raw, slo, wanted, fixed, settings, seed, report))
