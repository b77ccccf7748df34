//! How many of each slot: the best whole numbers of a prefill and a decode slot within the budget.
//!
//! Limit: whole workers, one kind a slot; what is left of the budget idles.

use rayon::prelude::*;

use super::candidate_clock;
use super::row::{Layout, Part, Row};
use super::sides::{Candidate, Priced, PromptSide};
use super::task::Task;
use crate::error::Result;
use crate::serving::StepEngine;
use crate::serving::pd::{self, DecodeSide, PrefillSide, Several};
use crate::spec::Level;

impl Task<'_> {
    /// Every pairing of the two slots' frontiers, with the best whole numbers of each within the budget.
    pub fn pair(
        &self,
        level: Level,
        prefill: &[Candidate<PrefillSide>],
        decode: &[Candidate<DecodeSide>],
    ) -> Result<Vec<Row>> {
        let mut rows = Vec::new();
        crate::pool::append(&mut rows, self.pair_each(level, prefill, decode)?)?;
        Ok(rows)
    }

    /// The same, one list a decode slot.
    pub(crate) fn pair_each(
        &self,
        level: Level,
        prefill: &[Candidate<PrefillSide>],
        decode: &[Candidate<DecodeSide>],
    ) -> Result<Vec<Vec<Row>>> {
        let rows: Vec<Vec<Row>> = crate::pool::install(|| {
            decode
                .par_iter()
                .map(|d| {
                    if self.control.is_cancelled() {
                        return Vec::new();
                    }
                    prefill.iter().filter_map(|p| self.best_numbers(level, p, d)).collect()
                })
                .collect()
        })?;
        self.control.check()?;
        Ok(rows)
    }

    /// (rate, workers or units of each slot) of the best whole numbers within the budget.
    pub(super) fn numbers(&self, p: &Candidate<PrefillSide>, d: &Candidate<DecodeSide>) -> Option<(f64, u32, u32)> {
        let (gp, gd) = (p.layout.gpus(), d.layout.gpus());
        if gp + gd > self.budget || !self.pairs_up(&p.layout, &d.layout) {
            return None;
        }
        let rate = |np: u32| {
            let nd = self.most((np, gp), gd);
            let wire = || pd::wire_rate(&p.clock, np, &d.clock, nd, &self.load);
            (nd > 0).then(|| ((f64::from(np) * p.side.rate).min(f64::from(nd) * d.side.rate).min(wire()), nd))
        };
        // Where supply meets demand lies the best number or its neighbour: what cannot reach that is not priced.
        let most = (self.budget - gd) / gp;
        let balance = f64::from(self.budget) * d.side.rate
            / (p.side.rate * f64::from(gd) + d.side.rate * f64::from(gp)).max(f64::MIN_POSITIVE);
        let near = rate((balance as u32).clamp(1, most)).map_or(0.0, |(r, _)| r);
        let mut best: Option<(f64, u32, u32)> = None;
        for np in 1..=most {
            let nd = (self.budget - np * gp) / gd;
            let bound = (f64::from(np) * p.side.rate).min(f64::from(nd) * d.side.rate);
            if best.is_some() && bound < near {
                continue;
            }
            let Some((rate, nd)) = rate(np) else { break };
            if best.is_none_or(|(r, ..)| rate > r * (1.0 + 1e-12)) {
                best = Some((rate, np, nd));
            }
        }
        best
    }

    pub(super) fn best_numbers(
        &self,
        level: Level,
        p: &Candidate<PrefillSide>,
        d: &Candidate<DecodeSide>,
    ) -> Option<Row> {
        let (_, np, nd) = self.numbers(p, d)?;
        Some(self.pair_of(level, p, np, d, nd))
    }

    /// So many of a prefill slot with so many of a decode slot.
    pub(super) fn pair_of(
        &self,
        level: Level,
        p: &Candidate<PrefillSide>,
        np: u32,
        d: &Candidate<DecodeSide>,
        nd: u32,
    ) -> Row {
        let point = candidate_clock::combine(
            Several::of(&p.clock, &p.side, np),
            Several::of(&d.clock, &d.side, nd),
            &self.load,
        );
        Row {
            level,
            framework: self.framework,
            main: Part { layout: d.layout, batch: d.batch, chunk: 0, count: nd, interval: 1 },
            prefill: Some(Part { layout: p.layout, batch: p.batch, chunk: p.chunk, count: np, interval: 1 }),
            point,
            scanned: p.clock.scans() || d.clock.scans(),
            leads: false,
        }
    }

    /// The nearest miss of a level of pairs none of which stands: the pair whose fullest GPU is the least full.
    pub(crate) fn closest_pair(
        &self,
        level: Level,
        prefill: &Priced<PromptSide>,
        decode: &Priced<DecodeSide>,
    ) -> Option<Row> {
        let mut best: Option<(f64, usize, usize)> = None;
        let fill = |s: &StepEngine, batch: f64, tokens: f64| {
            s.memory().iter().map(|m| m.bytes(batch, tokens) / m.capacity).fold(0.0, f64::max)
        };
        let chunk = |l: &Layout| (self.load.isl / f64::from(l.microbatches())).ceil();
        let prefills: Vec<f64> = prefill.iter().map(|(l, s, _)| fill(s, 1.0, chunk(l).min(self.load.isl))).collect();
        let decodes: Vec<f64> = decode
            .iter()
            .map(|(l, s, _)| fill(s, f64::from(l.microbatches()), f64::from(l.microbatches()) * self.per_decode()))
            .collect();
        for (i, (p, ..)) in prefill.iter().enumerate() {
            for (j, (d, ..)) in decode.iter().enumerate() {
                let full = prefills[i].max(decodes[j]);
                if best.is_none_or(|(b, ..)| full < b) && self.pairs_up(p, d) && self.most((1, p.gpus()), d.gpus()) > 0
                {
                    best = Some((full, i, j));
                }
            }
        }
        let (_, i, j) = best?;
        let ((p, ps, _), (d, ds, _)) = (&prefill[i], &decode[j]);
        let batch = d.microbatches();
        let (ps, ds): (&StepEngine, &StepEngine) = (ps, ds);
        let side = pd::prefill_side(ps, &self.load, 1.0, chunk(p));
        let decode = pd::decode_side(ds, &self.load, f64::from(batch));
        let point = pd::combine(Several::of(ps, &side, 1), Several::of(ds, &decode, 1), &self.load);
        Some(Row {
            level,
            framework: self.framework,
            main: Part { layout: *d, batch, chunk: 0, count: 1, interval: 1 },
            prefill: Some(Part { layout: *p, batch: 1, chunk: chunk(p) as u32, count: 1, interval: 1 }),
            point,
            scanned: false,
            leads: false,
        })
    }
}
