"""``python -m disagg.kernels report [system] [framework]`` and ``build --source <wheel or dir> --out <dir>``."""

from __future__ import annotations

import argparse
import sys


def _build(args: argparse.Namespace) -> int:
    from .build import ORIGIN, build
    from .importer import KernelDataError

    try:
        index = build(args.source, args.out, args.origin or ORIGIN, args.everything)
    except KernelDataError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    tables = index["tables"]
    size = sum(t["bytes"] for t in tables) / 1e6
    print(f"{len(tables)} tables, {sum(t['rows'] for t in tables)} rows, {size:.2f} MB")
    return 0


def _report(args: argparse.Namespace) -> int:
    from disagg.errors import DisaggError

    from .query import report, suspects

    try:
        errors = report(args.system, args.framework, samples=args.samples, seed=args.seed)
        doubtful = suspects(args.system, args.framework)
    except DisaggError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    numbers = " ".join(f"{name:>8}" for name in ("median", "p90", "noise", "jitter"))
    print(f"{'table':22} {'lane':20} {'hidden':13} {'edge':5} {'n':>4} {numbers}")
    for r in errors.rows():
        noise = "-" if r["noise"] != r["noise"] else f"{r['noise']:.1%}"
        print(
            f"{r['table']:22} {r['lane']:20} {r['axis']:13} {r['edge']:5} {r['n']:4d} "
            f"{r['median_error']:8.1%} {r['p90_error']:8.1%} {noise:>8} {r['jitter']:8.1%}"
            f"{'' if r['within'] else '  worse than aimed at'}"
        )
    print(f"\n{len(doubtful)} suspect lanes:")
    for r in doubtful.rows():
        print(f"{r['table']:22} {r['lane']}: {r['reason']}")
    return 0


def main(argv: list[str] | None = None) -> int:
    """Run a command; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m disagg.kernels", description="Tools for tables of kernel times.")
    commands = parser.add_subparsers(dest="command", required=True)
    report = commands.add_parser("report", help="leave-one-out errors by table, and the lanes that look wrong")
    report.add_argument("system", nargs="?", default="b200_sxm")
    report.add_argument("framework", nargs="?", default="sglang")
    report.add_argument("--samples", type=int, default=30, help="rows drawn from each table (30)")
    report.add_argument("--seed", type=int, default=0, help="of the draw (0)")
    report.set_defaults(run=_report)
    build = commands.add_parser("build", help="build the compact pack, the same bits every time")
    build.add_argument(
        "--source",
        nargs="+",
        required=True,
        help="wheels, unpacked wheels or data directories; the first that has a table",
    )
    build.add_argument("--out", required=True, help="directory to write index.json and <system>.pack into")
    build.add_argument("--origin", help="provenance line for the index (default: the shipped pack's)")
    build.add_argument("--everything", action="store_true", help="take every table found, not only the shipped ones")
    build.set_defaults(run=_build)
    args = parser.parse_args(argv)
    return int(args.run(args))


if __name__ == "__main__":
    sys.exit(main())
