"""From rows as measured to distinct keys: repeats become their median, their spread is kept.

The same steps are taken by the core for imported tables (``kernels::import``);
``tests/golden/kernel_collapse.json`` holds the two together.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from . import layout


@dataclass
class Key:
    """A key column as codes into its sorted distinct values."""

    name: str
    values: list[Any]
    codes: np.ndarray

    @property
    def is_text(self) -> bool:
        """Whether the values are text."""
        return isinstance(self.values[0], str)


@dataclass
class Collapsed:
    """One table with distinct keys, sorted by them (first column slowest)."""

    keys: list[Key]
    measures: list[tuple[str, np.ndarray]]
    rows_before: int
    noise: dict[str, float] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """Distinct keys."""
        return len(self.keys[0].codes)


def canonical(name: str, value: str) -> str:
    """One spelling per meaning: an 8-bit KV cache is e4m3 in every framework measured."""
    return "fp8" if name == "kv_cache_dtype" and value == "fp8_e4m3" else value


def collapse(table: str, columns: dict[str, np.ndarray]) -> Collapsed:
    """Sorts rows by key and replaces repeats by their median (per measure, rounded to f32)."""
    drop = layout.ignored(table)
    names = [n for n in columns if not layout.is_measure(n) and n not in drop]
    keys = [_encode(n, columns[n]) for n in names]
    last = next((n for n in layout.LAST_AXIS if any(k.name == n and len(k.values) > 1 for k in keys)), None)
    keys.sort(key=lambda k: (not k.is_text, k.name == last, names.index(k.name)))

    count = len(keys[0].codes)
    order = np.lexsort([k.codes for k in reversed(keys)])
    for key in keys:
        key.codes = key.codes[order]
    first = np.zeros(count, bool)
    first[0] = True
    for key in keys:
        first[1:] |= key.codes[1:] != key.codes[:-1]
    starts = np.flatnonzero(first)
    ends = np.append(starts[1:], count)
    for key in keys:
        key.codes = key.codes[starts]

    repeated = np.flatnonzero(ends - starts > 1)
    measures: list[tuple[str, np.ndarray]] = []
    noise: dict[str, float] = {}
    for name in (n for n in columns if layout.is_measure(n)):
        values = columns[name][order]
        out = values[starts]
        spread = []
        for i in repeated:
            group = values[starts[i] : ends[i]]
            out[i] = np.median(group)
            if group.min() > 0.0:
                spread.append(group.max() / group.min() - 1.0)
        measures.append((name, out.astype(np.float32)))
        if not noise:
            noise = {"repeated_keys": len(repeated)}
            if spread:
                noise["spread_median"] = round(float(np.median(spread)), 6)
                noise["spread_p95"] = round(float(np.quantile(spread, 0.95)), 6)
                noise["spread_max"] = round(float(np.max(spread)), 6)
    return Collapsed(keys, measures, count, noise)


def _encode(name: str, values: np.ndarray) -> Key:
    if values.dtype == object:
        values = values.copy()
        for spelled in set(values.tolist()):
            if canonical(name, spelled) != spelled:
                values[values == spelled] = canonical(name, spelled)
        # Sorted by code point, as Rust sorts them.
        distinct = sorted(set(values.tolist()))
        index = {v: i for i, v in enumerate(distinct)}
        return Key(name, distinct, np.array([index[v] for v in values.tolist()], np.int64))
    numbers, codes = np.unique(values, return_inverse=True)
    return Key(name, [int(v) for v in numbers], codes.astype(np.int64))
