"""Names that questions are asked by: frameworks under one of two spellings, levels and their families."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from disagg.errors import Problem, SpecError

LEVELS = ("aggregated", "pd", "aggregated+afd", "pd+afd")
FAMILIES = {"afd": ("aggregated+afd", "pd+afd")}

Names = str | Sequence[str] | None
"""One name, several, or None."""


def named(name: str, values: Any, example: str, what: str = "names") -> list[str]:
    """Give one name (or `what` it is) or a list of them as a list."""
    if isinstance(values, str):
        return [values]
    if isinstance(values, dict | bytes) or not isinstance(values, Iterable):
        raise SpecError([Problem(name, f"a {type(values).__name__} is not a list of {what}", f"e.g. {example}")])
    found = list(values)
    one = "a name" if what == "names" else what
    wrong = [
        Problem(f"{name}[{i}]", f"{v!r} is not {one}", f"e.g. {example}")
        for i, v in enumerate(found)
        if not isinstance(v, str)
    ]
    if wrong:
        raise SpecError(wrong)
    return found


def several(framework: Names, frameworks: Names) -> list[str] | None:
    """Give the frameworks named under either spelling; None: none was."""
    if framework is not None and frameworks is not None:
        raise SpecError(
            [Problem("frameworks", "framework and frameworks are two spellings of one argument", "give one of them")]
        )
    name, given = ("framework", framework) if frameworks is None else ("frameworks", frameworks)
    return None if given is None else named(name, given, "'vllm', or ['trtllm', 'vllm']")


def single(framework: Names, frameworks: Names, why: str) -> str | None:
    """Give the one framework named under either spelling; None: none was. `why`: what takes no more than one."""
    found = several(framework, frameworks)
    if found is None:
        return None
    if len(found) != 1:
        name = "framework" if frameworks is None else "frameworks"
        message = f"{len(found)} names, but {why} is priced with the kernels of one framework"
        raise SpecError([Problem(name, message, "name one; dg.explore and dg.regimes compare several")])
    return found[0]


def expanded(levels: Any) -> list[str]:
    """Give levels with families spelled out: ``"afd"`` is both AFD levels."""
    found = named("levels", levels, "['pd', 'pd+afd']")
    return list(dict.fromkeys(level for name in found for level in FAMILIES.get(name, (name,))))
