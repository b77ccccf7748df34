"""The types of the specs are written once: the stub says of them what the core says."""

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[1] / "stub.py"


def test_the_stub_says_what_the_core_says():
    done = subprocess.run([sys.executable, SCRIPT], check=False)
    assert done.returncode == 0, "python tests/stub.py --write"
