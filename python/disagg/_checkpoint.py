"""A file of finished work units: appended, checked, and safe to cut off anywhere.

Layout: a magic line, then records of ``length (8 bytes, little-endian), CRC-32 (4 bytes), payload``.
The first payload is JSON that says which work the file belongs to; each later one is a numpy
archive of one unit's columns with its range. A record is written in one piece and synced; a torn
last record (power cut, ``kill -9``) fails its length or its CRC and is cut off on the next opening.
"""

from __future__ import annotations

import io
import json
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from disagg.errors import DataError, SpecError

__all__ = ["Checkpoint"]

MAGIC = b"disagg checkpoint 1\n"
_HEAD = struct.Struct("<QI")

Unit = dict[str, Any]


class Checkpoint:
    """Finished units of one piece of work, on disk.

    Parameters
    ----------
    path
        The file; made if it is not there.
    identity
        What the work is (JSON-able); a file of other work is refused.

    Raises
    ------
    SpecError
        If the file belongs to other work.
    DataError
        If the file is not a checkpoint.
    """

    def __init__(self, path: str | os.PathLike[str], identity: dict[str, Any]) -> None:
        self.path = Path(path)
        self.units: dict[tuple[int, int], Unit] = {}
        wanted = json.dumps(identity, sort_keys=True).encode()
        if self.path.exists() and self.path.stat().st_size > 0:
            self._read(wanted)
        else:
            with self.path.open("wb") as file:
                file.write(MAGIC + _record(wanted))
                _sync(file)

    def _read(self, wanted: bytes) -> None:
        with self.path.open("r+b") as file:
            if file.read(len(MAGIC)) != MAGIC:
                raise DataError(str(self.path), "is not a checkpoint of disagg")
            found = _next(file)
            if found is None:
                raise DataError(str(self.path), "is cut off in its first record; remove it to begin again")
            if found != wanted:
                theirs, ours = json.loads(found), json.loads(wanted)
                differ = sorted(k for k in {*theirs, *ours} if theirs.get(k) != ours.get(k))
                message = f"{self.path} belongs to another study: {', '.join(differ)} differ"
                raise SpecError([("checkpoint", message, "give another path, or remove the file")])
            good = file.tell()
            while (payload := _next(file)) is not None:
                with np.load(io.BytesIO(payload), allow_pickle=False) as archive:
                    unit = {name: archive[name] for name in archive.files}
                start, stop = (int(x) for x in unit.pop("__range__"))
                self.units[start, stop] = unit
                good = file.tell()
            file.truncate(good)

    def add(self, start: int, stop: int, unit: Unit) -> None:
        """Write one finished unit; nothing is done twice if it is there already."""
        if (start, stop) in self.units:
            return
        buffer = io.BytesIO()
        np.savez(buffer, __range__=np.array([start, stop]), **unit)
        with self.path.open("ab") as file:
            file.write(_record(buffer.getvalue()))
            _sync(file)
        self.units[start, stop] = unit

    def missing(self, size: int) -> list[tuple[int, int]]:
        """Give the ranges of ``0..size`` that no unit covers, in order."""
        gaps, at = [], 0
        for start, stop in sorted(self.units):
            if start > at:
                gaps.append((at, start))
            at = max(at, stop)
        if at < size:
            gaps.append((at, size))
        return gaps


def _record(payload: bytes) -> bytes:
    return _HEAD.pack(len(payload), zlib.crc32(payload)) + payload


def _next(file: Any) -> bytes | None:
    """Read one whole record, or None at the end or where the file is torn."""
    head = file.read(_HEAD.size)
    if len(head) < _HEAD.size:
        return None
    length, crc = _HEAD.unpack(head)
    payload: bytes = file.read(length)
    return payload if len(payload) == length and zlib.crc32(payload) == crc else None


def _sync(file: Any) -> None:
    file.flush()
    os.fsync(file.fileno())
