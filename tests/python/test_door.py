"""Lines 5, 7 and 9 of the notebook contract: the stop button, progress, threads, no panic across the border."""

import multiprocessing
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

import disagg as dg
from disagg import _core
from disagg.progress import reporter


def test_work_returns_its_value():
    assert 20 <= _core._spin(0.02) < 2000


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_the_stop_button_returns_quickly():
    took = []
    for delay in (0.12, 0.2, 0.31):
        signal.setitimer(signal.ITIMER_REAL, delay)
        old = signal.signal(signal.SIGALRM, signal.default_int_handler)
        start = time.perf_counter()
        try:
            with pytest.raises(KeyboardInterrupt):
                _core._spin(30.0)
        finally:
            signal.signal(signal.SIGALRM, old)
        took.append(time.perf_counter() - start - delay)
    # 10 ms until the signal is looked at, a millisecond until the work stops; the rest is a busy machine.
    assert min(took) < 0.1
    assert max(took) < 1.0


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_work_that_does_not_listen_is_left_behind():
    old = signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    start = time.perf_counter()
    try:
        with pytest.raises(KeyboardInterrupt):
            _core._spin(20.0, None, deaf=True)
    finally:
        signal.signal(signal.SIGALRM, old)
    assert time.perf_counter() - start < 5.0
    # What is asked next does not wait for it either.
    assert _core._spin(0.01) >= 10


def test_progress_comes_on_the_callers_thread_and_not_too_often():
    calls = []
    _core._spin(1.0, lambda done, total: calls.append((time.perf_counter(), done, total, threading.get_ident())))
    assert calls
    assert len(calls) <= 20 * (calls[-1][0] - calls[0][0]) + 2
    assert {c[3] for c in calls} == {threading.get_ident()}
    assert [c[1] for c in calls] == sorted(c[1] for c in calls)
    assert calls[-1][1:3] == (1000, 1000)


def test_an_error_in_the_callback_stops_the_work():
    def refuse(done, total):
        raise ZeroDivisionError(done, total)

    start = time.perf_counter()
    with pytest.raises(ZeroDivisionError):
        _core._spin(30.0, refuse)
    assert time.perf_counter() - start < 5


def test_a_panic_is_an_internal_error():
    with pytest.raises(dg.InternalError, match="as asked") as caught:
        _core._spin(0.0, None, panic=True)
    assert "report" in str(caught.value)


def test_two_threads_work_at_once():
    start = time.perf_counter()
    threads = [threading.Thread(target=_core._spin, args=(0.5,)) for _ in range(4)]
    for t in threads:
        t.start()
    ticks = 0
    while any(t.is_alive() for t in threads):
        time.sleep(0.01)
        ticks += 1
    took = time.perf_counter() - start
    # One after another they would take 2 s; and this thread was never shut out.
    assert took < 1.8
    assert ticks > 10


@pytest.mark.slow
@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="needs fork")
def test_forked_processes_do_not_hang(tmp_path):
    script = tmp_path / "forks.py"
    script.write_text(
        "import warnings; warnings.simplefilter('ignore')\n"
        "import multiprocessing as mp, disagg as dg\n"
        "ask = (dg.Model('deepseek-ai/DeepSeek-V3.2'), dg.Cluster('b200_sxm', gpus=8),\n"
        "       dg.Workload.preset('paper-chat'), dg.SLO(tpot_ms=50))\n"
        "def best(_): return dg.explore(*ask, levels=['aggregated'], progress=False).table.to_json()\n"
        "if __name__ == '__main__':\n"
        "    here = best(0)\n"
        "    with mp.get_context('fork').Pool(2) as pool: there = pool.map(best, range(2))\n"
        "    print(there == [here, here])\n",
        encoding="utf-8",
    )
    out = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=300, check=True)
    assert out.stdout.strip() == "True"


def test_columns_are_moved_not_copied_and_typed():
    x = np.array([1.5, -2.0, 3.25])
    f = dg.Frame._from_core(_core._frame(x))
    assert f.columns == ["index", "positive", "label", "x"]
    assert [f[n].dtype.kind for n in f.columns] == ["i", "b", "U", "f"]
    assert f["label"].tolist() == ["up", "down", "up"]
    assert f.attrs == {"seed": 1}
    assert np.array_equal(f["x"], x)


def test_reporter_takes_what_the_contract_says(capsys):
    with reporter(False, "x") as report:
        assert report is None
    with reporter(None, "x") as report:
        assert report is None  # nobody watches a test
    mine = []
    with reporter(lambda *a: mine.append(a), "x") as report:
        report(1, 2)
    assert mine == [(1, 2)]
    with reporter(True, "plans") as report:
        report(1, 4)
        report(4, 4)
    assert "plans" in capsys.readouterr().err
    with pytest.raises(dg.SpecError, match="progress"), reporter("yes", "x"):
        pass
