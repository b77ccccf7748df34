"""Phase: one stretch of communication; and the question that the native core answers with one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from disagg import _core, _html
from disagg._result_base import Fact, Result, Table, number
from disagg.errors import Problem, SpecError
from disagg.frame import Frame
from disagg.specs import Cluster


class Phase(Result):
    """One phase of communication: how long, how known, and what it waits for."""

    what = Fact(str, "What it is a phase of: ``dispatch``, ``a2f`` ...")
    ms = Fact(number, "Time of the phase, milliseconds: the one that estimates use.")
    alpha_ms = Fact(number, "Start-up of the kernel in it (its time for the smallest message), milliseconds.")
    bound = Fact(str, "The port that takes longest, or ``alpha`` where the start-up is more than half.")
    evidence = Fact(str, "``measured``, ``interpolated``, ``extrapolated`` or ``roofline``.")
    kernel = Fact(str, "Which kernel.")
    tier = Fact(str, "Which tier it crosses: ``scale-up``, ``scale-out`` or ``both``.")
    ports = Table(
        "``port`` (``nvlink_out``, ``nic_in`` ...), ``side``, ``bytes`` through the busiest GPU's port, its "
        "``gb_per_s`` and the ``ms`` they would take at the wire rate."
    )

    def __repr__(self) -> str:
        """One line."""
        return (
            f"<{self.what} {self.ms * 1e3:.1f} us ({self.alpha_ms * 1e3:.1f} us start-up), {self.kernel}, "
            f"{self.tier}, bound by {self.bound}, {self.evidence}>"
        )

    def _repr_html_(self) -> str:
        facts = {n: v for n, v in self._scalars.items() if n != "what"}
        rows = [[n, f"{v:.6g}" if isinstance(v, float) else str(v)] for n, v in facts.items()]
        rows += [[f"{p['side']} {p['port']}", f"{p['bytes']:.4g} B, {p['ms'] * 1e3:.1f} us"] for p in self.ports.rows()]
        return _html.table(self.what, [], rows)


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
    return Phase({"what": what, **json.loads(scalars)}, {"ports": Frame._from_core(ports)})
