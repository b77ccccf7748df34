//! Intervals of the simulator cover as often as they say: the means of long runs, by many short ones.

use disagg::control::Control;
use disagg::sim::trace::draw;
use disagg::sim::{Deployment, Settings, Timing, Transfer, metrics, simulate};
use disagg::spec::assumptions::FirstToken;
use disagg::spec::{Distribution, Role, Workload};
use rayon::prelude::*;

const MS: u64 = 1_000_000_000;

/// One instance, four of them, and prefill with decode: steps of 50 ms and 15 ms.
fn deployments() -> [(&'static str, Deployment); 3] {
    let timing = || Timing::Fixed { prefill_ps: 50 * MS, decode_ps: 15 * MS };
    let mut pd = Deployment::uniform(2, 64, 2048, timing());
    let mut decode = pd.pools[0].clone();
    pd.pools[0].role = Role::Prompts;
    (decode.role, decode.max_seqs) = (Role::Decode, 32);
    pd.pools.push(decode);
    pd.transfer = Transfer::Line { latency_ps: MS, ps_per_token: 1e7 };
    pd.first_token = FirstToken::Decode;
    [
        ("one", Deployment::uniform(1, 16, 2048, timing())),
        ("four", Deployment::uniform(4, 64, 8192, timing())),
        ("pd", pd),
    ]
}

fn workload() -> Workload {
    let lengths = |mean: f64| Distribution::Lognormal { mean, p90: 2.0 * mean };
    Workload { isl: lengths(900.0), osl: lengths(180.0), ..Workload::fixed("w", 0.0, 1.0, 1.0) }
}

fn summary(d: &Deployment, rate: f64, n: usize, seed: u64) -> metrics::Summary {
    let r = draw::open(&workload(), rate, 1.0, n, seed).unwrap().requests;
    let o = simulate(d, &r, &Settings::default(), &Control::new()).unwrap();
    metrics::summary(&r, &o, 1)
}

/// What it serves where all come at once.
fn capacity(d: &Deployment) -> f64 {
    let r = draw::open(&workload(), 1e5, 1.0, 20_000, 99).unwrap().requests;
    let mut ends = simulate(d, &r, &Settings::default(), &Control::new()).unwrap().finish_ps;
    ends.sort_unstable();
    16_000.0 / ((ends[18_000] - ends[2_000]) as f64 / 1e12)
}

/// How many of `seeds` runs of `n` requests cover the mean of `long` runs ten times as long: TTFT, TPOT, e2e.
fn covered(d: &Deployment, rate: f64, n: usize, seeds: u64, long: u64) -> [usize; 3] {
    let means = |s: &metrics::Summary| [s.ttft_ms, s.tpot_ms, s.e2e_ms].map(|i| i.unwrap());
    let truth: Vec<[f64; 3]> =
        (0..long).into_par_iter().map(|s| means(&summary(d, rate, 10 * n, 1_000_000 + s)).map(|i| i.mean)).collect();
    let truth: [f64; 3] = std::array::from_fn(|k| truth.iter().map(|t| t[k]).sum::<f64>() / long as f64);
    let runs: Vec<[bool; 3]> = (0..seeds)
        .into_par_iter()
        .map(|s| {
            let found = means(&summary(d, rate, n, s));
            std::array::from_fn(|k| (found[k].mean - truth[k]).abs() <= found[k].half_95.unwrap_or(0.0))
        })
        .collect();
    std::array::from_fn(|k| runs.iter().filter(|r| r[k]).count())
}

/// Seconds of CPU: 60 seeds where runs are long enough. Of 60 true 95 % intervals fewer than 49 cover once in 2,000 times.
#[test]
fn intervals_cover() {
    let [(_, one), (_, four), _] = deployments();
    for (d, load, n) in [(one, 0.5, 6000), (four, 0.8, 3000)] {
        let rate = load * capacity(&d);
        let found = covered(&d, rate, n, 60, 6);
        assert!(found.iter().all(|c| *c >= 49), "{found:?} of 60 at {load}");
    }
}

/// All of it: 200 seeds at three loads, three deployments; `cargo test --release --test rust coverage -- --ignored
/// --nocapture`. Prints a row each.
#[test]
#[ignore = "minutes of CPU"]
fn intervals_cover_at_every_load() {
    let mut low = Vec::new();
    for (name, d) in deployments() {
        let full = capacity(&d);
        for (load, n) in [(0.5, 3000), (0.5, 30_000), (0.8, 3000), (0.8, 30_000), (0.95, 3000), (0.95, 50_000)] {
            let found = covered(&d, load * full, n, 200, 12).map(|c| c as f64 / 2.0);
            println!("{name} {load} {n}: TTFT {:.1} %, TPOT {:.1} %, e2e {:.1} %", found[0], found[1], found[2]);
            low.extend(found.iter().filter(|c| **c < 88.0 && n > 3000).map(|c| format!("{name} {load} {n}: {c}")));
        }
    }
    assert!(low.is_empty(), "{low:?}");
}
