"""Rebuilds ``python/disagg/data/validation/vllm.tsv`` from the request logs of two measured vLLM servers.

    python tests/bench/build_vllm.py path/to/vllm_measured

The logs are casys-kaist/LLMServingSim, bench/examples (MIT): 300 requests each. A request's ``arrival_time`` is the
client's clock, all later times are the engine's, which stamps ``queued_ts`` between two of its steps only: what a
request waits for the step in flight has passed by then. The two clocks differ by a constant (no drift in 30 s) that the
log does not tell; the request that came through fastest is taken to have come through at once, so that TTFT counts
from the client's arrival.
"""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path

TARGET = Path(__file__).parents[2] / "python/disagg/data/validation/vllm.tsv"


def main(folder: str) -> None:
    lines = ["run\tarrival_s\tisl\tosl\tttft_ms\ttpot_ms"]
    for run in ("RTX4090", "RTXPRO6000"):
        path = Path(folder) / f"{run}_Llama-3.1-8B_requests.jsonl.gz"
        rows = [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]
        rows.sort(key=lambda r: r["arrival_time"])
        start = rows[0]["arrival_time"]
        # Seconds of the engine's clock at the client's first arrival.
        offset = min(r["queued_ts"] - (r["arrival_time"] - start) for r in rows)
        for r in rows:
            arrival = r["arrival_time"] - start
            ttft = r["first_token_ts"] - offset - arrival
            tpot = (r["last_token_ts"] - r["first_token_ts"]) / (r["output_toks"] - 1)
            numbers = f"{arrival:.6f}\t{r['input_toks']}\t{r['output_toks']}\t{ttft * 1e3:.3f}\t{tpot * 1e3:.5f}"
            lines.append(f"{run}\t{numbers}")
    TARGET.write_text("\n".join(lines) + "\n")
    print(f"{len(lines) - 1} requests")


if __name__ == "__main__":
    main(sys.argv[1])
