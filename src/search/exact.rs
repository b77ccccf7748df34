//! What a study says is priced by the engine, whatever scanned the space before.
//!
//! Of each level these rows are priced again: the best within the limits and all that are scanned near them; where
//! none keeps the limits, the nearest misses; the least TTFT and TPOT; and every row on the frontier of rate
//! against speed per user. Each list is taken again until what stands at its head is exact, so no scanned row
//! within the limits says more than the exact best. The rest keep what the scan read, and say so. Limit: a plan
//! that the scan sees more than [`NEAR`] below the best is not looked at again.

use rayon::prelude::*;

use super::aim::Aim;
use super::blocks::{self, BLOCK};
use super::candidate_clock::{CandidateClock, combine};
use super::constants::scan::{BESIDE, NEAR, ROUNDS};
use super::key::{PART, part_key};
use super::leaders::{self, Head};
use super::row::{Part, Row};
use super::task::Task;
use crate::error::Result;
use crate::serving::pd::Several;
use crate::serving::{Binding, SteadyState};
use crate::spec::Workload;

/// Rows within the limits that no other beats on both speed per user and rate, or by no more than `near`.
fn frontier(rows: &[Row], aim: &Aim, near: f64) -> Vec<usize> {
    let within = |r: &Row| r.point.stands() && r.point.binding_under(&aim.slo) == Binding::None;
    // What its own block beats, all beat.
    let of_block = |(k, rows): (usize, &[Row])| {
        let marks = rows.iter().enumerate().filter(|(_, r)| within(r));
        unbeaten(marks.map(|(i, r)| (r.point.tpot_s, r.point.requests_per_s, k * BLOCK + i)).collect(), near)
    };
    let some = blocks::by_block(rows, of_block).into_iter().flatten().collect();
    unbeaten(some, near).into_iter().map(|(.., i)| i).collect()
}

/// Of (cost, gain, index).
fn unbeaten(mut all: Vec<(f64, f64, usize)>, near: f64) -> Vec<(f64, f64, usize)> {
    all.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(b.1.total_cmp(&a.1)).then(a.2.cmp(&b.2)));
    let mut best = f64::NEG_INFINITY;
    all.retain(|(_, rate, _)| {
        let stays = if near > 0.0 { *rate >= best * (1.0 - near) } else { *rate > best };
        best = best.max(*rate);
        stays
    });
    all
}

/// The lists that what is said rests on: best within the limits, else nearest to them, and least latencies.
fn heads(rows: &[Row], aim: &Aim, near: f64) -> [Head; 3] {
    let stands = |r: &Row| r.point.stands();
    [
        leaders::lead(rows, aim, near),
        Head::of(rows, near, |r| stands(r).then_some(-r.point.ttft_s)),
        Head::of(rows, near, |r| stands(r).then_some(-r.point.tpot_s)),
    ]
}

impl Task<'_> {
    /// Prices rows again until everything that is said of this level is exact.
    pub(crate) fn settle(&self, rows: &mut [Row], aim: &Aim) -> Result<()> {
        let exact = |r: &Row| self.exact(r);
        let lead = leaders::candidates(rows, aim);
        let mut few: Vec<Row> = lead.iter().map(|i| rows[*i]).collect();
        leaders::settle(&mut few, aim, self.control, exact)?;
        for (i, r) in lead.iter().zip(few) {
            rows[*i] = r;
        }
        if let Some(k) = leaders::leader(lead.iter().map(|i| &rows[*i]), |_| *aim) {
            rows[lead[k]].leads = true;
        }
        // What may come to the head of a list once its own head has been priced.
        let mut pool = frontier(rows, aim, 2.0 * NEAR);
        pool.extend(heads(rows, aim, 2.0 * NEAR).into_iter().flat_map(|h| h.scanned).map(|(_, i)| i));
        pool.extend(blocks::filter(rows, |r| !r.scanned));
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
            leaders::price(&mut few, &wanted, self.control, &exact)?;
        }
        for (i, r) in pool.into_iter().zip(few) {
            rows[i] = r;
        }
        // Where nothing stands, memory decides, and that is exact; its row has no other numbers.
        let lacking = |r: &mut Row| r.scanned &= r.point.stands();
        crate::pool::install(|| rows.par_chunks_mut(BLOCK).for_each(|rows| rows.iter_mut().for_each(lacking)))?;
        Ok(())
    }

    /// A row's point by the engine.
    pub fn exact(&self, r: &Row) -> Result<SteadyState> {
        let (batch, load) = (f64::from(r.main.batch), &self.load);
        let Some(part) = &r.prefill else {
            let main = self.engine.mixed.get(slot(&r.main, false), || self.exact_clock(&r.main, self.workload))?;
            return Ok(main.mixed(load, [r.main.batch, r.main.chunk, r.main.interval], r.main.count));
        };
        let prefill = self.engine.prefill.get(slot(part, true), || {
            let clock = self.exact_clock(part, &self.workload.prefill_part())?;
            let side = clock.prefill_side(load, f64::from(part.batch), f64::from(part.chunk));
            Ok((side.with_ports(&clock, load), clock))
        })?;
        let decode = self.engine.decode.get(slot(&r.main, true), || {
            let clock = self.exact_clock(&r.main, self.workload)?;
            Ok((clock.decode_side(load, batch).with_ports(&clock, load), clock))
        })?;
        Ok(combine(
            Several::of(&prefill.1, &prefill.0, part.count),
            Several::of(&decode.1, &decode.0, r.main.count),
            load,
        ))
    }

    fn exact_clock(&self, part: &Part, workload: &Workload) -> Result<CandidateClock> {
        Ok(CandidateClock::new(self.engine_of(&part.layout, workload)?, None))
    }
}

/// A layout, with its batch and chunk where `whole`.
fn slot(part: &Part, whole: bool) -> [u32; PART] {
    let mut key = part_key(part);
    key[PART - 1] = 0;
    if !whole {
        (key[PART - 3], key[PART - 2]) = (0, 0);
    }
    key
}
