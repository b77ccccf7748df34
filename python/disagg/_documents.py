"""Documentation that calls share: a parameter that means the same everywhere is documented here, once."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

__all__ = ["SHARED", "plot", "with_shared"]

F = TypeVar("F", bound=Callable[..., Any])

SHARED = {
    "model": "What is served.",
    "cluster": "On what: the GPUs of the budget, and how they are joined.",
    "workload": "For whom: the lengths of prompts and answers.",
    "plan": 'Which GPUs do what; None inside it means "choose for me", and the choice stands in the result.',
    "framework": (
        'Whose kernels: ``"trtllm"``, ``"sglang"`` or ``"vllm"``; None: the one whose tables know most of the\n'
        "model on that system, whatever the number of GPUs and what-if figures."
    ),
    "frameworks": "`framework` under its other name.",
    "quant": "Number formats; None: what the framework's server takes by default.",
    "serving": "Speculation, balance, overlap, launch mode, memory fraction; None: the framework's own.",
    "assumptions": "Modelling choices; None: ``Assumptions.physical()``.",
    "levels": 'Which levels of disaggregation; ``"afd"`` is both AFD levels.',
    "seed": "The same seed gives the same bits.",
    "progress": "None: a bar after one second where somebody can see it; True; False; or ``f(done, total)``.",
    "system": "A preset of GPUs, as ``dg.systems()`` lists them.",
    "device": "Device behind the rooflines; None: the system's.",
    "path": "The file.",
    "on_error": '``"raise"``, or ``"skip"`` what cannot be read.',
    "ax": "Where to draw; None: new axes.",
    "force": "Whether to write the commands of a plan that breaks a rule as well; the rules stand in ``.notes``.",
    "version": "Version of the framework, or the name of an import; None: the default.",
}
"""Parameter to what it means wherever a docstring does not say otherwise."""

_SECTION = re.compile(r"^(\w[\w ]*)\n-{3,}$", flags=re.MULTILINE)


def with_shared(doc: str | None, names: Sequence[str], more: dict[str, str] | None = None) -> str | None:
    """Give a docstring with the shared parameters that it does not document itself, in the order of the call.

    `names` are the parameters of the call, `more` further shared ones.
    """
    shared = SHARED | (more or {})
    if doc is None or not shared.keys() & set(names):
        return doc
    before, own, after = _parted(inspect.cleandoc(doc))
    entries = _entries(own)
    told = {name for head, _ in entries for name in head}
    further = [n for n in names if n in shared and n not in told]
    if not further:
        return doc
    entries += [([n], "\n".join(f"    {line}" for line in shared[n].splitlines())) for n in further]
    order = {name: i for i, name in enumerate(names)}
    entries.sort(key=lambda e: order.get(e[0][0].lstrip("*"), len(order)))
    section = "\n".join(f"{', '.join(head)}\n{body}" for head, body in entries)
    return f"{before}\n\nParameters\n----------\n{section}" + (f"\n\n{after}" if after else "")


def plot(function: F) -> F:
    """Document a plot with what all plots share: where it is drawn, and what it gives."""
    before, own, after = _parted(inspect.cleandoc(function.__doc__ or ""))
    if before:
        gives = "Returns\n-------\nmatplotlib.axes.Axes"
        section = f"Parameters\n----------\n{own}\nax\n    {SHARED['ax']}"
        function.__doc__ = "\n\n".join(part for part in (before, section, gives, after) if part)
    return function


def _parted(text: str) -> tuple[str, str, str]:
    """Part a docstring into what stands before its parameters, the parameters, and the sections after them."""
    heads = [(m.group(1), m.start(), m.end()) for m in _SECTION.finditer(text)]
    starts = [start for _, start, _ in heads] + [len(text)]
    for i, (name, start, end) in enumerate(heads):
        if name == "Parameters":
            return text[:start].rstrip("\n"), text[end : starts[i + 1]].strip("\n"), text[starts[i + 1] :].strip("\n")
    return text[: starts[0]].rstrip("\n"), "", text[starts[0] :].strip("\n")


def _entries(section: str) -> list[tuple[list[str], str]]:
    """Take a section apart: the names of each entry, and its lines."""
    found: list[tuple[list[str], str]] = []
    for part in re.split(r"\n(?=\S)", section) if section else []:
        head, _, body = part.partition("\n")
        if body or not found or found[-1][1]:
            found.append(([n.strip() for n in head.split(",") if n.strip()], body))
        else:
            # Names that go on in the next line.
            found[-1][0].extend(n.strip() for n in head.split(",") if n.strip())
    return found
