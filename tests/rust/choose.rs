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
