"""sensitivity: which figure of hardware, serving or workload an estimate hangs on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Unpack

from disagg import _core
from disagg._names import named
from disagg._result_base import Result
from disagg.errors import SpecError
from disagg.frame import Frame
from disagg.specs._base import expect, told

if TYPE_CHECKING:
    from disagg.result import Estimate

__all__ = ["sensitivity"]


@told(_core.sensitivity, "_Sensitivity")
def sensitivity(estimate: Estimate, **options: Unpack[_core._Sensitivity]) -> Frame:
    expect(estimate=(estimate, Result))
    parameters, step = options["parameters"], options["step"]
    names = None if parameters is None else named("parameters", parameters, "'hbm_gb_per_s'")
    given = getattr(estimate, "inputs", {})
    if not {"model", "cluster", "workload"} <= given.keys():
        raise SpecError([("estimate", "does not hold what it was made from", "use dg.estimate(...)")])
    return Frame._from_core(
        _core.sensitivity(
            estimate._case(given),
            estimate.plan,
            None if estimate.queueing is None else estimate.requests_per_s,
            names,
            float(step),
        )
    )
