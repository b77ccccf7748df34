"""Packs built from wheels and used in a session, versions side by side, what a refresh moves, the page of it."""

import zipfile
from pathlib import Path

import pytest

import disagg as dg
from disagg import cli, refresh
from disagg.errors import DataError, SpecError

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")
pytest.importorskip("zstandard")

ROOT = Path(__file__).resolve().parents[2]


def gemm(version, ms):
    return {
        "framework": ["VLLM"] * 3,
        "version": [version] * 3,
        "device": ["GPU"] * 3,
        "op_name": ["gemm"] * 3,
        "kernel_source": ["x"] * 3,
        "gemm_dtype": ["bfloat16"] * 3,
        "m": [1, 64, 1024],
        "n": [4096] * 3,
        "k": [4096] * 3,
        "latency": ms,
    }


@pytest.fixture
def wheel(tmp_path):
    """Two versions of one table, in a wheel of either layout."""

    def make(name, package, versions):
        path = tmp_path / f"{name}.whl"
        with zipfile.ZipFile(path, "w") as out:
            for version, ms in versions.items():
                table = tmp_path / "table.parquet"
                pq.write_table(pa.table(gemm(version, ms)), table)
                out.write(table, f"{package}/systems/data/b200_sxm/gemm/vllm/{version}/gemm_perf.parquet")
        return path

    return make


@pytest.fixture(autouse=True)
def shipped_again():
    yield
    dg.kernels.use(dg.kernels.shipped())


def asked(version=None):
    found = dg.kernels.lookup("b200_sxm", "vllm", "gemm", version=version, gemm_dtype="bfloat16", m=64, n=4096, k=4096)
    return float(found.ms)


def test_wheels_become_a_pack_that_answers(wheel, tmp_path, capsys):
    one = wheel("aiconfigurator_core-1", "aiconfigurator_core", {"0.24.0": [0.1, 0.2, 0.4]})
    two = wheel("aisimulate-1", "aisimulate_core", {"0.24.0": [9.0, 9.0, 9.0], "0.31.0": [0.1, 0.3, 0.6]})
    out = tmp_path / "pack"
    assert cli.main(["data", "build", str(one), str(two), "--out", str(out)]) == 0
    assert "2 tables" in capsys.readouterr().out
    dg.kernels.use(out)
    # The first wheel that has a table counts; the current version answers, another by name.
    assert asked() == pytest.approx(0.2)
    assert asked("0.31.0") == pytest.approx(0.3)
    tables = dg.kernels.tables("b200_sxm", "vllm")
    assert list(tables["version"]) == ["0.24.0", "0.31.0"]
    assert list(tables["default"]) == [True, False]
    dg.kernels.use(dg.kernels.shipped())
    assert asked() not in (pytest.approx(0.2), pytest.approx(0.3))


def test_what_is_no_pack_is_refused_and_changes_nothing(tmp_path, capsys):
    before = asked()
    with pytest.raises(DataError, match=r"index\.json"):
        dg.kernels.use(tmp_path)
    assert asked() == before
    broken = tmp_path / "broken.whl"
    broken.write_text("no wheel")
    assert cli.main(["data", "build", str(broken), "--out", str(tmp_path / "pack")]) == 1
    assert "broken.whl" in capsys.readouterr().err


CHAT = dg.Workload(isl=1000, osl=200)


def test_a_version_is_asked_for_by_name():
    model, cluster = dg.Model("deepseek-ai/DeepSeek-V3.2"), dg.Cluster("b200_sxm", gpus=8)
    plan = dg.Aggregated(parallel=dg.Parallel(tp=8), batch=16)

    def tables(framework, **options):
        est = dg.estimate(model, cluster, CHAT, plan, framework=framework, **options)
        return est.framework, est.tpot_ms

    usual, newer = tables("vllm"), tables("vllm@0.25")
    assert usual[0] == newer[0] == "vllm"
    assert newer[1] != usual[1]
    assert tables("vllm@0.24.0") == usual
    assert tables("vllm", serving=dg.Serving(kernel_versions="vllm@0.25.0")) == newer
    with pytest.raises(SpecError, match=r"vllm 0\.99"):
        tables("vllm@0.99")
    with pytest.raises(SpecError, match="in one place"):
        tables("vllm@0.25", serving=dg.Serving(kernel_versions="vllm@0.24.0"))
    with pytest.raises(SpecError, match="named twice"):
        dg.explore(model, cluster, CHAT, dg.SLO(tpot_ms=50), frameworks=["vllm", "vllm@0.25"])


SMALL = (refresh.Question("openai/gpt-oss-20b", "b200_sxm", 2, "paper-chat", 1000.0, 50.0),)


def test_a_comparison_says_what_moves():
    same = refresh.diff("shipped", dg.kernels.shipped(), questions=SMALL)
    assert list(same["moved"]) == [False]
    assert same["ratio"][0] == pytest.approx(1.0)
    assert refresh.told(same).startswith("0 of 1 verdicts move\nstays  gpt-oss-20b, 2 b200_sxm, paper-chat")


def test_a_question_that_a_pack_cannot_answer_says_so(wheel):
    poor = wheel("poor-1", "aisimulate_core", {"0.31.0": [0.1, 0.3, 0.6]})
    question = SMALL[0]._replace(system="h200_sxm")
    moves = refresh.diff("shipped", poor, questions=[question])
    assert list(moves["moved"]) == [True]
    assert str(moves["new_level"][0]).startswith("not asked: ")
    assert refresh.told(moves).startswith("1 of 1 verdicts move\nmoves")


def test_the_page_of_what_was_measured_is_current():
    page = refresh.support()
    assert "| b200_sxm | vllm | 0.24.0 (" in page
    row = next(line for line in page.splitlines() if line.startswith("| deepseek-ai/DeepSeek-V4-Flash |"))
    assert row.count("sglang") == 6
    assert (ROOT / "docs" / "support.md").read_text(encoding="utf-8") == page, "make data writes it anew"
