"""Simulations: a plan under a trace, request by request."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict, Unpack, overload

from disagg import _core
from disagg._names import Names, single
from disagg.errors import Problem, SpecError
from disagg.frame import Frame
from disagg.progress import Progress, reporter
from disagg.run import Run
from disagg.specs import AFD, PD, SLO, Aggregated, Assumptions, Cluster, Model, Quant, Serving, Workload
from disagg.specs._base import checked, expect, takes
from disagg.trace import Trace

__all__ = ["Fixed", "goodput_curve", "simulate"]

SPANS = 100_000
"""Stretches of time that a run keeps for its timeline."""


class Fixed:
    """Fixed times, for oracles: a step costs `prefill_ms` if it has prompt tokens, plus `decode_ms` if it decodes.

    KV from prefill to decode takes `kv_ms` and `kv_us_per_token` for each new token of the prompt, one request
    at a time on the links of either rank.

    Examples
    --------
    >>> import disagg as dg
    >>> dg.Fixed(prefill_ms=20, decode_ms=10)
    Fixed(prefill_ms=20.0, decode_ms=10.0, kv_ms=0.0, kv_us_per_token=0.0)
    """

    __slots__ = ("decode_ms", "kv_ms", "kv_us_per_token", "prefill_ms")

    @checked
    def __init__(
        self, *, prefill_ms: float, decode_ms: float, kv_ms: float = 0.0, kv_us_per_token: float = 0.0
    ) -> None:
        self.prefill_ms = float(prefill_ms)
        self.decode_ms = float(decode_ms)
        self.kv_ms = float(kv_ms)
        self.kv_us_per_token = float(kv_us_per_token)

    def _raw(self) -> tuple[float, float, float, float]:
        return self.prefill_ms, self.decode_ms, self.kv_ms, self.kv_us_per_token

    def __repr__(self) -> str:
        """One line that evaluates to an equal value."""
        names = ("prefill_ms", "decode_ms", "kv_ms", "kv_us_per_token")
        return f"Fixed({', '.join(f'{n}={v}' for n, v in zip(names, self._raw(), strict=True))})"


class Replay(TypedDict, total=False):
    """How a trace is replayed: further arguments of `simulate` and `goodput_curve`.

    Parameters
    ----------
    timing
        Fixed step times in place of the engine's, for oracles.
    scheduler
        ``"chunked-prefill"``, ``"prefill-first"``, ``"sglang"`` or ``"static"``.
    router
        ``"least-loaded"``, ``"round-robin"``, ``"prefix-aware"``, ``"power-of-two"`` or ``"session-sticky"``.
    prefix_cache
        Whether named prompt blocks are reused.
    kv_blocks
        KV blocks of 16 tokens per attention rank; None: what the memory holds.
    preemption
        What becomes of a sequence whose KV has to go: ``"recompute"`` or ``"swap"`` (to the host and back).
    kv_admission
        When a prompt takes its KV blocks: ``"prompt"`` (all when it is let in) or ``"chunk"`` (piece by piece as it is
        computed, as vLLM allocates: more are let in, and who came last gives way where blocks run out; pools of P/D
        take all in any case).
    cache_ttl_s
        Idle cached blocks are forgotten after so many seconds; None: only when room is needed (LRU).
    shared_tier
        A cache behind all instances: ``{"tokens": 50_000_000, "gb_per_s": 25}``.
    """

    framework: Names
    frameworks: Names
    quant: Quant | None
    serving: Serving | None
    assumptions: Assumptions | None
    timing: Fixed | None
    scheduler: str
    router: str
    prefix_cache: bool
    kv_blocks: int | None
    preemption: str
    kv_admission: str
    cache_ttl_s: float | None
    shared_tier: Mapping[str, float] | None
    progress: Progress


_DEFAULTS: Replay = {
    "framework": None,
    "frameworks": None,
    "quant": None,
    "serving": None,
    "assumptions": None,
    "timing": None,
    "scheduler": "chunked-prefill",
    "router": "least-loaded",
    "prefix_cache": True,
    "kv_blocks": None,
    "preemption": "recompute",
    "kv_admission": "prompt",
    "cache_ttl_s": None,
    "shared_tier": None,
    "progress": None,
}
_Plan = Aggregated | PD | AFD


def _engine(  # noqa: PLR0917 - the parts of a question
    model: Model, cluster: Cluster, plan: _Plan, trace: Trace, how: Replay, stop_s: float | None
) -> tuple[_core.Engine, tuple[float, float, float, float] | None, str]:
    """Give the engine of a plan, fixed times if there are any, and the settings of the simulator as JSON."""
    for name, value in (("cache_ttl_s", how["cache_ttl_s"]), ("stop_s", stop_s)):
        if value is not None and not math.isfinite(value):
            raise SpecError([Problem(name, f"must be above 0, is {value}", "seconds")])
    lane = single(how["framework"], how["frameworks"], "a simulation")
    specs = (how["quant"], how["serving"], how["assumptions"])
    engine = _core.Engine(_core.Case(model, cluster, Workload.from_trace(trace), lane, *specs), plan)
    names = (
        "scheduler",
        "router",
        "prefix_cache",
        "kv_blocks",
        "preemption",
        "kv_admission",
        "cache_ttl_s",
        "shared_tier",
    )
    settings = {n: dict(v) if isinstance(v, Mapping) else v for n, v in how.items() if n in names}
    timing = how["timing"]
    return engine, None if timing is None else timing._raw(), json.dumps({**settings, "stop_s": stop_s})


@overload
def simulate(
    model: Model,
    cluster: Cluster,
    plan: _Plan,
    trace: Trace,
    *,
    stop_s: float | None = None,
    seed: int = 0,
    **options: Unpack[Replay],
) -> Run: ...
@overload
def simulate(
    model: Model,
    cluster: Cluster,
    plan: _Plan,
    trace: Sequence[Trace],
    *,
    stop_s: float | None = None,
    seed: int | Sequence[int] = 0,
    **options: Unpack[Replay],
) -> list[Run]: ...
@takes(Replay, _DEFAULTS)
def simulate(
    model: Model,
    cluster: Cluster,
    plan: _Plan,
    trace: Trace | Sequence[Trace],
    *,
    stop_s: float | None = None,
    seed: int | Sequence[int] = 0,
    **options: Unpack[Replay],
) -> Run | list[Run]:
    """Replay a trace through a plan, request by request, priced by the compiled engine.

    Parameters
    ----------
    trace
        What arrives. A list of traces (of several seeds, say) gives a list of runs, side by side on all
        cores; what the plan leaves open is then chosen for the first.
    stop_s
        Stop here; what is in the system then is ``"unfinished"``.
    seed
        Of the router's draws; the same seed gives the same bits. With a list of traces: one, or one each.

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
    jobs, how = _jobs(trace, seed), _DEFAULTS | options
    engine, fixed, settings = _engine(model, cluster, plan, jobs[0][0], how, stop_s)
    with reporter(how["progress"], "runs" if len(jobs) > 1 else "requests") as report:
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


@takes(Replay, _DEFAULTS)
def goodput_curve(
    model: Model,
    cluster: Cluster,
    plan: _Plan,
    trace: Trace,
    slo: SLO,
    *,
    rates: Sequence[float],
    seed: int = 0,
    **options: Unpack[Replay],
) -> Frame:
    """Simulate the trace at each rate, and find the highest rate that holds the SLO.

    Parameters
    ----------
    slo
        Limits at ``slo.percentile`` (None: means).
    rates
        Mean arrivals per second; the same requests at each, in parallel.
    trace
        What arrives.

    Returns
    -------
    Frame
        One row a rate; ``attrs["highest_rate"]`` is bisected to 1 % between the last rate that holds
        and the first that fails (None: the lowest fails; the largest given: none fails). ``note`` says where a run is
        too short for its rate, or offers more than is served.

    Raises
    ------
    SpecError
        If an input does not fit.
    """
    how = _DEFAULTS | options
    engine, fixed, settings = _engine(model, cluster, plan, trace, how, None)
    wanted: list[Any] = [float(r) for r in rates]
    with reporter(how["progress"], "requests") as report:
        return Frame._from_core(_core.goodput_curve(engine, trace._raw, slo, wanted, fixed, settings, seed, report))
