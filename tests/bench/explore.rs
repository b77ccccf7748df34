//! The central question in the terminal, without Python: `cargo run --release --example explore`.
#![allow(clippy::unwrap_used)]

use disagg::spec::Framework;
use std::path::Path;
use std::time::Instant;

use disagg::columns::Column;
use disagg::control::Control;
use disagg::kernels::KernelDb;
use disagg::search::{Question, explore};
use disagg::spec::{Case, Slo, catalog};

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let arg = |i: usize, d: &str| args.get(i).cloned().unwrap_or_else(|| d.to_string());
    let db = KernelDb::open(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/python/disagg/data/kernels"))).unwrap();
    let model = catalog::model(&arg(1, "deepseek-ai/DeepSeek-V3.2")).unwrap();
    let cluster = catalog::cluster(&arg(2, "b200_sxm"), arg(3, "128").parse().unwrap()).unwrap();
    let framework = Framework::asked(&arg(4, "trtllm"), "framework").unwrap();
    for (name, ttft) in [("paper-chat", 50.0), ("paper-coding", 100.0), ("paper-agentic", 150.0)] {
        for (ttft, tpot) in [(ttft, 15.0), (2000.0, 50.0)] {
            let w = catalog::workload(name).unwrap();
            let slo = Slo { ttft_ms: Some(ttft), tpot_ms: Some(tpot), percentile: None };
            let t = Instant::now();
            let q = Question::new(Case::new(model.clone(), cluster.clone(), w).on(framework), slo);
            let study = explore(&db, &q, &Control::new()).unwrap();
            println!(
                "== {name}, TTFT {ttft} ms, TPOT {tpot} ms: {} plans in {:.2} s",
                study.rows.len(),
                t.elapsed().as_secs_f64()
            );
            print(&study.table());
        }
    }
}

fn print(c: &disagg::columns::Columns) {
    for row in 0..c.rows() {
        let cells: Vec<String> = c
            .names
            .iter()
            .zip(&c.columns)
            .map(|(n, col)| match col {
                Column::F64(v) => format!("{n}={:.4}", v[row]),
                Column::I64(v) => format!("{n}={}", v[row]),
                Column::Bool(v) => format!("{n}={}", v[row]),
                Column::Cat { codes, labels } => format!("{n}={}", labels.get(codes[row] as usize).map_or("", |s| s)),
            })
            .collect();
        println!("  {}", cells.join("  "));
    }
}
