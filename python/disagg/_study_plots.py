"""Plots of a study."""

from __future__ import annotations

from typing import TYPE_CHECKING

from disagg import plots

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from disagg.specs import Assumptions
    from disagg.study import Study


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
