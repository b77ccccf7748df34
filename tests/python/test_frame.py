"""Line 6 of the notebook contract: results are tidy Frames."""

import copy
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import disagg as dg
import strategies

frames = strategies.frames()


@pytest.fixture
def points():
    return dg.Frame(
        {
            "level": ["pd", "pd+afd", "pd", "aggregated"],
            "gpus": [8, 8, 16, 16],
            "tpot_ms": [20.0, 9.0, 12.0, float("nan")],
            "tokens_per_s": [100.0, 80.0, 90.0, 70.0],
            "feasible": [True, True, False, True],
        },
        attrs={"seed": 1},
    )


@given(frames)
def test_json_and_pickle_are_exact(f):
    for twin in (dg.Frame.from_json(f.to_json()), pickle.loads(pickle.dumps(f)), copy.deepcopy(f)):
        assert twin == f
        for name in f.columns:
            if f[name].dtype.kind == "f":
                finite = ~np.isnan(f[name])
                assert f[name][finite].tobytes() == twin[name][finite].tobytes()


def test_long_columns_are_exact_in_json():
    rng = np.random.default_rng(0)
    f = dg.Frame({"x": rng.normal(size=5000), "n": rng.integers(0, 9, 5000), "t": [f"t{i % 7}" for i in range(5000)]})
    assert dg.Frame.from_json(f.to_json()) == f


@given(frames)
def test_arrow_polars_and_pandas_hold_the_same(f):
    arrow, polars, pandas = f.to_arrow(), f.to_polars(), f.to_pandas()
    assert arrow.num_columns == polars.width == pandas.shape[1] == len(f.columns)
    for name in f.columns:
        mine = f[name].tolist()
        if f[name].dtype.kind == "f":
            assert np.array_equal(arrow[name].to_numpy(), f[name], equal_nan=True)
            assert np.array_equal(polars[name].to_numpy(), f[name], equal_nan=True)
        else:
            assert arrow[name].to_pylist() == mine
            assert polars[name].to_list() == mine
            assert [None if v != v else v for v in pandas[name].tolist()] == mine  # noqa: PLR0124


def test_arrow_stream_feeds_polars_and_pyarrow(points):
    import polars as pl
    import pyarrow as pa

    assert pl.DataFrame(points)["level"].to_list() == points["level"].tolist()
    assert pa.table(points)["gpus"].to_pylist() == [8, 8, 16, 16]


def test_parquet_holds_the_attrs(points, tmp_path):
    import pyarrow.parquet as pq

    points.to_parquet(tmp_path / "p.parquet")
    table = pq.read_table(tmp_path / "p.parquet")
    assert table.schema.metadata[b"disagg"] == b'{"seed": 1}'
    assert table["tokens_per_s"].to_pylist() == [100.0, 80.0, 90.0, 70.0]


def test_pandas_keeps_the_attrs(points):
    assert points.to_pandas().attrs == {"seed": 1}


def test_looking(points):
    assert len(points) == 4
    assert points.columns == ["level", "gpus", "tpot_ms", "tokens_per_s", "feasible"]
    assert "gpus" in points
    assert list(points) == points.columns
    assert points.row(1) == {"level": "pd+afd", "gpus": 8, "tpot_ms": 9.0, "tokens_per_s": 80.0, "feasible": True}
    with pytest.raises(dg.SpecError, match="did you mean 'tpot_ms'"):
        points["tpot"]
    with pytest.raises(ValueError, match="read-only"):
        points["gpus"][0] = 1


def test_the_users_own_array_is_left_alone():
    mine = np.array([1.0, 2.0])
    f = dg.Frame({"x": mine})
    mine[0] = 5.0
    assert f["x"][0] == 1.0


def test_filter(points):
    assert len(points.filter(level="pd")) == 2
    assert len(points.filter(level="pd", gpus=16)) == 1
    assert len(points.filter(level="nothing")) == 0
    assert points.filter(points["tpot_ms"] < 15)["level"].tolist() == ["pd+afd", "pd"]
    assert points.filter(lambda f: f["feasible"]).attrs == {"seed": 1}
    with pytest.raises(dg.SpecError, match="4 truth values"):
        points.filter(np.array([True]))
    with pytest.raises(dg.SpecError, match="levl"):
        points.filter(levl="pd")


def test_sort_is_stable_and_takes_text(points):
    assert points.sort("level")["level"].tolist() == ["aggregated", "pd", "pd", "pd+afd"]
    assert points.sort("gpus", descending=True)["tokens_per_s"].tolist() == [90.0, 70.0, 100.0, 80.0]
    assert points.sort("gpus", "tokens_per_s")["tokens_per_s"].tolist() == [80.0, 100.0, 70.0, 90.0]


@given(frames, st.booleans())
def test_sort_is_a_permutation(f, down):
    for name in f.columns:
        ordered = f.sort(name, descending=down)
        assert len(ordered) == len(f)
        assert sorted(map(str, ordered[name].tolist())) == sorted(map(str, f[name].tolist()))


def test_best(points):
    assert points.best("tpot_ms")["level"] == "pd+afd"
    assert points.best("tokens_per_s")["level"] == "pd"
    assert points.best("tokens_per_s", sense="min")["level"] == "aggregated"
    assert points.best("tokens_per_s", gpus=16)["tokens_per_s"] == 70.0  # 90 is not feasible
    assert points.best("tokens_per_s", gpus=16, feasible=None)["tokens_per_s"] == 90.0
    with pytest.raises(dg.SpecError, match="no row"):
        points.best("tpot_ms", level="aggregated")
    with pytest.raises(dg.SpecError, match="not a column of numbers"):
        points.best("level")


value = st.floats(-5, 5).map(lambda v: round(v, 1)) | st.just(float("nan"))


@given(st.lists(st.tuples(value, value), max_size=12), st.sampled_from(["max", "min"]), st.sampled_from(["max", "min"]))
def test_frontier_agrees_with_its_definition(rows, sx, sy):
    f = dg.Frame({"x": np.array([r[0] for r in rows], float), "y": np.array([r[1] for r in rows], float)})
    front = f.frontier("x", "y", sense=(sx, sy))
    found = set(zip(front["x"].tolist(), front["y"].tolist(), strict=True))
    gx, gy = (1 if sx == "max" else -1), (1 if sy == "max" else -1)
    real = {r for r in rows if r[0] == r[0] and r[1] == r[1]}
    beaten = {a for a in real for b in real if b != a and gx * b[0] >= gx * a[0] and gy * b[1] >= gy * a[1]}
    assert found == real - beaten
    assert len(front) == len(found)
    assert front["x"].tolist() == sorted(front["x"].tolist())


def test_xarray_needs_a_full_grid():
    full = dg.Frame({"tp": [1, 1, 2, 2], "b": [8, 16, 8, 16], "ms": [1.0, 2.0, 3.0, 4.0]})
    cube = full.to_xarray(["tp", "b"])
    assert float(cube["ms"].sel(tp=2, b=8)) == 3.0
    with pytest.raises(dg.SpecError, match=r"tp=2, b=16 \(missing\)"):
        full.head(3).to_xarray(["tp", "b"])
    with pytest.raises(dg.SpecError, match=r"2 rows"):
        full.to_xarray(["tp"])


def test_html_is_short_escaped_and_without_script():
    f = dg.Frame({"<b>": range(100), "t": ["<script>"] * 100})
    page = f._repr_html_()
    assert page.count("<tr>") == 21
    assert "80 more rows" in page
    assert "<script" not in page
    assert "&lt;b&gt;" in page
    assert repr(f) == "Frame(100 rows: <b>, t)"
    assert "80 more rows" in str(f)


def test_wrong_columns_are_refused():
    with pytest.raises(dg.SpecError, match="has 2 rows"):
        dg.Frame({"a": [1, 2], "b": [1, 2, 3]})
    with pytest.raises(dg.SpecError, match="neither numbers nor text"):
        dg.Frame({"a": [1, "x"]})
    with pytest.raises(dg.SpecError, match="one axis"):
        dg.Frame({"a": [[1, 2], [3, 4]]})
    for bad in ("{", "[]", '{"columns": {"a": 1}, "attrs": {}}', '{"columns": 3}'):
        with pytest.raises(dg.SpecError, match="is not a frame"):
            dg.Frame.from_json(bad)


def test_empty_frames_behave():
    f = dg.Frame({})
    assert len(f) == 0
    assert f._repr_html_()
    assert str(f) == ""
    assert len(dg.Frame({"x": [], "y": []}).frontier("x", "y")) == 0


def test_frontier_in_three_columns_and_ties():
    f = dg.Frame(
        {"a_ms": [1.0, 1.0, 2.0, 2.0, np.nan], "b_ms": [3.0, 3.0, 2.0, 2.1, 0.0], "c_ms": [1.0, 1.0, 5.0, 5.1, 0.0]}
    )
    assert f.frontier("a_ms", "b_ms", "c_ms")["b_ms"].tolist() == [3.0, 2.0]
    ties = f.frontier("a_ms", "b_ms", "c_ms", epsilon=0.1)
    assert ties["tie"].tolist() == [False, True, False, True]
    with pytest.raises(dg.SpecError, match="epsilon: must be from 0 to below 1"):
        f.frontier("a_ms", "b_ms", epsilon=2)
