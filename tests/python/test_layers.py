"""The law of the Python face: a file uses only the floors below its own, or its own floor without a circle.

The floors stand in CONTRIBUTING.md ("The floors of `python/disagg`") and are read from there. Every import counts,
those inside functions too. Two do not:

- Names under ``if TYPE_CHECKING``: they are never imported. They say what a function is given, and no file needs the
  other to run, to be tested or to be moved.
- The facade of a package (its ``__init__``) when one of the package's files is imported by its own path.
"""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "python" / "disagg"
MOST_LINES = 500


def files():
    """Name inside the package ("" is the facade) to path."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


FILES = files()


def floors():
    """Name to floor, as the table says; a package stands for its files that have no row of their own."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    section = text[text.index("## The floors of `python/disagg`") :].split("\n## ")[0]
    table = {}
    for floor, names in re.findall(r"^\| (\d+) \| ([^|]*) \|", section, flags=re.MULTILINE):
        for name in re.findall(r"`([^`]+)`", names):
            key = "" if name == "__init__" else name
            assert key not in table, f"{name} stands on two floors"
            table[key] = int(floor)
    return table


def floor_of(name, table):
    parts = name.split(".")
    known = [".".join(parts[:n]) for n in range(len(parts), 0, -1)]
    return next((table[k] for k in known if k in table), None)


def imports(text, name, known):
    """Files of the package that a source text imports, anywhere in it."""
    tree = ast.parse(text)
    only_types = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")
        for statement in node.body
        for inner in ast.walk(statement)
    }
    package = name.split(".") if known.get(name, Path()).name == "__init__.py" else name.split(".")[:-1]
    found = set()
    for node in ast.walk(tree):
        if id(node) in only_types:
            continue
        if isinstance(node, ast.Import):
            whole = [a.name for a in node.names]
        elif isinstance(node, ast.ImportFrom):
            up = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*(["disagg"] if node.level else []), *filter(None, up), *filter(None, [node.module])])
            whole = [f"{module}.{a.name}" for a in node.names]
        else:
            continue
        for target in whole:
            if target != "disagg" and not target.startswith("disagg."):
                continue
            inside = target.removeprefix("disagg").removeprefix(".")
            while inside not in known and inside != "_core":
                inside = inside.rpartition(".")[0]
            found.add(inside)
    return found - {name}


def circles(uses):
    """Sets of files that use one another in a ring (each file reaches the others and they reach it)."""

    def reached(start):
        seen, todo = set(), [start]
        while todo:
            for used in uses.get(todo.pop(), ()):
                if used not in seen:
                    seen.add(used)
                    todo.append(used)
        return seen

    reach = {name: reached(name) for name in uses}
    return {frozenset(o for o in reach[n] if n in reach.get(o, ())) for n in uses if n in reach[n]}


USES = {name: imports(path.read_text(encoding="utf-8"), name, FILES) for name, path in FILES.items()}


def test_the_table_holds_every_file_and_nothing_else():
    table = floors()
    assert len(FILES) > 50
    assert [n for n in FILES if floor_of(n, table) is None] == []
    assert [n for n in table if n not in FILES and n != "_core"] == []


def test_no_file_uses_a_floor_above_its_own():
    table = floors()
    wrong = [
        f"{name}: floor {floor_of(name, table)} uses {used or '__init__'}: floor {floor_of(used, table)}"
        for name, used_ones in USES.items()
        for used in sorted(used_ones)
        if floor_of(used, table) > floor_of(name, table)
    ]
    assert wrong == []


def test_no_files_build_on_one_another_in_a_circle():
    assert sum(map(len, USES.values())) > 200
    assert [sorted(c) for c in circles(USES)] == []


def test_no_file_has_two_subjects():
    lengths = {name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in FILES.items()}
    assert {n: k for n, k in lengths.items() if k > MOST_LINES} == {}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("from disagg import _core, frame", {"_core", "frame"}),
        ("from disagg.frame import Frame", {"frame"}),
        ("import disagg.plots.bars", {"plots.bars"}),
        ("def f():\n    from disagg.plots import bars, breakdown", {"plots.bars", "plots"}),
        ("import disagg as dg", {""}),
        ("from . import _style\nfrom .. import frame", {"plots._style", "frame"}),
        ("if TYPE_CHECKING:\n    from disagg.frame import Frame", set()),
        ("import numpy\nfrom json import loads", set()),
    ],
)
def test_the_law_sees_what_it_should(text, found):
    assert imports(text, "plots.audit", FILES) == found


def test_a_circle_is_seen():
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": set()}) == {frozenset({"b", "c"})}
