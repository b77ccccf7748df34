"""Traces: readers, draws, bad input."""

import pickle
from pathlib import Path

import pytest

import disagg as dg

GOLDEN = Path(__file__).parent.parent / "golden" / "traces"


def test_readers_give_the_public_numbers() -> None:
    trace = dg.Trace.mooncake(GOLDEN / "mooncake_conversation_200.jsonl.gz")
    assert len(trace) == 200
    assert trace.requests["isl"][:2].tolist() == [6758, 7322]
    assert trace.prefix_hit(tokens=512) <= trace.prefix_hit() == trace.stats()["prefix_hit"]
    assert len(dg.Trace.azure(GOLDEN / "azure_conv_2023_200.csv").window(0, 20)) < 200
    assert dg.Trace.weka(GOLDEN / "weka_session.json.gz").stats()["sessions"] == 1
    assert dg.Trace.lengths(GOLDEN / "arxiv_summarization_200.csv", rate=2).requests["osl"][0] == 54


def test_bad_lines_name_the_line_or_are_counted() -> None:
    path = GOLDEN / "burstgpt_form.csv"
    with pytest.raises(dg.DataError, match=r"burstgpt_form\.csv:5"):
        dg.Trace.burstgpt(path)
    assert dg.Trace.burstgpt(path, on_error="skip").stats()["skipped"] == 1
    with pytest.raises(dg.SpecError, match="on_error"):
        dg.Trace.burstgpt(path, on_error="ignore")  # type: ignore[arg-type]
    with pytest.raises(dg.DataError):
        dg.Trace.azure("no such file")


def test_bad_draws_name_their_field() -> None:
    w = dg.Workload(isl=10, osl=10)
    for kwargs, field in (({"rate": -1.0, "n": 5}, "rate"), ({"rate": 1.0, "n": 0}, "n:")):
        with pytest.raises(dg.SpecError, match=field):
            dg.Trace.poisson(w, **kwargs)  # type: ignore[arg-type]
    with pytest.raises(dg.SpecError, match="concurrency"):
        dg.Trace.closed(w, concurrency=0, n=5)


def test_traces_pickle_and_repeat() -> None:
    w = dg.Workload(isl=dg.Distribution.lognormal(mean=500, p90=1000), osl=20, prefix=100)
    trace = dg.Trace.gamma(w, rate=3, cv=2, n=50, seed=4)
    assert pickle.loads(pickle.dumps(trace)) == trace == dg.Trace.gamma(w, rate=3, cv=2, n=50, seed=4)
    assert trace != dg.Trace.gamma(w, rate=3, cv=2, n=50, seed=5)
    assert dg.Workload.from_trace(trace).mean["prefix"] == 100
