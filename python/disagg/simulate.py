"""Simulations: a plan under a trace, request by request."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, overload

from disagg import _core
from disagg._asked import native, parts
from disagg._names import Names, single
from disagg.errors import Problem, SpecError
from disagg.frame import Frame
from disagg.progress import Progress, reporter
from disagg.run import Run
from disagg.specs import AFD, PD, SLO, Aggregated, Assumptions, Cluster, Model, Quant, Serving, Workload
from disagg.specs._base import checked, expect
from disagg.trace import Trace

__all__ = ["Fixed", "goodput_curve", "simulate"]

SPANS = 100_000
"""Stretches of time that a run keeps for its timeline."""


class Fixed:
    """Fixed times, for oracles: a step costs `prefill_ms` if it has new tokens, plus `decode_ms`.

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
        expect(
            prefill_ms=(prefill_ms, int, float),
            decode_ms=(decode_ms, int, float),
            kv_ms=(kv_ms, int, float),
            kv_us_per_token=(kv_us_per_token, int, float),
        )
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


def _engine(  # noqa: PLR0917 - the specs of a question
    model: Model,
    cluster: Cluster,
    plan: Aggregated | PD | AFD,
    trace: Trace,
    framework: str | None,
    quant: Quant | None,
    serving: Serving | None,
    assumptions: Assumptions | None,
    timing: Fixed | None,
) -> tuple[_core.Engine, tuple[float, float, float, float] | None]:
    expect(
        **parts(model=model, cluster=cluster, plan=plan),
        trace=(trace, Trace),
        **parts(quant=quant, serving=serving, assumptions=assumptions),
        timing=(timing, Fixed, type(None)),
    )
    case = native(model, cluster, Workload.from_trace(trace), framework, quant, serving, assumptions)
    engine = _core.Engine(case, plan)
    return engine, None if timing is None else timing._raw()


def _options(options: dict[str, Any]) -> str:
    """Give settings of the simulator as JSON, once their classes fit."""
    tier = options["shared_tier"]
    expect(
        scheduler=(options["scheduler"], str),
        router=(options["router"], str),
        prefix_cache=(options["prefix_cache"], bool),
        preemption=(options["preemption"], str),
        kv_blocks=(options["kv_blocks"], int, type(None)),
        cache_ttl_s=(options["cache_ttl_s"], int, float, type(None)),
        shared_tier=(tier, Mapping, type(None)),
        stop_s=(options["stop_s"], int, float, type(None)),
    )
    for name in ("cache_ttl_s", "stop_s"):
        if options[name] is not None and not math.isfinite(options[name]):
            raise SpecError([Problem(name, f"must be above 0, is {options[name]}", "seconds")])
    return json.dumps({**options, "shared_tier": None if tier is None else dict(tier)})


@overload
def simulate(
    model: Model,
    cluster: Cluster,
    plan: Aggregated | PD | AFD,
    trace: Trace,
    *,
    framework: Names = None,
    frameworks: Names = None,
    quant: Quant | None = None,
    serving: Serving | None = None,
    assumptions: Assumptions | None = None,
    timing: Fixed | None = None,
    scheduler: str = "chunked-prefill",
    router: str = "least-loaded",
    prefix_cache: bool = True,
    kv_blocks: int | None = None,
    preemption: str = "recompute",
    cache_ttl_s: float | None = None,
    shared_tier: Mapping[str, float] | None = None,
    stop_s: float | None = None,
    seed: int = 0,
    progress: Progress = None,
) -> Run: ...
@overload
def simulate(
    model: Model,
    cluster: Cluster,
    plan: Aggregated | PD | AFD,
    trace: Sequence[Trace],
    *,
    framework: Names = None,
    frameworks: Names = None,
    quant: Quant | None = None,
    serving: Serving | None = None,
    assumptions: Assumptions | None = None,
    timing: Fixed | None = None,
    scheduler: str = "chunked-prefill",
    router: str = "least-loaded",
    prefix_cache: bool = True,
    kv_blocks: int | None = None,
    preemption: str = "recompute",
    cache_ttl_s: float | None = None,
    shared_tier: Mapping[str, float] | None = None,
    stop_s: float | None = None,
    seed: int | Sequence[int] = 0,
    progress: Progress = None,
) -> list[Run]: ...
@checked
def simulate(
    model: Model,
    cluster: Cluster,
    plan: Aggregated | PD | AFD,
    trace: Trace | Sequence[Trace],
    *,
    framework: Names = None,
    frameworks: Names = None,
    quant: Quant | None = None,
    serving: Serving | None = None,
    assumptions: Assumptions | None = None,
    timing: Fixed | None = None,
    scheduler: str = "chunked-prefill",
    router: str = "least-loaded",
    prefix_cache: bool = True,
    kv_blocks: int | None = None,
    preemption: str = "recompute",
    cache_ttl_s: float | None = None,
    shared_tier: Mapping[str, float] | None = None,
    stop_s: float | None = None,
    seed: int | Sequence[int] = 0,
    progress: Progress = None,
) -> Run | list[Run]:
    """Replay a trace through a plan, request by request, priced by the compiled engine.

    Parameters
    ----------
    model, cluster, plan, framework, frameworks, quant, serving, assumptions
        As in `estimate`.
    trace
        What arrives. A list of traces (of several seeds, say) gives a list of runs, side by side on all
        cores; what the plan leaves open is then chosen for the first.
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
    cache_ttl_s
        Idle cached blocks are forgotten after so many seconds; None: only when room is needed (LRU).
    shared_tier
        A cache behind all instances: ``{"tokens": 50_000_000, "gb_per_s": 25}``.
    stop_s
        Stop here; what is in the system then is ``"unfinished"``.
    seed
        Of the router's draws; the same seed gives the same bits. With a list of traces: one, or one each.
    progress
        As in `explore`.

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
    (5, 30.0)
    """
    options = _options(
        {
            "scheduler": scheduler,
            "router": router,
            "prefix_cache": prefix_cache,
            "kv_blocks": kv_blocks,
            "preemption": preemption,
            "cache_ttl_s": cache_ttl_s,
            "shared_tier": shared_tier,
            "stop_s": stop_s,
        }
    )
    jobs = _jobs(trace, seed)
    lane = single(framework, frameworks, "a simulation")
    engine, fixed = _engine(model, cluster, plan, jobs[0][0], lane, quant, serving, assumptions, timing)
    with reporter(progress, "runs" if len(jobs) > 1 else "requests") as report:
        found = _core.simulate(engine, [(t._raw, s) for t, s in jobs], fixed, options, SPANS, report)
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


@checked
def goodput_curve(
    model: Model,
    cluster: Cluster,
    plan: Aggregated | PD | AFD,
    trace: Trace,
    slo: SLO,
    *,
    rates: Sequence[float],
    framework: Names = None,
    frameworks: Names = None,
    quant: Quant | None = None,
    serving: Serving | None = None,
    assumptions: Assumptions | None = None,
    timing: Fixed | None = None,
    scheduler: str = "chunked-prefill",
    router: str = "least-loaded",
    prefix_cache: bool = True,
    kv_blocks: int | None = None,
    preemption: str = "recompute",
    cache_ttl_s: float | None = None,
    shared_tier: Mapping[str, float] | None = None,
    seed: int = 0,
    progress: Progress = None,
) -> Frame:
    """Simulate the trace at each rate, and find the highest rate that holds the SLO.

    Parameters
    ----------
    slo
        Limits at ``slo.percentile`` (None: means).
    rates
        Mean arrivals per second; the same requests at each, in parallel.
    model, cluster, plan, trace, framework, frameworks, quant, serving, assumptions, timing
        As in `simulate`.
    scheduler, router, prefix_cache, kv_blocks, preemption, cache_ttl_s, shared_tier, seed, progress
        As in `simulate`.

    Returns
    -------
    Frame
        One row a rate; ``attrs["highest_rate"]`` is bisected to 1 % between the last rate that holds
        and the first that fails (None: the lowest fails; the largest given: none fails).

    Raises
    ------
    SpecError
        If an input does not fit.
    """
    expect(slo=(slo, SLO), seed=(seed, int))
    options = _options(
        {
            "scheduler": scheduler,
            "router": router,
            "prefix_cache": prefix_cache,
            "kv_blocks": kv_blocks,
            "preemption": preemption,
            "cache_ttl_s": cache_ttl_s,
            "shared_tier": shared_tier,
            "stop_s": None,
        }
    )
    lane = single(framework, frameworks, "a simulation")
    engine, fixed = _engine(model, cluster, plan, trace, lane, quant, serving, assumptions, timing)
    wanted: list[Any] = [float(r) for r in rates]
    with reporter(progress, "requests") as report:
        found = _core.goodput_curve(engine, trace._raw, slo, wanted, fixed, options, seed, report)
    return Frame._from_core(found)
