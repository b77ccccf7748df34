"""Devices and how they are joined."""

from __future__ import annotations

from disagg.specs._base import Field, Spec


class Device(Spec):
    """One GPU: peaks, capacities and costs. Per GPU, SI units.

    Parameters
    ----------
    name, source
        What it is, and where the figures come from.
    bf16_flops, fp8_flops, fp4_flops
        Dense peak, FLOP/s; 0: no such units.
    hbm_bytes_per_s, hbm_bytes
        Memory bandwidth and capacity.
    launch_s
        Least time of one kernel launch under a CUDA graph, seconds.
    power_w
        Board power, watts.
    usd_per_hour
        Price of one GPU-hour, US dollars.
    sm
        Compute capability (90 Hopper, 100 Blackwell).
    """

    name: Field[str] = Field("What it is.")
    source: Field[str] = Field("Where the figures come from.")
    bf16_flops: Field[float] = Field("Dense BF16 peak, FLOP/s.")
    fp8_flops: Field[float] = Field("Dense FP8 peak, FLOP/s.")
    fp4_flops: Field[float] = Field("Dense FP4 peak, FLOP/s; 0: none.")
    hbm_bytes_per_s: Field[float] = Field("Memory bandwidth, bytes/s.")
    hbm_bytes: Field[float] = Field("Memory capacity, bytes.")
    launch_s: Field[float] = Field("Least time of a kernel launch under a CUDA graph, seconds.")
    power_w: Field[float] = Field("Board power, watts.")
    usd_per_hour: Field[float] = Field("Price of one GPU-hour, US dollars.")
    sm: Field[int] = Field("Compute capability (90 Hopper, 100 Blackwell).")

    def __init__(
        self,
        *,
        name: str,
        bf16_flops: float,
        fp8_flops: float,
        hbm_bytes_per_s: float,
        hbm_bytes: float,
        sm: int,
        fp4_flops: float = 0.0,
        launch_s: float = 2e-6,
        power_w: float = 1000.0,
        usd_per_hour: float = 0.0,
        source: str = "user",
    ) -> None:
        self._build(
            name=name,
            source=source,
            bf16_flops=bf16_flops,
            fp8_flops=fp8_flops,
            fp4_flops=fp4_flops,
            hbm_bytes_per_s=hbm_bytes_per_s,
            hbm_bytes=hbm_bytes,
            launch_s=launch_s,
            power_w=power_w,
            usd_per_hour=usd_per_hour,
            sm=sm,
        )


class Fabric(Spec):
    """How GPUs are joined. Bandwidths per GPU and direction, bytes/s.

    Parameters
    ----------
    domain_gpus
        GPUs in one scale-up (NVLink) domain.
    node_gpus
        GPUs in one host.
    nvlink_bytes_per_s, nic_bytes_per_s
        Scale-up and scale-out bandwidth.
    oversubscription
        1: non-blocking; 2: half the bandwidth above the leaf.
    source
        Where the figures come from.
    """

    domain_gpus: Field[int] = Field("GPUs in one scale-up (NVLink) domain.")
    node_gpus: Field[int] = Field("GPUs in one host.")
    nvlink_bytes_per_s: Field[float] = Field("Scale-up bandwidth, bytes/s.")
    nic_bytes_per_s: Field[float] = Field("Scale-out bandwidth, bytes/s.")
    oversubscription: Field[float] = Field("1: non-blocking; 2: half the bandwidth above the leaf.")
    source: Field[str] = Field("Where the figures come from.")

    def __init__(
        self,
        *,
        domain_gpus: int,
        node_gpus: int,
        nvlink_bytes_per_s: float,
        nic_bytes_per_s: float,
        oversubscription: float = 1.0,
        source: str = "user",
    ) -> None:
        self._build(
            domain_gpus=domain_gpus,
            node_gpus=node_gpus,
            nvlink_bytes_per_s=nvlink_bytes_per_s,
            nic_bytes_per_s=nic_bytes_per_s,
            oversubscription=oversubscription,
            source=source,
        )
