"""``python -m disagg.kernels build --source <wheel or dir> --out <dir>``"""

from __future__ import annotations

import argparse
import sys


def main(argv: list[str] | None = None) -> int:
    """Run a command; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m disagg.kernels", description="Tools for tables of kernel times.")
    commands = parser.add_subparsers(dest="command", required=True)
    build = commands.add_parser("build", help="build the compact pack, the same bits every time")
    build.add_argument("--source", required=True, help="wheel file, unpacked wheel, or data directory")
    build.add_argument("--out", required=True, help="directory to write index.json and <system>.pack into")
    build.add_argument("--origin", help="provenance line for the index (default: the shipped pack's)")
    build.add_argument("--everything", action="store_true", help="take every table found, not only the shipped ones")
    args = parser.parse_args(argv)

    from .build import ORIGIN
    from .build import build as run
    from .importer import KernelDataError

    try:
        index = run(args.source, args.out, args.origin or ORIGIN, args.everything)
    except KernelDataError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    tables = index["tables"]
    size = sum(t["bytes"] for t in tables) / 1e6
    print(f"{len(tables)} tables, {sum(t['rows'] for t in tables)} rows, {size:.2f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
