"""Between pools: A2F and F2A of attention-FFN disaggregation, KV from prefill to decode."""

from __future__ import annotations

from typing import Any, Unpack

from disagg import _core
from disagg.network._phase import Phase, ask
from disagg.specs import Cluster
from disagg.specs._base import takes


def _hop(what: str, cluster: Cluster, options: _core._Hop, *, prereduce: bool) -> Phase:
    args: dict[str, Any] = {**options, "prereduce": prereduce}
    placement, scale = args.pop("placement"), args.pop("alpha_scale")
    pools = {n: None if placement is None else getattr(placement, n) for n in ("attention", "ffn")}
    return ask(cluster, what, None, scale, {**args, **pools})


@takes("_Hop")
def a2f(cluster: Cluster, **options: Unpack[_core._Hop]) -> Phase:
    """Time A2F: the micro-batch of every attention rank to the experts of an FFN pool.

    Parameters
    ----------
    cluster
        Whose fabric.

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
    return _hop("a2f", cluster, options, prereduce=False)


@takes("_Hop")
def f2a(cluster: Cluster, *, prereduce: bool = False, **options: Unpack[_core._Hop]) -> Phase:
    """Time F2A: the results of an FFN pool back to the attention ranks, in BF16, and their all-gather over `tp`.

    Result and errors are those of `a2f`.

    Parameters
    ----------
    cluster
        Whose fabric.
    prereduce
        Whether the FFN pool sums a token's partial results first, so that one vector goes back.

    Examples
    --------
    >>> import disagg as dg
    >>> back = dg.network.f2a(dg.Cluster("gb200", gpus=72), tokens=64, hidden=7168, topk=8, experts=256,
    ...                       senders=64, receivers=8)
    >>> back.tier, back.evidence
    ('scale-up', 'extrapolated')
    """
    return _hop("f2a", cluster, options, prereduce=prereduce)


@takes("_Transfer")
def kv_transfer(cluster: Cluster, **options: Unpack[_core._Transfer]) -> Phase:
    """Time the KV of one request from prefill to decode.

    Parameters
    ----------
    cluster
        Whose fabric.

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
    return ask(cluster, "kv_transfer", None, 1.0, {**options})
