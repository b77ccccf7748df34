"""Arrivals of their own: what is refused, and what the table says."""

from __future__ import annotations

import math

import pytest

import disagg as dg
from disagg._core import plan_words as words


def _small() -> tuple[dg.Model, dg.Cluster, dg.Workload]:
    return dg.Model("Qwen/Qwen3-30B-A3B"), dg.Cluster("h200_sxm", gpus=4), dg.Workload(isl=1024, osl=256)


def test_a_percentile_needs_arrivals() -> None:
    model, cluster, workload = _small()
    slo = dg.SLO(ttft_ms=500, tpot_ms=20, percentile=99)
    with pytest.raises(dg.SpecError, match=r"slo\.percentile.*percentile needs arrivals='poisson'"):
        dg.explore(model, cluster, workload, slo)
    with pytest.raises(dg.SpecError, match=r"percentile needs arrivals='poisson'"):
        dg.regimes(model, cluster, isl=1024, osl=256, slo=slo)


def test_unknown_arrivals_are_named() -> None:
    model, cluster, workload = _small()
    for call in (
        lambda: dg.explore(model, cluster, workload, dg.SLO(tpot_ms=20), arrivals="poison"),
        lambda: dg.regimes(model, cluster, isl=1024, osl=256, slo=dg.SLO(tpot_ms=20), arrivals="poison"),
    ):
        with pytest.raises(dg.SpecError, match=r"arrivals.*'poison' is not known.*poisson"):
            call()
    with pytest.raises(dg.SpecError, match="objective"):
        dg.explore(model, cluster, workload, dg.SLO(tpot_ms=20), objective="tokens_per_s_per_user", arrivals="poisson")


@pytest.mark.slow
def test_both_rates_stand_in_the_table_and_the_simulator_agrees() -> None:
    model, cluster, workload = _small()
    slo = dg.SLO(ttft_ms=150, tpot_ms=15)
    levels = ["aggregated", "pd"]
    open_loop = dg.explore(model, cluster, workload, slo, levels=levels, arrivals="poisson").table
    closed = dg.explore(model, cluster, workload, slo, levels=levels).table
    assert "closed_tokens_per_s_per_gpu" not in closed
    for i in range(len(levels)):
        rate = open_loop["tokens_per_s_per_gpu"][i]
        assert 0 < rate <= open_loop["closed_tokens_per_s_per_gpu"][i]
        low, mid, high = (
            open_loop[n][i] for n in ("simulated_low", "simulated_tokens_per_s_per_gpu", "simulated_high")
        )
        assert low <= mid <= high
        assert math.isclose(rate, mid, rel_tol=0.15)
        assert open_loop["ttft_ms"][i] <= 150.01
        assert open_loop["tpot_ms"][i] <= 15.001
    tail = dg.explore(
        model, cluster, workload, dg.SLO(ttft_ms=150, tpot_ms=15, percentile=99), levels=levels, arrivals="poisson",
        confirm=False,
    ).table  # fmt: skip
    assert (tail["tokens_per_s_per_gpu"] < open_loop["tokens_per_s_per_gpu"]).all()
    assert tail["simulated_tokens_per_s_per_gpu"].tolist() != tail["simulated_tokens_per_s_per_gpu"].tolist()  # NaN


def test_a_map_says_what_explore_says() -> None:
    model, cluster, workload = _small()
    slo = dg.SLO(ttft_ms=150, tpot_ms=15)
    cell = dg.regimes(model, cluster, workloads=[workload], slo=slo, levels=["aggregated"], framework="trtllm",
                      arrivals="poisson")  # fmt: skip
    study = dg.explore(model, cluster, workload, slo, levels=["aggregated"], frameworks=["trtllm"], arrivals="poisson",
                       confirm=False)  # fmt: skip
    assert cell["tokens_per_s_per_gpu_aggregated"][0] == study.table["tokens_per_s_per_gpu"][0]


def test_cadence_where_it_is_not() -> None:
    model, cluster, workload = _small()
    plan = dg.Aggregated(parallel=dg.Parallel(tp=4), batch=32, chunk_tokens=2048, prefill_interval=4)
    with pytest.raises(dg.SpecError, match=r"plan\.prefill_interval.*one rank"):
        dg.estimate(model, cluster, workload, plan, framework="vllm")


def test_cadence_trades_ttft_for_tpot() -> None:
    model, cluster, workload = _small()

    def at(n: int) -> dg.Estimate:
        plan = dg.Aggregated(parallel=dg.Parallel(dp=4), batch=64, chunk_tokens=4096, prefill_interval=n)
        return dg.estimate(model, cluster, workload, plan, framework="vllm")

    one, four = at(1), at(4)
    assert four.tpot_ms < one.tpot_ms
    assert four.ttft_ms > one.ttft_ms


@pytest.mark.parametrize("chunk", [1359, 2300])  # one prompt and part of the next a step; two whole ones
def test_a_cadence_under_load_is_what_the_simulator_serves(chunk: int) -> None:
    model, cluster, workload = _small()
    judged = 0
    for n in (1, 2, 4, 8):
        plan = dg.Aggregated(
            parallel=dg.Parallel(dp=4, ep=1, moe_tp=4), batch=125, chunk_tokens=chunk, prefill_interval=n
        )
        for rate in (30.0, 45.0):
            said = dg.estimate(model, cluster, workload, plan, framework="sglang", load=rate)
            trace = dg.Trace.poisson(workload, rate=rate, n=6000, seed=1)
            served = dg.simulate(model, cluster, plan, trace, framework="sglang").requests
            for metric, within in (("ttft_ms", 0.1), ("tpot_ms", 0.05)):
                assert getattr(said, metric) == pytest.approx(served[metric][1500:].mean(), rel=within), (n, rate)
                judged += 1
    assert judged == 16


def test_a_cadence_is_named_in_words() -> None:
    plan = dg.Aggregated(parallel=dg.Parallel(dp=4), batch=64, chunk_tokens=4096, prefill_interval=4)
    assert words(plan).endswith("64 a rank, 4096 tokens a step, prompts every 4 steps")
    halves = plan.replace(prefill_interval=None, two_batch_overlap=True)
    assert words(halves).endswith("64 a rank, 4096 tokens a step, two batches that overlap")
