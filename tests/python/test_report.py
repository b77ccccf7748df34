"""The HTML report stands alone: one file, no script, no link."""

import re

import pytest

import disagg as dg
from disagg.report import text, write_report


def test_a_report_of_everything(tmp_path, study):
    file = write_report(
        tmp_path / "deep" / "report.html",
        "How far <can> it go?",
        [
            ("Words", "<p>As HTML.</p>" + text("as < text")),
            ("Table", study.table),
            ("Plot", study.plot.pareto()),
            ("Figure", study.plot.memory().figure),
            ("Several", [study.best(), study.points.head(3)]),
        ],
        footer="a & b",
    )
    page = file.read_text(encoding="utf-8")
    assert "How far &lt;can&gt; it go?" in page
    assert "as &lt; text" in page
    assert "a &amp; b" in page
    assert page.count("data:image/svg+xml;base64,") == 2
    assert "prefers-color-scheme: dark" in page
    assert "<script" not in page
    assert not re.search(r"(src|href)=[\"']?http", page)


def test_the_same_report_gives_the_same_bytes(tmp_path, study):
    sections = [("Table", study.table), ("Plot", study.plot.ratio())]
    one, two = (write_report(tmp_path / n, "t", sections).read_bytes() for n in ("a.html", "b.html"))
    assert one == two


def test_long_tables_are_cut(tmp_path):
    file = write_report(tmp_path / "r.html", "t", [("x", dg.Frame({"x": range(300)}))], most_rows=10)
    assert "290 more rows" in file.read_text(encoding="utf-8")


@pytest.mark.parametrize("bad", ["<script>x</script>", '<img src="https://a/b.png">', '<a href="http://a">'])
def test_links_and_scripts_are_refused(tmp_path, bad):
    with pytest.raises(dg.SpecError, match="stands alone"):
        write_report(tmp_path / "r.html", "t", [("bad", bad)])


def test_what_cannot_be_shown_is_refused(tmp_path):
    with pytest.raises(dg.SpecError, match="cannot be shown"):
        write_report(tmp_path / "r.html", "t", [("n", 3)])
