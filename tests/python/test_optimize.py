"""dg.optimize as a user meets it: the optimum, its proof, samplers, simulations, stopping."""

import itertools
import pickle
import re
import sys

import numpy as np
import pytest

import disagg as dg


def _space(**changes):
    given = {
        "model": dg.Model("Qwen/Qwen3-30B-A3B"),
        "cluster": dg.Cluster("h200_sxm", gpus=8),
        "workload": dg.Workload.preset("paper-chat"),
        "axes": {"plan.parallel.tp": [1, 2, 4, 8], "plan.batch": [8, 64, 5000], "plan.replicas": [1, 2, 4, 8]},
        "where": ["tp * replicas <= 8"],
    } | changes
    return dg.Space(**given)


@pytest.fixture(scope="module")
def space():
    return _space()


@pytest.fixture(scope="module")
def found(space):
    return dg.optimize(space, objective="tokens_per_s", constraints=["tpot_ms <= 20"])


def test_the_best_is_that_of_a_sweep(space, found):
    rows = dg.sweep(space)
    good = rows.filter(rows["feasible"] & (rows["tpot_ms"] <= 20))
    assert found.value == good["tokens_per_s"].max()
    assert found.choice == {a: good.best("tokens_per_s")[a] for a in found.choice}
    assert found.best.tokens_per_s == found.value and found.best.tpot_ms <= 20
    assert found.objective == "max tokens_per_s" and found.complete
    assert found.ties["point"].tolist() == [found.point]


def test_the_certificate_tells_of_every_point(space, found):
    told = dict(zip(found.certificate["what"].tolist(), found.certificate["points"].tolist(), strict=True))
    assert told["points"] == space.size == sum(n for what, n in told.items() if what != "points")
    assert told["priced"] == len(found.points) and told["replica"] > 0
    assert all(found.certificate["why"].tolist())


def test_ties_are_told_and_the_first_is_the_best():
    # Inside one node nobody sends over the NIC.
    space = _space(axes={"plan.batch": [8, 64], "cluster.nic_gb_per_s": [25, 50, 100]}, where=())
    found = dg.optimize(space, objective="tokens_per_s")
    assert found.ties["cluster.nic_gb_per_s"].tolist() == [25, 50, 100]
    assert found.choice == {"plan.batch": 64, "cluster.nic_gb_per_s": 25}
    assert "3 ties" in repr(found) and "3 points tie" in found._repr_html_()


def test_parts_of_a_space_and_both_senses(space):
    part = dg.optimize(space.slice(3, 9), objective="max tpot_ms")
    rows = dg.sweep(space.slice(3, 9))
    assert part.value == np.nanmax(rows["tpot_ms"])
    assert set(part.points["point"].tolist()) <= set(range(3, 9))


def test_results_travel(found):
    assert dg.Optimum.from_json(found.to_json()) == found
    assert pickle.loads(pickle.dumps(found)) == found
    assert repr(found).startswith("Optimum(max tokens_per_s: ") and "points priced" in repr(found)
    assert found.space.size == 30


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"objective": "token_per_s"}, "did you mean 'tokens_per_s'"),
        ({"objective": "best tokens_per_s"}, "'best tokens_per_s' is not a metric"),
        ({"objective": "tpot_ms", "constraints": ["tpot_ms < 0.1"]}, "no point keeps 'tpot_ms < 0.1'; tpot_ms was"),
        ({"objective": "tpot_ms", "constraints": "tp > 4 and tp < 4"}, "no point keeps 'tp > 4 and tp < 4'"),
        ({"objective": "tpot_ms", "constraints": ["tpt_ms < 1"]}, "did you mean 'tpot_ms'"),
        ({"objective": "tpot_ms", "constraints": [3]}, "3 is not text"),
        ({"objective": "tpot_ms", "method": "exakt"}, "did you mean 'exact'"),
        ({"objective": "tpot_ms", "constraint": "x"}, "did you mean 'constraints'"),
        ({"objective": "tpot_ms", "trials": 0}, "trials"),
        ({"objective": "tpot_ms", "simulate": {"trac": 1}}, "did you mean 'trace'"),
        ({"objective": "goodput"}, "'goodput' is not a metric"),
    ],
)
def test_wrong_input_is_named(space, arguments, said):
    with pytest.raises(dg.SpecError, match=re.escape(said)):
        dg.optimize(space, **arguments)


def test_nothing_that_stands_is_an_error_that_names_the_objective():
    with pytest.raises(dg.SpecError, match=r"no point of the space has a tokens_per_s: .*memory"):
        dg.optimize(_space(axes={"plan.batch": [50_000, 80_000]}, where=()), objective="tokens_per_s")


def _wide():
    plan = dg.PD(
        prefill=dg.Workers(count=1, parallel=dg.Parallel()),
        decode=dg.Workers(count=1, parallel=dg.Parallel(), batch=8),
    )
    return _space(
        plan=plan,
        cluster=dg.Cluster("h200_sxm", gpus=64),
        where=(),
        axes={
            "plan.prefill.parallel.dp": [1, 2, 4],
            "plan.prefill.count": list(range(1, 17)),
            "plan.decode.parallel.dp": [1, 2, 4, 8],
            "plan.decode.batch": [8, 16, 32, 64, 96, 128, 192, 256],
            "plan.decode.count": list(range(1, 17)),
        },
    )


def test_slots_bound_their_pairs():
    found = dg.optimize(_wide(), objective="usd_per_mtok", constraints=["tpot_ms <= 15"])
    told = dict(zip(found.certificate["what"].tolist(), found.certificate["points"].tolist(), strict=True))
    assert told["points"] == 24_576 and told["priced"] < 2_500
    assert found.objective == "min usd_per_mtok" and found.best.tpot_ms <= 15


def _stop_after(points):
    def report(done, _):
        if done >= points:
            raise KeyboardInterrupt

    return report


def test_stopping_gives_what_there_is():
    axes = {"plan.batch": list(range(1, 2001)), "plan.chunk_tokens": list(range(512, 1012)), "plan.parallel.tp": [1, 2]}
    space = _space(axes=axes, where=())
    found = dg.optimize(space, objective="tokens_per_s", partial=True, progress=_stop_after(1000))
    assert not found.complete and "stopped" in repr(found) and "stopped" in found._repr_html_()
    told = dict(zip(found.certificate["what"].tolist(), found.certificate["points"].tolist(), strict=True))
    assert told["not looked at"] > 0 and told["priced"] > 0
    assert found.value == np.nanmax(found.points["tokens_per_s"])
    with pytest.raises(KeyboardInterrupt):
        dg.optimize(space, objective="tokens_per_s", progress=_stop_after(1))
    with pytest.raises(dg.SpecError, match=r"none of the \d+ points priced keeps 'tpot_ms < 0.1'"):
        dg.optimize(
            space, objective="tokens_per_s", constraints=["tpot_ms < 0.1"], partial=True, progress=_stop_after(999)
        )


def test_progress_reaches_the_total(space):
    calls = []
    dg.optimize(space, objective="tokens_per_s", progress=lambda done, total: calls.append((done, total)))
    assert calls[-1] == (space.size, space.size)


def test_a_sampler_finds_the_optimum_of_a_small_space_and_repeats_itself(space, found):
    pytest.importorskip("optuna")
    asked = dg.optimize(space, objective="tokens_per_s", constraints=["tpot_ms <= 20"], method="optuna", trials=80)
    assert asked.value == found.value and asked.method == "optuna" and asked.constraints == ["tpot_ms <= 20"]
    again = dg.optimize(space, objective="tokens_per_s", constraints=["tpot_ms <= 20"], method="optuna", trials=80)
    assert asked == again
    with pytest.raises(dg.SpecError, match=r"none of the \d+ points priced keeps 'tpot_ms < 0.1'"):
        dg.optimize(space, objective="tokens_per_s", constraints=["tpot_ms < 0.1"], method="optuna", trials=8)
    fewer = dg.optimize(space, objective="tokens_per_s", method="optuna", trials=5, seed=3)
    assert "nothing is proved of these" in fewer.certificate["why"].tolist()


def test_a_continuous_axis_is_a_fine_list():
    pytest.importorskip("optuna")
    rates = np.linspace(25, 400, 1000)
    space = _space(axes={"cluster.nic_gb_per_s": rates, "plan.batch": list(range(1, 1001))}, where=())
    found = dg.optimize(space, objective="usd_per_mtok", method="optuna", trials=40)
    assert 25 <= found.choice["cluster.nic_gb_per_s"] <= 400 and len(found.points) <= 40
    with pytest.raises(dg.SpecError, match="whole space"):
        dg.optimize(space.slice(0, 9), objective="tpot_ms", method="optuna")


def test_without_optuna_the_cure_is_named(space, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(dg.MissingPackageError, match=r"disagg\[optimize\]"):
        dg.optimize(space, objective="tpot_ms", method="optuna")


@pytest.fixture(scope="module")
def served():
    workload = dg.Workload(isl=1024, osl=100)
    space = _space(
        workload=workload,
        cluster=dg.Cluster("h200_sxm", gpus=4),
        axes={"plan.parallel.tp": [1, 2, 4], "plan.batch": [4, 16, 64], "plan.replicas": [1, 2, 4]},
        where=["tp * replicas <= 4"],
    )
    return space, dg.Trace.poisson(workload, rate=40.0, n=800, seed=3), dg.SLO(ttft_ms=100, tpot_ms=20)


def _all(space, trace, measure):
    """The slow twin: every plan under the whole trace."""
    out = {}
    for point, row in enumerate(space.points.rows()):
        plan = dg.Aggregated(
            parallel=dg.Parallel(tp=row["plan.parallel.tp"]), batch=row["plan.batch"], replicas=row["plan.replicas"]
        )
        run = dg.simulate(dg.Model("Qwen/Qwen3-30B-A3B"), dg.Cluster("h200_sxm", gpus=4), plan, trace, progress=False)
        out[point] = measure(run)
    return out


def test_simulated_goodput_is_that_of_the_twin(served):
    space, trace, slo = served
    found = dg.optimize(space, objective="goodput", simulate={"trace": trace, "slo": slo})
    twin = _all(space, trace, lambda run: run.goodput(slo)["requests_per_s"])
    assert found.value == max(twin.values()) and twin[found.point] == found.value
    assert isinstance(found.best, dg.Run) and found.best.goodput(slo)["requests_per_s"] == found.value
    told = dict(zip(found.certificate["what"].tolist(), found.certificate["points"].tolist(), strict=True))
    assert told["dropped"] > 0 and told["dropped"] + told["priced"] == space.size
    # What was dropped was in truth no better.
    dropped = [row["point"] for row in found.points.rows() if row["status"].startswith("dropped")]
    assert len(dropped) == told["dropped"]
    assert all(twin[point] < found.value for point in dropped)
    assert dg.Optimum.from_json(found.to_json()) == found


def test_simulated_latencies_keep_constraints(served):
    space, trace, _ = served
    limits = ["tokens_per_s > 100", "tpot_ms < 12"]
    found = dg.optimize(space, objective="ttft_p90_ms", constraints=limits, simulate=trace)
    twin = _all(space, trace, lambda run: (float(np.percentile(run.requests["ttft_ms"], 90)), run.tpot_ms))
    assert found.value == min(v for v, tpot in twin.values() if tpot < 12)
    with pytest.raises(dg.SpecError, match="within the constraints: breaks a constraint"):
        dg.optimize(space, objective="ttft_ms", constraints=["tpot_ms < 0.1"], simulate=trace)
    with pytest.raises(dg.SpecError, match=r"simulate.slo: is required by goodput"):
        dg.optimize(space, objective="goodput", simulate=trace)
    with pytest.raises(dg.SpecError, match="not a metric of a simulation"):
        dg.optimize(space, objective="watts", simulate=trace)


def test_a_sampler_may_simulate(served):
    pytest.importorskip("optuna")
    space, trace, slo = served
    given = {"objective": "goodput", "simulate": {"trace": trace, "slo": slo}, "method": "optuna", "trials": 16}
    first, second = (dg.optimize(space, **given, seed=2) for _ in range(2))
    assert first == second and len(first.points) <= 16
    for a, b in itertools.pairwise(sorted(first.points["point"].tolist())):
        assert a < b
