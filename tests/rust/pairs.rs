//! Pairs near the best, found by bounds, against every pair of the two slots.

use disagg::control::Control;
use disagg::search::Objective;
use disagg::search::aim::Aim;
use disagg::search::leaders::Tiers;
use disagg::search::slots::{Front, PairMarks, Slots};
use disagg::search::{Row, Task, layouts};
use disagg::spec::{Level, Slo, Workload};

use crate::lab;

/// Holds `near` to be all that may lead of `every`, in their order; how many that is. None: nothing surely keeps the limits.
fn held(near: &[Row], every: &[Row], known: Tiers, aim: &Aim) -> Option<usize> {
    let tiers = known.and(Tiers::of(every, aim));
    let takes = |r: &&Row| r.point.stands() && tiers.takes(r.point.requests_per_s, r.point.excess(&aim.slo));
    let wanted: Vec<&Row> = every.iter().filter(takes).collect();
    tiers.is_sure().then(|| {
        assert!(near.iter().eq(wanted.iter().copied()), "{:?}: {} of {}", aim.slo, near.len(), wanted.len());
        wanted.len()
    })
}

#[test]
fn bounds_pass_over_nothing_that_may_lead() {
    let (mut found, mut fronts, mut priced, mut empty) = (0, 0, 0, 0);
    for (model, system, gpus, lengths) in [
        ("Qwen/Qwen3-30B-A3B", "h200_sxm", 7, (0.0, 1500.0, 300.0)),
        ("nvidia/DeepSeek-V3.2-NVFP4", "b200_sxm", 12, (4096.0, 512.0, 256.0)),
        ("deepseek-ai/DeepSeek-V3.2", "gb200", 18, (0.0, 6000.0, 40.0)),
    ] {
        let lib = lab::lib(model, system, gpus, "trtllm");
        let w = Workload::fixed("pairs", lengths.0, lengths.1, lengths.2);
        let control = Control::new();
        let task = Task::new(&lib, &w, gpus, 0, &control, true);
        let workers = layouts::worker_layouts(&lib, gpus, false);
        let prompts = |layouts| std::sync::Arc::new(task.prompts(layouts).unwrap());
        let sides = [
            task.sides(prompts(&layouts::worker_layouts(&lib, gpus, true)), &workers, 10).unwrap(),
            task.sides(prompts(&layouts::prefill_unit_layouts(&lib, gpus)), &layouts::unit_layouts(&lib, gpus), 4)
                .unwrap(),
        ];
        for (ttft, tpot) in [(60.0, 10.0), (300.0, 12.0), (300.0, 40.0), (5000.0, 20.0), (1e6, 1e6)] {
            let slo = Slo { ttft_ms: Some(ttft), tpot_ms: Some(tpot), percentile: None };
            let aim = Aim { slo, objective: Objective::TokensPerS };
            for (p, d) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
                let marks = PairMarks::new(sides[p].prompts.front.len(), sides[d].front.len());
                let front = Front::new(&sides[d], &marks);
                let all = task.pair(Level::Pd, &sides[p].prompts.front, &sides[d].front).unwrap();
                let near = task.near_best(Level::Pd, &sides[p].prompts.front, &front, &aim, Tiers::default()).unwrap();
                fronts += held(&near, &all, Tiers::default(), &aim).unwrap_or(0);
                let fine = task.fine_decode(&sides[d], &aim).unwrap();
                let every = task.pair(Level::Pd, &sides[p].prompts.every, &fine.all()).unwrap();
                // What is known beforehand only narrows the search: nothing, and half of the pairs themselves.
                for known in [Tiers::default(), Tiers::of(&every[..every.len() / 2], &aim)] {
                    let near = task.near_best(Level::Pd, &sides[p].prompts.every, &fine, &aim, known).unwrap();
                    match held(&near, &every, known, &aim) {
                        Some(n) => found += n,
                        None => empty += 1,
                    }
                    priced += every.len();
                }
            }
        }
    }
    println!(
        "{found} pairs near the best of {priced}, {fronts} of the fronts; nothing surely within the limits {empty} times"
    );
    assert!(found > 500 && fronts > 500 && empty > 5, "{found} {fronts} {empty}");
}

#[test]
fn a_slot_gives_no_more_than_its_bound_and_nearly_what_its_best_whole_batch_gives() {
    let (mut judged, mut short, mut beyond, mut worst) = (0, 0, 0, 0.0_f64);
    for (model, system, gpus, framework) in [
        ("Qwen/Qwen3-30B-A3B", "h200_sxm", 6, "vllm"),
        ("deepseek-ai/DeepSeek-V3.2", "b200_sxm", 16, "sglang"),
        ("nvidia/DeepSeek-V3.2-NVFP4", "gb200", 12, "trtllm"),
    ] {
        let lib = lab::lib(model, system, gpus, framework);
        let w = Workload::fixed("slots", 512.0, 1800.0, 350.0);
        let control = Control::new();
        let task = Task::new(&lib, &w, gpus, 0, &control, true);
        let prompts = std::sync::Arc::new(task.prompts(&layouts::worker_layouts(&lib, gpus, true)).unwrap());
        for layouts in [layouts::worker_layouts(&lib, gpus, false), layouts::unit_layouts(&lib, gpus)] {
            let sides = task.sides(prompts.clone(), &layouts, 2).unwrap();
            for tpot in [12.0, 30.0, 80.0] {
                let slo = Slo { ttft_ms: None, tpot_ms: Some(tpot), percentile: None };
                let fine = task.fine_decode(&sides, &Aim { slo, objective: Objective::TokensPerS }).unwrap();
                let limit = tpot * 1e-3;
                // Every third: all whole batches of a slot are priced. Odd places have the next batch.
                for j in (0..fine.len()).step_by(6) {
                    let (bounds, slot, next) = (fine.at(j), fine.get(j), fine.get(j + 1));
                    assert!(next.side.rate <= bounds.most.rate * (1.0 + 1e-12) && next.side.rate >= slot.side.rate);
                    assert!(next.batch == slot.batch || next.side.step.seconds > limit, "{:?}", slot.layout);
                    beyond += u32::from(next.batch > slot.batch);
                    assert!(slot.side.rate <= bounds.most.rate * (1.0 + 1e-12), "{:?}", slot.layout);
                    assert!(slot.side.step.seconds <= limit && slot.side.step.seconds >= bounds.step * (1.0 - 1e-12));
                    let from = slot.batch.saturating_sub(slot.batch / 2).max(slot.layout.microbatches());
                    let side = |b: u32| slot.clock.decode_side(&task.load, f64::from(b));
                    let every = (from..=slot.batch * 2).map(side);
                    let best = every
                        .filter(|s| s.short.is_none() && s.step.seconds <= limit)
                        .map(|s| s.rate)
                        .fold(0.0, f64::max);
                    assert!(best <= bounds.most.rate * (1.0 + 1e-12), "{:?} {best} {bounds:?}", slot.layout);
                    let loss = best / slot.side.rate - 1.0;
                    (judged, short, worst) = (judged + 1, short + u32::from(loss > 1e-9), worst.max(loss));
                }
            }
        }
    }
    println!("{short} of {judged} slots are not at their best whole batch, by {worst:.4} at most");
    assert!(judged > 200 && beyond > 100 && worst < 0.002, "{judged} {beyond} {worst}");
}
