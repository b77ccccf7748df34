"""What a directory of kernel measurements looks like, and which of its tables the pack takes.

Which tables the pack takes, and the columns that a table must have, stand in ``data/tables.json``.

Layout (that of the wheel ``aiconfigurator-core``, Apache-2.0, and of any user's own measurements)::

    <root>/<system>/<family>/<framework>/<version>/<table>_perf.parquet

A column is a *measure* if its name says so (``latency``, ``*_us``, ...); a few describe the file
and not the row (``framework``, ``version``, ``device``); every other column is a *key*.
"""

from __future__ import annotations

import functools
import json
import re
from pathlib import Path
from typing import Any

PACK_VERSION = 1
SUFFIX = "_perf.parquet"

#: Columns that repeat the path or describe the run. The version inside a file is sometimes that of
#: an older run that was carried over, so the directory's is the one that counts.
DESCRIPTIVE = frozenset({"framework", "version", "device"})

_MEASURE = re.compile(r"^(latency|avg_ms|power|power_limit|.+_(us|ms|gbps))$")


def is_measure(column: str) -> bool:
    """Whether a column of that name holds a measured number rather than part of the key."""
    return _MEASURE.match(column) is not None


@functools.cache
def taken() -> dict[str, Any]:
    """Give what stands in ``data/tables.json``."""
    found: dict[str, Any] = json.loads((Path(__file__).parents[1] / "data" / "tables.json").read_text(encoding="utf-8"))
    return found


def required(table: str) -> tuple[str, ...]:
    """Columns without which a known table cannot be read."""
    keys = taken()["required"]["columns"].get(table)
    return () if keys is None else (*keys, "latency")


def in_pack(system: str, family: str, framework: str, version: str, table: str) -> bool:
    """Whether the shipped pack takes this table."""
    t, whose = taken(), {"family": family, "framework": framework, "version": version}
    this = {**whose, "table": table}
    once = [name for known in t["once"]["tables"] for name in known["tables"]]
    if system not in t["systems"] or this in t["later"]["tables"]:
        return False
    if this in t["older"]["tables"] or any(
        table in k["tables"] and whose.items() <= k.items() for k in t["once"]["tables"]
    ):
        return True
    of_family = t["current"]["tables"].get(family, ())
    if any(
        k["framework"] == framework and k["version"] == version and family in k["families"]
        for k in t["newer"]["families"]
    ):
        return table in of_family or table in once
    if family == "comm" and framework == "nccl":
        return table == "nccl"
    return t["current"]["versions"].get(framework) == version and table in of_family
