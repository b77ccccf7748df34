"""Optimum: what an optimisation found, what it priced, and what it proved."""

from __future__ import annotations

import json
from typing import Any, ClassVar

import numpy as np

from disagg import _html
from disagg._result_base import Fact, Result, Table, number, texts
from disagg.frame import Frame
from disagg.result import Estimate
from disagg.run import Run
from disagg.space import Space

__all__ = ["Optimum"]


class Optimum(Result):
    """The best point of a space, and what is known of the others. Made by ``dg.optimize(...)``."""

    _shown: ClassVar[tuple[str, ...]] = ("objective", "value", "point", "method", "complete")

    objective = Fact(str, "What was made as good as possible, with its sense: ``max tokens_per_s``.")
    constraints = Fact(texts, "Limits that a point had to keep.")
    method = Fact(str, "``exact`` or ``optuna``.")
    complete = Fact(bool, "Whether the search went to its end; False after a stop with ``partial=True``.")
    value = Fact(number, "The objective at the best point.")
    point = Fact(int, "Number of the best point; the least of equals.")
    points = Table(
        "Every point that was priced: ``point``, axes, metrics, ``feasible``, ``kept`` (constraints), ``status``."
    )
    certificate = Table(
        "What became of every point: ``what``, ``points`` (how many), ``why`` (the proof, or that there is none)."
    )

    @property
    def choice(self) -> dict[str, Any]:
        """The best point: its value on every axis."""
        row = next(self.points.filter(self.points["point"] == self.point).rows())
        return {axis: row[axis] for axis in self._scalars["axes"]}

    @property
    def best(self) -> Estimate | Run:
        """The best point as `estimate` prices it, or as `simulate` ran it."""
        text = json.dumps(self._scalars["best"])
        return Run.from_json(text) if self._scalars["simulated"] else Estimate.from_json(text)

    @property
    def ties(self) -> Frame:
        """The rows of `points` whose objective is that of the best within 1e-9."""
        return self.points.filter(np.isin(self.points["point"], self._scalars["ties"]))

    @property
    def space(self) -> Space:
        """The space that was searched."""
        return Space.from_json(self._scalars["space"])

    def __repr__(self) -> str:
        """One line: the objective, the best point, and how much was priced."""
        told = dict(zip(self.certificate["what"].tolist(), self.certificate["points"].tolist(), strict=True))
        ties = len(self._scalars["ties"])
        rest = "" if ties == 1 else f", {ties} ties"
        stopped = "" if self.complete else ", stopped"
        ends = [axis.split(".")[-1] for axis in self.choice]
        names = [
            axis.removeprefix("plan.") if ends.count(end) > 1 else end
            for axis, end in zip(self.choice, ends, strict=True)
        ]
        where = ", ".join(f"{name}={value}" for name, value in zip(names, self.choice.values(), strict=True))
        counts = f"{told['priced']:,} of {told['points']:,} points priced"
        return f"Optimum({self.objective}: {self.value:.6g} at {where}; {counts}{rest}{stopped})"

    def _repr_html_(self) -> str:
        rows: list[list[str]] = [[self.objective, f"{self.value:.6g}"]]
        rows += [[axis, str(value)] for axis, value in self.choice.items()]
        rows += [["keeps", c] for c in self.constraints]
        rows += [[str(r["what"]), f"{r['points']:,} - {r['why']}"] for r in self.certificate.rows()]
        ties = len(self._scalars["ties"])
        note = "" if ties == 1 else f"{ties} points tie: .ties"
        return _html.table(f"Optimum ({self.method})", [], rows, note=note if self.complete else f"stopped. {note}")
