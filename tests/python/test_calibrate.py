"""Devices fitted to logs: the door, what it refuses, and the measured servers of the validation table."""

import numpy as np
import pytest

import disagg as dg

MODEL = dg.Model("Qwen/Qwen3-32B")
PLAN = dg.Aggregated(parallel=dg.Parallel(), batch=16, chunk_tokens=1024)
START = dg.Cluster("h200_sxm", gpus=1)
GIVEN = {"model": MODEL, "cluster": START, "plan": PLAN, "framework": "vllm"}


@pytest.fixture(scope="module")
def log():
    truth = START.device.replace(hbm_bytes_per_s=START.device.hbm_bytes_per_s * 0.7)
    trace = dg.Trace.poisson(dg.Workload(isl=dg.Distribution.uniform(100, 2000), osl=16), rate=4, n=40, seed=2)
    run = dg.simulate(MODEL, START.replace(device=truth), PLAN, trace, framework="vllm")
    return truth, run.requests


@pytest.mark.slow
def test_a_log_gives_its_device_back_in_any_order_and_what_is_kept_out_is_not_looked_at(log):
    truth, requests = log
    mixed = np.random.default_rng(0).permutation(len(requests))
    columns = {n: requests[n][mixed] for n in ("arrival_s", "isl", "osl", "ttft_ms", "tpot_ms")}
    later = np.argsort(columns["arrival_s"])[25:]
    columns["ttft_ms"][later] *= 3
    columns["tpot_ms"][later] *= 3
    device = dg.calibrate(columns, first=25, **GIVEN)
    assert device.hbm_bytes_per_s == pytest.approx(truth.hbm_bytes_per_s, rel=0.03)
    assert device.hbm_bytes == START.device.hbm_bytes
    assert "log of 40" in device.source
    assert "of 25" in device.source
    # The log narrows the error bars of aggregated plans, and of nothing else.
    plain = device.replace(log_tpot_error=0.0, log_ttft_error=0.0)
    worker = dg.Workers(parallel=dg.Parallel(), count=1)
    pd = dg.PD(prefill=worker, decode=worker.replace(batch=16))
    assert 0 < width(device, PLAN) < 0.3 * width(plain, PLAN)
    assert width(device, pd) == width(plain, pd)


def width(device, plan):
    """ln of the upper over the lower end of the interval of TPOT."""
    cluster = START.replace(device=device, gpus=2)
    low, high = dg.estimate(MODEL, cluster, dg.Workload(isl=1000, osl=16), plan, framework="vllm").tpot_interval
    return np.log(high / low)


def test_logs_that_cannot_be_fitted_are_refused(log):
    _, requests = log
    columns = {n: requests[n] for n in ("arrival_s", "isl", "osl")}
    with pytest.raises(dg.SpecError, match="no latency"):
        dg.calibrate(columns, **GIVEN)
    with pytest.raises(dg.SpecError, match=r"log\.isl"):
        dg.calibrate({"arrival_s": [0.0], "osl": [4], "ttft_ms": [1.0]}, **GIVEN)
    with pytest.raises(dg.SpecError, match="first"):
        dg.calibrate(requests, first=0, **GIVEN)
    with pytest.raises(dg.SpecError, match=r"ttft_ms\[0\]"):
        dg.calibrate({**columns, "ttft_ms": np.full(40, -1.0)}, **GIVEN)


def test_measured_servers_stand_in_the_validation_table():
    table = dg.validation.run("served")
    kept_out = table.filter(lambda f: np.char.startswith(f["status"].astype(str), "check"))
    assert len(kept_out) == 4
    for row in kept_out.rows():
        aim = 0.08 if "ttft" in row["metric"] else 0.03
        assert abs(row["error"]) <= aim, row


def test_the_closed_loops_of_the_sample_show_progress_and_can_be_stopped():
    seen = []

    def stop(done, total):
        seen.append((done, total))
        if done > 0:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        dg.validation.run("silicon", ttft=True, progress=stop)
    assert 0 < seen[-1][0] < seen[-1][1] == 5221
