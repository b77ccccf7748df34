//! What a plan leaves open is chosen as well as by pricing everything.

use disagg::search::{Layout, layouts};
use disagg::serving::{Engine, Load, SteadyState, StepEngine, aggregated, choose};
use disagg::spec::{AfdPlan, Aggregated, Parallel, Plan, Workload, catalog};

use crate::lab;

/// The slow, obvious twin: the whole lattice of every engine.
fn exhaustive(engines: &[&StepEngine], load: &Load) -> Option<SteadyState> {
    let mut best: Option<SteadyState> = None;
    for s in engines {
        for (b, chunks) in choose::lattice(s, load, None, None, 1) {
            for c in chunks {
                let p = aggregated::solve(s, load, f64::from(b), f64::from(c), 1);
                if best.as_ref().is_none_or(|q| choose::better(&p, q)) {
                    best = Some(p);
                }
            }
        }
    }
    best
}

#[track_caller]
fn compare(engines: &[&StepEngine], load: &Load, what: &str) -> bool {
    let found = choose::mixed(engines, load, None, None, 1);
    let best = exhaustive(engines, load).unwrap();
    assert_eq!(found.point.stands(), best.stands(), "{what}");
    if best.stands() {
        let loss = 1.0 - found.point.requests_per_s / best.requests_per_s;
        assert!((-1e-12..=1e-3).contains(&loss), "{what}: loses {loss:.5}: {found:?}");
        let (b, c) = (f64::from(found.batch), f64::from(found.chunk));
        let again = aggregated::solve(engines[found.engine], load, b, c, 1);
        assert_eq!(format!("{again:?}"), format!("{:?}", found.point), "{what}: the point is not of the choice");
    }
    best.stands()
}

fn workloads() -> [Workload; 3] {
    ["paper-chat", "paper-coding", "paper-agentic"].map(|w| catalog::workload(w).unwrap())
}

#[test]
fn a_choice_is_as_good_as_pricing_everything() {
    let mut compared = 0;
    for (model, system, framework) in [
        ("nvidia/DeepSeek-V3.2-NVFP4", "b200_sxm", "sglang"),
        ("openai/gpt-oss-120b", "b200_sxm", "trtllm"),
        ("Qwen/Qwen3-30B-A3B", "h200_sxm", "vllm"),
    ] {
        let lib = lab::lib(model, system, 16, framework);
        for (k, w) in workloads().iter().enumerate() {
            let load = Load::of(w);
            let layouts = layouts::worker_layouts(&lib, 16, false);
            for layout in layouts.iter().skip(k).step_by(layouts.len() / 12) {
                let Layout::Worker { parallel: p, .. } = layout else { panic!("a worker") };
                let s = lab::worker(&lib, *p, w);
                compared += usize::from(compare(&[&s], &load, &format!("{model} {} {p:?}", w.name)));
            }
            let units = layouts::unit_layouts(&lib, 16);
            for layout in units.iter().skip(k).step_by(units.len() / 4) {
                let open: Vec<StepEngine> = choose::microbatches(None)
                    .into_iter()
                    .map(|m| {
                        let plan = AfdPlan { microbatches: Some(m), ..layout.afd_plan(1, 1, None).unwrap() };
                        lab::unit(&lib, &plan, w)
                    })
                    .collect();
                let open: Vec<&StepEngine> = open.iter().collect();
                compared += usize::from(compare(&open, &load, &format!("{model} {} {layout:?}", w.name)));
            }
        }
    }
    assert!(compared >= 60, "{compared} plans stand");
}

#[test]
fn what_is_given_is_kept_and_the_choice_is_written_into_the_plan() {
    let lib = lab::small();
    let parallel = Parallel { dp: 4, ..Parallel::default() };
    for (batch, chunk) in [(None, None), (Some(37), None), (None, Some(700)), (Some(5), Some(333))] {
        let plan =
            Plan::Aggregated(Aggregated { parallel, batch, chunk_tokens: chunk, replicas: 2, ..Default::default() });
        let engine = Engine::new(&lib, &lab::chat(), &plan).unwrap();
        let Plan::Aggregated(chosen) = &engine.plan else { panic!("aggregated") };
        assert!(batch.is_none_or(|b| chosen.batch == Some(b)) && chunk.is_none_or(|c| chosen.chunk_tokens == Some(c)));
        let again = Engine::new(&lib, &lab::chat(), &engine.plan).unwrap();
        assert_eq!(format!("{:?}", again.point), format!("{:?}", engine.point));
    }
}

/// Requests in flight walked step by step: decoding ones take their tokens first, prompts take what is left of the budget
/// in order of arrival, and one that is done makes room for the next. Gives the mean number that decode.
fn walk(isl: f64, osl: f64, batch: u32, per_decode: f64, progress: f64, budget: f64) -> f64 {
    let mut waiting: std::collections::VecDeque<f64> = (0..batch).map(|_| isl).collect();
    let mut decoding: Vec<f64> = Vec::new();
    let (mut sum, steps) = (0.0, 40.0 * (osl / progress).ceil());
    for step in 0..steps as u64 {
        let mut room = budget - per_decode * decoding.len() as f64;
        decoding.iter_mut().for_each(|left| *left -= progress);
        let before = decoding.len();
        decoding.retain(|left| *left > 1e-9);
        waiting.extend(std::iter::repeat_n(isl, before - decoding.len()));
        while room > 0.0
            && let Some(left) = waiting.front_mut()
        {
            let taken = left.min(room);
            *left -= taken;
            room -= taken;
            if *left <= 1e-9 {
                waiting.pop_front();
                decoding.push(osl - 1.0);
            }
        }
        // The first half settles.
        if step as f64 >= 0.5 * steps {
            sum += decoding.len() as f64;
        }
    }
    sum / (0.5 * steps)
}

#[test]
fn the_filled_budget_just_keeps_all_decoding() {
    for (isl, osl, batch, drafts, accepted) in [
        (2048.0, 1024.0, 64, 0.0, 0.0),
        (512.0, 256.0, 128, 0.0, 0.0),
        (8192.0, 512.0, 256, 0.0, 0.0),
        (1000.0, 1000.0, 48, 3.0, 1.6),
    ] {
        let w = Workload::fixed("w", 0.0, isl, osl);
        let (load, per_decode, progress) = (Load::of(&w), 1.0 + drafts, 1.0 + accepted);
        let filled = f64::from(choose::filled_budget(&load, batch, per_decode, progress).unwrap());
        let share = |budget: f64| walk(isl, osl, batch, per_decode, progress, budget) / f64::from(batch);
        let (own, prompts) = (share(filled), filled - f64::from(batch) * per_decode);
        // A request waits for its prompt's own steps and no more: a larger budget changes nothing. With a tenth less room
        // for prompts so many decode as leave room for the prompts that they ask for.
        let tight = filled - 0.1 * prompts;
        let (less, more) = (share(tight), share(filled + 0.5 * prompts));
        let balanced = tight / f64::from(batch) / (isl * progress / (osl - 1.0) + per_decode);
        println!("{isl} {osl} {batch}: {own:.3}, with less {less:.3} ({balanced:.3}), with more {more:.3}");
        assert!(own > 0.975 && more < own + 0.01, "{isl} {osl} {batch}: {own}, with more {more}");
        assert!(less < own - 0.005 && (less - balanced).abs() < 0.01, "{isl} {osl} {batch}: {less} of {balanced}");
    }
    let of = |isl, osl, batch| choose::filled_budget(&Load::of(&Workload::fixed("w", 0.0, isl, osl)), batch, 1.0, 1.0);
    assert_eq!(of(1000.0, 1.0, 8), None, "nothing decodes");
    assert_eq!(of(1e6, 2.0, 1 << 20), None, "more than a step can be told to take");
}
