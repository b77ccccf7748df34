"""Calibration: a device fitted to the log of a server."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import numpy.typing as npt

from disagg import _core
from disagg._names import Names, single
from disagg.errors import SpecError
from disagg.frame import Frame
from disagg.progress import Progress, reporter
from disagg.specs import AFD, PD, Aggregated, Assumptions, Cluster, Device, Model, Quant, Serving, Workload
from disagg.specs._base import checked

__all__ = ["calibrate"]

_HINT = "arrival_s, isl, osl and ttft_ms or tpot_ms, one row a request; dg.simulate(...).requests has them"


def _column(log: Any, name: str, kind: type[np.generic]) -> npt.NDArray[Any]:
    try:
        found = np.asarray(log[name])
    except (KeyError, IndexError, TypeError) as e:
        raise SpecError([(f"log.{name}", "is missing", _HINT)]) from e
    try:
        return np.ascontiguousarray(found, dtype=kind)
    except (TypeError, ValueError) as e:
        raise SpecError([(f"log.{name}", "is not a column of numbers", _HINT)]) from e


@checked
def calibrate(
    log: Any,
    *,
    model: Model,
    cluster: Cluster,
    plan: Aggregated | PD | AFD,
    first: int | None = None,
    framework: Names = None,
    frameworks: Names = None,
    quant: Quant | None = None,
    serving: Serving | None = None,
    assumptions: Assumptions | None = None,
    scheduler: str = "chunked-prefill",
    kv_blocks: int | None = None,
    progress: Progress = None,
) -> Device:
    """Fit a device to a server's log, by simulating the same requests.

    Arithmetic rate, memory bandwidth and launch floor are moved until the simulated TTFT and TPOT are as near to
    the measured ones as they get (mean soft-L1 of log errors; Nelder and Mead 1965). The kernels keep the shapes
    of the measured tables of the cluster's system, so the rates are effective ones, not peaks of a data sheet.

    Parameters
    ----------
    log
        Columns ``arrival_s``, ``isl`` (whole prompt), ``osl`` and ``ttft_ms`` or ``tpot_ms`` or both, one row a
        request: a Frame, a data frame, or a mapping of arrays. A latency that is not a number is not fitted: such
        requests are load only.
    plan
        What the server ran: ``plan.batch`` is the most sequences at a time (vLLM ``max_num_seqs``),
        ``plan.chunk_tokens`` the token budget (``max_num_batched_tokens``).
    cluster
        Its device is where the fit starts; memory capacity, power and price are kept.
    first
        Fit the latencies of so many requests, by arrival, and keep those of the others out; None: all.
    scheduler, kv_blocks
        As in `simulate`. Give the blocks that the server reported: memory is not fitted.

    Returns
    -------
    Device
        ``source`` tells how well it fits; use it as ``Cluster(system, gpus=n, device=device)``.

    Raises
    ------
    SpecError
        If a column is missing or an input does not fit.
    InfeasibleError
        If the plan does not fit the GPUs.

    Examples
    --------
    >>> import disagg as dg
    >>> model, plan = dg.Model("Qwen/Qwen3-32B"), dg.Aggregated(parallel=dg.Parallel(), batch=16)
    >>> cluster = dg.Cluster("h100_sxm", gpus=1)
    >>> trace = dg.Trace.poisson(dg.Workload(isl=500, osl=20), rate=2, n=40)
    >>> log = dg.simulate(model, cluster, plan, trace).requests
    >>> device = dg.calibrate(log, model=model, cluster=cluster, plan=plan)
    >>> bool(abs(device.hbm_bytes_per_s / 3.35e12 - 1) < 0.02)
    True
    """
    arrival = _column(log, "arrival_s", np.float64)
    order = np.argsort(arrival, kind="stable")
    arrival = arrival[order] - arrival[order[:1]]
    names = set(log.columns if isinstance(log, Frame) else log)
    unknown = np.full(len(arrival), np.nan)
    isl, osl = (_column(log, n, np.int64)[order] for n in ("isl", "osl"))
    ttft, tpot = (_column(log, n, np.float64)[order] if n in names else unknown.copy() for n in ("ttft_ms", "tpot_ms"))
    if not np.isfinite(arrival).all():
        raise SpecError([("log.arrival_s", "has values that are not numbers", "seconds")])
    if first is not None:
        if not 0 < first <= len(arrival):
            raise SpecError([("first", f"must be from 1 to {len(arrival)}, is {first}", "requests by arrival")])
        ttft[first:] = tpot[first:] = np.nan
    # No prefix is known to the log: joint lengths, every token new.
    lengths = [(0.0, float(i), float(o)) for i, o in zip(isl.tolist(), osl.tolist(), strict=True)]
    step = -(-len(lengths) // 4096)
    workload = Workload(lengths=lengths[::step], name="log", source="a server's log")
    with reporter(progress, "runs") as report:
        return _core.calibrate(
            _core.Case(model, cluster, workload, single(framework, frameworks, "a log"), quant, serving, assumptions),
            plan,
            json.dumps({"scheduler": scheduler, "kv_blocks": kv_blocks}),
            arrival,
            isl,
            osl,
            ttft,
            tpot,
            report,
        )
