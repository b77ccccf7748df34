//! Effects that decide who wins: pools of their own hardware, sides, overlap, drafts, the barrier.

use std::sync::Arc;

use disagg::cost::ffn::Experts;
use disagg::cost::worker::Worker;
use disagg::cost::{Batch, Detail, Item, Library, Op, overlap};
use disagg::serving::step_engine::EngineKind;
use disagg::serving::{Engine, Load, StepEngine, pd, step_engine};
use disagg::spec::plan::{Duplex, Side};
use disagg::spec::{AfdPlan, Assumptions, Device, ExpertLoad, Imbalance, Plan, Serving, Workload, catalog};
use proptest::prelude::*;

use crate::lab::{self, afd_plan, gap, pool, split, unit, worker};

const V32: &str = "deepseek-ai/DeepSeek-V3.2";

fn chat() -> Workload {
    Workload::fixed("chat", 4096.0, 512.0, 256.0)
}

fn serving(change: impl FnOnce(&mut Serving)) -> Serving {
    let mut s = Serving::default();
    change(&mut s);
    s
}

fn v32_with(s: &Serving) -> Arc<Library> {
    lab::library_serving(&lab::model(V32), &lab::cluster("b200_sxm", 32), "trtllm", &Assumptions::physical(), s)
}

fn estimate(lib: &Arc<Library>, plan: &AfdPlan) -> disagg::serving::Estimate {
    Engine::new(lib, &chat(), &Plan::Afd(plan.clone())).unwrap().estimate().unwrap()
}

// --- hardware of a pool -----------------------------------------------------------------------------------

#[test]
fn the_clusters_own_device_changes_nothing() {
    let lib = lab::v32();
    let plain = afd_plan(pool(8, 1), pool(24, 1), 3);
    let mut named = plain.clone();
    named.ffn.device = Some(lib.cluster.device.clone());
    let (a, b) = (unit(&lib, &plain, &chat()), unit(&lib, &named, &chat()));
    assert_eq!(a.decode(30.0, 4000.0), b.decode(30.0, 4000.0));
}

#[test]
fn a_measured_device_brings_its_own_tables_and_prices() {
    let lib = lab::v32();
    let (h200, _) = catalog::system("h200_sxm").unwrap();
    let mut plan = afd_plan(pool(8, 1), pool(24, 1), 3);
    plan.batch = Some(32);
    let both = estimate(&lib, &plan);
    plan.attention.device = Some(h200.clone());
    let mixed = estimate(&lib, &plan);
    let stage = |e: &disagg::serving::Estimate, name: &str| {
        e.tables.pipeline.iter().find(|r| r.phase.name() == "decode" && r.stage.name() == name).unwrap().ms
    };
    assert!(
        gap(stage(&mixed, "attention"), stage(&both, "attention")) > 0.01,
        "another device attends at another pace"
    );
    assert!(gap(stage(&mixed, "ffn"), stage(&both, "ffn")) < 0.01, "the other pool does not");
    // TRT-LLM has DSA rows on Hopper: known as well as on Blackwell, not by roofline.
    assert!(mixed.scalars.compute_evidence["roofline"] < 0.3, "{:?}", mixed.scalars.compute_evidence);
    let device = &lib.cluster.device;
    let watts = 8.0 * h200.power_w + 24.0 * device.power_w;
    assert!(gap(mixed.scalars.watts, watts) < 1e-12);
    let usd = 8.0 * h200.usd_per_hour + 24.0 * device.usd_per_hour;
    assert!(gap(mixed.scalars.usd_per_mtok, usd / 3600.0 / mixed.scalars.tokens_per_s * 1e6) < 1e-12);
    let drawn = mixed.scalars.watts_drawn;
    assert!(0.4 * watts < drawn && drawn < watts, "{drawn} of {watts}");
    assert!(gap(mixed.scalars.joules_per_token, drawn / mixed.scalars.tokens_per_s) < 1e-12);
    // Each pool is held against its own memory.
    let capacity = |pool: &str| {
        mixed.tables.memory.iter().find(|m| m.pool.name() == pool && m.item == Item::Capacity).unwrap().gib
    };
    assert!(gap(capacity("attention") * (1u64 << 30) as f64, h200.reported_bytes()) < 1e-12);
    assert!(gap(capacity("ffn") * (1u64 << 30) as f64, device.reported_bytes()) < 1e-12);
}

/// A device that nobody measured: twice everything is half the compute time at most, and says so.
#[test]
fn a_what_if_device_scales_by_roofline() {
    let lib = lab::v32();
    let own = lib.cluster.device.clone();
    let double = Device {
        name: "double".into(),
        bf16_flops: 2.0 * own.bf16_flops,
        fp8_flops: 2.0 * own.fp8_flops,
        fp4_flops: 2.0 * own.fp4_flops,
        hbm_bytes_per_s: 2.0 * own.hbm_bytes_per_s,
        launch_s: 0.5 * own.launch_s,
        ..own.clone()
    };
    let twice = lib.on(Some(&double)).unwrap();
    let w = chat();
    let (slow, fast) = (worker(&lib, split(1, 8, 1), &w), worker(&twice, split(1, 8, 1), &w));
    for b in [Batch::decode(64.0, 4000.0, 1.0), Batch::prefill(1.0, 2048.0, 4096.0)] {
        let compute = |s: &StepEngine| s.step(&b).work.compute.iter().sum::<f64>();
        // Not to the last digit: less of the shared expert hides behind experts that are faster.
        assert!(gap(compute(&fast), 0.5 * compute(&slow)) < 0.03, "{} {}", compute(&fast), compute(&slow));
        let t = fast.step(&b).work;
        let [measured, interpolated, scaled, ..] = t.compute;
        assert!(measured + interpolated == 0.0, "nobody measured it");
        // The rest lies beyond the tables of the device it stands on.
        assert!(scaled > 0.3 * compute(&fast), "scaled from what was measured: {:?}", t.compute);
    }
    // A dearer device of the same speed keeps its tables.
    let dear = Device { name: "dear".into(), usd_per_hour: 99.0, ..own };
    let same = worker(&lib.on(Some(&dear)).unwrap(), split(1, 8, 1), &w);
    assert_eq!(same.decode(64.0, 4000.0), slow.decode(64.0, 4000.0));
}

// --- sides --------------------------------------------------------------------------------------------------

/// Weights of the pools do not depend on who holds what, save the copies that data parallelism needs.
#[test]
fn sides_move_work_and_weights() {
    let lib = lab::v32();
    let base = afd_plan(pool(8, 1), pool(24, 1), 2);
    let (w, b) = (chat(), Batch::decode(16.0, 4000.0, 1.0));
    let plain = unit(&lib, &base, &w);
    for change in [0, 1, 2] {
        let mut plan = base.clone();
        match change {
            0 => plan.router = Side::Ffn,
            1 => plan.dense = Side::Ffn,
            _ => plan.shared_expert = Side::Attention,
        }
        let moved = unit(&lib, &plan, &w);
        let weights = |s: &StepEngine| [s.memory()[0].weights, s.memory()[1].weights];
        let ([a0, f0], [a1, f1]) = (weights(&plain), weights(&moved));
        if change < 2 {
            assert!(a1 < a0 && gap(a0 - a1, f1 - f0) < 1e-9, "{change}: {a0} {a1} {f0} {f1}");
        } else {
            assert!(a1 > a0 && gap(a1 - a0, f0 - f1) < 1e-9, "{change}: {a0} {a1} {f0} {f1}");
        }
        let (t, u) = (plain.step(&b), moved.step(&b));
        assert!(u.seconds.is_finite() && u.seconds > 0.5 * t.seconds && u.seconds < 3.0 * t.seconds, "{change}");
        assert!(u.seconds != t.seconds, "{change} moves nothing");
    }
}

#[test]
fn an_ffn_side_router_sends_one_copy() {
    let lib = lab::v32();
    let mut plan = afd_plan(pool(8, 1), pool(24, 1), 2);
    let hop = |plan: &AfdPlan, stage: &str| {
        let mut p = plan.clone();
        p.batch = Some(512);
        let e = estimate(&lib, &p);
        e.tables.pipeline.iter().find(|r| r.phase.name() == "decode" && r.stage.name() == stage).map(|r| r.ms)
    };
    let copies = hop(&plan, "a2f").unwrap();
    plan.router = Side::Ffn;
    let one = hop(&plan, "a2f").unwrap();
    assert!(one < 0.6 * copies, "{one} against {copies}: one BF16 copy for seven FP8 ones");
}

// --- overlap ------------------------------------------------------------------------------------------------

#[test]
fn halves_lose_where_weights_bind_and_win_where_wires_do() {
    // The deployment ran EPLB: its experts are balanced.
    let off = serving(|s| s.imbalance = Some(Imbalance::Name(ExpertLoad::Balanced)));
    let on = Serving { two_batch_overlap: Some(true), ..off.clone() };
    let of = |s: &Serving| {
        let lib = lab::library_serving(
            &lab::model("deepseek-ai/DeepSeek-V3"),
            &lab::cluster("h100_sxm", 72),
            "sglang",
            &Assumptions::physical(),
            s,
        );
        worker(&lib, split(1, 72, 1), &Workload::fixed("decode", 0.0, 2000.0, 100.0))
    };
    let (whole, halves) = (of(&off), of(&on));
    let gain = |b: f64| whole.decode(b, 2000.0).seconds / halves.decode(b, 2000.0).seconds - 1.0;
    // Published (SGLang, 96 H100): +25 % at 256, -27 % at 32, where a server runs the batch whole. Nothing here is fitted.
    assert!(gain(8.0) == 0.0 && gain(32.0) == 0.0, "{} {}", gain(8.0), gain(32.0));
    assert!(gain(256.0) > 0.1 && gain(256.0) < 0.4, "{}", gain(256.0));
    let prompt = Batch::prefill(4.0, 4096.0, 0.0);
    let prefill = whole.step(&prompt).seconds / halves.step(&prompt).seconds - 1.0;
    assert!(prefill > 0.15 && prefill < 0.5, "{prefill}: published +27 to +35 %");
    // Operator time never shrinks: only the clock does.
    let (t, u) = (whole.decode(256.0, 2000.0), halves.decode(256.0, 2000.0));
    assert!(u.work.seconds > t.work.seconds && u.seconds < u.work.seconds);
}

/// What one kernel saves over separate ones counts for workers as for AFD units: given to units alone it put them 8 % ahead.
#[test]
fn one_kernel_saves_workers_what_it_saves_units() {
    let fused = v32_with(&serving(|s| s.fused_dispatch = true));
    let unit = unit(&fused, &afd_plan(pool(16, 1), pool(16, 1), 3), &chat());
    let EngineKind::Afd(u) = &unit.kind else { panic!() };
    let experts = Experts::new(&fused, 16, 1, true).unwrap().unwrap();
    let between = experts.between(&fused);
    assert!(between > 0.0 && u.unit.stages(&Batch::decode(32.0, 4000.0, 1.0), 0).between == between, "{between}");
    let slowed = overlap::fused_slowdown(&fused);
    let mut judged = 0;
    for n in [8.0, 32.0, 128.0] {
        let mut detail = Detail::default();
        let worker = Worker::new(&fused, split(1, 16, 1)).unwrap();
        let batch = Batch::decode(n, 4000.0, 1.0);
        worker.price(&batch, &mut detail);
        if !worker.lane(&batch).is_some_and(|l| l.name().contains("fused dispatch")) {
            continue;
        }
        let entry = detail.entries.iter().find(|e| e.op == Op::Experts).unwrap();
        let priced = entry.seconds / entry.count;
        let alone = experts.dispatched(16.0 * n, true).seconds;
        let own = overlap::beside_exchange(alone, experts.reads(16.0 * n), between, slowed);
        // Or the bytes that it moves take longer.
        assert!(priced >= own * (1.0 - 1e-12), "{n}: {priced} {own}");
        judged += usize::from(gap(priced, own) < 1e-9);
    }
    assert!(judged > 0);
}

#[test]
fn a_fused_dispatch_hides_all_but_the_longest_of_the_three() {
    let (plain, fused) = (lab::v32(), v32_with(&serving(|s| s.fused_dispatch = true)));
    let plan = afd_plan(pool(16, 1), pool(16, 1), 3);
    let (a, b) = (unit(&plain, &plan, &chat()), unit(&fused, &plan, &chat()));
    let disagg::serving::step_engine::EngineKind::Afd(u) = &b.kind else { panic!() };
    for n in [4.0, 32.0, 128.0] {
        let batch = Batch::decode(n, 4000.0, 1.0);
        let s = u.unit.stages(&batch, 0);
        let [_, x, f, y] = s.seconds(Some(148.0 / 124.0));
        // What is left of the two ways is their start-up, as at no tokens at all.
        let empty = u.unit.stages(&Batch::decode(0.0, 4000.0, 1.0), 0);
        assert!(gap(x, empty.a2f.seconds) < 1e-12 && gap(y, empty.f2a.seconds) < 1e-12 && x > 0.0 && y > 0.0);
        // By hand: 16 of 256 experts of three matrices in FP8 (a scale for 128 x 128) on every GPU, all of them hit by 16 x 32 tokens or more.
        let reads = 16.0 * 3.0 * 7168.0 * 2048.0 * (1.0 + 4.0 / 16384.0) / (0.8 * plain.cluster.device.hbm_bytes_per_s)
            * (1.0 - (1.0 - 8.0f64 / 256.0).powf(16.0 * n));
        assert!(gap(s.reads, reads) < 1e-9 && s.reads < s.ffn.seconds, "{} {reads}", s.reads);
        let alone = (s.ffn.seconds - s.between).max(reads);
        let own = reads + (alone - reads) * 148.0 / 124.0;
        let (out, home) = (s.a2f.seconds - x, s.f2a.seconds - y);
        assert!(out > 0.0 && home > 0.0 && gap(f, out.max(own).max(home)) < 1e-12);
        assert_eq!(a.step(&batch).work, b.step(&batch).work);
        assert!(b.step(&batch).seconds < a.step(&batch).seconds * 148.0 / 124.0);
    }
    let mut half = plan;
    half.duplex = Duplex::Half;
    let refused = Engine::new(&fused, &chat(), &Plan::Afd(half)).err().unwrap().to_string();
    assert!(refused.contains("plan.duplex"), "{refused}");
}

// --- drafts -------------------------------------------------------------------------------------------------

#[test]
fn drafts_cost_their_passes_on_every_level() {
    let with = |n: u32| {
        v32_with(&serving(|s| {
            s.mtp = n;
            s.acceptance = Some(f64::from(n) * 0.8);
        }))
    };
    let libs = [lab::v32(), with(1), with(3)];
    let plan = afd_plan(pool(8, 1), pool(24, 1), 2);
    for afd in [false, true] {
        let steps: Vec<f64> = libs
            .iter()
            .map(|lib| {
                let s = if afd { unit(lib, &plan, &chat()) } else { worker(lib, split(1, 8, 1), &chat()) };
                s.decode(16.0, 4000.0).seconds
            })
            .collect();
        // A pass is one layer of 61 with its logits; more tokens a step cost more too.
        assert!(steps[1] > steps[0] * (1.0 + 1.0 / 61.0), "{afd}: {steps:?}");
        assert!(steps[2] > steps[1] * (1.0 + 2.0 / 61.0), "{afd}: {steps:?}");
        assert!(steps[2] < 2.0 * steps[0], "{afd}: {steps:?}");
    }
    // One more layer of weights and of KV.
    let memory = |lib| worker(lib, split(1, 8, 1), &chat()).memory()[0];
    let (none, one) = (memory(&libs[0]), memory(&libs[1]));
    assert!(gap(one.kv_per_sequence / none.kv_per_sequence, 62.0 / 61.0) < 1e-12);
    assert!(one.weights > none.weights * (1.0 + 1.0 / 70.0) && one.weights < none.weights * 1.03);
}

#[test]
fn the_drafts_kv_is_shipped_too() {
    let with = |n: u32| {
        v32_with(&serving(|s| {
            s.mtp = n;
            s.acceptance = (n > 0).then_some(0.8);
        }))
    };
    let load = Load::of(&chat());
    let wire = |lib: &Arc<Library>| {
        let (p, d) = (worker(lib, split(1, 8, 1), &chat().prefill_part()), worker(lib, split(1, 32, 1), &chat()));
        (pd::wire_rate(&p, 1, &d, 1, &load), step_engine::kv_seconds(&p, &d, load.isl, 1.0, lib, false, 1.0))
    };
    let [(none, whole), (one, longer), (three, same)] = [0, 1, 3].map(|n| wire(&with(n)));
    // By hand: 512 new tokens of 62 layers, 656 B of latent and 132 B of indexer each, over 8 NICs at 96 % of 50 GB/s.
    let by_hand = 8.0 * 0.96 * 50e9 / (512.0 * 62.0 * (656.0 + 132.0));
    assert!(gap(one, by_hand) < 1e-9 && gap(none / one, 62.0 / 61.0) < 1e-12, "{one} {by_hand}");
    // One module, however often it is applied; a layer of it is as large as any other.
    assert!(three == one && same.0.seconds == longer.0.seconds);
    assert!(longer.0.seconds > whole.0.seconds && gap(longer.1.seconds, whole.1.seconds) < 1e-12);
}

// --- the barrier --------------------------------------------------------------------------------------------

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_slowest_rank_is_ahead_of_the_mean(isl in 16u32..4096, osl in 2u32..4096, batch in 1u32..256) {
        let w = Workload::fixed("w", 0.0, f64::from(isl), f64::from(osl));
        let load = Load::of(&w);
        let b = f64::from(batch);
        let at = |dp| worker(&lab::v32(), split(1, dp, 1), &w).slowest_context(b, load.context);
        prop_assert_eq!(at(1), load.context);
        prop_assert!(at(8) >= at(2) && at(2) > load.context);
        prop_assert!(at(8) <= w.peak_tokens().max(load.context));
        // Twice the sequences, less spread of their mean.
        let s = worker(&lab::v32(), split(1, 8, 1), &w);
        prop_assert!(s.slowest_context(2.0 * b, load.context) <= at(8));
        // An AFD micro-batch holds fewer sequences, so its slowest rank stands out more.
        let u = unit(&lab::v32(), &afd_plan(pool(8, 1), pool(8, 1), 4), &w);
        prop_assert!(u.slowest_context(b, load.context) >= at(8));
    }
}

/// Against draws: every rank's slots at random ages, the mean of the largest.
#[test]
fn the_barrier_against_draws() {
    let w = Workload::fixed("w", 0.0, 1000.0, 1000.0);
    let (ranks, batch) = (16, 32);
    let mut state = 3_u64;
    let mut uniform = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 11) as f64 / (1_u64 << 53) as f64
    };
    let draws = 4000;
    let sum: f64 = (0..draws)
        .map(|_| {
            (0..ranks)
                .map(|_| (0..batch).map(|_| 1000.0 + (uniform() * 1000.0).floor()).sum::<f64>() / f64::from(batch))
                .fold(0.0, f64::max)
        })
        .sum();
    let s = worker(&lab::v32(), split(1, 16, 1), &w);
    let predicted = s.slowest_context(f64::from(batch), w.theta());
    assert!(gap(predicted, sum / f64::from(draws)) < 2e-3, "{predicted} against {}", sum / f64::from(draws));
}

// --- balance ------------------------------------------------------------------------------------------------

#[test]
fn loads_lie_between_the_measured_rows() {
    let time = |s: Serving| {
        let w = worker(&v32_with(&s), split(1, 32, 1), &chat());
        w.step(&Batch::prefill(4.0, 2048.0, 0.0)).seconds
    };
    let named = |load| time(serving(|s| s.imbalance = Some(Imbalance::Name(load))));
    let exponent = |a: f64| time(serving(|s| s.imbalance = Some(Imbalance::Exponent(a))));
    let (even, own) = (named(ExpertLoad::Balanced), time(Serving::default()));
    assert!(even < own, "{even} {own}");
    // The exponent of a measured row is that row; a histogram of equal loads is the balanced one.
    assert!(gap(exponent(1.01), own) < 1e-9);
    let flat = time(serving(|s| s.imbalance = Some(Imbalance::Histogram(vec![3.0; 256]))));
    assert!(gap(flat, even) < 0.02, "{flat} {even}");
    assert!(exponent(0.5) < own && exponent(0.5) > even * 0.98);
    // Copies balance, and never below even.
    let eplb = |n| time(serving(|s| s.eplb_slots = n));
    assert!(eplb(32) < own && eplb(32) >= even * 0.98, "{even} {} {own}", eplb(32));
}

#[test]
fn redundant_copies_take_memory() {
    let weights = |n| worker(&v32_with(&serving(|s| s.eplb_slots = n)), split(1, 32, 1), &chat()).memory()[0].weights;
    let expert = lab::v32().model.expert_weight_bytes(&Default::default());
    assert!(gap(weights(32) - weights(0), 58.0 * expert) < 1e-6);
    let lib = v32_with(&serving(|s| s.imbalance = Some(Imbalance::Histogram(vec![1.0; 255]))));
    let text = Engine::new(&lib, &chat(), &Plan::Afd(afd_plan(pool(8, 1), pool(24, 1), 1))).err().unwrap().to_string();
    assert!(text.contains("serving.imbalance") && text.contains("255") && text.contains("256"), "{text}");
}

/// Pools placed by hand: packed ids price as no placement at all, pools in different racks pay for the NICs.
#[test]
fn placement_by_hand_moves_the_hops() {
    let model = lab::model("deepseek-ai/DeepSeek-V3.2");
    let cluster = lab::cluster("gb200", 144);
    let lib = lab::library(&model, &cluster, "sglang", &disagg::spec::Assumptions::physical());
    let workload = disagg::spec::catalog::workload("paper-chat").unwrap();
    let tpot = |placement: Option<(Vec<u32>, Vec<u32>)>| {
        let text = r#"{"kind":"afd","attention":{"gpus":16},"ffn":{"gpus":32},"microbatches":1,"batch":48,"chunk_tokens":560}"#;
        let mut plan: disagg::spec::AfdPlan = match disagg::spec::Plan::from_json(text).unwrap() {
            disagg::spec::Plan::Afd(a) => a,
            _ => unreachable!(),
        };
        plan.placement =
            placement.map(|(attention, ffn)| disagg::spec::Placement { attention, ffn, ..Default::default() });
        let engine = disagg::serving::Engine::new(&lib, &workload, &disagg::spec::Plan::Afd(plan)).unwrap();
        engine.point.tpot_s
    };
    let packed = tpot(None);
    assert_eq!(tpot(Some(((0..16).collect(), (16..48).collect()))), packed);
    assert!(tpot(Some(((0..16).collect(), (72..104).collect()))) > packed);
}
