"""Case: what a question is about, of which every question can be asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, fields
from typing import Any, Unpack, overload

from disagg import _core, _html
from disagg._names import Names, several
from disagg._serve import estimate, explore
from disagg.errors import Problem, SpecError
from disagg.frame import Frame
from disagg.optimize import optimize
from disagg.optimum import Optimum
from disagg.regimes import regimes
from disagg.result import Estimate
from disagg.run import Run
from disagg.sensitivity import sensitivity
from disagg.simulate import simulate
from disagg.space import Space
from disagg.specs import AFD, PARTS, PD, SLO, Aggregated, Assumptions, Cluster, Model, Quant, Serving, Workload
from disagg.specs._base import Spec, checked, expect
from disagg.study import LEVELS, Study
from disagg.sweep import sweep
from disagg.trace import Trace

__all__ = ["Case"]

FIRST = ("model", "cluster", "workload")


@dataclass(frozen=True, repr=False)
class Case:
    """One model served on one cluster for one workload, with whose kernels and how: what every question is about.

    Each method is the function of the same name with these parts filled in, and gives the same to the bit; its further
    arguments (`options`) are those of the function, by name.

    Parameters
    ----------
    model, cluster, workload
        What is served, on what, and for whom.
    framework
        Whose kernels: a name, or several for the questions that compare (`explore`, `regimes`); None: of one plan
        those whose tables know most of the model, of a comparison all that have kernels for it.
    quant, serving, assumptions
        Number formats, way of serving and modelling choices, as in `dg.estimate`; None: the server's own, and
        ``Assumptions.physical()``.

    Raises
    ------
    SpecError
        If a part does not fit; every problem is named. Whether the system has kernels of the framework is told when
        something is asked.

    Examples
    --------
    >>> import disagg as dg
    >>> case = dg.Case(dg.Model("Qwen/Qwen3-30B-A3B"), dg.Cluster("h200_sxm", gpus=2),
    ...                dg.Workload(isl=2000, osl=300), framework="vllm")
    >>> plan = dg.Aggregated(parallel=dg.Parallel(tp=2), batch=16)
    >>> case.estimate(plan).framework
    'vllm'
    >>> study = case.explore(dg.SLO(tpot_ms=50), levels=["aggregated"])
    >>> bool(study.table["feasible"][0])
    True
    >>> case.sweep({"plan.parallel.tp": [1, 2]})["feasible"].tolist()
    [True, True]
    """

    model: Model
    cluster: Cluster
    workload: Workload
    _: KW_ONLY
    framework: Names = None
    quant: Quant | None = None
    serving: Serving | None = None
    assumptions: Assumptions | None = None

    def __post_init__(self) -> None:
        """Hold the formats against the device."""
        names = several(self.framework, None)
        if names is not None:
            if not names:
                raise SpecError([Problem("framework", "no framework is named", "leave it out, or name one")])
            object.__setattr__(self, "framework", names[0] if len(names) == 1 else tuple(names))
        _core.Case(self.model, self.cluster, self.workload, self.framework, self.quant, self.serving, self.assumptions)

    def _parts(self) -> dict[str, Any]:
        """Give what it says, in the order of its arguments."""
        said = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: part for name, part in said.items() if part is not None}

    def _with(self, *first: str, **options: Any) -> dict[str, Any]:
        """Give its parts that are not among the `first` arguments, with further options of a function."""
        twice = [n for n in options if n in PARTS or n in ("framework", "frameworks")]
        if twice:
            raise SpecError([Problem(n, "is said by the case", f"case.replace({n}=...)") for n in twice])
        return {**{n: part for n, part in self._parts().items() if n not in first}, **options}

    @checked
    def estimate(self, plan: Aggregated | PD | AFD, *, load: float | None = None) -> Estimate:
        """Price one plan in its steady state, as `dg.estimate`."""
        return estimate(plan=plan, load=load, **self._with())

    @checked
    def explore(self, slo: SLO, **options: Unpack[_core._Explore]) -> Study:
        """Search every level of disaggregation within limits, best against best, as `dg.explore`."""
        return explore(slo=slo, **self._with(**options))

    @checked
    def audit(
        self, slo: SLO, to: Assumptions | None = None, *, levels: str | Sequence[str] = LEVELS, **options: Any
    ) -> Frame:
        """Walk from its assumptions to others, every level searched again at each switch, as `Study.audit`."""
        return self.explore(slo, levels=levels, progress=options.get("progress")).audit(to, **options)

    @checked
    def regimes(self, slo: SLO | Sequence[SLO], **options: Any) -> Frame:
        """Tell which level wins where, as `dg.regimes`.

        Without `isl`, `osl`, `prefix` or `workloads` of one's own the map is of the case's workload, and without
        `clusters` (a list) of its cluster.
        """
        clusters = options.pop("clusters", self.cluster)
        if not options.keys() & {"isl", "osl", "prefix", "workloads"}:
            options["workloads"] = self.workload
        return regimes(cluster=clusters, slo=slo, **self._with("cluster", "workload", **options))

    @overload
    def simulate(self, plan: Aggregated | PD | AFD, trace: Trace, **options: Any) -> Run: ...
    @overload
    def simulate(self, plan: Aggregated | PD | AFD, trace: Sequence[Trace], **options: Any) -> list[Run]: ...
    @checked
    def simulate(self, plan: Aggregated | PD | AFD, trace: Trace | Sequence[Trace], **options: Any) -> Run | list[Run]:
        """Replay a trace through a plan, request by request, as `dg.simulate`.

        What arrives is the trace; the case's own workload says nothing here.
        """
        return simulate(plan=plan, trace=trace, **self._with("workload", **options))

    @checked
    def space(
        self,
        axes: Mapping[str, Sequence[Any]],
        *,
        where: Sequence[str] = (),
        plan: Aggregated | PD | AFD | None = None,
    ) -> Space:
        """Give the design space of axes around it, as `dg.Space`."""
        return Space(axes=axes, where=where, plan=plan, **self._with())

    @checked
    def sweep(
        self,
        axes: Mapping[str, Sequence[Any]],
        *,
        where: Sequence[str] = (),
        plan: Aggregated | PD | AFD | None = None,
        **options: Any,
    ) -> Frame:
        """Price every point of axes around it (``space``), as `dg.sweep`."""
        return sweep(self.space(axes, where=where, plan=plan), **options)

    @checked
    def optimize(
        self,
        axes: Mapping[str, Sequence[Any]],
        *,
        objective: str,
        where: Sequence[str] = (),
        plan: Aggregated | PD | AFD | None = None,
        **options: Any,
    ) -> Optimum:
        """Find the best point of axes around it (``space``), as `dg.optimize`."""
        return optimize(self.space(axes, where=where, plan=plan), objective=objective, **options)

    @checked
    def sensitivity(
        self, plan: Aggregated | PD | AFD, *, load: float | None = None, **options: Unpack[_core._Sensitivity]
    ) -> Frame:
        """Vary one figure at a time around the estimate of a plan, as `dg.sensitivity`."""
        return sensitivity(self.estimate(plan, load=load), **options)

    def replace(self, **changes: Any) -> Case:
        """Give a copy with some parts changed, checked.

        Raises
        ------
        SpecError
            If an argument is unknown or its value does not fit.
        """
        return Case(**{**self._parts(), **changes})

    def __replace__(self, **changes: Any) -> Case:
        """Support ``copy.replace`` (Python 3.13)."""
        return self.replace(**changes)

    def to_dict(self) -> dict[str, Any]:
        """Give it as plain dicts, lists and numbers; parts that it does not say are left out."""
        plain: dict[str, Any] = {}
        for name, part in self._parts().items():
            plain[name] = part.to_dict() if isinstance(part, Spec) else list(part) if isinstance(part, tuple) else part
        return plain

    @classmethod
    @checked
    def from_dict(cls, fields: Mapping[str, Any]) -> Case:
        """Build a case from what `to_dict` gave.

        Raises
        ------
        SpecError
            If a part is unknown, missing or does not fit.
        """
        return cls(**{name: _read(name, part, PARTS.get(name)) for name, part in fields.items()})

    def __hash__(self) -> int:
        """Hash by what tells cases apart at first sight: equal cases have equal hashes."""
        return hash((self.model, self.cluster.system, self.cluster.gpus, self.workload.name, self.framework))

    def _shown(self) -> list[tuple[str, str]]:
        return [(name, repr(part)) for name, part in self._parts().items()]

    def __repr__(self) -> str:
        """One line that evaluates to an equal case."""
        return f"Case({', '.join(text if n in FIRST else f'{n}={text}' for n, text in self._shown())})"

    def _repr_html_(self) -> str:
        return _html.table("Case", [], [list(row) for row in self._shown()])


def _read(name: str, part: Any, kind: type[Spec] | None) -> Any:
    if kind is None or part is None:
        return part
    expect(**{name: (part, dict)})
    return kind.from_dict(part)


Case.__init__ = checked(Case.__init__, probe=True)  # type: ignore[method-assign]
