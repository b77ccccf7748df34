"""Specs: plain, frozen data that say what is to be served, on what, and how."""

from disagg.specs.hardware import Device, Fabric
from disagg.specs.plan import AFD, PD, Aggregated, Parallel, Placement, Pool, Workers
from disagg.specs.serving import SLO, Assumptions, Quant, Serving

__all__ = [
    "AFD",
    "PD",
    "SLO",
    "Aggregated",
    "Assumptions",
    "Device",
    "Fabric",
    "Parallel",
    "Placement",
    "Pool",
    "Quant",
    "Serving",
    "Workers",
]
