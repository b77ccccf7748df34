"""Line 1 of the notebook contract: a light import that says what it is."""

import json
import subprocess
import sys

import pytest

import disagg as dg

HEAVY = (
    "matplotlib",
    "pandas",
    "polars",
    "pyarrow",
    "xarray",
    "tqdm",
    "ipywidgets",
    "IPython",
    "hypothesis",
    "zstandard",
)


def run(code):
    out = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    return out.stdout


def test_import_loads_numpy_and_nothing_else():
    code = f"import sys, disagg, json; print(json.dumps([m for m in {HEAVY!r} if m in sys.modules]))"
    assert json.loads(run(code)) == []


def test_import_itself_takes_less_than_half_a_second_of_processor_time():
    # Processor time, which a busy machine does not stretch by its waiting; numpy is not ours to speed up.
    code = "import numpy, time; t = time.process_time(); import disagg; print(time.process_time() - t)"
    assert min(float(run(code)) for _ in range(3)) < 0.5


def test_import_starts_no_thread_and_reads_no_kernels():
    code = "import threading, disagg; print(threading.active_count())"
    assert run(code).strip() == "1"


def test_show_versions(capsys):
    dg.show_versions()
    out = capsys.readouterr().out
    for word in ("disagg", "build", "threads", "kernel pack", "numpy"):
        assert word in out
    assert dg.__version__ in out


def test_all_names_exist_and_are_sorted_out():
    assert len(set(dg.__all__)) == len(dg.__all__)
    for name in dg.__all__:
        assert getattr(dg, name) is not None


def test_threads_can_be_set():
    before = dg._core.num_threads()
    dg.set_num_threads(1)
    assert dg._core.num_threads() == 1
    dg.set_num_threads(0)
    assert dg._core.num_threads() == before
    with pytest.raises(dg.SpecError, match="must be at least 0, got -1"):
        dg.set_num_threads(-1)


def test_optional_packages_say_how_to_get_them():
    code = (
        "import sys; sys.modules['polars'] = None\n"
        "import disagg as dg\n"
        "try: dg.Frame({'x': [1]}).to_polars()\n"
        "except dg.MissingPackageError as e: print(e)"
    )
    assert "pip install 'disagg[frames]'" in run(code)
