//! Fits the communication kernels: `cargo run --release --example calibrate [file]` writes the
//! parameter file (`make calibrate`); without a file, one line per fit.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use disagg::calibrate;
use disagg::control::Control;
use disagg::kernels::KernelDb;
use disagg::network::params::{Misfit, TableId};

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

fn main() {
    let db = KernelDb::open(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/python/disagg/data/kernels"))).unwrap();
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
