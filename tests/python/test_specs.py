"""Lines 2 to 4 of the notebook contract: frozen, readable, comparable, exact in JSON and pickle."""

import copy
import html
import json
import pickle
import re

import cloudpickle
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import disagg as dg
import strategies

STRATEGIES = strategies.specs_of()
NAMES = {n: getattr(dg, n) for n in dg.__all__} | {"nan": float("nan"), "inf": float("inf")}

every_class = pytest.mark.parametrize("name", sorted(STRATEGIES))


@every_class
@given(data=st.data())
def test_json_is_exact(name, data):
    spec = data.draw(STRATEGIES[name])
    again = type(spec).from_json(spec.to_json())
    assert again == spec
    assert again.to_json() == spec.to_json()
    assert type(spec).from_dict(spec.to_dict()) == spec
    json.loads(spec.to_json())


@every_class
@given(data=st.data())
def test_repr_is_one_line_and_evaluates_to_the_same(name, data):
    spec = data.draw(STRATEGIES[name])
    text = repr(spec)
    assert "\n" not in text
    assert eval(text, dict(NAMES)) == spec  # noqa: S307


@every_class
@given(data=st.data())
def test_copies_are_equal(name, data):
    spec = data.draw(STRATEGIES[name])
    for twin in (
        copy.copy(spec),
        copy.deepcopy(spec),
        pickle.loads(pickle.dumps(spec)),
        cloudpickle.loads(cloudpickle.dumps(spec)),
        spec.replace(),
        spec.__replace__(),
    ):
        assert twin == spec
        assert type(twin) is type(spec)


@every_class
@given(data=st.data())
def test_equal_means_equal_hash_and_different_means_unequal(name, data):
    a, b = data.draw(STRATEGIES[name]), data.draw(STRATEGIES[name])
    assert (a == b) == (a.to_json() == b.to_json())
    assert a != "text"
    assert hash(a) == hash(type(a).from_json(a.to_json()))
    assert len({a, b}) == (1 if a == b else 2)


def test_the_two_zeros_are_equal_and_hash_alike():
    device = dg.Device.preset("b200_sxm")
    assert len({device.replace(launch_s=0.0), device.replace(launch_s=-0.0)}) == 1


def test_a_quick_and_a_slow_call_make_the_same_spec():
    # numpy's numbers and lists go through JSON, plain ones do not.
    for quick, slow in [
        (dg.Parallel(tp=8), dg.Parallel(tp=np.int64(8))),
        (dg.SLO(ttft_ms=3), dg.SLO(ttft_ms=np.float64(3.0))),
        (dg.Placement(ffn=(1, 2)), dg.Placement(ffn=np.array([1, 2]))),
        (dg.Quant(kv="fp8"), dg.Quant.from_dict({"kv": "fp8"})),
        (dg.Parallel().replace(ep=4), dg.Parallel().replace(ep=np.int32(4))),
    ]:
        assert quick == slow and hash(quick) == hash(slow)
        assert quick.to_json() == slow.to_json()


@every_class
@given(data=st.data())
def test_html_states_the_same_facts(name, data):
    spec = data.draw(STRATEGIES[name])
    page = spec._repr_html_()
    assert "<script" not in page
    cells = [html.unescape(c) for c in re.findall(r"<td[^>]*>(.*?)</td>", page, flags=re.DOTALL)]
    text = repr(spec)
    for cell in cells:
        assert cell in text
    assert "color:" not in page.replace("rgba(128,128,128,0.3)", "")


@every_class
@given(data=st.data())
def test_frozen(name, data):
    spec = data.draw(STRATEGIES[name])
    with pytest.raises(AttributeError, match="frozen"):
        spec.tp = 1
    with pytest.raises(AttributeError):
        del spec._raw


def test_json_may_leave_out_what_a_constructor_may():
    pool = dg.Pool(gpus=1)
    for spec, required in [
        (dg.Parallel(), ()),
        (dg.Placement(), ()),
        (dg.Quant(), ()),
        (dg.SLO(), ()),
        (dg.Serving(), ()),
        (pool, ("gpus",)),
        (dg.Workers(count=2, parallel=dg.Parallel()), ("count", "parallel")),
        (dg.Aggregated(parallel=dg.Parallel()), ("parallel",)),
        (dg.AFD(attention=pool, ffn=pool), ("attention", "ffn")),
    ]:
        assert type(spec).from_dict({name: spec.to_dict()[name] for name in required}) == spec


def test_defaults_make_sense():
    assert dg.Cluster("gb200", gpus=72).fabric.domain_gpus == 72
    assert dg.Parallel() == dg.Parallel(tp=1, dp=1, pp=1, cp=1, ep=None, moe_tp=1)
    assert dg.SLO().ttft_ms is None
    assert dg.Serving().framework_reserve_gib is None


def test_replace_changes_one_thing():
    plan = dg.AFD(attention=dg.Pool(gpus=16), ffn=dg.Pool(gpus=112))
    other = plan.replace(microbatches=3)
    assert other.microbatches == 3
    assert other.replace(microbatches=None) == plan
    assert dg.Model("deepseek-ai/DeepSeek-V3.2").replace(moe={"topk": 4}).moe["experts"] == 256


def test_cluster_takes_another_fabric():
    c = dg.Cluster("b200_sxm", gpus=128)
    assert c.replace(nic_gb_per_s=100.0).nic_gb_per_s == 100.0
    assert c.replace(system="gb200").fabric == dg.Fabric.preset("gb200")
    what_if = c.fabric.__class__.preset("b200_sxm").replace(domain_gpus=64, oversubscription=2.0)
    assert c.replace(fabric=what_if).fabric == what_if
    assert c.replace(fabric=what_if).replace(oversubscription=4.0).fabric.domain_gpus == 64


def test_a_fabric_of_ones_own_is_a_dict() -> None:
    c = dg.Cluster("b200_sxm", gpus=40, fabric={"domain_gpus": 16, "nvlink_gb_per_s": 450, "oversubscription": 2.0})
    assert (c.fabric.domain_gpus, c.fabric.node_gpus, c.fabric.nvlink_bytes_per_s) == (16, 8, 450e9)
    assert c.fabric.source.startswith("user") and c.oversubscription == 2.0
    assert c.nic_gb_per_s == dg.Cluster("b200_sxm", gpus=40).nic_gb_per_s
    far = dg.network.kv_transfer(c, bytes=1e9, same_domain=False).ms
    faster = dg.Cluster("b200_sxm", gpus=40, fabric={"nic_gb_per_s": 100})
    assert far / dg.network.kv_transfer(faster, bytes=1e9, same_domain=False).ms == pytest.approx(2.0, rel=0.05)
    for fabric, field in [
        ({"domain_gpu": 16}, "fabric.domain_gpu"),
        ({"domain_gpus": 12}, "fabric.domain_gpus"),
        ({"nic_gb_per_s": -1}, "fabric.nic_bytes_per_s"),
        ({"nic_gb_per_s": "fast"}, "fabric.nic_gb_per_s"),
    ]:
        with pytest.raises(dg.SpecError) as e:
            dg.Cluster("b200_sxm", gpus=40, fabric=fabric)
        assert e.value.path == field, (fabric, e.value)


def test_levels_and_sizes_of_plans():
    w = dg.Workers(count=2, parallel=dg.Parallel(dp=8))
    afd = dg.AFD(attention=dg.Pool(gpus=16), ffn=dg.Pool(gpus=112), units=2)
    assert (dg.PD(prefill=w, decode=w).level, dg.PD(prefill=w, decode=w).gpus) == ("pd", 32)
    assert dg.PD(prefill=w, decode=afd).level == "pd+afd"
    assert (afd.level, afd.gpus) == ("aggregated+afd", 256)
    assert isinstance(dg.PD(prefill=w, decode=afd).decode, dg.AFD)


def test_a_config_file_and_its_dict_give_the_same_model(tmp_path):
    config = {
        "architectures": ["Qwen3ForCausalLM"],
        "num_hidden_layers": 4,
        "hidden_size": 512,
        "vocab_size": 1000,
        "max_position_embeddings": 4096,
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
        "head_dim": 64,
        "intermediate_size": 1024,
    }
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "config.json").write_text(json.dumps(config), encoding="utf-8")
    from_file = dg.Model(tmp_path / "tiny" / "config.json")
    assert from_file == dg.Model(str(tmp_path / "tiny"))
    assert from_file.name == "tiny"
    assert str(tmp_path) not in from_file.to_json()
    assert dg.Model(config).layers == from_file.layers == 4
    assert dg.Model(from_file.to_dict()) == from_file
    with pytest.raises(dg.DataError, match="cannot be read"):
        dg.Model(tmp_path / "nothing.json")


def test_workload_by_numbers_distributions_and_samples():
    fixed = dg.Workload(isl=512, osl=256, prefix=4096)
    assert fixed.theta == 4096 + 512 + 255 / 2
    assert fixed.mean == {"prefix": 4096.0, "isl": 512.0, "osl": 256.0}
    joint = dg.Workload(lengths=[(4096, 512, 256), (4096, 512, 256)])
    assert joint.theta == fixed.theta
    assert joint.lengths[0] == (4096.0, 512.0, 256.0)
    assert dg.Workload(isl=dg.Distribution.uniform(0, 1024).replace(low=512), osl=1).isl.mean == 768.0


LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "num_hidden_layers": 32,
    "hidden_size": 4096,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 14336,
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
    "tie_word_embeddings": False,
}


def test_an_unknown_class_is_refused_by_name_unless_its_fields_are_trusted():
    own = {**LLAMA, "model_type": "lama", "architectures": ["LamaForCausalLM"]}
    with pytest.raises(dg.SpecError, match=r"model_type: \"lama\" is no class that is known.*trust_fields=True"):
        dg.Model(own)
    assert dg.Model(own, trust_fields=True).parameters == dg.Model(LLAMA).parameters
    with pytest.raises(dg.SpecError, match="n_recurrent_layers: looks like structure"):
        dg.Model({**own, "n_recurrent_layers": 4}, trust_fields=True)
    with pytest.raises(dg.SpecError, match="trust_fields"):
        dg.Model(own, trust_fields="yes")


def test_numbers_that_json_cannot_say_do_no_harm_where_nobody_reads_them(tmp_path):
    config = {**LLAMA, "time_step_limit": [0.0, float("inf")], "rope_eps": float("nan"), "max_length_hint": 10**40}
    assert dg.Model(config) == dg.Model(LLAMA)
    file = tmp_path / "llama" / "config.json"
    file.parent.mkdir()
    file.write_text(json.dumps(config), encoding="utf-8")
    assert dg.Model(file).layers == 32
    with pytest.raises(dg.SpecError, match="hidden_size: must be a whole number"):
        dg.Model({**LLAMA, "hidden_size": float("inf")})


def test_bytes_of_the_files_beside_a_config_are_held_against_ours(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(LLAMA), encoding="utf-8")
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 16060522496}, "weight_map": {}}), encoding="utf-8")
    dg.Model(tmp_path)
    index.write_text(json.dumps({"metadata": {"total_size": 5700600000}, "weight_map": {}}), encoding="utf-8")
    with pytest.warns(UserWarning, match=r"5\.70 GB.*16\.06 GB"):
        dg.Model(tmp_path)


def test_a_name_that_speaks_of_a_format_is_not_taken_for_bf16_without_a_word():
    with pytest.warns(UserWarning, match="nvfp4"):
        dg.Model({**LLAMA, "_name_or_path": "acme/Llama-NVFP4"})


def test_presets_are_a_table_and_known_by_their_address():
    table = dg.models()
    assert isinstance(table, dg.Frame)
    assert "Qwen/Qwen3.5-397B-A17B" in table
    assert "acme/none" not in table
    row = table.filter(name="Qwen/Qwen3.5-397B-A17B").row(0)
    assert row["attention"] == "GQA + gated DeltaNet"
    assert row["parameters"] == pytest.approx(396.3e9, rel=0.001)
    assert row["kv_bytes_per_token"] == 30720.0
    assert row["state_bytes_per_sequence"] == dg.Model(row["name"]).state_bytes_per_sequence == 192061440.0
    assert "sglang" in row["b200_sxm"].split()
    model = dg.Model("https://huggingface.co/Qwen/Qwen3.5-397B-A17B/blob/main/config.json")
    assert model == dg.Model("qwen3.5-397b-a17b")
    with pytest.raises(dg.SpecError, match=r"did you mean 'Qwen/Qwen3\.5-397B-A17B'"):
        dg.Model("https://huggingface.co/Qwen/Qwen3.5-397B-A17")
