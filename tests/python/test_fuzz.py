"""Whatever the public entries are given, only the package's errors come back (`fuzz.py` makes the cases)."""

import sys

import pytest

import disagg as dg
from disagg._border import sealed
from fuzz import Fuzz

CASES = 20_000


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_only_the_packages_errors_leave_it():
    fuzz = Fuzz(seed=16)
    for k in range(CASES):
        fuzz.one(k)
    assert not fuzz.wrong, "\n".join(f"case {k}, {name}:\n{text}" for k, name, text in fuzz.wrong[:5])
    # Cases that all fail at the first check, or none that do, would judge nothing.
    assert fuzz.counts["answered"] > CASES // 10
    assert fuzz.counts["refused"] > CASES // 3
    assert min(fuzz.counts[name] for name, *_ in fuzz.made.calls) > CASES // 1000


def test_stray_errors_are_turned_into_ours_and_a_callers_own_are_not():
    space = dg.Space(
        model=dg.Model("Qwen/Qwen3-30B-A3B"),
        cluster=dg.Cluster("h200_sxm", gpus=8),
        workload=dg.Workload(isl=512, osl=64),
        axes={"plan.batch": [1, 2]},
    )
    for call, path in [
        (lambda: dg.Trace.poisson(dg.Workload(isl=5, osl=5), rate=1.0, n=2**70), "n"),
        (lambda: space.sample(1, seed=2**70), "seed"),
        (lambda: space.slice("a", 2), "Space.slice"),
        (lambda: dg.Frame({"a": [1]})[2:3], "Frame.__getitem__"),
        (lambda: dg.Frame.from_json("[" * 10**6), ""),
        (lambda: dg.Study.from_json("[" * 10**6), ""),
        (lambda: dg.Model("\ud800"), None),
    ]:
        with pytest.raises(dg.SpecError) as found:
            call()
        assert path is None or path in found.value.path or path in str(found.value)
    with pytest.raises(ZeroDivisionError):
        dg.Frame({"a": [1]}).filter(lambda _: 1 / 0)

    def stop(*_):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        dg.sweep(space, progress=stop)
    with pytest.raises(dg.DataError, match="No such file"):
        sealed(lambda: open("/no/such/file"))()  # noqa: PTH123, SIM115
    with pytest.raises(KeyboardInterrupt):
        sealed(lambda: (_ for _ in ()).throw(KeyboardInterrupt))()


def test_the_fuzz_finds_what_is_not_sealed(monkeypatch):
    fuzz = Fuzz(seed=1)
    monkeypatch.setattr(fuzz.made, "calls", [("bare", lambda n: 1.0 * n, (10**400,), {})])
    monkeypatch.setattr(fuzz, "read", fuzz.call)
    for k in range(50):
        fuzz.one(k)
    assert any("OverflowError" in text for _, _, text in fuzz.wrong)
    assert sys.getrecursionlimit() >= 1000
