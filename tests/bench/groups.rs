//! What attention groups are worth: the best AFD decode slot and the best AFD unit for mixed steps with G in {1, 2, 4}
//! against G = 1, same budget and limits: `cargo run --release --example groups [framework] [mixed]`.
//! One line a case and limit: tokens/s (decode: per GPU of the unit) without and with groups, the gain, both plans.
//! G M is at most 4, as the micro-batches of one group are.
#![allow(clippy::unwrap_used)]

use disagg::spec::Framework;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use disagg::cost::{AfdUnit, Library};
use disagg::kernels::KernelDb;
use disagg::search::row::Layout;
use disagg::search::space;
use disagg::serving::{Load, StepEngine, aggregated, choose, pd};
use disagg::spec::{AfdPlan, Assumptions, Quant, Serving, Workload, catalog};

/// (TTFT, TPOT) in ms.
const LIMITS: [(f64, f64); 7] = [
    (f64::INFINITY, 10.0),
    (f64::INFINITY, 15.0),
    (f64::INFINITY, 20.0),
    (f64::INFINITY, 30.0),
    (f64::INFINITY, 50.0),
    (f64::INFINITY, 100.0),
    (2000.0, 50.0),
];

/// Best rate without and with groups at each limit, and whose it is.
type Best = [[(f64, String); 2]; LIMITS.len()];

fn note(best: &mut Best, groups: u32, rate: f64, ttft_s: f64, tpot_s: f64, plan: &dyn Fn() -> String) {
    for (of, (ttft, tpot)) in best.iter_mut().zip(LIMITS) {
        let slot = &mut of[usize::from(groups > 1)];
        if ttft_s * 1e3 <= ttft && tpot_s * 1e3 <= tpot && rate > slot.0 {
            *slot = (rate, plan());
        }
    }
}

fn price(lib: &Arc<Library>, w: &Workload, layout: &Layout, budget: u32, mixed: bool, best: &mut Best) {
    let load = Load::of(w);
    for groups in [1, 2, 4] {
        let base = AfdPlan { attention_groups: groups, ..layout.afd_plan(1, 1, None).unwrap() };
        if !base.attention.ranks().is_multiple_of(groups) {
            continue;
        }
        let Ok(unit) = AfdUnit::new(lib, lib, &base) else { continue };
        let unit = Arc::new(unit);
        for m in (1..=4).filter(|m| groups * m <= 4) {
            let plan = AfdPlan { microbatches: Some(m), ..base.clone() };
            let s = StepEngine::afd_of(lib, unit.clone(), &plan, w).unwrap();
            let named = |b: u32, chunk: u32| {
                let (a, f, ep) = (plan.attention.gpus, plan.ffn.gpus, plan.ffn.ep.unwrap_or(0));
                format!("{a}A(tp{})+{f}F(ep{ep}) G{groups} M{m} b{b} c{chunk}", plan.attention.tp)
            };
            if mixed {
                let most = choose::most_sequences(&s, load.isl.min(8192.0));
                for b in space::batches(most, 3).into_iter().filter(|b| *b >= m) {
                    for chunk in choose::chunk_grid(&load, b, 1.0, 1).into_iter().step_by(2) {
                        let p = aggregated::solve(&s, &load, f64::from(b), f64::from(chunk), budget / s.gpus());
                        if p.stands() {
                            let rate = p.requests_per_s * load.osl;
                            note(best, groups, rate, p.ttft_s, p.tpot_s, &|| named(b, chunk));
                        }
                    }
                }
            } else {
                for b in space::batches(choose::most_sequences(&s, 1.0), 6).into_iter().filter(|b| *b >= m) {
                    let d = pd::decode_side(&s, &load, f64::from(b));
                    if d.short.is_none() {
                        let rate = d.rate * load.osl / f64::from(s.gpus());
                        note(best, groups, rate, 0.0, d.step.seconds, &|| named(b, 0));
                    }
                }
            }
        }
    }
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let framework = Framework::asked(args.get(1).map_or("trtllm", String::as_str), "framework").unwrap();
    let mixed = args.get(2).is_some_and(|a| a == "mixed");
    let db = KernelDb::open(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/python/disagg/data/kernels"))).unwrap();
    for name in ["deepseek-ai/DeepSeek-V3.2", "Qwen/Qwen3-235B-A22B"] {
        for (system, gpus) in [("b200_sxm", 128), ("gb200", 72)] {
            let (model, cluster) = (catalog::model(name).unwrap(), catalog::cluster(system, gpus).unwrap());
            let (quant, serving) = (Quant::default(), Serving::default());
            let lib = Library::shared(&db, &model, &cluster, framework, &quant, &serving, &Assumptions::physical());
            let lib = lib.unwrap();
            let layouts = space::units(&space::Choices { lib: &lib, budget: gpus, rules: None }, &[[1, 1]]);
            for workload in ["paper-chat", "paper-coding", "paper-agentic"] {
                let w = catalog::workload(workload).unwrap();
                let (next, all) = (AtomicUsize::new(0), Mutex::new(Best::default()));
                std::thread::scope(|scope| {
                    for _ in 0..2 {
                        scope.spawn(|| {
                            let mut own = Best::default();
                            while let Some(l) = layouts.get(next.fetch_add(1, Ordering::Relaxed)) {
                                price(&lib, &w, l, gpus, mixed, &mut own);
                            }
                            let mut all = all.lock().unwrap();
                            for (a, o) in all.iter_mut().flatten().zip(own.into_iter().flatten()) {
                                if o.0 > a.0 {
                                    *a = o;
                                }
                            }
                        });
                    }
                });
                println!("-- {name}, {gpus} {system}, {workload}, {framework}, {} layouts", layouts.len());
                for ((ttft, tpot), [one, more]) in LIMITS.iter().zip(all.into_inner().unwrap()) {
                    if (mixed || ttft.is_infinite()) && one.0.max(more.0) > 0.0 {
                        let gain = 100.0 * (more.0 / one.0 - 1.0);
                        println!(
                            "TTFT {ttft:>5} TPOT {tpot:>5}: {:>9.1} {:>9.1} {gain:>+6.1} %  {} | {}",
                            one.0, more.0, one.1, more.1
                        );
                    }
                }
            }
        }
    }
}
