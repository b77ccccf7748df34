"""regimes: which level of disaggregation wins where, best against best in every cell."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Sequence
from typing import Any, Unpack

import numpy as np

from disagg import _core, executors
from disagg._columns import Text
from disagg._executor_pool import Calls
from disagg._names import expanded, several
from disagg._versions import __version__
from disagg.errors import Problem, SpecError
from disagg.frame import Frame
from disagg.progress import reporter
from disagg.specs import SLO, Assumptions, Cluster, Distribution, Model, Workload
from disagg.specs._base import Spec, takes

__all__ = ["regimes"]


@takes("_Regimes")
def regimes(model: Model, cluster: Cluster | Sequence[Cluster], **options: Unpack[_core._Regimes]) -> Frame:
    """Tell which level of disaggregation wins where: a map over lengths, limits and clusters.

    In every cell each level has its best plan under the limits, on the same GPUs. Cells that differ only in limits
    share one search of the space, so many limits cost little more than one; workloads that differ only in answers share
    their prompts. A cell says what `explore` says of the same question, to the last bit.

    Parameters
    ----------
    cluster
        One cluster, or a list: other systems, or other numbers of GPUs of one.

    Returns
    -------
    Frame
        One row a cell, clusters outermost, then workloads (`prefix`, `isl`, `osl`), then limits:
        ``system gpus framework workload prefix isl osl ttft_limit_ms tpot_limit_ms`` (infinite: no limit),
        ``winner`` (empty: no level keeps the limits), ``margin`` (its rate over the next level's, less one;
        infinite if it stands alone), ``tie``, ``agreed`` (whether every framework that keeps the limits names the same
        winner), ``tied``; of every level ``tokens_per_s_per_gpu_<level>`` (0: it does
        not keep the limits) and ``binding_<level>`` (what stops it, ``dominated`` where another is better); and of
        the winner ``framework ttft_ms tpot_ms measured_share plan`` (the share of the less known of its two latencies
        that is measured or interpolated). ``to_xarray([...])`` over the columns that vary gives a grid,
        ``plot.regimes()`` a map. ``attrs["warnings"]`` says whose tables stand in for what-if hardware and which
        frameworks are left out, and why.

    Raises
    ------
    SpecError
        If an input does not fit or there is no cell (every problem is named), a percentile is asked of a closed loop,
        or the executor does not fit.
    DisaggError
        If a unit of work fails three times or the executor's workers die.

    Examples
    --------
    >>> import disagg as dg
    >>> found = dg.regimes(dg.Model("Qwen/Qwen3-30B-A3B"), dg.Cluster("b200_sxm", gpus=2), isl=[500, 4000], osl=200,
    ...                    slo=[dg.SLO(tpot_ms=10), dg.SLO(tpot_ms=50)], levels=["aggregated", "pd"])
    >>> len(found), found["isl"].tolist()
    (4, [500.0, 500.0, 4000.0, 4000.0])
    >>> found.attrs["complete"]
    True
    """
    how, names = options, several(options["framework"], options["frameworks"])
    clusters, limits = _several("cluster", cluster, (Cluster,)), _several("slo", how["slo"], (SLO,))
    if how["workloads"] is None:
        kinds = (int, float, Distribution)
        lists = {n: _several(n, v, kinds) for n, v in how.items() if n in ("prefix", "isl", "osl")}
        asked = [Workload(**dict(zip(lists, each, strict=True))) for each in itertools.product(*lists.values())]
    else:
        lists = {"workloads": (asked := _several("workloads", how["workloads"], (Workload,)))}
    empty = [n for n, values in {"cluster": clusters, **lists}.items() if not values]
    if empty:
        raise SpecError([Problem(n, "is empty: there is no cell", "give at least one") for n in empty])
    parts = (names, how["quant"], how["serving"], how["assumptions"])
    more = (limits, expanded(how["levels"]), float(how["tolerance"]), max(1, how["batches_per_octave"]))
    question = (model, clusters, asked, parts, (*more, how["arrivals"], how["runnable"]))
    whole, executor, partial = _map(*question), how["executor"], how["partial"]
    with reporter(how["progress"], "cells") as report:
        if executor is None:
            columns, own = whole.search(partial, report)
        else:
            columns, own = _elsewhere(whole, question, executor, partial, report)
    attrs = {
        "version": __version__,
        "model": repr(model),
        "clusters": [repr(c) for c in clusters],
        "warnings": whole.warnings(),
        "assumptions": repr(how["assumptions"] or Assumptions.physical()),
    }
    return Frame._from_core((columns, own), **attrs)


def _map(
    model: Model, clusters: list[Cluster], workloads: list[Workload], how: tuple[Any, ...], more: tuple[Any, ...]
) -> _core.Regimes:
    case = _core.Case(model, clusters[0], workloads[0], *how)
    return _core.Regimes(case, clusters, workloads, *more)


def _scene(question: tuple[Any, ...], report: Any) -> tuple[dict[str, Any], dict[str, str]]:
    """Map one cluster and workload under all limits, wherever this runs."""
    columns, own = _map(*question).search(False, report)
    return executors.texts(columns), own


def _elsewhere(whole: _core.Regimes, question: tuple[Any, ...], executor: Any, partial: bool, report: Any) -> Any:
    model, clusters, workloads, (_, *how), (limits, *more) = question
    # Whose kernels are taken is settled once, for all workers.
    names = whole.frameworks()
    calls = [
        (f"{c!r} with {w!r}", ((model, [c], [w], (name, *how), (limits, *more)),))
        for c, name in zip(clusters, names, strict=True)
        for w in workloads
    ]
    work = Calls(_scene, calls, lambda name: f"the map of {name}")
    total = len(calls) * len(limits)
    try:
        work.fly(executor, None if report is None else lambda done: report(done * len(limits), total))
    except KeyboardInterrupt:
        if not (partial and work.done):
            raise
    parts = [r for r in work.results if r is not None]
    own = {**parts[0][1], "complete": json.dumps(len(parts) == len(calls))}
    columns = {n: np.concatenate([p[n] for p, _ in parts]) for n in parts[0][0]}
    return {n: Text.of(v.tolist()) if v.dtype.kind == "U" else v for n, v in columns.items()}, own


def _several(name: str, value: Any, kinds: tuple[type, ...]) -> list[Any]:
    """Give one value or a list of them as a list."""
    values = [value] if isinstance(value, kinds) else value
    if hasattr(values, "tolist"):
        values = values.tolist()
    if not isinstance(values, Iterable) or isinstance(values, str | Spec):
        raise SpecError([Problem(name, f"is a {type(value).__name__}", f"give {kinds[-1].__name__} or a list")])
    values = list(values)
    for i, v in enumerate(values):
        if not isinstance(v, kinds) or isinstance(v, bool):
            raise SpecError([Problem(f"{name}[{i}]", f"is a {type(v).__name__}", f"give {kinds[-1].__name__}")])
    return values
