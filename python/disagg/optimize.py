"""optimize: the best point of a space, with what proves it."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from disagg import _candidates, _core
from disagg._names import named
from disagg.errors import Problem, SpecError
from disagg.optimum import Optimum
from disagg.progress import Progress
from disagg.space import Space
from disagg.specs._base import checked
from disagg.trace import Trace

__all__ = ["optimize"]


@checked
def optimize(
    space: Space,
    *,
    objective: str,
    constraints: Sequence[str] = (),
    runnable: bool = True,
    method: Literal["exact", "optuna"] = "exact",
    simulate: Trace | Mapping[str, Any] | None = None,
    seed: int = 0,
    trials: int = 100,
    partial: bool = False,
    progress: Progress = None,
) -> Optimum:
    """Find the best point of a space.

    Parameters
    ----------
    space
        Where to look (a whole space, a sample or a slice).
    objective
        A metric of `sweep`: rates are made high, times, memory, GPUs and money low; or with its sense,
        ``"max concurrency"``, ``"min gpus"``. With `simulate`: ``"goodput"`` (requests per second inside the
        limits), ``tokens_per_s``, ``tokens_per_s_per_gpu``, ``requests_per_s``, mean ``ttft_ms``, ``tpot_ms``,
        ``e2e_ms``, or their percentiles, e.g. ``"ttft_p99_ms"``.
    constraints
        Limits over metrics and axes, in the language of ``Space(where=)``: ``["ttft_ms <= 500",
        "tokens_per_s / gpus > 100 or tp == 1"]``.
    runnable
        Whether only what the framework's server starts may win (``dg.rules``); other points are told in
        ``.certificate`` and ``.points`` with the rule that they break. False lifts it.
    method
        ``"exact"``: the true optimum; every point is priced, or left out with a proof that stands in
        ``.certificate``. ``"optuna"``: `trials` points asked of optuna's TPE sampler, nothing proved; for spaces
        too large to go through, such as those with fine lists (``np.linspace(25, 400, 1000)``) for
        continuous axes.
    simulate
        None: steady states. A trace, or a dict of ``trace``, ``slo`` (for goodput) and options of `simulate`:
        every candidate serves the same requests with the same seed. A candidate is dropped after the
        first quarter of the requests if, request by request, it is worse than the best so far with 99 %
        confidence. That is statistical, not a proof.
    seed
        Of the sampler and the simulations; the same seed gives the same bits.
    trials
        Points to ask for with ``"optuna"``.
    partial
        Whether stopping (Ctrl-C) gives the best so far, if there is any, instead of raising; ``.complete`` says which.

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
    constraints = named("constraints", constraints, "'ttft_ms <= 500'", "text")
    problems = []
    if method not in ("exact", "optuna"):
        problems.append(Problem("method", f"'{method}' is not a method", _core.near(str(method), ["exact", "optuna"])))
    if trials < 1:
        problems.append(Problem("trials", f"{trials} does not fit", "1 or more"))
    if seed < 0:
        problems.append(Problem("seed", f"{seed} does not fit", "0 or more"))
    if problems:
        raise SpecError(problems)
    how = _candidates.served(simulate)
    judge = _candidates.judge(space, objective, constraints, how, seed, runnable=runnable)
    best = functools.partial(_candidates.result, space, how=how, seed=seed)
    return _candidates.search(space, judge, best, constraints, method, trials, seed, partial, progress)
