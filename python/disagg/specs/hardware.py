"""Devices and how they are joined."""

from __future__ import annotations

from disagg import _core
from disagg.specs._base import told


@told(_core.preset_systems)
def systems() -> list[str]:
    return _core.preset_systems()


@told(_core.preset_devices)
def devices() -> list[str]:
    return _core.preset_devices()


class Device(_core.Device):  # noqa: D101 - as the native class says
    __slots__ = ()
    __doc__ = _core.Device.__doc__

    @classmethod
    @told(_core.preset_device)
    def preset(cls, system: str) -> Device:
        return _core.preset_device(system)


class Fabric(_core.Fabric):  # noqa: D101
    __slots__ = ()
    __doc__ = _core.Fabric.__doc__

    @classmethod
    @told(_core.preset_fabric)
    def preset(cls, system: str) -> Fabric:
        return _core.preset_fabric(system)


class Cluster(_core.Cluster):  # noqa: D101
    __slots__ = ()
    __doc__ = _core.Cluster.__doc__

    @property
    def nic_gb_per_s(self) -> float:
        """Scale-out bandwidth per GPU and direction, GB/s."""
        return self.fabric.nic_bytes_per_s / 1e9

    @property
    def oversubscription(self) -> float:
        """1: non-blocking; 2: half the bandwidth above the leaf."""
        return self.fabric.oversubscription
