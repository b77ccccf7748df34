"""What every judge of a space's points has, and what a point asks for."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from disagg import _serve
from disagg.frame import Frame
from disagg.result import Estimate
from disagg.space import Space
from disagg.specs import Assumptions, Cluster, Model, Quant, Serving, Workload
from disagg.specs._base import Spec
from disagg.specs.plan import plan_from_dict

Report = Callable[[int, int], object] | None


def question(space: Space, point: int) -> dict[str, Any]:
    """Give the arguments of `estimate` that a point of a space stands for."""
    raw = json.loads(space._core.question(point))
    parts: dict[str, Any] = {
        "model": Model.from_dict(raw["model"]),
        "cluster": Cluster.from_dict(raw["cluster"]),
        "workload": Workload.from_dict(raw["workload"]),
        "plan": plan_from_dict(raw["plan"]),
        "framework": raw.get("framework"),
    }
    further: dict[str, type[Spec]] = {"quant": Quant, "serving": Serving, "assumptions": Assumptions}
    for name, kind in further.items():
        parts[name] = None if raw.get(name) is None else kind.from_dict(raw[name])
    return parts


def estimated(space: Space, point: int) -> Estimate:
    """Give the estimate of a point."""
    parts = question(space, point)
    first = [parts.pop(n) for n in ("model", "cluster", "workload", "plan")]
    return _serve.estimate(*first, **parts)


class Judge(Protocol):
    """What says how good points are, and keeps what it said."""

    metric: str
    more: bool
    constraints: list[str]

    def whole(self, report: Report) -> None:
        """Go through all points of the space."""

    def take(self, points: Sequence[int]) -> list[float | None]:
        """Objectives of points; None where one does not stand or breaks a limit."""

    def frames(self) -> tuple[Frame, Frame]:
        """All that was judged, and the certificate."""

    def best(self) -> tuple[int, list[int], Any]:
        """The best point, those that tie with it, and its result."""
