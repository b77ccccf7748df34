"""Requests a second of the simulator, side by side with ai-dynamo-runtime where that is installed.

``python tests/bench/bench_sim.py`` after ``cargo build --release --example sim`` (``make bench`` does
both). The peer is optional: ``pip install ai-dynamo-runtime==1.6.1``. The Mooncake conversation trace
(Apache-2.0, github.com/kvcache-ai/Mooncake) is read from ``DISAGG_MOONCAKE``, plain or gzipped.
"""

from __future__ import annotations

import gzip
import os
import re
import subprocess
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = os.environ.get(
    "DISAGG_EXAMPLES", Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release" / "examples"
)


def ours(*arguments: str) -> tuple[float, float]:
    """Seconds of a case (the better of two runs) and its peak of memory in MiB."""
    out = subprocess.run([Path(EXAMPLES) / "sim", *arguments], check=True, capture_output=True, text=True).stdout
    found = re.findall(r": ([\d.]+) s, .* peak (\d+) MiB", out)
    return min(float(seconds) for seconds, _ in found), max(float(mib) for _, mib in found)


def peer(requests: int, workers: int, gap_ms: float) -> float | None:
    """Seconds of the peer on the same requests; None where it is not installed."""
    try:
        from dynamo._core import run_mocker_synthetic_trace_replay
    except ImportError:
        return None
    start = time.perf_counter()
    run_mocker_synthetic_trace_replay(1024, 200, requests, num_workers=workers, arrival_interval_ms=gap_ms)
    return time.perf_counter() - start


def peer_trace(path: str, workers: int) -> float | None:
    """Seconds of the peer on a Mooncake trace."""
    try:
        from dynamo._core import run_mocker_trace_replay
    except ImportError:
        return None
    start = time.perf_counter()
    run_mocker_trace_replay([path], num_workers=workers, trace_block_size=512)
    return time.perf_counter() - start


def line(name: str, requests: int, case: tuple[float, float], other: float | None = None) -> None:
    """Print one row."""
    seconds, mib = case
    beside = "peer not run" if other is None else f"peer {other:7.2f} s, {other / seconds:6.1f} times ours"
    print(f"{name:34} {seconds:7.3f} s {requests / seconds:10.0f} requests/s {mib:6.0f} MiB   {beside}")


def main() -> None:
    """Print the rows."""
    other = peer(20_000, 4, 20)
    line("20k of 1024 -> 200, 4 workers", 20_000, ours("short"), other)
    line("the same, fixed step times", 20_000, ours("short", "fixed"), other)
    line("100k on 64 instances", 100_000, ours("wide"), peer(100_000, 64, 1.25))
    line("a million of 512 -> 64 on 64", 1_000_000, ours("million"))
    trace = os.environ.get("DISAGG_MOONCAKE")
    if not trace:
        print("Mooncake conversation trace: set DISAGG_MOONCAKE to its path")
        return
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / "trace.jsonl"
        read = gzip.open if trace.endswith(".gz") else open
        with read(trace, "rb") as source:
            plain.write_bytes(source.read())
        line("Mooncake conversation, 16 instances", 12_031, ours("mooncake", str(plain)), peer_trace(str(plain), 16))


if __name__ == "__main__":
    main()
