//! The HF reader: real configs, and what it says about broken ones.

use std::sync::atomic::{AtomicU32, Ordering};

use disagg::cost::Program;
use disagg::spec::*;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{AS_SHIPPED, lines, near, problems};

/// The trimmed real configs under `tests/golden/configs`, with what to expect of each.
#[test]
fn golden_configs_are_read_or_refused_by_name() {
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/configs");
    let mut count = 0;
    for file in std::fs::read_dir(dir).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_none_or(|e| e != "json") {
            continue;
        }
        let case: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        let name = case["name"].as_str().unwrap();
        let read = Model::from_hf(&case["config"], name, case["source"].as_str().unwrap());
        if let Some(field) = case["refused"].as_str() {
            let p = problems(read);
            assert!(p.0.iter().any(|p| p.path == field && p.message.contains("not supported")), "{name}: {p}");
        } else {
            let m = read.unwrap();
            near(m.parameters() / 1e9, case["parameters_b"].as_f64().unwrap(), 0.02);
            assert_eq!(m.kv_bytes_per_token(Dtype::Bf16), case["kv_bytes_bf16"].as_f64().unwrap(), "{name}");
        }
        count += 1;
    }
    assert!(count >= 8, "{count} golden configs");
}

/// Set `DISAGG_HF_CONFIGS` to a folder of `*_config.json` files to try the reader on all of them.
#[test]
fn a_folder_of_configs_never_panics_the_reader() {
    let Ok(dir) = std::env::var("DISAGG_HF_CONFIGS") else { return };
    let mut files: Vec<_> = std::fs::read_dir(dir).unwrap().map(|f| f.unwrap().path()).collect();
    files.sort();
    for path in files {
        let file = path.file_name().unwrap().to_str().unwrap().to_string();
        if !file.ends_with("_config.json") || file.ends_with("_hf_quant_config.json") {
            continue;
        }
        let Ok(config) = serde_json::from_str::<Value>(&std::fs::read_to_string(&path).unwrap()) else {
            println!("{file}: not JSON");
            continue;
        };
        let beside = path.with_file_name(file.replace("_config.json", "_hf_quant_config.json"));
        let read = match std::fs::read_to_string(beside) {
            Ok(text) => Model::from_hf_with_quant(&config, &serde_json::from_str(&text).unwrap(), &file, "test"),
            Err(_) => Model::from_hf(&config, &file, "test"),
        };
        match read {
            Ok(m) => {
                let f = m.formats(&AS_SHIPPED);
                println!(
                    "{file}: {:.1}B active {:.1}B {:.1} GB kv {} dense {} mtp {} {:?} {:?}",
                    m.parameters() / 1e9,
                    m.active_parameters() / 1e9,
                    m.weight_bytes(&AS_SHIPPED) / 1e9,
                    m.kv_bytes_per_token(f.kv),
                    m.dense_layers,
                    m.mtp_layers,
                    [f.gemm, f.attention_gemm, f.shared_gemm, f.moe, f.kv].map(|d| d.name()),
                    m.bf16_parts,
                );
            }
            refused => {
                let p = problems(refused);
                assert!(!p.is_empty());
                println!("{file}: REFUSED {}", lines(&p).join(" | "));
            }
        }
    }
}

/// A small sound MLA+DSA-MoE config to break.
fn sound() -> Value {
    json!({
        "architectures": ["DeepseekV32ForCausalLM"], "num_hidden_layers": 4, "hidden_size": 256, "vocab_size": 1000,
        "max_position_embeddings": 4096, "num_attention_heads": 8, "q_lora_rank": 64, "kv_lora_rank": 32,
        "qk_nope_head_dim": 16, "qk_rope_head_dim": 8, "v_head_dim": 16, "index_n_heads": 4, "index_head_dim": 16,
        "index_topk": 64, "intermediate_size": 512, "moe_intermediate_size": 128, "first_k_dense_replace": 1,
        "n_routed_experts": 16, "num_experts_per_tok": 2, "n_shared_experts": 1, "n_group": 4, "topk_group": 2,
        "quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}
    })
}

fn broken(changes: &[(&str, Value)]) -> Vec<String> {
    let mut config = sound();
    for (key, value) in changes {
        if value.is_null() {
            config.as_object_mut().unwrap().remove(*key);
        } else {
            config[*key] = value.clone();
        }
    }
    lines(&problems(Model::from_hf(&config, "broken", "test")))
}

#[test]
fn families_are_told_apart_by_their_fields() {
    let m = Model::from_hf(&sound(), "small", "test").unwrap();
    assert!(m.is_dsa() && m.moe_layers() == 3 && m.dense_intermediate == 512);
    let moe = m.moe.unwrap();
    assert_eq!((moe.experts, moe.groups, moe.topk_groups, moe.shared_intermediate), (16, 4, 2, 128));
    // The same facts without any name are read by whoever trusts the fields.
    let mut anonymous = sound();
    anonymous.as_object_mut().unwrap().remove("architectures");
    let said = lines(&problems(Model::from_hf(&anonymous, "a", "test")));
    assert!(
        said.len() == 1 && said[0].starts_with("model_type: is missing") && said[0].contains("trust_fields"),
        "{said:?}"
    );
    let trusted = |config: &Value| Model::from_hf_fields(config, None, "a", "test", true);
    assert_eq!(trusted(&anonymous).unwrap().architecture, "unknown");
    // gpt-oss spellings.
    let oss = json!({
        "model_type": "gpt_oss", "num_hidden_layers": 2, "hidden_size": 64, "vocab_size": 100, "max_position_embeddings": 100,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "intermediate_size": 64,
        "num_local_experts": 4, "experts_per_token": 2, "sliding_window": 8,
        "layer_types": ["sliding_attention", "full_attention"], "quantization_config": {"quant_method": "mxfp4"}
    });
    let m = Model::from_hf(&oss, "oss", "test").unwrap();
    assert_eq!(Program::of(&m).state_bytes(100.0, Dtype::Bf16, 1), (100.0 + 8.0) * 2.0 * 2.0 * 16.0 * 2.0);
    assert_eq!((m.dense_layers, m.dense_intermediate), (0, 0));
}

#[test]
fn all_broken_fields_are_named_at_once() {
    let said = broken(&[
        ("num_hidden_layers", Value::Null),
        ("hidden_size", json!("7168")),
        ("vocab_size", json!(0)),
        ("max_position_embeddings", json!(-5)),
        ("num_attention_heads", json!(1e30)),
        ("kv_lora_rank", json!(12.5)),
        ("n_routed_experts", json!(true)),
    ]);
    for wanted in [
        "num_hidden_layers: is missing; also read: n_layer",
        "hidden_size: must be a whole number, is the string \"7168\"",
        "vocab_size: must be a whole number from 1 to 100000000, is 0",
        "max_position_embeddings: must be a whole number from 1 to 1000000000, is -5",
        "num_attention_heads: must be a whole number from 1 to 65536, is 1e+30",
        "kv_lora_rank: must be a whole number from 1 to 65536, is 12.5",
        "n_routed_experts: must be a whole number, is true",
    ] {
        assert!(said.iter().any(|l| l == wanted), "{wanted} not in {said:#?}");
    }
}

#[test]
fn facts_that_do_not_fit_together_are_named() {
    assert_eq!(broken(&[("n_group", json!(3))]), ["model.moe.groups: 3 does not divide 16 experts; did you mean 4?"]);
    assert_eq!(broken(&[("num_experts_per_tok", json!(20))]), ["model.moe.topk: 20 exceeds 16 experts"]);
    assert_eq!(broken(&[("moe_layer_freq", json!([0, 1, 0]))]), ["moe_layer_freq: has 3 entries for 4 layers"]);
    assert_eq!(
        broken(&[("quantization_config", json!({"quant_method": "bitsandbytes"}))]),
        ["quantization_config.quant_method: \"bitsandbytes\": not supported; read: fp8, fbgemm_fp8, modelopt, mxfp4, \
          compressed-tensors, awq, gptq"]
    );
}

#[test]
fn what_is_no_config_is_said_so() {
    for (value, path) in
        [(json!([1, 2]), "config"), (json!(null), "config"), (json!({"text_config": 3}), "text_config")]
    {
        assert_eq!(problems(Model::from_hf(&value, "x", "test")).0[0].path, path);
    }
    // A vision-only config has none of the language facts.
    let vision = json!({"model_type": "siglip", "vision_config": {"hidden_size": 1152}});
    let said = lines(&problems(Model::from_hf(&vision, "x", "test")));
    assert!(said.iter().any(|l| l.starts_with("num_hidden_layers: is missing")), "{said:?}");
}

#[test]
fn kv_and_exclusions_follow_the_quantisation_file() {
    let mut config = sound();
    config.as_object_mut().unwrap().remove("quantization_config");
    let hf_quant = json!({"quantization": {"quant_algo": "NVFP4", "kv_cache_quant_algo": "FP8", "exclude_modules": [
        "lm_head", "model.layers.0.self_attn*", "model.layers.1.self_attn*", "*.mlp.shared_experts.*", "model.layers.3*"
    ]}});
    let m = Model::from_hf_with_quant(&config, &hf_quant, "x", "test").unwrap();
    assert_eq!((m.quant.gemm, m.quant.kv), (Some(Dtype::Nvfp4), Some(Dtype::Fp8)));
    assert_eq!(
        m.bf16_parts,
        [
            MatrixPart::QA,
            MatrixPart::QB,
            MatrixPart::KvA,
            MatrixPart::KvB,
            MatrixPart::O,
            MatrixPart::Indexer,
            MatrixPart::SharedExpert
        ]
    );
}

/// Norms in an exclusion list change no format; read as the whole block they leave attention in BF16.
#[test]
fn listed_norms_are_no_format() {
    let m = catalog::model("zai-org/GLM-5-FP8").unwrap();
    assert_eq!(m.bf16_parts, [MatrixPart::LatentNorms]);
    let quant = Quant::default();
    assert_eq!(m.formats(&quant).attention_gemm, Dtype::Fp8Block);
    let block = m.with_norms_as_block();
    assert_eq!(block.formats(&quant).attention_gemm, Dtype::Bf16);
    assert_eq!(block.formats(&quant).shared_gemm, Dtype::Fp8Block);
    let more = block.attention_weight_bytes_per_rank(&quant, 1) - m.attention_weight_bytes_per_rank(&quant, 1);
    near(more, m.attention_parameters_per_layer(), 1e-3);
    // Lists that name projections or the whole block say nothing of norms.
    for name in ["nvidia/GLM-5-NVFP4", "nvidia/DeepSeek-V3.2-NVFP4", "nvidia/Kimi-K2.5-NVFP4", "zai-org/GLM-5"] {
        let m = catalog::model(name).unwrap();
        assert!(!m.bf16_parts.contains(&MatrixPart::LatentNorms), "{name}");
        assert_eq!(m.with_norms_as_block(), m);
    }
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (0u32..5000).prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[a-z_]{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(2, 8, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[a-z_]{1,12}", inner, 0..4)
                .prop_map(|m| Value::Object(m.into_iter().collect())),
        ]
    })
}

/// Whatever one writes into any field: a sound model or named problems, never a panic.
#[test]
fn no_value_in_any_field_panics_the_reader() {
    let [read, refused] = [const { AtomicU32::new(0) }; 2];
    let config = ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(at in 0usize..40, value in any_json())| {
        let mut config = sound();
        let extra = ["layer_types", "sliding_window", "mlp_only_layers", "mlp_layer_types", "text_config", "head_dim",
            "moe_layer_freq", "tie_word_embeddings", "sliding_window_pattern", "use_mtp", "quantization"];
        let keys: Vec<String> = config.as_object().unwrap().keys().cloned().chain(extra.map(String::from)).collect();
        config[&keys[at % keys.len()]] = value;
        match Model::from_hf(&config, "any", "test") {
            Ok(m) => {
                prop_assert!(m.check().is_empty());
                prop_assert!(m.weight_bytes(&AS_SHIPPED).is_finite() && Program::of(&m).state_bytes(1e6, Dtype::Fp8, 1).is_finite());
                read.fetch_add(1, Ordering::Relaxed);
            }
            Err(e) => {
                prop_assert!(!e.to_string().is_empty());
                refused.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    let [read, refused] = [read, refused].map(AtomicU32::into_inner);
    assert!(read >= 40 && refused >= 40, "{read} read, {refused} refused");
}
