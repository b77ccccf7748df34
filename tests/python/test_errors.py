"""Line 5 of the notebook contract: errors name the field, say what would do, list everything at once."""

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import disagg as dg
import strategies

STRATEGIES = strategies.specs_of()

WRONG = [
    (lambda: dg.Parallel(tp=0), "tp", "must be at least 1, got 0"),
    (lambda: dg.Parallel(tp="8"), "tp", "whole number"),
    (lambda: dg.Parallel(tp=2.5), "tp", "whole number"),
    (lambda: dg.Parallel(tp=True), "tp", "whole number"),
    (lambda: dg.Parallel(tp=2**70), "tp", ""),
    (lambda: dg.Parallel(tp=float("nan")), "tp", "number"),
    (lambda: dg.Parallel(tp=None), "tp", "whole number"),
    (lambda: dg.Parallel(moe_pt=2), "moe_pt", "moe_tp"),
    (lambda: dg.Parallel(4), "", "tp="),
    (dg.Pool, "gpus", ""),
    (lambda: dg.Pool(gpus=8, device="h100"), "device", "Device"),
    (lambda: dg.AFD(attention=dg.Parallel(), ffn=dg.Pool(gpus=1)), "attention", "Pool"),
    (lambda: dg.AFD(attention=dg.Pool(gpus=1), ffn=dg.Pool(gpus=1), duplex="ful"), "duplex", "full"),
    (lambda: dg.PD(prefill=dg.Pool(gpus=1), decode=dg.Pool(gpus=1)), "prefill", "Workers or a AFD"),
    (lambda: dg.Cluster("b20_sxm", gpus=8), "system", "b200_sxm"),
    (lambda: dg.Cluster("b200_sxm", gpus=0), "gpus", ""),
    (lambda: dg.Cluster("b200_sxm", gpus=8, nic_gb_per_s=-1), "nic_gb_per_s", "above 0"),
    (lambda: dg.Cluster("b200_sxm", gpus=8, oversubscription=0.5), "oversubscription", ""),
    (lambda: dg.Model("deepseek-v3.3"), "model", "DeepSeek-V3"),
    (lambda: dg.Model(7), "source", "preset"),
    (lambda: dg.Model("deepseek-ai/DeepSeek-V3.2").replace(layer=1), "layer", "layers"),
    (lambda: dg.Workload(isl=-1, osl=1), "isl", ""),
    (lambda: dg.Workload(osl=1), "isl", "tokens"),
    (lambda: dg.Workload(isl=1, osl=1, lengths=[(1, 1, 1)]), "isl", "leave one"),
    (lambda: dg.Workload(isl=1, osl=1, prefix_scope="shard"), "prefix_scope", "shared"),
    (lambda: dg.Workload.preset("paper-chatt"), "workload", "paper-chat"),
    (lambda: dg.Distribution.lognormal(mean=5, p90=1), "p90", ""),
    (lambda: dg.Distribution.fixed(-1), "value", ""),
    (lambda: dg.SLO(percentile=0.95), "percentile", "95"),
    (lambda: dg.Quant(kv="fp9"), "kv", "fp8"),
    (lambda: dg.Serving(mtp=1, draft_acceptance=[1.5]), "draft_acceptance", ""),
    (lambda: dg.Assumptions.physical().replace(kv_transfr="bulk"), "kv_transfr", "kv_transfer"),
    (lambda: dg.Assumptions("phisical"), "profile", "physical"),
    (lambda: dg.Parallel.from_json("{"), "json", ""),
    (lambda: dg.Parallel.from_json(3), "text", "str"),
    (lambda: dg.Parallel.from_dict([]), "fields", "dict"),
    (lambda: dg.Workload.preset(3), "name", "str"),
    (lambda: dg.Device.preset(None), "system", "str"),
    (lambda: dg.Distribution.fixed(3).quantile("x"), "q", "float"),
    (lambda: dg.Distribution.fixed(3).quantile(2), "q", "0 to 1"),
    (lambda: dg.Aggregated(parallel=dg.Parallel()).check(1, 2), "model", "Model"),
    (lambda: dg.Assumptions.physical().diff(3), "other", "Assumptions"),
    (lambda: dg.AFD.from_json('{"kind": "pd"}'), "kind", "afd"),
]


@pytest.mark.parametrize(("call", "path", "hint"), WRONG)
def test_the_field_and_the_cure_are_named(call, path, hint):
    with pytest.raises(dg.SpecError) as caught:
        call()
    e = caught.value
    assert isinstance(e, ValueError)
    assert isinstance(e, dg.DisaggError)
    assert path in [p.path for p in e.problems]
    assert hint in str(e)
    assert (e.path, e.message, e.hint) == e.problems[0]
    assert "\x1f" not in str(e)


def test_all_problems_come_at_once():
    with pytest.raises(dg.SpecError) as caught:
        dg.AFD(attention=3, ffn=dg.Pool(gpus=1), microbatches=-1, duplex="ful", batch=float("inf"), routr="x")
    assert {p.path for p in caught.value.problems} == {"attention", "microbatches", "duplex", "batch", "routr"}


def test_paths_reach_into_nested_data():
    fields = {
        "prefill": {"kind": "workers", "count": "2", "parallel": {"tpp": 1}},
        "decode": {"kind": "afd", "attention": {"gpus": -1}},
    }
    with pytest.raises(dg.SpecError) as caught:
        dg.PD.from_dict(fields)
    paths = {p.path for p in caught.value.problems}
    assert paths == {"prefill.count", "prefill.parallel.tpp", "decode.attention.gpus", "decode.ffn"}


def test_a_plan_is_checked_against_model_and_cluster(model):
    plan = dg.PD(
        prefill=dg.Workers(count=1, parallel=dg.Parallel(tp=3)), decode=dg.Workers(count=2, parallel=dg.Parallel(dp=8))
    )
    with pytest.raises(dg.SpecError, match=r"plan\.prefill\.parallel\.tp: 3 does not divide 128 attention heads"):
        plan.check(model, dg.Cluster("b200_sxm", gpus=32))
    with pytest.raises(dg.SpecError, match=r"needs 16 GPUs, the cluster has 8"):
        dg.Aggregated(parallel=dg.Parallel(dp=8), replicas=2).check(model, dg.Cluster("b200_sxm", gpus=8))


def test_errors_pickle_with_their_fields():
    errors = [
        dg.SpecError([("a.b", "is wrong", "do this"), ("c", "too", "")]),
        dg.InfeasibleError("memory of the FFN pool", "200 GiB", "180 GiB"),
        dg.DataError("a.pack", "is damaged"),
        dg.CancelledError("cancelled"),
        dg.InternalError("boom"),
        dg.MissingPackageError("polars", "frames"),
    ]
    for e in errors:
        twin = pickle.loads(pickle.dumps(e))
        assert type(twin) is type(e)
        assert str(twin) == str(e)
        assert twin.__dict__ == e.__dict__
    assert errors[0].under("plan").path == "plan.a.b"
    assert "needs 200 GiB, has 180 GiB" in str(errors[1])


junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.binary(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@pytest.mark.parametrize("name", sorted(STRATEGIES))
def test_junk_never_gets_past_a_spec_error(name):
    cls, refused = getattr(dg, name), []

    @given(data=st.data())
    def judge(data):
        for call in _calls(cls, name, data):
            try:
                made = call()
            except (dg.SpecError, dg.DataError):
                refused.append(name)
                continue
            assert cls.from_json(made.to_json()) == made

    judge()
    examples = settings.default.max_examples
    assert len(refused) >= examples // 2, f"{len(refused)} refusals in {examples} examples"


def _calls(cls, name, data):
    """Ways to make a spec of which one field is junk."""
    if name == "Model":
        fields = dg.Model("openai/gpt-oss-20b").to_dict()
        fields[data.draw(st.sampled_from(sorted(fields)))] = data.draw(junk)
        return [lambda: cls(data.draw(junk | st.just(fields))), lambda: cls.from_dict(fields)]
    fields = data.draw(STRATEGIES[name])._args()
    fields[data.draw(st.sampled_from(sorted(fields)))] = data.draw(junk)
    return [lambda: cls(**fields), lambda: cls.from_dict(data.draw(st.just(dict(fields)) | st.just({})))]


def test_numpy_values_are_welcome():
    assert dg.Parallel(tp=np.int64(8)).tp == 8
    assert dg.SLO(ttft_ms=np.float32(0.5)).ttft_ms == 0.5
    assert dg.Placement(attention=np.arange(3)).attention == [0, 1, 2]


def test_a_list_that_holds_itself_is_refused():
    loop = []
    loop.append(loop)
    with pytest.raises(dg.SpecError, match="nested too deeply"):
        dg.Placement(attention=loop)


def test_wrong_classes_are_refused_together(model, chat):
    with pytest.raises(dg.SpecError) as caught:
        dg.estimate("v3", model, chat, dg.Parallel())
    assert {p.path for p in caught.value.problems} == {"model", "cluster", "plan"}
