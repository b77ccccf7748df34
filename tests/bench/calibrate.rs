//! Fits the communication kernels: `cargo run --release --example calibrate [file]` writes the
//! parameter file (`make calibrate`); without a file, one line per fit. `calibrate served [file]` fits the
//! devices of the measured servers to the first requests of each, from the rates of an H100.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use disagg::calibrate;
use disagg::control::Control;
use disagg::kernels::KernelDb;
use disagg::network::params::{Misfit, TableId};
use disagg::spec::{Device, catalog};
use disagg::validation::served;
use std::sync::Arc;

fn line(id: &TableId, ranks: &[u32], fit: &Misfit, law: &dyn std::fmt::Debug) {
    let TableId { system, framework, version, table, op, variant } = id;
    println!(
        "{table} {op} {variant} | {system} {framework} {version} {ranks:?} | {} rows, MAPE {:.1}, median {:.1}, p95 {:.1} | {law:?}",
        fit.rows,
        100.0 * fit.mape,
        100.0 * fit.median,
        100.0 * fit.p95
    );
}

fn devices(db: &Arc<KernelDb>) -> String {
    let mut runs = served::runs().unwrap();
    for run in &mut runs {
        let start = catalog::system("h100_sxm").unwrap().0;
        let Device { name, hbm_bytes, power_w, usd_per_hour, .. } = run.device.clone();
        let start = Device { name, hbm_bytes, power_w, usd_per_hour, ..start };
        let mut log = served::log(&run.run).unwrap();
        // The others are load: what they measured is never seen.
        log.ttft_ms[served::FITTED..].fill(f64::NAN);
        log.tpot_ms[served::FITTED..].fill(f64::NAN);
        let server = served::server(db, run, &start, &log.requests).unwrap();
        let fit = calibrate::served::device(&server, &log, &Control::new()).unwrap();
        eprintln!("{}: loss {:.5} after {} runs", run.run, fit.loss, fit.runs);
        run.device = fit.device;
    }
    serde_json::to_string_pretty(&runs).unwrap() + "\n"
}

fn main() {
    let db = KernelDb::open(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/python/disagg/data/kernels"))).unwrap();
    if std::env::args().nth(1).as_deref() == Some("served") {
        let text = devices(&db);
        match std::env::args().nth(2) {
            Some(path) => std::fs::write(path, text).unwrap(),
            None => print!("{text}"),
        }
        return;
    }
    let params = calibrate::network(&db, &Control::new()).unwrap();
    match std::env::args().nth(1) {
        Some(path) => std::fs::write(path, calibrate::to_text(&params).unwrap()).unwrap(),
        None => {
            for f in &params.collectives {
                line(&f.id, &f.ranks, &f.fit, &f.law);
            }
            for f in &params.exchanges {
                line(&f.id, &f.ranks, &f.fit, &f.law);
            }
        }
    }
}
