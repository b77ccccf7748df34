"""Points asked of optuna, a few at a time: the sampler stands outside, by ask and tell."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from disagg import _core
from disagg._optional import require
from disagg.errors import Problem, SpecError
from disagg.frame import Frame
from disagg.space import Space

ASKED = 8
"""Points that are asked for at a time, and priced side by side."""


@contextmanager
def _quiet(optuna: Any) -> Iterator[None]:
    """Keep optuna's log lines out of the way of ours."""
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(level)


def _values(judge: _core.Search, points: list[int]) -> list[float | None]:
    """Objectives of points; None where one does not stand, breaks a limit or was dropped."""
    found = Frame._from_core(judge.take(np.asarray(points, dtype=np.int64)))
    values = found[judge.objective[0]]
    good = found["kept"] & ~np.isnan(values)
    return [v if k else None for v, k in zip(values.tolist(), good.tolist(), strict=True)]


def ask(space: Space, judge: _core.Search, trials: int, seed: int, report: Callable[[int, int], object] | None) -> None:
    """Ask TPE for points, a few at a time; points outside the space or without a value count as the worst."""
    if space._points is not None:
        raise SpecError([Problem("space", "is a sample or a slice", "optuna asks for points of a whole space")])
    optuna = require("optuna", extra="optimize")
    axes = json.loads(space.to_json())["axes"]
    orders = [_order(a["values"]) for a in axes]
    seen: dict[int, float | None] = {}
    with _quiet(optuna):
        sampler = optuna.samplers.TPESampler(seed=seed)
        study = optuna.create_study(direction="maximize" if judge.objective[1] else "minimize", sampler=sampler)
        for start in range(0, trials, ASKED):
            asked = []
            for _ in range(min(ASKED, trials - start)):
                trial = study.ask()
                choices = [_suggest(trial, a, order) for a, order in zip(axes, orders, strict=True)]
                asked.append((trial, space._core.index_of(choices)))
            fresh = [p for p in dict.fromkeys(p for _, p in asked if p is not None) if p not in seen]
            seen |= dict(zip(fresh, _values(judge, fresh) if fresh else [], strict=True))
            for trial, point in asked:
                value = None if point is None else seen[point]
                if value is None:
                    study.tell(trial, state=optuna.trial.TrialState.PRUNED)
                else:
                    study.tell(trial, value)
            if report is not None:
                report(min(start + ASKED, trials), trials)


def _order(values: list[Any]) -> list[int] | None:
    """The choices of an axis of numbers in rising order; None: they have no order."""
    if any(isinstance(v, bool) or not isinstance(v, (int, float)) for v in values):
        return None
    return sorted(range(len(values)), key=values.__getitem__)


def _suggest(trial: Any, axis: dict[str, Any], order: list[int] | None) -> int:
    if order is None:
        return int(trial.suggest_categorical(axis["path"], list(range(len(axis["values"])))))
    return order[int(trial.suggest_int(axis["path"], 0, len(order) - 1))]
