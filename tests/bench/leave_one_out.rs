//! Leave-one-out errors and suspect lanes of every table.
//! `cargo run --release --example leave_one_out [samples] [system] [framework] [table]`

use std::path::Path;

use disagg::kernels::KernelDb;
use disagg::kernels::ops::Source;
use disagg::kernels::report::{TABLES, leave_one_out, suspects};
use disagg::spec::catalog;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let samples = args.first().and_then(|s| s.parse().ok()).unwrap_or(60);
    let wanted = |i: usize, name: &str| args.get(i).is_none_or(|a| a == "all" || a == name);
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/python/disagg/data/kernels");
    let db = KernelDb::open(Path::new(dir)).expect("the pack opens");
    println!(
        "{:9} {:7} {:22} {:22} {:13} {:5} {:>5} {:>8} {:>8} {:>8} {:>8}",
        "system", "from", "table", "lane", "hidden", "", "n", "median", "p90", "noise", "jitter"
    );
    for system in db.systems().into_iter().filter(|s| wanted(1, s)) {
        let (device, _) = catalog::system(&system).expect("the pack's systems have data sheets");
        for framework in ["trtllm", "sglang", "vllm"].into_iter().filter(|f| wanted(2, f)) {
            let source = Source {
                db: db.clone(),
                system: system.clone(),
                framework: framework.into(),
                device: device.clone(),
                graph: false,
                by_rule: false,
            };
            for table in TABLES.into_iter().filter(|t| wanted(3, t)) {
                let Ok(rows) = leave_one_out(&source, table, samples, 1) else { continue };
                for r in rows {
                    println!(
                        "{system:9} {framework:7} {table:22} {:22} {:13} {:5} {:5} {:7.1}% {:7.1}% {:7.1}% {:7.1}%{}",
                        r.lane,
                        r.axis,
                        r.edge,
                        r.n,
                        r.median * 100.0,
                        r.p90 * 100.0,
                        r.noise * 100.0,
                        r.jitter * 100.0,
                        if r.within() { "" } else { "  *" }
                    );
                }
                if std::env::var_os("SUSPECTS").is_some() {
                    for s in suspects(&source, table).expect("the table was there") {
                        println!("    suspect: {}: {}", s.lane, s.reason);
                    }
                }
            }
        }
    }
}
