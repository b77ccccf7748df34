"""The part of `python/disagg/_core.pyi` that says what the specs are, from their declarations in the core.

    python stub.py             says whether the stub is as the core says
    python stub.py --write     writes it

Run from this folder against the installed package; `test_stub.py` does the first.
"""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path

from disagg import _core

STUB = Path(__file__).resolve().parents[1] / "python" / "disagg" / "_core.pyi"
FIRST = "# The specs, from their declarations in the core: written by tests/stub.py.\n"
LAST = "# End of the specs.\n"


def constructor(arguments) -> list[str]:
    """The constructor of a class, an argument a line."""
    lines, named = ["        cls,"], False
    for name, takes, default, how in arguments:
        if how == "KEYWORD_ONLY" and not named:
            named = True
            lines.append("        *,")
        left = "" if default is None else f" = {default}".replace(" = []", " = ()").replace("'", '"')
        lines.append(f"        {'**' if how == 'VAR_KEYWORD' else ''}{name}: {takes}{left},")
    return ["    def __new__(", *lines, "    ) -> Self: ..."]


def classes() -> str:
    """Every class of spec, in the words of a stub."""
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
    # Number formats are long to say.
    formats = next(takes for kind, _, arguments in _core._fields() if kind == "Quant" for _, takes, _, _ in arguments)
    formats = formats.removesuffix(" | None")
    named = formats.removeprefix("Literal[").removesuffix("]").split(", ")
    alias = ["_Format: TypeAlias = Literal[", *(f"    {name}," for name in named), "]"]
    return "\n".join([*alias, "", *out, ""]).replace(f": {formats}", ": _Format")


def whole(text: str) -> str:
    """The stub with its part on specs as the core says."""
    start, end = text.index(FIRST) + len(FIRST), text.index(LAST)
    return text[:start] + classes() + text[end:]


def main() -> int:
    """Compare, or write."""
    text = STUB.read_text(encoding="utf-8")
    wanted = whole(text)
    if "--write" in sys.argv:
        STUB.write_text(wanted, encoding="utf-8")
    return 0 if "--write" in sys.argv or text == wanted else 1


if __name__ == "__main__":
    sys.exit(main())
