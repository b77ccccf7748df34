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


def classes() -> str:
    """Every class of spec, in the words of a stub."""
    out = []
    for kind, plain, fields in _core._fields():
        out.append(f"class {kind}(Spec):")
        doc = getattr(_core, kind).__doc__ if plain else None
        if doc:
            first, *rest = doc.strip().splitlines()
            out += textwrap.indent("\n".join([f'"""{first}', *rest, '"""']), "    ").splitlines()
            out.append("")
        if plain:
            arguments = [f"{name}: {takes}" + ("" if d is None else f" = {d}") for name, _, takes, d in fields]
            arguments = [a.replace(" = []", " = ()").replace("'", '"') for a in arguments]
            out.append("    __signature__: Signature")
            out.append("    def __new__(")
            out += ["        cls,", "        *,", *(f"        {a}," for a in arguments), "    ) -> Self: ..."]
        else:
            out.append("    def __new__(cls, made: Spec, /) -> Self: ...")
        for name, gives, _, _ in fields:
            out += ["    @property", f"    def {name}(self) -> {gives}: ..."]
        if kind == "Distribution":
            out += ["    @property", "    def kind(self) -> str: ..."]
        out.append("")
    # Number formats are long to say.
    formats = next(takes for kind, _, fields in _core._fields() if kind == "Quant" for _, _, takes, _ in fields)
    formats = formats.removesuffix(" | None")
    return "\n".join([f"_Format: TypeAlias = {formats}", "", *out, ""]).replace(f": {formats}", ": _Format")


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
