"""Rebuilds ``python/disagg/data/validation/silicon.tsv.zst`` from ``silicon_sample.csv``.

    python tests/bench/build_silicon.py path/to/aiconfigurator_core/systems/silicon_sample.csv

The file is part of the wheel ``aiconfigurator-core`` 0.12.0 (PyPI, Apache-2.0, Copyright NVIDIA
CORPORATION & AFFILIATES). Every row stays, in its order. Left out: columns that no prediction
reads, and of the source column everything but the concurrency, the day and the name of the collection.
Values are copied as text; nothing is corrected here, that is for the rules in
``src/validation/silicon/labels.rs``. Same input, same text, bit for bit; the compressed bytes
also depend on the version of the ``zstd`` command.
"""

from __future__ import annotations

import csv
import hashlib
import re
import subprocess
import sys
from pathlib import Path

SHA256 = "4240bfaf555b6f8b2c62512074e5efbb7791cdbb0344b068408f397588499adb"
SIDE = ["tp_size", "pp_size", "attention_dp_size", "moe_tp_size", "moe_ep_size"]
COLUMNS = (
    ["id", "backend", "backend_version", "model_path", "system", "precision", "mode", "isl", "osl", "gemm_quant_mode"]
    + ["batch_size", *SIDE]
    + [f"{slot}_{c}" for slot in ("prefill", "decode") for c in ["batch_size", "num_workers", *SIDE]]
    + ["silicon_ttft_ms", "silicon_tpot_ms"]
)
TARGET = Path(__file__).parents[2] / "python/disagg/data/validation/silicon.tsv.zst"


def collection(source: str) -> str:
    """Who measured: an InferenceX export, or the sweep of another benchmark client."""
    first = source.split(";", maxsplit=1)[0].removeprefix("source_file=")
    if re.fullmatch(r"\d{4}-\d\d-\d\d\.csv", first) or first.startswith("db-dump") or "gap-analysis.csv" in first:
        return "inferencex"
    return "dynamo"


def number(text: str) -> str:
    """Milliseconds to six significant digits."""
    return f"{float(text):.6g}" if text else ""


def main(path: str) -> None:
    raw = Path(path).read_bytes()
    if hashlib.sha256(raw).hexdigest() != SHA256:
        sys.exit("not the silicon_sample.csv of aiconfigurator-core 0.12.0")
    lines = ["\t".join(["concurrency", "collection", "measured", *COLUMNS])]
    for row in csv.DictReader(raw.decode().splitlines()):
        found = re.search(r"silicon_concurrency=(\d+)", row["silicon_data_source"])
        for c in ("silicon_ttft_ms", "silicon_tpot_ms"):
            row[c] = number(row[c])
        day = re.search(r"measured=(\d{4}-\d\d-\d\d)", row["silicon_data_source"])
        head = [found[1] if found else "", collection(row["silicon_data_source"]), day[1] if day else ""]
        lines.append("\t".join(head + [row[c] for c in COLUMNS]))
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    text = ("\n".join(lines) + "\n").encode()
    packed = subprocess.run(["zstd", "-19", "-c", "--no-check"], input=text, capture_output=True, check=True).stdout
    TARGET.write_bytes(packed)
    print(f"{len(lines) - 1} rows, {len(text)} bytes, {len(packed)} packed")


if __name__ == "__main__":
    main(sys.argv[1])
