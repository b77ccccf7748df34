"""The importer's errors, and the pack builder: same bits every time, repeats as the golden case has them."""

import json
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

from disagg import _core
from disagg.kernels import importer, layout
from disagg.kernels.importer import KernelDataError, import_dir

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

ROOT = Path(__file__).resolve().parents[2]


def gemm(**changes):
    table = {
        "framework": ["TRTLLM"] * 4,
        "version": ["1.3.0rc20"] * 4,
        "device": ["GPU"] * 4,
        "op_name": ["gemm"] * 4,
        "kernel_source": ["torch_flow"] * 4,
        "gemm_dtype": ["bfloat16", "bfloat16", "fp8", "bfloat16"],
        "m": [2, 1, 1, 1],
        "n": [64] * 4,
        "k": [32] * 4,
        "latency": [0.5, 0.25, 0.125, 0.75],
    }
    table.update(changes)
    return {k: v for k, v in table.items() if v is not None}


def write(root, table, system="h200_sxm", family="gemm", framework="trtllm", version="1.3.0rc20", name="gemm"):
    path = root / system / family / framework / version / f"{name}_perf.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(table), path)
    return path


def test_import_gives_plain_columns(tmp_path):
    write(tmp_path, gemm())
    write(tmp_path / "systems" / "data", gemm(), system="gb200")
    (one,) = import_dir(tmp_path, name="lab")
    assert (one["system"], one["framework"], one["version"], one["table"]) == (
        "h200_sxm", "trtllm", "1.3.0rc20", "gemm",
    )  # fmt: skip
    assert one["source"] == "lab" and one["path"] == "h200_sxm/gemm/trtllm/1.3.0rc20/gemm_perf.parquet"
    columns = one["columns"]
    assert set(columns) == set(gemm()) - layout.DESCRIPTIVE
    assert columns["m"].dtype == np.int64 and columns["latency"].dtype == np.float64
    assert columns["gemm_dtype"].dtype == object and columns["gemm_dtype"][2] == "fp8"
    (two,) = import_dir(tmp_path / "systems", name="lab")
    assert two["system"] == "gb200"


@pytest.mark.parametrize(
    ("changes", "column", "row", "says"),
    [
        ({"latency": [0.5, -1.0, 0.1, 0.1]}, "latency", 1, "negative"),
        ({"latency": [0.5, 0.1, float("nan"), 0.1]}, "latency", 2, "not a finite number"),
        ({"latency": [0.5, 0.1, 0.1, float("inf")]}, "latency", 3, "not a finite number"),
        ({"latency": [0.5, None, 0.1, 0.1]}, "latency", 1, "no value"),
        ({"latency": ["a", "b", "c", "d"]}, "latency", None, "expected numbers"),
        ({"latency": None}, "latency", None, "no measured column"),
        ({"m": None}, "m", None, "missing"),
        ({"m": [1, None, 2, 3]}, "m", 1, "no value"),
        ({"m": [1.0, 1.5, 2.0, 3.0]}, "m", 1, "not a whole number"),
        ({"k": [[1], [2], [3], [4]]}, "k", None, "expected integers or text"),
    ],
)
def test_a_bad_file_is_refused_with_file_column_and_row(tmp_path, changes, column, row, says):
    write(tmp_path, gemm(), system="b200_sxm")
    path = write(tmp_path, gemm(**changes))
    with pytest.raises(KernelDataError, match=says) as caught:
        import_dir(tmp_path, name="lab")
    error = caught.value
    assert (error.path, error.column, error.row) == (str(path), column, row)
    for part in (str(path), column, "" if row is None else f"row {row}"):
        assert part in str(error)


def test_a_truncated_file_is_refused(tmp_path):
    path = write(tmp_path, gemm())
    whole = path.read_bytes()
    for size in (0, 3, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(KernelDataError, match="not a readable parquet file") as caught:
            import_dir(tmp_path, name="lab")
        assert caught.value.path == str(path)


def test_an_empty_directory_or_name_is_refused(tmp_path):
    with pytest.raises(KernelDataError, match="no measurements here"):
        import_dir(tmp_path, name="lab")
    with pytest.raises(KernelDataError, match="no such directory"):
        import_dir(tmp_path / "nowhere", name="lab")
    with pytest.raises(KernelDataError, match="name="):
        import_dir(tmp_path, name=" ")


def test_repeats_collapse_as_the_golden_case_says():
    case = json.loads((ROOT / "tests/golden/kernel_collapse.json").read_text())
    kinds = {"int": np.int64, "text": object, "measure": np.float64}
    columns = {
        c["name"]: np.array(c["values"], kinds[c["kind"]])
        for c in case["columns"]
        if c["name"] not in layout.DESCRIPTIVE
    }
    payload, rows, known = _core.kernels_frame(case["table"], columns, bytes)
    got, expected = decoded(payload), case["expected"]
    *keys, latency = got
    assert keys == expected["keys"] and latency == "latency"
    assert [[str(v) for v in got[k]] for k in keys] == expected["rows"]
    assert rows == len(got["latency"]) and got["latency"] == expected["latency"]
    assert known["noise"] == pytest.approx(expected["noise"])


def unpack(out, entry):
    """Decodes one frame: the reader of the core, written the slow and obvious way."""
    import zstandard

    frame = (out / entry["file"]).read_bytes()[entry["offset"] : entry["offset"] + entry["bytes"]]
    payload = zstandard.ZstdDecompressor().decompress(frame)
    assert len(payload) == entry["unpacked"]
    return decoded(payload)


def decoded(payload):
    """The columns of a frame's content."""
    (length,) = struct.unpack_from("<I", payload)
    header, at = json.loads(payload[4 : 4 + length]), 4 + length
    rows, columns = header["rows"], {}
    planes = lambda n, width, at: sum(  # noqa: E731
        np.frombuffer(payload, np.uint8, n, at + i * n).astype(np.uint32) << (8 * i) for i in range(width)
    )
    for key in header["keys"]:
        codes = np.zeros(rows, np.int64)
        if key["width"]:
            kind = np.uint8 if key["width"] == 1 else np.uint16
            count = key.get("runs", rows)
            codes = np.cumsum(np.frombuffer(payload, kind, count, at), dtype=kind)
            at += key["width"] * count
            if "runs" in key:
                codes = np.repeat(codes, planes(count, 2, at))
                at += 2 * count
        columns[key["name"]] = [(key.get("int") or key.get("text"))[c] for c in codes]
    for measure in header["measures"]:
        if measure["coding"] == "plain":
            bits, at = planes(rows, 4, at), at + 4 * rows
        else:
            (count,) = struct.unpack_from("<I", payload, at)
            distinct = np.cumsum(planes(count, 4, at + 4), dtype=np.uint32)
            at += 4 + 4 * count
            bits, at = distinct[planes(rows, measure["width"], at)], at + measure["width"] * rows
        columns[measure["name"]] = bits.astype(np.uint32).view(np.float32).tolist()
    assert at == len(payload)
    return columns


def test_a_rebuild_gives_the_same_bits(tmp_path):
    pytest.importorskip("zstandard")
    from disagg.kernels.build import build

    source, a, b = tmp_path / "source", tmp_path / "a", tmp_path / "b"
    write(source, gemm())
    write(source, gemm(), system="my_gpu")  # not in the pack
    write(source, gemm(), version="0.1")  # neither
    wheel = tmp_path / "some.whl"
    with zipfile.ZipFile(wheel, "w") as z:
        for path in sorted(source.rglob("*.parquet"), reverse=True):
            z.write(path, f"aiconfigurator_core/systems/data/{path.relative_to(source).as_posix()}")
    index = build(source, a, origin="lab")
    build(wheel, b, origin="lab")
    assert sorted(p.name for p in a.iterdir()) == ["h200_sxm.pack", "index.json"]
    for file in a.iterdir():
        assert file.read_bytes() == (b / file.name).read_bytes()
    assert json.loads((a / "index.json").read_text()) == index

    (entry,) = index["tables"]
    assert entry["rows"] == 3 and entry["provenance"]["rows_in_source"] == 4
    assert entry["provenance"]["noise"] == {
        "repeated_keys": 1, "spread_median": 2.0, "spread_p95": 2.0, "spread_max": 2.0,
    }  # fmt: skip
    columns = unpack(a, entry)
    assert list(zip(columns["gemm_dtype"], columns["m"], columns["latency"], strict=True)) == [
        ("bfloat16", 1, 0.5), ("bfloat16", 2, 0.5), ("fp8", 1, 0.125),
    ]  # fmt: skip


def test_columns_that_change_seldom_are_stored_as_runs(tmp_path):
    pytest.importorskip("zstandard")
    from disagg.kernels.build import build

    n = 70_000  # a run of more than 65535 rows is split
    table = {
        "op_name": ["a"] * 5 + ["b"] * n,
        "m": [*range(5), *range(n)],
        "n": [7] * (n + 5),
        "latency": np.arange(n + 5) % 1000 + 0.5,
    }
    table["m"] = [m % 300 for m in table["m"]]
    table["n"] = [i // 300 for i in range(n + 5)]
    write(tmp_path / "source", table, name="other")
    (entry,) = build(tmp_path / "source", tmp_path / "out", everything=True)["tables"]
    columns = unpack(tmp_path / "out", entry)
    assert entry["rows"] == n + 5 and columns["op_name"] == table["op_name"]
    rows = zip(columns["op_name"], columns["n"], columns["m"], columns["latency"], strict=True)
    assert list(rows) == sorted(zip(table["op_name"], table["n"], table["m"], table["latency"], strict=True))


def test_the_shipped_index_names_its_origin():
    index = json.loads((ROOT / "python/disagg/data/kernels/index.json").read_text())
    assert "aiconfigurator-core 0.12.0" in index["origin"] and "Apache-2.0" in index["origin"]
    assert {t["system"] for t in index["tables"]} == set(layout.taken()["systems"])
    for t in index["tables"]:
        system, family, framework, version, file = t["provenance"]["path"].split("/")
        assert layout.in_pack(system, family, framework, version, t["table"])
        assert (system, framework, version) == (t["system"], t["framework"], t["version"])
        assert file == t["table"] + layout.SUFFIX and len(t["provenance"]["sha256"]) == 64
    assert importer.layout is layout
