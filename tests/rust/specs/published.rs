//! Published configs against published sizes: totals, active parameters, KV of a token, layers with a window; and those that
//! are refused by name. `tests/golden/published_configs.json` says where each comes from.

use disagg::spec::*;
use serde_json::{Value, json};

use super::{AS_SHIPPED, lines, near, problems};

fn cases() -> Vec<Value> {
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/published_configs.json");
    serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap()
}

fn sliding(m: &Model) -> usize {
    match &m.attention {
        Attention::Gqa { window: Some(w), .. } => w.layers.iter().filter(|s| **s).count(),
        _ => 0,
    }
}

#[test]
fn sizes_are_the_published_ones() {
    let (mut read, mut refused, mut wrong) = (0, 0, Vec::new());
    for case in cases() {
        let name = case["name"].as_str().unwrap();
        let model = Model::from_hf(&case["config"], name, case["source"].as_str().unwrap());
        if let Some(field) = case["refused"].as_str() {
            let p = problems(model);
            let said = |p: &disagg::error::Problem| p.path == field && p.message.contains("not supported");
            assert!(p.0.iter().any(said), "{name}: {p}");
            if let Some(why) = case["why"].as_str() {
                assert!(p.to_string().contains(why), "{name}: {p}");
            }
            refused += 1;
            continue;
        }
        let m = match model {
            Ok(m) => m,
            Err(e) => {
                wrong.push(format!("{name}: {e}"));
                continue;
            }
        };
        let mut close = |what: &str, got: f64, wanted: f64, off: f64| {
            if (got / wanted - 1.0).abs() >= off {
                wrong.push(format!("{name}: {what} {got:.3}, published {wanted:.3}"));
            }
        };
        close("parameters", m.parameters() / 1e9, case["parameters_b"].as_f64().unwrap(), 0.01);
        if let Some(active) = case["active_b"].as_f64() {
            // Cards round, and some leave embeddings out.
            close("active", m.active_parameters() / 1e9, active, 0.12);
        }
        if let Some(kv) = case["kv_bytes_bf16"].as_f64() {
            close("KV bytes", m.kv_bytes_per_token(Dtype::Bf16), kv, 1e-12);
        }
        if let Some(slides) = case["slides"].as_u64() {
            close("layers with a window", sliding(&m) as f64, slides as f64, 1e-12);
        }
        assert_eq!(Model::from_json(&m.to_json().unwrap()).unwrap(), m, "{name}");
        read += 1;
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(read >= 40 && refused >= 9, "{read} read, {refused} refused");
}

fn llama() -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "num_hidden_layers": 32, "hidden_size": 4096,
        "num_attention_heads": 32, "num_key_value_heads": 8, "intermediate_size": 14336, "vocab_size": 128256,
        "max_position_embeddings": 131072, "tie_word_embeddings": false
    })
}

fn with(mut config: Value, fields: &[(&str, Value)]) -> Value {
    for (field, value) in fields {
        config[*field] = value.clone();
    }
    config
}

#[test]
fn what_looks_like_structure_and_was_not_read_is_named() {
    for (field, value) in [
        ("num_residual_streams", json!(4)),
        ("n_recurrent_layers", json!(8)),
        ("kv_sharing_map", json!([0, 0, 1, 1])),
        ("num_kv_shared_layers", json!(10)),
        ("moe_num_experts", json!(64)),
        ("n_routed_experts_extra", json!(8)),
        ("expert_groups", json!(4)),
        ("linear_num_value_headz", json!(16)),
        ("ssm_cfg", json!({"d_state": 64})),
        ("mamba_d_state", json!(16)),
        ("memory_slots", json!(4096)),
        ("hc_mult", json!(4)),
        ("parallel_branches", json!(2)),
        ("sparse_block_size", json!(64)),
        ("cross_layer_attention", json!(true)),
        ("engram_vocab_size", json!(1_000_000)),
        ("lora_rank", json!(64)),
        ("conv_L_cache", json!(3)),
        ("zero_expert_num", json!(256)),
        ("depth_recurrence", json!(4)),
    ] {
        let config = with(llama(), &[(field, value.clone())]);
        for trust in [false, true] {
            let read = Model::from_hf_fields(&config, None, "x", "test", trust);
            let said = lines(&problems(read));
            assert!(
                said.iter().any(|l| l.starts_with(&format!("{field}:")) && l.contains("not supported")),
                "{said:?}"
            );
        }
        // Switched off it is nothing.
        for off in [json!(null), json!(false), json!(0), json!([])] {
            assert!(Model::from_hf(&with(llama(), &[(field, off)]), "x", "test").is_ok(), "{field}");
        }
    }
}

#[test]
fn fields_that_change_nothing_are_no_structure() {
    let config = with(
        llama(),
        &[
            ("attention_bias", json!(true)),
            ("mlp_bias", json!(true)),
            ("attention_dropout", json!(0.1)),
            ("rope_scaling", json!({"rope_type": "llama3", "factor": 8.0})),
            ("rope_parameters", json!({"rope_theta": 1e6})),
            ("num_logits_to_keep", json!(1)),
            ("use_cache", json!(true)),
            ("head_dim", json!(128)),
            ("query_pre_attn_scalar", json!(144)),
            ("residual_multiplier", json!(0.22)),
            ("attn_logit_softcapping", json!(50.0)),
            ("norm_topk_prob", json!(true)),
            ("chunk_size_feed_forward", json!(0)),
            ("_attn_implementation_autoset", json!(true)),
            ("layer_norm_eps", json!(1e-5)),
            ("time_step_limit", json!("inf")),
            ("auto_map", json!({"AutoConfig": "x.Y"})),
            ("hidden_dropout_prob", json!(0.1)),
            ("pretraining_tp", json!(2)),
        ],
    );
    Model::from_hf(&config, "x", "test").unwrap();
}

#[test]
fn unknown_classes_are_refused_by_name_unless_the_fields_are_trusted() {
    let unknown = with(llama(), &[("model_type", json!("lama")), ("architectures", json!(["LamaForCausalLM"]))]);
    let said = lines(&problems(Model::from_hf(&unknown, "x", "test")));
    assert!(said[0].starts_with("model_type: \"lama\" is no class that is known; did you mean 'llama'"), "{said:?}");
    assert!(said[0].contains("trust_fields=True"));
    let trusted = Model::from_hf_fields(&unknown, None, "x", "test", true).unwrap();
    assert_eq!(trusted.parameters(), Model::from_hf(&llama(), "x", "test").unwrap().parameters());
    // All problems at once.
    let broken = with(unknown.clone(), &[("hidden_size", json!("wide")), ("n_memory_slots", json!(7))]);
    let said = lines(&problems(Model::from_hf(&broken, "x", "test")));
    for field in ["model_type:", "hidden_size:", "n_memory_slots:"] {
        assert!(said.iter().any(|l| l.starts_with(field)), "{field} not in {said:?}");
    }
    // Whether its FFN has a gate is told by no other field.
    for (act, gate) in [("silu", true), ("gelu_new", false), ("relu2", false)] {
        let config = with(unknown.clone(), &[("hidden_act", json!(act))]);
        let read = Model::from_hf_fields(&config, None, "x", "test", true);
        assert_eq!(read.is_ok(), gate, "{act}");
        if !gate {
            assert!(lines(&problems(read))[0].contains("hidden_act: \""), "{act}");
        }
    }
    // One of the two names is enough.
    for gone in ["model_type", "architectures"] {
        let mut config = llama();
        config.as_object_mut().unwrap().remove(gone);
        assert!(Model::from_hf(&config, "x", "test").is_ok(), "{gone}");
    }
}

#[test]
fn what_a_class_leaves_out_is_its_default() {
    let read = |config: Value| Model::from_hf(&config, "x", "test").unwrap();
    let mut bare = llama();
    bare.as_object_mut().unwrap().remove("tie_word_embeddings");
    assert!(!read(bare.clone()).tied_embeddings);
    for (kind, tied) in [("gemma", true), ("cohere", true), ("qwen2", false), ("olmo2", false), ("smollm3", true)] {
        let m = read(with(bare.clone(), &[("model_type", json!(kind)), ("architectures", json!([]))]));
        assert_eq!(m.tied_embeddings, tied, "{kind}");
    }
    // A window that the class has and the config switches off, and one that needs a switch.
    let mistral = with(llama(), &[("model_type", json!("mistral"))]);
    assert_eq!(sliding(&read(mistral.clone())), 32);
    assert_eq!(sliding(&read(with(mistral, &[("sliding_window", json!(null))]))), 0);
    let qwen = with(
        llama(),
        &[("model_type", json!("qwen2")), ("sliding_window", json!(4096)), ("max_window_layers", json!(28))],
    );
    assert_eq!(sliding(&read(qwen.clone())), 0);
    assert_eq!(sliding(&read(with(qwen, &[("use_sliding_window", json!(true))]))), 4);
    // Nested configs leave out what equals the default; configs of their own say their sizes.
    let nested = json!({"model_type": "gemma3", "text_config": {"model_type": "gemma3_text", "sliding_window": 512}});
    let m = read(nested);
    assert_eq!((m.layers, m.hidden, m.vocab, sliding(&m)), (26, 2304, 262_208, 22));
    let alone = json!({"model_type": "gemma3_text", "sliding_window": 512});
    let said = lines(&problems(Model::from_hf(&alone, "x", "test")));
    assert!(said.iter().any(|l| l.starts_with("num_hidden_layers: is missing")), "{said:?}");
}

#[test]
fn weights_of_4_bit_integers_are_the_files() {
    let groups = |format: Value| {
        json!({"quant_method": "compressed-tensors", "format": "pack-quantized",
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": format}}, "ignore": ["lm_head"]})
    };
    let w4 = json!({"num_bits": 4, "type": "int", "strategy": "group", "group_size": 128, "symmetric": true});
    let read = |q: Value| Model::from_hf(&with(llama(), &[("quantization_config", q)]), "x", "test");
    // llm-compressor#1215: 5.7006 GB; AWQ and GPTQ of the same model are as large.
    let m = read(groups(w4)).unwrap();
    near(m.weight_bytes(&AS_SHIPPED) / 1e9, 5.7006, 0.003);
    assert_eq!((m.quant.gemm, m.int4_group), (Some(Dtype::Int4Wo), 128));
    for q in [
        json!({"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": true, "version": "gemm"}),
        json!({"quant_method": "gptq", "bits": 4, "group_size": 128, "desc_act": false, "sym": true}),
        json!({"quant_method": "gptq", "bits": 4, "group_size": 128, "dynamic": {"-:.*vision.*": {}}}),
    ] {
        near(read(q).unwrap().weight_bytes(&AS_SHIPPED) / 1e9, 5.70, 0.01);
    }
    // What a list leaves out stays BF16.
    let q = json!({"quant_method": "awq", "bits": 4, "group_size": 128, "modules_to_not_convert": ["self_attn"]});
    let m = read(q).unwrap();
    assert_eq!(m.bf16_parts, [MatrixPart::Q, MatrixPart::Kv, MatrixPart::O]);
    // Without kernels that are known: by name.
    for (q, field) in [
        (json!({"quant_method": "gptq", "bits": 8, "group_size": 128}), "quantization_config.bits"),
        (
            json!({"quant_method": "gptq", "bits": 4, "dynamic": {"+:.*down.*": {"bits": 8}}}),
            "quantization_config.dynamic",
        ),
        (json!({"quant_method": "hqq"}), "quantization_config.quant_method"),
        (json!({"quant_method": "mxfp4"}), "quantization_config.quant_method"),
        (json!({"quant_algo": "W4A8_AWQ"}), "quantization_config.quant_algo"),
        (groups(json!({"num_bits": 8, "type": "int"})), "quantization_config.config_groups"),
        (json!({"quant_method": "compressed-tensors"}), "quantization_config.config_groups"),
        (json!({"quant_method": "fp8", "weight_block_size": [64, 64]}), "quantization_config.weight_block_size"),
    ] {
        let p = problems(read(q.clone()));
        assert!(p.0.iter().any(|p| p.path == field), "{q}: {p}");
    }
}

fn qwen_moe(q: Value) -> Model {
    let config = json!({
        "model_type": "qwen3_moe", "num_hidden_layers": 48, "hidden_size": 2048, "num_attention_heads": 32,
        "num_key_value_heads": 4, "head_dim": 128, "intermediate_size": 6144, "moe_intermediate_size": 768,
        "num_experts": 128, "num_experts_per_tok": 8, "vocab_size": 151936, "max_position_embeddings": 40960,
        "decoder_sparse_step": 1, "mlp_only_layers": [], "quantization_config": q
    });
    Model::from_hf(&config, "x", "test").unwrap()
}

#[test]
fn every_group_of_formats_is_read() {
    let fp8 = json!({"targets": ["re:.*self_attn.*"], "weights": {"num_bits": 8, "type": "float", "strategy": "channel"},
        "input_activations": {"num_bits": 8, "type": "float"}});
    let nvfp4 = json!({"targets": ["re:.*mlp.experts.*"], "format": "nvfp4-pack-quantized",
        "weights": {"num_bits": 4, "type": "float", "group_size": 16},
        "input_activations": {"num_bits": 4, "type": "float", "group_size": 16}});
    let both = |a: &Value, b: &Value| {
        json!({"quant_method": "compressed-tensors", "format": "mixed-precision",
        "config_groups": {"group_0": a, "group_1": b}, "ignore": ["lm_head", "re:.*mlp.gate$"]})
    };
    for q in [both(&fp8, &nvfp4), both(&nvfp4, &fp8)] {
        let m = qwen_moe(q);
        assert_eq!((m.quant.gemm, m.quant.moe), (Some(Dtype::Fp8), Some(Dtype::Nvfp4)));
        near(m.weight_bytes(&AS_SHIPPED) / 1e9, 18.5, 0.03);
    }
    // ModelOpt's own list of layers.
    let mut layers = serde_json::Map::new();
    for l in 0..48 {
        for p in ["q_proj", "k_proj", "v_proj", "o_proj"] {
            layers.insert(format!("model.layers.{l}.self_attn.{p}"), json!({"quant_algo": "FP8"}));
        }
        for e in 0..3 {
            let name = format!("model.layers.{l}.mlp.experts.{e}.up_proj");
            layers.insert(name, json!({"quant_algo": "NVFP4", "group_size": 16}));
        }
    }
    let m =
        qwen_moe(json!({"quant_algo": "MIXED_PRECISION", "kv_cache_quant_algo": "FP8", "quantized_layers": layers}));
    assert_eq!((m.quant.gemm, m.quant.moe, m.quant.kv), (Some(Dtype::Fp8), Some(Dtype::Nvfp4), Some(Dtype::Fp8)));
    // A dense model whose attention and FFN differ.
    let dense = with(
        llama(),
        &[(
            "quantization_config",
            json!({"quant_method": "compressed-tensors", "config_groups": {
        "a": {"targets": ["re:.*self_attn.*"], "weights": {"num_bits": 8, "type": "float"},
            "input_activations": {"num_bits": 8, "type": "float"}},
        "b": {"targets": ["re:.*mlp.*"], "format": "nvfp4-pack-quantized", "weights": {"num_bits": 4, "type": "float"},
            "input_activations": {"num_bits": 4, "type": "float"}}}}),
        )],
    );
    let f = Model::from_hf(&dense, "x", "test").unwrap().formats(&AS_SHIPPED);
    assert_eq!((f.attention_gemm, f.dense_gemm), (Dtype::Fp8, Dtype::Nvfp4));
}

#[test]
fn exclusions_are_read_under_all_their_names() {
    for list in ["ignored_layers", "modules_to_not_convert", "ignore"] {
        let m = qwen_moe(json!({"quant_method": "fp8", "weight_block_size": [128, 128], list: ["re:.*self_attn.*"]}));
        assert_eq!(m.bf16_parts, [MatrixPart::Q, MatrixPart::Kv, MatrixPart::O], "{list}");
        let whole = qwen_moe(json!({"quant_method": "fp8", "weight_block_size": [128, 128]}));
        let attention = m.attention_parameters_per_layer() * 48.0;
        near((m.weight_bytes(&AS_SHIPPED) - whole.weight_bytes(&AS_SHIPPED)) / attention, 1.0, 0.01);
    }
    // Experts may be left out too.
    let m = qwen_moe(json!({"quant_method": "fp8", "ignored_layers": ["re:.*mlp\\.experts.*"]}));
    assert_eq!((m.quant.gemm, m.quant.moe), (Some(Dtype::Fp8), Some(Dtype::Bf16)));
    // Per tensor, in blocks, and a cache whose scales stand in the checkpoint (Hy3-FP8).
    let m = qwen_moe(json!({"quant_method": "fp8", "kv_cache_scheme": "static"}));
    assert_eq!((m.quant.gemm, m.quant.kv), (Some(Dtype::Fp8), Some(Dtype::Fp8)));
}

#[test]
fn bytes_are_held_against_the_files() {
    let m = Model::from_hf(&llama(), "Llama-3.1-8B", "test").unwrap();
    let index = |gb: f64| json!({"metadata": {"total_size": gb * 1e9}, "weight_map": {}});
    assert!(m.remarks(&llama(), Some(&index(16.06))).is_empty());
    let said = m.remarks(&llama(), Some(&index(5.7)));
    assert!(said.len() == 1 && said[0].contains("5.70 GB") && said[0].contains("16.06 GB"), "{said:?}");
    // A name that speaks of a format, and a config that does not.
    let named = Model { name: "nvidia/DeepSeek-V3.1-NVFP4".into(), ..m.clone() };
    assert!(named.remarks(&llama(), None)[0].contains("nvfp4"));
    assert!(m.remarks(&llama(), None).is_empty());
    // MTP counts where the files have it.
    let v3 = catalog::model("deepseek-ai/DeepSeek-V3").unwrap();
    let names = json!({"model.layers.61.embed_tokens.weight": "a", "model.layers.61.shared_head.head.weight": "b"});
    let with_mtp = json!({"metadata": {"total_size": 688_586_727_753.0f64}, "weight_map": names});
    assert!(v3.remarks(&json!({}), Some(&with_mtp)).is_empty(), "{:?}", v3.remarks(&json!({}), Some(&with_mtp)));
}

#[test]
fn addresses_of_a_hub_name_presets() {
    for address in [
        "https://huggingface.co/deepseek-ai/DeepSeek-V3.2",
        "https://huggingface.co/deepseek-ai/DeepSeek-V3.2/",
        "https://huggingface.co/deepseek-ai/DeepSeek-V3.2/blob/main/config.json",
        "https://huggingface.co/deepseek-ai/DeepSeek-V3.2/tree/main?x=1",
        "http://hf.co/deepseek-ai/DeepSeek-V3.2",
        "huggingface.co/deepseek-ai/deepseek-v3.2",
        "https://www.modelscope.cn/models/deepseek-ai/DeepSeek-V3.2/summary",
        "hf://deepseek-ai/DeepSeek-V3.2",
    ] {
        assert_eq!(catalog::model(address).unwrap().name, "deepseek-ai/DeepSeek-V3.2", "{address}");
    }
    let said = catalog::model("https://huggingface.co/deepseek-ai/DeepSeek-V32").unwrap_err().to_string();
    assert!(said.contains("deepseek-ai/DeepSeek-V3.2"), "{said}");
}

/// ModelOpt's weight-only NVFP4: nine sixteenths of a byte a weight, BF16 rows, on any device; mixed with FP8 attention as in
/// Qwen3.6-27B-NVFP4.
#[test]
fn weight_only_nvfp4_is_read() {
    let quant =
        json!({"quantization": {"quant_algo": "W4A16_NVFP4", "group_size": 16, "exclude_modules": ["lm_head"]}});
    let m = Model::from_hf_with_quant(&llama(), &quant, "x", "test").unwrap();
    assert_eq!((m.quant.gemm, m.quant.comm), (Some(Dtype::W4a16Nvfp4), Some(Dtype::Bf16)));
    let layers = 32.0 * (4096.0 * 4096.0 * 2.5 + 3.0 * 4096.0 * 14336.0);
    near(m.weight_bytes(&AS_SHIPPED), layers * 0.5625 + m.embedding_bytes() + m.head_bytes(), 1e-3);
    for device in ["h100_sxm", "b200_sxm"] {
        let device = catalog::system(device).unwrap().0;
        assert!(AS_SHIPPED.check_on(&m.quant, &device).is_empty());
    }
    let layer = |i: u32| {
        let fp8 = |n: &str| (format!("model.layers.{i}.self_attn.{n}_proj"), json!({"quant_algo": "FP8"}));
        let fp4 = |n: &str| {
            (format!("model.layers.{i}.mlp.{n}_proj"), json!({"quant_algo": "W4A16_NVFP4", "group_size": 16}))
        };
        ["q", "k", "v", "o"].map(fp8).into_iter().chain(["gate", "up", "down"].map(fp4)).collect::<Vec<_>>()
    };
    let layers: serde_json::Map<String, Value> = (0..32).flat_map(layer).collect();
    let quant = json!({"quantization": {"quant_algo": "MIXED_PRECISION", "quantized_layers": layers}});
    let m = Model::from_hf_with_quant(&llama(), &quant, "x", "test").unwrap();
    let formats = m.formats(&AS_SHIPPED);
    assert_eq!((formats.attention_gemm, formats.dense_gemm), (Dtype::Fp8, Dtype::W4a16Nvfp4));
    // Nemotron-H counts mixers and FFNs apart: experts of every other entry are those of every layer.
    let config = json!({
        "model_type": "nemotron_h", "architectures": ["NemotronHForCausalLM"], "hybrid_override_pattern": "MEMEM*EME",
        "hidden_size": 2688, "vocab_size": 131_072, "num_attention_heads": 32, "max_position_embeddings": 262_144,
        "num_hidden_layers": 9, "n_routed_experts": 128, "num_experts_per_tok": 6, "moe_intermediate_size": 1856,
        "intermediate_size": 1856
    });
    let entry = |i: u32| {
        let of = |n: &str| {
            (format!("backbone.layers.{i}.mixer.{n}"), json!({"quant_algo": "W4A16_NVFP4", "group_size": 16}))
        };
        ["experts.0.up_proj", "experts.0.down_proj", "shared_experts.up_proj"].map(of)
    };
    let layers: serde_json::Map<String, Value> = [1, 3, 6, 8].into_iter().flat_map(entry).collect();
    let quant = json!({"quantization": {"quant_algo": "MIXED_PRECISION", "quantized_layers": layers}});
    let m = Model::from_hf_with_quant(&config, &quant, "x", "test").unwrap();
    assert_eq!(m.quant.moe, Some(Dtype::W4a16Nvfp4));
}

/// The parts of a preset's config.
fn preset(file: &str) -> Value {
    let text = catalog::MODEL_FILES.iter().find(|f| f.0 == file).unwrap().1;
    serde_json::from_str::<Value>(text).unwrap()["config"].clone()
}

/// What a list says of the layers that have a part decides, be they fewer than half of all: attention of hybrids, their
/// recurrent layers, indexers that others share; by the numbers that a checkpoint counts layers with.
#[test]
fn a_part_of_few_layers_has_its_own_format() {
    let listed = |names: &[(u32, &str, &str)]| {
        let of =
            |(i, name, algo): &(u32, &str, &str)| (format!("model.layers.{i}.{name}"), json!({"quant_algo": algo}));
        let layers: serde_json::Map<String, Value> = names.iter().map(of).collect();
        json!({"quantization": {"quant_algo": "MIXED_PRECISION", "quantized_layers": layers}})
    };
    // 12 of 48 layers attend, 36 have a running state; attention in FP8, the state's projections as they were.
    let mut names = Vec::new();
    for i in 0..48 {
        if i % 4 == 3 {
            names.extend(["q", "k", "v", "o"].map(|n| (i, n)).iter().map(|(i, n)| (*i, n.to_string() + "_proj")));
        }
    }
    let attention: Vec<(u32, String)> = names.into_iter().map(|(i, n)| (i, format!("self_attn.{n}"))).collect();
    let mut all: Vec<(u32, &str, &str)> = attention.iter().map(|(i, n)| (*i, n.as_str(), "FP8")).collect();
    all.extend((0..48).map(|i| (i, "mlp.experts.0.up_proj", "NVFP4")));
    all.extend((0..48).map(|i| (i, "mlp.shared_expert.up_proj", "NVFP4")));
    let read =
        |quant: &Value| Model::from_hf_with_quant(&preset("qwen3-next-80b-a3b-instruct"), quant, "x", "test").unwrap();
    let m = read(&listed(&all));
    assert_eq!((m.formats(&AS_SHIPPED).attention_gemm, m.quant.moe), (Dtype::Fp8, Some(Dtype::Nvfp4)));
    let linear = |m: &Model| m.mixer_format(&m.mixers[0], &AS_SHIPPED);
    assert_eq!(linear(&m), Dtype::Bf16, "nobody listed it");
    // The running layers alone: three quarters of the layers, and the attention of the others as it was.
    let only: Vec<(u32, &str, &str)> =
        (0..48).filter(|i| i % 4 != 3).map(|i| (i, "linear_attn.in_proj_qkvz", "FP8")).collect();
    let m = read(&listed(&only));
    assert_eq!((linear(&m), m.formats(&AS_SHIPPED).attention_gemm), (Dtype::Fp8, Dtype::Bf16));
    // Attention of half of the layers that attend: as it was.
    let half: Vec<_> = all.iter().copied().filter(|(i, n, _)| !n.starts_with("self_attn") || i % 8 == 3).collect();
    assert_eq!(read(&listed(&half)).formats(&AS_SHIPPED).attention_gemm, Dtype::Bf16);
    // A list of what is left out, by the row that mixers and FFNs share: both attention entries of nine.
    let config = json!({
        "model_type": "nemotron_h", "architectures": ["NemotronHForCausalLM"], "hybrid_override_pattern": "M*EM*EMEME",
        "hidden_size": 2688, "vocab_size": 131_072, "num_attention_heads": 32, "max_position_embeddings": 262_144,
        "num_hidden_layers": 10, "n_routed_experts": 128, "num_experts_per_tok": 6, "moe_intermediate_size": 1856,
        "intermediate_size": 1856
    });
    let out = |list: &[&str]| {
        let quant = json!({"quantization": {"quant_algo": "FP8", "exclude_modules": list}});
        let m = Model::from_hf_with_quant(&config, &quant, "x", "test").unwrap();
        (m.formats(&AS_SHIPPED).attention_gemm, m.formats(&AS_SHIPPED).moe)
    };
    assert_eq!(out(&["lm_head"]), (Dtype::Fp8, Dtype::Fp8));
    let attention = ["backbone.layers.1.mixer*", "backbone.layers.4.mixer*"];
    assert_eq!(out(&attention), (Dtype::Bf16, Dtype::Fp8));
    let experts = ["backbone.layers.2.mixer*", "backbone.layers.5.mixer*", "backbone.layers.7.mixer*"];
    assert_eq!(out(&experts), (Dtype::Fp8, Dtype::Bf16));
}

/// `hf_quant_config.json` beside a config with formats of its own: what that one does not say of the cache, this one does.
#[test]
fn the_cache_of_a_second_file_counts() {
    let mut config = llama();
    config["quantization_config"] = json!({"quant_method": "fp8", "weight_block_size": [128, 128]});
    let beside = |kv: Value| json!({"quantization": {"quant_algo": "FP8", "kv_cache_quant_algo": kv}});
    let read = |config: &Value, kv: Value| Model::from_hf_with_quant(config, &beside(kv), "x", "test").unwrap().quant;
    let m = read(&config, json!("FP8"));
    assert_eq!((m.gemm, m.kv), (Some(Dtype::Fp8Block), Some(Dtype::Fp8)));
    assert_eq!(read(&config, Value::Null).kv, Some(Dtype::Bf16));
    // What the config says itself stands.
    config["quantization_config"]["kv_cache_scheme"] = json!({"num_bits": 8, "type": "float"});
    assert_eq!(read(&config, Value::Null).kv, Some(Dtype::Fp8));
    // A cache that is not known is refused by the file that names it.
    config["quantization_config"].as_object_mut().unwrap().remove("kv_cache_scheme");
    let p = problems(Model::from_hf_with_quant(&config, &beside(json!("NVFP4")), "x", "test"));
    assert!(p.to_string().contains("quantization.kv_cache_quant_algo"), "{p}");
}

/// DeepSeek-V4 with NVFP4 experts: everything else stays in blocks of FP8, whatever ModelOpt's list leaves out.
#[test]
fn experts_in_a_format_of_their_own_leave_the_rest() {
    for (name, base) in [("Flash", "deepseek-v4-flash"), ("Pro", "deepseek-v4-pro")] {
        let m = catalog::model(&format!("nvidia/DeepSeek-V4-{name}-NVFP4")).unwrap();
        let formats = m.formats(&AS_SHIPPED);
        assert_eq!((formats.attention_gemm, formats.dense_gemm), (Dtype::Fp8Block, Dtype::Fp8Block), "{name}");
        assert_eq!((m.quant.moe, m.quant.kv), (Some(Dtype::Nvfp4), Some(Dtype::Fp8)), "{name}");
        // A scale for 16 values in place of one for 32.
        let of_base = Model::from_hf(&preset(base), name, "test").unwrap();
        let ratio = m.weight_bytes(&AS_SHIPPED) / of_base.weight_bytes(&AS_SHIPPED);
        assert!(ratio > 1.02 && ratio < 1.08, "{name}: {ratio}");
    }
    // Qwen3.6: FP8 in attention and running layers, weight-only experts.
    let m = catalog::model("nvidia/Qwen3.6-35B-A3B-NVFP4").unwrap();
    assert_eq!((m.formats(&AS_SHIPPED).attention_gemm, m.quant.moe), (Dtype::Fp8, Some(Dtype::W4a16Nvfp4)));
    assert_eq!((m.quant.kv, m.mixer_format(&m.mixers[0], &AS_SHIPPED)), (Some(Dtype::Fp8), Dtype::Fp8));
}
