//! Best against best: what the search finds, held against a much finer exhaustive grid.

use disagg::control::Control;
use disagg::search::fine_grid::{FineGrid, fine_chunks};
use disagg::search::{Layout, Question, explore, layouts};
use disagg::serving::pd::Several;
use disagg::serving::{Binding, Load, SteadyState, StepEngine, aggregated, choose, pd};
use disagg::spec::Framework;
use disagg::spec::{Case, Level, Slo, Workload};
use proptest::prelude::*;

use crate::lab;

fn question(gpus: u32, w: Workload, ttft_ms: f64, tpot_ms: f64, levels: &[&str]) -> Question {
    let slo = Slo { ttft_ms: Some(ttft_ms), tpot_ms: Some(tpot_ms), percentile: None };
    let mut q = Question::new(Case::new(lab::model(MODEL), lab::cluster(SYSTEM, gpus), w).on(FRAMEWORK), slo);
    q.levels = Level::parse(levels).unwrap();
    q
}

const MODEL: &str = "Qwen/Qwen3-30B-A3B";
const SYSTEM: &str = "h200_sxm";
const FRAMEWORK: Framework = Framework::Trtllm;

/// Every whole batch while they are few, then every third.
fn batches(most: f64) -> impl Iterator<Item = u32> {
    let most = most.min(4096.0) as u32;
    (1..=most.min(96)).chain((97..=most).step_by(3))
}

fn rate(p: &SteadyState, slo: &Slo) -> f64 {
    if p.stands() && p.binding_under(slo) == Binding::None { p.requests_per_s } else { 0.0 }
}

fn engine(q: &Question, layout: &Layout) -> StepEngine {
    let lib = lab::lib(MODEL, SYSTEM, q.case.cluster.gpus, FRAMEWORK);
    lab::layout(&lib, layout, &q.case.workload)
}

/// The slow twin of a mixed level.
fn mixed(q: &Question, layouts: &[Layout]) -> f64 {
    let load = Load::of(&q.case.workload);
    let mut best = 0.0_f64;
    for layout in layouts {
        let s = engine(q, layout);
        for b in batches(choose::most_sequences(&s, 1.0)).filter(|b| *b >= layout.microbatches()) {
            for c in fine_chunks(load.isl, load.osl, b, 1.0, 1) {
                let count = q.case.cluster.gpus / layout.gpus();
                best = best.max(rate(&aggregated::solve(&s, &load, f64::from(b), f64::from(c), count), &q.slo));
            }
        }
    }
    best
}

/// The slow twin of P/D on two GPUs: every prefill step beside every decode batch.
fn pairs(q: &Question) -> f64 {
    assert_eq!(q.case.cluster.gpus, 2);
    let load = Load::of(&q.case.workload);
    let s = engine(q, &Layout::Worker { parallel: lab::split(1, 1, 1), overlap: false });
    let decode: Vec<_> = batches(choose::most_sequences(&s, 1.0))
        .map(|b| pd::decode_side(&s, &load, f64::from(b)))
        .filter(|d| d.short.is_none())
        .collect();
    let mut best = 0.0_f64;
    for sequences in (1..=16).chain((20..=48).step_by(4)) {
        for pieces in 1..=32 {
            let side = pd::prefill_side(&s, &load, f64::from(sequences), (load.isl / f64::from(pieces)).ceil());
            for d in &decode {
                let p = pd::combine(Several::of(&s, &side, 1), Several::of(&s, d, 1), &load);
                best = best.max(rate(&p, &q.slo));
            }
        }
    }
    best
}

/// Share of the exhaustive rate that the search misses.
fn loss(q: &Question, level: &str, every: f64) -> f64 {
    let study = explore(lab::db(), q, &Control::new()).unwrap();
    let found =
        study.rows.iter().filter(|r| r.level.name() == level).map(|r| rate(&r.point, &q.slo)).fold(0.0, f64::max);
    let loss = 1.0 - found / every;
    println!("{level}, {:?}: {found:.4} of {every:.4} requests/s, loses {:.2} %", q.slo, loss * 100.0);
    assert!(every > 0.0, "nothing stands");
    loss
}

#[test]
fn levels_are_compared_best_against_best() {
    let mut worst = 0.0_f64;
    for (ttft, tpot) in [(2000.0, 30.0), (300.0, 12.0), (1e6, 1e6)] {
        let q = question(4, lab::chat(), ttft, tpot, &["aggregated"]);
        let lib = lab::lib(MODEL, SYSTEM, 4, FRAMEWORK);
        worst = worst.max(loss(&q, "aggregated", mixed(&q, &layouts::worker_layouts(&lib, 4, false))));
        let q = question(2, lab::chat(), ttft, tpot, &["aggregated+afd"]);
        let lib = lab::lib(MODEL, SYSTEM, 2, FRAMEWORK);
        worst = worst.max(loss(&q, "aggregated+afd", mixed(&q, &layouts::unit_layouts(&lib, 2))));
        let q = question(2, lab::chat(), ttft, tpot, &["pd"]);
        worst = worst.max(loss(&q, "pd", pairs(&q)));
    }
    assert!(worst <= 0.01, "{worst}");
}

proptest! {
    /// One table gives the chunks beside every batch.
    #[test]
    fn the_table_of_fine_chunks_is_their_definition(
        isl in prop_oneof![Just(1.0), 1.0..40_000.0f64, (1u32..9000).prop_map(f64::from)],
        osl in 1.0..3000.0f64,
        batch in 0u32..5000,
        mtp in 0u32..4,
        interval in prop_oneof![Just(1u32), 1..20u32],
    ) {
        let per_decode = 1.0 + f64::from(mtp);
        let grid = FineGrid::new(isl, osl, per_decode);
        let chunks: Vec<u32> = (0..grid.width(batch, interval)).map(|i| grid.chunk(batch, i)).collect();
        prop_assert_eq!(chunks, fine_chunks(isl, osl, batch, per_decode, interval));
    }
}
