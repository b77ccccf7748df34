"""Simulations: a plan under a trace, request by request."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from disagg import _core
from disagg._serve import _raw
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
    """Fixed step times, for oracles: a step costs `prefill_ms` if it has new tokens, plus `decode_ms`.

    Examples
    --------
    >>> import disagg as dg
    >>> dg.Fixed(prefill_ms=20, decode_ms=10)
    Fixed(prefill_ms=20.0, decode_ms=10.0)
    """

    __slots__ = ("decode_ms", "prefill_ms")

    @checked
    def __init__(self, *, prefill_ms: float, decode_ms: float) -> None:
        expect(prefill_ms=(prefill_ms, int, float), decode_ms=(decode_ms, int, float))
        self.prefill_ms = float(prefill_ms)
        self.decode_ms = float(decode_ms)

    def __repr__(self) -> str:
        """One line that evaluates to an equal value."""
        return f"Fixed(prefill_ms={self.prefill_ms}, decode_ms={self.decode_ms})"


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
) -> tuple[_core.Engine, tuple[float, float] | None]:
    expect(
        model=(model, Model),
        cluster=(cluster, Cluster),
        plan=(plan, Aggregated, PD, AFD),
        trace=(trace, Trace),
        framework=(framework, str, type(None)),
        quant=(quant, Quant, type(None)),
        serving=(serving, Serving, type(None)),
        assumptions=(assumptions, Assumptions, type(None)),
        timing=(timing, Fixed, type(None)),
    )
    engine = _core.Engine(
        model._raw,
        cluster._raw,
        Workload.from_trace(trace)._raw,
        plan._raw,
        framework,
        _raw(quant),
        _raw(serving),
        _raw(assumptions),
    )
    return engine, None if timing is None else (timing.prefill_ms, timing.decode_ms)


@checked
def simulate(
    model: Model,
    cluster: Cluster,
    plan: Aggregated | PD | AFD,
    trace: Trace,
    *,
    framework: str | None = None,
    quant: Quant | None = None,
    serving: Serving | None = None,
    assumptions: Assumptions | None = None,
    timing: Fixed | None = None,
    scheduler: str = "chunked-prefill",
    router: str = "least-loaded",
    prefix_cache: bool = True,
    kv_blocks: int | None = None,
    seed: int = 0,
    progress: Progress = None,
) -> Run:
    """Replay a trace through a plan, request by request, priced by the compiled engine.

    Parameters
    ----------
    model, cluster, plan, framework, quant, serving, assumptions
        As in `estimate`.
    trace
        What arrives.
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
    seed
        Of the router's draws; the same seed gives the same bits.
    progress
        As in `explore`.

    Returns
    -------
    Run
        Requests in ms, instances, timeline.

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
    expect(scheduler=(scheduler, str), router=(router, str), kv_blocks=(kv_blocks, int, type(None)), seed=(seed, int))
    engine, fixed = _engine(model, cluster, plan, trace, framework, quant, serving, assumptions, timing)
    with reporter(progress, "requests") as report:
        found = _core.simulate(
            engine, trace._raw, fixed, scheduler, router, bool(prefix_cache), kv_blocks, seed, SPANS, report
        )
    return Run._from_core(found)


@checked
def goodput_curve(
    model: Model,
    cluster: Cluster,
    plan: Aggregated | PD | AFD,
    trace: Trace,
    slo: SLO,
    *,
    rates: Sequence[float],
    framework: str | None = None,
    quant: Quant | None = None,
    serving: Serving | None = None,
    assumptions: Assumptions | None = None,
    timing: Fixed | None = None,
    scheduler: str = "chunked-prefill",
    router: str = "least-loaded",
    prefix_cache: bool = True,
    kv_blocks: int | None = None,
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
    model, cluster, plan, trace, framework, quant, serving, assumptions, timing
        As in `simulate`.
    scheduler, router, prefix_cache, kv_blocks, seed, progress
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
    expect(slo=(slo, SLO))
    engine, fixed = _engine(model, cluster, plan, trace, framework, quant, serving, assumptions, timing)
    wanted: list[Any] = [float(r) for r in rates]
    with reporter(progress, "requests") as report:
        found = _core.goodput_curve(
            engine, trace._raw, slo._raw, wanted, fixed, scheduler, router, bool(prefix_cache), kv_blocks, seed, report
        )
    return Frame._from_core(found)
