//! Formulas of published planners at the numbers quoted for them, and the switches that choose them.
//!
//! Sources: the public code behind arXiv 2605.28302 and runs of it, aiconfigurator 0.12. Every test
//! of a switch also shows that `physical` says something else, so a switch that is not consulted fails.

use crate::lab::Server;
use disagg::spec::Framework;
use std::sync::Arc;

use proptest::prelude::*;
use serde_json::json;

use disagg::cost::program::Surfaces;
use disagg::cost::published::{self as bytes, Role};
use disagg::cost::{Batch, Library, Program};
use disagg::kernels::Evidence;
use disagg::math::combinatorics::distinct_groups;
use disagg::network::{A2aShape, OneNode};
use disagg::serving::pd::Several;
use disagg::serving::pipeline::{Stages, uniform_alone};
use disagg::serving::step_engine::EngineKind;
use disagg::serving::{Engine, Load, Scan, StepEngine, Tables, aggregated, pd, published};
use disagg::spec::{Aggregated, Assumptions, Dtype, PROFILES, Plan, Quant, Serving, Workload, catalog};
use disagg::units::{GIB, MIB};

use crate::lab::{self, chat, near, pool, split};

fn with(base: &Arc<Library>, name: &str, value: serde_json::Value) -> Arc<Library> {
    let a = base.assumptions.replace(name, value).unwrap();
    lab::library(&base.model, &base.cluster, base.framework, &a)
}

#[test]
fn pipeline_formulas_on_given_stage_sums() {
    let sums = [20.0, 10.0, 5.0, 5.0];
    // The later test of that code: one micro-batch is the sum.
    assert_eq!(published::pipeline_v2(sums, 1, 10), 40.0);
    // Before it, the slowest stage and the fill.
    assert_eq!(published::pipeline_v2_before(sums, 1, 10), 22.0);
    assert_eq!(published::pipeline_v2(sums, 4, 10), 82.0);
    assert_eq!(published::pipeline_v2(sums, 2, 61), 40.0 + 20.0 / 61.0);
    // At the full batch: sum/M + (M-1)/M max.
    assert_eq!(published::pipeline_v1(sums, 4), 25.0);
    assert_eq!(published::pipeline_v1(sums, 1), 40.0);
}

#[test]
fn aiconfigurator_cycles_give_its_own_steps() {
    // Layer times (rounded to 1 us) and steps as that tool printed them.
    for (a, x, f, y, m, layers, step) in [
        (0.195, 0.015, 0.838, 0.015, 3, 61, 153.546),
        (0.092, 0.013, 0.157, 0.013, 3, 94, 44.372),
        (0.187, 0.010, 0.266, 0.010, 3, 61, 48.878),
        (0.153, 0.018, 0.209, 0.018, 1, 94, 37.43),
    ] {
        let layer = Stages::new(a, x, f, y);
        near(published::cycle_step(&layer, m, layers), step, 4e-3, "cycles");
    }
}

proptest! {
    /// The second formula is the schedule of one step alone where the slowest stage fills the ring,
    /// and is never above it.
    #[test]
    fn second_formula_is_the_schedule_only_when_the_ring_is_full(
        t in prop::array::uniform4(1e-6..1e-3f64), m in 2u32..6, layers in 1u32..80,
    ) {
        let s = Stages::new(t[0], t[1], t[2], t[3]);
        let sums = t.map(|x| x * f64::from(layers));
        let (paper, exact) = (published::pipeline_v2(sums, m, layers), uniform_alone(&s, layers, m));
        prop_assert!(paper <= exact * (1.0 + 1e-12));
        // Every case that counts is one of a full ring.
        prop_assume!(f64::from(m) * s.max() >= s.sum());
        prop_assert!((paper - exact).abs() <= 1e-12 * exact, "{paper} {exact}");
    }

    /// Tokens of a cut prefill are never more than the batch has, and the past never more than it was
    /// times the sequences put together.
    #[test]
    fn one_sequence_keeps_tokens(sequences in 1u32..32, new in 16u32..4096, past in 0u32..600_000, m in 2u32..5) {
        let (tokens, kept) =
            published::one_sequence(f64::from(sequences), f64::from(new), f64::from(past), m);
        prop_assert!(tokens * f64::from(m) <= f64::from(sequences * new) + 1e-9 || tokens == 1.0);
        if sequences < m {
            prop_assert_eq!(kept, 0.0);
        }
    }
}

#[test]
fn waiting_factors_are_those_quoted() {
    for (steps, factor) in [(1.0, 1.90), (10.0, 2.35), (23.0, 3.0), (43.0, 4.0), (500.0, 4.0)] {
        near(published::ttft_factor(steps), factor, 1e-12, "factor");
    }
}

#[test]
fn copies_and_transfer_times_are_those_quoted() {
    assert_eq!(bytes::paper_copies(8, 4), 2.5);
    for f in [8, 16, 126] {
        assert_eq!(bytes::paper_copies(8, f), 4.5);
    }
    assert_eq!(bytes::paper_copies(8, 2), 1.5);
    // What it stands for: expected distinct GPUs at 256 experts, top 8.
    for (f, expected) in [(2, 2.0), (4, 3.6), (8, 5.3), (16, 6.5), (32, 7.3)] {
        near(distinct_groups(256, f, 8), expected, 0.015, "distinct");
    }
    let (sent, received) = bytes::paper_a2f_bytes(32.0, 7168.0, 16.0, 16.0, 16.0, 4.5);
    assert_eq!((sent, received), (32.0 * 7168.0 * 9.0, 32.0 * 7168.0 * 9.0));
    let (sent, received) = bytes::paper_f2a_bytes(32.0, 7168.0, 16.0, 16.0, 64.0);
    assert_eq!((sent, received), (32.0 * 7168.0 * 2.0 / 4.0, 32.0 * 7168.0 * 2.0));
    // "0.022 to 0.04 ms" for 32 tokens a rank: V/bw + 20 us over NVLink and over the NIC.
    near(bytes::paper_p2p(32.0 * 7168.0 * 9.0, 900e9), 22.3e-6, 0.01, "nvlink");
    near(bytes::paper_p2p(32.0 * 7168.0 * 9.0, 100e9), 40.6e-6, 0.01, "nic");
    assert_eq!(bytes::paper_p2p(0.0, 1e9), 20e-6);
    // Beyond the measured ranks: 9.6 on H200 from 8 to 16.
    near(bytes::stretch(16, 8, 50e9, 450e9), 9.64, 1e-3, "stretch");
    near(bytes::stretch(72, 4, 900e9, 900e9), 1.315, 1e-3, "rack");
}

#[test]
fn step_counts_follow_the_published_rules() {
    // 32 prompts of 4000 under a budget of 4000: 32 mixed steps, 31 decode beside.
    let c = published::count_steps(32.0, 4000.0, 4000.0, 1000.0);
    assert_eq!((c.mixed, c.mixed_for_tpot, c.decoding, c.decode), (32.0, 29.0, 31.0, 968.0));
    // More prompt steps than output tokens: all steps are mixed.
    let c = published::count_steps(64.0, 32_000.0, 4000.0, 100.0);
    assert_eq!((c.mixed, c.decoding, c.decode), (512.0, 12.0, 0.0));
    let c = published::count_steps(1.0, 4000.0, 4000.0, 1000.0);
    assert_eq!((c.mixed, c.decoding, c.decode), (1.0, 0.0, 999.0));
    // DeepSeek-V3.2 on H200 as aiconfigurator 0.12 printed it: TTFT is T_mix x 3.45.
    near(published::ttft_factor(32.0), 3.45, 1e-12, "factor of 32 steps");
}

/// The paper's memory figure: Qwen3-235B FP8 with BF16 KV, prefix 1M, 4k in, 500 out.
#[test]
fn memory_of_the_paper_is_an_accounting_of_activations() {
    let model = catalog::model("Qwen/Qwen3-235B-A22B-FP8").unwrap();
    let quant = Quant { kv: Some(Dtype::Bf16), ..Quant::default() };
    let (tokens, kv_tokens) = (1e6 + 4096.0, 1e6 + 4096.0 + 500.0);
    let layers = f64::from(model.layers);
    let fixed = 392.0 * MIB + 3.5 * GIB;
    let whole = |tp: u32, ep: u32, charged: f64| {
        let weights = layers
            * (model.attention_weight_bytes_per_rank(&quant, tp)
                + model.router_weight_bytes()
                + 128.0 / f64::from(ep) * model.expert_weight_bytes(&quant))
            + (model.embedding_bytes() + model.head_bytes()) / f64::from(tp);
        let act = charged * bytes::activation_per_token(&model, Role::Whole, tp, 1.0, ep, Framework::Trtllm);
        (weights + act + Program::of(&model).state_bytes(kv_tokens, Dtype::Bf16, tp) + fixed) / GIB
    };
    // "~298 GiB": TP2, EP128, all tokens charged.
    near(whole(2, 128, tokens), 298.4, 0.005, "TP2/EP128");
    // The same model at TP4/EP8 fits 180 GiB when only the new tokens are in flight, and not when all are.
    near(whole(4, 8, 4096.0), 79.0, 0.02, "new tokens");
    near(whole(4, 8, tokens), 231.6, 0.01, "all tokens");
    // "~165 GiB": AFD at attention TP 4 and 8 with four FFN shards, the FFN side the fuller.
    for tp in [4, 8] {
        let ffn = layers * 32.0 * model.expert_weight_bytes(&quant)
            + tokens * bytes::activation_per_token(&model, Role::Ffn, tp, 1.0, 4, Framework::Trtllm)
            + fixed;
        near(ffn / GIB, 164.2, 0.005, "FFN shards");
        let attention = layers * model.attention_weight_bytes_per_rank(&quant, tp)
            + (model.embedding_bytes() + model.head_bytes()) / f64::from(tp)
            + tokens * bytes::activation_per_token(&model, Role::Attention, tp, 1.0, 4, Framework::Trtllm)
            + Program::of(&model).state_bytes(kv_tokens, Dtype::Bf16, tp)
            + fixed;
        assert!((75.0..=98.0).contains(&(attention / GIB)), "{}", attention / GIB);
    }
}

#[test]
fn profiles_are_whole_and_their_switches_documented() {
    for name in PROFILES {
        let a = Assumptions::profile(name).unwrap();
        assert_eq!(a.profile, name);
        assert!(a.check().is_empty());
        assert_eq!(Assumptions::from_json(&a.to_json().unwrap()).unwrap(), a);
        for s in a.switches() {
            assert!(!s.value.is_null() && !s.source.is_empty() && !s.meaning.is_empty(), "{}", s.name);
            if let Some(v) = s.value.as_str() {
                assert!(s.allowed.split(" | ").any(|x| x == v), "{}: {v} not in {}", s.name, s.allowed);
            }
            // Every value that is said to be allowed can be set.
            for v in s.allowed.split(" | ").filter(|_| s.value.is_string()) {
                a.replace(s.name, json!(v)).unwrap();
            }
        }
    }
    assert!(Assumptions::profile("papers").unwrap_err().to_string().contains("paper"));
    assert_eq!(Assumptions::profile("paper*").unwrap(), Assumptions::paper());
}

/// What is left out is the named profile's, and its name is kept only by what is the profile.
#[test]
fn a_profile_keeps_its_name_while_it_is_itself() {
    let read = |text: &str| Assumptions::from_json(text);
    for name in PROFILES {
        let a = Assumptions::profile(name).unwrap();
        assert_eq!(read(&format!("{{\"profile\": \"{name}\"}}")).unwrap(), a);
        assert_eq!(read(&a.to_json().unwrap()).unwrap(), a);
        let text = a.to_json().unwrap().replace("\"afd_alpha_scale\":1.0", "\"afd_alpha_scale\":2.0");
        let changed = read(&text).unwrap();
        assert_eq!((changed.profile.as_str(), changed.afd_alpha_scale), (format!("{name}*").as_str(), 2.0));
        assert_eq!(read(&changed.to_json().unwrap()).unwrap(), changed);
        let back = changed.replace("afd_alpha_scale", serde_json::json!(1.0)).unwrap();
        assert_eq!(back, a);
    }
    assert_eq!(read("{}").unwrap(), Assumptions::physical());
    let e = read("{\"profile\": \"banana\"}").unwrap_err().to_string();
    assert!(e.starts_with("assumptions.profile") && e.contains("not a profile"), "{e}");
    let e = read("{\"profile\": \"paper\", \"exchange\": \"worst\"}").unwrap_err().to_string();
    assert!(e.starts_with("assumptions.exchange"), "{e}");
    assert!(read("{\"profile\": 7}").is_err() && read("{\"lane\": \"by-rule\"}").is_err());
}

/// 4 to 7 sequences all cost four micro-batches of one, and are credited whole.
#[test]
fn floor_split_has_a_plateau_from_4_to_7() {
    let physical = lab::small();
    let plan = lab::afd_plan(pool(4, 1), pool(4, 1), 4);
    let floor = lab::unit(&with(&physical, "microbatch_split", json!("floor")), &plan, &chat());
    let even = lab::unit(&physical, &plan, &chat());
    let times: Vec<f64> = (4..=8).map(|b| floor.decode(f64::from(b), 4000.0).seconds).collect();
    assert!(times[..4].iter().all(|t| *t == times[0]), "{times:?}");
    assert!(times[4] > times[0]);
    assert!(even.decode(7.0, 4000.0).seconds > times[3]);
    assert_eq!(even.decode(8.0, 4000.0).seconds, times[4]);
}

#[test]
fn prefill_as_one_sequence_loses_the_prefix_below_four_requests() {
    let w = Workload::fixed("short", 0.0, 256.0, 64.0);
    let physical = lab::small();
    let plan = lab::afd_plan(pool(4, 1), pool(4, 1), 4);
    let cut = lab::unit(&with(&physical, "prefill_split", json!("one-sequence")), &plan, &w);
    let whole = lab::unit(&physical, &plan, &w);
    let long = 65_536.0;
    // One request: the same time whatever the prefix.
    let (none, some) = (cut.prefill(1.0, 256.0, 0.0, 256.0).latency_s, cut.prefill(1.0, 256.0, long, 256.0).latency_s);
    assert_eq!(none, some);
    assert!(whole.prefill(1.0, 256.0, long, 256.0).latency_s > 1.2 * none);
    // Eight requests: the prefix counts again.
    assert!(cut.prefill(8.0, 256.0, long, 256.0).latency_s > cut.prefill(8.0, 256.0, 0.0, 256.0).latency_s);
}

/// Every switch of the paper that an AFD unit or a worker consults changes what it should, alone.
#[test]
fn switches_reach_the_engine() {
    let base = lab::lib("deepseek-ai/DeepSeek-V3.2", "b200_sxm", 32, "trtllm");
    let w = chat();
    let load = Load::of(&w);
    // One micro-batch hides nothing; three do not divide 32 sequences.
    let step = |lib: &Arc<Library>, m: u32| {
        lab::unit(lib, &lab::afd_plan(pool(8, 2), pool(16, 1), m), &w).decode(32.0, 4700.0).seconds
    };
    for (m, name, value) in [
        (1, "dense_layers", json!("as-moe")),
        (1, "copies", json!("half-of-worst")),
        (1, "copies", json!("one-link")),
        (1, "afd_wire", json!("bandwidth")),
        (1, "afd_wire", json!("node-link")),
        (1, "afd_reductions", json!(false)),
        (3, "pipeline_formula", json!("slowest-stage")),
        (3, "pipeline_formula", json!("cycle")),
        (3, "microbatch_split", json!("floor")),
        (3, "microbatch_split", json!("ceil")),
    ] {
        let (t, own) = (step(&with(&base, name, value.clone()), m), step(&base, m));
        assert!(lab::gap(t, own) > 1e-6, "{name}={value} changes nothing: {t} {own}");
    }
    // Workers: the exchange between nodes. Gathering is never faster than the best, and sometimes slower.
    let worker = |lib: &Arc<Library>| lab::worker(lib, split(1, 16, 1), &w);
    let gather = with(&base, "exchange", json!("gather"));
    let (best, gathered) = (worker(&base), worker(&gather));
    let times: Vec<(f64, f64)> = (0..9)
        .map(|i| f64::from(1 << i))
        .map(|b| (best.decode(b, 4700.0).seconds, gathered.decode(b, 4700.0).seconds))
        .collect();
    assert!(times.iter().all(|(b, g)| g >= b) && times.iter().any(|(b, g)| *g > 1.01 * b), "{times:?}");
    let stretched = gather.assumptions.replace("collectives", json!("stretched")).unwrap();
    let stretched = worker(&lab::library(&base.model, &base.cluster, "trtllm", &stretched));
    assert!(stretched.decode(8.0, 4700.0).seconds > 1.5 * times[3].1);
    // P/D: corrections, waiting and the transfer.
    let pair = |lib: &Arc<Library>| {
        let s = lab::worker(lib, split(8, 1, 1), &w);
        let (p, d) = (pd::prefill_side(&s, &load, 1.0, 512.0), pd::decode_side(&s, &load, 16.0));
        (p, d, pd::combine(Several::of(&s, &p, 1), Several::of(&s, &d, 1), &load))
    };
    let (p0, d0, c0) = pair(&base);
    let (p1, d1, _) = pair(&with(&base, "worker_corrections", json!("fixed")));
    near(p1.prefill.latency_s, 1.1 * p0.prefill.latency_s, 1e-12, "prefill x 1.1");
    near(p1.rate, p0.rate * 0.9 / 1.1, 1e-12, "prefill rate");
    near(d1.step.seconds, 1.08 * d0.step.seconds, 1e-12, "decode x 1.08");
    near(d1.rate, d0.rate * 0.92 / 1.08, 1e-12, "decode rate");
    let (.., c1) = pair(&with(&base, "kv_transfer", json!("ignored")));
    near(c1.service_ttft_s(), p0.prefill.latency_s, 1e-12, "no transfer");
    assert!(c0.ttft_s > c1.ttft_s);
    let (.., c2) = pair(&with(&base, "ttft_queue", json!("factors")));
    near(c2.service_ttft_s() - c0.service_ttft_s(), 0.8 * p0.prefill.latency_s, 1e-9, "x 1.8");
    // Memory: sparse weights and cache, activations of cached tokens.
    let full = |lib: &Arc<Library>| lab::worker(lib, split(1, 8, 1), &w).memory()[0];
    let (m0, m1) = (full(&base), full(&with(&base, "sparse_attention_memory", json!("ignored"))));
    near((m0.weights - m1.weights) / GIB, 61.0 * 201e6 / GIB, 0.02, "12.3 GB of weights");
    near(m1.kv_per_sequence / m0.kv_per_sequence, 576.0 / 788.0, 1e-9, "indexer cache");
    let coefficients = full(&with(&base, "activations", json!("coefficients")));
    assert!(lab::gap(coefficients.activation_per_token, m0.activation_per_token) > 0.05);
    let s = lab::worker(&with(&base, "activations", json!("coefficients")), split(1, 8, 1), &w);
    assert_eq!(aggregated::tokens_in_flight(&s, &load, 4.0, 600.0), 8192.0);
}

/// The switches of aiconfigurator that a worker or a unit consults, each alone and where it matters.
#[test]
fn switches_of_aiconfigurator_reach_the_engine() {
    let base = |model, system, framework| lab::lib(model, system, 8, framework);
    let (v32, v3, qwen) = ("deepseek-ai/DeepSeek-V3.2", "deepseek-ai/DeepSeek-V3", "Qwen/Qwen3-235B-A22B-FP8");
    let prefill = Batch::prefill(1.0, 4000.0, 0.0);
    let mixed = Batch { decode: 31.0, context: 4500.0, ..prefill };
    let decode = Batch::decode(32.0, 4500.0, 1.0);
    let long = Batch::decode(128.0, 8000.0, 1.0);
    let gather = with(&base(v3, "h200_sxm", "sglang"), "exchange", json!("gather"));
    let eager = with(&base(qwen, "h200_sxm", "sglang"), "launch_floors", json!("measured"));
    let (dp, tp) = (split(1, 8, 1), split(8, 1, 1));
    for (lib, layout, batch, name, value) in [
        (gather, dp, prefill, "gather_format", "framework"),
        (base(qwen, "h200_sxm", "trtllm"), dp, prefill, "beyond_tables", "utilisation"),
        (eager, tp, decode, "all_reduce_rows", "graph"),
        (base(qwen, "h200_sxm", "sglang"), tp, prefill, "attention_elementwise", "launches"),
        (base(v32, "h200_sxm", "sglang"), tp, prefill, "shared_expert_split", "whole"),
        (base(v3, "h200_sxm", "trtllm"), tp, mixed, "mixed_attention", "by-name"),
        (base(v32, "gb200", "sglang"), dp, long, "beyond_tables", "utilisation"),
        (base(v32, "gb200", "trtllm"), dp, decode, "far_exchange", "one-node"),
        (base(v32, "gb200", "trtllm"), dp, prefill, "far_exchange", "one-node"),
        (base(v32, "gb200", "trtllm"), dp, decode, "wide_ep_decode", "discounted"),
        (base("zai-org/GLM-5-FP8", "b200_sxm", "sglang"), dp, decode, "listed_norms", "block"),
    ] {
        let time = |lib: &Arc<Library>| match lab::worker(lib, layout, &chat()).kind {
            EngineKind::Worker(w, _) => w.step(&batch).seconds,
            EngineKind::Afd(_) => unreachable!(),
        };
        let (own, other) = (time(&lib), time(&with(&lib, name, json!(value))));
        assert!(lab::gap(own, other) > 1e-4, "{name}={value} changes nothing: {own} {other}");
    }
    // Group-limited routing saves traffic between nodes.
    let far = lab::lib(v3, "h200_sxm", 32, "sglang");
    let time = |lib: &Arc<Library>| lab::worker(lib, split(1, 32, 1), &chat()).step(&prefill).seconds;
    assert!(time(&with(&far, "group_routing", json!("ignored"))) > 1.01 * time(&far));
    // An FFN pool whose ranks all route all tokens takes longer, and the router's weights are there.
    let unit = |lib: &Arc<Library>| lab::unit(lib, &lab::afd_plan(pool(8, 1), pool(8, 1), 3), &chat());
    let (spread, whole) = (unit(&far), unit(&with(&far, "ffn_pool", json!("whole"))));
    let pass = |s: &StepEngine| s.prefill(3.0, 4000.0, 0.0, 4000.0).latency_s;
    assert!(pass(&whole) > pass(&spread));
    assert!(whole.memory()[1].weights > spread.memory()[1].weights);
    // A least size of activations.
    let m = unit(&with(&far, "activations", json!("framework"))).memory()[0];
    near(m.bytes(0.0, 1.0), m.bytes(0.0, 0.0), 1e-12, "floor");
    near(m.activation_floor, 103.5 * MIB, 1e-12, "90 MiB and 15 %");
}

/// Sparse decode where no row is, against aiconfigurator 0.12 asked the same: heads, sequences, tokens with the new
/// one, milliseconds a layer. Slope and utilisation differ there by up to 5 %.
#[test]
fn utilisation_held_off_the_grid_is_what_that_tool_holds() {
    let v32 = ("deepseek-ai/DeepSeek-V3.2", "gb200");
    let glm = ("zai-org/GLM-5-FP8", "b200_sxm");
    for ((model, system), b, tokens, theirs) in [
        (v32, 128.0, 8001.0, 0.25044),
        (v32, 128.0, 8250.0, 0.25314),
        (v32, 64.0, 8001.0, 0.17543),
        (v32, 64.0, 8250.0, 0.17709),
        (glm, 64.0, 8001.0, 0.17727),
        (glm, 64.0, 8250.0, 0.17840),
        (glm, 128.0, 8001.0, 0.23292),
        (glm, 128.0, 8250.0, 0.23490),
    ] {
        let physical = lab::lib(model, system, 8, "sglang");
        let quant = Quant { kv: Some(Dtype::Fp8), ..Quant::default() };
        let lib = |a: &Assumptions| {
            let serving = Serving::default();
            Library::new(lab::db().clone(), &physical.model, &physical.cluster, Framework::Sglang, &quant, &serving, a)
                .unwrap()
        };
        let held = lib(&Assumptions::aiconfigurator()).generation(1, 0).unwrap().at(&[b, tokens - 1.0]);
        near(held.seconds * 1e3, theirs, 0.01, &format!("{model} {b} x {tokens}"));
        assert_eq!(held.evidence, Evidence::Extrapolated);
        // A row itself is read as it is; beyond all nodes the time still rises.
        let (slope, held) = (lib(&Assumptions::physical()), lib(&Assumptions::aiconfigurator()));
        let at = |l: &Library, b: f64, c: f64| l.generation(1, 0).unwrap().at(&[b, c]).seconds;
        if model == v32.0 {
            assert_eq!(at(&slope, 64.0, 4096.0), at(&held, 64.0, 4096.0));
        }
        assert!(at(&held, 1e5, 1e7) > at(&held, 1e5, 1e6) && at(&held, 1e6, 1e6) > at(&held, 1e5, 1e6));
    }
}

/// Exchanges between nodes as rows of one node, against the rows and against what aiconfigurator 0.12 takes.
#[test]
fn one_node_stands_for_many_where_no_rows_are() {
    let shape = |ep| A2aShape {
        hidden: 7168,
        topk: 8,
        experts: 256,
        groups: 0,
        topk_groups: 0,
        ep,
        dispatch_dtype: Dtype::Nvfp4,
    };
    let rows = |system, framework: &str, node, ep, moe| {
        OneNode::new(lab::db(), system, framework.of(), node, &shape(ep), moe).unwrap()
    };
    let gb200 = rows("gb200", "trtllm", 4, 8, Dtype::Nvfp4).unwrap();
    // Rows of moe_a2a at 128 tokens: low-latency NVFP4 out and FP4 back, normal NVFP4 both ways. A row that costs
    // more than a larger one is lowered to it, here by 1 %.
    for (back, decode, us) in
        [(false, true, 182.32656), (true, true, 92.75088), (false, false, 134.44048), (true, false, 120.563519)]
    {
        let t = gb200.at(128.0, back, decode);
        near(t.seconds * 1e6, us, 0.011, "a row");
        assert!(t.seconds * 1e6 < us * (1.0 + 1e-6));
        assert_eq!(t.evidence, Evidence::Extrapolated);
        assert!(gb200.at(1e5, back, decode).seconds > gb200.at(1e4, back, decode).seconds);
    }
    assert!(rows("gb200", "vllm", 4, 8, Dtype::Fp8Block).is_some());
    assert!(rows("gb200", "sglang", 4, 8, Dtype::Fp8Block).is_some());
    // SGLang on Hopper has rows of two nodes and more.
    assert!(rows("h200_sxm", "sglang", 8, 16, Dtype::Fp8Block).is_none());
    // The whole decode step of that tool: 41.792 ms at 128 sequences a rank and 8,250 tokens.
    let lib = lab::lib("nvidia/DeepSeek-V3.2-NVFP4", "gb200", 8, "trtllm");
    let quant = Quant { kv: Some(Dtype::Fp8), ..Quant::default() };
    let a = Assumptions::aiconfigurator();
    let serving = Serving::default();
    let theirs =
        Library::new(lab::db().clone(), &lib.model, &lib.cluster, Framework::Trtllm, &quant, &serving, &a).unwrap();
    let step = lab::worker(&Arc::new(theirs), split(1, 8, 1), &chat()).decode(128.0, 8250.0).seconds;
    near(step * 1e3, 41.792, 0.015, "decode step");
}

/// The published mixed-step formula on the engine: TTFT, TPOT and rate from its two step times.
#[test]
fn counted_steps_give_the_published_numbers() {
    let base = lab::lib("Qwen/Qwen3-30B-A3B", "b200_sxm", 16, "trtllm");
    let a = base.assumptions.replace("mixed_steps", json!("counted")).unwrap();
    let a = a.replace("ttft_queue", json!("factors")).unwrap();
    let lib = lab::library(&base.model, &base.cluster, "trtllm", &a);
    let w = Workload::fixed("4k-1k", 0.0, 4000.0, 1000.0);
    let s = lab::worker(&lib, split(8, 1, 1), &w);
    let load = Load::of(&w);
    let p = aggregated::solve(&s, &load, 32.0, 4032.0, 1);
    let mixed = p.itl_worst_s;
    let decode = s.decode(32.0, 4500.0).seconds;
    near(p.ttft_s, mixed * 3.45, 1e-12, "TTFT");
    near(p.tpot_s, (29.0 * mixed + 968.0 * decode) / 997.0, 1e-12, "TPOT");
    near(p.requests_per_s, 32.0 / (32.0 * mixed + 968.0 * decode), 1e-12, "rate");
    // And through the engine with a plan in hand.
    let plan = Plan::Aggregated(Aggregated {
        parallel: split(8, 1, 1),
        batch: Some(32),
        chunk_tokens: Some(4032),
        replicas: 1,
        ..Default::default()
    });
    near(Engine::new(&lib, &w, &plan).unwrap().point.ttft_s, p.ttft_s, 1e-12, "engine");
}

/// Between nodes `gather-in-node` leaves the tokens to an all-to-all. A decode step under CUDA graphs that none takes
/// (the low-latency kernel is full, the other asks the host for sizes) is gathered: no layer is free.
#[test]
fn steps_that_no_all_to_all_takes_are_gathered() {
    let base = lab::lib("deepseek-ai/DeepSeek-V3.2", "h200_sxm", 16, "sglang");
    let (far, gather) = (with(&base, "exchange", json!("gather-in-node")), with(&base, "exchange", json!("gather")));
    let eager = {
        let serving = disagg::spec::Serving { launch: Some(disagg::spec::Launch::Measured), ..Serving::default() };
        lab::library_serving(&far.model, &far.cluster, Framework::Sglang, &far.assumptions, &serving)
    };
    let of = |lib: &Arc<Library>, gpus, batch: &Batch| match lab::worker(lib, split(1, gpus, 1), &chat()).kind {
        EngineKind::Worker(w, _) => (w.lane(batch).unwrap().name(), w.step(batch).seconds),
        EngineKind::Afd(_) => unreachable!(),
    };
    let mut last = 0.0;
    for tokens in [1.0, 256.0, 1024.0, 1025.0, 2048.0, 8192.0] {
        let batch = Batch::decode(tokens, 4700.0, 1.0);
        let (lane, seconds) = of(&far, 16, &batch);
        if tokens <= 1024.0 {
            assert_eq!(lane, "grouped+low-latency", "{tokens}");
        } else {
            assert_eq!((lane, seconds), of(&gather, 16, &batch), "{tokens}");
            assert_eq!(of(&eager, 16, &batch).0, "grouped+normal", "{tokens}: the host is asked");
        }
        assert!(seconds > last, "{tokens}: {seconds} after {last}");
        last = seconds;
        assert_eq!(of(&far, 8, &batch), of(&gather, 8, &batch), "{tokens}: one node gathers all");
    }
    let prompts = Batch::prefill(1.0, 8192.0, 0.0);
    assert_eq!(of(&far, 16, &prompts).0, "grouped+normal");
    // The scan takes the same lanes; every batch sees the mean context, so that decode kernels have one line.
    let far = with(&far, "attention_barrier", json!(false));
    let (w, s) = (chat(), Arc::new(lab::worker(&far, split(1, 16, 1), &chat())));
    let scan = Scan::new(&s, &Arc::new(Tables::new(&far, &w, &Arc::default()).unwrap())).unwrap();
    for batch in [512.0, 1024.0, 2048.0, 4096.0] {
        let (exact, fast) =
            (pd::decode_side(&s, &Load::of(&w), batch), pd::decode_side_by(&scan, &Load::of(&w), batch));
        near(fast.step.seconds, exact.step.seconds, 1e-9, "scan");
    }
}
