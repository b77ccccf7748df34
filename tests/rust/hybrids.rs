//! Families with running states, experts without a gate, latent experts, odd heads and windows: every level priced, the
//! scan against the engine, what P/D ships, and where their times come from.

use std::sync::Arc;

use disagg::control::Control;
use disagg::cost::{Batch, Library};
use disagg::kernels::Evidence;
use disagg::serving::{Engine, Load, Scan, Tables, aggregated, pd};
use disagg::sim::{Deployment, Requests, Settings, Status, simulate};
use disagg::spec::{Assumptions, Serving, Workload};

use crate::lab;

/// A hybrid of each kind, odd heads, chunks of every other layer's experts, and latent experts.
const FAMILIES: [&str; 10] = [
    "moonshotai/Kimi-Linear-48B-A3B-Instruct",
    "Qwen/Qwen3.5-35B-A3B",
    "nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-BF16",
    "XiaomiMiMo/MiMo-V2-Flash",
    "meta-llama/Llama-4-Scout-17B-16E-Instruct",
    "nvidia/NVIDIA-Nemotron-3-Super-120B-A12B-FP8",
    "deepseek-ai/DeepSeek-V4-Flash",
    "google/gemma-4-26B-A4B",
    "zai-org/GLM-5.3-Flash",
    "ai21labs/AI21-Jamba-Mini-1.5",
];

fn library(name: &str, framework: &str, serving: &Serving) -> Arc<Library> {
    let cluster = lab::cluster("b200_sxm", 16);
    lab::library_serving(&lab::model(name), &cluster, framework, &Assumptions::physical(), serving)
}

#[test]
fn every_level_serves_them_and_the_simulator_agrees() {
    for name in FAMILIES {
        let lib = library(name, "trtllm", &Serving::default());
        let w = Workload::fixed("law", 500.0, 2000.0, 200.0);
        for plan in lab::every_level(lab::split(2, 2, 1), 32) {
            let engine = Arc::new(Engine::new(&lib, &w, &plan).unwrap());
            let point = engine.point;
            assert!(point.requests_per_s > 0.0, "{name} {plan:?}");
            let n = 100;
            let mut requests = Requests { isl: vec![2000; n], osl: vec![200; n], ..Requests::default() };
            let gap = 1e12 / (0.5 * point.requests_per_s);
            requests.arrival_ps = (0..n).map(|i| (i as f64 * gap) as u64).collect();
            let o = simulate(&Deployment::of(&engine), &requests, &Settings::default(), &Control::new()).unwrap();
            assert!(o.status.iter().all(|s| *s == Status::Finished), "{name}");
            let tpot = o.finish_ps.iter().zip(&o.first_token_ps).map(|(f, t)| (f - t) as f64 * 1e-12 / 199.0);
            let mean = tpot.sum::<f64>() / n as f64;
            assert!(mean < point.tpot_s * 1.1 && mean > 0.2 * point.tpot_s, "{name} {mean} {} {plan:?}", point.tpot_s);
        }
    }
}

#[test]
fn a_scan_reads_them_as_the_engine_prices_them() {
    for name in FAMILIES {
        let lib = library(name, "trtllm", &Serving::default());
        let w = Workload::fixed("law", 1000.0, 1500.0, 300.0);
        let (load, tables) = (Load::of(&w), Arc::new(Tables::new(&lib, &w, &Arc::default()).unwrap()));
        let unit = lab::unit(&lib, &lab::afd_plan(lab::pool(4, 2), lab::pool(4, 1), 2), &w);
        for s in [lab::worker(&lib, lab::split(2, 2, 1), &w), unit].map(Arc::new) {
            let scan = Scan::new(&s, &tables).unwrap();
            for (batch, chunk) in [(8.0, 300.0), (64.0, 4000.0)] {
                let (a, b) = (
                    aggregated::solve(&s, &load, batch, chunk, 1),
                    aggregated::solve_by(&scan, &load, batch, chunk, 1),
                );
                lab::near(b.requests_per_s, a.requests_per_s, 3e-3, name);
                let (a, b) = (pd::decode_side(&s, &load, batch), pd::decode_side_by(&scan, &load, batch));
                lab::near(b.step.seconds, a.step.seconds, 3e-3, name);
            }
        }
    }
}

/// Prefill ships the states of a prompt beside its KV, and a longer prompt ships more KV and the same states.
#[test]
fn states_are_shipped_and_held_beside_the_kv() {
    let lib = library("Qwen/Qwen3.5-35B-A3B", "sglang", &Serving::default());
    let (kv, state) = (lib.model.kv_bytes_per_token(lib.formats.kv), lib.model.state_bytes_per_sequence());
    assert!(state > 1e6);
    for tokens in [1.0, 1000.0, 100_000.0] {
        lab::near(lib.kv_bytes(tokens), tokens * kv + state, 1e-12, "shipped");
    }
    // On two ranks: two KV heads and sixteen key heads are both cut in two.
    let held = |w: &Workload| lab::worker(&lib, lab::split(2, 1, 1), w).memory()[0].kv_per_sequence;
    lab::near(held(&Workload::fixed("s", 0.0, 1000.0, 100.0)), (1100.0 * kv + state) / 2.0, 1e-9, "held");
}

/// Times of gated DeltaNet are measured where its table has the heads, on every framework; a step hangs on the context by
/// its attention layers alone.
#[test]
fn gated_delta_kernels_are_measured() {
    for framework in ["sglang", "trtllm", "vllm"] {
        for (name, tp) in [("Qwen/Qwen3.5-397B-A17B", 1), ("Qwen/Qwen3.5-397B-A17B", 4), ("Qwen/Qwen3.5-35B-A3B", 1)] {
            let lib = library(name, framework, &Serving::default());
            let mixer = &lib.program.mixers()[1];
            let rank = mixer.on_rank(&*lib, tp, 1).unwrap();
            assert_eq!(rank.measured(), [true; 2], "{framework} {name}");
            let reading = rank.decode(64.0, 1e5);
            let known = if framework == "trtllm" && tp > 1 { Evidence::Extrapolated } else { Evidence::Measured };
            assert!(reading.evidence <= known, "{framework} {name} tp {tp}: {:?}", reading.evidence);
            assert_eq!(reading.seconds, rank.decode(64.0, 10.0).seconds);
            // No faster than the memory that its states take, nor many times slower.
            let floor = 64.0 * mixer.state(lib.formats.kv).per_sequence * 2.0
                / f64::from(tp)
                / lib.cluster.device.hbm_bytes_per_s;
            assert!(reading.seconds > 0.6 * floor && reading.seconds < 20.0 * floor + 5e-5, "{framework} {name} {tp}");
            // Prompts: linear in their tokens once there are many.
            let (one, two) = (rank.prompt(1.0, 8192.0, 0.0).seconds, rank.prompt(1.0, 16384.0, 0.0).seconds);
            assert!(two > 1.6 * one && two < 2.4 * one, "{framework} {name}: {one} {two}");
        }
    }
}

/// Layers that take another one's picks cost less than those with an indexer of their own, and keep no index keys.
#[test]
fn a_shared_indexer_is_measured_without_its_own_work() {
    for (framework, known) in [("sglang", Evidence::Measured), ("trtllm", Evidence::Extrapolated)] {
        let lib = library("zai-org/GLM-5.2-FP8", framework, &Serving::default());
        let program = &lib.program;
        assert_eq!((program.layers_of(0), program.layers_of(1)), (21.0, 57.0));
        let [own, shared] = [0, 1].map(|i| program.mixers()[i].on_rank(&*lib, 1, 1).unwrap());
        assert_eq!(shared.measured(), [true; 2], "{framework}");
        for (rows, context) in [(16.0, 8192.0), (64.0, 65_536.0)] {
            let (a, b) = (own.decode(rows, context), shared.decode(rows, context));
            assert!(b.seconds < a.seconds && b.seconds > 0.1 * a.seconds, "{framework}: {} {}", a.seconds, b.seconds);
            assert!(b.evidence <= known.max(Evidence::Extrapolated));
        }
        let (a, b) = (own.prompt(1.0, 4096.0, 65_536.0).seconds, shared.prompt(1.0, 4096.0, 65_536.0).seconds);
        assert!(b < a && b > 0.1 * a, "{framework}: {a} {b}");
        // Below top-k both attend densely.
        let kv = lib.formats.kv;
        let row = |i: usize| program.mixers()[i].state(kv).per_token;
        lab::near(row(0) - row(1), 132.0, 1e-12, "index keys of the layers with an indexer");
    }
}

/// Without a gate an expert has two matrices: fewer bytes, and no slower than one with a gate.
#[test]
fn a_gate_costs_what_it_weighs() {
    let gated = lab::model("Qwen/Qwen3-30B-A3B");
    let bare = disagg::spec::Model { gated: false, ..gated.clone() };
    lab::near(bare.expert_parameters() * 3.0, gated.expert_parameters() * 2.0, 1e-12, "matrices");
    let step = |m: &disagg::spec::Model| {
        let lib = lab::library(m, &lab::cluster("b200_sxm", 8), "trtllm", &Assumptions::physical());
        lab::worker(&lib, lab::split(1, 1, 1), &lab::chat()).step(&Batch::decode(64.0, 1000.0, 1.0)).seconds
    };
    assert!(step(&bare) < step(&gated));
}
