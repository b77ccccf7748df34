"""A file of finished work units: appended, checked, locked, and safe to cut off or damage anywhere.

Layout: a magic line, then records of ``mark (8 bytes), length (8, little-endian), CRC-32 (4), digest (16), payload``.
The first payload is JSON that says which work the file belongs to, and the digest of every record is that of this JSON;
each later payload is a numpy archive of one unit's columns with its range. The CRC covers all but the mark. A record is
written in one piece and synced. One that is torn (power cut, ``kill -9``), zeroed or flipped fails its CRC and loses
only itself: reading goes on at the next mark. Records of other work, or of a range that is there already, do not count.

One process at a time writes: a POSIX record lock (``fcntl``), which the system takes from a process that dies.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import stat
import struct
import threading
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np

from disagg._files import as_path, explained
from disagg.errors import DataError, SpecError

try:
    import fcntl
except ImportError:  # Windows: within this process alone
    fcntl = None  # type: ignore[assignment]

__all__ = ["Checkpoint"]

MAGIC = b"disagg checkpoint 2\n"
MARK = b"\x93unit\r\n\x1a"
_HEAD = struct.Struct("<QI16s")

Unit = dict[str, Any]

_OPEN: set[tuple[int, int, int]] = set()
_GUARD = threading.Lock()


class Checkpoint:
    """Finished units of one piece of work, on disk; open, and so locked, until `close`.

    Parameters
    ----------
    path
        The file; made if it is not there.
    identity
        What the work is (JSON-able); a file of other work is refused.
    size
        Points of the work: units lie within ``0..size``.

    Raises
    ------
    SpecError
        If the file belongs to other work, or another sweep is writing it.
    DataError
        If the file is not a checkpoint, or cannot be made, read or locked.
    """

    def __init__(self, path: str | os.PathLike[str], identity: dict[str, Any], size: int) -> None:
        self.path = as_path(path, "checkpoint")
        self.size = size
        self.units: dict[tuple[int, int], Unit] = {}
        self._wanted = json.dumps(identity, sort_keys=True).encode()
        self._digest = hashlib.sha256(self._wanted).digest()[:16]
        self._held: tuple[int, int, int] | None = None
        with explained(self.path, "be opened"):
            # Neither a pipe without a writer nor a directory is opened: a checkpoint is a file.
            if self.path.exists() and not stat.S_ISREG(self.path.stat().st_mode):
                raise DataError(str(self.path), "is not a file")
            handle = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
        self._file: BinaryIO = os.fdopen(handle, "r+b", buffering=0)
        try:
            self._lock()
            with explained(self.path, "be read"):
                self._read()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let go of the file."""
        with _GUARD:
            if self._held is not None:
                _OPEN.discard(self._held)
                self._held = None
            self._file.close()

    def _lock(self) -> None:
        found = os.fstat(self._file.fileno())
        key = (os.getpid(), found.st_dev, found.st_ino)
        busy = SpecError([("checkpoint", f"another sweep is writing {self.path}", "wait for it, or give another path")])
        with _GUARD:
            if key in _OPEN:
                raise busy
            if fcntl is not None:
                try:
                    fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except (BlockingIOError, PermissionError):
                    raise busy from None
                except OSError as e:
                    message = f"cannot be locked ({e.strerror}); give a path on a disk that has locks"
                    raise DataError(str(self.path), message) from e
            _OPEN.add(key)
            self._held = key

    def _read(self) -> None:
        data = self._file.readall() if isinstance(self._file, io.FileIO) else self._file.read()
        blank = not data.strip(b"\0") or MAGIC.startswith(data)
        if not blank and not data.startswith(b"disagg checkpoint") and MARK not in data:
            raise DataError(str(self.path), "is not a checkpoint of disagg")
        if data.startswith(b"disagg checkpoint 1\n"):
            raise DataError(str(self.path), "is a checkpoint of an earlier version; remove it, or give another path")
        own = False
        self._end = 0
        for digest, payload, end in _records(data):
            if digest != self._digest:
                self._refuse(payload)
            own = own or payload == self._wanted
            if payload != self._wanted:
                self._take(payload)
            self._end = end
        if own and data.startswith(MAGIC):
            return
        # New, or the damage fell on the first record: units that are known by their digest are written again.
        self._file.seek(0)
        self._file.truncate(0)
        self._end = 0
        self._write(MAGIC + self._record(self._wanted))
        for key, unit in self.units.items():
            self._write(self._record(_packed(key, unit)))

    def _refuse(self, payload: bytes) -> None:
        try:
            theirs, ours = json.loads(payload), json.loads(self._wanted)
            differ = ", ".join(sorted(k for k in {*theirs, *ours} if theirs.get(k) != ours.get(k)))
        except (ValueError, AttributeError, RecursionError):
            differ = "its units"
        message = f"{self.path} belongs to another study: {differ} differ"
        raise SpecError([("checkpoint", message, "give another path, or remove the file")])

    def _take(self, payload: bytes) -> None:
        """Keep a unit that is whole, of this work and of points that no other unit has."""
        try:
            with np.load(io.BytesIO(payload), allow_pickle=False) as archive:
                unit = {name: archive[name] for name in archive.files}
            start, stop = (int(x) for x in unit.pop("__range__"))
        except Exception:  # noqa: BLE001 - whatever numpy makes of it: it is not a unit
            return
        names = next(iter(self.units.values()), unit).keys()
        whole = unit.keys() == names and all(v.shape == (stop - start,) for v in unit.values())
        apart = all(stop <= a or start >= b for a, b in self.units)
        if 0 <= start < stop <= self.size and whole and apart:
            self.units[start, stop] = unit

    def add(self, start: int, stop: int, unit: Unit) -> None:
        """Write one finished unit; nothing is done twice if it is there already.

        Raises
        ------
        DataError
            If the disk is full or does not answer; what was written before stays.
        """
        if (start, stop) in self.units:
            return
        with explained(self.path, "be written", "; what was done before is kept: call again with room for more"):
            self._write(self._record(_packed((start, stop), unit)))
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

    def _record(self, payload: bytes) -> bytes:
        body = struct.pack("<Q", len(payload)) + self._digest + payload
        return MARK + _HEAD.pack(len(payload), zlib.crc32(body), self._digest) + payload

    def _write(self, record: bytes) -> None:
        """Put a record after the last good one, whatever a write before has left there."""
        self._file.seek(self._end)
        self._file.truncate(self._end)
        left = memoryview(record)
        while left:
            left = left[self._file.write(left) :]
        os.fsync(self._file.fileno())
        self._end += len(record)


def _packed(key: tuple[int, int], unit: Unit) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, __range__=np.array(key), **unit)
    return buffer.getvalue()


def _records(data: bytes) -> Iterator[tuple[bytes, bytes, int]]:
    """Every whole record: its digest, its payload and where it ends; what lies between them is skipped."""
    at = data.find(MARK)
    while at >= 0:
        body = at + len(MARK) + _HEAD.size
        end = body
        if body <= len(data):
            length, crc, digest = _HEAD.unpack_from(data, at + len(MARK))
            end = body + length
            if end <= len(data):
                payload = data[body:end]
                if zlib.crc32(payload, zlib.crc32(struct.pack("<Q", length) + digest)) == crc:
                    yield digest, payload, end
                    at = data.find(MARK, end)
                    continue
        at = data.find(MARK, at + 1)
