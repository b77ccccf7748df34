"""The types of the core are written once, in Rust: the stub is written whole from what the binary says of itself."""

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[1] / "stub.py"


def test_the_stub_says_what_the_core_says():
    done = subprocess.run([sys.executable, SCRIPT], check=False)
    assert done.returncode == 0, "python tests/stub.py --write"
