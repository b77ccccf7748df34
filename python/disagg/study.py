"""Study: every level of disaggregation, best against best, under the same budget."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any, Generic, Self, TypeVar, cast, overload

import numpy as np

from disagg import _core
from disagg._names import FAMILIES, LEVELS
from disagg._result_plots import StudyPlots
from disagg._study_again import Again
from disagg.errors import InfeasibleError, SpecError
from disagg.frame import Frame, better
from disagg.result import Estimate
from disagg.specs import SLO
from disagg.verdict import Verdict, told, verdict

__all__ = ["LEVELS", "Study"]

FRAMES = ("table", "frameworks", "flips", "points")
PARTS = ("slo", "objective", "warnings", "estimates", *FRAMES)
T = TypeVar("T")


class Part(Generic[T]):
    """A part of a study as a documented attribute; one given as a function is made when it is first asked for."""

    def __init__(self, doc: str) -> None:
        self.__doc__, self.name = doc, ""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, obj: None, owner: type) -> Self: ...
    @overload
    def __get__(self, obj: Study, owner: type) -> T: ...
    def __get__(self, obj: Study | None, owner: type) -> Self | T:
        if obj is None:
            return self
        if callable(found := obj._held[self.name]):
            found = obj._held[self.name] = found()
        return cast("T", list(found) if isinstance(found, list) else found)


class Study(Again):
    """What an exploration found. Made by ``dg.explore(...)``, of parts that are its attributes.

    Parameters
    ----------
    table, points, frameworks, flips, objective, warnings, slo
        What the attributes of these names are. `points` and `flips` may be functions that give the table when it is
        first asked for; `frameworks` None: as `table`.
    estimates
        The best estimate of each level, or its nearest miss; under ``"afd"`` that of the two AFD levels.
    core
        The search itself, which an audit asks again; None after a round trip.
    """

    _held: dict[str, Any]

    table = Part[Frame](
        """One row a level: its best plan on whichever framework gives most, what it reaches and what binds it.

        ``measured_share`` is that of the less known of the two latencies, whose own are ``tpot_measured_share`` and
        ``ttft_measured_share``: never pooled.
        """
    )
    frameworks = Part[Frame](
        """One row a level and framework compared, with the columns of `table`.

        ``binding`` is ``dominated`` where another level leads with the same framework's kernels.
        """
    )
    flips = Part[Frame](
        """What leads under other limits and on other budgets, of the plans looked at.

        ``what`` (``ttft_ms``, ``tpot_ms``, ``gpus``), ``side`` (``at`` a value, or ``below`` or ``above`` the nearest
        one where another level leads), ``value``, ``ratio`` (to what was asked), and who leads there: ``level``
        (empty: nothing keeps the limits), ``framework``, ``tokens_per_s_per_gpu``, ``tokens_per_s_per_user``.
        """
    )
    points = Part[Frame](
        """One row a distinct plan that was looked at.

        ``priced`` is ``"exact"`` where the engine priced it, as it did all that a verdict or the frontier rests on,
        and ``"scan"`` where it stands as scanned (see `explore`), with no ``measured_share``.
        """
    )
    warnings = Part[list[str]](
        "What should be known beside the answer: what stands in for measurements, who disagrees, what is left out."
    )
    slo = Part[SLO]("The limits asked for.")
    objective = Part[str]("What was made as good as possible.")

    def __init__(
        self,
        *,
        table: Frame,
        points: Frame | Callable[[], Frame],
        estimates: Mapping[str, Estimate],
        objective: str = "tokens_per_s",
        frameworks: Frame | None = None,
        flips: Frame | Callable[[], Frame] | None = None,
        warnings: Sequence[str] = (),
        slo: SLO | None = None,
        core: _core.Study | None = None,
    ) -> None:
        held: dict[str, Any] = {"table": table, "points": points, "estimates": dict(estimates), "objective": objective}
        held["frameworks"] = table if frameworks is None else frameworks
        held["flips"] = Frame({}) if flips is None else flips
        held |= {"warnings": list(warnings), "slo": slo or SLO(), "_verdict": lambda: verdict(self)}
        self._set(_native=core, _held=held)

    def verdict(self) -> Verdict:
        """Say what to deploy, at which rate and cost, how well that is known, and what would change it.

        Returns
        -------
        Verdict
            In words when printed; every part is an attribute.

        Examples
        --------
        >>> import disagg as dg
        >>> study = dg.explore(dg.Model("Qwen/Qwen3-30B-A3B"), dg.Cluster("b200_sxm", gpus=2),
        ...                    dg.Workload(isl=1024, osl=128), dg.SLO(ttft_ms=500), levels=["aggregated", "pd"])
        >>> found = study.verdict()
        >>> found.feasible, found.level in {"aggregated", "pd"}, str(found).startswith("Deploy ")
        (True, True, True)
        """
        return self._verdict

    _verdict = Part[Verdict]("The verdict, once somebody asked.")

    @property
    def priced(self) -> int:
        """How many plans were looked at: scanned, and the leading ones priced by the engine."""
        return int(self.table["points"].sum()) if "points" in self.table else len(self.points)

    @property
    def estimates(self) -> dict[str, Estimate]:
        """The best estimate of each level, or its nearest miss."""
        return {n: e for n, e in self._held["estimates"].items() if n in LEVELS}

    @property
    def plot(self) -> StudyPlots:
        """Plots: ``.pareto()``, ``.breakdown()``, ``.ratio()``, ``.memory()``, ``.audit()``."""
        return StudyPlots(self)

    def _levels(self, level: str | None) -> tuple[str, ...]:
        if level is None:
            return LEVELS
        if level in FAMILIES:
            return FAMILIES[level]
        if level not in LEVELS:
            known = [*LEVELS, *FAMILIES]
            raise SpecError([("level", f"'{level}' is not a level", _core.near(str(level), known))])
        return (level,)

    def best(self, level: str | None = None) -> Estimate:
        """Give the best estimate of a level.

        Parameters
        ----------
        level
            ``"aggregated"``, ``"pd"``, ``"aggregated+afd"``, ``"pd+afd"``; ``"afd"``: the better of the two
            AFD levels; None: the best of all.

        Returns
        -------
        Estimate
            The best plan within the limits; where there is none, the nearest miss (``feasible`` is False).

        Raises
        ------
        SpecError
            If there is no such level, or it was not searched.
        InfeasibleError
            If the level has no plan at all.
        """
        levels = self._levels(level)
        searched = set(self.table["level"].tolist())
        if not searched.intersection(levels):
            raise SpecError([("level", f"'{level}' was not searched", f"searched: {', '.join(sorted(searched))}")])
        every: dict[str, Estimate] = self._held["estimates"]
        found = [every[n] for n in levels if n in every]
        feasible = [e for e in found if e.feasible]
        if feasible:
            choose = max if better(self.objective) == "max" else min
            return choose(feasible, key=lambda e: float(getattr(e, self.objective)))
        if level is not None and level in every:
            return every[level]
        if found:
            return found[0]
        raise InfeasibleError(f"there is no plan of {' or '.join(levels)}", "a layout that divides", "none")

    def frontier(
        self, level: str | None = None, *, x: str = "tokens_per_s_per_user", y: str = "tokens_per_s_per_gpu"
    ) -> Frame:
        """Give the feasible points of a level that no other beats in both `x` and `y`.

        All of them are exact in the default `x` and `y`; in others ``priced`` tells which are.

        Parameters
        ----------
        level
            As in `best`; None: all levels together.
        x, y
            Columns of `points`.
        """
        levels = self._levels(level)
        wanted = np.isin(self.points["level"], levels) & self.points["feasible"]
        return self.points.filter(wanted).frontier(x, y)

    def _parts(self) -> dict[str, Any]:
        """What a study is made of: the arguments of its constructor."""
        return {n: self._held["estimates"] if n == "estimates" else getattr(self, n) for n in PARTS}

    def to_json(self) -> str:
        """Give the study as JSON text; `from_json` gives an equal study back, to the last bit."""
        return json.dumps({n: _plain(part) for n, part in self._parts().items()}, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Study:
        """Read a study back from the text that `to_json` gave.

        Raises
        ------
        SpecError
            If the text is not a study.
        """
        try:
            data = json.loads(text)
            data |= {n: Frame.from_json(json.dumps(data[n])) for n in FRAMES}
            data |= {"estimates": {n: Estimate.from_json(json.dumps(e)) for n, e in data["estimates"].items()}}
            return cls(**{**data, "slo": SLO.from_dict(data["slo"])})
        except (ValueError, KeyError, TypeError, AttributeError) as e:
            raise SpecError([("json", f"is not a study: {e}", "give the text that to_json() gave")]) from e

    def __eq__(self, other: object) -> bool:
        """Compare by value."""
        if not isinstance(other, Study):
            return NotImplemented
        # The tables that have to be asked for come last.
        alike = self._held["estimates"] == other._held["estimates"]
        return alike and all(getattr(self, n) == getattr(other, n) for n in PARTS)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        """One line: what to deploy, the levels and what each reaches, and how many plans were looked at."""
        parts = []
        for level, e in self.estimates.items():
            reached = f"{getattr(e, self.objective):.6g}" if e.feasible else "infeasible"
            parts.append(f"{level}={reached} ({e.binding or 'best'})")
        warned = f"; warnings: {len(self.warnings)}" if self.warnings else ""
        head = told(self, Frame({}))["headline"]
        return f"Study({head}; {self.priced} plans, {self.objective}: {', '.join(parts)}{warned})"

    def __str__(self) -> str:
        """Give the verdict in words, and a line a level."""
        rate = "tokens_per_s_per_user" if self.objective == "tokens_per_s_per_user" else "tokens_per_s_per_gpu"
        names = ("level", "framework", "feasible", "binding", rate, "ttft_ms", "tpot_ms", "plan")
        return f"{self.verdict()}\n\n{self.table.select(*(n for n in names if n in self.table))}"

    def _repr_html_(self) -> str:
        table = self.table._repr_html_()
        below = f"<div>{self.priced} plans; objective: {escape(self.objective)}</div>"
        return f"{self.verdict()._repr_html_()}{table}{below}"

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the plain data."""
        return _rebuild, (self._parts(),)


def _plain(part: Any) -> Any:
    """Give a part of a study as JSON can say it."""
    if isinstance(part, SLO):
        return part.to_dict()
    if isinstance(part, dict):
        return {n: _plain(one) for n, one in part.items()}
    return json.loads(part.to_json()) if isinstance(part, (Frame, Estimate)) else part


def _rebuild(parts: dict[str, Any]) -> Study:
    return Study(**parts)
