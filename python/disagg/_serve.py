"""The two central questions: what does this plan give, and which level of disaggregation is best?"""

from __future__ import annotations

from typing import Any, Unpack

from disagg import _core
from disagg._executor_pool import Calls
from disagg._names import LEVELS, expanded, several, single
from disagg._versions import __version__
from disagg.errors import InfeasibleError
from disagg.frame import Frame
from disagg.progress import Progress, reporter
from disagg.result import INPUTS, Estimate
from disagg.specs import AFD, PD, SLO, Aggregated, Assumptions, Cluster, Model, Workload
from disagg.specs._base import Spec, takes
from disagg.study import Study

_Plan = Aggregated | PD | AFD


@takes("_Estimate")
def estimate(
    model: Model, cluster: Cluster, workload: Workload, plan: _Plan, **options: Unpack[_core._Estimate]
) -> Estimate:
    """Price one plan in its steady state, from measured kernels.

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
    names, load = single(options["framework"], options["frameworks"], "an estimate"), options["load"]
    quant, serving = options["quant"], options["serving"]
    case = _core.Case(model, cluster, workload, names, quant, serving, options["assumptions"])
    engine = _core.Engine(case, plan, None if load is None else float(load))
    return Estimate._from_native(engine.estimate(), _inputs(model, cluster, workload, quant, serving))


def _inputs(*specs: Spec | None) -> dict[str, Spec]:
    """Give the specs of a question that were given, for the record."""
    return {name: s for name, s in zip(INPUTS, specs, strict=True) if s is not None}


@takes("_Explore")
def explore(model: Model, cluster: Cluster, workload: Workload, slo: SLO, **options: Unpack[_core._Explore]) -> Study:
    """Search every level of disaggregation, best against best, under the same GPU budget.

    Parameters
    ----------
    slo
        Limits that a plan must keep.

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
    >>> sure, edge = (dg.explore(*asked, levels=["aggregated"], confidence=c).table for c in (0.8, None))
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
    how, names = options, several(options["framework"], options["frameworks"])
    objective, arrivals, confidence = how["objective"], how["arrivals"], how["confidence"]
    quant, serving, assumptions = how["quant"], how["serving"], how["assumptions"]
    levels, sure = expanded(how["levels"]), None if confidence is None else float(confidence)
    case = (model, cluster, workload, names, quant, serving, assumptions)
    asked = (slo, levels, objective, arrivals, how["confirm"], how["runnable"], sure)
    whole = _exploration(case, asked)
    if how["executor"] is None:
        with reporter(how["progress"], "layouts") as report:
            found = whole.explore(report)
    else:
        # Whose kernels are compared is settled once, for all workers.
        settled = ((model, cluster, workload, whole.frameworks, quant, serving, assumptions), asked)
        found = _elsewhere(whole, settled, how["executor"], how["progress"])
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
