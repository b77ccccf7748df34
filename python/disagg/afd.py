"""Attention-FFN disaggregation in closed form: the micro-batch pipeline, and how many attention GPUs feed one FFN."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from disagg import _core
from disagg.errors import SpecError
from disagg.specs._base import checked

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["Provision", "provision", "schedule"]


@dataclass(frozen=True, slots=True)
class Provision:
    """The best ratio of attention to FFN instances.

    Attributes
    ----------
    ratio
        Attention instances per FFN instance.
    throughput
        Tokens per unit of time and instance, attention and FFN instances counted alike.
    bottleneck
        What sets the pace there: ``attention``, ``communication`` or ``ffn``.
    """

    ratio: float
    throughput: float
    bottleneck: str


@checked
def schedule(
    stage_ms: npt.ArrayLike,
    *,
    layers: int,
    microbatches: int,
    attention_groups: int = 1,
    duplex: Literal["full", "half"] = "full",
    overlapped: bool = True,
) -> float:
    """Time one step of the AFD pipeline.

    Micro-batches walk attention, A2F, FFN and F2A once a layer; each of the four serves one at a time, first in
    first out. With ``duplex="half"`` A2F and F2A share one resource.

    Parameters
    ----------
    stage_ms
        (attention, a2f, ffn, f2a) in milliseconds of one micro-batch and layer; or one such row a layer, shape
        (layers, 4); or one a layer and micro-batch, shape (layers, microbatches, 4).
    layers
        Layers of the model.
    microbatches
        Micro-batches in flight of each attention group, 1 to 64.
    attention_groups
        Equal groups of attention GPUs that take turns on one FFN pool, 1 to 64. Hops of different groups share the
        pool's ports for all of their time, the slowest it can be; an estimate knows what share of a hop is the ports'.
    duplex
        Whether the two directions of the network are separate resources.
    overlapped
        Each micro-batch starts its next token as soon as its own last layer is done (the period of the steady
        state); False: one step on an empty pipeline.

    Returns
    -------
    float
        Milliseconds per step.

    Raises
    ------
    SpecError
        If the shape does not go with ``layers`` and ``microbatches``, or a time is negative or not finite.

    Notes
    -----
    Equal layers, full duplex, S the sum and tau the largest of the stages: (L-1) max(M tau, S) + (M-1) tau + S alone,
    L max(M tau, S) overlapped. G groups on one pool, with tau_S the largest of the stages but attention:
    L max(M max(attention, G tau_S), S) overlapped.

    Examples
    --------
    >>> import disagg as dg
    >>> dg.afd.schedule((20, 10, 5, 5), layers=1, microbatches=1, overlapped=False)
    40.0
    >>> dg.afd.schedule((20, 10, 5, 5), layers=61, microbatches=2)
    2440.0
    >>> dg.afd.schedule((20, 10, 5, 5), layers=61, microbatches=1, attention_groups=3)
    2440.0
    """
    if duplex not in ("full", "half"):
        raise SpecError([("duplex", f"'{duplex}' is not a kind of link", _core.near(str(duplex), ["full", "half"]))])
    counts = (("layers", layers), ("microbatches", microbatches), ("attention_groups", attention_groups))
    for name, value in counts:
        if not 0 <= value < 2**32:
            raise SpecError([(name, f"must be at least 1, is {value}", "")])
    try:
        times = np.asarray(stage_ms, dtype=np.float64)
    except (TypeError, ValueError) as e:
        raise SpecError([("stage_ms", f"is not an array of numbers: {e}", "give 4 times, or rows of 4")]) from e
    return _core.afd_schedule(
        times.ravel().tolist(), list(times.shape), layers, microbatches, attention_groups, duplex == "half", overlapped
    )


@checked
def provision(
    *,
    alpha_a: float,
    beta_a: float,
    alpha_f: float,
    beta_f: float,
    alpha_c: float,
    beta_c: float,
    batch: float,
    mu_p: float,
    mu_d: float,
    requests: float | None = None,
    barrier: bool = False,
) -> Provision:
    """Find how many attention instances one FFN instance should serve.

    Stage times are linear: attention ``alpha_a * T + beta_a`` of the T tokens in an instance's KV, FFN
    ``alpha_f * r * batch + beta_f`` of the sequences of all r instances, the exchange ``alpha_c * batch + beta_c``.
    Times in any one unit.

    Parameters
    ----------
    alpha_a, beta_a
        Attention: time per resident KV token, and fixed.
    alpha_f, beta_f
        FFN: time per sequence, and fixed.
    alpha_c, beta_c
        Exchange: time per sequence of one instance, and fixed.
    batch
        Sequences per attention instance.
    mu_p, mu_d
        Mean prompt and mean answer in tokens; answers are geometric.
    requests
        Requests per instance of a finite horizon, over which contexts start short; None: the long run.
    barrier
        Whether the instances wait for the slowest of them each layer.

    Returns
    -------
    Provision
        ratio, throughput and bottleneck.

    Raises
    ------
    SpecError
        If a number is out of range; all of them at once.

    References
    ----------
    arXiv 2601.21351, "Analytical Provisioning for AFD under Stochastic Workloads".

    Examples
    --------
    >>> import disagg as dg
    >>> best = dg.afd.provision(
    ...     alpha_a=0.00165, beta_a=50, alpha_f=0.083, beta_f=100, alpha_c=0.022, beta_c=20,
    ...     batch=256, mu_p=100, mu_d=500, requests=10_000,
    ... )
    >>> round(best.ratio, 1), best.bottleneck
    (9.3, 'attention')
    """
    times = (alpha_a, beta_a, alpha_f, beta_f, alpha_c, beta_c)
    return Provision(*_core.afd_provision(*times, batch, mu_p, mu_d, requests, barrier))
