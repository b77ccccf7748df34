//! What a study says is priced by the engine, whatever scanned the space before.
//!
//! Of each level these rows are priced again: the best within the limits and all that are scanned near them; where
//! none keeps the limits, the nearest misses; the least TTFT and TPOT; and every row on the frontier of rate
//! against speed per user. Each list is taken again until what stands at its head is exact, so no scanned row
//! within the limits says more than the exact best. The rest keep what the scan read, and say so. Limit: a plan
//! that the scan sees more than [`NEAR`] below the best is not looked at again.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use rayon::prelude::*;

use super::levels::Task;
use super::refine::{Aim, part_key};
use super::row::{Part, Row};
use super::timer::{Timer, combine};
use crate::error::Result;
use crate::serving::pd::{DecodeSide, PrefillSide};
use crate::serving::{Binding, Point};
use crate::spec::Workload;

/// How near to the best a scanned row is worth the engine: twice what a scan is off.
pub const NEAR: f64 = 0.006;
/// How near to the frontier rows are priced with it: pairs that differ in little else lie this close together.
const BESIDE: f64 = 1e-5;
/// Rows of one list priced at a time, and times that it is taken.
const MOST: usize = 96;
const ROUNDS: usize = 40;

/// The head of a list of rows: what it is led by, and which scanned ones may still lead it.
struct Head {
    best_exact: f64,
    scanned: Vec<(f64, usize)>,
}

impl Head {
    /// Of `value`, more is better; scanned rows as near as `near` to the best.
    fn of(rows: &[Row], near: f64, value: impl Fn(&Row) -> Option<f64>) -> Head {
        let mut head = Head { best_exact: f64::NEG_INFINITY, scanned: Vec::new() };
        let mut best = f64::NEG_INFINITY;
        for (i, r) in rows.iter().enumerate() {
            let Some(v) = value(r) else { continue };
            best = best.max(v);
            if r.scanned {
                if v >= best - near * best.abs() {
                    head.scanned.push((v, i));
                }
            } else {
                head.best_exact = head.best_exact.max(v);
            }
        }
        head.scanned.retain(|(v, _)| *v >= best - near * best.abs());
        head.scanned.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        head
    }

    /// Rows to price next: at first all near the best, then only what says more than the exact best.
    fn next(self, first: bool) -> impl Iterator<Item = usize> {
        let least = if first { f64::NEG_INFINITY } else { self.best_exact };
        self.scanned.into_iter().filter(move |(v, _)| *v > least).take(MOST).map(|(_, i)| i)
    }
}

/// Rows within the limits that no other beats on both speed per user and rate, or by no more than `near`.
fn frontier(rows: &[Row], aim: &Aim, near: f64) -> Vec<usize> {
    let within = |r: &Row| r.point.stands() && r.point.binding_under(&aim.slo) == Binding::None;
    let mut all: Vec<(f64, f64, usize)> = rows
        .iter()
        .enumerate()
        .filter(|(_, r)| within(r))
        .map(|(i, r)| (r.point.tpot_s, r.point.requests_per_s, i))
        .collect();
    all.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(b.1.total_cmp(&a.1)).then(a.2.cmp(&b.2)));
    let mut best = f64::NEG_INFINITY;
    all.retain(|(_, rate, _)| {
        let stays = if near > 0.0 { *rate >= best * (1.0 - near) } else { *rate > best };
        best = best.max(*rate);
        stays
    });
    all.into_iter().map(|(.., i)| i).collect()
}

/// What a row is worth under the limits; looser for what is scanned, whose limits are as uncertain as its rate.
fn gain(r: &Row, aim: &Aim) -> Option<f64> {
    let loose = if r.scanned { 1.0 + NEAR } else { 1.0 };
    let within = r.point.stands() && r.point.excess(&aim.slo) <= loose;
    within.then(|| if aim.per_user { 1.0 / r.point.tpot_s.max(1e-12) } else { r.point.requests_per_s })
}

/// The lists that what is said rests on: best within the limits, else nearest to them, and least latencies.
fn heads(rows: &[Row], aim: &Aim, near: f64) -> Vec<Head> {
    let stands = |r: &Row| r.point.stands();
    let mut heads = vec![Head::of(rows, near, |r| gain(r, aim))];
    if heads[0].best_exact == f64::NEG_INFINITY && heads[0].scanned.is_empty() {
        heads.push(Head::of(rows, near, |r| stands(r).then(|| -r.point.excess(&aim.slo))));
    }
    heads.push(Head::of(rows, near, |r| stands(r).then_some(-r.point.ttft_s)));
    heads.push(Head::of(rows, near, |r| stands(r).then_some(-r.point.tpot_s)));
    heads
}

impl Task<'_> {
    /// Prices rows again until everything that is said of this level is exact.
    pub fn settle(&self, rows: &mut [Row], aim: &Aim) -> Result<()> {
        // What may come to the head of a list once its own head has been priced.
        let mut pool = frontier(rows, aim, 2.0 * NEAR);
        pool.extend(heads(rows, aim, 2.0 * NEAR).into_iter().flat_map(|h| h.scanned).map(|(_, i)| i));
        pool.extend((0..rows.len()).filter(|i| !rows[*i].scanned));
        pool.sort_unstable();
        pool.dedup();
        let mut few: Vec<Row> = pool.iter().map(|i| rows[*i]).collect();
        for round in 0..ROUNDS {
            let settled = frontier(&few, aim, 0.0).iter().all(|i| !few[*i].scanned);
            let mut wanted = if settled { Vec::new() } else { frontier(&few, aim, BESIDE) };
            wanted.extend(heads(&few, aim, NEAR).into_iter().flat_map(|h| h.next(round == 0)));
            // What does not stand is short of memory, which a scan does not read from lines.
            wanted.retain(|i| few[*i].scanned);
            wanted.sort_unstable();
            wanted.dedup();
            if wanted.is_empty() {
                break;
            }
            let again: Vec<Result<Point>> = crate::pool::install(|| {
                wanted
                    .par_iter()
                    .map(|i| {
                        self.control.check()?;
                        self.exact(&few[*i])
                    })
                    .collect()
            })?;
            for (i, point) in wanted.into_iter().zip(again) {
                few[i] = Row { point: point?, scanned: false, ..few[i] };
            }
        }
        for (i, r) in pool.into_iter().zip(few) {
            rows[i] = r;
        }
        // Where nothing stands, memory decides, and that is exact; its row has no other numbers.
        for r in rows.iter_mut().filter(|r| !r.point.stands()) {
            r.scanned = false;
        }
        Ok(())
    }

    /// A row's point by the engine.
    pub fn exact(&self, r: &Row) -> Result<Point> {
        let (batch, load) = (f64::from(r.main.batch), &self.load);
        let Some(part) = &r.prefill else {
            let main = self.engine.mixed.get(slot(&r.main, false), || self.untimed(&r.main, self.workload))?;
            return Ok(main.mixed(load, batch, f64::from(r.main.chunk), r.main.count));
        };
        let prefill = self.engine.prefill.get(slot(part, true), || {
            let timer = self.untimed(part, &self.workload.prefill_part())?;
            let side = timer.prefill_side(load, f64::from(part.batch), f64::from(part.chunk));
            Ok((side.with_ports(&timer, load), timer))
        })?;
        let decode = self.engine.decode.get(slot(&r.main, true), || {
            let timer = self.untimed(&r.main, self.workload)?;
            Ok((timer.decode_side(load, batch).with_ports(&timer, load), timer))
        })?;
        Ok(combine(&prefill.1, &prefill.0, part.count, &decode.1, &decode.0, r.main.count, load))
    }

    fn untimed(&self, part: &Part, workload: &Workload) -> Result<Timer> {
        Ok(Timer::new(self.stepper_of(&part.layout, workload)?, None))
    }
}

/// A layout, with its batch and chunk where `whole`.
fn slot(part: &Part, whole: bool) -> [u32; 10] {
    let mut key = part_key(part);
    key[9] = 0;
    if !whole {
        (key[7], key[8]) = (0, 0);
    }
    key
}

/// Slots that the engine has priced: the rows of one list share most of them.
#[derive(Default)]
pub struct Engines {
    mixed: Kept<Timer>,
    prefill: Kept<(PrefillSide, Timer)>,
    decode: Kept<(DecodeSide, Timer)>,
}

struct Kept<T>(Mutex<BTreeMap<[u32; 10], Arc<T>>>);

impl<T> Default for Kept<T> {
    fn default() -> Self {
        Kept(Mutex::default())
    }
}

impl<T> Kept<T> {
    /// Made outside the lock: two threads may make the same, and both get the same numbers.
    fn get(&self, key: [u32; 10], make: impl FnOnce() -> Result<T>) -> Result<Arc<T>> {
        let lock = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = lock().get(&key) {
            return Ok(found.clone());
        }
        let made = Arc::new(make()?);
        Ok(lock().entry(key).or_insert(made).clone())
    }
}
