"""The main study as a command: what it prints and writes, and how it says no."""

import importlib.util
import sys
from pathlib import Path

import pytest

import disagg as dg

STUDY = Path(__file__).resolve().parents[2] / "examples" / "main_study.py"
told = importlib.util.spec_from_file_location("main_study", STUDY)
demo = sys.modules["main_study"] = importlib.util.module_from_spec(told)
told.loader.exec_module(demo)


def run(tmp_path, *options):
    lines = []
    path = demo.main(["--out", str(tmp_path / "r.html"), *options], say=lines.append)
    return "\n".join(lines), path.read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_quick_run_prints_every_level_and_writes_a_report_that_stands_alone(tmp_path):
    text, html = run(tmp_path, "--quick", "--gpus", "16")
    for level in dg.LEVELS:
        assert text.count(f"\n{level} ") == 2  # strict and relaxed
    assert " plans in " in text
    assert text.count("Deploy ") == html.count("Deploy ") >= 1
    assert "Compute time that is measured or interpolated" in text
    assert max(len(line) for line in text.splitlines() if not line.startswith("  ")) <= 160
    assert html.count("data:image/svg+xml;base64,") == 4
    assert "<script" not in html
    assert 'src="http' not in html


def test_a_budget_that_holds_no_plan_is_an_answer_too(tmp_path):
    text, html = run(tmp_path, "--quick", "--gpus", "4")
    assert "no: memory" in text
    assert "nan" not in text
    assert "Nothing keeps the limits" in html
    # What is said of the paper is said of its question only.
    assert "arXiv" not in text + html


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--model", "deepseek-v3.3"], "SpecError: model: unknown model 'deepseek-v3.3'; did you mean"),
        (["--gpus", "0"], "SpecError: gpus: must be from 1"),
        (["--framework", "trt"], "did you mean 'trtllm'?"),
        (["--quick", "--gpus", "4", "--out", "/dev/null/x.html"], "cannot write"),
    ],
)
def test_wrong_values_are_said_in_words(options, said):
    with pytest.raises(SystemExit) as refused:
        demo.main(options, say=lambda _: None)
    assert said in str(refused.value)


def test_plans_in_words():
    unit = dg.AFD(attention=dg.Pool(gpus=16, tp=2), ffn=dg.Pool(gpus=112), microbatches=3, batch=8)
    prefill = dg.Workers(count=2, parallel=dg.Parallel(dp=4, cp=2), batch=1, chunk_tokens=512)
    assert demo.words(dg.PD(prefill=prefill, decode=unit)) == (
        "prefill 2 workers of 8 GPUs (attention DP4 CP2, experts EP8), 1 a rank, 512 tokens a step; "
        "decode 1 unit of 16A (TP2) + 112F, 3 micro-batches, 8 a rank"
    )
