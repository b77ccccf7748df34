"""Single phases from a notebook: what they say, and what they refuse."""

import pickle

import pytest

import disagg as dg

HGX = dg.Cluster("b200_sxm", gpus=128)
RACK = dg.Cluster("gb200", gpus=144)
V3 = {"hidden": 7168, "topk": 8, "experts": 256}
UNIT = {**V3, "tokens": 64, "senders": 16, "receivers": 48}


def test_measured_ranks_are_the_table():
    phase = dg.network.collective(dg.Cluster("h100_sxm", gpus=16), "all_gather", ranks=8, bytes=2**20)
    assert phase.evidence == "measured" and phase.tier == "scale-up"
    beyond = dg.network.collective(dg.Cluster("h100_sxm", gpus=16), "all_gather", ranks=16, bytes=2**20)
    assert beyond.evidence == "extrapolated" and beyond.tier == "both" and beyond.ms > phase.ms


def test_spread_ranks_pay_for_the_tier_they_cross():
    h100 = dg.Cluster("h100_sxm", gpus=64)
    packed = dg.network.collective(h100, "all_reduce", ranks=8, bytes=2**24)
    apart = dg.network.collective(h100, "all_reduce", ranks=8, bytes=2**24, placement=[8 * i for i in range(8)])
    assert packed.tier == "scale-up" and apart.tier == "scale-out" and apart.ms > 3 * packed.ms
    with pytest.raises(dg.SpecError, match="placement: names 1 GPUs, needs 8"):
        dg.network.collective(h100, "all_reduce", ranks=8, bytes=1.0, placement=[3])


def test_phases_are_values():
    phase = dg.network.dispatch(RACK, tokens=128, ranks=64, **V3)
    assert pickle.loads(pickle.dumps(phase)) == phase
    assert "one-sided" in repr(phase) and "<script" not in phase._repr_html_() and "nvlink_out" in phase._repr_html_()
    with pytest.raises(AttributeError, match="frozen"):
        phase.ms = 1.0


def test_ports_carry_the_expected_bytes():
    # 128 tokens to D = 7.676 of 64 GPUs, 1/64 of them itself, in FP8 with scales (7,392 B).
    phase = dg.network.dispatch(RACK, tokens=128, ranks=64, backend="one-sided", **V3)
    assert phase.ports["bytes"][0] == pytest.approx(128 * 7.676 * 63 / 64 * 7392, rel=1e-3)
    # No deduplication: k copies, seven eighths of them to other nodes.
    ll = dg.network.dispatch(HGX, tokens=128, ranks=64, backend="low-latency", **V3)
    by_port = dict(zip(ll.ports["port"], ll.ports["bytes"], strict=True))
    assert by_port["nic_out"] == 128 * 8 * 7392 * 7 / 8


@pytest.mark.parametrize("cluster", [HGX, RACK])
def test_a2f_and_f2a_move_the_same_where_payloads_are_equal(cluster):
    out = dg.network.a2f(cluster, **UNIT, dtype="bfloat16")
    back = dg.network.f2a(cluster, **{**UNIT, "senders": 48, "receivers": 16}, dtype="bfloat16")
    bytes_of = lambda p, side: sorted(r["bytes"] for r in p.ports.rows() if r["side"] == side)  # noqa: E731
    assert out.kernel == back.kernel
    for side in ("attention", "ffn"):
        assert bytes_of(out, side) == bytes_of(back, side)


def test_the_scale_out_gap_and_a_misplaced_pool():
    inside = dg.network.a2f(RACK, **UNIT)
    outside = dg.network.a2f(HGX, **UNIT)
    wire = inside.ports["gb_per_s"].max() / outside.ports["gb_per_s"].max()
    assert wire == 18 and outside.tier == "scale-out" and inside.tier == "scale-up"
    # The same pools, the FFN pool in the other rack.
    apart = dg.Placement(attention=list(range(16)), ffn=list(range(72, 120)))
    lost = dg.network.a2f(RACK, **UNIT, placement=apart)
    assert lost.tier != "scale-up" and lost.ms > 1.5 * inside.ms


def test_hot_experts_make_hot_ports():
    even = dg.network.dispatch(RACK, tokens=512, ranks=32, **V3)
    hot = dg.network.dispatch(RACK, tokens=512, ranks=32, exponent=1.0, **V3)
    load = [1.0] * 256
    load[0] = 256.0
    hottest = dg.network.dispatch(RACK, tokens=512, ranks=32, load=load, **V3)
    assert even.ms < hot.ms < hottest.ms and hot.bound == "nvlink_in"


def test_kv_layer_by_layer_hides_behind_the_computation():
    bulk = dg.network.kv_transfer(HGX, bytes=1e9)
    hidden = dg.network.kv_transfer(HGX, bytes=1e9, layers=61, compute_ms=10.0)
    exposed = dg.network.kv_transfer(HGX, bytes=1e9, layers=61, compute_ms=0.0)
    assert hidden.ms < 0.05 * bulk.ms < exposed.ms
    assert dg.network.kv_transfer(HGX, bytes=1e9, prefill_tp=4, decode_tp=8).ms < 0.3 * bulk.ms


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: dg.network.collective(HGX, "allreduce", ranks=2, bytes=1.0), "op: 'allreduce' is not a collective"),
        (lambda: dg.network.collective(HGX, "all_reduce", ranks=129, bytes=1.0), "ranks: cannot be 129; 1 to 128"),
        (lambda: dg.network.collective(HGX, "all_reduce", ranks=2, bytes=0.0), "bytes: cannot be 0"),
        (lambda: dg.network.collective(HGX, "all_reduce", ranks=2, bytes=1e30), "bytes: cannot be"),
        (lambda: dg.network.dispatch(HGX, tokens=1, ranks=8, backend="one-sided", **V3), "does not reach 8 ranks here"),
        (lambda: dg.network.dispatch(HGX, tokens=1, ranks=8, backend="deep", **V3), "backend: 'deep' is not a kernel"),
        (lambda: dg.network.dispatch(HGX, tokens=float("nan"), ranks=8, **V3), "tokens: cannot be nan"),
        (lambda: dg.network.dispatch(HGX, tokens=1, ranks=8, load=[1.0], **V3), "load: has 1 entries for 256 experts"),
        (lambda: dg.network.dispatch(HGX, tokens=1, ranks=8, exponent=-1.0, **V3), "exponent: cannot be -1"),
        (lambda: dg.network.a2f(HGX, **{**UNIT, "receivers": 120}), "16 and 120 GPUs do not fit"),
        (lambda: dg.network.a2f(HGX, **UNIT, tp=3), "tp: 3 does not divide 16"),
        (lambda: dg.network.a2f(HGX, **UNIT, ep=7), "ep: 7 groups"),
        (lambda: dg.network.kv_transfer(HGX, bytes=-1.0), "bytes: cannot be -1"),
        (lambda: dg.network.collective(HGX, "all_reduce", ranks=2, bytes=8.0, framework="x"), "framework: 'x' is not"),
    ],
)
def test_wrong_questions_say_what_is_wrong(call, said):
    with pytest.raises(dg.SpecError, match=said):
        call()
