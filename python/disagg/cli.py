"""The command line: ``disagg data``, ``disagg doctor``. Each command is one row of `COMMANDS`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from disagg.errors import DisaggError

__all__ = ["COMMANDS", "Command", "main"]


class Command(NamedTuple):
    """One subcommand."""

    name: str
    """What is typed after ``disagg``."""
    summary: str
    """One line of help."""
    arguments: Callable[[argparse.ArgumentParser], object]
    """Adds what it takes."""
    run: Callable[[argparse.Namespace], int]
    """Does it and gives the exit status."""


def _data_arguments(parser: argparse.ArgumentParser) -> None:
    what = parser.add_subparsers(dest="what", required=True)
    build = what.add_parser("build", help="read wheels or directories of kernel tables into a pack")
    build.add_argument(
        "source", nargs="+", help="wheel, unpacked wheel or data directory; the first that has a table counts"
    )
    build.add_argument("--out", required=True, help="directory to write index.json and <system>.pack into")
    build.add_argument("--origin", help="provenance line for the index (default: the files' names)")
    build.add_argument("--everything", action="store_true", help="take every table found, not only those that are read")
    diff = what.add_parser("diff", help="say which verdicts of the standard questions move between two packs")
    diff.add_argument("old", help="directory of a pack, wheel, or 'shipped'")
    diff.add_argument("new", help="the same")
    report = what.add_parser("report", help="leave-one-out errors by table, and the lanes that look wrong")
    report.add_argument("system", nargs="?", default="b200_sxm")
    report.add_argument("framework", nargs="?", default="sglang")
    report.add_argument("--samples", type=int, default=30, help="rows drawn from each table (30)")
    report.add_argument("--seed", type=int, default=0, help="of the draw (0)")
    support = what.add_parser("support", help="write the page that says what was measured")
    support.add_argument("--out", help="file to write (default: print it)")


def _data(args: argparse.Namespace) -> int:
    from disagg import refresh

    if args.what == "build":
        built = refresh.build(args.source, args.out, origin=args.origin, everything=args.everything)
        size = sum(t["bytes"] for t in built["tables"]) / 1e6
        rows = sum(t["rows"] for t in built["tables"])
        print(f"{len(built['tables'])} tables, {rows} rows, {size:.1f} MB in {args.out}")
        print(f"to ask it: disagg.kernels.use({args.out!r})")
        return 0
    if args.what == "diff":
        print(refresh.told(refresh.diff(args.old, args.new)))
        return 0
    if args.what == "report":
        print(refresh.known(args.system, args.framework, samples=args.samples, seed=args.seed))
        return 0
    page = refresh.support()
    if args.out is None:
        print(page, end="")
    else:
        Path(args.out).write_text(page, encoding="utf-8", newline="\n")
    return 0


def _doctor(_: argparse.Namespace) -> int:
    from disagg._versions import check, show_versions

    show_versions()
    problems = check()
    for path, message in problems:
        print(f"{path}: {message}")
    if problems:
        print(f"{len(problems)} problems: install the package again")
    else:
        print("every file and every table is as it was shipped")
    return 1 if problems else 0


COMMANDS: list[Command] = [
    Command("data", "build packs of kernel tables, compare them, say what was measured", _data_arguments, _data),
    Command("doctor", "check that the installation is whole", lambda _: None, _doctor),
]


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Parameters
    ----------
    argv
        The words after ``disagg``; None: those of the process.

    Returns
    -------
    int
        0 if all is well, 1 if not, 2 for words that mean nothing.

    Examples
    --------
    >>> from disagg.cli import main
    >>> main(["doctor"])  # doctest: +ELLIPSIS
    disagg      ...
    every file and every table is as it was shipped
    0
    """
    parser = argparse.ArgumentParser(prog="disagg", description="How far can disaggregation of LLM serving go?")
    commands = parser.add_subparsers(dest="command", required=True)
    for command in COMMANDS:
        command.arguments(commands.add_parser(command.name, help=command.summary, description=command.summary))
    args = parser.parse_args(argv)
    try:
        return next(c for c in COMMANDS if c.name == args.command).run(args)
    except DisaggError as e:
        print(f"error: {e}", file=sys.stderr)
        return 1
