//! Drawn traces: Poisson and Gamma arrivals, closed loops.
//!
//! PCG64 (O'Neill 2014) with one stream for arrivals and one for lengths, so that a change of rate
//! keeps the lengths; Gamma gaps by Marsaglia and Tsang (2000). Same seed, same bits.
//!
//! Limit: renewal arrivals at one rate: no days, no sessions, no correlation between gaps.

use rand_pcg::Pcg64;
use rand_pcg::rand_core::Rng;

use super::Trace;
use crate::error::{Error, Problems, Result};
use crate::sim::{Closed, Requests, to_ps};
use crate::spec::Workload;

const ARRIVALS: u128 = 1;
const LENGTHS: u128 = 2;

/// A uniform number in [0, 1) with 53 bits.
pub fn uniform(rng: &mut Pcg64) -> f64 {
    (rng.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
}

pub(super) fn exponential(rng: &mut Pcg64) -> f64 {
    -(1.0 - uniform(rng)).ln()
}

fn normal(rng: &mut Pcg64) -> f64 {
    let r = (2.0 * exponential(rng)).sqrt();
    r * (std::f64::consts::TAU * uniform(rng)).cos()
}

/// Gamma of a shape and mean 1.
pub(super) fn gamma(rng: &mut Pcg64, shape: f64) -> f64 {
    if shape < 1.0 {
        let boost = (1.0 - uniform(rng)).powf(1.0 / shape);
        return gamma(rng, shape + 1.0) * (shape + 1.0) * boost / shape;
    }
    let d = shape - 1.0 / 3.0;
    let c = 1.0 / (9.0 * d).sqrt();
    loop {
        let x = normal(rng);
        let v = (1.0 + c * x).powi(3);
        if v > 0.0 && (1.0 - uniform(rng)).ln() < 0.5 * x * x + d - d * v + d * v.ln() {
            return d * v / shape;
        }
    }
}

/// A Gamma gap of mean 1.
pub(super) fn gap(rng: &mut Pcg64, cv: f64) -> f64 {
    match cv {
        0.0 => 1.0,
        1.0 => exponential(rng),
        _ => gamma(rng, 1.0 / (cv * cv)),
    }
}

/// Lengths of `n` requests of a workload; the prompt counts its prefix.
pub(crate) fn lengths(workload: &Workload, n: usize, seed: u64) -> Requests {
    let mut rng = Pcg64::new(u128::from(seed), LENGTHS);
    let mut r = Requests::default();
    let mut some = false;
    let draw = workload.sampler();
    for _ in 0..n {
        let u = [uniform(&mut rng), uniform(&mut rng), uniform(&mut rng)];
        let [prefix, new, answer] = draw(u);
        some |= prefix > 0;
        r.prefix.push(prefix);
        r.isl.push(prefix.saturating_add(new));
        r.osl.push(answer);
    }
    if !some {
        r.prefix.clear();
    }
    r
}

/// Arrival times with Gamma gaps (`cv` = 1: Poisson), picoseconds.
pub(crate) fn arrivals(n: usize, rate: f64, cv: f64, seed: u64) -> Vec<u64> {
    let mut rng = Pcg64::new(u128::from(seed), ARRIVALS);
    let mut now = 0_u64;
    (0..n)
        .map(|_| {
            now = now.saturating_add(to_ps(gap(&mut rng, cv) / rate));
            now
        })
        .collect()
}

/// Everything wrong with a rate, a spread and a number of requests.
pub(crate) fn check(rate: f64, cv: f64, n: usize) -> Result<()> {
    let mut p = Problems::new();
    if !(rate > 0.0 && rate.is_finite()) {
        p.push("rate", format!("must be above 0, is {rate}"), "requests per second");
    }
    if !((0.0..=100.0).contains(&cv) && (cv == 0.0 || cv >= 0.01)) {
        p.push("cv", format!("must be 0 or from 0.01 to 100, is {cv}"), "1 is Poisson, 0 is even");
    }
    if n == 0 || n > 100_000_000 {
        p.push("n", format!("must be from 1 to 1e8, is {n}"), "");
    }
    p.into_result()
}

/// Gamma renewal arrivals of requests of a workload.
pub fn open(workload: &Workload, rate: f64, cv: f64, n: usize, seed: u64) -> Result<Trace> {
    check(rate, cv, n)?;
    workload.check().into_result()?;
    let requests = Requests { arrival_ps: arrivals(n, rate, cv, seed), ..lengths(workload, n, seed) };
    Ok(Trace { requests, source: format!("drawn: rate {rate}/s, cv {cv}, seed {seed}"), skipped: 0, notes: Vec::new() })
}

/// `users` with one request at a time and a pause after each answer.
pub fn closed(workload: &Workload, users: u32, n: usize, think_s: f64, seed: u64) -> Result<Trace> {
    check(1.0, 1.0, n)?;
    workload.check().into_result()?;
    if users == 0 {
        return Err(Error::spec("concurrency", "is 0", "at least one user"));
    }
    if !(think_s >= 0.0 && think_s.is_finite()) {
        return Err(Error::spec("think_s", format!("must not be below 0, is {think_s}"), "seconds"));
    }
    let mut requests = lengths(workload, n, seed);
    requests.arrival_ps = vec![0; n];
    requests.closed = Some(Closed { users, think_ps: to_ps(think_s) });
    Ok(Trace { requests, source: format!("closed loop of {users} users, seed {seed}"), skipped: 0, notes: Vec::new() })
}
