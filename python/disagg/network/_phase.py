"""Phase: one stretch of communication; and the question that the native core answers with one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from disagg import _core, _html
from disagg._frozen import Frozen
from disagg.errors import Problem, SpecError
from disagg.frame import Frame
from disagg.specs import Cluster


class Phase(Frozen):
    """One phase of communication: how long, how known, and what it waits for. Frozen.

    Attributes
    ----------
    ms
        Time of the phase, milliseconds: the one that estimates use.
    alpha_ms
        Start-up of the kernel in it (its time for the smallest message).
    ports
        A Frame: ``port`` (``nvlink_out``, ``nic_in`` ...), ``side``, ``bytes`` through the busiest GPU's
        port, its ``gb_per_s`` and the ``ms`` they would take at the wire rate.
    bound
        The port that takes longest, or ``"alpha"`` where the start-up is more than half.
    evidence
        ``"measured"``, ``"interpolated"``, ``"extrapolated"`` or ``"roofline"``.
    kernel, tier
        Which kernel, and which tier it crosses: ``"scale-up"``, ``"scale-out"`` or ``"both"``.
    """

    __slots__ = ("alpha_ms", "bound", "evidence", "kernel", "ms", "ports", "tier", "what")

    ms: float
    alpha_ms: float
    ports: Frame
    bound: str
    evidence: str
    kernel: str
    tier: str
    what: str

    def __init__(self, *, what: str, ports: Frame, **facts: Any) -> None:
        self._set(what=what, ports=ports, **facts)

    def _facts(self) -> dict[str, Any]:
        return {n: getattr(self, n) for n in ("ms", "alpha_ms", "bound", "evidence", "kernel", "tier")}

    def __eq__(self, other: object) -> bool:
        """Compare by value."""
        if not isinstance(other, Phase):
            return NotImplemented
        return (self.what, self._facts(), self.ports) == (other.what, other._facts(), other.ports)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        """One line."""
        return (
            f"<{self.what} {self.ms * 1e3:.1f} us ({self.alpha_ms * 1e3:.1f} us start-up), {self.kernel}, "
            f"{self.tier}, bound by {self.bound}, {self.evidence}>"
        )

    def _repr_html_(self) -> str:
        rows = [[n, f"{v:.6g}" if isinstance(v, float) else str(v)] for n, v in self._facts().items()]
        rows += [[f"{p['side']} {p['port']}", f"{p['bytes']:.4g} B, {p['ms'] * 1e3:.1f} us"] for p in self.ports.rows()]
        return _html.table(self.what, [], rows)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle by value."""
        return _phase_of, (self.what, self.ports, self._facts())


def _phase_of(what: str, ports: Frame, facts: dict[str, Any]) -> Phase:
    return Phase(what=what, ports=ports, **facts)


def ask(cluster: Cluster, what: str, framework: str | None, alpha_scale: float, args: dict[str, Any]) -> Phase:
    problems = []
    for name, value in args.items():
        plain = value.tolist() if isinstance(value, np.ndarray | np.generic) else value
        args[name] = list(plain) if isinstance(plain, Sequence) and not isinstance(plain, str) else plain
        if isinstance(plain, float) and not np.isfinite(plain):
            problems.append(Problem(name, f"cannot be {plain}", "a finite number"))
    if problems:
        raise SpecError(problems)
    try:
        text = json.dumps(args, allow_nan=False)
    except (TypeError, ValueError) as e:
        raise SpecError([Problem(what, f"takes plain numbers and names: {e}", "")]) from e
    scalars, ports = _core.network_phase(cluster, what, text, framework, float(alpha_scale))
    return Phase(what=what, ports=Frame._from_core(ports), **json.loads(scalars))
