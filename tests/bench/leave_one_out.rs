//! Leave-one-out errors and suspect lanes of every table.
//! `cargo run --release --example leave_one_out [samples] [system] [framework] [table]`

use std::path::Path;

use disagg::kernels::KernelDb;
use disagg::kernels::ops::Source;
use disagg::kernels::report::{TABLES, leave_one_out, suspects};
use disagg::spec::Device;

fn device(system: &str) -> Device {
    let (bf16, fp8, fp4, bw, sm) = match system {
        "h100_sxm" => (989e12, 1978e12, 0.0, 3.35e12, 90),
        "h200_sxm" => (989e12, 1978e12, 0.0, 4.8e12, 90),
        "b200_sxm" => (2250e12, 4500e12, 9000e12, 7.7e12, 100),
        "b300_sxm" => (2250e12, 4500e12, 14000e12, 7.75e12, 103),
        "gb200" => (2500e12, 5000e12, 10000e12, 8e12, 100),
        _ => (2500e12, 5000e12, 15000e12, 8e12, 103),
    };
    Device {
        name: system.into(),
        source: "probe".into(),
        bf16_flops: bf16,
        fp8_flops: fp8,
        fp4_flops: fp4,
        hbm_bytes_per_s: bw,
        hbm_bytes: 180e9,
        launch_s: 2e-6,
        power_w: 1000.0,
        usd_per_hour: 3.0,
        sm,
    }
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let samples = args.first().and_then(|s| s.parse().ok()).unwrap_or(60);
    let wanted = |i: usize, name: &str| args.get(i).is_none_or(|a| a == "all" || a == name);
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/python/disagg/data/kernels");
    let db = KernelDb::open(Path::new(dir)).expect("the pack opens");
    println!(
        "{:9} {:7} {:22} {:22} {:13} {:5} {:>5} {:>8} {:>8} {:>8}",
        "system", "from", "table", "lane", "hidden", "", "n", "median", "p90", "noise"
    );
    for system in db.systems().into_iter().filter(|s| wanted(1, s)) {
        for framework in ["trtllm", "sglang", "vllm"].into_iter().filter(|f| wanted(2, f)) {
            let source = Source {
                db: db.clone(),
                system: system.clone(),
                framework: framework.into(),
                device: device(&system),
                graph: false,
            };
            for table in TABLES.into_iter().filter(|t| wanted(3, t)) {
                let Ok(rows) = leave_one_out(&source, table, samples, 1) else { continue };
                for r in rows {
                    println!(
                        "{system:9} {framework:7} {table:22} {:22} {:13} {:5} {:5} {:7.1}% {:7.1}% {:7.1}%",
                        r.lane,
                        r.axis,
                        r.edge,
                        r.n,
                        r.median * 100.0,
                        r.p90 * 100.0,
                        r.noise * 100.0
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
