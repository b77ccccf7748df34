//! Presets: names, sources, and totals against the published ones.

use disagg::cost::Program;
use disagg::spec::*;

use super::{AS_SHIPPED, model, near};

#[test]
fn every_preset_is_whole_and_states_its_source() {
    assert!(catalog::models().len() >= 17, "{:?}", catalog::models());
    for name in catalog::models() {
        let m = model(&name);
        assert!(m.check().is_empty(), "{name}: {}", m.check());
        assert_eq!(m.name, name);
        assert!(!m.source.is_empty());
        assert_eq!(Model::from_json(&m.to_json().unwrap()).unwrap(), m);
    }
    assert_eq!(catalog::systems(), ["h100_sxm", "h200_sxm", "b200_sxm", "b300_sxm", "gb200", "gb300"]);
    for name in catalog::systems() {
        let c = catalog::cluster(&name, 8).unwrap();
        assert!(!c.device.source.is_empty() && !c.fabric.source.is_empty());
        assert_eq!(Cluster::from_json(&c.to_json().unwrap()).unwrap(), c);
    }
    for name in catalog::devices() {
        let c = catalog::cluster(&name, 1).unwrap();
        assert!(catalog::systems().contains(&c.system) && c.device.name == name, "{name}");
        assert!(c.device.source.len() > 40 && c.fabric.source.len() > 20 && c.check().is_empty(), "{name}");
        assert_eq!(Cluster::from_json(&c.to_json().unwrap()).unwrap(), c);
    }
    for name in catalog::workloads() {
        let w = catalog::workload(&name).unwrap();
        assert!(w.check().is_empty(), "{name}: {}", w.check());
        assert!(!w.source.is_empty());
        assert_eq!(Workload::from_json(&w.to_json().unwrap()).unwrap(), w);
    }
}

#[test]
fn the_catalogue_lists_every_data_file() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("python/disagg/data");
    for (kind, files) in [
        ("models", catalog::MODEL_FILES),
        ("systems", catalog::SYSTEM_FILES),
        ("devices", catalog::DEVICE_FILES),
        ("workloads", catalog::WORKLOAD_FILES),
    ] {
        let mut on_disk: Vec<String> = std::fs::read_dir(root.join(kind))
            .unwrap()
            .map(|f| f.unwrap().path().file_stem().unwrap().to_str().unwrap().to_string())
            .collect();
        let mut listed: Vec<String> = files.iter().map(|f| f.0.to_string()).collect();
        on_disk.sort();
        listed.sort();
        assert_eq!(on_disk, listed);
    }
}

#[test]
fn parameters_match_the_published_totals() {
    for (name, billions) in [
        ("DeepSeek-V3.2", 671.9),
        ("DeepSeek-V3", 671.0),
        ("Kimi-K2-Instruct", 1026.0),
        ("Qwen3-235B-A22B", 235.1),
        ("Qwen3-30B-A3B", 30.5),
        ("gpt-oss-120b", 116.8),
        ("gpt-oss-20b", 20.9),
        ("GLM-5", 744.0),
        ("MiniMax-M2.5", 229.0),
        ("Mixtral-8x22B", 140.6),
        ("Mixtral-8x7B", 46.7),
        ("Qwen3-32B", 32.8),
        ("Llama-3.1-70B", 70.6),
        ("Llama-3.1-405B", 405.9),
        // Model cards and file lists; of multimodal ones the language model.
        ("Qwen3.5-397B-A17B", 396.5),
        ("Qwen3.5-122B-A10B", 122.1),
        ("Qwen3.5-35B-A3B", 34.7),
        ("Qwen3.5-27B", 26.9),
        ("Qwen3-Next-80B-A3B", 79.7),
        ("Qwen3-Coder-480B-A35B-Instruct", 480.2),
        ("MiMo-V2-Flash", 309.0),
        ("Llama-4-Scout-17B-16E-Instruct", 107.8),
        ("Llama-4-Maverick-17B-128E-Instruct", 400.7),
        ("Step-3.7-Flash", 196.0),
        ("GLM-5.1", 744.0),
        ("GLM-5.2", 743.4),
        ("Kimi-Linear-48B-A3B-Instruct", 49.1),
        ("Meta-Llama-3.1-8B", 8.03),
        ("NVIDIA-Nemotron-3-Nano-30B-A3B-BF16", 31.6),
        ("NVIDIA-Nemotron-3-Super-120B-A12B-FP8", 120.7),
        ("NVIDIA-Nemotron-3-Ultra-550B-A55B-BF16", 550.0),
    ] {
        near(model(name).parameters() / 1e9, billions, 0.005);
    }
    near(model("DeepSeek-V3").active_parameters() / 1e9, 37.5, 0.02);
    near(model("Qwen3-235B-A22B").active_parameters() / 1e9, 22.0, 0.02);
    for (name, billions, off) in [
        ("Qwen3.5-397B-A17B", 17.0, 0.03),
        ("Qwen3.5-122B-A10B", 10.0, 0.03),
        ("Qwen3-Next-80B-A3B", 3.9, 0.03),
        ("MiMo-V2-Flash", 15.0, 0.04),
        ("Llama-4-Maverick-17B-128E-Instruct", 17.2, 0.01),
        ("NVIDIA-Nemotron-3-Nano-30B-A3B-BF16", 3.6, 0.02),
        ("NVIDIA-Nemotron-3-Super-120B-A12B-FP8", 12.7, 0.03),
        ("NVIDIA-Nemotron-3-Ultra-550B-A55B-BF16", 55.0, 0.03),
    ] {
        near(model(name).active_parameters() / 1e9, billions, off);
    }
    near(model("DeepSeek-V3.2").attention_parameters_per_layer() / 1e6, 201.1, 0.001);
    near(model("DeepSeek-V3").attention_parameters_per_layer() / 1e6, 187.1, 0.001);
}

#[test]
fn kv_bytes_match_the_published_rows() {
    let v3 = model("DeepSeek-V3");
    assert_eq!(v3.kv_bytes_per_token(Dtype::Bf16), 70_272.0);
    assert_eq!(v3.kv_bytes_per_token(Dtype::Fp8), 61.0 * 576.0);
    let v32 = model("DeepSeek-V3.2");
    assert_eq!(v32.kv_bytes_per_token(Dtype::Fp8), 61.0 * 788.0);
    assert_eq!(v32.kv_bytes_per_token(Dtype::Bf16), 61.0 * 1284.0);
    let qwen = model("Qwen3-235B-A22B");
    assert_eq!(qwen.kv_bytes_per_token(Dtype::Bf16), 192_512.0);
    // MLA stands on every TP rank; GQA is split by min(tp, kv_heads = 4).
    assert_eq!(Program::of(&v3).state_bytes(1.0, Dtype::Bf16, 8), 70_272.0);
    assert_eq!(Program::of(&qwen).state_bytes(1.0, Dtype::Bf16, 2), 96_256.0);
    assert_eq!(Program::of(&qwen).state_bytes(1.0, Dtype::Bf16, 8), 48_128.0);
}

/// What hybrids keep: KV of their attention layers, and a state of each sequence, worked out by hand from the configs.
#[test]
fn hybrids_keep_a_state_beside_their_kv() {
    for (name, kv, state) in [
        // 15 of 60 layers, 2 heads of 256; 45 states of 64 x 128 x 128 in FP32 and 12,288 columns x 3 in BF16.
        ("Qwen3.5-397B-A17B", 15 * 2 * 2 * 256 * 2, 45 * (64 * 128 * 128 * 4 + (2 * 16 + 64) * 128 * 3 * 2)),
        ("Qwen3-Next-80B-A3B", 12 * 2 * 2 * 256 * 2, 36 * (32 * 128 * 128 * 4 + (2 * 16 + 32) * 128 * 3 * 2)),
        // 6 attention layers of 2 heads, 23 of Mamba-2: 64 heads of 64 x 128, 8 groups.
        (
            "NVIDIA-Nemotron-3-Nano-30B-A3B-BF16",
            6 * 2 * 2 * 128 * 2,
            23 * (64 * 64 * 128 * 4 + (4096 + 2 * 8 * 128) * 3 * 2),
        ),
        ("Qwen3-32B", 64 * 2 * 8 * 128 * 2, 0),
    ] {
        let m = model(name);
        assert_eq!(m.kv_bytes_per_token(Dtype::Bf16), f64::from(kv), "{name}");
        assert_eq!(m.state_bytes_per_sequence(), f64::from(state), "{name}");
        let program = Program::of(&m);
        assert_eq!(program.state_bytes(1000.0, Dtype::Bf16, 1), f64::from(kv) * 1000.0 + f64::from(state), "{name}");
    }
}

#[test]
fn sliding_layers_keep_their_window_only() {
    let m = model("gpt-oss-120b");
    let row = 2.0 * 8.0 * 64.0 * 2.0;
    assert_eq!(m.kv_bytes_per_token(Dtype::Bf16), 36.0 * row);
    assert_eq!(Program::of(&m).state_bytes(100.0, Dtype::Bf16, 1), 36.0 * 100.0 * row);
    assert_eq!(Program::of(&m).state_bytes(10_000.0, Dtype::Bf16, 1), 18.0 * (10_000.0 + 128.0) * row);
    assert_eq!(Program::of(&m).state_bytes(10_000.0, Dtype::Bf16, 16), 18.0 * 10_128.0 * row / 8.0);
}

#[test]
fn weights_follow_the_formats_of_the_checkpoint() {
    // Checkpoint sizes on the hub without MTP: V3 FP8 about 671 GB, K2 FP8 1.03 TB, gpt-oss 65 GB.
    near(model("DeepSeek-V3").weight_bytes(&AS_SHIPPED) / 1e9, 673.0, 0.01);
    near(model("Qwen3-235B-A22B").weight_bytes(&AS_SHIPPED) / 1e9, 470.2, 0.005);
    near(model("gpt-oss-120b").weight_bytes(&AS_SHIPPED) / 1e9, 65.2, 0.02);
    near(model("Kimi-K2.5").weight_bytes(&AS_SHIPPED) / 1e9, 595.0, 0.02);
    // NVFP4 keeps all attention projections but the last in BF16.
    let m = model("DeepSeek-V3.2-NVFP4");
    let o = 128.0 * 128.0 * 7168.0;
    let rest = m.attention_parameters_per_layer() - o;
    near(m.attention_weight_bytes_per_layer(&AS_SHIPPED), 2.0 * rest + 0.5625 * o, 1e-12);
    let f = m.formats(&AS_SHIPPED);
    assert_eq!(
        (f.gemm, f.attention_gemm, f.shared_gemm, f.moe, f.kv),
        (Dtype::Nvfp4, Dtype::Nvfp4, Dtype::Nvfp4, Dtype::Nvfp4, Dtype::Fp8)
    );
    assert_eq!(model("GLM-5-NVFP4").formats(&AS_SHIPPED).attention_gemm, Dtype::Bf16);
    assert_eq!(model("Kimi-K2.5-NVFP4").formats(&AS_SHIPPED).attention_gemm, Dtype::Bf16);
    assert_eq!(model("MiniMax-M2.5-NVFP4").formats(&AS_SHIPPED).attention_gemm, Dtype::Bf16);
    assert_eq!(model("Qwen3-235B-NVFP4").formats(&AS_SHIPPED).attention_gemm, Dtype::Nvfp4);
    // Asking for another GEMM format converts everything; resolving twice changes nothing.
    let q = Quant { gemm: Some(Dtype::Fp8Block), ..AS_SHIPPED };
    assert_eq!(model("GLM-5-NVFP4").formats(&q).attention_gemm, Dtype::Fp8Block);
    let resolved = AS_SHIPPED.resolve(&m.quant);
    assert_eq!(m.formats(&resolved), f);
}

#[test]
fn attention_tensor_parallelism_shards_heads_and_keeps_the_rest_whole() {
    let m = model("DeepSeek-V3");
    let whole = m.attention_weight_bytes_per_rank(&AS_SHIPPED, 1);
    let eighth = m.attention_weight_bytes_per_rank(&AS_SHIPPED, 8);
    let kept = 7168.0 * (1536.0 + 576.0) * Dtype::Fp8Block.weight_bytes();
    near(eighth, kept + (whole - kept) / 8.0, 1e-12);
}

#[test]
fn checkpoints_state_their_formats() {
    let of = |name: &str| {
        let q = model(name).quant;
        [q.gemm, q.moe, q.attention, q.kv, q.comm].map(|d| d.unwrap().name())
    };
    assert_eq!(of("DeepSeek-V3.2"), ["fp8_block", "fp8_block", "bfloat16", "fp8", "fp8_block"]);
    assert_eq!(of("Kimi-K2.5"), ["bfloat16", "int4_wo", "bfloat16", "bfloat16", "bfloat16"]);
    assert_eq!(of("gpt-oss-120b"), ["bfloat16", "w4a16_mxfp4", "bfloat16", "bfloat16", "bfloat16"]);
    assert_eq!(of("Qwen3-235B-A22B-FP8"), ["fp8_block", "fp8_block", "bfloat16", "bfloat16", "fp8_block"]);
    assert_eq!(of("Qwen3-235B-A22B"), ["bfloat16"; 5]);
    assert_eq!(of("Qwen3-235B-NVFP4"), ["nvfp4", "nvfp4", "bfloat16", "fp8", "nvfp4"]);
    assert_eq!(model("Kimi-K2.5").moe.unwrap().distribution.name(), "power_law_1.01");
    assert_eq!(model("Qwen3-30B-A3B").moe.unwrap().distribution.name(), "power_law_1.2");
}

#[test]
fn preset_names_are_forgiving_and_unknown_ones_get_suggestions() {
    for name in ["deepseek-ai/DeepSeek-V3.2", "DeepSeek-V3.2", "deepseek-v3.2", "DEEPSEEK-AI/deepseek-v3.2"] {
        assert_eq!(model(name).name, "deepseek-ai/DeepSeek-V3.2");
    }
    let said = catalog::model("DeepSeek-V32").unwrap_err().to_string();
    assert!(said.contains("unknown model 'DeepSeek-V32'") && said.contains("DeepSeek-V3.2"), "{said}");
    let said = catalog::model("deepsek-ai/DeepSeek-V3.2").unwrap_err().to_string();
    assert!(said.contains("'deepseek-ai/DeepSeek-V3.2'"), "{said}");
    let said = catalog::system("b20").unwrap_err().to_string();
    assert!(said.contains("b200_sxm"), "{said}");
    assert_eq!(catalog::system("gb200_nvl72").unwrap().1.domain_gpus, 72);
    assert_eq!(catalog::system_name("H100").unwrap(), "h100_sxm");
    assert_eq!(catalog::system("h200").unwrap().0.fp4_flops, 0.0);
    assert_eq!(catalog::workload("chat_short").unwrap().name, "chat_short");
    assert_eq!(catalog::workload("chat-short").unwrap().name, "chat_short");
    assert!(catalog::workload("paper-chatt").unwrap_err().to_string().contains("paper-chat"));
    assert!(catalog::workload("deepseek_production_mix").is_err());
}
