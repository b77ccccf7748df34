//! AFD decode against arXiv 2601.21351: Table 2 coefficients, B = 256, mean prompt 100, mean answer 500.

use std::hash::Hasher;

use disagg::sim::deployment::PARTS;
use disagg::sim::deployment::{Front, Intake};
use disagg::sim::kv::Mix;
use disagg::sim::{Closed, Deployment, Lines, PoolSpec, Requests, Settings, Timing, Transfer};
use disagg::spec::Role;
use disagg::spec::assumptions::FirstToken;

use super::*;

/// One cycle of the paper as a nanosecond.
const LINES: Lines = Lines { alpha_a: 1.65, beta_a: 50e3, alpha_f: 83.0, beta_f: 100e3, alpha_c: 22.0, beta_c: 20e3 };
const B: u32 = 256;

fn unit(ranks: u32, seats: u32) -> Deployment {
    let pool = PoolSpec {
        role: Role::Decode,
        count: 1,
        gpus: ranks + 1,
        ranks,
        microbatches: 2,
        stages: 1,
        max_seqs: seats,
        budget: 8192,
        kv_tokens: u64::from(u32::MAX),
        kv_bytes_per_token: 0.0,
        per_decode: 1,
        grow: PARTS,
        interval: 1,
        intake: Intake::default(),
        timing: Timing::Lines(LINES),
    };
    let pools = vec![pool];
    Deployment { pools, transfer: Transfer::Free, first_token: FirstToken::Prefill, front: Front::default() }
}

/// Answer tokens per cycle and instance (FFN counted) for `each` requests per attention instance:
/// while every place is taken, and over the whole run with its last stragglers.
fn throughput(ranks: u32, seats: u32, each: usize) -> (f64, f64) {
    let n = each * ranks as usize;
    // Geometric lengths from 1 on, by inversion.
    let geometric = |i: usize, mean: f64| {
        let mut h = Mix::default();
        h.write_u64(i as u64);
        h.write_u64(mean as u64);
        let u = (h.finish() >> 11) as f64 / 2f64.powi(53);
        1 + ((1.0 - u).ln() / (1.0 - 1.0 / mean).ln()).floor() as u32
    };
    let isl: Vec<u32> = (0..n).map(|i| geometric(i, 100.0)).collect();
    let osl: Vec<u32> = (0..n).map(|i| geometric(i, 500.0)).collect();
    let users = ranks * seats;
    let r = Requests {
        arrival_ps: vec![0; n],
        isl,
        osl,
        closed: Some(Closed { users, think_ps: 0 }),
        ..Requests::default()
    };
    let o = run(&unit(ranks, seats), &r, &Settings::default());
    assert_eq!(o.counts().0, n);
    let whole = r.osl.iter().map(|o| f64::from(*o)).sum::<f64>() / (o.end_ps as f64 / 1e3) / f64::from(ranks + 1);
    // All tokens up to the time when no new request is left to take a free place.
    let mut ends = o.finish_ps;
    ends.sort_unstable();
    let full = ends[n - users as usize];
    let o = run(&unit(ranks, seats), &r, &Settings { stop_ps: Some(full), ..Settings::default() });
    (o.usage[0].decode_tokens as f64 / (full as f64 / 1e3) / f64::from(ranks + 1), whole)
}

/// Mean-field theory of the paper: r B / ((r + 1) tau).
fn theory(ranks: u32) -> f64 {
    let (r, b) = (f64::from(ranks), f64::from(B));
    let attention = LINES.alpha_a * b * 600.0 + LINES.beta_a;
    let wire = LINES.alpha_c * b + LINES.beta_c;
    let ffn = LINES.alpha_f * r * b + LINES.beta_f;
    r * b / ((r + 1.0) * attention.max(wire).max(ffn) / 1e3)
}

/// The paper's simulation peaks at r = 8-9, and so does this one. Its 15 % below theory at r = 32 is a matter
/// of the horizon, not of the barrier: two batches of 256 in flight hide the barrier where the FFN is the
/// bottleneck, so while all places are taken r = 32 meets theory. What is lost is lost at the end, when places
/// run empty (the last of 16,384 answers is 4,900 tokens long): 6 % of a run of 10,000 requests per instance,
/// 16 % of one of 3,500. An independent simulation of the six states in numpy says the same of another drawing
/// (1.000 while full; 0.955 and 0.867 over the whole runs; queues per instance cost 1 % more). Two batches of
/// 128 would give 0.886 of theory at r = 32 while full, but then the peak is at r = 4-6. Which horizon or
/// clock stop the paper's figure has is not said.
#[test]
fn the_published_optimum() {
    let mut text = String::new();
    let mut ratio = |r: u32| {
        let ((full, whole), t) = (throughput(r, 2 * B, 10_000), theory(r));
        text += &format!("r {r}: {full:.4} full ({:.3} of theory), {whole:.4} whole ({:.3})\n", full / t, whole / t);
        (full, full / t, whole / t)
    };
    let found = [7, 8, 9, 10].map(&mut ratio);
    let wide = ratio(32);
    println!("{text}");
    let best = found.iter().enumerate().max_by(|a, b| a.1.0.total_cmp(&b.1.0)).unwrap().0 + 7;
    assert!((8..=9).contains(&best), "peak at {best}\n{text}");
    assert!(found.iter().all(|f| f.1 > 0.93 && f.1 < 0.98), "{text}");
    assert!((wide.1 - 1.0).abs() < 0.01 && (wide.2 - 0.943).abs() < 0.02, "{text}");
    let short = throughput(32, 2 * B, 3500).1 / theory(32);
    assert!((short - 0.84).abs() < 0.02, "{short} of theory over a run of 3,500 requests per instance");
}
