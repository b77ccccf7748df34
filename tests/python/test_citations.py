"""What the code, the comments and the pages cite is there: pages and their sections, files, links, commands."""

import ast
import json
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOREIGN = {"perf_interp_design.md", "legacy.md", "fabric-lib.md", "v.md"}
"""Pages of other projects that are named as sources, and one that a test writes."""
SUFFIXES = (".rs", ".py", ".pyi", ".md", ".toml", ".json", ".ipynb")
WHERE_PAGES_ARE = ("docs/design", "docs", ".")
PAGE = re.compile(
    r"(?<![\w:/.-])((?:[\w.-]+/)*[\w-]+\.md)\b(?:[`)\]]*,?\s+(?:sections?\s+)?([\d.]*\d(?:(?:, | and )[\d.]*\d)*))?"
)
FILE = re.compile(
    r"(?<![\w/.-])((?:src|tests|python|docs|notebooks|examples)/[\w./-]*\.(?:rs|pyi?|md|json|csv|tsv\.zst|tsv|ipynb))\b"
)
DATA = re.compile(r"`((?:serving|network|models|systems|workloads|validation)/[\w.-]+\.(?:json|tsv))`")
LINK = re.compile(r"\]\(([^)\s]+)\)")


def tracked():
    """Files of the repository that a person reads."""
    out = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, check=True)  # noqa: S607
    names = out.stdout.decode().splitlines()
    kept = [n for n in names if n.endswith(SUFFIXES) and not n.startswith(("python/disagg/data/", "tests/golden/"))]
    return [n for n in [*kept, "Makefile", "NOTICE"] if (ROOT / n).exists() and n != "tests/python/test_citations.py"]


FILES = tracked()


def prose(name):
    """The text of a file, comment marks and line breaks taken out; of a notebook its words and code."""
    text = (ROOT / name).read_text(encoding="utf-8")
    if name.endswith(".ipynb"):
        text = "\n".join("".join(c["source"]) for c in json.loads(text)["cells"])
    return re.sub(r"\s*\n\s*(?://[/!]?|#(?= )|\*(?= ))?\s*", " ", text)


TEXTS = {name: prose(name) for name in FILES}


def page(name, cited_in):
    """The file that a mention of a page means."""
    here = (ROOT / cited_in).parent
    for folder in (here, *(ROOT / w for w in WHERE_PAGES_ARE)):
        if (folder / name).is_file():
            return folder / name
    return None


def sections(path):
    return set(re.findall(r"^#+ (\d+(?:\.\d+)?)\.? ", path.read_text(encoding="utf-8"), flags=re.MULTILINE))


def test_every_page_that_is_cited_is_there_with_its_sections():
    wrong, seen = [], 0
    for name, text in TEXTS.items():
        for cited, numbers in PAGE.findall(text):
            if cited.rsplit("/", 1)[-1] in FOREIGN:
                continue
            found = page(cited, name)
            seen += 1
            if found is None:
                wrong.append(f"{name}: {cited}")
            elif "design" in found.parts:
                known = sections(found)
                wrong += [f"{name}: {cited} {n}" for n in re.findall(r"\d+(?:\.\d+)?", numbers) if n not in known]
    assert wrong == []
    assert seen > 80


def test_sections_in_brackets_are_those_of_the_network_page():
    numbers = re.findall(r"\[(\d\.\d)\]", TEXTS["src/network/constants.rs"])
    assert len(numbers) > 3
    assert set(numbers) <= sections(ROOT / "docs/design/network.md")


def test_every_file_that_is_named_is_there():
    found = [(name, path) for name, text in TEXTS.items() for path in FILE.findall(text)]
    found += [(name, f"python/disagg/data/{path}") for name, text in TEXTS.items() for path in DATA.findall(text)]
    assert len(found) > 80
    # `tests/rust/layers` names files of `src` from there.
    assert [f"{n}: {p}" for n, p in found if not (ROOT / p).exists() and not (ROOT / "src" / p).exists()] == []


def slug(heading):
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("name", [n for n in FILES if n.endswith((".md", ".ipynb"))])
def test_links_lead_somewhere(name):
    here = (ROOT / name).parent
    raw = (ROOT / name).read_text(encoding="utf-8")
    headings = {slug(h) for h in re.findall(r"^#+ (.*)$", raw, flags=re.MULTILINE)}
    for link in LINK.findall(TEXTS[name]):
        target, _, anchor = link.partition("#")
        if "://" in link or link.startswith(("attachment:", "data:")):
            continue
        assert not target or (here / target).exists(), link
        assert target or anchor in headings, link


def test_commands_in_the_pages_exist():
    rules = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    cargo = tomllib.loads((ROOT / "Cargo.toml").read_text(encoding="utf-8"))
    examples = {e["name"] for e in cargo["example"]} | {p.stem for p in (ROOT / "examples").glob("*.rs")}
    tests = {p.stem for p in (ROOT / "tests/rust").iterdir()}
    seen = 0
    for name in [n for n in FILES if n.endswith(".md")]:
        text = (ROOT / name).read_text(encoding="utf-8")
        for command, known in (
            (r"`make ([a-z-]+)`", rules),
            (r"--example (\w+)", examples),
            (r"--test rust (\w+)", tests),
        ):
            for word in re.findall(command, text):
                seen += 1
                assert word in known, f"{name}: {word}"
        for module in re.findall(r"python -m disagg\.([\w.]+)", text):
            path = ROOT / "python/disagg" / module.replace(".", "/")
            assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), f"{name}: {module}"
    assert seen > 8


def test_presets_that_programs_and_pages_name_are_there():
    models = (ROOT / "python/disagg/data/models").glob("*.json")
    known = {json.loads(path.read_text(encoding="utf-8"))["name"] for path in models}
    owners = "|".join(sorted({name.split("/")[0] for name in known}))
    code = [n for n in FILES if n.startswith(("tests/bench/", "examples/", "notebooks/")) or n == "README.md"]
    named = [(n, said) for n in code for said in re.findall(rf"""["'\\]((?:{owners})/[\w.-]+)["'\\]""", TEXTS[n])]
    assert len(named) > 25
    assert [f"{n}: {said}" for n, said in named if said not in known] == []


def test_lines_of_the_notebook_contract_are_there():
    lines = set(
        re.findall(r"^(\d+)\. ", (ROOT / "docs/design/notebook.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    )
    cited = []
    for path in (ROOT / "tests/python").glob("test_*.py"):
        said = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        for numbers in re.findall(r"Lines? ([\d, and to]+) of the notebook contract", said):
            cited += re.findall(r"\d+", numbers)
    assert len(cited) > 8
    assert set(cited) <= lines


def test_no_path_of_a_machine():
    assert [n for n, t in TEXTS.items() if re.search(r"(?<![\w.])/(?:home|work|root|Users|mnt)/\w", t)] == []


def test_a_word_of_the_vocabulary_has_one_owner():
    text = (ROOT / "docs/vocabulary.md").read_text(encoding="utf-8").split("## Names of types")[0]
    rows = re.findall(r"^\| ([^|]+) \| ([^|]+) \| `([^`|]+)` \|$", text, flags=re.MULTILINE)
    words = [word for word, _, _ in rows]
    assert len(words) == len(set(words)) > 80
    assert len(rows) == len([line for line in text.splitlines() if line.startswith("| ") and "| owner |" not in line])
    assert [owner for _, _, owner in rows if not (ROOT / owner).is_file()] == []
