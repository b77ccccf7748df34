"""Explore how far disaggregation of LLM serving can go.

A design-space explorer for serving mixture-of-experts language models, priced from measured GPU
kernels: aggregated chunked prefill, prefill/decode disaggregation, attention-FFN disaggregation
(AFD) and their combinations.
"""

from __future__ import annotations

# fmt: off
from disagg._serve import estimate, explore
from disagg._versions import __version__, set_num_threads, show_versions
from disagg.calibrate import calibrate
from disagg.case import Case
from disagg.errors import (
    CancelledError,
    DataError,
    DisaggError,
    InfeasibleError,
    InternalError,
    MissingPackageError,
    Problem,
    SpecError,
)
from disagg.frame import Frame
from disagg.launch import Launch
from disagg.optimize import optimize
from disagg.optimum import Optimum
from disagg.regimes import regimes
from disagg.result import Estimate, Step
from disagg.run import Run, compare_runs
from disagg.sensitivity import sensitivity
from disagg.simulate import goodput_curve, simulate
from disagg.space import Space
from disagg.specs import (
    AFD,
    PD,
    SLO,
    Aggregated,
    Assumptions,
    Cluster,
    Device,
    Distribution,
    Fabric,
    Fixed,
    Model,
    Parallel,
    Placement,
    Pool,
    Quant,
    Serving,
    Workers,
    Workload,
    devices,
    models,
    systems,
    workloads,
)
from disagg.study import LEVELS, Study
from disagg.sweep import sweep
from disagg.trace import Trace
from disagg.verdict import Verdict

from disagg import _border, afd, kernels, network, plots, rules, validation  # isort: skip

__all__ = [
    "AFD", "LEVELS", "PD", "SLO", "Aggregated", "Assumptions", "CancelledError", "Case", "Cluster", "DataError",
    "Device", "DisaggError", "Distribution", "Estimate", "Fabric", "Fixed", "Frame", "InfeasibleError", "InternalError",
    "Launch", "MissingPackageError", "Model", "Optimum", "Parallel", "Placement", "Pool", "Problem", "Quant", "Run",
    "Serving", "Space", "SpecError", "Step", "Study", "Trace", "Verdict", "Workers", "Workload", "__version__", "afd",
    "calibrate", "compare_runs", "devices", "estimate", "explore", "goodput_curve", "kernels", "models", "network",
    "optimize", "plots", "regimes", "rules", "sensitivity", "set_num_threads", "show_versions", "simulate", "sweep",
    "systems", "validation", "workloads",
]

_border.seal(globals(), __all__)
_border.hint(Estimate=Estimate, Frame=Frame, Launch=Launch, Runnable=rules.Runnable, Study=Study, Trace=Trace)
