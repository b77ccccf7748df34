"""The command line: ``disagg doctor``. Each command is one row of `COMMANDS`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
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
