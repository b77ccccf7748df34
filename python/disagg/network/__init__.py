"""The network by itself: how long communication takes, and what it is waiting for."""

from disagg.network._exchanges import collective, combine, dispatch
from disagg.network._flows import flows
from disagg.network._phase import Phase
from disagg.network._pools import a2f, f2a, kv_transfer

__all__ = ["Phase", "a2f", "collective", "combine", "dispatch", "f2a", "flows", "kv_transfer"]
