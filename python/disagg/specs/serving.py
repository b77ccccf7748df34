"""How the engine serves, what it must keep, and which modelling choices are made."""

from __future__ import annotations

from typing import Any, Literal, NoReturn, Self

from disagg import _core
from disagg._core import SLO, Quant, Serving
from disagg.frame import Frame
from disagg.specs._base import constructor, expect

__all__ = ["SLO", "Assumptions", "Dtype", "Quant", "Serving"]

Dtype = Literal["bfloat16", "fp8", "fp8_block", "nvfp4", "int4_wo", "w4a16_mxfp4", "w4a8_mxfp4_mxfp8", "w4a16_nvfp4"]


class Assumptions(_core.Assumptions):
    """Modelling choices that published tools make differently, each a named switch.

    Start from a profile and replace single switches.

    Examples
    --------
    >>> import disagg as dg
    >>> dg.Assumptions.physical().replace(kv_transfer="bulk")
    Assumptions.physical().replace(kv_transfer='bulk')
    """

    __slots__ = ()

    @constructor
    def __new__(cls, profile: str = "physical", **switches: Any) -> Self:
        """Change switches of a profile."""
        expect(profile=(profile, str))
        return super().__new__(cls, _core.assumptions(profile, switches))

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
        rows = _core.switches(self)
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
        return {r["name"]: r["value"] for r in _core.switches(self)}

    def _call(self) -> tuple[str, list[tuple[str, str]]]:
        profile = str(self.profile).rstrip("*")
        base = Assumptions(profile)._values()
        changed = [(n, repr(v)) for n, v in self._values().items() if v != base[n]]
        name = f"Assumptions.{profile.removesuffix('-0.12')}()"
        return (f"{name}.replace" if changed else name.removesuffix("()")), changed
