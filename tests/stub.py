"""`python/disagg/_core.pyi`, from what the core says of itself.

    python stub.py             says whether the stub is as the core says
    python stub.py --write     writes it

Run from this folder against the installed package; `test_stub.py` does the first. The types of functions and classes
stand in the binary, a JSON fragment each (PyO3's `experimental-inspect`), those of specs are asked of it (`_fields`).
What Rust does not tell (arrays, tables, callbacks) is said beside the function, in its `#[pyo3(signature)]`.
"""

from __future__ import annotations

import json
import re
import struct
import sys
import textwrap
from pathlib import Path

from disagg import _core

STUB = Path(__file__).resolve().parents[1] / "python" / "disagg" / "_core.pyi"
WIDTH = 120
HEAD = """# Written by tests/stub.py from what the core says of itself; a change of the binding is followed by
# `python tests/stub.py --write`.
"""
# What signatures in the core call by a name.
ALIASES = {
    "_Report": "Callable[[int, int], object] | None",
    "_Payload": "tuple[dict[str, Any], dict[str, str]]",
    "_Floats": "npt.NDArray[np.float64]",
    "_Ints": "npt.NDArray[np.int64]",
    "_Bools": "npt.NDArray[np.bool_]",
}
MODULES = {
    "collections.abc": ("Callable", "Mapping", "Sequence"),
    "inspect": ("Signature",),
    "os": ("PathLike",),
    "typing": ("Any", "Literal", "Required", "Self", "TypeAlias", "TypedDict", "final"),
    "typing_extensions": ("disjoint_base",),
}
# PyO3 takes whatever turns into a number or a list; the house hands over numbers and lists. What is in a tuple or a
# dict is told only where a signature says so.
PLAIN = {
    r"SupportsFloat \| SupportsIndex": "float",
    r"SupportsIndex": "int",
    r"SupportsGetItem\[int, ": "Sequence[",
    r"SupportsLenAndGetItem\[": "Sequence[",
    r"bytes \| bytearray": "bytes",
    r"\btuple\b(?!\[)": "tuple[Any, ...]",
    r"\bdict\b(?!\[)": "dict[str, Any]",
}


def fragments(data):
    """What the binary says of itself: length and JSON, one after another anywhere in it."""
    found = []
    for place in re.finditer(rb'\{"', data):
        start = place.start()
        (length,) = struct.unpack_from("<I", data, start - 4)
        if data[start + length - 1 : start + length] == b"}":
            try:
                one = json.loads(data[start : start + length])
            except ValueError:
                continue
            if isinstance(one, dict) and "type" in one:
                found.append(one)
    return found


def constant(kind, value=None, **_):
    """A constant as Python writes it."""
    return {"none": "None", "bool": str(value), "str": json.dumps(value)}.get(kind, value)


class Writer:
    """Writes functions and classes; names of classes by their ids."""

    def __init__(self, said):
        self.classes = {one["id"]: one["name"] for one in said if one["type"] == "class"}

    def expression(self, node):
        """An annotation or a default."""
        match node["type"]:
            case "name":
                text = node["id"]
            case "id":
                text = self.classes[node["id"]]
            case "attribute":
                text = node["attr"]
            case "binop":
                text = f"{self.expression(node['left'])} | {self.expression(node['right'])}"
            case "subscript":
                text = f"{self.expression(node['value'])}[{self.expression(node['slice'])}]"
            case "tuple":
                text = ", ".join(map(self.expression, node["elts"]))
            case "constant":
                text = constant(**node)
        return text

    def annotation(self, node):
        """A type: as Rust has it, or as the signature says in words."""
        text = node["value"] if node.get("kind") == "str" else self.expression(node)
        for odd, plain in PLAIN.items():
            text = re.sub(odd, plain, text)
        assert "Incomplete" not in text, text
        return text

    def argument(self, one):
        text = one["name"]
        if "annotation" in one:
            text += f": {self.annotation(one['annotation'])}"
        if "default" in one:
            default = self.expression(one["default"])
            text += f" = {default}" if "annotation" in one else f"={default}"
        return text

    def arguments(self, said):
        """All arguments, in order."""
        first = [self.argument(one) for one in said.get("posonlyargs", [])]
        if len(first) > 1:
            first.append("/")
        found = [*first, *(self.argument(one) for one in said.get("args", []))]
        if "vararg" in said:
            found.append(f"*{self.argument(said['vararg'])}")
        elif said.get("kwonlyargs"):
            found.append("*")
        found += [self.argument(one) for one in said.get("kwonlyargs", [])]
        return [*found, f"**{self.argument(said['kwarg'])}"] if "kwarg" in said else found

    def function(self, one, indent=""):
        """A function or method, in one line or an argument a line."""
        lines = [f"{indent}@{self.expression(d)}" for d in one.get("decorators", [])]
        given, returns = self.arguments(one["arguments"]), self.annotation(one["returns"])
        start, end = f"{indent}def {one['name']}(", f") -> {returns}: ..."
        whole = f"{start}{', '.join(given)}{end}"
        if len(whole) <= WIDTH:
            return [*lines, whole]
        return [*lines, start, *(f"{indent}    {argument}," for argument in given), f"{indent}{end}"]

    def native(self, one, methods):
        """A class of the core's own."""
        lines = [f"@{self.expression(d)}" for d in one.get("decorators", [])] + [f"class {one['name']}:"]
        order = sorted(methods, key=lambda m: (m["name"] != "__new__", m["name"].startswith("__"), m["name"]))
        return [*lines, *(line for m in order for line in self.function(m, "    ")), *([] if methods else ["    ..."])]


def constructor(arguments):
    """The constructor of a spec, an argument a line."""
    lines, named = ["        cls,"], False
    for name, takes, default, how in arguments:
        if how == "KEYWORD_ONLY" and not named:
            named = True
            lines.append("        *,")
        left = "" if default is None else f" = {default}".replace(" = []", " = ()").replace("'", '"')
        lines.append(f"        {'**' if how == 'VAR_KEYWORD' else ''}{name}: {takes}{left},")
    return ["    def __new__(", *lines, "    ) -> Self: ..."]


def specs():
    """Every class of spec, from its declaration."""
    out = []
    for kind, attributes, arguments in _core._fields():
        first, *rest = (getattr(_core, kind).__doc__ or "").strip().splitlines()
        out.append(f"class {kind}(Spec):")
        out += textwrap.indent("\n".join([f'"""{first}', *rest, '"""']), "    ").splitlines()
        out += ["", "    __signature__: Signature", *constructor(arguments)]
        own = [*attributes, ("kind", "str")] if kind == "Distribution" else attributes
        for name, gives in own:
            out += ["    @property", f"    def {name}(self) -> {gives}: ..."]
        out.append("")
    out.pop()
    # Number formats are long to say.
    formats = next(takes for kind, _, arguments in _core._fields() if kind == "Quant" for _, takes, _, _ in arguments)
    formats = formats.removesuffix(" | None")
    listed = formats.removeprefix("Literal[").removesuffix("]").split(", ")
    alias = ["_Format: TypeAlias = Literal[", *(f"    {name}," for name in listed), "]"]
    return alias, "\n".join(out).replace(f": {formats}", ": _Format").splitlines()


def options():
    """Every group of options that calls share."""
    out = []
    for name, taken in _core._options():
        out.append(f"class {name}(TypedDict, total=False):")
        out += [f"    {n}: {f'Required[{takes}]' if required else takes}" for n, takes, required, _, _ in taken]
        out.append("")
    return out


def stub(data):
    """The whole stub."""
    said = fragments(data)
    writer = Writer(said)
    (module,) = [one for one in said if one["type"] == "module"]
    members = [one for one in said if one.get("id") in module["members"]]
    classes = [one for one in members if one["type"] == "class"]
    functions = [one for one in members if one["type"] == "function"]
    alias, declared = specs()
    body = options()
    for one in sorted(classes, key=lambda one: one["name"]):
        methods = [f for f in said if f["type"] == "function" and f.get("parent") == one["id"]]
        body += [*writer.native(one, methods), ""]
    body += [*declared, ""]
    for one in sorted(functions, key=lambda one: one["name"]):
        body += writer.function(one)
    names = [one["name"] for one in (*classes, *functions)] + [kind for kind, _, _ in _core._fields()]
    names.sort(key=lambda n: (not n.isupper(), not n[0].isupper(), n))
    text = "\n".join([*alias, "", *body])
    aliases = [f"{n}: TypeAlias = {what}" for n, what in ALIASES.items() if re.search(rf"\b{n}\b", text)]
    text = "\n".join([*aliases, text])
    lines = [HEAD.rstrip()]
    for module, known in MODULES.items():
        used = [name for name in known if re.search(rf"\b{name}\b", text)]
        if used and module != "typing_extensions":
            lines.append(f"from {module} import {', '.join(used)}")
    lines += ["", "import numpy as np", "import numpy.typing as npt"]
    lines += ["from typing_extensions import disjoint_base", "", "from disagg import specs", ""]
    lines += ["__all__ = [", *(f'    "{name}",' for name in names), "]", ""]
    return "\n".join([*lines, text, ""])


def main():
    """Compare, or write."""
    wanted = stub(Path(_core.__file__).read_bytes())
    if "--write" in sys.argv:
        STUB.write_text(wanted, encoding="utf-8")
    return 0 if wanted == STUB.read_text(encoding="utf-8") else 1


if __name__ == "__main__":
    sys.exit(main())
