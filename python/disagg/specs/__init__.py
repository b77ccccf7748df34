"""Specs: plain, frozen data that say what is to be served, on what, and how."""

from disagg import _core
from disagg.specs.hardware import Cluster, Device, Fabric, devices, systems
from disagg.specs.model import Model, models
from disagg.specs.plan import AFD, PD, Aggregated, Parallel, Placement, Pool, Workers
from disagg.specs.serving import SLO, Assumptions, Fixed, Quant, Serving
from disagg.specs.workload import Distribution, Workload, workloads

__all__ = [
    "AFD",
    "PARTS",
    "PD",
    "SLO",
    "Aggregated",
    "Assumptions",
    "Cluster",
    "Device",
    "Distribution",
    "Fabric",
    "Fixed",
    "Model",
    "Parallel",
    "Placement",
    "Pool",
    "Quant",
    "Serving",
    "Workers",
    "Workload",
    "devices",
    "models",
    "systems",
    "workloads",
]

PARTS: dict[str, type[_core.Spec]] = {
    "model": Model,
    "cluster": Cluster,
    "workload": Workload,
    "quant": Quant,
    "serving": Serving,
    "assumptions": Assumptions,
}
"""What a question is about beside its plan."""
