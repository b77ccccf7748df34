"""Memory as servers have it: KV room, what fits, defaults of servers, and the error of a plan that does not fit."""

from __future__ import annotations

import pickle

import pytest

import disagg as dg

QWEN = dg.Model("Qwen/Qwen3-235B-A22B-FP8")
OSS = dg.Model("openai/gpt-oss-120b")
CHAT = dg.Workload(isl=1024, osl=256)


def one(tp: int = 1, batch: int = 1) -> dg.Aggregated:
    return dg.Aggregated(parallel=dg.Parallel(tp=tp), batch=batch)


def test_kv_tokens_are_what_the_server_prints() -> None:
    cluster = dg.Cluster("h100_sxm", gpus=4)
    for framework, fraction, printed in [("vllm", 0.9, 178_880), ("sglang", 0.93, 367_404)]:
        serving = dg.Serving(memory_fraction=fraction)
        est = dg.estimate(QWEN, cluster, CHAT, one(4), framework=framework, serving=serving)
        assert est.kv_tokens == pytest.approx(printed, rel=0.08), framework
        assert est.max_sequences == est.kv_tokens // 1280
        text = est.explain()
        assert f"KV room: {est.kv_tokens:,} tokens" in text
        assert "left outside the server's fraction" in text
        rows = {r["item"]: r["gib"] for r in est.memory.rows()}
        assert rows["outside the fraction"] > 0
        assert rows["capacity"] == pytest.approx(79.1, abs=0.01)


def test_pd_counts_the_decode_slot_and_afd_the_attention_pool() -> None:
    model, cluster = dg.Model("Qwen/Qwen3-30B-A3B"), dg.Cluster("b200_sxm", gpus=8)
    decode = dg.Workers(count=2, parallel=dg.Parallel(tp=1, dp=2), batch=4)
    plan = dg.PD(prefill=dg.Workers(count=1, parallel=dg.Parallel(tp=2)), decode=decode)
    pd = dg.estimate(model, cluster, CHAT, plan, framework="sglang")
    alone = dg.estimate(model, cluster, CHAT, dg.Aggregated(parallel=decode.parallel, batch=4), framework="sglang")
    assert pd.kv_tokens == pytest.approx(alone.kv_tokens, rel=0.01)
    assert pd.max_sequences == pytest.approx(2 * alone.max_sequences, rel=0.01)
    pool = dg.Pool(gpus=4)
    afd = dg.estimate(model, cluster, CHAT, dg.AFD(attention=pool, ffn=pool, batch=4), framework="sglang")
    assert afd.max_sequences == 4 * (afd.kv_tokens // 1280)


def test_a_plan_that_does_not_fit_raises_with_the_shortfall() -> None:
    cluster = dg.Cluster("h100_sxm", gpus=1)
    with pytest.raises(dg.InfeasibleError, match=r"memory:worker: needs .* GiB more") as caught:
        dg.estimate(OSS, cluster, CHAT, one(), framework="vllm", serving=dg.Serving(memory_fraction=0.9))
    assert "memory_fraction" in str(caught.value)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    est = dg.estimate(OSS, cluster, CHAT, one(), framework="vllm", serving=dg.Serving(memory_fraction=0.95))
    assert est.feasible
    assert est.kv_tokens > 20_000


def test_sweeps_and_studies_keep_what_does_not_fit() -> None:
    cluster = dg.Cluster("h100_sxm", gpus=2)
    study = dg.explore(dg.Model("deepseek-ai/DeepSeek-V3"), cluster, CHAT, dg.SLO(ttft_ms=1e4, tpot_ms=1e3))
    miss = study.best("aggregated")
    assert not miss.feasible
    assert miss.binding.startswith("memory:")
    assert (miss.kv_tokens, miss.max_sequences) == (0, 0)


def test_formats_say_where_they_come_from() -> None:
    blackwell, hopper = dg.Cluster("gb200", gpus=4), dg.Cluster("h200_sxm", gpus=4)
    for cluster, framework, moe in [
        (blackwell, "trtllm", "w4a8_mxfp4_mxfp8"),
        (hopper, "trtllm", "w4a16_mxfp4"),
        (blackwell, "vllm", "w4a16_mxfp4"),
    ]:
        est = dg.estimate(OSS, cluster, CHAT, one(4), framework=framework)
        assert est.formats["moe"].startswith(f"{moe} ("), framework
        assert f"moe {moe}" in est.explain()
    asked = dg.estimate(OSS, blackwell, CHAT, one(4), framework="trtllm", quant=dg.Quant(moe="w4a16_mxfp4"))
    assert asked.formats["moe"].startswith("w4a16_mxfp4 (")


@pytest.mark.parametrize("fraction", [0.0, -1.0, 1.5, 90.0])
def test_a_fraction_is_a_share(fraction: float) -> None:
    with pytest.raises(dg.SpecError, match="memory_fraction"):
        dg.Serving(memory_fraction=fraction)


def test_published_profiles_take_no_fraction() -> None:
    cluster, serving = dg.Cluster("h200_sxm", gpus=8), dg.Serving(memory_fraction=0.9)
    with pytest.raises(dg.SpecError, match=r"serving\.memory_fraction"):
        dg.estimate(QWEN, cluster, CHAT, one(8), serving=serving, assumptions=dg.Assumptions.paper())
