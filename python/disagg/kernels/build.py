"""Builds the compact pack from a directory or wheel of measurements, the same bits every time.

The pack is one ``<system>.pack`` per system and one ``index.json``; its format stands beside its reader
(``src/kernels/pack.rs``), which writes the content of each frame as well. What is done here: tables are found, files
read, frames compressed (the bits depend on the zstd library only through its version, which the index names).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from disagg import _core

from . import layout
from .importer import KernelDataError, find_root, find_tables, read_table

LEVEL = 19

Source = str | os.PathLike[str]


def build(
    source: Source | Sequence[Source], out: Source, *, origin: str | None = None, everything: bool = False
) -> dict[str, Any]:
    """Read wheels or directories of kernel tables into a pack (needs pyarrow and zstandard).

    Parameters
    ----------
    source
        Wheel, unpacked wheel or data directory, or several: a table that several have is that of the first.
    out
        Directory to write ``index.json`` and ``<system>.pack`` into; ``kernels.use`` reads it.
    origin
        Line that the index says of its source; None: the names of the files.
    everything
        Take every table found, not only those that are read.

    Returns
    -------
    dict
        The index as written.

    Raises
    ------
    DataError
        If a source is no wheel and no directory of tables, or a file of it cannot be read as a whole.
    """
    sources = [Path(s) for s in ([source] if isinstance(source, (str, os.PathLike)) else source)]
    with contextlib.ExitStack() as scratch:
        roots = [find_root(_unpacked(s, scratch)) for s in sources]
        return _build(roots, Path(out), origin or ", ".join(s.name for s in sources), everything)


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
        payload, rows, known = _core.kernels_frame(table, read_table(path, table), compressor.compress)
        frame = compressor.compress(payload)
        pack = packs.setdefault(system, bytearray())
        noise = known["noise"]
        entries.append(
            {
                "system": system,
                "framework": framework,
                "version": version,
                "table": table,
                "file": f"{system}.pack",
                "offset": len(pack),
                "bytes": len(frame),
                "unpacked": len(payload),
                "crc32": zlib.crc32(frame),
                "rows": rows,
                "provenance": {
                    "path": path.relative_to(root).as_posix(),
                    "family": family,
                    "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
                    "kernel_sources": known["kernel_sources"],
                    "rows_in_source": known["rows_in_source"],
                    "duplicates": known["duplicates"],
                    "noise": {
                        n: round(v, 6) for n, v in noise.items() if n == "repeated_keys" or noise["repeated_keys"]
                    },
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
