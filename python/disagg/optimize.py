"""optimize: the best point of a space, with what proves it."""

from __future__ import annotations

import functools
from typing import Unpack

from disagg import _candidates, _core
from disagg._names import named
from disagg.errors import Problem, SpecError
from disagg.optimum import Optimum
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
    best = functools.partial(_candidates.result, space, how=serve, seed=seed)
    return _candidates.search(space, judge, best, constraints, method, trials, seed, how["partial"], how["progress"])
