//! The hot paths alone, to be timed or counted: `cargo run --release --example probe <what> <calls>`.
//! `what`: `grid` (DSA prefill, three axes), `curve` (GEMM, one axis), `lookup` (by column names), `step`
//! (one decode step of 8 GPUs), `open` and `open-afd` (a whole estimate that chooses batch, chunk and
//! micro-batches itself), `schedule` and `schedule-half` (61 layers, four micro-batches that differ; full and
//! half duplex), `afd` and `afd-decode` (the steady state of a compiled AFD unit, every option on, or its
//! decode slot), `tables` (decode every table of a system, once per call).
//! Prints nanoseconds a call, set-up left out.
#![allow(clippy::unwrap_used)]

use disagg::spec::Framework;
use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use disagg::cost::program::Surfaces;
use disagg::cost::{Batch, Library, Worker};
use disagg::kernels::{KernelDb, Query, lookup};
use disagg::serving::pipeline::{Rows, Stages, step_time};
use disagg::serving::{Engine, Load, StepEngine, aggregated, pd};
use disagg::spec::{Aggregated, Assumptions, Dtype, Parallel, PdPlan, Plan, Quant, Serving, Slot, Workers, catalog};

const SYSTEM: &str = "b200_sxm";
const FRAMEWORK: Framework = Framework::Sglang;

fn library(db: &Arc<KernelDb>) -> Arc<Library> {
    let model = catalog::model("deepseek-ai/DeepSeek-V3.2").unwrap();
    let cluster = catalog::cluster(SYSTEM, 8).unwrap();
    let (quant, serving) = (Quant::default(), Serving::default());
    Library::shared(db, &model, &cluster, FRAMEWORK, &quant, &serving, &Assumptions::physical()).unwrap()
}

/// A plan of 8 GPUs that leaves everything open.
fn catalog_plan(what: &str) -> Plan {
    let parallel = Parallel { dp: 8, ..Parallel::default() };
    let half = Parallel { dp: 4, ..Parallel::default() };
    let text = match what {
        "open-afd" => r#"{"attention": {"gpus": 2}, "ffn": {"gpus": 6}}"#,
        _ => "",
    };
    match what {
        "open" => Plan::Aggregated(Aggregated {
            parallel,
            batch: None,
            chunk_tokens: None,
            replicas: 1,
            ..Default::default()
        }),
        "open-pd" => {
            let slot = || {
                Slot::Workers(Workers {
                    count: 1,
                    parallel: half,
                    batch: None,
                    chunk_tokens: None,
                    ..Default::default()
                })
            };
            Plan::Pd(PdPlan { prefill: slot(), decode: slot() })
        }
        _ => Plan::Afd(serde_json::from_str(text).unwrap()),
    }
}

fn timed(calls: u32, mut call: impl FnMut(u32) -> f64) {
    black_box(call(0));
    let start = Instant::now();
    let sum: f64 = (0..calls).map(&mut call).sum();
    black_box(sum);
    println!("{:.1}", start.elapsed().as_secs_f64() / f64::from(calls) * 1e9);
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let calls: u32 = args[1].parse().unwrap();
    let dir = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/python/disagg/data/kernels"));
    let db = KernelDb::open(dir).unwrap();
    // No two calls in a row ask for the same point.
    let wobble = |i: u32| f64::from(i % 97);
    match args[0].as_str() {
        "grid" => {
            let s = library(&db).context(1, 0).unwrap();
            timed(calls, |i| s.at(&[1.0 + (f64::from(i % 3)), 300.0 + wobble(i), 4000.0 + 17.0 * wobble(i)]).seconds);
        }
        "curve" => {
            let s = library(&db).gemm(false, Dtype::Fp8Block, 4096, 7168).unwrap();
            timed(calls, |i| s.at(&[300.0 + 11.0 * wobble(i)]).seconds);
        }
        "lookup" => {
            let keys: [(&str, disagg::kernels::table::Value); 4] =
                [("gemm_dtype", "fp8_block".into()), ("n", 4096.into()), ("k", 7168.into()), ("m", 128.into())];
            let query = Query {
                system: SYSTEM.into(),
                framework: FRAMEWORK.name().into(),
                table: "gemm".into(),
                keys: keys.map(|(k, v)| (k.to_string(), vec![v])).to_vec(),
                ..Query::default()
            };
            timed(calls, |_| lookup(&db, black_box(&query)).unwrap().ms);
        }
        "step" => {
            let worker = Worker::new(&library(&db), Parallel { dp: 8, ..Parallel::default() }).unwrap();
            timed(calls, |i| worker.step(&Batch::decode(32.0 + wobble(i), 4608.0, 1.0)).seconds);
        }
        "open" | "open-afd" | "open-pd" => {
            let lib = library(&db);
            let w = catalog::workload("paper-chat").unwrap();
            let plan = catalog_plan(&args[0]);
            timed(calls, |_| Engine::new(&lib, &w, &plan).unwrap().estimate().unwrap().scalars.tokens_per_s);
        }
        // 61 layers of four micro-batches that differ by one sequence, so that nothing is in closed form.
        "schedule" | "schedule-half" => {
            let stage = |x: f64| Stages::new(80.0 + x, 30.0, 95.0 - x, 35.0);
            let dense: Vec<Stages> = (0..4).map(|_| Stages::new(60.0, 0.0, 0.0, 0.0)).collect();
            timed(calls, |i| {
                let x = wobble(i) * 0.01;
                let uneven: Vec<Stages> = [0.0, x, x, x].map(stage).to_vec();
                let rows = [Rows { layers: 3, stages: &dense }, Rows { layers: 58, stages: &uneven }];
                step_time(black_box(&rows), args[0] == "schedule-half", true)
            });
        }
        // A complete AFD plan at one batch and chunk, every option on, after compile.
        "afd" => {
            let (model, cluster) =
                (catalog::model("deepseek-ai/DeepSeek-V3.2").unwrap(), catalog::cluster(SYSTEM, 32).unwrap());
            let serving =
                Serving { mtp: 1, acceptance: Some(0.8), eplb_slots: 24, fused_dispatch: true, ..Serving::default() };
            let lib = Library::shared(
                &db,
                &model,
                &cluster,
                FRAMEWORK,
                &Quant::default(),
                &serving,
                &Assumptions::physical(),
            );
            let w = catalog::workload("paper-chat").unwrap();
            let text = r#"{"attention": {"gpus": 8}, "ffn": {"gpus": 24}, "microbatches": 4, "router": "ffn"}"#;
            let engine = StepEngine::afd(&lib.unwrap(), &serde_json::from_str(text).unwrap(), &w).unwrap();
            let load = Load::of(&w);
            timed(calls, |i| aggregated::solve(&engine, &load, 32.0 + wobble(i), 512.0, 1).tpot_s);
        }
        "afd-decode" => {
            let w = catalog::workload("paper-chat").unwrap();
            let text = r#"{"attention": {"gpus": 2}, "ffn": {"gpus": 6}, "microbatches": 4}"#;
            let engine = StepEngine::afd(&library(&db), &serde_json::from_str(text).unwrap(), &w).unwrap();
            let load = Load::of(&w);
            timed(calls, |i| pd::decode_side(&engine, &load, 32.0 + wobble(i)).rate);
        }
        "tables" => timed(calls, |_| {
            let db = KernelDb::open(dir).unwrap();
            let mut rows = 0;
            for framework in db.frameworks(SYSTEM).unwrap() {
                for t in db.tables(SYSTEM, framework).unwrap() {
                    rows += db.table(SYSTEM, framework, &t.name, Some(&t.version)).unwrap().rows();
                }
            }
            rows as f64
        }),
        other => panic!("no probe named {other}"),
    }
}
