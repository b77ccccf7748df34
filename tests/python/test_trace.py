"""Traces: readers, draws, bad input."""

import json
import pickle
from pathlib import Path

import numpy as np
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


def test_priorities_go_first_in_every_queue() -> None:
    trace = dg.Trace.gamma(dg.Workload(isl=64, osl=2), rate=1e5, cv=0, n=6).with_priority([1, 1, 1, 1, 0, 1])
    plan = dg.Aggregated(parallel=dg.Parallel(), batch=1, chunk_tokens=64)
    model, cluster = dg.Model("Qwen/Qwen3-32B"), dg.Cluster("b200_sxm", gpus=1)
    run = dg.simulate(model, cluster, plan, trace, timing=dg.Fixed(prefill_ms=20, decode_ms=10))
    # The first was alone when it came; then the urgent one, then the others as they came.
    assert np.argsort(run.requests["ttft_ms"] + run.requests["arrival_s"] * 1e3).tolist() == [0, 4, 1, 2, 3, 5]
    assert dg.Trace.from_json(trace.to_json()) == trace
    for wrong in ([0, 1], [0.5] * 6, [256] * 6, [-1] * 6):
        with pytest.raises(dg.SpecError, match="priority"):
            trace.with_priority(wrong)


def test_a_service_of_clients_loads(tmp_path: Path) -> None:
    (tmp_path / "chunk-0-trace.csv").write_text("0,2,3,Gamma,0.11,4.5\n600,0,0,,0,0\n")
    hours = {"0": {"input_tokens": "{100: 0.5, 300: 0.5}", "output_tokens": "{20: 1.0}"}}
    (tmp_path / "chunk-0-dataset.json").write_text(json.dumps(hours))
    trace = dg.Trace.servegen(tmp_path, end_s=300, seed=3)
    assert trace.requests["arrival_s"].max() < 300
    assert set(trace.requests["isl"].tolist()) == {100, 300}
    with pytest.raises(dg.DataError, match="no client"):
        dg.Trace.servegen(tmp_path / "..", seed=3)
    with pytest.raises(dg.SpecError, match="end_s"):
        dg.Trace.servegen(tmp_path, start_s=5, end_s=2)


ROWS = {
    "when": ["2024-05-01 10:00:00.25", "2024-05-01 10:00:01.75"],
    "prompt_tokens": [500, 80],
    "output_len": [20, 30],
}


def same(trace: dg.Trace) -> None:
    r = trace.requests
    assert [r[c].tolist() for c in ("arrival_s", "isl", "osl")] == [[0.0, 1.5], [500, 80], [20, 30]]


def test_any_table_is_read_and_says_what_it_took(tmp_path: Path) -> None:
    pandas, polars, pyarrow = (pytest.importorskip(n) for n in ("pandas", "polars", "pyarrow"))
    from pyarrow import parquet

    frame = pandas.DataFrame(ROWS)
    dated = frame.assign(when=pandas.to_datetime(frame["when"]))
    zoned = frame.assign(when=dated["when"].dt.tz_localize("Europe/Berlin"))
    gap = dated.convert_dtypes()
    lines = [dict(zip(ROWS, row, strict=True)) for row in zip(*ROWS.values(), strict=True)]
    for table in (ROWS, lines, frame, dated, zoned, gap, polars.DataFrame(ROWS), pyarrow.table(ROWS), dg.Frame(ROWS)):
        trace = dg.Trace.read(table, arrival="when")
        same(trace)
        assert "arrival from 'when' (dates)" in trace.notes
        assert "isl from 'prompt_tokens'" in repr(trace)
    parquet.write_table(pyarrow.table(ROWS), tmp_path / "log.parquet")
    same(dg.Trace.read(tmp_path / "log.parquet", arrival="when"))
    for name, write in (("a.csv", frame.to_csv), ("a.csv.gz", frame.to_csv), ("a.json", frame.to_json)):
        write(tmp_path / name)
        same(dg.Trace.read(tmp_path / name, arrival="when"))
    frame.to_json(tmp_path / "a.jsonl", orient="records", lines=True)
    same(dg.Trace.read(tmp_path / "a.jsonl", arrival="when"))
    frame.to_csv(tmp_path / "a.tsv", sep="\t", encoding="utf-16")
    same(dg.Trace.read(str(tmp_path / "a.tsv"), arrival="when"))
    with pytest.raises(dg.DataError, match="say arrival="):
        dg.Trace.read(ROWS)
    with pytest.raises(dg.SpecError, match="'whem' in: when"):
        dg.Trace.read(frame, arrival="whem")
    holes = pandas.DataFrame({"ts": [0.0, 1.0, 2.0], "isl": [5, None, 7], "osl": [1, 1, 1]})
    with pytest.raises(dg.DataError, match=r":2: 'isl' is missing"):
        dg.Trace.read(holes)
    assert dg.Trace.read(holes, on_error="skip").stats()["skipped"] == 1
    with pytest.raises(dg.SpecError, match="unit"):
        dg.Trace.read(holes, unit="min")  # type: ignore[arg-type]
    with pytest.raises(dg.SpecError, match="path_or_frame"):
        dg.Trace.read(3)


def test_known_formats_are_found_by_their_columns() -> None:
    for name, reader in (("mooncake_conversation_200.jsonl.gz", "mooncake"), ("azure_conv_2023_200.csv", "azure")):
        path = GOLDEN / name
        found, named = dg.Trace.read(path), getattr(dg.Trace, reader)(path)
        assert (found.requests["arrival_s"] == named.requests["arrival_s"]).all()
        assert found.prefix_hit() == named.prefix_hit()
        assert found.notes
        assert not named.notes
    assert dg.Trace.read(GOLDEN / "weka_session.json.gz") == dg.Trace.weka(GOLDEN / "weka_session.json.gz")
    with pytest.raises(dg.DataError, match=r"Trace\.lengths"):
        dg.Trace.read(GOLDEN / "arxiv_summarization_200.csv")
