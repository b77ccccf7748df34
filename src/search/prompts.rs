//! The prefill slot of a level: how prompts are cut, finer where a layout stands near the frontier.
//!
//! Limits: prompts are cut finer only on the layouts within [`SLACK`] of the coarse frontier of their size, around what
//! stands there.

use std::sync::Arc;

use rayon::prelude::*;
use rustc_hash::{FxHashMap, FxHashSet};

use super::candidate_clock::CandidateClock;
use super::constants::prompts::{LATENCIES, MORE, SLACK};
use super::fine_grid::PIECES;
use super::kept::Kept;
use super::row::{Layout, Part};
use super::sides::{Candidate, Cut, Priced, Prompts};
use super::task::Task;
use crate::error::Result;
use crate::serving::pd::PrefillSide;
use crate::spec::{Role, Workload};

/// Prompts a round on the finer grid.
const FINE_SEQUENCES: [u32; 18] = [1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28, 32, 40, 48];

/// Ways of cutting prompts into every n-th number of pieces of the fine grid, (sequences, chunk), on a layout.
pub(super) fn cuts(isl: f64, layout: &Layout, nth: usize, sequences: &[u32]) -> impl Iterator<Item = (u32, u32)> {
    let fills = |piece: f64| !layout.is_afd() || piece >= f64::from(layout.microbatches()) / 2.0;
    let chunk = move |piece: f64| (isl / piece).ceil().max(1.0);
    let pieces =
        PIECES.into_iter().step_by(nth).filter(move |p| fills(*p) && (chunk(*p) >= 16.0 || *p <= 1.0)).map(chunk);
    let most = |n: u32, chunk: f64| n == 1 || f64::from(n) * chunk <= 65_536.0;
    pieces.flat_map(move |c| sequences.iter().filter(move |n| most(**n, c)).map(move |n| (*n, c as u32)))
}

impl Task<'_> {
    /// Prices the prefill slot, and once more with finer cuts where a layout stands near the frontier.
    pub fn prompts(&self, layouts: &[Layout]) -> Result<Prompts> {
        let mut all = self.prefill(&self.paired_up(layouts, Role::Prompts))?;
        if layouts.first().is_some_and(Layout::is_afd) {
            let least = all.iter().flat_map(|(_, _, sides)| sides).map(|s| s.2.prefill.latency_s);
            let least = least.fold(f64::INFINITY, f64::min);
            for times in LATENCIES {
                let more = self.prefill_beyond(&all, least * times)?;
                all.extend(more);
            }
        }
        let front = self.prefill_frontier(&all)?;
        let mut on: FxHashMap<Layout, Vec<(u32, u32)>> = FxHashMap::default();
        // A layout a little behind on the coarse grid may lead on the finer one.
        for (layout, batch, chunk) in self.prefill_near(&all, SLACK)? {
            on.entry(layout).or_default().push((batch, chunk));
        }
        let finer: Priced<_> = crate::pool::install(|| {
            all.par_iter()
                .map(|(layout, clock, sides)| {
                    let best = on.get(layout);
                    let sides = best.map_or_else(|| sides.clone(), |b| self.finer_prefill(layout, clock, sides, b));
                    (*layout, clock.clone(), sides)
                })
                .collect()
        })?;
        self.control.check()?;
        let every = self.prefill_every(&finer)?;
        Ok(Prompts { all, front, every, cuts: Kept::default(), of_size: Kept::default() })
    }

    /// The same, once for all workloads with these prompts: what is answered has no part in it.
    pub(crate) fn prompts_shared(&self, kind: &str, layouts: &[Layout]) -> Result<Arc<Prompts>> {
        let prompts = Workload { name: String::new(), ..self.workload.prefill_part() };
        let key = format!("{kind} {} {prompts:?} {:?}", self.budget, self.load.shipped());
        self.compiled.prompts.get(key, || {
            let mut made = self.prompts(layouts)?;
            // What is priced stands on the frontiers; for a nearest miss the layouts are enough.
            made.all.iter_mut().for_each(|(_, _, sides)| *sides = Vec::new());
            Ok(made)
        })
    }

    /// The known ways of cutting prompts on one layout and finer ones beside `best` (sequences, chunk), as far as the
    /// next coarse ones.
    fn finer_prefill(
        &self,
        layout: &Layout,
        clock: &CandidateClock,
        known: &[(u32, u32, PrefillSide)],
        best: &[(u32, u32)],
    ) -> Vec<(u32, u32, PrefillSide)> {
        let near = |a: u32, b: u32| (0.49..2.05).contains(&(f64::from(a) / f64::from(b)));
        let mut sides = known.to_vec();
        for (sequences, chunk) in cuts(self.load.isl, layout, 1, &FINE_SEQUENCES) {
            let seen = known.iter().any(|(s, c, _)| *s == sequences && *c == chunk);
            let beside = |(s, c): &(u32, u32)| near(sequences, *s) && near(chunk, *c);
            if seen || !best.iter().any(beside) {
                continue;
            }
            let side = clock.prefill_side(&self.load, f64::from(sequences), f64::from(chunk));
            if side.short.is_none() {
                sides.push((sequences, chunk, side));
            }
        }
        sides
    }

    /// One way of cutting prompts with a few more or fewer of them a round, and in a piece more or less.
    /// `prompts`: have the layout; `known`: what has been looked at.
    pub(super) fn around_prompts(
        &self,
        part: &Part,
        prompts: &Prompts,
        known: &mut FxHashSet<Cut>,
    ) -> Result<Vec<Candidate<PrefillSide>>> {
        let pieces = (self.load.isl / f64::from(part.chunk.max(1))).round().max(1.0);
        let mut out = Vec::new();
        for n in [pieces - 1.0, pieces, pieces + 1.0].into_iter().filter(|n| *n >= 1.0) {
            let chunk = if n == pieces { f64::from(part.chunk) } else { (self.load.isl / n).ceil() };
            for more in -MORE..=MORE {
                let Ok(sequences @ 1..) = u32::try_from(i64::from(part.batch) + more) else { continue };
                if sequences > 1 && f64::from(sequences) * chunk > 65_536.0
                    || !known.insert((part.layout, sequences, chunk as u32))
                {
                    continue;
                }
                let part = Part { batch: sequences, chunk: chunk as u32, ..*part };
                out.extend(self.prompts_as(&part, prompts)?);
            }
        }
        Ok(out)
    }

    /// Prompts cut as this part cuts them; none: not a layout of `prompts`, or they do not fit.
    pub(super) fn prompts_as(&self, part: &Part, prompts: &Prompts) -> Result<Option<Candidate<PrefillSide>>> {
        let Some(own) = prompts.every.iter().find(|c| c.layout == part.layout) else { return Ok(None) };
        // Leaders under other limits often cut their prompts alike.
        let side = prompts.cuts.get((part.layout, part.batch, part.chunk), || {
            let side = own.clock.prefill_side(&self.load, f64::from(part.batch), f64::from(part.chunk));
            Ok(side.with_ports(&own.clock, &self.load))
        })?;
        let make = || Candidate { batch: part.batch, chunk: part.chunk, side: *side, ..own.clone() };
        Ok(side.short.is_none().then(make))
    }
}
