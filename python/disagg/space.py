"""Space: the design space of a question, with axes and constraints of the user's own."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from disagg import _core, _html
from disagg._names import Names, named, several
from disagg.errors import SpecError
from disagg.frame import Frame
from disagg.specs import AFD, PD, Aggregated, Assumptions, Cluster, Model, Parallel, Quant, Serving, Workload
from disagg.specs._base import checked, expect

__all__ = ["Space"]

Points = npt.NDArray[np.int64]


MOST_POINTS = 100_000_000
"""Points that are listed at once."""


class Space:
    """A base question, axes over its fields and constraints between them.

    Points are numbered in the order of the axes, the last axis fastest; points that break a
    constraint are left out. Nothing is listed until it is priced, so a space may be huge.

    Parameters
    ----------
    axes
        Axes may change any part of the question: dotted path to the values it takes: ``"plan.parallel.tp": [1, 2, 4]``,
        ``"workload.isl": [512, 4096]`` (tokens), ``"cluster.nic_gb_per_s": [50, 100]``,
        ``"cluster.system": ["h200_sxm", "b200_sxm"]``, ``"serving.mtp"``, ``"framework"``, or whole
        specs: ``"model": ["Qwen/Qwen3-235B-A22B"]``, ``"plan": [plan_a, plan_b]``.
    where
        Constraints over the ends of paths, in Python's syntax: ``"tp * dp <= 64"``.
    plan
        The plan that axes below ``plan.`` change; None: ``Aggregated`` on one GPU.
    framework, frameworks
        Whose kernels, under either name; several names are an axis ``"framework"``. None: as in `estimate`.

    Raises
    ------
    SpecError
        If an axis leads nowhere, a constraint cannot be read, or no point is left; constraints that
        contradict one another are named.

    Examples
    --------
    >>> import disagg as dg
    >>> space = dg.Space(model=dg.Model("Qwen/Qwen3-30B-A3B"), cluster=dg.Cluster("h200_sxm", gpus=8),
    ...                  workload=dg.Workload.preset("paper-chat"),
    ...                  axes={"plan.parallel.tp": [1, 2, 4], "plan.parallel.dp": [1, 2, 4, 8]},
    ...                  where=["tp * dp <= 8"])
    >>> space.size
    9
    >>> space.sample(3, method="grid").points["plan.parallel.tp"].tolist()
    [1, 2, 4]
    """

    __slots__ = ("_core", "_points")

    @checked
    def __init__(
        self,
        *,
        model: Model,
        cluster: Cluster,
        workload: Workload,
        axes: Mapping[str, Sequence[Any]],
        where: Sequence[str] = (),
        plan: Aggregated | PD | AFD | None = None,
        framework: Names = None,
        frameworks: Names = None,
        quant: Quant | None = None,
        serving: Serving | None = None,
        assumptions: Assumptions | None = None,
    ) -> None:
        where = named("where", where, "'tp * dp <= 64'", "text")
        question: dict[str, Any] = {"model": model, "cluster": cluster, "workload": workload}
        question |= {"plan": plan or Aggregated(parallel=Parallel())}
        question |= {"quant": quant, "serving": serving, "assumptions": assumptions}
        lanes = several(framework, frameworks)
        if lanes is not None and "framework" in axes:
            raise SpecError([("axes.framework", "stands beside framework", "give one of them")])
        if lanes is not None and len(lanes) == 1:
            question["framework"] = lanes[0]
        elif lanes is not None:
            axes = {**axes, "framework": lanes}
        self._adopt(_core.DesignSpace.of(question, dict(axes), where), None)

    def _adopt(self, core: _core.DesignSpace, points: Points | None) -> None:
        self._core = core
        self._points = points

    def _part(self, points: Points) -> Space:
        part = Space.__new__(Space)
        part._adopt(self._core, points)
        return part

    @property
    def size(self) -> int:
        """Number of points that keep the constraints (of a sample or a slice: its own)."""
        return self._core.size if self._points is None else len(self._points)

    def __len__(self) -> int:
        """Give the number of points."""
        return self.size

    def _numbers(self, start: int = 0, stop: int | None = None) -> Points:
        """Numbers of the points from `start` to `stop` of this space or part."""
        stop = self.size if stop is None else stop
        if self._points is None:
            if stop - start > MOST_POINTS:
                message = f"{stop - start:,} points at once are more than {MOST_POINTS:,}"
                raise SpecError([("space", message, "take a slice or a sample of it")])
            return np.arange(start, stop, dtype=np.int64)
        return self._points[start:stop]

    @property
    def points(self) -> Frame:
        """The points as a Frame: their number and the value on every axis. For parts that fit in memory."""
        return Frame._from_core(self._core.values(self._numbers()))

    def sample(self, n: int, *, method: str = "grid", seed: int = 0) -> Space:
        """Choose `n` distinct points.

        Parameters
        ----------
        n
            How many; the whole space if it has no more.
        method
            ``"grid"`` (evenly spaced numbers), ``"lhs"`` (Latin hypercube) or ``"sobol"`` (scrambled).
        seed
            The same seed gives the same points.

        Returns
        -------
        Space
            The part, in rising order of numbers.

        Raises
        ------
        SpecError
            If the method is unknown or a number does not fit.
        """
        problems = [
            (name, f"{value!r} does not fit", "expected a whole number, 0 or more")
            for name, value in cast("dict[str, object]", {"n": n, "seed": seed}).items()
            if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 0
        ]
        if problems:
            raise SpecError(problems)
        if self._points is not None:
            raise SpecError([("space", "is a sample or a slice already", "sample the whole space")])
        n = min(int(n), self._core.size)
        if n > MOST_POINTS:
            raise SpecError([("n", f"{n:,} points at once are more than {MOST_POINTS:,}", "take fewer at a time")])
        return self._part(self._core.sample(n, method, int(seed)))

    def slice(self, a: int, b: int) -> Space:
        """Give the points from `a` up to, not including, `b` (a unit of work).

        Raises
        ------
        SpecError
            If that is not a range of this space.
        """
        if not 0 <= a <= b <= self.size:
            raise SpecError([("slice", f"{a} to {b} does not lie in 0 to {self.size}", "")])
        return self._part(self._numbers(a, b))

    def to_json(self) -> str:
        """Give the whole space as JSON text (of a sample or a slice: the space it is part of)."""
        return self._core.to_json()

    @classmethod
    def from_json(cls, text: str) -> Space:
        """Read a space back from the text that `to_json` gave.

        Raises
        ------
        SpecError
            If it is not the JSON of a space.
        """
        expect(text=(text, str))
        space = cls.__new__(cls)
        space._adopt(_core.DesignSpace(text), None)
        return space

    def __eq__(self, other: object) -> bool:
        """Compare by value."""
        if not isinstance(other, Space):
            return NotImplemented
        if self.to_json() != other.to_json() or self.size != other.size:
            return False
        return self._points is other._points or np.array_equal(self._numbers(), other._numbers())

    def __hash__(self) -> int:
        """Hash by value."""
        return hash(self.to_json())

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle by JSON, and the numbers of a part."""
        return _rebuild, (self.to_json(), self._points)

    def __repr__(self) -> str:
        """One line: the number of points, the axes, the constraints."""
        facts = json.loads(self.to_json())
        axes = ", ".join(f"{a['path']}: {len(a['values'])}" for a in facts["axes"])
        where = f", where={facts['where']}" if facts["where"] else ""
        return f"<Space of {self.size:,} points; {axes}{where}>"

    def _repr_html_(self) -> str:
        facts = json.loads(self.to_json())
        rows: list[list[str]] = [[a["path"], ", ".join(_short(v) for v in a["values"])] for a in facts["axes"]]
        return _html.table(f"Space of {self.size:,} points", [], rows + [["where", c] for c in facts["where"]])


def _rebuild(text: str, points: Points | None) -> Space:
    space = Space.from_json(text)
    return space if points is None else space._part(points)


def _short(value: Any) -> str:
    return str(value.get("name") or value.get("kind")) if isinstance(value, dict) else str(value)
