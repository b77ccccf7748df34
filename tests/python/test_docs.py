"""Line 11 of the notebook contract: typed signatures, examples that run; and the README's own blocks."""

import inspect
import re
from pathlib import Path

import pytest

import disagg as dg
import disagg.report

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"

MODULES = [dg.kernels, dg.plots, dg.rules, dg.validation, disagg.report]
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
