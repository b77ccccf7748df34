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
    Device,
    Fabric,
    Parallel,
    Placement,
    Pool,
    Quant,
    Serving,
    Workers,
)

__all__ = [
    "AFD",
    "PD",
    "SLO",
    "Aggregated",
    "Assumptions",
    "CancelledError",
    "DataError",
    "Device",
    "DisaggError",
    "Fabric",
    "Frame",
    "InfeasibleError",
    "InternalError",
    "MissingPackageError",
    "Parallel",
    "Placement",
    "Pool",
    "Problem",
    "Quant",
    "Serving",
    "SpecError",
    "Workers",
    "__version__",
    "plots",
    "set_num_threads",
    "show_versions",
]
