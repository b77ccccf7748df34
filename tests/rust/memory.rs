//! Memory as servers have it: KV room against what servers print at start, and the laws of the fraction.

use std::sync::Arc;

use disagg::cost::Library;
use disagg::cost::memory::Memory;
use disagg::spec::{Assumptions, Dtype, Parallel, Quant, Serving, Workload};

use crate::lab;

const ROWS: &str = include_str!("../golden/kv_room.csv");
const GIB: f64 = 1_073_741_824.0;

struct Row {
    lib: Arc<Library>,
    parallel: Parallel,
    tokens: Option<f64>,
    gib: Option<f64>,
    name: String,
}

fn rows() -> Vec<Row> {
    let read = |line: &str| {
        let c: Vec<&str> = line.split(',').collect();
        let n = |i: usize| c[i].parse::<f64>().ok();
        let parallel = Parallel { tp: c[2].parse().unwrap(), dp: c[3].parse().unwrap(), ..Parallel::default() };
        let serving = Serving { memory_fraction: n(6), ..Serving::default() };
        let quant = Quant { kv: (c[7] == "bfloat16").then_some(Dtype::Bf16), ..Quant::default() };
        let (model, cluster) = (lab::model(c[0]), lab::cluster(c[1], parallel.gpus().max(8)));
        let a = Assumptions::physical();
        let lib = Library::new(lab::db().clone(), &model, &cluster, c[4], &quant, &serving, &a).unwrap();
        Row { lib: Arc::new(lib), parallel, tokens: n(8), gib: n(9), name: line.into() }
    };
    ROWS.lines().skip(1).map(read).collect()
}

/// KV room within 8 % of what the server printed; one that did not start has none.
#[test]
fn kv_room_is_what_servers_print() {
    let w = Workload::fixed("w", 0.0, 8192.0, 1024.0);
    let mut missed = Vec::new();
    for r in rows() {
        let s = lab::worker(&r.lib, r.parallel, &w);
        let m: Memory = s.memory()[0];
        let (tokens, _) = s.kv_tokens(0.0, 9216.0);
        let gib = m.free(0.0) / GIB;
        let items: Vec<String> = m.items(0.0, 0.0).iter().map(|i| format!("{} {:.2}", i.item, i.bytes / GIB)).collect();
        println!("{}\n   {tokens:.0} tokens, {gib:.2} GiB; {}", r.name, items.join(", "));
        let off = match (r.tokens, r.gib) {
            (Some(0.0), _) => f64::from(u8::from(gib >= 0.0)),
            (Some(t), _) => tokens / t - 1.0,
            (None, Some(g)) => gib / g - 1.0,
            (None, None) => unreachable!(),
        };
        println!("   {:+.1} %", 100.0 * off);
        if off.abs() > 0.08 {
            missed.push(format!("{:+.3} {}", off, r.name));
        }
    }
    assert!(missed.is_empty(), "{}", missed.join("\n"));
}
