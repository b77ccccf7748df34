"""optimize: the best point of a space, with what proves it."""

from __future__ import annotations

import json
from typing import Unpack

from disagg import _ask, _candidates, _core
from disagg._names import named
from disagg.errors import Problem, SpecError
from disagg.frame import Frame
from disagg.optimum import Optimum
from disagg.progress import reporter
from disagg.run import Run
from disagg.space import Space
from disagg.specs._base import takes

__all__ = ["optimize"]


@takes("_Optimize")
def optimize(space: Space, **options: Unpack[_core._Optimize]) -> Optimum:
    """Find the best point of a space.

    Parameters
    ----------
    space
        Where to look (a whole space, a sample or a slice).

    Returns
    -------
    Optimum
        ``.best`` (an `Estimate`, or a `Run` if simulated), ``.choice``, ``.ties``, ``.points``, ``.certificate``.

    Raises
    ------
    SpecError
        If a metric or name is unknown, no point keeps the constraints (which are named), or no point has
        the objective.
    MissingPackageError
        If ``"optuna"`` is asked for and not installed.

    Examples
    --------
    >>> import disagg as dg
    >>> space = dg.Space(model=dg.Model("Qwen/Qwen3-30B-A3B"), cluster=dg.Cluster("h200_sxm", gpus=8),
    ...                  workload=dg.Workload.preset("paper-chat"),
    ...                  axes={"plan.parallel.tp": [1, 2, 4, 8], "plan.batch": [8, 64], "plan.replicas": [1, 2, 4, 8]})
    >>> found = dg.optimize(space, objective="tokens_per_s", constraints=["tpot_ms <= 20"])
    >>> found.choice
    {'plan.parallel.tp': 2, 'plan.batch': 64, 'plan.replicas': 4}
    """
    how = options
    method, trials, seed = how["method"], how["trials"], how["seed"]
    constraints = named("constraints", how["constraints"], "'ttft_ms <= 500'", "text")
    problems = []
    if method not in ("exact", "optuna"):
        problems.append(Problem("method", f"'{method}' is not a method", _core.near(str(method), ["exact", "optuna"])))
    if trials < 1:
        problems.append(Problem("trials", f"{trials} does not fit", "1 or more"))
    if seed < 0:
        problems.append(Problem("seed", f"{seed} does not fit", "0 or more"))
    if problems:
        raise SpecError(problems)
    serve = _candidates.served(how["simulate"])
    judge = _candidates.judge(space, how["objective"], constraints, serve, seed, runnable=how["runnable"])
    complete = True
    with reporter(how["progress"], "points") as report:
        try:
            if method == "optuna":
                _ask.ask(space, judge, trials, seed, report)
            else:
                judge.run(report)
        except KeyboardInterrupt:
            if not how["partial"] or not len(Frame._from_core(judge.points())):
                raise
            complete = False
    (point, ties), (metric, more) = judge.best(), judge.objective
    found = _candidates.result(space, point, serve, seed)
    points, certificate = Frame._from_core(judge.points()), Frame._from_core(judge.certificate())
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
