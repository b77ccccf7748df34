"""A self-contained HTML report: tables and figures in one file, no script, no external link."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any

from disagg import _html
from disagg._columns import Text
from disagg._optional import require
from disagg.errors import SpecError
from disagg.frame import Frame

__all__ = ["write_report"]

_STYLE = """
:root { color-scheme: light dark; --ink: #1a1a1a; --paper: #ffffff; --line: #d0d0d0; --faint: #666666; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e6e6; --paper: #16181c; --line: #3a3f47; --faint: #9aa0a8; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
       max-width: 72rem; margin: 2rem auto; padding: 0 1.2rem; }
h1 { font-size: 1.7rem; } h2 { font-size: 1.25rem; margin-top: 2.2rem; border-bottom: 1px solid var(--line); }
.scroll { overflow-x: auto; margin: 0.8rem 0; }
table { border-collapse: collapse; font-size: 0.88rem; font-variant-numeric: tabular-nums; }
th, td { border-bottom: 1px solid var(--line); padding: 0.2rem 0.7rem; text-align: left; vertical-align: top; }
th.n, td.n { text-align: right; }
figure { display: inline-block; margin: 0.5rem 0.8rem 0.5rem 0; max-width: 35rem; vertical-align: top; }
img { max-width: 100%; box-sizing: border-box; background: #ffffff; padding: 0.5rem; border-radius: 4px; }
pre { overflow-x: auto; font-size: 0.82rem; border: 1px solid var(--line); padding: 0.7rem; }
footer { color: var(--faint); font-size: 0.85rem; margin-top: 3rem; }
"""


def _table(frame: Frame, most: int) -> str:
    classes = ["" if isinstance(frame._column(n), Text) else ' class="n"' for n in frame.columns]
    head = "".join(f"<th{c}>{escape(n)}</th>" for n, c in zip(frame.columns, classes, strict=True))
    body = []
    for i in range(min(len(frame), most)):
        cells = zip(frame.row(i).values(), classes, strict=True)
        body.append("<tr>" + "".join(f"<td{c}>{escape(_html.cell(v))}</td>" for v, c in cells) + "</tr>")
    more = f"<p>&hellip; {len(frame) - most} more rows</p>" if len(frame) > most else ""
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table>"
    return f'<div class="scroll">{table}</div>{more}'


def _figure(figure: Any, alt: str) -> str:
    mpl = require("matplotlib", extra="plot")
    out = io.BytesIO()
    # The same figure gives the same bytes: no date, and names that do not depend on memory addresses.
    with mpl.rc_context({"svg.hashsalt": "disagg", "svg.fonttype": "path"}):
        figure.savefig(out, format="svg", bbox_inches="tight", dpi=150, metadata={"Date": None, "Creator": None})
    data = base64.b64encode(out.getvalue()).decode("ascii")
    return f'<figure><img alt="{escape(alt)}" src="data:image/svg+xml;base64,{data}"></figure>'


def _content(content: Any, heading: str, most: int) -> str:
    if isinstance(content, Frame):
        return _table(content, most)
    if isinstance(content, str):
        return content
    if hasattr(content, "savefig"):
        return _figure(content, heading)
    if hasattr(content, "get_figure"):
        return _figure(content.get_figure(), heading)
    if hasattr(content, "_repr_html_"):
        return f'<div class="scroll">{content._repr_html_()}</div>'
    if isinstance(content, Iterable):
        return "".join(_content(c, heading, most) for c in content)
    hint = "expected HTML text, a Frame, a figure, axes, or a list of those"
    raise SpecError([(f"sections.{heading}", f"a {type(content).__name__} cannot be shown", hint)])


def text(words: str) -> str:
    """Make HTML of plain text, as it stands (line breaks and columns are kept).

    Examples
    --------
    >>> text("a < b")
    '<pre>a &lt; b</pre>'
    """
    return f"<pre>{escape(words)}</pre>"


def write_report(
    path: str | Path,
    title: str,
    sections: Sequence[tuple[str, Any]],
    *,
    footer: str = "",
    most_rows: int = 200,
) -> Path:
    """Write a self-contained HTML report.

    Parameters
    ----------
    path
        File to write; its directory is made if need be.
    title
        What the report is called.
    sections
        ``(heading, content)`` each. Content is HTML text, a `Frame`, a matplotlib figure or axes, anything with an
        HTML representation, or a list of those. Plain text goes through `text`.
    footer
        A line at the end, plain text.
    most_rows
        Rows of a table to show.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    SpecError
        If a content cannot be shown, or brings a script or an external link.

    Examples
    --------
    >>> import tempfile, pathlib, disagg as dg
    >>> from disagg.report import write_report
    >>> with tempfile.TemporaryDirectory() as there:
    ...     file = write_report(pathlib.Path(there) / "r.html", "Study", [("Table", dg.Frame({"x": [1]}))])
    ...     file.read_text(encoding="utf-8").startswith("<!doctype html>")
    True
    """
    parts = []
    for heading, content in sections:
        made = _content(content, heading, most_rows)
        _refuse_links(heading, made)
        parts.append(f"<section><h2>{escape(heading)}</h2>{made}</section>")
    page = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>"
        f"<body><h1>{escape(title)}</h1>{''.join(parts)}<footer>{escape(footer)}</footer></body></html>\n"
    )
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(page, encoding="utf-8")
    return file


def _refuse_links(heading: str, html: str) -> None:
    low = html.lower()
    for bad in ("<script", "javascript:", 'src="http', "src='http", 'href="http', "href='http", "@import", "<iframe"):
        if bad in low:
            raise SpecError([(f"sections.{heading}", f"holds {bad!r}", "the report stands alone")])
