"""What all questions are asked of: the parts of a case held against their classes, and its native side."""

from __future__ import annotations

from typing import Any

from disagg import _core
from disagg._names import Names
from disagg.specs import AFD, PD, Aggregated, Assumptions, Cluster, Model, Quant, Serving, Workload
from disagg.specs._base import Spec

PLANS = (Aggregated, PD, AFD)
_CLASSES: dict[str, tuple[type, ...]] = {
    "model": (Model,),
    "cluster": (Cluster,),
    "workload": (Workload,),
    "plan": PLANS,
    "quant": (Quant, type(None)),
    "serving": (Serving, type(None)),
    "assumptions": (Assumptions, type(None)),
}


def parts(**given: Any) -> dict[str, tuple[Any, ...]]:
    """Pair parts of a question with their classes, for `expect`.

    Examples
    --------
    >>> [c.__name__ for c in parts(serving=None)["serving"][1:]]
    ['Serving', 'NoneType']
    """
    return {name: (value, *_CLASSES[name]) for name, value in given.items()}


def native(  # noqa: PLR0917 - the parts of a case, in their order
    model: Spec,
    cluster: Spec,
    workload: Spec,
    frameworks: Names,
    quant: Spec | None,
    serving: Spec | None,
    assumptions: Spec | None,
) -> _core.Case:
    """Give the native side of a case.

    Raises
    ------
    SpecError
        If the formats do not run on the cluster's device.
    """
    return _core.Case(model, cluster, workload, frameworks, quant, serving, assumptions)
