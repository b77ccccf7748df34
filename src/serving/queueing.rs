//! Open loop: requests that come at a rate of their own (Poisson), and the waits that makes.
//!
//! TTFT = what waits outside (`path`) + rest of the step in flight + wait for room in a step or for a rank + own steps (`queueing/prompts`)
//! + P/D: KV transfer + wait for a seat + where decode makes the first token, the rest of its step in flight and its own. TPOT and the batch are those of the sequences that the rate keeps in decode.
//!
//! **Seats.** A request holds one of the batch's seats from admission to its last token; when all are taken it waits. The
//! deployment is a flow-equivalent server (Chandy, Herzog, Woo, IBM J. Res. Dev. 19, 1975): with n in hand it completes
//! what the closed loop of n gives, X(n) a second; the law of n and the wait beyond all seats are those of a crowd
//! (`queueing/crowd`). In P/D the seats are decode's: X(n) = n/((OSL - 1/2) step + KV wait), half a step because a sequence joins
//! at the end of the one in flight.
//!
//! **Prefill of P/D.** Ranks of several instances share a router that takes the rank with the fewest in hand and the lowest
//! number: an instance fills up to one prompt a rank before the next one gets any; workers of one rank are the servers
//! of one queue (M/D/c, Cosmetatos).
//!
//! Limits: the router is `least-loaded`; steps of prompts of unequal length are those of their mean; rushes longer than
//! a stay (trace arrivals) are not Poisson. The simulator is the judge (tests/rust/open_loop.rs: within 10 % of its TTFT up to
//! 90 % load).

mod bulk;
mod crowd;
mod overlap;
mod prompts;
mod rate;
mod spread;

use super::aggregated;
use super::engine::{Compiled, Engine};
use super::path::{self, Met};
use super::pd::{self, Several};
use super::steady_state::SteadyState;
use super::step_engine::StepEngine;
use crate::error::{Error, Result};
use crate::spec::assumptions::FirstToken;
use crate::spec::{Distribution, Plan, Slot, Workload};

pub use crowd::{Crowd, deterministic};
use prompts::{Clock, Fast};
pub use rate::{Arrivals, Held};
pub use spread::{Spread, Wait};

/// The name that results carry.
pub const FORMULA: &str = "Poisson arrivals: bulk service of prompts, flow-equivalent server for seats";

/// Probability that an arrival waits in M/M/m with offered load `a` < m.
pub fn erlang_c(m: f64, a: f64) -> f64 {
    // Erlang B by its recurrence, one server at a time.
    let mut b = 1.0;
    for k in 1..=m as u32 {
        b = a * b / (f64::from(k) + a * b);
    }
    b / (1.0 - (a / m) * (1.0 - b))
}

/// Squared coefficient of variation of a length.
fn variation(w: &Workload, of: impl Fn(&[f64; 3]) -> f64, drawn: &Distribution) -> f64 {
    if w.lengths.is_empty() {
        let mean = drawn.mean();
        return if mean > 0.0 { drawn.variance() / (mean * mean) } else { 0.0 };
    }
    let n = w.lengths.len() as f64;
    let mean = w.lengths.iter().map(&of).sum::<f64>() / n;
    w.lengths.iter().map(|l| (of(l) - mean).powi(2)).sum::<f64>() / n / (mean * mean).max(1e-12)
}

/// A plan under a load.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub point: SteadyState,
    /// Of TTFT: all that is neither its own steps nor KV on its way.
    pub wait_s: f64,
    /// The law of TTFT.
    pub ttft: Spread,
    /// TPOT by the number that decode beside it: (percent, seconds), rising.
    seats: Option<(Crowd, Vec<(f64, f64)>)>,
}

impl Loaded {
    /// TTFT and TPOT in seconds that `percentile` in a hundred do not exceed; none: their means.
    pub fn latencies(&self, percentile: Option<f64>) -> [f64; 2] {
        let Some(p) = percentile else { return [self.point.ttft_s, self.point.tpot_s] };
        let tpot = match &self.seats {
            // A request's TPOT goes with the number that decode beside it, which changes slower than a stay lasts.
            Some((crowd, rates)) => {
                let stay = |n: f64| n / along(rates, n).max(1e-300);
                let mean = crowd.inside.max(1.0);
                let most = crowd.quantile(p / 100.0).max(mean);
                self.point.tpot_s * (stay(most) / stay(mean)).max(1.0)
            }
            None => self.point.tpot_s,
        };
        [self.ttft.percentile(p).max(0.0), tpot]
    }
}

/// A line through points of rising x.
fn along(points: &[(f64, f64)], x: f64) -> f64 {
    let i = points.partition_point(|p| p.0 < x).clamp(1, points.len() - 1);
    let (a, b) = (points[i - 1], points[i]);
    a.1 + (b.1 - a.1) * ((x - a.0) / (b.0 - a.0)).clamp(0.0, 1.0)
}

/// Points of a curve from an eighth of `most` to all of it.
const POINTS: u32 = 8;

impl Engine {
    /// The same plan fed `rate` requests a second instead of as many as it can hold.
    ///
    /// # Errors
    /// A load that is no rate, or more than the plan serves.
    pub fn open(&self, rate: f64) -> Result<Loaded> {
        if !(rate.is_finite() && rate > 0.0) {
            return Err(Error::spec("load", format!("{rate} is not a rate"), "requests per second, above 0"));
        }
        let sure = |point: SteadyState| Loaded { point, wait_s: 0.0, ttft: Spread::sure(point.ttft_s), seats: None };
        if !self.point.stands() {
            return Ok(sure(self.point));
        }
        let most = self.point.requests_per_s;
        let grows = || Error::Infeasible {
            reason: format!("load: the queue grows without end ({})", self.limit()),
            need: format!("{rate:.4} requests/s"),
            have: format!("{most:.4} requests/s"),
        };
        if rate >= most {
            return Err(grows());
        }
        let found = match (&self.compiled, &self.plan) {
            (Compiled::Mixed { engine, replicas }, Plan::Aggregated(a)) => {
                self.mixed(engine, a.batch, a.chunk_tokens, *replicas, rate)
            }
            (Compiled::Mixed { engine, replicas }, Plan::Afd(a)) => {
                self.mixed(engine, a.batch, a.chunk_tokens, *replicas, rate)
            }
            (Compiled::Pd { prefill, prefill_count, decode, decode_count }, Plan::Pd(plan)) => {
                self.pair((prefill, *prefill_count, &plan.prefill), (decode, *decode_count, &plan.decode), rate)
            }
            _ => Some(sure(self.point)),
        };
        found.ok_or_else(grows)
    }

    /// [`Engine::open`]'s point, and the wait that its TTFT contains.
    pub fn at_load(&self, rate: f64) -> Result<(SteadyState, f64)> {
        self.open(rate).map(|l| (l.point, l.wait_s))
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

    fn steps(&self) -> f64 {
        (self.load.osl - 1.0).max(0.0) / self.library().serving.tokens_per_step()
    }

    /// Squared coefficient of variation of the stays in decode.
    fn stays(&self) -> f64 {
        variation(&self.workload, |l| l[2], &self.workload.osl)
    }

    fn mixed(
        &self,
        s: &StepEngine,
        batch: Option<u32>,
        chunk: Option<u32>,
        replicas: u32,
        rate: f64,
    ) -> Option<Loaded> {
        let (batch, chunk) = (f64::from(batch.unwrap_or(1)), f64::from(chunk.unwrap_or(1)));
        let (twins, steps) = (f64::from(replicas), self.steps());
        let interval = self.prefill_interval();
        let clock = Clock::new(s, &self.load, chunk, interval);
        if steps <= 0.0 {
            let fast = first_filled(&clock, replicas, rate)?;
            let path = path::mixed(self.library(), self.load.prompt(), &Met::one(0.0, 0.0, 0.0));
            return Some(self.compose(rate, fast, [0.0; 2], None, SteadyState { path, ..self.point }));
        }
        let arrivals = rate / twins;
        let slots = batch * clock.stages;
        // As many decode as the rate keeps there: b = arrivals steps t(b) / ranks, t rising in b.
        let (mut low, mut high) = (0.0, slots);
        let mut b = (self.point.decode_batch * clock.stages * rate / self.point.requests_per_s).clamp(0.0, slots);
        let mut found: Option<(f64, f64, Fast)> = None;
        for _ in 0..24 {
            let gap = match clock.prompts(arrivals, b, twins, true, None) {
                Some(fast) => {
                    let next = arrivals * steps * fast.step_s / clock.ranks;
                    let gap = next - b;
                    if found.as_ref().is_none_or(|f| gap.abs() < f.0.abs()) {
                        found = Some((gap, b, fast));
                    }
                    gap
                }
                None => -slots,
            };
            if gap.abs() < 2e-3 * b.max(0.1) {
                break;
            }
            if gap > 0.0 {
                low = b
            } else {
                high = b
            }
            b = if gap > -slots && b + gap > low && b + gap < high { b + gap } else { 0.5 * (low + high) };
        }
        let (gap, b, fast) = found?;
        if gap > 0.05 * slots {
            // Even with every seat taken it does not keep up.
            return None;
        }
        let ports = clock.ranks * twins;
        let mut rates = vec![(0.0, 0.0)];
        for i in 1..=POINTS {
            let decoding = b / clock.stages * 0.5 + (batch - 0.5 * b / clock.stages) * f64::from(i) / f64::from(POINTS);
            let at = aggregated::closed(s, &self.load, decoding, chunk, interval);
            if let Some((x, prompt_s)) = at.filter(|(x, _)| x.is_finite() && *x > 0.0) {
                let n = (decoding * clock.stages * ports) + x * twins * prompt_s;
                let x = (x * twins).max(rates[rates.len() - 1].1);
                if n > rates[rates.len() - 1].0 {
                    rates.push((n, x));
                }
            }
        }
        let places = (slots * ports).round().max(1.0) as usize;
        let crowd = self.seats(rate, places, rates);
        // The rest of the step in flight stands in the wait.
        let busy = 1.0 - (-b * clock.ranks).exp();
        let (step_s, next_s) = (fast.step_s, fast.next_s);
        let met = Met { step_s, rest_s: 0.0, next_s, decode_s: clock.decode(b), busy, arrivals: arrivals * step_s };
        let point = SteadyState {
            tpot_s: fast.step_s / self.library().serving.tokens_per_step(),
            decode_batch: b / clock.stages,
            itl_worst_s: self.point.itl_worst_s,
            path: path::mixed(self.library(), self.load.prompt(), &met),
            ..self.point
        };
        Some(self.compose(rate, fast, [0.0; 2], crowd, point))
    }

    /// The law of all that is in hand; what the closed loop cannot tell apart from full is full.
    fn seats(&self, rate: f64, places: usize, mut rates: Vec<(f64, f64)>) -> Option<(Crowd, Vec<(f64, f64)>)> {
        let last = *rates.last()?;
        if rates.len() < 2 {
            return None;
        }
        if last.0 < places as f64 {
            rates.push((places as f64, last.1.max(self.point.requests_per_s)));
        }
        let crowd = Crowd::new(rate, places, self.stays(), |n| along(&rates, n));
        crowd.map(|c| (c, rates))
    }

    fn pair(&self, p: (&StepEngine, u32, &Slot), d: (&StepEngine, u32, &Slot), rate: f64) -> Option<Loaded> {
        let ((prefill, np, prefill_slot), (decode, nd, decode_slot)) = (p, d);
        let (sequences, chunk, rounds) = match prefill_slot {
            Slot::Workers(w) => (w.batch, w.chunk_tokens, 1),
            Slot::Afd(a) => (a.batch, a.chunk_tokens, a.microbatches.unwrap_or(1)),
        };
        let sequences = f64::from(sequences.unwrap_or(1));
        let chunk = chunk.map_or(self.load.isl, f64::from);
        let batch = match decode_slot {
            Slot::Workers(w) => w.batch,
            Slot::Afd(a) => a.batch,
        };
        let batch = f64::from(batch.unwrap_or(1));
        let side = pd::prefill_side(prefill, &self.load, sequences, chunk);
        let full = pd::decode_side(decode, &self.load, batch);
        let point = pd::combine_at(Several::of(prefill, &side, np), Several::of(decode, &full, nd), &self.load, rate);
        let clock = Clock::new(prefill, &self.load, chunk * sequences * f64::from(rounds), 1);
        let mut fast = first_filled(&clock, np, rate)?;
        // KV on the ports slows prefill as much as in the closed loop.
        let shipped = point.kv.wait_s + point.kv.prefill_s;
        fast.spread.shift(shipped);
        let again = pd::first_token(self.library()) == FirstToken::DecodeStep && self.steps() > 0.0;
        let step = point.itl_worst_s;
        let beside = point.decode_batch * decode.ranks() * decode.stages_in_flight();
        let busy = 1.0 - (-beside).exp();
        let path = path::pair(self.library(), self.load.prompt(), &Met::one(step, busy, 0.0));
        let point = SteadyState { path, ..point };
        if again {
            // Decode makes the first token: the rest of the step in flight, if there is one, and its own.
            let joins = 0.5 * step * busy;
            fast.spread.shift(joins + step);
            fast.ttft_s += joins + step;
            fast.own_s += step;
        }
        if self.steps() <= 0.0 {
            return Some(self.compose(rate, fast, [shipped, 0.0], None, point));
        }
        let clock = Clock::new(decode, &self.load, f64::INFINITY, 1);
        let slots = batch * clock.stages;
        let ports = clock.ranks * f64::from(nd);
        let mut rates = vec![(0.0, 0.0)];
        let stay = pd::decoded(self.library(), self.load.osl) / self.library().serving.tokens_per_step() + 0.5;
        for i in 1..=POINTS {
            let b = slots * f64::from(i) / f64::from(POINTS);
            let step = clock.decode(b) + point.kv.decode_s * b / (point.decode_batch * clock.stages).max(1e-9);
            rates.push((b * ports, b * ports / (stay * step + point.kv.wait_s)));
        }
        let places = (slots * ports).round().max(1.0) as usize;
        let crowd = self.seats(rate, places, rates);
        // Where the first token leaves as decode takes the request in, its first gap has nothing of that.
        let joins = if again || path.hand_over > 0.0 { 0.0 } else { point.tpot_s * 0.5 };
        Some(self.compose(rate, fast, [shipped, joins], crowd, point))
    }

    fn compose(
        &self,
        rate: f64,
        fast: Fast,
        [shipped_s, joins_s]: [f64; 2],
        seats: Option<(Crowd, Vec<(f64, f64)>)>,
        point: SteadyState,
    ) -> Loaded {
        let (delay, seat_s) = seats.as_ref().map_or((0.0, 0.0), |(c, _)| (c.delay, c.wait_s));
        let mut ttft = fast.spread;
        ttft.waits[1] = Wait::of(delay, seat_s);
        let path_s = point.path.total_s();
        ttft.shift(path_s);
        let ttft_s = fast.ttft_s + shipped_s + seat_s + path_s;
        // A sequence joins decode at the end of the step in flight, which its first gap contains.
        let tpot_s = point.tpot_s + if self.load.osl > 1.0 { joins_s / (self.load.osl - 1.0) } else { 0.0 };
        let decoded_s = (self.load.osl - 1.0) * tpot_s;
        let point = SteadyState {
            ttft_s,
            tpot_s,
            requests_per_s: rate,
            // By Little: those in service and those that wait.
            concurrency: rate * (ttft_s + decoded_s),
            ..point
        };
        Loaded { point, wait_s: ttft_s - fast.own_s - shipped_s - path_s, ttft, seats }
    }
}

/// Instances that only prefill, `rate` prompts a second on all of them.
fn first_filled(clock: &Clock, instances: u32, rate: f64) -> Option<Fast> {
    let n = f64::from(instances);
    // One prompt at a time: the servers of one queue.
    if clock.ranks <= 1.0 && clock.budget < 2.0 * clock.load.isl {
        return clock.servers(rate, n);
    }
    if instances == 1 {
        return clock.prompts(rate, 0.0, 1.0, false, None);
    }
    let even = || clock.prompts(rate / n, 0.0, 1.0, false, None);
    let ports = clock.ranks as usize;
    if clock.budget < clock.load.isl {
        return clock.prompts(rate / n, 0.0, n, false, None);
    }
    let mut left = rate;
    let mut parts: Vec<(f64, Fast)> = Vec::new();
    for i in 0..instances {
        if i + 1 == instances {
            match clock.prompts(left, 0.0, 1.0, false, None) {
                Some(f) if f.in_hand <= clock.ranks => parts.push((left, f)),
                // All ranks have one: the router deals evenly.
                _ => return even(),
            }
            break;
        }
        let Some(f) = clock.prompts(left, 0.0, 1.0, false, Some(ports)) else { return even() };
        let (kept, over) = (left * (1.0 - f.lost), left * f.lost);
        parts.push((kept, f));
        left = over;
        if left < 1e-4 * rate {
            break;
        }
    }
    let sum: f64 = parts.iter().map(|p| p.0).sum();
    let mean = |f: &dyn Fn(&Fast) -> f64| parts.iter().map(|(r, x)| r * f(x)).sum::<f64>() / sum;
    let (ttft_s, own_s, step_s) = (mean(&|x| x.ttft_s), mean(&|x| x.own_s), mean(&|x| x.step_s));
    let mut body = Vec::new();
    for (r, f) in &parts {
        let weight: f64 = f.spread.body.iter().map(|v| v.1).sum();
        body.extend(f.spread.body.iter().map(|(t, w)| (*t, w / weight * r / sum)));
    }
    Some(Fast {
        spread: Spread { body, ..Spread::default() },
        ttft_s,
        own_s,
        step_s,
        next_s: 0.0,
        in_hand: rate * ttft_s,
        lost: 0.0,
    })
}
