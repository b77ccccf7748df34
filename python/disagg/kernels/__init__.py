"""Measured kernels: reading tables of measurements and building the compact pack that is shipped.

Only names are imported here; pyarrow and zstandard are loaded by the functions that need them.
"""

from .importer import KernelDataError, import_dir

__all__ = ["KernelDataError", "import_dir"]
