"""Flows between single GPUs that share the ports."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from disagg import _core
from disagg.errors import Problem, SpecError
from disagg.frame import Frame
from disagg.specs import Cluster
from disagg.specs._base import told


@told(_core.network_flows)
def flows(
    cluster_or_fabric: Cluster | Mapping[str, Any],
    flows: Frame | Mapping[str, Sequence[float]] | Sequence[Sequence[float]],
    *,
    engine: str = "fluid",
) -> Frame:
    columns = _columns(flows)
    if isinstance(cluster_or_fabric, Cluster):
        cluster, plain = cluster_or_fabric, None
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
        bad = np.flatnonzero(~((np.abs(found[n]) < 2.0**53) & (found[n] == np.floor(found[n]))))
        problems += [Problem(f"flows[{i}].{n}", f"{found[n][i]} is not a GPU", "a whole number") for i in bad]
    if problems:
        raise SpecError(problems)
    ids = [found[n].astype(np.int64) for n in ("src", "dst")]
    return ids[0], ids[1], found["bytes"], found.get("start_s")
