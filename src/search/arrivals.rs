//! Rates with arrivals of their own: after a search in the closed loop, who leads when requests come as they please.
//!
//! A plan that its closed loop drives too hard (TTFT or TPOT over the limit) may keep the limits at a lower load, so rows
//! are not judged by their closed-loop latencies. Two facts order the search instead. A plan serves no more with Poisson arrivals
//! than its closed loop. And the mean TPOT at a rate depends on the layout and what decodes at that rate, not on how many
//! seats stand ready: beyond the closed rate at which the layout's TPOT meets the limit no batch of it keeps it. That rate,
//! read between the row of most rate within the limit and the next one above it, bounds a layout (with its count, and its
//! prefill slot). Layouts are taken by falling bound; of each the rows of most rate are tried for every room beside decode, with their own
//! seats and with more (waiting for a seat is what limits them), as far as memory goes; when the next bound is not above
//! the best rate found, none that follows is ([`Leader::proved`]). Bounds count [`NEAR`] more: that much a scan is off.
//!
//! The leaders are then simulated: the same requests at every rate and for every plan (common random numbers), the first quarter
//! left out, means with intervals by batch means (`sim::statistics`). Rate: the highest at which the limits hold in the
//! simulation, by bisection; low and high: the same for the ends of the interval. A percentile counts the share of requests
//! over the limit. Limits: seats on a grid (worth a tenth under a percentile, so a leader is proved for mean limits only); one stream of requests; at most [`MOST`] layouts are tried a level, and [`ROWS`] rows of each.

use std::collections::BTreeMap;
use std::sync::Arc;

use rayon::prelude::*;

use super::blocks;
use super::constants::arrivals::{MOST, ROWS, SEATS, TOGETHER};
use super::constants::scan::NEAR;
use super::key::{PlanKey, key};
use super::question::Question;
use super::row::Row;
use crate::control::Control;
use crate::cost::Library;
use crate::error::Result;
use crate::serving::queueing::{Arrivals, Held};
use crate::serving::{Engine, steady_state};
use crate::sim::statistics::interval;
use crate::sim::trace::draw;
use crate::sim::{Deployment, NEVER, Settings, pricers, simulate_with};
use crate::spec::{Level, Slo, Workload};

/// What leads a level with Poisson arrivals.
#[derive(Clone, Debug)]
pub struct Leader {
    /// The plan; its point is that of its closed loop.
    pub row: Row,
    pub held: Held,
    /// Whether no other layout can serve more, by its bound.
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

/// A layout with its count, or a pair of them: what it serves at most within the TPOT limit, and the rows to try.
struct Bound {
    rate: f64,
    rows: Vec<usize>,
}

/// Bounds of a level, the highest first.
fn bounds(q: &Question, rows: &[Row], (framework, level): (u8, Level)) -> Vec<Bound> {
    let limits = [q.slo.ttft_ms, q.slo.tpot_ms].map(|l| l.map_or(f64::INFINITY, |l| l * 1e-3));
    let mut layouts: BTreeMap<PlanKey, Vec<usize>> = BTreeMap::new();
    for i in blocks::filter(rows, |r| r.level == level && r.framework == framework && r.point.stands()) {
        // Batch and chunk of the slot that decodes do not tell layouts apart.
        let mut bare = rows[i];
        (bare.main.batch, bare.main.chunk) = (0, 0);
        layouts.entry(key(&bare)).or_default().push(i);
    }
    let point = |i: &usize| &rows[*i].point;
    let mut all: Vec<Bound> = layouts
        .into_values()
        .filter_map(|mut own| {
            own.sort_by(|a, b| point(b).requests_per_s.total_cmp(&point(a).requests_per_s).then(a.cmp(b)));
            let within = |i: &&usize| point(i).tpot_s <= limits[1];
            let best = own.iter().find(within);
            let above = own.iter().filter(|i| !within(i)).min_by(|a, b| point(a).tpot_s.total_cmp(&point(b).tpot_s));
            let rate = match (best.map(point), above.map(point)) {
                (Some(p), Some(n)) if n.requests_per_s > p.requests_per_s && n.tpot_s > p.tpot_s => {
                    let part = ((limits[1] - p.tpot_s) / (n.tpot_s - p.tpot_s)).clamp(0.0, 1.0);
                    p.requests_per_s + part * (n.requests_per_s - p.requests_per_s)
                }
                (Some(p), _) => p.requests_per_s,
                (None, Some(n)) => n.requests_per_s,
                (None, None) => return None,
            };
            // Room for prompts beside decode decides how they queue: of each half octave of it the row of most rate
            // within the limit, and the first above it.
            let mut rooms: BTreeMap<i32, [Option<usize>; 2]> = BTreeMap::new();
            for i in &own {
                let main = &rows[*i].main;
                let room = f64::from(main.chunk.saturating_sub(main.batch).max(1));
                let of = rooms.entry((room.log2() * 2.0).round() as i32).or_default();
                if within(&i) {
                    of[0].get_or_insert(*i);
                } else if of[1].is_none_or(|k| point(i).tpot_s < point(&k).tpot_s) {
                    of[1] = Some(*i);
                }
            }
            let early = own.iter().filter(within).filter(|i| point(i).ttft_s <= limits[0]).take(ROWS);
            let mut tried: Vec<usize> = rooms.into_values().flatten().flatten().chain(early.copied()).collect();
            tried.sort_unstable();
            tried.dedup();
            Some(Bound { rate: rate * (1.0 + NEAR), rows: tried })
        })
        .collect();
    all.sort_by(|a, b| b.rate.total_cmp(&a.rate).then(a.rows.cmp(&b.rows)));
    all
}

/// The leader of one framework and level among `rows` (of all), if any plan keeps the limits at any rate.
///
/// # Errors
/// `Cancelled`.
pub fn leader(
    q: &Question,
    libraries: &[Arc<Library>],
    rows: &[Row],
    of: (u8, Level),
    control: &Control,
) -> Result<Option<Leader>> {
    let slo = q.limits(&libraries[usize::from(of.0)], of.1);
    let q = &Question { slo, confidence: None, ..q.clone() };
    let mut bounds = bounds(q, rows, of);
    let mut proved = bounds.len() <= MOST;
    bounds.truncate(MOST);
    let mut best: Option<Leader> = None;
    for some in bounds.chunks(TOGETHER) {
        control.check()?;
        let found = best.as_ref().map_or(0.0, |b| b.held.rate);
        if some[0].rate <= found {
            proved = true;
            break;
        }
        let one = |b: &Bound| -> Option<(Row, Held)> {
            let mut best: Option<(Row, Held)> = None;
            for i in b.rows.iter().filter(|_| b.rate > found) {
                let lib = &libraries[usize::from(rows[*i].framework)];
                for more in SEATS {
                    let least = best.as_ref().map_or(found, |b| b.1.rate);
                    if let Some(better) = with_seats(q, lib, &rows[*i], more, least) {
                        best = Some(better);
                    }
                }
            }
            best
        };
        let parts: Vec<Option<(Row, Held)>> = crate::pool::install(|| some.par_iter().map(one).collect())?;
        for (row, held) in parts.into_iter().flatten() {
            if best.as_ref().is_none_or(|b| held.rate > b.held.rate) {
                best = Some(Leader { row, held, proved: false, simulated: None });
            }
        }
    }
    let proved = proved && q.slo.percentile.is_none();
    Ok(best.map(|b| Leader { proved, ..b }))
}

/// The row with so many times its seats, if it serves more than `found` within the limits.
fn with_seats(q: &Question, lib: &Arc<Library>, row: &Row, more: f64, found: f64) -> Option<(Row, Held)> {
    let mut row = *row;
    row.main.batch = (f64::from(row.main.batch) * more).round() as u32;
    let engine = Engine::new(lib, &q.case.workload, &row.plan()).ok()?;
    if !engine.point.stands() || engine.point.requests_per_s <= found {
        return None;
    }
    if found > 0.0 {
        // One look before the bisection.
        let at = engine.open(found * (1.0 + 1e-3)).ok()?;
        if steady_state::excess(at.latencies(q.slo.percentile), &q.slo) > 1.0 {
            return None;
        }
    }
    let held = engine.rate_within(&q.slo, Arrivals::Poisson).ok()?;
    row.point = engine.point;
    row.scanned = false;
    (held.rate > found).then_some((row, held))
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
    let i = interval(&values);
    // A run too short for an end of its interval has two errors in its place.
    let half = i.half_95.or(i.error.map(|e| 2.0 * e)).unwrap_or(0.0);
    [i.mean <= limit, i.mean + half <= limit, i.mean - half <= limit]
}

/// The highest rate at which a plan's limits hold in the simulation, looked for around `held`.
///
/// # Errors
/// What is wrong with the plan, or `Cancelled`.
pub(crate) fn confirm(
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

/// Leaders confirmed by the simulator, side by side.
///
/// # Errors
/// What is wrong with a plan, or `Cancelled`.
pub(crate) fn confirm_all(
    q: &Question,
    libraries: &[Arc<Library>],
    mut leaders: Vec<&mut Leader>,
    control: &Control,
) -> Result<()> {
    let one = |l: &mut &mut Leader| -> Result<()> {
        let lib = &libraries[usize::from(l.row.framework)];
        let slo = q.limits(lib, l.row.level);
        l.simulated = Some(confirm(lib, &q.case.workload, &l.row, &l.held, &slo, control)?);
        Ok(())
    };
    crate::pool::install(|| leaders.par_iter_mut().map(one).collect::<Result<Vec<()>>>())??;
    Ok(())
}
