"""Attention-FFN disaggregation in closed form: the micro-batch pipeline, and how many attention GPUs feed one FFN."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Unpack

import numpy as np
import numpy.typing as npt

from disagg import _core
from disagg.errors import SpecError
from disagg.specs._base import told

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


@told(_core.afd_schedule, "_Schedule")
def schedule(stage_ms: npt.ArrayLike, **options: Unpack[_core._Schedule]) -> float:
    duplex = options["duplex"]
    if duplex not in ("full", "half"):
        raise SpecError([("duplex", f"'{duplex}' is not a kind of link", _core.near(str(duplex), ["full", "half"]))])
    counts = options["layers"], options["microbatches"], options["attention_groups"]
    for name, value in zip(("layers", "microbatches", "attention_groups"), counts, strict=True):
        if not 0 <= value < 2**32:
            raise SpecError([(name, f"must be at least 1, is {value}", "")])
    try:
        times = np.asarray(stage_ms, dtype=np.float64)
    except (TypeError, ValueError) as e:
        raise SpecError([("stage_ms", f"is not an array of numbers: {e}", "give 4 times, or rows of 4")]) from e
    flat, shape = times.ravel().tolist(), list(times.shape)
    return _core.afd_schedule(flat, shape, *counts, duplex == "half", options["overlapped"])


@told(_core.afd_provision, "_Provision")
def provision(**options: Unpack[_core._Provision]) -> Provision:
    return Provision(*_core.afd_provision(**options))
