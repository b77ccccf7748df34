"""Between pools: A2F and F2A of attention-FFN disaggregation, KV from prefill to decode."""

from __future__ import annotations

from typing import Any

from disagg.network._phase import Phase, ask
from disagg.specs import Cluster, Placement
from disagg.specs._base import checked, expect


def _afd(what: str, cluster: Cluster, placement: Placement | None, alpha_scale: float, args: dict[str, Any]) -> Phase:
    expect(placement=(placement, Placement, type(None)))
    pools = {n: None if placement is None else getattr(placement, n) for n in ("attention", "ffn")}
    return ask(cluster, what, None, alpha_scale, {**args, **pools})


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
    return ask(cluster, "kv_transfer", None, 1.0, {**args, **more})
