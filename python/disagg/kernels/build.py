"""Builds the compact pack from a directory or wheel of measurements, the same bits every time.

The pack is one ``<system>.pack`` per system and one ``index.json``. A pack is a sequence of zstd
frames, one per table, found by offset and length in the index and guarded there by a CRC-32. A
frame unpacks to::

    u32 little endian   length of the header
    header              JSON: rows, keys, measures (how each column is coded)
    columns             in the order of the header

The index holds a CRC-32 of its own text (``seal``).

* A key column with one value has no bytes. Any other is a code per row (1 or 2 bytes) into its
  sorted values, each code stored as the difference to the row before (rows are sorted by key, so
  nearly all differences repeat). A column that changes seldom has ``runs``: one such difference per
  run of equal codes, then the lengths of the runs as u16 in byte planes.
* A measure is f32, either ``plain`` (its four byte planes one after the other) or ``dict``: a u32
  count, the distinct bit patterns in rising order as differences in byte planes, then one index
  per row in byte planes. Timers tick, so a table repeats its numbers; the smaller coding is taken.

The bits depend on the zstd library only through its version, which the index names.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from . import layout
from .collapse import Collapsed, Key, collapse
from .importer import KernelDataError, find_root, find_tables, read_table

LEVEL = 19
ORIGIN = (
    "aiconfigurator-core 0.12.0 and, what that has not, aisimulate 0.13.0.dev202610270000000085 (PyPI), "
    "Apache-2.0, Copyright NVIDIA CORPORATION & AFFILIATES"
)

Source = str | Path


def build(
    source: Source | Sequence[Source], out: str | Path, origin: str = ORIGIN, everything: bool = False
) -> dict[str, Any]:
    """Writes the pack of ``source`` into ``out``.

    Parameters
    ----------
    source : str, path, or several
        Wheel files, unpacked wheels or data directories. A table that several have is that of the first.
    origin : str
        Provenance line written into the index.
    everything : bool
        Take every table found instead of those the shipped pack names.

    Returns
    -------
    dict
        The index as written.
    """
    sources = [Path(s) for s in ([source] if isinstance(source, (str, Path)) else source)]
    with contextlib.ExitStack() as scratch:
        roots = [find_root(_unpacked(s, scratch)) for s in sources]
        return _build(roots, Path(out), origin, everything)


def _unpacked(source: Path, scratch: contextlib.ExitStack) -> Path:
    """The directory itself, or that of a wheel's tables."""
    if not source.is_file():
        return source
    target = scratch.enter_context(tempfile.TemporaryDirectory())
    try:
        with zipfile.ZipFile(source) as wheel:
            wheel.extractall(target, [n for n in wheel.namelist() if n.endswith(layout.SUFFIX)])
    except zipfile.BadZipFile as error:
        raise KernelDataError(source, f"is no wheel: {error}") from error
    return Path(target)


def _build(roots: Sequence[Path], out: Path, origin: str, everything: bool) -> dict[str, Any]:
    import zstandard

    found: dict[tuple[str, str, str, str, str], tuple[Path, Path]] = {}
    for root in roots:
        for system, family, framework, version, table, path in find_tables(root):
            found.setdefault((system, family, framework, version, table), (path, root))
    wanted = [n for n in sorted(found) if everything or layout.in_pack(*n)]
    if not wanted:
        raise KernelDataError(", ".join(map(str, roots)), "none of the tables the pack takes are here")
    out.mkdir(parents=True, exist_ok=True)
    compressor = zstandard.ZstdCompressor(level=LEVEL, write_content_size=True)
    packs: dict[str, bytearray] = {}
    entries = []
    for name in wanted:
        system, family, framework, version, table = name
        path, root = found[name]
        data = path.read_bytes()
        rows = collapse(table, read_table(path, table))
        payload = _payload(rows, compressor)
        frame, unpacked = compressor.compress(payload), len(payload)
        pack = packs.setdefault(system, bytearray())
        kernels = next((k.values for k in rows.keys if k.name == "kernel_source"), [])
        entries.append(
            {
                "system": system,
                "framework": framework,
                "version": version,
                "table": table,
                "file": f"{system}.pack",
                "offset": len(pack),
                "bytes": len(frame),
                "unpacked": unpacked,
                "crc32": zlib.crc32(frame),
                "rows": rows.rows,
                "provenance": {
                    "path": path.relative_to(root).as_posix(),
                    "family": family,
                    "sha256": hashlib.sha256(data).hexdigest(),
                    "kernel_sources": kernels,
                    "rows_in_source": rows.rows_before,
                    "duplicates": "median",
                    "noise": rows.noise,
                },
            }
        )
        pack += frame
    for system, pack in packs.items():
        (out / f"{system}.pack").write_bytes(bytes(pack))
    index = {
        "format": "disagg-kernels",
        "pack_version": layout.PACK_VERSION,
        "crc32": "00000000",
        "origin": origin,
        "compressor": f"zstd {'.'.join(map(str, zstandard.ZSTD_VERSION))} level {LEVEL}",
        "tables": entries,
    }
    lines = [json.dumps(e, separators=(",", ":")) for e in entries]
    head = json.dumps({k: v for k, v in index.items() if k != "tables"}, indent=1)[:-2]
    # One table a line, so that a rebuilt pack can be read in a diff.
    text = seal(f'{head},\n "tables": [\n' + ",\n".join(lines) + "\n ]\n}\n")
    (out / "index.json").write_text(text, encoding="utf-8", newline="\n")
    written: dict[str, Any] = json.loads(text)
    return written


def seal(text: str) -> str:
    """Gives the text of an index with its own checksum in its first ``crc32``.

    The checksum is that of the text with these eight digits read as zeros, without carriage returns: a byte that is
    changed anywhere in the index is then found when it is read.
    """
    before, mark, rest = text.partition('"crc32": "')
    plain = f"{before}{mark}00000000{rest[8:]}"
    return f"{before}{mark}{zlib.crc32(plain.replace(chr(13), '').encode()):08x}{rest[8:]}"


def _payload(table: Collapsed, compressor: Any) -> bytes:
    """A frame's content, with whichever coding of each measure is smaller once compressed."""
    heads, bodies = [], []
    for name, values in table.measures:
        bits = values.view("<u4") if values.dtype.byteorder == "<" else values.astype("<f4").view("<u4")
        codings = [({"name": name, "coding": "plain"}, _planes(bits, 4)), _dictionary(name, bits)]
        head, body = min(codings, key=lambda c: len(compressor.compress(c[1])))
        heads.append(head)
        bodies.append(body)
    keys = [_key(k) for k in table.keys]
    header = {"rows": table.rows, "keys": [h for h, _ in keys], "measures": heads}
    text = json.dumps(header, separators=(",", ":")).encode("utf-8")
    return struct.pack("<I", len(text)) + text + b"".join(b for _, b in keys) + b"".join(bodies)


def _key(key: Key) -> tuple[dict[str, Any], bytes]:
    width = 0 if len(key.values) == 1 else 1 if len(key.values) <= 1 << 8 else 2
    if len(key.values) > 1 << 16:
        raise KernelDataError("pack", "more than 65536 distinct values", key.name)
    head = {"name": key.name, "width": width, "text" if key.is_text else "int": key.values}
    if width == 0:
        return head, b""
    kind = "<u1" if width == 1 else "<u2"
    count = len(key.codes)
    # A run starts where the code changes, and after 65535 rows at the latest.
    starts = np.flatnonzero(np.diff(key.codes, prepend=-1))
    ends = np.append(starts[1:], count)
    starts = np.concatenate([np.arange(a, b, 0xFFFF) for a, b in zip(starts, ends, strict=True)])
    if 4 * len(starts) > count:
        return head, np.diff(key.codes, prepend=0).astype(kind).tobytes()
    lengths = np.diff(np.append(starts, count)).astype("<u4")
    differences = np.diff(key.codes[starts], prepend=0).astype(kind)
    return head | {"runs": len(starts)}, differences.tobytes() + _planes(lengths, 2)


def _dictionary(name: str, bits: np.ndarray) -> tuple[dict[str, Any], bytes]:
    distinct, index = np.unique(bits, return_inverse=True)
    width = 1 if len(distinct) <= 1 << 8 else 2 if len(distinct) <= 1 << 16 else 3
    differences = np.diff(distinct, prepend=np.uint32(0)).astype("<u4")
    body = struct.pack("<I", len(distinct)) + _planes(differences, 4) + _planes(index.astype("<u4"), width)
    return {"name": name, "coding": "dict", "width": width}, body


def _planes(words: np.ndarray, width: int) -> bytes:
    """The lowest ``width`` bytes of each word, byte planes one after the other."""
    return words.view(np.uint8).reshape(-1, 4)[:, :width].T.tobytes()
