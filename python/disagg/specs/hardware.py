"""Devices and how they are joined."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self, cast

from disagg import _core
from disagg.specs._base import checked, constructor, expect


def systems() -> list[str]:
    """List the system presets: the machines whose kernels were measured.

    Examples
    --------
    >>> import disagg as dg
    >>> "b200_sxm" in dg.systems()
    True
    """
    return _core.presets("systems")


class Device(_core.Device):  # noqa: D101 - as the native class says
    __slots__ = ()
    __doc__ = _core.Device.__doc__

    @classmethod
    @checked
    def preset(cls, system: str) -> Device:
        """Give the device of a system preset, with its sources.

        Raises
        ------
        SpecError
            If there is no such system; near names are listed.
        """
        expect(system=(system, str))
        return _core.preset("Device", system)

    def _call(self) -> tuple[str, list[tuple[str, str]]]:
        return _as_preset(self, self.name) or super()._call()


class Fabric(_core.Fabric):  # noqa: D101
    __slots__ = ()
    __doc__ = _core.Fabric.__doc__

    @classmethod
    @checked
    def preset(cls, system: str) -> Fabric:
        """Give the fabric of a system preset, with its sources.

        Raises
        ------
        SpecError
            If there is no such system; near names are listed.
        """
        expect(system=(system, str))
        return _core.preset("Fabric", system)


class Cluster(_core.Cluster):
    """GPUs of one kind and their fabric.

    Parameters
    ----------
    system
        A system preset: its kernel tables, device and fabric are used.
    gpus
        The GPU budget.
    nic_gb_per_s
        Scale-out bandwidth per GPU and direction, GB/s (50 is 400 Gb/s); None: the preset's.
    oversubscription
        1: non-blocking; 2: half the bandwidth above the leaf.
    device, fabric
        What-if hardware in place of the preset's. A device keeps the kernel tables of `system`, its times scaled by the
        ratio of the two rooflines (evidence ``scaled``), whatever it is called; only one that goes by another
        preset's name reads that preset's tables. Estimates and studies say so in their ``warnings``. Choose the
        system whose utilisations are most alike. A fabric may be a dict of the fields that differ, with
        bandwidths as ``nvlink_gb_per_s`` and ``nic_gb_per_s`` (GB/s per GPU and direction) if you like.

    Raises
    ------
    SpecError
        If the system is unknown or a figure does not fit.

    Examples
    --------
    >>> import disagg as dg
    >>> dg.Cluster("b200_sxm", gpus=128)
    Cluster('b200_sxm', gpus=128, nic_gb_per_s=50.0, oversubscription=1.0)
    >>> pods = dg.Cluster("b200_sxm", gpus=128, fabric={"domain_gpus": 32, "nic_gb_per_s": 100})
    >>> pods.fabric.domain_gpus, pods.fabric.node_gpus, pods.nic_gb_per_s
    (32, 8, 100.0)
    """

    __slots__ = ()

    @constructor
    def __new__(
        cls,
        system: str,
        *,
        gpus: int,
        nic_gb_per_s: float | None = None,
        oversubscription: float = 1.0,
        device: Device | None = None,
        fabric: Fabric | Mapping[str, Any] | None = None,
    ) -> Self:
        """Build on the preset of the system."""
        fields = {
            "system": system,
            "gpus": gpus,
            "nic_gb_per_s": nic_gb_per_s,
            "oversubscription": oversubscription,
            "device": device,
            "fabric": fabric,
        }
        return super().__new__(cls, _core.cluster(fields))

    @property
    def nic_gb_per_s(self) -> float:
        """Scale-out bandwidth per GPU and direction, GB/s."""
        return self.fabric.nic_bytes_per_s / 1e9

    @property
    def oversubscription(self) -> float:
        """1: non-blocking; 2: half the bandwidth above the leaf."""
        return self.fabric.oversubscription

    def _args(self) -> dict[str, Any]:
        args: dict[str, Any] = {
            "system": self.system,
            "gpus": self.gpus,
            "nic_gb_per_s": self.nic_gb_per_s,
            "oversubscription": self.oversubscription,
        }
        if self.device != Device.preset(self.system):
            args["device"] = self.device
        if Cluster(**args).fabric != self.fabric:
            args["fabric"] = self.fabric
        return args

    def replace(self, **changes: Any) -> Cluster:
        """Give a copy with some arguments changed; another `system` brings its own device and fabric.

        Raises
        ------
        SpecError
            If an argument is unknown or its value does not fit.
        """
        args = self._args()
        if "fabric" in changes or "system" in changes:
            # Figures of the old fabric do not carry over unless they were asked for again.
            args = {"system": args["system"], "gpus": args["gpus"]}
        elif "fabric" in args and {"nic_gb_per_s", "oversubscription"} & set(changes):
            args = {k: v for k, v in args.items() if k not in ("nic_gb_per_s", "oversubscription")}
        return Cluster(**{**args, **changes})

    def _call(self) -> tuple[str, list[tuple[str, str]]]:
        (_, system), *rest = [(n, repr(v)) for n, v in self._args().items()]
        return "Cluster", [("", system), *rest]


def _as_preset(spec: Device, name: str) -> tuple[str, list[tuple[str, str]]] | None:
    """Say a device as a preset and what differs from it, when it goes by a preset's name."""
    if name not in systems():
        return None
    base = Device.preset(name)
    changed = [(n, repr(v)) for n, v in spec._args().items() if v != cast("Any", getattr(base, n))]
    call = f"Device.preset({name!r})"
    return (f"{call}.replace", changed) if changed else ("Device.preset", [("", repr(name))])
