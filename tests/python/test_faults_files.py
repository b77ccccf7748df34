"""Faults of files: a damaged installation, checkpoints that are damaged, shared or of other work, disks and paths."""

import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import disagg as dg
from disagg import _checkpoint, _core
from disagg._checkpoint import Checkpoint
from disagg.cli import main

PACK = Path(dg.__file__).parent / "data" / "kernels"


@pytest.fixture
def pack(tmp_path):
    """A copy of the tables that a test may damage; the shipped ones are back in place afterwards."""
    own = tmp_path / "kernels"
    shutil.copytree(PACK, own)
    _core.kernels_at(str(own))
    yield own
    _core.kernels_at(str(PACK))


def flip(path, at, bit=6):
    data = bytearray(path.read_bytes())
    data[at] ^= 1 << bit
    path.write_bytes(data)


def estimate():
    return dg.estimate(
        dg.Model("Qwen/Qwen3-30B-A3B"),
        dg.Cluster("h100_sxm", gpus=8),
        dg.Workload(isl=512, osl=64),
        dg.Aggregated(parallel=dg.Parallel(tp=2), batch=8),
        framework="trtllm",
    ).tpot_ms


def test_damaged_tables_are_an_error_and_never_other_numbers(pack):
    right = estimate()
    flip(pack / "h100_sxm.pack", (pack / "h100_sxm.pack").stat().st_size // 2)
    _core.kernels_at(str(pack))
    size = (PACK / "h100_sxm.pack").stat().st_size
    refused = 0
    for at in range(0, size, size // 12):
        shutil.copy(PACK / "h100_sxm.pack", pack)
        flip(pack / "h100_sxm.pack", at)
        _core.kernels_at(str(pack))
        try:
            found = estimate()
        except dg.DataError as e:
            refused += e.path.endswith("h100_sxm.pack") and "checksum" in e.message
        else:
            assert found == right
        assert len(_core.kernels_damaged()) == 1
    assert refused > 2
    # A pack beside the index of another one: what is there is not what the index says.
    shutil.copy(PACK / "h200_sxm.pack", pack / "h100_sxm.pack")
    _core.kernels_at(str(pack))
    with pytest.raises(dg.DataError, match=r"h100_sxm\.pack"):
        estimate()


def test_doctor_finds_what_is_damaged(pack, capsys):
    assert main(["doctor"]) == 0
    assert "as it was shipped" in capsys.readouterr().out
    flip(pack / "b200_sxm.pack", 1000)
    assert main(["doctor"]) == 1
    said = capsys.readouterr().out
    assert "b200_sxm.pack" in said and "checksum" in said
    with pytest.raises(dg.DataError, match=r"b200_sxm\.pack"):
        dg.show_versions(check=True)
    (pack / "index.json").write_text((pack / "index.json").read_text().replace("0.5.14", "0.5.15", 1))
    _core.kernels_at(str(pack))
    assert main(["doctor"]) == 1
    assert "index.json" in capsys.readouterr().out
    (pack / "b300_sxm.pack").unlink()
    dg.show_versions()


UNITS = {(0, 10): 0.0, (10, 25): 1.0, (25, 40): 2.0, (40, 60): 3.0}
SIZE = 60


def unit(start, stop, value):
    return {
        "point": np.arange(start, stop),
        "x": np.full(stop - start, value),
        "status": np.array(["ok"] * (stop - start)),
    }


def written(path, identity=None):
    kept = Checkpoint(path, identity or {"study": 1}, SIZE)
    for key, value in UNITS.items():
        kept.add(*key, unit(*key, value))
    kept.close()
    return path.read_bytes()


def read(path, identity=None):
    kept = Checkpoint(path, identity or {"study": 1}, SIZE)
    kept.close()
    for key, found in kept.units.items():
        assert found["x"].tolist() == [UNITS[key]] * (key[1] - key[0])
    return set(kept.units)


def test_a_damaged_record_loses_only_itself(tmp_path):
    path = tmp_path / "a.ckpt"
    whole = written(path)
    marks = [i for i in range(len(whole)) if whole.startswith(_checkpoint.MARK, i)]
    assert len(marks) == 1 + len(UNITS)
    ends = [*marks[1:], len(whole)]
    seen = set()
    for k, (start, end) in enumerate(zip(marks, ends, strict=True)):
        for at in range(start, end, max(1, (end - start) // 12)):
            for damage in (b"\0", bytes([whole[at] ^ 64])):
                path.write_bytes(whole[:at] + damage + whole[at + 1 :])
                if path.read_bytes() == whole:
                    continue
                left = set(UNITS) - ({list(UNITS)[k - 1]} if k else set())
                assert read(path) == left, (k, at)
                # What was found is whole again, and can be added to.
                assert read(path) == left
                seen.add(k)
    assert seen == set(range(5))
    for cut in range(0, len(whole), 37):
        path.write_bytes(whole[:cut])
        assert read(path) == {key for key, end in zip(UNITS, ends[1:], strict=True) if end <= cut}
    for tail in (b"\0" * 12, b"\0" * 5000, whole[marks[2] : marks[2] + 40]):
        path.write_bytes(whole + tail)
        kept = Checkpoint(path, {"study": 1}, SIZE)
        assert set(kept.units) == set(UNITS)
        kept.close()
    path.write_bytes(b"\0" * 4096)
    assert read(path) == set()


def test_overlapping_and_foreign_units_do_not_count(tmp_path):
    path = tmp_path / "a.ckpt"
    whole = written(path)
    kept = Checkpoint(path, {"study": 1}, SIZE)
    for start, stop in [(5, 15), (50, 70), (59, 59), (-3, 0)]:
        kept._write(kept._record(_checkpoint._packed((start, stop), unit(max(start, 0), max(stop, 0), 9.0))))
    kept._write(kept._record(_checkpoint._packed((0, 10), {"y": np.zeros(10)})))
    kept._write(kept._record(b"no archive at all"))
    kept.close()
    assert read(path) == set(UNITS)
    other = written(tmp_path / "b.ckpt", {"study": 2})
    path.write_bytes(whole + other[other.index(_checkpoint.MARK, 40) :])
    with pytest.raises(dg.SpecError, match="belongs to another study"):
        read(path)
    # Its first record damaged, it still is that of the other study.
    path.write_bytes(other[:40] + b"\xff" + other[41:])
    with pytest.raises(dg.SpecError, match="belongs to another study"):
        read(path)


def space(n=32):
    return dg.Space(
        model=dg.Model("Qwen/Qwen3-30B-A3B"),
        cluster=dg.Cluster("h200_sxm", gpus=8),
        workload=dg.Workload(isl=512, osl=64),
        axes={"plan.parallel.tp": [1, 2], "plan.batch": list(range(1, n + 1))},
    )


HOLDER = """
import sys, time
from disagg._checkpoint import Checkpoint
kept = Checkpoint(sys.argv[1], {"study": 1}, 60)
print("held", flush=True)
time.sleep(60)
"""


def test_one_sweep_at_a_time_writes_and_a_dead_one_holds_nothing(tmp_path):
    path = tmp_path / "a.ckpt"
    with subprocess.Popen([sys.executable, "-c", HOLDER, path], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(dg.SpecError, match="another sweep is writing"):
            Checkpoint(path, {"study": 1}, SIZE)
        other.kill()
        other.wait()
    assert read(path) == set()
    # Two sweeps of one process: whichever comes second is refused, and the file stays whole.
    path = tmp_path / "b.ckpt"
    found, problems = [], []

    def sweep():
        try:
            found.append(dg.sweep(space(400), checkpoint=path, progress=False))
        except dg.SpecError as e:
            problems.append(e)

    threads = [threading.Thread(target=sweep) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    again = dg.sweep(space(400), checkpoint=path, progress=False)
    assert len(found) >= 1 and len(found) + len(problems) == 4
    assert again["point"].tolist() == list(range(800)) and again.attrs["complete"]


def test_other_kernel_tables_are_another_study(tmp_path, monkeypatch):
    path = tmp_path / "a.ckpt"
    dg.sweep(space(4), checkpoint=path, progress=False)
    monkeypatch.setattr(_core, "kernels_identity", lambda: "another")
    with pytest.raises(dg.SpecError, match="kernels differ"):
        dg.sweep(space(4), checkpoint=path, progress=False)


def test_disks_and_paths_give_the_packages_errors(tmp_path):
    for path, kind in [
        (tmp_path, dg.DataError),
        (tmp_path / "absent" / "a.ckpt", dg.DataError),
        ("a\0b", dg.SpecError),
        ("", dg.SpecError),
        ("\ud800", dg.SpecError),
        ("x" * 5000, dg.DataError),
        (Path(os.devnull), dg.DataError),
    ]:
        with pytest.raises(kind):
            dg.sweep(space(2), checkpoint=path, progress=False)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(dg.DataError, match="is not a file"):
        dg.sweep(space(2), checkpoint=pipe, progress=False)


FULL = """
import resource, signal, sys
import disagg as dg
from disagg._checkpoint import Checkpoint
import numpy as np
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
kept = Checkpoint(sys.argv[1], {"study": 1}, 60)
kept.add(0, 10, {"x": np.zeros(10)})
resource.setrlimit(resource.RLIMIT_FSIZE, (kept._end + 100, resource.RLIM_INFINITY))
try:
    kept.add(10, 60, {"x": np.zeros(50)})
except dg.DataError as e:
    assert "cannot be written" in str(e) and "kept" in str(e), e
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    kept.add(10, 60, {"x": np.zeros(50)})
    print("kept")
"""


def test_a_full_disk_is_said_and_loses_nothing(tmp_path):
    path = tmp_path / "a.ckpt"
    done = subprocess.run([sys.executable, "-c", FULL, path], capture_output=True, text=True, check=False)
    assert done.stdout == "kept\n", done.stderr
    kept = Checkpoint(path, {"study": 1}, SIZE)
    kept.close()
    assert set(kept.units) == {(0, 10), (10, 60)}
