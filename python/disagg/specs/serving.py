"""How the engine serves, what it must keep, and which modelling choices are made."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal, NoReturn

from disagg import _core
from disagg._core import SLO, Quant, Serving
from disagg.frame import Frame
from disagg.specs._base import checked

__all__ = ["SLO", "Assumptions", "Dtype", "Fixed", "Quant", "Serving"]

Dtype = Literal["bfloat16", "fp8", "fp8_block", "nvfp4", "int4_wo", "w4a16_mxfp4", "w4a8_mxfp4_mxfp8", "w4a16_nvfp4"]


class Assumptions(_core.Assumptions):  # noqa: D101 - as the native class says
    __slots__ = ()
    __doc__ = _core.Assumptions.__doc__

    def __getattr__(self, name: str) -> NoReturn:
        """Refuse what no switch is called."""
        raise AttributeError(f"Assumptions has no switch '{name}'")

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

    def switches(self) -> Frame:
        """Give every switch: name, value, allowed values, meaning, source."""
        rows = _core.switches(self)
        return Frame({key: [str(r[key]) for r in rows] for key in ("name", "value", "allowed", "meaning", "source")})

    @checked
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
        mine, theirs = self.switches(), other.switches()
        differ = mine["value"] != theirs["value"]
        names, this = (mine[n][differ] for n in ("name", "value"))
        return Frame({"name": names, "this": this, "other": theirs["value"][differ]})


@dataclass(frozen=True, kw_only=True, slots=True)
class Fixed:
    """Fixed times, for oracles: a step costs `prefill_ms` if it has prompt tokens, plus `decode_ms` if it decodes.

    KV from prefill to decode takes `kv_ms` and `kv_us_per_token` for each new token of the prompt, one request
    at a time on the links of either rank.

    Examples
    --------
    >>> import disagg as dg
    >>> dg.Fixed(prefill_ms=20, decode_ms=10)
    Fixed(prefill_ms=20.0, decode_ms=10.0, kv_ms=0.0, kv_us_per_token=0.0)
    """

    prefill_ms: float
    decode_ms: float
    kv_ms: float = 0.0
    kv_us_per_token: float = 0.0

    def __post_init__(self) -> None:
        """Take whole numbers as well."""
        for name, value in asdict(self).items():
            object.__setattr__(self, name, float(value))


Fixed.__init__ = checked(Fixed.__init__)  # type: ignore[method-assign]
