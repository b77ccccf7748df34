"""The network by itself: how long communication takes, and what it is waiting for."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import numpy as np

from disagg import _core, _html
from disagg._names import Names, single
from disagg.errors import Problem, SpecError
from disagg.frame import Frame
from disagg.specs import Cluster, Placement
from disagg.specs._base import checked, expect

__all__ = ["Phase", "a2f", "collective", "combine", "dispatch", "f2a", "flows", "kv_transfer"]


class Phase:
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
        for name, value in {"what": what, "ports": ports, **facts}.items():
            object.__setattr__(self, name, value)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        """Refuse: a result is frozen."""
        raise AttributeError(f"Phase is frozen; {name} stays")

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


def _ask(cluster: Cluster, what: str, framework: str | None, alpha_scale: float, args: dict[str, Any]) -> Phase:
    expect(cluster=(cluster, Cluster), framework=(framework, str, type(None)), alpha_scale=(alpha_scale, int, float))
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
    scalars, ports = _core.network_phase(cluster._raw, what, text, framework, float(alpha_scale))
    return Phase(what=what, ports=Frame._from_core(ports), **json.loads(scalars))


@checked
def collective(
    cluster: Cluster,
    op: str,
    *,
    ranks: int,
    bytes: float,  # noqa: A002 - the public contract
    dtype: str = "bfloat16",
    placement: Sequence[int] | None = None,
    framework: Names = None,
    frameworks: Names = None,
) -> Phase:
    """Time a collective of `ranks` GPUs.

    Parameters
    ----------
    cluster
        Whose tables and fabric.
    op
        ``"all_reduce"``, ``"all_gather"`` or ``"reduce_scatter"``.
    ranks
        GPUs that take part.
    bytes
        The full buffer of one rank, as nccl-tests count.
    dtype
        What is summed; only ``"bfloat16"`` was measured.
    placement
        GPU ids; None: packed from the start of a domain.
    framework, frameworks
        Whose all-reduce stands beside NCCL's; None: the first that has tables.

    Returns
    -------
    Phase
        At measured ranks the table (NCCL, or the framework's own all-reduce where that is faster).

    Raises
    ------
    SpecError
        If the operation or the number of ranks is not possible here; every problem is named.

    Examples
    --------
    >>> import disagg as dg
    >>> phase = dg.network.collective(dg.Cluster("h200_sxm", gpus=8), "all_reduce", ranks=8, bytes=2**20)
    >>> phase.tier, phase.evidence
    ('scale-up', 'measured')
    """
    args = {"op": op, "ranks": ranks, "bytes": bytes, "dtype": dtype, "placement": placement}
    return _ask(cluster, "collective", single(framework, frameworks, "a collective"), 1.0, args)


@checked
def dispatch(
    cluster: Cluster,
    *,
    tokens: float,
    hidden: int,
    topk: int,
    experts: int,
    ranks: int,
    dtype: str = "fp8",
    backend: str | None = None,
    groups: int = 0,
    topk_groups: int = 0,
    load: Sequence[float] | None = None,
    exponent: float | None = None,
    framework: Names = None,
    frameworks: Names = None,
) -> Phase:
    """Time the dispatch of an expert-parallel group: every token to the GPUs of its experts.

    Parameters
    ----------
    cluster
        Whose tables and fabric.
    tokens
        Tokens per source GPU.
    hidden, topk, experts
        The model's; uniform routing unless `load` or `exponent` says otherwise.
    ranks
        GPUs of the group.
    dtype
        Payload: ``"fp8"`` (with scales), ``"bfloat16"`` or ``"nvfp4"``.
    backend
        ``"low-latency"`` (no deduplication), ``"normal"`` (one copy a node), ``"one-sided"`` (one copy a
        GPU, one rack); None: the fastest that takes so many tokens.
    groups, topk_groups
        Group-limited routing (DeepSeek-V3: 8 and 4); 0: none.
    load
        A histogram: one load an expert, in the order in which they lie on the ranks.
    exponent
        Instead of it: loads i^-exponent, dealt to the ranks in turn.
    framework, frameworks
        As in `collective`.

    Returns
    -------
    Phase
        The time, and the bytes through the busiest GPU's ports.

    Raises
    ------
    SpecError
        If something does not fit; every problem is named.

    Examples
    --------
    >>> import disagg as dg
    >>> rack = dg.Cluster("gb200", gpus=72)
    >>> phase = dg.network.dispatch(rack, tokens=128, hidden=7168, topk=8, experts=256, ranks=64)
    >>> phase.kernel, phase.tier
    ('one-sided', 'scale-up')
    """
    args = {"tokens": tokens, "hidden": hidden, "topk": topk, "experts": experts, "ranks": ranks, "dtype": dtype}
    more = {"backend": backend, "groups": groups, "topk_groups": topk_groups, "load": load, "exponent": exponent}
    return _ask(cluster, "dispatch", single(framework, frameworks, "an exchange"), 1.0, {**args, **more})


@checked
def combine(
    cluster: Cluster,
    *,
    tokens: float,
    hidden: int,
    topk: int,
    experts: int,
    ranks: int,
    dtype: str = "fp8",
    backend: str | None = None,
    groups: int = 0,
    topk_groups: int = 0,
    load: Sequence[float] | None = None,
    exponent: float | None = None,
    framework: Names = None,
    frameworks: Names = None,
) -> Phase:
    """Time the combine of an expert-parallel group: every token's results back to it, in BF16.

    Parameters
    ----------
    cluster, tokens, hidden, topk, experts, ranks, backend, groups, topk_groups, load, exponent, framework,
    frameworks
        As in `dispatch`; `tokens` per GPU that they come back to.
    dtype
        Payload of the dispatch before it (it picks the kernel; what comes back is BF16).

    Returns
    -------
    Phase
        As from `dispatch`.

    Raises
    ------
    SpecError
        As from `dispatch`.

    Examples
    --------
    >>> import disagg as dg
    >>> node = dg.Cluster("h100_sxm", gpus=8)
    >>> dg.network.combine(node, tokens=128, hidden=7168, topk=8, experts=256, ranks=8).evidence
    'measured'
    """
    args = {"tokens": tokens, "hidden": hidden, "topk": topk, "experts": experts, "ranks": ranks, "dtype": dtype}
    more = {"backend": backend, "groups": groups, "topk_groups": topk_groups, "load": load, "exponent": exponent}
    return _ask(cluster, "combine", single(framework, frameworks, "an exchange"), 1.0, {**args, **more})


def _afd(what: str, cluster: Cluster, placement: Placement | None, alpha_scale: float, args: dict[str, Any]) -> Phase:
    expect(placement=(placement, Placement, type(None)))
    pools = {n: None if placement is None else getattr(placement, n) for n in ("attention", "ffn")}
    return _ask(cluster, what, None, alpha_scale, {**args, **pools})


@checked
def a2f(
    cluster: Cluster,
    *,
    tokens: float,
    hidden: int,
    topk: int,
    experts: int,
    senders: int,
    receivers: int,
    tp: int = 1,
    ep: int | None = None,
    moe_tp: int = 1,
    dtype: str = "fp8",
    groups: int = 0,
    topk_groups: int = 0,
    placement: Placement | None = None,
    alpha_scale: float = 1.0,
) -> Phase:
    """Time A2F: the micro-batch of every attention rank to the experts of an FFN pool.

    Parameters
    ----------
    cluster
        Whose fabric.
    tokens
        Tokens per attention rank (of `tp` GPUs) and micro-batch.
    hidden, topk, experts, groups, topk_groups
        The model's routing.
    senders, receivers
        Attention GPUs, FFN GPUs.
    tp
        GPUs of an attention rank, each sending 1/tp of the vector.
    ep, moe_tp
        Expert groups of the FFN pool and GPUs of a group; None: as many groups as fit.
    dtype
        Payload, as in `dispatch`.
    placement
        GPU ids of both pools; None: packed, attention first, from the start of a domain.
    alpha_scale
        Scales the start-up, which no public measurement covers: look at 0.5 and 2.

    Returns
    -------
    Phase
        Never better than extrapolated: nobody has published a measured M-to-N table; +-20-30 %.

    Raises
    ------
    SpecError
        If the pools do not fit the cluster or each other; every problem is named.

    Examples
    --------
    Eight nodes of eight: every copy leaves its node.

    >>> import disagg as dg
    >>> unit = dict(tokens=64, hidden=7168, topk=8, experts=256, senders=16, receivers=48)
    >>> hgx = dg.network.a2f(dg.Cluster("b200_sxm", gpus=64), **unit)
    >>> rack = dg.network.a2f(dg.Cluster("gb200", gpus=72), **unit)
    >>> hgx.tier, rack.tier, hgx.ms > 2 * rack.ms
    ('scale-out', 'scale-up', True)
    """
    args = {
        "tokens": tokens, "hidden": hidden, "topk": topk, "experts": experts, "senders": senders,
        "receivers": receivers, "tp": tp, "ep": ep, "moe_tp": moe_tp, "dtype": dtype, "prereduce": False,
        "groups": groups, "topk_groups": topk_groups,
    }  # fmt: skip
    return _afd("a2f", cluster, placement, alpha_scale, args)


@checked
def f2a(
    cluster: Cluster,
    *,
    tokens: float,
    hidden: int,
    topk: int,
    experts: int,
    senders: int,
    receivers: int,
    tp: int = 1,
    ep: int | None = None,
    moe_tp: int = 1,
    dtype: str = "fp8",
    prereduce: bool = False,
    groups: int = 0,
    topk_groups: int = 0,
    placement: Placement | None = None,
    alpha_scale: float = 1.0,
) -> Phase:
    """Time F2A: the results of an FFN pool back to the attention ranks, in BF16.

    Parameters
    ----------
    cluster, tokens, hidden, topk, experts, tp, ep, moe_tp, groups, topk_groups, placement, alpha_scale
        As in `a2f`.
    senders, receivers
        FFN GPUs, attention GPUs.
    dtype
        Payload of the A2F before it; what comes back is BF16.
    prereduce
        Whether the FFN pool sums a token's partial results first, so that one vector goes back.

    Returns
    -------
    Phase
        As from `a2f`; ends in the all-gather over `tp`.

    Raises
    ------
    SpecError
        As from `a2f`.

    Examples
    --------
    >>> import disagg as dg
    >>> back = dg.network.f2a(dg.Cluster("gb200", gpus=72), tokens=64, hidden=7168, topk=8, experts=256,
    ...                       senders=64, receivers=8)
    >>> back.tier, back.evidence
    ('scale-up', 'extrapolated')
    """
    args = {
        "tokens": tokens, "hidden": hidden, "topk": topk, "experts": experts, "senders": senders,
        "receivers": receivers, "tp": tp, "ep": ep, "moe_tp": moe_tp, "dtype": dtype, "prereduce": prereduce,
        "groups": groups, "topk_groups": topk_groups,
    }  # fmt: skip
    return _afd("f2a", cluster, placement, alpha_scale, args)


@checked
def kv_transfer(
    cluster: Cluster,
    *,
    bytes: float,  # noqa: A002 - the public contract
    prefill_tp: int = 1,
    decode_tp: int = 1,
    same_domain: bool = False,
    layers: int | None = None,
    compute_ms: float = 0.0,
) -> Phase:
    """Time the KV of one request from prefill to decode.

    Parameters
    ----------
    cluster
        Whose fabric.
    bytes
        KV of the request.
    prefill_tp, decode_tp
        GPUs that hold it on either side: slices travel between min(prefill_tp, decode_tp) pairs.
    same_domain
        Whether both sides sit in one scale-up domain.
    layers
        None: in bulk, after prefill. A number: layer by layer beside prefill, and what counts is what the
        computation does not hide, `(layers - 1) max(0, t - compute) + t`.
    compute_ms
        Prefill time of one layer.

    Returns
    -------
    Phase
        Extrapolated: bandwidths of Mooncake's transfer engine (reference in the docs of the core).

    Raises
    ------
    SpecError
        If something does not fit.

    Examples
    --------
    25.2 GB of KV over one 50 GB/s NIC:

    >>> import disagg as dg
    >>> round(dg.network.kv_transfer(dg.Cluster("b200_sxm", gpus=16), bytes=25.2e9).ms / 504, 1)
    1.0
    """
    args = {"bytes": bytes, "prefill_tp": prefill_tp, "decode_tp": decode_tp}
    more = {"same_domain": same_domain, "layers": layers, "compute_ms": compute_ms}
    return _ask(cluster, "kv_transfer", None, 1.0, {**args, **more})


@checked
def flows(
    cluster_or_fabric: Cluster | Mapping[str, Any],
    flows: Frame | Mapping[str, Sequence[float]] | Sequence[Sequence[float]],
    *,
    engine: str = "fluid",
) -> Frame:
    """Say when each flow between GPUs ends, all of them sharing the ports.

    Parameters
    ----------
    cluster_or_fabric
        A `Cluster`, or a plain network of equal links for parity work:
        ``dict(topology="switch"|"fully-connected"|"ring", npus=8, gib_per_s=450, latency_ns=500)``
        (2^30 bytes per second).
    flows
        Rows ``(src, dst, bytes)`` or ``(src, dst, bytes, start_s)``, or columns of these names.
    engine
        ``"fluid"``: max-min fair rates; ``"bound"``: the busiest port, a lower bound of the phase;
        ``"astra"``: ASTRA-sim's congestion-aware analytical backend to the nanosecond (plain
        networks; store and forward, in the order given).

    Returns
    -------
    Frame
        The flows with ``finish_s`` and ``finish_ns`` (whole nanoseconds). Times on the wires, without
        the start-up of any kernel.

    Raises
    ------
    SpecError
        If a device is absent, bytes are zero or too many, or the engine does not fit the fabric.

    Notes
    -----
    Max-min fairness: Bertsekas and Gallager, Data Networks 6.5. Sources of the bandwidths:
    ``cluster.fabric.source``.

    Examples
    --------
    Two flows into one GPU share its port:

    >>> import disagg as dg
    >>> found = dg.network.flows(dg.Cluster("h200_sxm", gpus=8), [(0, 2, 450e6), (1, 2, 450e6)])
    >>> found["finish_s"].round(6).tolist()
    [0.002, 0.002]
    >>> plain = dict(topology="switch", npus=8, gib_per_s=450, latency_ns=500)
    >>> dg.network.flows(plain, [(0, 1, 2**20)], engine="astra")["finish_ns"].tolist()
    [5340]
    """
    expect(cluster_or_fabric=(cluster_or_fabric, Cluster, Mapping), engine=(engine, str))
    columns = _columns(flows)
    if isinstance(cluster_or_fabric, Cluster):
        cluster, plain = cluster_or_fabric._raw, None
    else:
        try:
            cluster, plain = None, json.dumps(dict(cluster_or_fabric), allow_nan=False)
        except (TypeError, ValueError) as e:
            raise SpecError(
                [Problem("cluster_or_fabric", f"holds what JSON cannot say: {e}", "numbers and text")]
            ) from e
    return Frame._from_core(_core.network_flows(cluster, plain, *columns, engine))


def _columns(flows: Any) -> tuple[Any, Any, Any, Any]:
    names = ["src", "dst", "bytes", "start_s"]
    if isinstance(flows, (Frame, Mapping)):
        missing = [
            Problem(f"flows.{n}", "is missing", f"columns {', '.join(names[:3])}") for n in names[:3] if n not in flows
        ]
        if missing:
            raise SpecError(missing)
        given = {n: flows[n] for n in names if n in flows}
    else:
        try:
            table = np.asarray(list(flows), dtype=np.float64)
        except (TypeError, ValueError) as e:
            raise SpecError([Problem("flows", "are not rows of numbers", "(src, dst, bytes[, start_s])")]) from e
        if table.size == 0:
            table = table.reshape(0, 3)
        if table.ndim != 2 or table.shape[1] not in {3, 4}:  # noqa: PLR2004 - with or without start_s
            raise SpecError([Problem("flows", f"have shape {table.shape}", "rows of (src, dst, bytes[, start_s])")])
        given = dict(zip(names, table.T, strict=False))
    try:
        found = {n: np.ascontiguousarray(v, dtype=np.float64) for n, v in given.items()}
    except (TypeError, ValueError) as e:
        raise SpecError([Problem("flows", "are not numbers", "(src, dst, bytes[, start_s])")]) from e
    problems = [Problem(f"flows.{n}", "is not one column", "") for n, v in found.items() if v.ndim != 1]
    for n in ("src", "dst"):
        bad = np.flatnonzero(~(np.isfinite(found[n]) & (found[n] == np.floor(found[n]))))
        problems += [Problem(f"flows[{i}].{n}", f"{found[n][i]} is not a GPU", "a whole number") for i in bad]
    if problems:
        raise SpecError(problems)
    ids = [found[n].astype(np.int64) for n in ("src", "dst")]
    return ids[0], ids[1], found["bytes"], found.get("start_s")
