//! Intervals of the simulator cover as often as they say: the means of long runs, by many short ones.

use std::sync::Arc;

use disagg::control::Control;
use disagg::serving::Engine;
use disagg::sim::statistics::Interval;
use disagg::sim::trace::draw;
use disagg::sim::{Deployment, Settings, Timing, Transfer, metrics, simulate};
use disagg::spec::assumptions::FirstToken;
use disagg::spec::{Distribution, Plan, Role, Workload};
use rayon::prelude::*;

use crate::lab;

const MS: u64 = 1_000_000_000;

/// One instance, four of them, and prefill with decode: steps of 50 ms and 15 ms; and an AFD unit at its own prices.
fn deployments() -> [(&'static str, Deployment); 4] {
    let timing = || Timing::Fixed { prefill_ps: 50 * MS, decode_ps: 15 * MS };
    let mut pd = Deployment::uniform(2, 64, 2048, timing());
    let mut decode = pd.pools[0].clone();
    pd.pools[0].role = Role::Prompts;
    (decode.role, decode.max_seqs) = (Role::Decode, 32);
    pd.pools.push(decode);
    pd.transfer = Transfer::Line { latency_ps: MS, ps_per_token: 1e7 };
    pd.first_token = FirstToken::Decode;
    let mut afd = lab::afd_plan(lab::pool(8, 1), lab::pool(8, 1), 3);
    (afd.batch, afd.chunk_tokens) = (Some(64), Some(2048));
    [
        ("one", Deployment::uniform(1, 16, 2048, timing())),
        ("four", Deployment::uniform(4, 64, 8192, timing())),
        ("pd", pd),
        ("afd", Deployment::of(&Arc::new(Engine::new(&lab::v32(), &workload(), &Plan::Afd(afd)).unwrap()))),
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

/// Of 100 runs, those whose interval covers the mean, and those whose interval has both ends: TTFT, TPOT, e2e.
struct Covered {
    covers: [f64; 3],
    ends: [f64; 3],
    /// Of those with both ends.
    bounded: [f64; 3],
}

fn means(s: &metrics::Summary) -> [Interval; 3] {
    [s.ttft_ms, s.tpot_ms, s.e2e_ms].map(|i| i.unwrap())
}

/// Means of an endless run: of `long` runs of `n` requests.
fn truth(d: &Deployment, rate: f64, n: usize, long: u64) -> [f64; 3] {
    let one = |s: u64| means(&summary(d, rate, n, 1_000_000 + s)).map(|i| i.mean);
    let runs: Vec<[f64; 3]> = (0..long).into_par_iter().map(one).collect();
    std::array::from_fn(|k| runs.iter().map(|r| r[k]).sum::<f64>() / long as f64)
}

/// `seeds` runs of `n` requests. An end that a run does not give covers what lies on that side, and a run that calls
/// itself short or unstable gives none: both say so.
fn covered(d: &Deployment, rate: f64, n: usize, seeds: u64, truth: [f64; 3]) -> Covered {
    let runs: Vec<[Interval; 3]> = (0..seeds).into_par_iter().map(|s| means(&summary(d, rate, n, s))).collect();
    let share = |of: &dyn Fn(&Interval, usize) -> bool| {
        std::array::from_fn(|k| 100.0 * runs.iter().filter(|r| of(&r[k], k)).count() as f64 / seeds as f64)
    };
    let covers = |i: &Interval, k: usize| i.ends_95().is_none_or(|(low, high)| (low..=high).contains(&truth[k]));
    let ends = share(&|i, _| i.half_95.is_some());
    let both = share(&|i, k| i.half_95.is_some() && covers(i, k));
    Covered { covers: share(&covers), ends, bounded: std::array::from_fn(|k| 100.0 * both[k] / ends[k]) }
}

/// Seconds of CPU: 60 seeds a load. Of 60 true 95 % intervals fewer than 52 (86.6 %) cover once in 150 times.
#[test]
fn intervals_cover() {
    let [(_, one), (_, four), (_, pd), _] = deployments();
    for (d, load, n, ended) in [(one, 0.5, 6000, 70.0), (four, 0.8, 3000, 90.0), (pd, 0.95, 20_000, 30.0)] {
        let rate = load * capacity(&d);
        let found = covered(&d, rate, n, 60, truth(&d, rate, 60_000, 12));
        assert!(found.covers.iter().all(|c| *c >= 86.6), "{:?} of 100 at {load}", found.covers);
        // Those with both ends, by the bound that stood when every run had them.
        assert!(found.bounded.iter().all(|c| *c >= 81.6), "{:?} with ends at {load}", found.bounded);
        assert!(found.ends.iter().all(|c| *c >= ended), "{:?} of 100 have an end at {load}", found.ends);
    }
}

/// All of it: 200 seeds at three loads, four deployments; `cargo test --release --test rust coverage -- --ignored
/// --nocapture`. Prints a row each. Of 200 true 95 % intervals fewer than 181 (90.5 %) cover once in 250 times; the
/// bound is below that, for the AFD unit of 512 seats has hardly been there a hundred times in 50,000 requests.
#[test]
#[ignore = "minutes of CPU"]
fn intervals_cover_at_every_load() {
    let (mut low, mut all) = (Vec::new(), Vec::new());
    for (name, d) in deployments() {
        let full = capacity(&d);
        for (load, many) in [(0.5, 30_000), (0.8, 30_000), (0.95, 50_000)] {
            let truth = truth(&d, load * full, 500_000, 12);
            for n in [3000, many] {
                let found = covered(&d, load * full, n, 200, truth);
                let said = |k: usize| {
                    format!("{:.1} % ({:.0} % with ends: {:.1} %)", found.covers[k], found.ends[k], found.bounded[k])
                };
                println!("{name} {load} {n}: TTFT {}, TPOT {}, e2e {}", said(0), said(1), said(2));
                if n > 3000 {
                    all.extend(found.covers);
                    low.extend(found.covers.iter().filter(|c| **c < 88.0).map(|c| format!("{name} {load}: {c}")));
                }
            }
        }
    }
    let middle = all.iter().sum::<f64>() / all.len() as f64;
    println!("all long runs: {middle:.1} %");
    assert!(low.is_empty() && (92.0..=97.0).contains(&middle), "{middle}: {low:?}");
}
