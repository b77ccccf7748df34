//! Rates with arrivals of their own: after a search in the closed loop, who leads when requests come as they please.
//!
//! A plan that its closed loop drives too hard (TTFT or TPOT over the limit) may keep the limits at a lower load, so rows
//! are not judged by their closed-loop latencies. Two facts order the search instead. A plan serves no more with Poisson arrivals
//! than its closed loop. And the mean TPOT at a rate depends on the layout and what decodes at that rate, not on how many
//! seats stand ready: beyond the closed rate of the most sequences whose TPOT keeps the limit no batch of the layout keeps
//! it. So the rows within the TPOT limit, by falling closed rate, are bounds on their layouts: each is tried with its own
//! seats and with more (waiting for a seat is what limits them), as far as memory goes, and when the next bound is not above
//! the best rate found, none that follows is ([`Leader::proved`]; a row that the scan only read counts
//! [`near::NEAR`] more). The TPOT limit is widened by as much as neighbours on the grid of batches are apart.
//!
//! The leaders are then simulated: the same requests at every rate and for every plan (common random numbers), the first quarter
//! left out, means with intervals by batch means (`sim::statistics`). Rate: the highest at which the limits hold in the
//! simulation, by bisection; low and high: the same for the ends of the interval. A percentile counts the share of requests
//! over the limit. Limits: one stream of requests; at most [`MOST`] bounds are tried a level.

use std::sync::Arc;

use rayon::prelude::*;

use super::explore::Question;
use super::near::{self, NEAR};
use super::row::Row;
use crate::control::Control;
use crate::cost::Library;
use crate::error::Result;
use crate::serving::queueing::{Arrivals, Held};
use crate::serving::{Engine, point};
use crate::sim::statistics::interval;
use crate::sim::trace::draw;
use crate::sim::{Deployment, NEVER, Settings, pricers, simulate_with};
use crate::spec::{Slo, Workload};

/// Bounds tried of a level at most, and at a time.
pub const MOST: usize = 3000;
const TOGETHER: usize = 16;
/// Seats tried, by those of the row.
const SEATS: [f64; 4] = [1.0, 1.25, 1.6, 2.5];
/// TPOT over the limit up to which a row bounds its layout: batches lie up to a fifth apart.
const WIDER: f64 = 1.2;

/// What leads a level with Poisson arrivals.
#[derive(Clone, Debug)]
pub struct Leader {
    /// The plan; its point is that of its closed loop.
    pub row: Row,
    pub held: Held,
    /// Whether no other plan looked at can serve more.
    pub proved: bool,
    pub simulated: Option<Simulated>,
}

/// Requests a second at which the limits hold in the simulation: at the mean, and at the ends of its 95 % interval.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Simulated {
    pub rate: f64,
    pub low: f64,
    pub high: f64,
}

/// The leader of one level among `rows` (all levels), and whether there is one.
pub fn leader(
    q: &Question,
    libraries: &[Arc<Library>],
    rows: &[Row],
    level: u8,
    control: &Control,
) -> Result<Option<Leader>> {
    let limit = q.slo.tpot_ms.map_or(f64::INFINITY, |t| t * 1e-3 * WIDER);
    let claims = |r: &Row| r.point.requests_per_s * if r.scanned { 1.0 + NEAR } else { 1.0 };
    let mut bounds = near::filter(rows, |r| r.level == level && r.point.stands() && r.point.tpot_s <= limit);
    bounds.sort_by(|a, b| claims(&rows[*b]).total_cmp(&claims(&rows[*a])).then(a.cmp(b)));
    let total = bounds.len();
    bounds.truncate(MOST);
    let mut best: Option<Leader> = None;
    let mut proved = total <= MOST;
    for some in bounds.chunks(TOGETHER) {
        control.check()?;
        let found = best.as_ref().map_or(0.0, |b| b.held.rate);
        if claims(&rows[some[0]]) <= found {
            proved = true;
            break;
        }
        let one = |i: &usize| -> Option<(Row, Held)> {
            let row = &rows[*i];
            let lib = &libraries[usize::from(row.framework)];
            let tried = SEATS.iter().filter_map(|more| with_seats(q, lib, row, *more, found));
            tried.reduce(|a, b| if b.1.rate > a.1.rate { b } else { a })
        };
        let parts: Vec<Option<(Row, Held)>> = crate::pool::install(|| some.par_iter().map(one).collect())?;
        for (row, held) in parts.into_iter().flatten() {
            if best.as_ref().is_none_or(|b| held.rate > b.held.rate) {
                best = Some(Leader { row, held, proved: false, simulated: None });
            }
        }
    }
    Ok(best.map(|b| Leader { proved, ..b }))
}

/// The row with so many times its seats, if it serves more than `found` within the limits.
fn with_seats(q: &Question, lib: &Arc<Library>, row: &Row, more: f64, found: f64) -> Option<(Row, Held)> {
    let mut row = *row;
    row.main.batch = (f64::from(row.main.batch) * more).round() as u32;
    let engine = Engine::new(lib, &q.workload, &row.plan()).ok()?;
    if !engine.point.stands() || engine.point.requests_per_s <= found {
        return None;
    }
    if found > 0.0 {
        // One look before the bisection.
        let at = engine.open(found * (1.0 + 1e-3)).ok()?;
        if point::excess(at.latencies(q.slo.percentile), &q.slo) > 1.0 {
            return None;
        }
    }
    let held = engine.rate_within(&q.slo, Arrivals::Poisson).ok()?;
    row.point = engine.point;
    row.scanned = false;
    (held.rate > 0.0).then_some((row, held))
}

/// Requests of one run: enough for the batch means of a busy deployment.
fn requests(concurrency: f64) -> usize {
    (concurrency * 15.0).clamp(6_000.0, 24_000.0) as usize
}

/// Relative width at which the bisection ends.
const FINE: f64 = 0.01;

/// How far a simulated latency is from its limit, with its interval: holds, holds at the low end, at the high end.
fn holds(values: &[f64], limit: f64, percentile: Option<f64>) -> [bool; 3] {
    let (values, limit) = match percentile {
        // The share over the limit.
        Some(p) => (values.iter().map(|v| f64::from(u8::from(*v > limit))).collect::<Vec<_>>(), 1.0 - p / 100.0),
        None => (values.to_vec(), limit),
    };
    let i = interval(&values, false);
    let half = i.half_95.unwrap_or(0.0);
    [i.mean <= limit, i.mean + half <= limit, i.mean - half <= limit]
}

/// The highest rate at which a plan's limits hold in the simulation, looked for around `held`.
///
/// # Errors
/// What is wrong with the plan, or `Cancelled`.
pub fn confirm(
    lib: &Arc<Library>,
    workload: &Workload,
    row: &Row,
    held: &Held,
    slo: &Slo,
    control: &Control,
) -> Result<Simulated> {
    let engine = Arc::new(Engine::new(lib, workload, &row.plan())?);
    let deployment = Deployment::of(&engine);
    let prices = pricers(&deployment);
    let n = requests(held.point.concurrency);
    let settings = Settings::default();
    let mut known: Vec<(f64, [bool; 3])> = Vec::new();
    let mut at = |rate: f64, which: usize| -> Result<bool> {
        if let Some((_, found)) = known.iter().find(|(r, _)| *r == rate) {
            return Ok(found[which]);
        }
        let trace = draw::open(workload, rate, 1.0, n, 1)?;
        let r = &trace.requests;
        let o = simulate_with(&prices, &deployment, r, &settings, &control.part())?;
        let kept = n / 4..n;
        let ended = |i: usize| o.finish_ps[i] != NEVER;
        let ms = |from: u64, to: u64| (to - from) as f64 / 1e9;
        let ttft =
            kept.clone().map(|i| if ended(i) { ms(o.arrival_ps[i], o.first_token_ps[i]) } else { f64::INFINITY });
        let mut found = [true; 3];
        let mut meet = |values: Vec<f64>, limit: Option<f64>| {
            if let Some(limit) = limit {
                found.iter_mut().zip(holds(&values, limit, slo.percentile)).for_each(|(a, b)| *a &= b);
            }
        };
        meet(ttft.collect(), slo.ttft_ms);
        let many = kept.filter(|i| r.osl[*i] > 1);
        let tpot = |i: usize| {
            if ended(i) { ms(o.first_token_ps[i], o.finish_ps[i]) / f64::from(r.osl[i] - 1) } else { f64::INFINITY }
        };
        meet(many.map(tpot).collect(), slo.tpot_ms);
        known.push((rate, found));
        Ok(found[which])
    };
    let most = engine.point.requests_per_s;
    let mut edge = |which: usize| -> Result<f64> {
        let (mut low, mut high) = (0.0, most.min(held.rate * 1.3));
        if at(high, which)? {
            return Ok(high);
        }
        let mut step = held.rate;
        while low == 0.0 {
            control.check()?;
            if at(step, which)? {
                low = step;
            } else {
                high = step;
                step *= 0.75;
                if step < 0.05 * held.rate {
                    return Ok(0.0);
                }
            }
        }
        while high / low > 1.0 + FINE {
            control.check()?;
            let middle = (low * high).sqrt();
            if at(middle, which)? { low = middle } else { high = middle }
        }
        Ok(low)
    };
    let (rate, low, high) = (edge(0)?, edge(1)?, edge(2)?);
    Ok(Simulated { rate, low: low.min(rate), high: high.max(rate) })
}

/// The leaders of the levels of a study, in their order, confirmed by the simulator where the question asks for it.
pub fn leaders(
    q: &Question,
    libraries: &[Arc<Library>],
    rows: &[Row],
    levels: &[usize],
    control: &Control,
) -> Result<Vec<Option<Leader>>> {
    let mut found = Vec::new();
    for level in levels {
        found.push(leader(q, libraries, rows, *level as u8, control)?);
    }
    if q.confirm {
        let one = |l: &mut Option<Leader>| -> Result<()> {
            if let Some(l) = l {
                let lib = &libraries[usize::from(l.row.framework)];
                l.simulated = Some(confirm(lib, &q.workload, &l.row, &l.held, &q.slo, control)?);
            }
            Ok(())
        };
        crate::pool::install(|| found.par_iter_mut().map(one).collect::<Result<Vec<()>>>())??;
    }
    Ok(found)
}
