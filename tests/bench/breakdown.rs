//! Single steps beside another tool's, operator by operator: `cargo run --release --example breakdown [op]`.
//! With an operator, every step of it.
#![allow(clippy::unwrap_used)]

#[path = "../rust/breakdown/compare.rs"]
mod compare;

use std::collections::BTreeMap;

use compare::{Class, Pair, compare, quantile};

fn main() {
    let only = std::env::args().nth(1);
    let (pairs, wholes) = compare();
    if let Some(op) = only {
        for p in pairs.iter().filter(|p| p.op == op || op == "all") {
            println!(
                "{:22} {:11} {:52} {:10.2} {:10.2} us {:+7.1} % {:?}",
                p.op,
                p.class.name(),
                p.step,
                p.theirs,
                p.ours,
                p.difference() * 100.0,
                p.evidence
            );
        }
        return;
    }
    let mut rows: BTreeMap<(Class, &str), Vec<&Pair>> = BTreeMap::new();
    for p in &pairs {
        rows.entry((p.class, p.op)).or_default().push(p);
    }
    println!(
        "{:22} {:11} {:>4} {:>7} {:>7} {:>8}  worst, and why they differ",
        "operator", "compared by", "n", "median", "p90", "worst"
    );
    for ((class, op), pairs) in &rows {
        let mut e: Vec<f64> = pairs.iter().map(|p| p.difference().abs() * 100.0).collect();
        e.sort_by(f64::total_cmp);
        let worst = pairs.iter().max_by(|a, b| a.difference().abs().total_cmp(&b.difference().abs())).unwrap();
        println!(
            "{op:22} {:11} {:4} {:6.1}% {:6.1}% {:+7.1}%  {}: {}",
            class.name(),
            e.len(),
            quantile(&e, 0.5),
            quantile(&e, 0.9),
            worst.difference() * 100.0,
            worst.step,
            worst.cause
        );
    }
    println!();
    for class in [Class::SameRows, Class::BeyondRows, Class::Formula, Class::OtherModel] {
        let mut e: Vec<f64> = pairs.iter().filter(|p| p.class == class).map(|p| p.difference().abs() * 100.0).collect();
        e.sort_by(f64::total_cmp);
        println!(
            "{:11} {:4} operators: median {:.1} %, p90 {:.1} %",
            class.name(),
            e.len(),
            quantile(&e, 0.5),
            quantile(&e, 0.9)
        );
    }
    println!("\nwhole steps: ours with the dense layers dense and the fastest way to the experts");
    for w in wholes {
        println!(
            "{:52} theirs {:9.1} ms, ours {:8.1} ms ({:+6.1} %) {}",
            w.step,
            w.theirs_ms,
            w.ours_ms,
            (w.ours_ms / w.theirs_ms - 1.0) * 100.0,
            w.lane
        );
    }
}
