"""The measured kernels in Python: what there is, look-ups with evidence, imports."""

import subprocess
import sys

import numpy as np
import pytest

import disagg as dg

GEMM = {"gemm_dtype": "bfloat16", "n": 7168, "k": 2048}


def test_what_there_is():
    assert set(dg.kernels.systems()) <= set(dg.systems())
    assert "trtllm" in dg.kernels.frameworks("b200_sxm")
    tables = dg.kernels.tables("b200_sxm", "trtllm")
    assert len(tables) > 5
    assert len(tables.filter(table="gemm", default=True)) == 1
    for call in (
        lambda: dg.kernels.frameworks("b20_sxm"),
        lambda: dg.kernels.tables("b200_sxm", "trtlm"),
        lambda: dg.kernels.table("b200_sxm", "trtllm", "gem"),
    ):
        with pytest.raises(dg.SpecError, match="did you mean"):
            call()


def test_a_grid_point_is_answered_verbatim():
    table = dg.kernels.table("b200_sxm", "trtllm", "gemm")
    row = table.row(len(table) // 2)
    keys = {n: row[n] for n in table.columns if n != "latency" and n in {"gemm_dtype", "m", "n", "k"}}
    one = dg.kernels.lookup("b200_sxm", "trtllm", "gemm", **keys)
    assert one.evidence == "measured"
    assert one.ms == pytest.approx(row["latency"], rel=1e-6)
    assert "trtllm" in one.source
    assert table.attrs["table"] == "gemm"


def test_numbers_broadcast():
    m = np.array([[1], [64], [4096]])
    n = np.array([7168, 4096])
    found = dg.kernels.lookup("b200_sxm", "trtllm", "gemm", **{**GEMM, "m": m, "n": n})
    assert found.ms.shape == found.evidence.shape == (3, 2)
    one = dg.kernels.lookup("b200_sxm", "trtllm", "gemm", **{**GEMM, "m": 64, "n": 4096})
    assert found.ms[1, 1] == one.ms
    assert isinstance(one.ms, float)


def test_wrong_keys_are_named():
    for keys, path in [
        ({**GEMM, "m": 1, "q": 2}, "q"),
        ({**GEMM, "m": [1, 2], "n": [1, 2, 3]}, "keys"),
        ({**GEMM, "m": object()}, "m"),
        ({**GEMM, "m": np.ones((1,) * 51)}, "m"),
        ({**GEMM, "m": 1, "gemm_dtype": "bfloat61"}, "gemm_dtype"),
    ]:
        with pytest.raises(dg.SpecError) as caught:
            dg.kernels.lookup("b200_sxm", "trtllm", "gemm", **keys)
        assert path in caught.value.path


def test_an_import_stands_in_front(tmp_path):
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "b200_sxm" / "gemm" / "trtllm" / "9.9" / "gemm_perf.parquet"
    path.parent.mkdir(parents=True)
    columns = {
        "kernel_source": ["torch_flow"] * 2,
        "gemm_dtype": ["bfloat16"] * 2,
        "m": [1, 2],
        "n": [7168] * 2,
        "k": [2048] * 2,
        "latency": [1.25, 2.5],
    }
    pq.write_table(pa.table(columns), path)
    # In a process of its own: an import lasts as long as the process.
    code = (
        "import sys, disagg as dg\n"
        "n = dg.kernels.import_dir(sys.argv[1], name='lab')\n"
        "one = dg.kernels.lookup('b200_sxm', 'trtllm', 'gemm', gemm_dtype='bfloat16', m=2, n=7168, k=2048)\n"
        "print(n, one.ms, one.evidence, 'lab' in one.source)\n"
        "plan = dg.Aggregated(parallel=dg.Parallel())\n"
        "asked = dg.Model('Qwen/Qwen3-30B-A3B'), dg.Cluster('b200_sxm', gpus=1), dg.Workload(isl=100, osl=10), plan\n"
        "text = dg.estimate(*asked, framework='trtllm').explain()\n"
        "print(\"gemm of 'lab' where it has the shape, else trtllm 1.3.0rc20\" in text)\n"
        "try: dg.kernels.import_dir(sys.argv[1], name='lab')\n"
        "except dg.SpecError as e: print(e.path)\n"
    )
    out = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert out.stdout.split() == ["1", "2.5", "measured", "True", "True", "name"]


def test_a_directory_without_tables_is_a_data_error(tmp_path):
    with pytest.raises(dg.DataError, match="no measurements here"):
        dg.kernels.import_dir(tmp_path, name="x")


@pytest.mark.slow
def test_the_report_has_an_error_for_every_table():
    report = dg.kernels.report("h100_sxm", "vllm", samples=3, seed=1, progress=False)
    assert {"table", "axis", "edge", "n", "median_error", "p90_error", "noise"} <= set(report.columns)
    assert "gemm" in report["table"]
    assert (report["median_error"] <= report["p90_error"]).all()
    with pytest.raises(dg.SpecError, match="samples"):
        dg.kernels.report(samples=0)


@pytest.mark.slow
def test_validation_gives_targets_and_predictions(tmp_path):
    frame = dg.validation.run(progress=False)
    assert {"section", "target", "predicted", "error", "source", "status"} <= set(frame.columns)
    assert len(frame) > 0
    file = dg.validation.report(tmp_path / "v.md", *dg.validation.sections()[:1], progress=False)
    text = file.read_text(encoding="utf-8")
    assert text.startswith("# How true")
    assert f"disagg {dg.__version__}" in text
    assert "## deployed" in text
    page = dg.validation.report(tmp_path / "page", "silicon", progress=False)
    assert page == tmp_path / "page" / "README.md"
    assert (page.parent / "tpot_ms.png").stat().st_size > 10_000
    assert "(tpot_ms.png)" in page.read_text(encoding="utf-8")
    with pytest.raises(dg.SpecError, match="section"):
        dg.validation.run("deploy")


def test_communication_is_held_against_its_tables():
    frame = dg.validation.run("network", progress=False)
    kept = np.array([":check:" in s for s in frame["status"]])
    assert kept.any()
    assert not kept.all()
    assert (frame["n"] > 0).all()
    assert (frame["median"] <= frame["p95"]).all()
    met = np.array([s.endswith(":met") for s in frame["status"]])
    assert (frame["predicted"][met] <= frame["target"][met]).all()
