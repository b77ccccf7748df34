"""Line 11 of the notebook contract: typed signatures, examples that run; and the README's own blocks."""

import inspect
import json
import re
import typing
from pathlib import Path

import pytest

import disagg as dg
import disagg.report
from disagg import _core

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"

MODULES = [dg.afd, dg.kernels, dg.network, dg.plots, dg.rules, dg.validation, disagg.report]
PUBLIC = {n: getattr(dg, n) for n in dg.__all__ if callable(getattr(dg, n))} | {
    f"{m.__name__}.{n}": getattr(m, n) for m in MODULES for n in m.__all__ if callable(getattr(m, n))
}
FUNCTIONS = {n: f for n, f in PUBLIC.items() if inspect.isfunction(f)}
CLASSES = {n: c for n, c in PUBLIC.items() if inspect.isclass(c)}


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_functions_are_typed_documented_and_mostly_keyword_only(name):
    f = FUNCTIONS[name]
    signature = inspect.signature(f)
    assert signature.return_annotation is not inspect.Signature.empty
    for p in signature.parameters.values():
        assert p.annotation is not inspect.Parameter.empty
    doc = inspect.getdoc(f) or ""
    assert doc
    for p in signature.parameters.values():
        if p.name != "ax":
            assert re.search(rf"\b{re.escape(p.name)}\b", doc), f"{p.name} is not documented"


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_classes_and_their_members_are_documented(name):
    cls = CLASSES[name]
    assert inspect.getdoc(cls)
    for member, value in vars(cls).items():
        if not member.startswith("_") and (callable(value) or isinstance(value, property)):
            assert inspect.getdoc(value), f"{name}.{member}"


@pytest.mark.parametrize(
    "name", ["estimate", "explore", "Model", "Cluster", "Workload", "AFD", "Frame", "disagg.kernels.lookup"]
)
def test_the_main_doors_have_an_example(name):
    assert ">>>" in (inspect.getdoc(PUBLIC[name]) or "")


def test_tab_completion_shows_real_attributes(estimate):
    assert {"tp", "dp", "replace", "to_json"} <= set(dir(dg.Parallel()))
    assert {"kv_transfer", "switches"} <= set(dir(dg.Assumptions.physical()))
    assert {"ttft_ms", "explain", "plot"} <= set(dir(estimate))


def blocks():
    text = README.read_text(encoding="utf-8") if README.exists() else ""
    return re.findall(r"^```python\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)


@pytest.mark.slow
@pytest.mark.skipif(not blocks(), reason="the README has no Python block")
def test_readme_blocks_run_in_order(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for i, block in enumerate(blocks()):
        exec(compile(block, f"README block {i + 1}", "exec"), names)  # noqa: S102


def test_readme_quotes_the_accuracy_page():
    """Figures of the README stand in docs/accuracy, which says from which kernel tables they are."""
    page = (ROOT / "docs/accuracy/README.md").read_text(encoding="utf-8")
    readme = README.read_text(encoding="utf-8")
    index = ROOT / "python/disagg/data/kernels/index.json"
    assert json.loads(index.read_text(encoding="utf-8"))["origin"] in page
    row = re.compile(r"^\| all \| not suspect \| \d+ \| (\d+) \| ([\d.]+ %) \| ([\d.]+ %) \|", re.MULTILINE)
    (n, *tpot), (_, *ttft) = row.findall(page)
    assert f"{int(n):,} distinct measurements" in readme
    for name, (median, mean) in (("TPOT", tpot), ("TTFT", ttft)):
        line = next(x for x in readme.splitlines() if x.startswith(f"- **{name}**"))
        assert f"median {median}" in line.replace("error ", "")
        assert f"mean {mean}" in line
    for picture in re.findall(r"\]\((\w+\.png)\)", page):
        assert (ROOT / "docs/accuracy" / picture).exists()


def hinted():
    """Every public function, method and constructor."""
    for name, f in FUNCTIONS.items():
        yield name, f
    for name, cls in CLASSES.items():
        for member, value in vars(cls).items():
            inner = value.fget if isinstance(value, property) else getattr(value, "__func__", value)
            if inspect.isfunction(inner) and (member == "__init__" or not member.startswith("_")):
                yield f"{name}.{member}", inner


def test_types_of_everything_public_can_be_asked_for():
    broken, judged = [], 0
    for name, f in hinted():
        judged += 1
        try:
            assert "return" in typing.get_type_hints(f)
        except NameError as e:
            broken.append(f"{name}: {e}")
    assert broken == [] and judged > 150
    assert typing.get_type_hints(dg.explore)["options"] == typing.Unpack[_core._Explore]
    assert _core._Explore.__annotations__.keys() >= {"levels", "confidence"}


@pytest.mark.parametrize("name", [n for n, _ in _core._options()])
def test_options_of_the_core_have_types_that_resolve(name):
    found = typing.get_type_hints(getattr(_core, name))
    assert list(found) == [n for n, *_ in dict(_core._options())[name]]
