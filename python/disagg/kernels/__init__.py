"""Measured kernels: what there is, look-ups with evidence, imports, and the shipped pack.

Heavy packages (pyarrow, zstandard) are loaded by the functions that need them.
"""

from disagg.kernels.importer import KernelDataError
from disagg.kernels.query import (
    Latency,
    frameworks,
    import_dir,
    in_use,
    lookup,
    report,
    shipped,
    suspects,
    systems,
    table,
    tables,
    use,
)

__all__ = [
    "KernelDataError",
    "Latency",
    "frameworks",
    "import_dir",
    "in_use",
    "lookup",
    "report",
    "shipped",
    "suspects",
    "systems",
    "table",
    "tables",
    "use",
]
