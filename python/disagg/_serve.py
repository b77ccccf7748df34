"""The two central questions: what does this plan give, and which level of disaggregation is best?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from disagg import _core
from disagg._executor_pool import Calls
from disagg._names import LEVELS, Names, expanded, several, single
from disagg._versions import __version__
from disagg.errors import InfeasibleError
from disagg.frame import Frame
from disagg.progress import Progress, reporter
from disagg.result import INPUTS, Estimate
from disagg.specs import AFD, PD, SLO, Aggregated, Assumptions, Cluster, Model, Quant, Serving, Workload
from disagg.specs._base import Spec, checked
from disagg.study import Study


@checked
def estimate(
    model: Model,
    cluster: Cluster,
    workload: Workload,
    plan: Aggregated | PD | AFD,
    *,
    framework: Names = None,
    frameworks: Names = None,
    quant: Quant | None = None,
    serving: Serving | None = None,
    assumptions: Assumptions | None = None,
    load: float | None = None,
) -> Estimate:
    """Price one plan in its steady state, from measured kernels.

    Parameters
    ----------
    load
        Requests per second of an open loop (Poisson): batches shrink to it, and TTFT has the rest of the step in flight
        and the waits for prefill and for a seat in decode, within 10 % of the request simulator up to 90 % of what
        the plan serves. None: a closed loop at full batch.

    Returns
    -------
    Estimate
        Latencies in milliseconds, rates per second, memory in GiB, the breakdown and the evidence. ``est.framework``
        says whose kernels were taken, ``est.formats`` which formats and why.

    Raises
    ------
    SpecError
        If an input does not fit; every problem is named.
    InfeasibleError
        If the plan does not fit into memory as its server counts it, or the load is beyond what it serves; says
        what is short and by how much.

    Examples
    --------
    >>> import disagg as dg
    >>> plan = dg.Aggregated(parallel=dg.Parallel(dp=8))
    >>> est = dg.estimate(dg.Model("deepseek-ai/DeepSeek-V3.2"), dg.Cluster("b200_sxm", gpus=8),
    ...                   dg.Workload.preset("paper-chat"), plan)
    >>> est.gpus, est.level
    (8, 'aggregated')
    """
    names = single(framework, frameworks, "an estimate")
    case = _core.Case(model, cluster, workload, names, quant, serving, assumptions)
    engine = _core.Engine(case, plan, None if load is None else float(load))
    return Estimate._from_native(engine.estimate(), _inputs(model, cluster, workload, quant, serving))


def _inputs(*specs: Spec | None) -> dict[str, Spec]:
    """Give the specs of a question that were given, for the record."""
    return {name: s for name, s in zip(INPUTS, specs, strict=True) if s is not None}


@checked
def explore(
    model: Model,
    cluster: Cluster,
    workload: Workload,
    slo: SLO,
    *,
    levels: str | Sequence[str] = LEVELS,
    frameworks: Names = None,
    framework: Names = None,
    quant: Quant | None = None,
    serving: Serving | None = None,
    assumptions: Assumptions | None = None,
    objective: str = "tokens_per_s",
    arrivals: str = "closed",
    runnable: bool = True,
    confidence: float | None = None,
    confirm: bool = True,
    executor: Any = None,
    progress: Progress = None,
) -> Study:
    """Search every level of disaggregation, best against best, under the same GPU budget.

    Parameters
    ----------
    slo
        Limits that a plan must keep.
    frameworks
        Whose kernels to compare, one name or several; None: all that have kernels for the model on that system.
        Those that lack a kind of its layers are left out, and ``study.warnings`` says so.
    framework
        `frameworks` under its other name.
    objective
        ``"tokens_per_s"``, ``"tokens_per_s_per_gpu"`` or ``"tokens_per_s_per_user"``.
    arrivals
        ``"closed"``: as many requests as the plan holds, at any time. ``"poisson"``: they come at a rate of their own,
        and the rate of a plan is the highest at which its limits hold: on the means, or on the percentile of the `SLO`.
        A plan is then given seats to spare, and the table says its closed-loop rate as well
        (``closed_tokens_per_s_per_gpu``).
    runnable
        Whether only plans that a released server starts are searched (`dg.rules`; of AFD, those that keep the layout
        rules of the framework whose kernels price them). False lifts the rules; `Study.lifted` tells what that gains.
    confidence
        The chance with which what is measured must keep the limits, above 0 and below 1: 0.8 names the best plan that
        keeps them in four cases of five, by the residuals of servers of its kind (``docs/design/physics.md``, section
        10), at every level alike. With two limits each is kept with half the doubt, so that both hold. None: the
        predicted figures must keep them; a plan on the edge of a limit then fails in about half the cases. A TTFT limit
        needs ``assumptions=Assumptions(request_path="client")``, since the TTFT that was measured is a client's.
    confirm
        With ``arrivals="poisson"``, whether the best plan of each level is simulated, request by request: the highest
        rate at which its limits hold there and the ends of its 95 % interval
        (``simulated_tokens_per_s_per_gpu``, ``simulated_low``, ``simulated_high``; NaN where it is not). Takes seconds.
    executor
        None: this process, all cores. Or, as in `sweep`, any `concurrent.futures.Executor`, a dask ``Client``,
        ``"processes"`` (loky) or ``"ray"``: a unit of work is a framework's ``aggregated``, its ``aggregated+afd``,
        or its ``pd`` and ``pd+afd`` together, and progress counts units. The study is the same, to the last bit. This
        machine's cores are busy without one: it is for more machines, or to leave this one free. When stopped,
        what another process has begun runs to its end there.

    Returns
    -------
    Study
        ``study.verdict()`` in a few lines; the best plan of each level, whichever framework gives it (``table``), of
        each level and framework (``frameworks``), and every plan looked at (``points``). The space is scanned by
        tables of step times, ten to twenty times as fast as the engine and within 0.1 % of it (1 % beside jumps of
        the kernel tables); verdicts, best plans, least latencies and frontiers are priced by the engine, and
        ``points["priced"]`` says which rows are (``"exact"``) and which are as scanned (``"scan"``).

    Raises
    ------
    SpecError
        If an input does not fit (every problem is named), a percentile is asked of a closed loop, `confidence` is no
        chance, or the executor does not fit.
    DisaggError
        If a unit of work fails three times or the executor's workers die.

    Examples
    --------
    >>> import disagg as dg
    >>> study = dg.explore(dg.Model("deepseek-ai/DeepSeek-V3.2"), dg.Cluster("b200_sxm", gpus=16),
    ...                    dg.Workload.preset("paper-chat"), dg.SLO(tpot_ms=50), levels=["aggregated"])
    >>> study.table["level"].tolist()
    ['aggregated']

    The plan that keeps its limits with a chance of 80 % gives no more than the one that is predicted to keep them:

    >>> asked = (dg.Model("Qwen/Qwen3-30B-A3B"), dg.Cluster("h200_sxm", gpus=2), dg.Workload(isl=2000, osl=300),
    ...          dg.SLO(ttft_ms=500, tpot_ms=20))
    >>> client = dg.Assumptions(request_path="client")
    >>> sure, edge = (dg.explore(*asked, levels=["aggregated"], assumptions=client, confidence=c).table
    ...               for c in (0.8, None))
    >>> bool(sure["tokens_per_s"][0] < edge["tokens_per_s"][0] and sure["tpot_ms_high"][0] <= 20)
    True

    With arrivals of their own, and nine in ten requests within the limits:

    >>> study = dg.explore(dg.Model("Qwen/Qwen3-30B-A3B"), dg.Cluster("h200_sxm", gpus=2),
    ...                    dg.Workload(isl=2000, osl=300), dg.SLO(ttft_ms=500, tpot_ms=20, percentile=90),
    ...                    levels=["aggregated"], arrivals="poisson")
    >>> row = study.table
    >>> bool(0 < row["tokens_per_s_per_gpu"][0] <= row["closed_tokens_per_s_per_gpu"][0])
    True

    The same on two threads or, with ``executor="processes"``, on all cores beside this process:

    >>> import concurrent.futures as cf
    >>> with cf.ThreadPoolExecutor(2) as pool:
    ...     study = dg.explore(dg.Model("Qwen/Qwen3-30B-A3B"), dg.Cluster("h200_sxm", gpus=2),
    ...                        dg.Workload.preset("paper-chat"), dg.SLO(tpot_ms=50), executor=pool)
    >>> len(study.table)
    4
    """
    names, levels = several(framework, frameworks), expanded(levels)
    case = (model, cluster, workload, names, quant, serving, assumptions)
    asked = (slo, levels, objective, arrivals, confirm, runnable, None if confidence is None else float(confidence))
    whole = _exploration(case, asked)
    if executor is None:
        with reporter(progress, "layouts") as report:
            found = whole.explore(report)
    else:
        # Whose kernels are compared is settled once, for all workers.
        settled = ((model, cluster, workload, whole.frameworks, quant, serving, assumptions), asked)
        found = _elsewhere(whole, settled, executor, progress)
    inputs = _inputs(model, cluster, workload, quant, serving)
    attrs = {
        "version": __version__,
        "objective": objective,
        "arrivals": arrivals,
        "confidence": confidence,
        **{n: repr(s) for n, s in (("model", model), ("cluster", cluster), ("workload", workload), ("slo", slo))},
        "assumptions": repr(assumptions or Assumptions.physical()),
    }
    estimates: dict[str, Estimate] = {}
    wanted = [n for n in LEVELS if n in levels]
    for level in [*wanted, "afd"] if any("afd" in n for n in wanted) else wanted:
        try:
            estimates[level] = Estimate._from_native(found.best(level), inputs)
        except InfeasibleError:
            continue
    return Study(
        table=Frame._from_core(found.table(), **attrs),
        points=lambda: Frame._from_core(found.points(), **attrs),
        estimates=estimates,
        objective=objective,
        frameworks=Frame._from_core(found.frameworks(), **attrs),
        flips=lambda: Frame._from_core(found.flips()),
        warnings=found.warnings,
        slo=slo,
        core=found,
    )


def _exploration(case: tuple[Any, ...], asked: tuple[Any, ...]) -> _core.Exploration:
    return _core.Exploration(_core.Case(*case), *asked)


def _unit(question: tuple[Any, Any], unit: int, report: Any) -> bytes:
    """Search a unit of a question, wherever this runs."""
    return _exploration(*question).search(unit, report)


def _elsewhere(whole: _core.Exploration, question: tuple[Any, Any], executor: Any, progress: Progress) -> _core.Study:
    calls = [(name, (question, i)) for i, name in enumerate(whole.units())]
    work = Calls(_unit, calls, lambda name: f"the search of {name}")
    with reporter(progress, "units") as report:
        work.fly(executor, None if report is None else lambda done: report(done, len(calls)))
    return whole.join(work.results)
