"""Times of the network engines against their targets (`make bench`; `python tests/bench/bench_network.py`)."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

# Milliseconds: a tenth of what the emulated original takes (256 and 1,024 GPUs), and the aims of the fluid engine.
TARGETS = {
    "astra_a2a_256": 14.3,
    "astra_a2a_256_rotated": 16.8,
    "astra_a2a_1024": 451.9,
    "astra_a2a_1024_rotated": 186.1,
    "bound_matrix_1024": 25.0,
    "max_min_matrix_1024": 200.0,
    "fluid_ep72_kv": 1.0,
}


def main() -> None:
    """Run the probe, which is built with the other examples, and print a line a case."""
    root = Path(__file__).resolve().parents[2]
    target = Path(os.environ.get("CARGO_TARGET_DIR", root / "target"))
    probe = target / "release" / "examples" / "network"
    if not probe.exists():
        subprocess.run(
            ["cargo", "build", "--release", "--locked", "--quiet", "--example", "network"], cwd=root, check=True
        )
    out = subprocess.run([probe], capture_output=True, text=True, check=True).stdout
    print("| case | ms | target | met |\n|---|---:|---:|---|")
    for line in out.splitlines():
        name, ms = line.split()
        wanted = TARGETS[name]
        print(f"| {name} | {float(ms):.2f} | {wanted} | {'yes' if float(ms) <= wanted else 'no'} |")


if __name__ == "__main__":
    main()
