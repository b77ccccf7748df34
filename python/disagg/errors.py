"""The exception classes of disagg. The native core raises these very classes.

All of them pickle with their fields, so they cross process borders unharmed.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

__all__ = [
    "CancelledError",
    "DataError",
    "DisaggError",
    "InfeasibleError",
    "InternalError",
    "MissingPackageError",
    "Problem",
    "SpecError",
]


class Problem(NamedTuple):
    """One thing wrong with one field."""

    path: str
    """Dotted path of the field as the user wrote it, e.g. ``plan.decode.parallel.tp``."""
    message: str
    """What is wrong."""
    hint: str = ""
    """What would do; empty when nothing can be said."""

    def __str__(self) -> str:
        """One line: path, what is wrong, what would do."""
        text = f"{self.path}: {self.message}" if self.path else self.message
        return f"{text}; {self.hint}" if self.hint else text


class DisaggError(Exception):
    """Base class of everything that disagg raises on purpose."""


class SpecError(DisaggError, ValueError):
    """The input is wrong. Lists every problem at once.

    Parameters
    ----------
    problems
        What is wrong: ``(path, message[, hint])`` each.

    Examples
    --------
    >>> import disagg as dg
    >>> try:
    ...     dg.Parallel(tp="eight", moe_pt=2)
    ... except dg.SpecError as e:
    ...     print(e.problems[0].path, "|", e.problems[0].hint)
    moe_pt | did you mean 'moe_tp'?
    """

    def __init__(self, problems: Iterable[Iterable[str]]) -> None:
        rows = [Problem(*row) for row in problems]
        super().__init__(rows)
        self.problems: list[Problem] = rows
        """All problems found."""

    @property
    def path(self) -> str:
        """Path of the first problem's field."""
        return self.problems[0].path if self.problems else ""

    @property
    def message(self) -> str:
        """What is wrong with the first problem's field."""
        return self.problems[0].message if self.problems else ""

    @property
    def hint(self) -> str:
        """What would do for the first problem."""
        return self.problems[0].hint if self.problems else ""

    def under(self, prefix: str) -> SpecError:
        """Give the same error with ``prefix`` put before every path."""
        return SpecError((f"{prefix}.{p.path}" if p.path else prefix, p.message, p.hint) for p in self.problems)

    def __str__(self) -> str:
        """One line a problem."""
        return "\n".join(str(p) for p in self.problems)


class InfeasibleError(DisaggError):
    """The plan is well formed but cannot be had: what is short, and by how much.

    Parameters
    ----------
    reason
        What is short, e.g. ``memory of the FFN pool``.
    need, have
        How much is needed and how much there is, with units.
    """

    def __init__(self, reason: str, need: str, have: str) -> None:
        super().__init__(reason, need, have)
        self.reason = reason
        self.need = need
        self.have = have

    def __str__(self) -> str:
        """Say what is short and by how much."""
        return f"{self.reason}: needs {self.need}, has {self.have}"


class DataError(DisaggError):
    """A data file is missing, damaged, or does not hold what was asked.

    Parameters
    ----------
    path
        The file or table.
    message
        What is wrong with it.
    """

    def __init__(self, path: str, message: str) -> None:
        super().__init__(path, message)
        self.path = path
        self.message = message

    def __str__(self) -> str:
        """Path and what is wrong."""
        return f"{self.path}: {self.message}"


class CancelledError(DisaggError):
    """The work was told to stop before it was done."""


class InternalError(DisaggError):
    """A fault in disagg itself; the message is worth a report."""

    def __str__(self) -> str:
        """Say that the fault is ours."""
        said = super().__str__()
        return f"a fault in disagg itself, please report it: {said}"


class MissingPackageError(DisaggError, ImportError):
    """An optional package is needed here and not installed.

    Parameters
    ----------
    package
        What is missing.
    extra
        Which extra of disagg brings it.
    """

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(package, extra)
        self.package = package
        self.extra = extra

    def __str__(self) -> str:
        """Say how to get it."""
        return f"this needs the package '{self.package}': pip install 'disagg[{self.extra}]'"
