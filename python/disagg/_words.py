"""Plans in words: who does what with which GPUs."""

from __future__ import annotations

from disagg.specs import AFD, PD, Aggregated, Parallel, Workers

__all__ = ["words"]


def _count(n: int, thing: str) -> str:
    return f"{n} {thing}{'' if n == 1 else 's'}"


def _split(p: Parallel) -> str:
    gpus = p.tp * p.dp * p.cp * p.pp
    ep = p.ep or p.tp * p.dp * p.cp // p.moe_tp
    attention = [f"{n.upper()}{v}" for n, v in (("tp", p.tp), ("dp", p.dp), ("cp", p.cp), ("pp", p.pp)) if v > 1]
    experts = [f"{n}{v}" for n, v in (("EP", ep), ("TP", p.moe_tp)) if v > 1]
    return f"{_count(gpus, 'GPU')} (attention {' '.join(attention) or 'whole'}, experts {' '.join(experts) or 'whole'})"


def _load(batch: int | None, chunk: int | None) -> str:
    tokens = f", {chunk} tokens a step" if chunk else ""
    return f"{batch} a rank{tokens}" if batch else tokens.removeprefix(", ")


def _unit(p: AFD) -> str:
    ffn = f" in groups of TP{p.ffn.moe_tp}" if p.ffn.moe_tp > 1 else ""
    pools = f"{p.attention.gpus}A (TP{p.attention.tp}) + {p.ffn.gpus}F{ffn}"
    stages = f" in {p.pp} pipeline stages" if p.pp > 1 else ""
    groups = f", {p.attention_groups} attention groups" if p.attention_groups > 1 else ""
    parts = _count(p.microbatches or 1, "micro-batch").replace("chs", "ches")
    return f"{_count(p.units, 'unit')} of {pools}{stages}{groups}, {parts}"


def words(plan: Aggregated | PD | AFD | Workers) -> str:
    """Say a plan in words.

    Examples
    --------
    >>> import disagg as dg
    >>> from disagg._words import words
    >>> words(dg.Aggregated(parallel=dg.Parallel(tp=2, dp=4, ep=8), batch=32, chunk_tokens=512, replicas=16))
    '16 replicas of 8 GPUs (attention TP2 DP4, experts EP8), 32 a rank, 512 tokens a step'
    """
    if isinstance(plan, PD):
        return f"prefill {words(plan.prefill)}; decode {words(plan.decode)}"
    overlap = "" if isinstance(plan, AFD) or not plan.two_batch_overlap else "two batches that overlap"
    every = 1 if isinstance(plan, Workers) else plan.prefill_interval or 1
    cadence = f"prompts every {every} steps" if every > 1 else ""
    if isinstance(plan, AFD):
        head = _unit(plan)
    elif isinstance(plan, Workers):
        head = f"{_count(plan.count, 'worker')} of {_split(plan.parallel)}"
    else:
        head = f"{_count(plan.replicas, 'replica')} of {_split(plan.parallel)}"
    return ", ".join(part for part in (head, _load(plan.batch, plan.chunk_tokens), overlap, cadence) if part)
