//! Pairs of a prefill and a decode slot: what of each slot is worth pairing, and the pairs near the best.
//!
//! A pair's rate at whole numbers (np, nd) of slots is min(np mu_P, nd mu_D, wire) with np gP + nd gD <= budget, so
//! no more than budget / (gP/mu_P + gD/mu_D), nor than either slot gives on all that the other leaves. Pairs are
//! passed over only where that cannot come near what is known to keep the limits ([`Tiers::floor`]): the rows found
//! are the same as if every pair were priced (tests/rust/pairs.rs). Limits: prompts are cut finer only on the layouts
//! within [`SLACK`] of the coarse frontier of their size, around what stands there; KV beside the steps only lowers a
//! rate.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};

use rayon::prelude::*;

use super::frontier::Candidate;
use super::levels::{Priced, PromptSide, Serves, Task};
use super::near::{LIMITS, Tiers};
use super::refine::{Aim, append_new, order};
use super::row::{Layout, Part, Row};
use crate::error::Result;
use crate::serving::pd::{DecodeSide, PrefillSide};
use crate::serving::point;
use crate::spec::Workload;

/// How far behind the coarse frontier a way of cutting prompts may be to be cut finer: rounds of the coarse grid take
/// twice the prompts of the last, so that it may miss a layout's best by as much.
const SLACK: f64 = 0.3;

/// Latencies, as multiples of the least, under which units for prompts are climbed to beyond the coarse grid.
const LATENCIES: [f64; 4] = [1.25, 2.5, 6.0, f64::INFINITY];

/// The prefill slot of a level: every priced side, those worth pairing, and the same with prompts cut finer.
pub struct Prompts {
    pub all: Priced<PromptSide>,
    pub front: Vec<Candidate<PrefillSide>>,
    pub every: Vec<Candidate<PrefillSide>>,
}

/// Workers, or AFD units, in both slots.
pub struct Sides {
    pub prompts: Arc<Prompts>,
    pub per_octave: u32,
    pub decode: Priced<DecodeSide>,
    pub front: Vec<Candidate<DecodeSide>>,
    /// Rate and seconds of the smaller batches of each on the front.
    below: Vec<Vec<[f64; 2]>>,
}

impl Sides {
    /// Seconds that a step of one on the front takes at least where it gives `rate`: those of the batch before.
    pub fn least_step(&self, j: usize, rate: f64) -> f64 {
        let below = &self.below[j];
        let at = below.partition_point(|[r, _]| *r < rate);
        below.get(at.saturating_sub(1)).map_or(self.front[j].side.step.seconds, |[_, s]| *s)
    }
}

/// What fills (prefill, decode) in `pd` and in `pd+afd`: 0 workers, 1 units.
pub fn ways(level: u8) -> &'static [[usize; 2]] {
    if level == 1 { &[[0, 0]] } else { &[[0, 1], [1, 0], [1, 1]] }
}

impl Task<'_> {
    /// Both slots of one kind, decode priced here.
    pub fn sides(&self, prompts: Arc<Prompts>, decode: &[Layout], per_octave: u32) -> Result<Sides> {
        let decode = self.decode(&self.paired_up(decode, Serves::Decode), per_octave)?;
        let front = self.decode_frontier(&decode)?;
        let sides: HashMap<&Layout, &Vec<DecodeSide>> = decode.iter().map(|(l, _, sides)| (l, sides)).collect();
        let smaller = |c: &Candidate<DecodeSide>| -> Vec<[f64; 2]> {
            let all = sides.get(&c.layout).into_iter().flat_map(|s| s.iter());
            all.take_while(|s| s.batch <= c.side.batch).map(|s| [s.rate, s.step.seconds]).collect()
        };
        let below = front.iter().map(smaller).collect();
        Ok(Sides { prompts, per_octave, front, below, decode })
    }

    /// Prices the prefill slot, and once more with finer cuts where a layout stands near the frontier.
    pub fn prompts(&self, layouts: &[Layout]) -> Result<Prompts> {
        let mut all = self.prefill(&self.paired_up(layouts, Serves::Prompts))?;
        if layouts.first().is_some_and(Layout::is_afd) {
            let least = all.iter().flat_map(|(_, _, sides)| sides).map(|s| s.2.prefill.latency_s);
            let least = least.fold(f64::INFINITY, f64::min);
            for times in LATENCIES {
                let more = self.prefill_beyond(&all, least * times)?;
                all.extend(more);
            }
        }
        let front = self.prefill_frontier(&all)?;
        let mut on: HashMap<Layout, Vec<(u32, u32)>> = HashMap::new();
        // A layout a little behind on the coarse grid may lead on the finer one.
        for (layout, batch, chunk) in self.prefill_near(&all, SLACK)? {
            on.entry(layout).or_default().push((batch, chunk));
        }
        let finer: Priced<_> = crate::pool::install(|| {
            all.par_iter()
                .map(|(layout, timer, sides)| {
                    let best = on.get(layout);
                    let sides = best.map_or_else(|| sides.clone(), |b| self.finer_prefill(layout, timer, sides, b));
                    (*layout, timer.clone(), sides)
                })
                .collect()
        })?;
        self.control.check()?;
        let every = self.prefill_every(&finer)?;
        Ok(Prompts { all, front, every })
    }

    /// The same, once for all workloads with these prompts: what is answered has no part in it.
    pub fn prompts_shared(&self, kind: &str, layouts: &[Layout]) -> Result<Arc<Prompts>> {
        let prompts = Workload { name: String::new(), ..self.workload.prefill_part() };
        let key = format!("{kind} {} {prompts:?} {:?}", self.budget, self.load.shipped());
        let lock = || self.compiled.prompts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = lock().get(&key) {
            return Ok(known.clone());
        }
        let mut made = self.prompts(layouts)?;
        // What is priced stands on the frontiers; for a nearest miss the layouts are enough.
        made.all.iter_mut().for_each(|(_, _, sides)| *sides = Vec::new());
        let made = Arc::new(made);
        Ok(lock().entry(key).or_insert(made).clone())
    }

    /// The pairs that may lead a level whose other rows reach `tiers`; in the order of decode, then of prefill.
    pub fn near_best(
        &self,
        level: u8,
        prefill: &[Candidate<PrefillSide>],
        decode: &[Candidate<DecodeSide>],
        aim: &Aim,
        tiers: Tiers,
    ) -> Result<Vec<Row>> {
        self.near_best_of(level, prefill, decode, |j, _| decode[j].side.step.seconds, aim, tiers)
    }

    /// The same of slots that may be faster than when they are full. `least_step`: seconds that a step of a decode slot
    /// takes at least where it gives a rate.
    pub(super) fn near_best_of(
        &self,
        level: u8,
        prefill: &[Candidate<PrefillSide>],
        decode: &[Candidate<DecodeSide>],
        least_step: impl Fn(usize, f64) -> f64,
        aim: &Aim,
        mut tiers: Tiers,
    ) -> Result<Vec<Row>> {
        let aim = Aim { per_user: false, ..*aim };
        let soon: Vec<f64> = prefill.iter().map(|p| point::excess([p.side.prefill.latency_s, 0.0], &aim.slo)).collect();
        let step = |d: &Candidate<DecodeSide>| point::excess([0.0, d.side.step.seconds / self.progress()], &aim.slo);
        let mut found: Vec<([usize; 2], Row)> = Vec::new();
        let mut look = |tiers: &mut Tiers, i: usize, j: usize| {
            let row = self.best_numbers(level, &prefill[i], &decode[j]).filter(|r| r.point.stands());
            if let Some(row) = row {
                tiers.add(aim.gain(&row.point), row.point.excess(&aim.slo));
                found.push(([j, i], row));
            }
        };
        // The soonest of both tell how near to the limits anything comes.
        let first = |n: usize, of: &dyn Fn(usize) -> f64| (0..n).min_by(|a, b| of(*a).total_cmp(&of(*b)));
        let soonest = first(prefill.len(), &|i| soon[i]).zip(first(decode.len(), &|j| step(&decode[j])));
        if let Some((i, j)) = soonest {
            look(&mut tiers, i, j);
        }
        let prompts = densest(prefill, |s| s.rate);
        let (within, beyond): (Vec<usize>, Vec<usize>) =
            densest(decode, |s| s.rate).into_iter().partition(|j| step(&decode[*j]) <= LIMITS[0]);
        for (j, full) in within.into_iter().map(|j| (j, true)).chain(beyond.into_iter().map(|j| (j, false))) {
            self.control.check()?;
            let d = &decode[j];
            if !tiers.is_sure() && !tiers.allows(step(d)) {
                continue;
            }
            for &i in &prompts {
                let p = &prefill[i];
                if fluid(self.budget, p, d) < tiers.floor() {
                    break;
                }
                if !tiers.allows(soon[i]) || promise(self.budget, p, d) < tiers.floor() || soonest == Some((i, j)) {
                    continue;
                }
                // One that is too slow when full may serve what is left for it: no less than this a slot.
                let least = || {
                    let prompts = (tiers.floor() / p.side.rate).ceil().max(1.0) * f64::from(p.layout.gpus());
                    let slots = ((f64::from(self.budget) - prompts) / f64::from(d.layout.gpus())).floor().max(1.0);
                    point::excess([0.0, least_step(j, tiers.floor() / slots) / self.progress()], &aim.slo)
                };
                if full || !tiers.is_sure() || tiers.allows(least()) {
                    look(&mut tiers, i, j);
                }
            }
        }
        found.retain(|(_, r)| tiers.takes(aim.gain(&r.point), r.point.excess(&aim.slo)));
        found.sort_by_key(|(at, _)| *at);
        Ok(found.into_iter().map(|(_, r)| r).collect())
    }
}

/// Places of the candidates, those first of which a GPU gives the most.
fn densest<S>(all: &[Candidate<S>], rate: impl Fn(&S) -> f64) -> Vec<usize> {
    let density = |i: usize| rate(&all[i].side) / f64::from(all[i].layout.gpus());
    let mut order: Vec<usize> = (0..all.len()).collect();
    order.sort_by(|a, b| density(*b).total_cmp(&density(*a)));
    order
}

/// Pairs whose prompts are cut yet finer, and how many more or fewer prompts a round is tried with.
const LEADERS: usize = 3;
const MORE: i64 = 4;

impl Task<'_> {
    /// [`Task::near_best`], and then around the prompts of those that lead it every number of prompts a round.
    pub fn best_pairs(
        &self,
        level: u8,
        prefill: &[Candidate<PrefillSide>],
        decode: &[Candidate<DecodeSide>],
        aim: &Aim,
        tiers: Tiers,
    ) -> Result<Vec<Row>> {
        let mut rows = self.near_best(level, prefill, decode, aim, tiers)?;
        let aim = Aim { per_user: false, ..*aim };
        let mut leading: Vec<&Row> = rows.iter().collect();
        leading.sort_by(|a, b| order(&aim.score(&b.point), &aim.score(&a.point)));
        let mut prompts: Vec<Part> = Vec::new();
        for part in leading.iter().filter_map(|r| r.prefill) {
            let same = |p: &Part| (p.layout, p.batch, p.chunk) == (part.layout, part.batch, part.chunk);
            if prompts.len() < LEADERS && !prompts.iter().any(same) {
                prompts.push(part);
            }
        }
        let finer: Vec<Candidate<PrefillSide>> = prompts.iter().flat_map(|p| self.around_prompts(p, prefill)).collect();
        if !finer.is_empty() {
            let tiers = tiers.and(Tiers::of(&rows, &aim));
            let more = self.near_best(level, &finer, decode, &aim, tiers)?;
            append_new(&mut rows, more);
        }
        Ok(rows)
    }

    /// One way of cutting prompts with a few more or fewer of them a round, and in a piece more or less.
    fn around_prompts(&self, part: &Part, known: &[Candidate<PrefillSide>]) -> Vec<Candidate<PrefillSide>> {
        let Some(own) = known.iter().find(|c| c.layout == part.layout) else { return Vec::new() };
        let pieces = (self.load.isl / f64::from(part.chunk.max(1))).round().max(1.0);
        let mut out = Vec::new();
        for n in [pieces - 1.0, pieces, pieces + 1.0].into_iter().filter(|n| *n >= 1.0) {
            let chunk = if n == pieces { f64::from(part.chunk) } else { (self.load.isl / n).ceil() };
            for more in -MORE..=MORE {
                let Ok(sequences @ 1..) = u32::try_from(i64::from(part.batch) + more) else { continue };
                let seen =
                    |c: &Candidate<PrefillSide>| (c.layout, c.batch, c.chunk) == (part.layout, sequences, chunk as u32);
                if known.iter().any(seen) || sequences > 1 && f64::from(sequences) * chunk > 65_536.0 {
                    continue;
                }
                let side = own.stepper.prefill_side(&self.load, f64::from(sequences), chunk);
                if side.short.is_none() {
                    let side = side.with_ports(&own.stepper, &self.load);
                    out.push(Candidate { batch: sequences, chunk: chunk as u32, side, ..own.clone() });
                }
            }
        }
        out
    }
}

/// Rate of a pair when slots could be cut at will.
fn fluid(budget: u32, p: &Candidate<PrefillSide>, d: &Candidate<DecodeSide>) -> f64 {
    let gpus = |layout: &Layout| f64::from(layout.gpus());
    f64::from(budget) / (gpus(&p.layout) / p.side.rate + gpus(&d.layout) / d.side.rate) * (1.0 + 1e-9)
}

/// Rate of a pair at the best whole numbers when neither domains nor KV cost anything.
pub fn promise(budget: u32, p: &Candidate<PrefillSide>, d: &Candidate<DecodeSide>) -> f64 {
    let (gp, gd) = (p.layout.gpus(), d.layout.gpus());
    if gp + gd > budget {
        return f64::NEG_INFINITY;
    }
    let (supply, demand) = (p.side.rate, d.side.rate);
    let most = (budget - gd) / gp;
    let balance = f64::from(budget) * demand / (supply * f64::from(gd) + demand * f64::from(gp));
    let mut best = 0.0_f64;
    // Above the balance supply waits for demand; below it fewer prefill slots only supply less.
    for np in (1..=(balance as u32 + 1).clamp(1, most)).rev() {
        let demand = f64::from((budget - np * gp) / gd) * demand;
        let supply = f64::from(np) * supply;
        best = best.max(supply.min(demand));
        if supply <= demand {
            break;
        }
    }
    best
}
