"""Explore how far disaggregation of LLM serving can go.

A design-space explorer for serving mixture-of-experts language models, priced from measured GPU
kernels: aggregated chunked prefill, prefill/decode disaggregation, attention-FFN disaggregation
(AFD) and their combinations.
"""

from __future__ import annotations

from disagg import plots
from disagg._versions import __version__, set_num_threads, show_versions
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
    Model,
    Parallel,
    Placement,
    Pool,
    Quant,
    Serving,
    Workers,
    Workload,
    models,
    systems,
    workloads,
)

__all__ = [
    "AFD",
    "PD",
    "SLO",
    "Aggregated",
    "Assumptions",
    "CancelledError",
    "Cluster",
    "DataError",
    "Device",
    "DisaggError",
    "Distribution",
    "Fabric",
    "Frame",
    "InfeasibleError",
    "InternalError",
    "MissingPackageError",
    "Model",
    "Parallel",
    "Placement",
    "Pool",
    "Problem",
    "Quant",
    "Serving",
    "SpecError",
    "Workers",
    "Workload",
    "__version__",
    "models",
    "plots",
    "set_num_threads",
    "show_versions",
    "systems",
    "workloads",
]
