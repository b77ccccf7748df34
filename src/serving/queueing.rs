//! Open loop: requests that come at a rate of their own, and the wait for prefill that makes.
//!
//! Prefill servers (attention ranks, all workers or replicas) work off one queue. Mean wait after
//! Allen and Cunneen for G/G/m:
//!
//! ```text
//! W = C(m, a) / (m mu - lambda) (ca^2 + cs^2)/2,     a = lambda/mu,  C: Erlang's delay formula
//! ```
//!
//! exact for M/M/m; arrivals are Poisson (ca^2 = 1), service varies as the new tokens do (time
//! taken as linear in them: cs^2 = Var ISL / (E ISL)^2). Source: A. O. Allen, Probability,
//! Statistics and Queueing Theory (1990), section 5.3. The batches shrink to what the rate needs.
//! Limits: one central queue (a router that knows which rank is free); decode is never waited for
//! below capacity. The simulator is the judge.

use super::aggregated;
use super::engine::{Compiled, Engine};
use super::pd;
use super::point::Point;
use crate::error::{Error, Result};
use crate::spec::{Plan, Slot, Workload};

/// The name that results carry.
pub const FORMULA: &str = "Allen-Cunneen, Poisson arrivals, one queue for all prefill ranks";

/// Probability that an arrival waits in M/M/m with offered load `a` < m.
pub fn erlang_c(m: f64, a: f64) -> f64 {
    // Erlang B by its recurrence, one server at a time.
    let mut b = 1.0;
    for k in 1..=m as u32 {
        b = a * b / (f64::from(k) + a * b);
    }
    b / (1.0 - (a / m) * (1.0 - b))
}

/// Mean wait of `rate` arrivals a second for one of `m` servers of mean service time `service`.
pub fn wait(rate: f64, m: f64, service: f64, ca2: f64, cs2: f64) -> f64 {
    let a = rate * service;
    if a >= m {
        return f64::INFINITY;
    }
    erlang_c(m, a) * service / (m - a) * 0.5 * (ca2 + cs2)
}

/// Squared coefficient of variation of the new tokens.
fn variation(w: &Workload) -> f64 {
    let mean = w.means().isl;
    if w.lengths.is_empty() {
        return w.isl.variance() / (mean * mean);
    }
    let n = w.lengths.len() as f64;
    w.lengths.iter().map(|l| (l[1] - mean).powi(2)).sum::<f64>() / n / (mean * mean)
}

impl Engine {
    /// The same plan fed `rate` requests a second instead of as many as it can hold: the point, and
    /// the wait in front of prefill that its TTFT contains.
    pub fn at_load(&self, rate: f64) -> Result<(Point, f64)> {
        if !(rate.is_finite() && rate > 0.0) {
            return Err(Error::spec("load", format!("{rate} is not a rate"), "requests per second, above 0"));
        }
        if !self.point.stands() {
            return Ok((self.point, 0.0));
        }
        let most = self.point.requests_per_s;
        if rate >= most {
            return Err(Error::Infeasible {
                reason: format!("load: the queue grows without end ({})", self.limit()),
                need: format!("{rate:.4} requests/s"),
                have: format!("{most:.4} requests/s"),
            });
        }
        let cs2 = variation(&self.workload);
        match (&self.compiled, &self.plan) {
            (Compiled::Mixed { stepper, replicas }, plan) => {
                let (batch, chunk) = match plan {
                    Plan::Aggregated(a) => (a.batch, a.chunk_tokens),
                    Plan::Afd(a) => (a.batch, a.chunk_tokens),
                    Plan::Pd(_) => (None, None),
                };
                let (slots, chunk) = (f64::from(batch.unwrap_or(1)), f64::from(chunk.unwrap_or(1)));
                let at = |b: f64| aggregated::solve(stepper, &self.load, b, chunk, *replicas);
                let mut point = bisect(slots, rate, at);
                let servers = stepper.ranks() * stepper.stages_in_flight() * f64::from(*replicas);
                let waited = wait(rate, servers, point.ttft_s, 1.0, cs2);
                point.ttft_s += waited;
                point.requests_per_s = rate;
                // By Little: those in service and those that wait.
                point.concurrency = rate * (point.ttft_s + (self.load.osl - 1.0) * point.tpot_s);
                Ok((point, waited))
            }
            (Compiled::Pd { prefill, prefill_count, decode, decode_count }, Plan::Pd(plan)) => {
                let (sequences, chunk) = match &plan.prefill {
                    Slot::Workers(w) => (w.batch, w.chunk_tokens),
                    Slot::Afd(a) => (a.batch, a.chunk_tokens),
                };
                let sequences = f64::from(sequences.unwrap_or(1));
                let chunk = chunk.map_or(self.load.isl, f64::from);
                let batch = match &plan.decode {
                    Slot::Workers(w) => w.batch,
                    Slot::Afd(a) => a.batch,
                };
                let side = pd::prefill_side(prefill, &self.load, sequences, chunk);
                let full = pd::decode_side(decode, &self.load, f64::from(batch.unwrap_or(1)));
                let (np, nd) = (*prefill_count, *decode_count);
                let mut point = pd::combine_at(prefill, &side, np, decode, &full, nd, &self.load, rate);
                let servers = f64::from(np) * side.prefill.requests;
                let waited = wait(rate, servers, side.prefill.period_s, 1.0, cs2);
                point.ttft_s += waited;
                point.concurrency += rate * waited;
                Ok((point, waited))
            }
            _ => Ok((self.point, 0.0)),
        }
    }

    /// The engine with its point at that load, and the wait.
    pub fn loaded(mut self, rate: f64) -> Result<Engine> {
        let (point, waited) = self.at_load(rate)?;
        self.point = point;
        self.open_loop = Some((rate, waited));
        Ok(self)
    }

    /// What sets the most that the plan serves.
    fn limit(&self) -> String {
        let label = self.point.binding.label();
        if label.is_empty() { "its slots".into() } else { label }
    }
}

/// The point with as many slots as give `rate`; the rate rises with the slots.
fn bisect(most: f64, rate: f64, at: impl Fn(f64) -> Point) -> Point {
    let (mut low, mut high) = (0.0, most);
    let mut point = at(high);
    for _ in 0..48 {
        let middle = 0.5 * (low + high);
        let tried = at(middle);
        if !tried.stands() || tried.requests_per_s < rate {
            low = middle;
        } else {
            high = middle;
            point = tried;
            if tried.requests_per_s - rate < 1e-6 * rate {
                break;
            }
        }
    }
    point
}
