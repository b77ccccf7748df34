"""Plots: functions from a `Frame` to matplotlib `Axes`, in one house style.

Every function takes ``ax=``, labels units, uses colours that colour-blind readers can tell apart,
says so when there is nothing to draw, and never calls ``plt.show()``.
"""

from disagg.plots.accuracy import accuracy
from disagg.plots.audit import audit
from disagg.plots.bars import breakdown, memory, pipeline
from disagg.plots.gantt import timeline
from disagg.plots.lines import pareto, ratio
from disagg.plots.regimes import regimes
from disagg.plots.requests import goodput, instances, latency
from disagg.plots.tornado import tornado

__all__ = [
    "accuracy",
    "audit",
    "breakdown",
    "goodput",
    "instances",
    "latency",
    "memory",
    "pareto",
    "pipeline",
    "ratio",
    "regimes",
    "timeline",
    "tornado",
]
