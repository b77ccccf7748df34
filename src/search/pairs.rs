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

use super::frontier::{self, Candidate};
use super::levels::{Priced, PromptSide, Task};
use super::near::{LIMITS, Tiers};
use super::refine::{Aim, append_new, order};
use super::row::{Layout, Part, Row};
use crate::error::Result;
use crate::serving::pd::{DecodeSide, PrefillSide};
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
}

/// What fills (prefill, decode) in `pd` and in `pd+afd`: 0 workers, 1 units.
pub fn ways(level: u8) -> &'static [[usize; 2]] {
    if level == 1 { &[[0, 0]] } else { &[[0, 1], [1, 0], [1, 1]] }
}

impl Task<'_> {
    /// Both slots of one kind, decode priced here.
    pub fn sides(&self, prompts: Arc<Prompts>, decode: &[Layout], per_octave: u32) -> Result<Sides> {
        let decode = self.decode(decode, per_octave)?;
        Ok(Sides { prompts, per_octave, front: frontier::decode_frontier(&decode, &self.load)?, decode })
    }

    /// Prices the prefill slot, and once more with finer cuts where a layout stands near the frontier.
    pub fn prompts(&self, layouts: &[Layout]) -> Result<Prompts> {
        let mut all = self.prefill(layouts)?;
        if layouts.first().is_some_and(Layout::is_afd) {
            let least = all.iter().flat_map(|(_, _, sides)| sides).map(|s| s.2.prefill.latency_s);
            let least = least.fold(f64::INFINITY, f64::min);
            for times in LATENCIES {
                let more = self.prefill_beyond(&all, least * times)?;
                all.extend(more);
            }
        }
        let front = frontier::prefill_frontier(&all, &self.load)?;
        let mut on: HashMap<Layout, Vec<(u32, u32)>> = HashMap::new();
        // A layout a little behind on the coarse grid may lead on the finer one.
        for (layout, batch, chunk) in frontier::prefill_near(&all, &self.load, SLACK)? {
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
        let every = frontier::prefill_every(&finer, &self.load)?;
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
        let aim = Aim { per_user: false, ..*aim };
        // Densest first: what a GPU of each slot gives.
        let density = |c: &Candidate<PrefillSide>| c.side.rate / f64::from(c.layout.gpus());
        let late = LIMITS[0] * aim.slo.ttft_ms.map_or(f64::INFINITY, |t| t * 1e-3);
        let mut prompts: Vec<usize> =
            (0..prefill.len()).filter(|i| prefill[*i].side.prefill.latency_s <= late).collect();
        prompts.sort_by(|a, b| density(&prefill[*b]).total_cmp(&density(&prefill[*a])).then(a.cmp(b)));
        let found: Vec<(Vec<(usize, Row)>, Tiers)> = crate::pool::install(|| {
            decode
                .par_iter()
                .map(|d| {
                    let (mut rows, mut tiers) = (Vec::new(), tiers);
                    for &i in &prompts {
                        let p = &prefill[i];
                        if self.control.is_cancelled() || fluid(self.budget, p, d) < tiers.floor() {
                            break;
                        }
                        if promise(self.budget, p, d) < tiers.floor() {
                            continue;
                        }
                        let Some(row) = self.best_numbers(level, p, d) else { continue };
                        if row.point.stands() {
                            tiers.add(aim.gain(&row.point), row.point.excess(&aim.slo));
                            rows.push((i, row));
                        }
                    }
                    (rows, tiers)
                })
                .collect()
        })?;
        self.control.check()?;
        let tiers = found.iter().fold(tiers, |t, (_, own)| t.and(*own));
        let mut out = Vec::new();
        for (mut rows, _) in found {
            rows.retain(|(_, r)| tiers.takes(aim.gain(&r.point), r.point.excess(&aim.slo)));
            rows.sort_by_key(|(i, _)| *i);
            out.extend(rows.into_iter().map(|(_, r)| r));
        }
        Ok(out)
    }
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
