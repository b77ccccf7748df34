"""Plots of an estimate and of a study."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from disagg import plots
from disagg.sensitivity import sensitivity

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from disagg.result import Estimate
    from disagg.specs import Assumptions
    from disagg.study import Study


class EstimatePlots:
    """Plots of one estimate."""

    def __init__(self, estimate: Estimate) -> None:
        self._estimate = estimate

    def breakdown(self, *, part: str = "op", ax: Axes | None = None) -> Axes:
        """Draw where each millisecond goes; `part` is ``"op"`` or ``"evidence"``."""
        return plots.breakdown(self._estimate.breakdown, part=part, ax=ax)

    def pipeline(self, *, phase: str | None = None, ax: Axes | None = None) -> Axes:
        """Draw who is busy when in the micro-batch pipeline, in microseconds; ``phase``: decode, mixed or prefill."""
        return plots.timeline(self._estimate.timeline, phase=phase, ax=ax)

    def memory(self, *, ax: Axes | None = None) -> Axes:
        """Draw what fills each GPU."""
        return plots.memory(self._estimate.memory, ax=ax)

    def sensitivity(
        self,
        *,
        metric: str = "tpot_ms",
        parameters: Sequence[str] | None = None,
        step: float = 0.1,
        ax: Axes | None = None,
    ) -> Axes:
        """Draw what moves a metric when one figure is varied at a time (``dg.sensitivity``), the widest on top."""
        return plots.tornado(sensitivity(self._estimate, parameters=parameters, step=step), metric=metric, ax=ax)


class StudyPlots:
    """Plots of a study."""

    def __init__(self, study: Study) -> None:
        self._study = study

    def pareto(
        self, *, x: str = "tokens_per_s_per_user", y: str = "tokens_per_s_per_gpu", ax: Axes | None = None
    ) -> Axes:
        """Draw every feasible point and the frontier of each level."""
        return plots.pareto(self._study.points, x=x, y=y, ax=ax)

    def breakdown(self, *, part: str = "op", ax: Axes | None = None) -> Axes:
        """Draw where time goes in the best plan of each level."""
        return plots.breakdown(self._study.estimates, part=part, ax=ax)

    def ratio(self, *, y: str = "tokens_per_s", ax: Axes | None = None) -> Axes:
        """Draw throughput against the attention share of the AFD plans."""
        return plots.ratio(self._study.points, y=y, ax=ax)

    def memory(self, *, ax: Axes | None = None) -> Axes:
        """Draw what fills each GPU in the best plan of each level."""
        return plots.memory(self._study.estimates, ax=ax)

    def audit(self, *, to: Assumptions | None = None, level: str | None = None, ax: Axes | None = None) -> Axes:
        """Walk to other assumptions (None: the paper's) and draw what each switch does."""
        return plots.audit(self._study.audit(to), level=level, ax=ax)
