"""Calibration: a device fitted to the log of a server."""

from __future__ import annotations

import json
from typing import Any, Unpack

import numpy as np
import numpy.typing as npt

from disagg import _core
from disagg._names import single
from disagg.errors import SpecError
from disagg.frame import Frame
from disagg.progress import reporter
from disagg.specs import Device, Workload
from disagg.specs._base import told

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


@told(_core.calibrate, "_Calibrate")
def calibrate(log: Any, **options: Unpack[_core._Calibrate]) -> Device:
    arrival = _column(log, "arrival_s", np.float64)
    order = np.argsort(arrival, kind="stable")
    arrival = arrival[order] - arrival[order[:1]]
    names = set(log.columns if isinstance(log, Frame) else log)
    unknown = np.full(len(arrival), np.nan)
    isl, osl = (_column(log, n, np.int64)[order] for n in ("isl", "osl"))
    ttft, tpot = (_column(log, n, np.float64)[order] if n in names else unknown.copy() for n in ("ttft_ms", "tpot_ms"))
    if not np.isfinite(arrival).all():
        raise SpecError([("log.arrival_s", "has values that are not numbers", "seconds")])
    if (first := options["first"]) is not None:
        if not 0 < first <= len(arrival):
            raise SpecError([("first", f"must be from 1 to {len(arrival)}, is {first}", "requests by arrival")])
        ttft[first:] = tpot[first:] = np.nan
    # No prefix is known to the log: joint lengths, every token new.
    lengths = [(0.0, float(i), float(o)) for i, o in zip(isl.tolist(), osl.tolist(), strict=True)]
    step = -(-len(lengths) // 4096)
    workload = Workload(lengths=lengths[::step], name="log", source="a server's log")
    lane = single(options["framework"], options["frameworks"], "a log")
    specs = (options["quant"], options["serving"], options["assumptions"])
    case = _core.Case(options["model"], options["cluster"], workload, lane, *specs)
    settings = json.dumps({n: options[n] for n in ("scheduler", "kv_blocks")})
    with reporter(options["progress"], "runs") as report:
        return _core.calibrate(case, options["plan"], settings, arrival, isl, osl, ttft, tpot, report)
