//! Compressed, block-sparse and gated attention, residuals that are more than a sum, two blocks a layer: sizes by hand from
//! the configs and against the published ones, and the laws of their kernels.

use std::sync::Arc;

use disagg::cost::{Batch, Library, Program};
use disagg::kernels::{Evidence, ops};
use disagg::serving::{Load, Scan, Tables, aggregated, pd};
use disagg::spec::{Assumptions, Attention, Dtype, LayerMixer, OwnMixer, Quant, Serving, Workload};

use crate::lab;

/// In NVFP4 where a model would not fit otherwise.
fn library(name: &str, quant: &Quant) -> Arc<Library> {
    let (model, cluster) = (lab::model(name), lab::cluster("b300_sxm", 32));
    let (serving, framework) = (Serving::default(), lab::Server::of("sglang"));
    let assumptions = Assumptions::physical();
    Arc::new(Library::new(lab::db().clone(), &model, &cluster, framework, quant, &serving, &assumptions).unwrap())
}

fn small() -> Quant {
    Quant { moe: Some(Dtype::Nvfp4), ..Quant::default() }
}

/// Model cards; of multimodal ones the language model.
#[test]
fn sizes_equal_the_published_ones() {
    for (name, billions, active, off) in [
        // deepseek-ai on the hub, 2026-04: 284B with 13B active, 1.6T with 49B.
        ("deepseek-ai/DeepSeek-V4-Flash", 284.0, 13.3, 0.05),
        ("deepseek-ai/DeepSeek-V4-Pro", 1600.0, 49.0, 0.02),
        // MiniMaxAI/MiniMax-M3 on the hub: about 428B and 23B, a vision tower of 0.6B among them.
        // The card's "about 23B" leaves the embeddings' 2.5B out.
        ("MiniMaxAI/MiniMax-M3", 428.0, 23.0 + 2.46, 0.03),
        // Kimi-K3: 2.8T (field notes of October 2026); nobody published what is active in the text model alone.
        ("moonshotai/Kimi-K3", 2800.0, f64::NAN, 0.02),
        // google/gemma-4 model card: 25.2B and 3.8B, 30.7B.
        ("google/gemma-4-26B-A4B", 25.2, 3.8, 0.03),
        ("nvidia/Gemma-4-31B-IT-NVFP4", 30.7, 30.7, 0.02),
        // ai21labs: 52B and 12B; meituan-longcat: 560B, 18.6B to 31.3B with a mean of 27B.
        ("ai21labs/AI21-Jamba-Mini-1.5", 51.6, 12.0, 0.02),
        ("meituan-longcat/LongCat-Flash-Chat", 560.0, 27.0, 0.04),
    ] {
        let m = lab::model(name);
        lab::near(m.parameters() / 1e9, billions, 0.02, name);
        if active.is_finite() {
            lab::near(m.active_parameters() / 1e9, active, off, name);
        }
    }
    // FP8 everywhere but for experts of 4.25 bits: 160 GB and 865 GB of files (hub), draft layers among them.
    lab::near(lab::model("deepseek-ai/DeepSeek-V4-Flash").weight_bytes(&Quant::default()) / 1e9, 157.0, 0.03, "files");
    lab::near(lab::model("deepseek-ai/DeepSeek-V4-Pro").weight_bytes(&Quant::default()) / 1e9, 850.0, 0.03, "files");
}

/// What a sequence keeps, by hand from the configs.
#[test]
fn kept_bytes_are_those_of_the_configs() {
    let pro = lab::model("deepseek-ai/DeepSeek-V4-Pro");
    // 30 layers keep a row of 512 and an index key of 128 every 4 tokens, 31 a row every 128.
    assert_eq!(pro.kv_bytes_per_token(Dtype::Bf16), 30.0 * (1024.0 + 256.0) / 4.0 + 31.0 * 1024.0 / 128.0);
    // vLLM's report on V4: 9.62 GiB of BF16 rows for 1,048,576 tokens.
    lab::near(pro.kv_bytes_per_token(Dtype::Bf16) * 1_048_576.0 / 2f64.powi(30), 9.62, 1e-3, "a million tokens");
    // FP8 rows of 584 bytes, index keys of 132.
    assert_eq!(pro.kv_bytes_per_token(Dtype::Fp8), 30.0 * (584.0 + 132.0) / 4.0 + 31.0 * 584.0 / 128.0);
    assert_eq!(pro.quant.kv, Some(Dtype::Fp8));
    let flash = lab::model("deepseek-ai/DeepSeek-V4-Flash");
    // 43 rings of 128 rows; compressors of 8 rows of 1,024 (21), of an index of 8 rows of 256, and of 128 rows of 512 (20):
    // values and scores in FP32.
    let states = 21.0 * (8.0 * 1024.0 + 8.0 * 256.0) + 20.0 * 128.0 * 512.0;
    assert_eq!(flash.state_bytes_per_sequence(), 43.0 * 128.0 * 584.0 + 8.0 * states);
    let kept = Program::of(&flash).state_bytes(1000.0, Dtype::Fp8, 4);
    lab::near(kept, 1000.0 * flash.kv_bytes_per_token(Dtype::Fp8) + flash.state_bytes_per_sequence(), 1e-12, "kept");
    // 57 layers keep an index key of 128 beside 4 KV heads, 3 do not.
    let m3 = lab::model("MiniMaxAI/MiniMax-M3");
    assert_eq!(m3.kv_bytes_per_token(Dtype::Bf16), 60.0 * 2.0 * 4.0 * 128.0 * 2.0 + 57.0 * 256.0);
    // 24 of 93 layers are latent; 69 states of 96 heads of 128 x 128, 3 x 12,288 columns convolved.
    let k3 = lab::model("moonshotai/Kimi-K3");
    assert_eq!(k3.kv_bytes_per_token(Dtype::Bf16), 24.0 * 576.0 * 2.0);
    let state = 96.0 * 128.0 * 128.0 * 4.0 + 3.0 * 96.0 * 128.0 * 3.0 * 2.0;
    assert_eq!(k3.state_bytes_per_sequence(), 69.0 * state);
    // 11 latent layers without rotary part, an index key of 132 bytes for four tokens; 34 states.
    let glm = lab::model("zai-org/GLM-5.3-Flash");
    assert_eq!(glm.kv_bytes_per_token(Dtype::Bf16), 11.0 * (512.0 * 2.0 + 132.0 / 4.0));
    assert_eq!(glm.state_bytes_per_sequence(), 34.0 * (64.0 * 128.0 * 128.0 * 4.0 + 3.0 * 64.0 * 128.0 * 3.0 * 2.0));
    // Values are keys in 5 layers of 2 heads of 512, but both are kept; 25 slide over 1,024 tokens.
    let gemma = lab::model("google/gemma-4-26B-A4B");
    let (full, slides) = (5.0 * 2.0 * 2.0 * 512.0 * 2.0, 25.0 * 2.0 * 8.0 * 256.0 * 2.0);
    assert_eq!(gemma.kv_bytes_per_token(Dtype::Bf16), full + slides);
    assert_eq!(Program::of(&gemma).state_bytes(10_000.0, Dtype::Bf16, 1), 10_000.0 * full + 1024.0 * slides);
    assert!(matches!(gemma.attention, Attention::Gqa { head_dim: 512, kv_heads: 2, .. }));
    // 28 states of 8,192 channels of 16, four layers of 8 heads of 128.
    let jamba = lab::model("ai21labs/AI21-Jamba-Mini-1.5");
    assert_eq!(jamba.state_bytes_per_sequence(), 28.0 * 8192.0 * (16.0 * 4.0 + 3.0 * 2.0));
}

/// Beyond the picks a query costs what its index costs; without an indexer every compressed row is read.
#[test]
fn sparse_kernels_grow_as_their_rows_do() {
    let lib = library("deepseek-ai/DeepSeek-V4-Flash", &Quant::default());
    let program = &lib.program;
    assert_eq!([0, 1, 2].map(|i| program.layers_of(i)), [2.0, 21.0, 20.0]);
    let by_name = |name: &str| program.mixers().iter().position(|m| m.name() == name).unwrap();
    let plain = program.mixers()[by_name("compressed attention")].on_rank(&*lib, 1, 1).unwrap();
    let rows = 64.0;
    // The window alone: no longer over a longer context.
    assert_eq!(plain.decode(rows, 1e3).seconds, plain.decode(rows, 1e6).seconds);
    let device = &lib.cluster.device;
    let picked = lib.model.mixers.iter().find_map(|m| match m {
        LayerMixer::Own(OwnMixer::Compressed(c)) if c.topk > 0 => Some(*c),
        _ => None,
    });
    let bare = |decode| ops::by_roofline(ops::compressed_kernel(device, &picked.unwrap(), 64.0, Dtype::Fp8, decode));
    let (decode, prompt) = (bare(true), bare(false));
    let reads = |context: f64| decode.at(&[rows, context]);
    assert_eq!(reads(1e4).evidence, Evidence::Roofline);
    // From 2,048 tokens on (512 picks of 4) only index keys of 33 bytes a token are read.
    let more = reads(1_048_576.0).seconds - reads(524_288.0).seconds;
    lab::near(more, rows * 524_288.0 * 132.0 / 4.0 / (device.hbm_bytes_per_s * 0.8), 0.02, "index keys");
    // Prefill: the second half of a prompt is no dearer than picks and index make it, far below dense attention.
    let dense = lib.model.attention.heads() as f64 * 4.0 * 512.0 * 65_536.0 * 65_536.0 / 2.0 / device.bf16_flops;
    let long = prompt.at(&[1.0, 65_536.0, 0.0]).seconds;
    assert!(long < 0.2 * dense, "{long} {dense}");
}

/// A rank of a wider TP has its heads' share; every rank has the row and the indexer.
#[test]
fn weights_are_split_by_heads() {
    for name in ["deepseek-ai/DeepSeek-V4-Flash", "MiniMaxAI/MiniMax-M3"] {
        let lib = library(name, &small());
        let mixers = lib.program.mixers();
        let mixer = &mixers[mixers.len() - 1];
        let bytes = |tp| mixer.weight_bytes(&lib.model, &lib.quant, tp);
        assert!(bytes(1) < 8.0 * bytes(8) && bytes(8) < 0.4 * bytes(1), "{name}");
    }
}

/// Streams and attention over residuals cost elementwise time; an output gate a product.
#[test]
fn residuals_and_gates_are_paid_for() {
    let step = |change: &dyn Fn(&mut disagg::spec::Model), name: &str| {
        let mut model = lab::model(name);
        change(&mut model);
        let lib = lab::library(&model, &lab::cluster("b300_sxm", 32), "sglang", &Assumptions::physical());
        lab::worker(&lib, lab::split(8, 2, 1), &lab::chat()).step(&Batch::decode(64.0, 4000.0, 1.0)).seconds
    };
    let glm = |streams| step(&move |m| m.streams = streams, "zai-org/GLM-5.3-Flash");
    assert!(glm(4) > glm(1));
    let k3 = |block| step(&move |m| m.residual_block = block, "moonshotai/Kimi-K3");
    assert!(k3(12) > k3(0) && k3(6) > k3(12));
    let gate = |on| {
        step(
            &move |m| {
                if let Attention::Mla { gate, .. } = &mut m.attention {
                    *gate = on;
                }
            },
            "moonshotai/Kimi-K3",
        )
    };
    assert!(gate(true) > gate(false));
    // A plain residual is what it was.
    assert_eq!(lab::model("Qwen/Qwen3-30B-A3B").residual_bytes(), (0.0, 0.0));
}

/// The largest on 32 GPUs: workers and AFD, the scan against the engine.
#[test]
fn large_ones_are_priced_wide() {
    for name in [
        "deepseek-ai/DeepSeek-V4-Pro",
        "moonshotai/Kimi-K3",
        "MiniMaxAI/MiniMax-M3",
        "meituan-longcat/LongCat-Flash-Chat",
    ] {
        let lib = library(name, &small());
        let w = Workload::fixed("wide", 0.0, 4000.0, 500.0);
        let (load, tables) = (Load::of(&w), Arc::new(Tables::new(&lib, &w, &Arc::default()).unwrap()));
        let unit = lab::unit(&lib, &lab::afd_plan(lab::pool(16, 4), lab::pool(16, 1), 2), &w);
        for s in [lab::worker(&lib, lab::split(4, 4, 1), &w), unit].map(Arc::new) {
            let scan = Scan::new(&s, &tables).unwrap();
            let (a, b) = (pd::decode_side(&s, &load, 32.0), pd::decode_side_by(&scan, &load, 32.0));
            assert!(a.step.seconds > 1e-3 && a.step.seconds < 0.5, "{name} {}", a.step.seconds);
            lab::near(b.step.seconds, a.step.seconds, 3e-3, name);
            let (a, b) =
                (aggregated::solve(&s, &load, 16.0, 2000.0, 1), aggregated::solve_by(&scan, &load, 16.0, 2000.0, 1));
            lab::near(b.requests_per_s, a.requests_per_s, 3e-3, name);
        }
    }
}
