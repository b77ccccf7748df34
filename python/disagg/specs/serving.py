"""How the engine serves, what it must keep, and which modelling choices are made."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from disagg import _core
from disagg.frame import Frame
from disagg.specs._base import Field, Spec, expect

Dtype = Literal["bfloat16", "fp8", "fp8_block", "nvfp4", "int4_wo", "w4a16_mxfp4", "w4a8_mxfp4_mxfp8"]


class SLO(Spec):
    """Per-user latency limits; None means no limit.

    Parameters
    ----------
    ttft_ms
        Time to first token, milliseconds.
    tpot_ms
        Time per output token after the first, milliseconds.
    percentile
        Which percentile of requests must keep them (50 to 99.9): in the simulator and with ``arrivals="poisson"``; a
        closed loop has means alone and refuses it. None: the mean.

    Examples
    --------
    >>> import disagg as dg
    >>> dg.SLO(ttft_ms=50, tpot_ms=15)
    SLO(ttft_ms=50.0, tpot_ms=15.0)
    """

    ttft_ms: Field[float | None] = Field("Time to first token, milliseconds; None: no limit.")
    tpot_ms: Field[float | None] = Field("Time per output token, milliseconds; None: no limit.")
    percentile: Field[float | None] = Field("Percentile that must keep the limits; None: the mean.")

    def __init__(
        self, *, ttft_ms: float | None = None, tpot_ms: float | None = None, percentile: float | None = None
    ) -> None:
        self._build(ttft_ms=ttft_ms, tpot_ms=tpot_ms, percentile=percentile)


class Quant(Spec, hashable=True):
    """Number formats; None means as the checkpoint says.

    Parameters
    ----------
    gemm, moe
        Format of dense and expert weights.
    attention
        Format of the attention arithmetic.
    kv
        Format of the KV cache.
    comm
        Payload of dispatch and A2F (combine and F2A go back in BF16).

    Examples
    --------
    >>> import disagg as dg
    >>> dg.Quant(moe="nvfp4", kv="fp8")
    Quant(moe='nvfp4', kv='fp8')
    """

    gemm: Field[str | None] = Field("Format of dense weights.")
    moe: Field[str | None] = Field("Format of expert weights.")
    attention: Field[str | None] = Field("Format of the attention arithmetic.")
    kv: Field[str | None] = Field("Format of the KV cache.")
    comm: Field[str | None] = Field("Payload of dispatch and A2F.")

    def __init__(
        self,
        *,
        gemm: Dtype | None = None,
        moe: Dtype | None = None,
        attention: Dtype | None = None,
        kv: Dtype | None = None,
        comm: Dtype | None = None,
    ) -> None:
        self._build(gemm=gemm, moe=moe, attention=attention, kv=kv, comm=comm)


class Serving(Spec):
    """How the engine serves: speculation, balance, overlap, launch mode.

    Parameters
    ----------
    mtp
        Draft tokens per step.
    acceptance
        Mean accepted draft tokens per step, 0 to `mtp`; required when ``mtp > 0``.
    imbalance
        How uneven the experts' load is: a measured distribution (``"power_law_1.01"``, ``"balanced"`` ...), the
        exponent of a power law, or the load of every expert; None: the model's.
    eplb_slots
        Redundant expert slots, filled with copies of the busiest experts; their weights are charged.
    two_batch_overlap
        Whether two half batches overlap compute and communication. True: wherever that is faster; False: nowhere;
        None: in a plan that says so, and in a search where the framework has it. The micro-batches of AFD do so anyway.
    fused_dispatch
        Whether dispatch, expert GEMMs and combine are one kernel, as DeepGEMM's MegaMoE; for AFD units.
    launch
        ``"graph"`` or ``"measured"`` launch floors; None: graph for decode, measured for prefill.
    framework_reserve_gib
        More memory to keep free on every GPU, GiB. None: nothing in the physical profile, whose servers leave a
        part of the device alone anyway (`memory_fraction`); 3.5 in the published profiles, which keep that instead.
    memory_fraction
        Share of a device's capacity that the server may fill, above 0 and at most 1, as its framework counts it:
        vLLM's ``gpu_memory_utilization``, SGLang's ``mem_fraction_static``, TensorRT-LLM's
        ``free_gpu_memory_fraction``. None: the framework's own, of the version whose kernels are used; that
        fraction given by hand means the same. Any other may be of any version: the one whose start takes most memory
        is assumed, so that vLLM at 0.93 (older versions keep graphs and a larger sampler outside) may have less room
        than at its default of 0.92. Physical profile only.
    prefill_interval
        Prompts join every n-th step at most, where ranks of attention data parallelism wait for one another (vLLM's
        ``--prefill-schedule-interval``, the ADP balance of TensorRT-LLM, SGLang's prefill delayer); None: the
        framework's own.

    Examples
    --------
    >>> import disagg as dg
    >>> dg.Serving(mtp=1, acceptance=0.8).acceptance
    0.8
    """

    mtp: Field[int] = Field("Draft tokens per step.")
    acceptance: Field[float | None] = Field("Mean accepted draft tokens per step.")
    imbalance: Field[str | float | list[float] | None] = Field("How uneven the experts' load is; None: the model's.")
    eplb_slots: Field[int] = Field("Redundant expert slots.")
    two_batch_overlap: Field[bool | None] = Field("Whether two half batches may overlap; None: where a plan says so.")
    fused_dispatch: Field[bool] = Field("Whether dispatch, expert GEMMs and combine are one kernel (AFD).")
    launch: Field[str | None] = Field("'graph' or 'measured'; None: graph for decode, measured for prefill.")
    framework_reserve_gib: Field[float | None] = Field("More memory to keep free, GiB per GPU; None: the profile's.")
    memory_fraction: Field[float | None] = Field("Share of the device that the server fills; None: the framework's.")
    prefill_interval: Field[int | None] = Field("Prompt tokens join every n-th step; None: the framework's.")

    def __init__(
        self,
        *,
        mtp: int = 0,
        acceptance: float | None = None,
        imbalance: str | float | Sequence[float] | None = None,
        eplb_slots: int = 0,
        two_batch_overlap: bool | None = None,
        fused_dispatch: bool = False,
        launch: Literal["graph", "measured"] | None = None,
        framework_reserve_gib: float | None = None,
        memory_fraction: float | None = None,
        prefill_interval: int | None = None,
    ) -> None:
        self._build(
            mtp=mtp,
            acceptance=acceptance,
            imbalance=list(imbalance) if isinstance(imbalance, (tuple, list)) else imbalance,
            eplb_slots=eplb_slots,
            two_batch_overlap=two_batch_overlap,
            fused_dispatch=fused_dispatch,
            launch=launch,
            framework_reserve_gib=framework_reserve_gib,
            memory_fraction=memory_fraction,
            prefill_interval=prefill_interval,
        )


class Assumptions(Spec):
    """Modelling choices that published tools make differently, each a named switch.

    Start from a profile and replace single switches.

    Examples
    --------
    >>> import disagg as dg
    >>> dg.Assumptions.physical().replace(kv_transfer="bulk")
    Assumptions.physical().replace(kv_transfer='bulk')
    """

    def __init__(self, profile: str = "physical", **switches: Any) -> None:
        expect(profile=(profile, str))
        self._adopt(_core.assumptions(profile, switches))

    def __getattr__(self, name: str) -> Any:
        """Read a switch."""
        if name.startswith("_") or name not in (known := self.to_dict()):
            raise AttributeError(f"Assumptions has no switch '{name}'")
        return known[name]

    def __dir__(self) -> list[str]:
        """List the switches too."""
        return [*super().__dir__(), *self.to_dict()]

    @classmethod
    def physical(cls) -> Assumptions:
        """Give the default profile: what the physics says."""
        return cls("physical")

    @classmethod
    def paper(cls) -> Assumptions:
        """Give what the public code behind arXiv 2605.28302 does.

        Examples
        --------
        >>> import disagg as dg
        >>> dg.Assumptions.paper().kv_transfer
        'ignored'
        """
        return cls("paper")

    @classmethod
    def aiconfigurator(cls) -> Assumptions:
        """Give what aiconfigurator 0.12 does, as far as switches go.

        Examples
        --------
        >>> import disagg as dg
        >>> dg.Assumptions.aiconfigurator().profile
        'aiconfigurator-0.12'
        """
        return cls("aiconfigurator-0.12")

    def replace(self, **changes: Any) -> Assumptions:
        """Give a copy with some switches changed.

        Raises
        ------
        SpecError
            If a switch is unknown or its value does not fit.
        """
        return Assumptions(self.profile, **{**self._values(), **changes})

    def switches(self) -> Frame:
        """Give every switch: name, value, allowed values, meaning, source."""
        rows = _core.switches(self._raw)
        return Frame({key: [str(r[key]) for r in rows] for key in ("name", "value", "allowed", "meaning", "source")})

    def diff(self, other: Assumptions) -> Frame:
        """Give the switches that differ, with both values.

        Examples
        --------
        >>> import disagg as dg
        >>> a = dg.Assumptions.physical()
        >>> print(a.diff(a.replace(kv_transfer="bulk")))
               name        this  other
        kv_transfer  layer-wise   bulk
        """
        expect(other=(other, Assumptions))
        mine, theirs = self._values(), other._values()
        names = [n for n in mine if mine[n] != theirs[n]]
        return Frame({"name": names, "this": [str(mine[n]) for n in names], "other": [str(theirs[n]) for n in names]})

    def _args(self) -> dict[str, Any]:
        return {"profile": self.profile, **self._values()}

    def _values(self) -> dict[str, Any]:
        return {r["name"]: r["value"] for r in _core.switches(self._raw)}

    def _call(self) -> tuple[str, list[tuple[str, str]]]:
        profile = str(self.profile).rstrip("*")
        base = Assumptions(profile)._values()
        changed = [(n, repr(v)) for n, v in self._values().items() if v != base[n]]
        name = f"Assumptions.{profile.removesuffix('-0.12')}()"
        return (f"{name}.replace" if changed else name.removesuffix("()")), changed
