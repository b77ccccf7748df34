//! Single steps against another tool's pricing of them; `cargo run --release --example breakdown` prints the table.

mod compare;

use std::collections::BTreeMap;

use compare::{Class, Pair, compare, quantile};

#[test]
fn operators_that_read_the_same_rows_agree() {
    let (pairs, wholes) = compare();
    assert_eq!(wholes.len(), 46);
    for w in wholes {
        assert_ne!(w.lane, "grouped+low-latency", "{}: 4,000 tokens a rank and more", w.step);
    }
    let mut by_op: BTreeMap<&str, Vec<&Pair>> = BTreeMap::new();
    // A block added up from parts reads the same rows as the parts.
    for p in pairs.iter().filter(|p| p.class == Class::SameRows || p.op == "MLA block in parts") {
        assert!(p.ours > 0.0 && p.ours.is_finite(), "{p:?}");
        by_op.entry(p.op).or_default().push(p);
    }
    for op in ["DSA module", "GQA kernel", "MLA block", "MLA kernel", "experts", "all-gather", "all-reduce", "qkv"] {
        assert!(by_op.contains_key(op), "{op} is compared nowhere");
    }
    for (op, pairs) in by_op {
        let mut e: Vec<f64> = pairs.iter().map(|p| p.difference().abs()).collect();
        e.sort_by(f64::total_cmp);
        let median = quantile(&e, 0.5);
        assert!(median <= 0.10, "{op}: median difference {:.1} % of {} steps", median * 100.0, e.len());
    }
}
