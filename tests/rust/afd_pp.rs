//! Pipeline parallelism inside an AFD unit: stage times, what is in flight, memory, limits and refusals.

use std::sync::Arc;

use disagg::cost::{Batch, Library, Op};
use disagg::network::Tier;
use disagg::serving::phase::Site;
use disagg::serving::pipeline::{Rows, Stages, step_time};
use disagg::serving::step_engine::{EngineKind, Unit};
use disagg::serving::{Engine, StepEngine, pd};
use disagg::spec::plan::{PipelineMode, stage_layers};
use disagg::spec::{AfdPlan, Assumptions, PdPlan, Plan, Slot};
use proptest::prelude::*;

use crate::lab::{self, afd_plan, near, pool};

const QWEN: &str = "Qwen/Qwen3-235B-A22B";

fn staged(pp: u32, m: u32) -> AfdPlan {
    AfdPlan { pp, ..afd_plan(pool(4, 1), pool(12, 1), m) }
}

fn afd(s: &StepEngine) -> &Unit {
    let EngineKind::Afd(u) = &s.kind else { panic!("an AFD unit") };
    u
}

fn stage_times(s: &disagg::cost::LayerStages) -> Stages {
    let [a, x, f, y] = s.seconds(None);
    Stages::new(a, x, f, y)
}

proptest! {
    /// Every layer stands in one stage, in order, and no stage has two more than another.
    #[test]
    fn stages_share_the_layers(layers in 1u32..200, pp in 1u32..40) {
        prop_assume!(pp <= layers);
        let stages: Vec<_> = stage_layers(layers, pp).collect();
        prop_assert_eq!(stages.len(), pp as usize);
        prop_assert_eq!((stages[0].start, stages[pp as usize - 1].end), (0, layers));
        prop_assert!(stages.windows(2).all(|w| w[0].end == w[1].start && w[0].len() >= w[1].len()));
        prop_assert!(stages.iter().all(|s| s.len() as u32 == layers.div_ceil(pp) || s.len() as u32 == layers / pp));
    }
}

#[test]
fn a_stage_of_a_model_is_a_model_of_as_many_layers_and_a_hop() {
    let (lib, w) = (lab::lib(QWEN, "b200_sxm", 64, "trtllm"), lab::chat());
    let mut half = lab::model(QWEN);
    half.layers = 47;
    let half = lab::library(&half, &lab::cluster("b200_sxm", 64), "trtllm", &Assumptions::physical());
    for (m, pipeline) in [(1, PipelineMode::Overlapped), (3, PipelineMode::Overlapped), (2, PipelineMode::Alone)] {
        let of = |lib: &Arc<Library>, pp| lab::unit(lib, &AfdPlan { pipeline, ..staged(pp, m) }, &w);
        let (one, two) = (of(&half, 1), of(&lib, 2));
        let part = Batch::decode(48.0 / f64::from(m), 3000.0, 1.0);
        let hop = afd(&two).stage_hop(&part).seconds;
        assert!(hop > 0.0);
        near(two.decode(48.0, 3000.0).seconds, 2.0 * (one.decode(48.0, 3000.0).seconds + hop), 1e-12, "two stages");
        // The same TPOT as one stage, but for the hops and the head that every stage waits for; steps alone fill the
        // pipeline once a stage.
        let (whole, split) = (of(&lib, 1).decode(48.0, 3000.0).seconds, two.decode(48.0, 3000.0).seconds);
        let stages = afd(&one).unit.stages(&part, 0).seconds(None);
        let ends = f64::from(m) * afd(&one).unit.ends(&part).seconds;
        let fill = if pipeline == PipelineMode::Alone { stages.iter().sum::<f64>() } else { 0.0 };
        let most = 2.0 * hop + ends + f64::from(m) * fill;
        assert!(split >= whole && split <= whole + most, "{split} {whole} {most}");
    }
}

#[test]
fn one_stage_is_today() {
    let (lib, w) = (lab::v32(), lab::chat());
    let s = lab::unit(&lib, &staged(1, 3), &w);
    let u = afd(&s);
    // The schedule of the rows themselves, to the bit.
    let b = Batch::decode(48.0, 4000.0, 1.0);
    let parts = u.parts(&b);
    let rows = u.with_rows(&parts, |rows, work| {
        assert_eq!(work, u.step(&b, true).work);
        step_time(rows, false, true)
    });
    assert_eq!(s.decode(48.0, 4000.0).seconds, rows);
    assert_eq!((s.gpus(), s.stages_in_flight(), s.kv_links()), (16, 1.0, 1));
}

#[test]
fn the_slowest_stage_counts_dense_layers_first_head_last() {
    // 61 layers in three stages: 3 dense + 18, 20, 20 + head.
    let (lib, w) = (lab::lib("deepseek-ai/DeepSeek-V3.2", "b200_sxm", 128, "trtllm"), lab::chat());
    let s = lab::unit(&lib, &staged(3, 2), &w);
    let u = afd(&s);
    let part = Batch::decode(24.0, 4000.0, 1.0);
    let (moe, dense) = (stage_times(&u.unit.stages(&part, 0)), stage_times(&u.unit.dense(&part, 0)));
    let ends = Stages::attention(u.unit.ends(&part).seconds);
    let (moe, dense, ends) = ([moe; 2], [dense; 2], [ends; 2]);
    let time = |rows: &[(u32, &[Stages])]| {
        let rows: Vec<Rows<'_>> = rows.iter().map(|(layers, stages)| Rows { layers: *layers, stages }).collect();
        step_time(&rows, false, true)
    };
    let slowest = time(&[(3, &dense), (18, &moe)]).max(time(&[(20, &moe)])).max(time(&[(20, &moe), (1, &ends)]));
    near(s.decode(48.0, 4000.0).seconds, 3.0 * (slowest + u.stage_hop(&part).seconds), 1e-12, "stage");
    // Drafts stand in the last stage too.
    let serving = disagg::spec::Serving { mtp: 1, acceptance: Some(0.7), ..disagg::spec::Serving::default() };
    let drafting = lab::library_serving(&lib.model, &lib.cluster, "trtllm", &Assumptions::physical(), &serving);
    let with = lab::unit(&drafting, &staged(3, 2), &w).decode(48.0, 4000.0).seconds;
    assert!(with > s.decode(48.0, 4000.0).seconds);
}

#[test]
fn stages_keep_a_batch_each_and_hold_their_share() {
    let (lib, w) = (lab::lib(QWEN, "b200_sxm", 128, "trtllm"), lab::chat());
    let (one, two) = (lab::unit(&lib, &staged(1, 2), &w), lab::unit(&lib, &staged(2, 2), &w));
    assert_eq!((two.gpus(), two.ranks(), two.stages_in_flight(), two.kv_links(), two.kv_gpus()), (32, 4.0, 2.0, 2, 8));
    for (a, b) in one.memory().iter().zip(two.memory()) {
        let share = b.weights / a.weights;
        assert!((0.5..0.6).contains(&share), "{share}: half the layers, and one end");
        // L/2 layers of two batches.
        assert_eq!(a.kv_per_sequence, b.kv_per_sequence);
    }
    near(one.memory()[1].weights, 2.0 * two.memory()[1].weights, 1e-12, "FFN pool");
    let load = disagg::serving::Load::of(&w);
    let (d1, d2) = (pd::decode_side(&one, &load, 32.0), pd::decode_side(&two, &load, 32.0));
    near(d2.rate * d2.step.seconds, 2.0 * d1.rate * d1.step.seconds, 1e-12, "two batches of a rank in flight");
    // Work: the same operators, and two hops of each micro-batch.
    let part = Batch::decode(16.0, 4000.0, 1.0);
    let s = lab::unit(&lib, &staged(2, 2), &w);
    let (b, hops) = (Batch::decode(32.0, 4000.0, 1.0), 4.0 * afd(&s).stage_hop(&part).seconds);
    near(two.step(&b).work.seconds, one.step(&b).work.seconds + hops, 1e-9, "work");
}

#[test]
fn a_prefill_round_fills_the_pipeline_once() {
    let (lib, w) = (lab::lib(QWEN, "b200_sxm", 64, "trtllm"), lab::chat());
    for (pp, chunk) in [(2, 128.0), (4, 128.0), (2, 64.0)] {
        let s = lab::unit(&lib, &staged(pp, 2), &w);
        let p = s.prefill(1.0, 512.0, 4096.0, chunk);
        // 512 tokens in waves of two chunks.
        let waves = 512.0 / chunk / 2.0;
        let bubble = (f64::from(pp) - 1.0) / (waves + f64::from(pp) - 1.0);
        let filled = AfdPlan { pipeline: PipelineMode::Alone, ..staged(pp, 2) };
        let alone = lab::unit(&lib, &filled, &w).prefill(1.0, 512.0, 4096.0, chunk);
        near(alone.period_s / alone.latency_s, 1.0 - bubble, 0.03, "waves are alike but for their past");
        assert!(p.period_s <= alone.period_s * (1.0 + 1e-12) && p.latency_s == alone.latency_s);
        assert_eq!((p.requests, p.chunks), (4.0, 512.0 / chunk));
    }
}

#[test]
fn every_level_takes_stages() {
    let (lib, w) = (lab::lib("deepseek-ai/DeepSeek-V3.2", "b200_sxm", 128, "trtllm"), lab::chat());
    let unit = |pp| AfdPlan { batch: Some(16), chunk_tokens: Some(600), ..staged(pp, 2) };
    let both = AfdPlan { attention_groups: 2, units: 2, ..unit(2) };
    let slot = Slot::Afd(AfdPlan { batch: Some(2), chunk_tokens: Some(256), ..unit(2) });
    for plan in [
        Plan::Afd(unit(2)),
        Plan::Afd(both),
        Plan::Pd(PdPlan { prefill: slot.clone(), decode: Slot::Afd(unit(3)) }),
        Plan::Pd(PdPlan { prefill: slot, decode: lab::workers(2, lab::split(1, 8, 1), Some(16), None) }),
    ] {
        let engine = Engine::new(&lib, &w, &plan).unwrap();
        assert_eq!(engine.gpus(), plan.gpus());
        let e = engine.estimate().unwrap();
        assert!(e.scalars.feasible && e.scalars.tpot_ms > 0.0 && e.scalars.requests_per_s > 0.0);
        assert!(e.tables.pipeline.iter().all(|r| r.utilization > 0.0 && r.utilization <= 1.0));
        assert!(
            e.tables
                .breakdown
                .iter()
                .any(|r| r.op == Op::PipelineHop && r.pool == Site::Network && r.tier == Some(Tier::ScaleOut))
        );
        assert!(!e.tables.timeline.is_empty());
    }
    // What a plan costs: another device for a pool stands in every stage.
    let device = disagg::spec::Device { power_w: 10.0, ..lib.cluster.device.clone() };
    let other = AfdPlan { ffn: disagg::spec::PoolPlan { device: Some(device), ..pool(12, 1) }, ..unit(2) };
    let (_, watts) = disagg::serving::bill::bill(&Plan::Afd(other), &lib.cluster);
    let own = lib.cluster.device.power_w;
    near(watts, 128.0 * own - 24.0 * (own - 10.0), 1e-12, "watts");
}

#[test]
fn what_cannot_be_is_refused_by_name() {
    let (lib, w) = (lab::lib("deepseek-ai/DeepSeek-V3.2", "b200_sxm", 128, "trtllm"), lab::chat());
    let refused = |lib: &Arc<Library>, plan: AfdPlan| {
        Engine::new(lib, &w, &Plan::Afd(plan)).err().map_or(String::new(), |e| e.to_string())
    };
    let tiny = AfdPlan { pp: 62, ..afd_plan(pool(1, 1), pool(1, 1), 1) };
    let text = refused(&lib, tiny);
    assert!(text.contains("plan.pp") && text.contains("62 stages for 61 layers"), "{text}");
    let text = refused(&lib, staged(9, 1));
    assert!(text.contains("needs 144 GPUs"), "{text}");
    for profile in [Assumptions::paper(), Assumptions::aiconfigurator()] {
        let lib = lab::library(&lib.model, &lib.cluster, "trtllm", &profile);
        let text = refused(&lib, staged(2, 1));
        assert!(text.contains("plan.pp") && text.contains("pp=1, or pipeline_formula='schedule'"), "{text}");
    }
}
