"""Plans in words: who does what with which GPUs."""

from __future__ import annotations

from disagg import _core
from disagg.specs import AFD, PD, Aggregated, Workers

__all__ = ["words"]


def words(plan: Aggregated | PD | AFD | Workers) -> str:
    """Say a plan in words.

    Examples
    --------
    >>> import disagg as dg
    >>> from disagg._words import words
    >>> words(dg.Aggregated(parallel=dg.Parallel(tp=2, dp=4, ep=8), batch=32, chunk_tokens=512, replicas=16))
    '16 replicas of 8 GPUs (attention TP2 DP4, experts EP8), 32 a rank, 512 tokens a step'
    """
    return _core.plan_words(plan)
