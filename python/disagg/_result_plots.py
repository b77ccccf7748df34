"""Plots of an estimate and of a study."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from disagg import plots
from disagg.plots._owned import Plots, drawn
from disagg.sensitivity import sensitivity

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from disagg.specs import Assumptions


class EstimatePlots(Plots):
    """Plots of one estimate."""

    breakdown = drawn(plots.breakdown, "breakdown")
    pipeline = drawn(plots.timeline, "timeline")
    memory = drawn(plots.memory, "memory")

    def sensitivity(
        self,
        *,
        metric: str = "tpot_ms",
        parameters: Sequence[str] | None = None,
        step: float = 0.1,
        ax: Axes | None = None,
    ) -> Axes:
        """Draw what moves a metric when one figure is varied at a time (``dg.sensitivity``), the widest on top."""
        return plots.tornado(sensitivity(self._of, parameters=parameters, step=step), metric=metric, ax=ax)


class StudyPlots(Plots):
    """Plots of a study; ``breakdown`` and ``memory`` are of the best plan of each level."""

    pareto = drawn(plots.pareto, "points")
    ratio = drawn(plots.ratio, "points")
    breakdown = drawn(plots.breakdown, "estimates")
    memory = drawn(plots.memory, "estimates")

    def audit(self, *, to: Assumptions | None = None, level: str | None = None, ax: Axes | None = None) -> Axes:
        """Walk to other assumptions (None: the paper's) and draw what each switch does."""
        return plots.audit(self._of.audit(to), level=level, ax=ax)
