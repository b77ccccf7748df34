//! Memory as servers have it: KV room against what servers print at start, and the laws of the fraction.

use crate::lab::Server;
use disagg::spec::Framework;
use std::sync::Arc;

use disagg::Error;
use disagg::cost::Library;
use disagg::cost::memory::Memory;
use disagg::serving::{Engine, defaults};
use disagg::spec::{Aggregated, Assumptions, Dtype, Parallel, PdPlan, Plan, Quant, Serving, Workload, servers};

use crate::lab;

const ROWS: &str = include_str!("../golden/kv_room.csv");
const GIB: f64 = 1_073_741_824.0;

struct Row {
    lib: Arc<Library>,
    parallel: Parallel,
    tokens: Option<f64>,
    gib: Option<f64>,
    name: String,
}

fn rows() -> Vec<Row> {
    let read = |line: &str| {
        let c: Vec<&str> = line.split(',').collect();
        let n = |i: usize| c[i].parse::<f64>().ok();
        let parallel = Parallel { tp: c[2].parse().unwrap(), dp: c[3].parse().unwrap(), ..Parallel::default() };
        let serving = Serving { memory_fraction: n(6), ..Serving::default() };
        let quant = Quant { kv: (c[7] == "bfloat16").then_some(Dtype::Bf16), ..Quant::default() };
        let (model, cluster) = (lab::model(c[0]), lab::cluster(c[1], parallel.gpus().max(8)));
        let a = Assumptions::physical();
        let lib = Library::new(lab::db().clone(), &model, &cluster, c[4].of(), &quant, &serving, &a).unwrap();
        Row { lib: Arc::new(lib), parallel, tokens: n(8), gib: n(9), name: line.into() }
    };
    ROWS.lines().skip(1).map(read).collect()
}

/// KV room within 8 % of what the server printed; one that did not start has none.
#[test]
fn kv_room_is_what_servers_print() {
    let w = Workload::fixed("w", 0.0, 8192.0, 1024.0);
    let mut missed = Vec::new();
    for r in rows() {
        let s = lab::worker(&r.lib, r.parallel, &w);
        let m: Memory = s.memory()[0];
        let (tokens, _) = s.kv_tokens(0.0, 9216.0);
        let gib = m.free(0.0) / GIB;
        let items: Vec<String> =
            m.items(0.0, 0.0).iter().map(|i| format!("{} {:.2}", i.item.name(), i.bytes / GIB)).collect();
        let off = match (r.tokens, r.gib) {
            (Some(0.0), _) => f64::from(u8::from(gib >= 0.0)),
            (Some(t), _) => tokens / t - 1.0,
            (None, Some(g)) => gib / g - 1.0,
            (None, None) => unreachable!(),
        };
        println!("{:+.1} % {tokens:.0} tokens, {gib:.2} GiB; {}: {}", 100.0 * off, items.join(", "), r.name);
        if off.abs() > 0.08 {
            missed.push(format!("{:+.3} {}", off, r.name));
        }
    }
    assert!(missed.is_empty(), "{}", missed.join("\n"));
}

fn room(system: &str, framework: impl Server, parallel: Parallel, serving: &Serving) -> Memory {
    let (model, cluster) = (lab::model("Qwen/Qwen3-30B-A3B"), lab::cluster(system, 16));
    let lib = lab::library_serving(&model, &cluster, framework, &Assumptions::physical(), serving);
    lab::worker(&lib, parallel, &lab::chat()).memory()[0]
}

fn item(m: &Memory, name: &str) -> f64 {
    m.items(0.0, 0.0).iter().find(|i| i.item.name() == name).unwrap().bytes
}

/// Each framework's law, written out.
#[test]
fn a_fraction_means_what_its_framework_means() {
    let one = Parallel { tp: 2, ..Parallel::default() };
    for fraction in [0.5, 0.8, 0.95] {
        let serving = Serving { memory_fraction: Some(fraction), ..Serving::default() };
        for &framework in Framework::ALL {
            let m = room("h200_sxm", framework, one, &serving);
            let context = 0.53 * GIB;
            let taken = m.weights + item(&m, "activations") + m.buffers;
            let expected = match framework {
                Framework::Vllm => fraction * m.capacity - taken - m.graphs,
                Framework::Sglang => fraction * (m.capacity - context - m.buffers) - m.weights,
                _ => fraction * (m.capacity - context - taken),
            };
            lab::near(m.free(0.0), expected, 1e-9, &format!("{framework} at {fraction}"));
            lab::near(m.free(0.0) + m.bytes(0.0, 0.0) + m.outside(0.0), m.capacity, 1e-12, framework.name());
        }
    }
}

/// Naming the default is not naming another version.
#[test]
fn the_default_fraction_by_hand_is_the_default() {
    let mut judged = 0;
    for &framework in Framework::ALL {
        let Some(fraction) = servers::newest(framework).unwrap().fraction else { continue };
        for system in ["h100_sxm", "h200_sxm", "b200_sxm"] {
            for p in [Parallel::default(), Parallel { tp: 8, ..Parallel::default() }] {
                let by_hand = Serving { memory_fraction: Some(fraction), ..Serving::default() };
                let [a, b] = [by_hand, Serving::default()].map(|s| room(system, framework, p, &s));
                assert_eq!(
                    (a.free(0.0), a.graphs, a.buffers),
                    (b.free(0.0), b.graphs, b.buffers),
                    "{framework} {system}"
                );
                judged += 1;
            }
        }
    }
    assert_eq!(judged, 12, "vLLM and TensorRT-LLM; SGLang's is a formula");
}

/// All of a device can never be had, and nothing is charged that a layout does not use.
#[test]
fn what_is_charged_is_what_is_used() {
    let (one, eight) = (Parallel::default(), Parallel { tp: 8, ..Parallel::default() });
    for &framework in Framework::ALL {
        let [alone, group] = [one, eight].map(|p| room("b200_sxm", framework, p, &Serving::default()));
        assert!(alone.buffers < 0.2 * GIB && group.buffers > 0.9 * GIB, "{framework}");
        let all = Serving { memory_fraction: Some(1.0), ..Serving::default() };
        let m = room("b200_sxm", framework, one, &all);
        assert!(m.free(0.0) < m.capacity - m.weights && m.free(0.0) > alone.free(0.0), "{framework}");
    }
    // Memory of a device that runs no CUDA is all for weights and activations.
    let (model, mut cluster) = (lab::model("Qwen/Qwen3-30B-A3B"), lab::cluster("b200_sxm", 16));
    (cluster.device.name, cluster.device.hbm_bytes) = ("sram".into(), 0.5 * GIB);
    let lib = lab::library(&model, &cluster, "vllm", &Assumptions::physical());
    let m = lab::worker(&lib, eight, &lab::chat()).memory()[0];
    assert_eq!((m.buffers, m.graphs, m.outside(0.0)), (0.0, 0.0, 0.0));
    assert_eq!(m.capacity, 0.5 * GIB);
}

/// A device a millionth larger holds about a millionth more.
#[test]
fn room_is_continuous_in_the_device() {
    let p = Parallel { tp: 4, ..Parallel::default() };
    for &framework in Framework::ALL {
        let of = |by: f64| {
            let (model, mut cluster) = (lab::model("Qwen/Qwen3-30B-A3B"), lab::cluster("h100_sxm", 8));
            cluster.device.hbm_bytes *= by;
            let lib = lab::library(&model, &cluster, framework, &Assumptions::physical());
            lab::worker(&lib, p, &lab::chat()).kv_tokens(0.0, 4096.0).0
        };
        let (a, b) = (of(1.0), of(1.0 + 1e-6));
        assert!(b >= a && b / a - 1.0 < 1e-4, "{framework}: {a} {b}");
    }
}

/// Formats a server takes when nobody names any; the user's choice wins.
#[test]
fn formats_are_those_of_servers() {
    let of = |model: &str, system: &str, framework: &str, quant: &Quant| {
        let (m, c) = (lab::model(model), lab::cluster(system, 8));
        defaults::library(lab::db(), &m, &c, framework.of(), quant, &Serving::default(), &Assumptions::physical())
            .unwrap()
    };
    let none = Quant::default();
    let (oss, r1, v32) = ("openai/gpt-oss-120b", "deepseek-ai/DeepSeek-R1", "deepseek-ai/DeepSeek-V3.2");
    for (system, framework, expected) in [
        ("gb200", "trtllm", Dtype::W4a8Mxfp4Mxfp8),
        ("b300_sxm", "sglang", Dtype::W4a8Mxfp4Mxfp8),
        ("b200_sxm", "vllm", Dtype::W4a16Mxfp4),
        ("h200_sxm", "trtllm", Dtype::W4a16Mxfp4),
    ] {
        assert_eq!(of(oss, system, framework, &none).formats.moe, expected, "{system} {framework}");
    }
    let asked = Quant { moe: Some(Dtype::W4a16Mxfp4), ..none };
    let lib = of(oss, "gb200", "trtllm", &asked);
    assert_eq!(lib.formats.moe, Dtype::W4a16Mxfp4);
    assert!(defaults::provenance(&lib)["moe"].contains("checkpoint"));
    assert!(defaults::provenance(&of(oss, "gb200", "trtllm", &none))["moe"].contains("trtllm: "));
    for (model, system, framework, bytes) in [
        (r1, "h200_sxm", "sglang", 70_272.0),
        (r1, "b200_sxm", "vllm", 70_272.0),
        (r1, "b200_sxm", "trtllm", 35_136.0),
        ("moonshotai/Kimi-K2-Instruct", "h200_sxm", "vllm", 70_272.0),
        ("nvidia/Kimi-K2.5-NVFP4", "b200_sxm", "vllm", 35_136.0),
        (v32, "h200_sxm", "vllm", 61.0 * 788.0),
        (v32, "h200_sxm", "sglang", 61.0 * 1284.0),
        (v32, "b200_sxm", "sglang", 61.0 * 788.0),
        (v32, "b200_sxm", "trtllm", 61.0 * 788.0),
    ] {
        let lib = of(model, system, framework, &none);
        assert_eq!(lib.model.kv_bytes_per_token(lib.formats.kv), bytes, "{model} {system} {framework}");
    }
    let fp8 = Quant { kv: Some(Dtype::Fp8), ..none };
    assert_eq!(of(r1, "h200_sxm", "sglang", &fp8).formats.kv, Dtype::Fp8);
}

/// gpt-oss-120b on GB200 runs as it is run there: 5.5 ms, not the 14.7 of BF16 activations.
#[test]
fn gpt_oss_on_blackwell_is_as_fast_as_it_runs() {
    let (m, c) = (lab::model("openai/gpt-oss-120b"), lab::cluster("gb200", 8));
    let (quant, serving, a) = (Quant::default(), Serving::default(), Assumptions::physical());
    let tp4 = Parallel { tp: 4, moe_tp: 4, ..Parallel::default() };
    let plan =
        Plan::Pd(PdPlan { prefill: lab::workers(1, tp4, None, None), decode: lab::workers(1, tp4, Some(128), None) });
    let w = Workload::fixed("w", 0.0, 7373.0, 1024.0);
    let tpot = |quant: &Quant| {
        let lib = defaults::library(lab::db(), &m, &c, Framework::Trtllm, quant, &serving, &a).unwrap();
        Engine::new(&lib, &w, &plan).unwrap().point.tpot_s * 1e3
    };
    let by_hand = tpot(&Quant { moe: Some(Dtype::W4a8Mxfp4Mxfp8), ..quant });
    assert_eq!(tpot(&quant), by_hand);
    assert!((5.0..6.0).contains(&by_hand), "{by_hand}");
    assert!(tpot(&Quant { moe: Some(Dtype::W4a16Mxfp4), ..quant }) > 2.0 * by_hand);
}

/// A server that does not start is an error that says what is short and by how much; its KV room is none.
#[test]
fn a_plan_that_does_not_fit_says_what_is_short() {
    let (m, c) = (lab::model("openai/gpt-oss-120b"), lab::cluster("h100_sxm", 1));
    let plan = Plan::Aggregated(Aggregated { parallel: Parallel::default(), batch: Some(1), ..Default::default() });
    let w = Workload::fixed("w", 0.0, 1024.0, 256.0);
    let engine = |fraction: f64| {
        let serving = Serving { memory_fraction: Some(fraction), ..Serving::default() };
        let lib = lab::library_serving(&m, &c, "vllm", &Assumptions::physical(), &serving);
        Engine::new(&lib, &w, &plan).unwrap()
    };
    let short = engine(0.9);
    let Err(Error::Infeasible { reason, need, have }) = short.must_stand() else { panic!("it starts") };
    assert_eq!(reason, "memory:worker");
    assert!(need.contains("GiB more") && need.contains("weights 65.9"), "{need}");
    assert!(have.contains("memory_fraction"), "{have}");
    assert_eq!((short.kv_tokens(), short.max_sequences()), (0.0, 0.0));
    let fits = engine(0.95);
    fits.must_stand().unwrap();
    assert!(fits.kv_tokens() > 20_000.0 && fits.max_sequences() >= 1.0);
}

/// `max_sequences` is the batch that fits, over ranks and replicas.
#[test]
fn the_sequences_that_fit_are_the_largest_batch() {
    let lib = lab::lib_of("Qwen/Qwen3-30B-A3B", "b200_sxm", "sglang");
    let w = Workload::fixed("w", 0.0, 30_000.0, 2_000.0);
    let plan = |batch| {
        let parallel = Parallel { dp: 4, ..Parallel::default() };
        let a =
            Aggregated { parallel, batch: Some(batch), chunk_tokens: Some(4096), replicas: 2, ..Default::default() };
        Engine::new(&lib, &w, &Plan::Aggregated(a)).unwrap()
    };
    let most = plan(1).max_sequences() / 8.0;
    assert!(most.fract() == 0.0 && most >= 1.0, "{most}");
    assert!(plan(most as u32).point.stands() && !plan(most as u32 + 1).point.stands(), "{most}");
    let tokens = plan(1).kv_tokens();
    assert!((most * 32_000.0..(most + 1.0) * 32_000.0).contains(&tokens), "{tokens} for {most}");
}

#[test]
fn every_entry_has_a_source_and_bad_fractions_are_refused() {
    let data = servers::servers();
    for &framework in Framework::ALL {
        assert!(data.frameworks[&framework].iter().all(|s| s.source.len() > 20), "{framework}");
    }
    assert!(data.formats.iter().all(|r| r.source.len() > 20) && data.devices.iter().all(|d| d.source.len() > 10));
    for fraction in [0.0, -0.1, 1.01, 92.0, f64::NAN] {
        let problems = Serving { memory_fraction: Some(fraction), ..Serving::default() }.check();
        assert!(problems.to_string().contains("memory_fraction"), "{fraction}");
    }
    let serving = Serving { memory_fraction: Some(0.9), ..Serving::default() };
    let (m, c) = (lab::model("Qwen/Qwen3-30B-A3B"), lab::cluster("b200_sxm", 8));
    let lib = lab::library_serving(&m, &c, "trtllm", &Assumptions::paper(), &serving);
    let plan = Plan::Aggregated(Aggregated { parallel: Parallel::default(), ..Default::default() });
    let refused = Engine::new(&lib, &lab::chat(), &plan).err().unwrap().to_string();
    assert!(refused.contains("serving.memory_fraction"), "{refused}");
}
