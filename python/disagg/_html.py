"""Small HTML tables for notebooks: escaped, no script, no colours of their own (dark-mode safe)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

MAX_ROWS = 20

_CELL = "padding:0.15em 0.7em;border-bottom:1px solid rgba(128,128,128,0.3);vertical-align:top"


def _row(cells: Iterable[str], tag: str, aligns: Sequence[str]) -> str:
    body = "".join(
        f'<{tag} style="{_CELL};text-align:{align}">{escape(cell)}</{tag}>'
        for cell, align in zip(cells, aligns, strict=True)
    )
    return f"<tr>{body}</tr>"


def cell(value: Any) -> str:
    """One value as the text of a table cell."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:,.0f}" if 1e4 <= abs(value) < 1e15 else f"{value:.5g}"  # noqa: PLR2004
    return str(value)


def table(
    title: str,
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    numeric: Sequence[bool] | None = None,
    more: int = 0,
    note: str = "",
) -> str:
    """Write an HTML table of cells as text, every one escaped.

    `numeric` says which columns are set to the right, `more` how many further rows are not shown; `note` stands below.
    """
    width = len(header) if header else max((len(r) for r in rows), default=1)
    flags = numeric if numeric is not None else [False] * width
    aligns = ["right" if n else "left" for n in flags]
    parts = ['<table style="border-collapse:collapse">']
    if title:
        parts.append(f'<caption style="text-align:left;font-weight:bold">{escape(title)}</caption>')
    if header:
        parts.append(f"<thead>{_row(header, 'th', aligns)}</thead>")
    parts.append("<tbody>")
    parts.extend(_row(r, "td", aligns) for r in rows)
    parts.append("</tbody></table>")
    if more > 0:
        parts.append(f"<div>&hellip; {more} more rows</div>")
    if note:
        parts.append(f"<div>{escape(note)}</div>")
    return "".join(parts)
