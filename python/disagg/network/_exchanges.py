"""Collectives, and the dispatch and combine of an expert-parallel group."""

from __future__ import annotations

from typing import Any, Unpack

from disagg import _core
from disagg._names import single
from disagg.network._phase import Phase, ask
from disagg.specs import Cluster
from disagg.specs._base import takes


@takes("_Collective")
def collective(cluster: Cluster, op: str, **options: Unpack[_core._Collective]) -> Phase:
    """Time a collective of `ranks` GPUs.

    Parameters
    ----------
    cluster
        Whose tables and fabric.
    op
        ``"all_reduce"``, ``"all_gather"`` or ``"reduce_scatter"``.

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
    return _lane(cluster, "collective", {"op": op, **options})


def _lane(cluster: Cluster, what: str, args: dict[str, Any]) -> Phase:
    a = "a collective" if what == "collective" else "an exchange"
    return ask(cluster, what, single(args.pop("framework"), args.pop("frameworks"), a), 1.0, args)


@takes("_Exchange")
def dispatch(cluster: Cluster, **options: Unpack[_core._Exchange]) -> Phase:
    """Time the dispatch of an expert-parallel group: every token to the GPUs of its experts.

    Parameters
    ----------
    cluster
        Whose tables and fabric.

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
    return _lane(cluster, "dispatch", {**options})


@takes("_Exchange")
def combine(cluster: Cluster, **options: Unpack[_core._Exchange]) -> Phase:
    """Time the combine of an expert-parallel group: every token's results back to it, in BF16.

    Parameters, result and errors are those of `dispatch`.

    Examples
    --------
    >>> import disagg as dg
    >>> node = dg.Cluster("h100_sxm", gpus=8)
    >>> dg.network.combine(node, tokens=128, hidden=7168, topk=8, experts=256, ranks=8).evidence
    'measured'
    """
    return _lane(cluster, "combine", {**options})
