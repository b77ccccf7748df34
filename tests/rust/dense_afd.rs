//! Dense models split between attention and FFN: weights and arithmetic are those of the whole model, one GPU of each pool
//! does together what a worker does alone, every level is priced, the scan reads what the engine prices.

use std::sync::Arc;

use disagg::cost::{Batch, Library, Op};
use disagg::serving::{Load, Scan, Tables, aggregated, pd};
use disagg::sim::{Deployment, Requests, Settings, Status, simulate};
use disagg::spec::{AfdPlan, Assumptions, Level, Plan, Quant, Workload};

use crate::lab;

const MODELS: [&str; 2] = ["Qwen/Qwen3-32B", "Qwen/Qwen3.5-27B"];

fn library(name: &str) -> Arc<Library> {
    lab::library(&lab::model(name), &lab::cluster("b200_sxm", 16), "trtllm", &Assumptions::physical())
}

fn plan(a: u32, tp: u32, f: u32, moe_tp: u32) -> AfdPlan {
    let mut plan = lab::afd_plan(lab::pool(a, tp), lab::pool(f, 1), 2);
    plan.ffn.moe_tp = moe_tp;
    plan
}

#[test]
fn weights_of_both_pools_are_those_of_the_model() {
    let w = lab::chat();
    for name in MODELS {
        let lib = library(name);
        let whole = lib.model.weight_bytes(&Quant::default());
        let unit = lab::unit(&lib, &plan(1, 1, 1, 1), &w);
        let held: f64 = unit.memory().iter().map(|m| m.weights).sum();
        lab::near(held, whole, 2e-3, name);
        // A pool of four splits the FFNs, and two copies of a pair hold twice as much.
        let ffn = |f, moe_tp| lab::unit(&lib, &plan(1, 1, f, moe_tp), &w).memory()[1].weights;
        lab::near(ffn(4, 4) * 4.0, ffn(1, 1), 1e-9, name);
        lab::near(ffn(4, 2), 2.0 * ffn(4, 4), 1e-9, name);
    }
}

/// On one GPU each, the kernels of the two pools are the worker's own: only hops are new, and the pool's own norm.
#[test]
fn operators_are_those_of_a_worker() {
    let w = lab::chat();
    for name in MODELS {
        let lib = library(name);
        let batch = Batch::decode(64.0, 2000.0, 1.0);
        let worker = disagg::cost::Worker::new(&lib, lab::split(1, 1, 1)).unwrap();
        let mut whole = disagg::cost::Detail::default();
        worker.price(&batch, &mut whole);
        let unit = disagg::cost::AfdUnit::new(&lib, &lib, &plan(1, 1, 1, 1)).unwrap();
        assert!(unit.dense_on_ffn);
        let mut split = disagg::cost::Detail::default();
        for kind in lib.program.kinds() {
            for _ in 0..kind.layers {
                unit.price_dense(&batch, kind.mixer, &mut split);
                unit.price_dense_ffn(&batch, &mut split);
            }
        }
        // Two norms a layer; a worker's step has the final one as well.
        for op in [Op::Qkv, Op::AttentionDecode, Op::AttentionOut, Op::DenseFfn] {
            let of = |d: &disagg::cost::Detail| d.entries.iter().filter(|e| e.op == op).map(|e| e.seconds).sum::<f64>();
            lab::near(of(&split), of(&whole), 1e-9, &format!("{name} {op:?}"));
        }
        // One micro-batch at a time is a worker's step and the hops.
        let alone = AfdPlan { microbatches: Some(1), ..plan(1, 1, 1, 1) };
        let (unit, worker) = (lab::unit(&lib, &alone, &w), lab::worker(&lib, lab::split(1, 1, 1), &w));
        let (a, b) = (unit.step(&batch).seconds, worker.step(&batch).seconds);
        assert!(a > b && a < 1.6 * b, "{name}: {a} {b}");
    }
}

#[test]
fn every_level_is_priced_and_simulated() {
    for name in MODELS {
        let lib = library(name);
        let w = Workload::fixed("law", 0.0, 2000.0, 200.0);
        let afd = AfdPlan { batch: Some(64), chunk_tokens: Some(1024), ..plan(2, 1, 2, 2) };
        let decode = disagg::spec::Slot::Afd(AfdPlan { chunk_tokens: None, ..afd.clone() });
        let prefill = lab::workers(1, lab::split(2, 1, 1), Some(2), Some(2048));
        for plan in [Plan::Afd(afd), Plan::Pd(disagg::spec::PdPlan { prefill, decode })] {
            let engine = Arc::new(disagg::serving::Engine::new(&lib, &w, &plan).unwrap());
            let point = engine.point;
            let n = 60;
            let mut requests = Requests { isl: vec![2000; n], osl: vec![200; n], ..Requests::default() };
            let gap = 1e12 / (0.5 * point.requests_per_s);
            requests.arrival_ps = (0..n).map(|i| (i as f64 * gap) as u64).collect();
            let o =
                simulate(&Deployment::of(&engine), &requests, &Settings::default(), &disagg::control::Control::new())
                    .unwrap();
            assert!(o.status.iter().all(|s| *s == Status::Finished), "{name}");
        }
    }
}

#[test]
fn a_scan_reads_dense_units() {
    let lib = library("Qwen/Qwen3-32B");
    let w = Workload::fixed("law", 0.0, 1500.0, 300.0);
    let (load, tables) = (Load::of(&w), Arc::new(Tables::new(&lib, &w, &Arc::default()).unwrap()));
    for p in [plan(2, 1, 2, 1), plan(4, 2, 4, 4), plan(1, 1, 2, 2)] {
        let unit = Arc::new(lab::unit(&lib, &p, &w));
        let scan = Scan::new(&unit, &tables).expect("a dense unit is a sum of lines");
        for (batch, chunk) in [(8.0, 300.0), (64.0, 4000.0)] {
            let (a, b) =
                (aggregated::solve(&unit, &load, batch, chunk, 1), aggregated::solve_by(&scan, &load, batch, chunk, 1));
            lab::near(b.requests_per_s, a.requests_per_s, 3e-3, "mixed");
            let (a, b) = (pd::decode_side(&unit, &load, batch), pd::decode_side_by(&scan, &load, batch));
            lab::near(b.step.seconds, a.step.seconds, 3e-3, "decode");
        }
    }
}

/// The search offers units, and what it says of them the engine confirms.
#[test]
fn a_search_offers_them() {
    let lib = library("Qwen/Qwen3-32B");
    let units = disagg::search::layouts::unit_layouts(&lib, 8);
    assert!(units.len() > 20, "{}", units.len());
    for layout in units.iter().step_by(7) {
        let engine = lab::layout(&lib, layout, &lab::chat());
        assert!(engine.step(&Batch::decode(16.0, 1000.0, 1.0)).seconds > 0.0, "{layout:?}");
        assert_eq!(layout.shape().ep, 1, "{layout:?}");
    }
    let (w, control) = (Workload::fixed("law", 0.0, 2000.0, 200.0), disagg::control::Control::new());
    let task = disagg::search::Task::new(&lib, &w, 8, 0, &control, true);
    let groups = task.mixed_groups(Level::AggregatedAfd, &units, 2).unwrap();
    let standing = groups.iter().flat_map(|g| &g.rows).filter(|r| r.point.stands()).count();
    assert!(standing > 100, "{standing}");
}
