//! Layouts beyond the coarse grid: from those that lead it, one step at a time to better ones.
//!
//! AFD units share their GPUs in so many ways that the coarse grid (`space::units`) holds few of them. A beam of the
//! best layouts looks at everything one step away (`space::beside`: a few GPUs more or less in either pool, another
//! TP, expert TP, number of micro-batches, groups or stages, one unit more or less on the budget) and keeps the best,
//! until a round finds nothing better. What is looked at is priced by the clock that prices the grid. Limit: it is a
//! climb; what it misses is held against everything there is in tests/rust/fair.rs.

use std::collections::HashSet;
use std::sync::Arc;

use rayon::prelude::*;

use super::levels::{Priced, PromptSide, Slot, Task};
use super::refine::{Aim, best_of, order, reach, worth_more};
use super::row::{Layout, Part, Row};
use super::space;
use super::timer::Timer;
use crate::control::Control;
use crate::error::Result;
use crate::math::climb::Climb;
use crate::serving::choose::{chunk_grid, most_sequences};
use crate::serving::pd::DecodeSide;

/// Layouts that a round starts from, and rounds at most.
const BEAM: usize = 6;
const ROUNDS: usize = 12;
/// A round that gains less than this is the last.
const GAIN: f64 = 1e-4;
/// Layouts of the densest whose proportions are tried at every size, and how far from theirs.
const PROPORTIONS: usize = 3;
const FAR: f64 = 2.2;

/// How good a layout is (as [`Aim::score`]), and the batch and chunk that are.
#[derive(Clone, Copy)]
pub struct Found {
    pub layout: Layout,
    pub score: (u8, f64),
    pub at: (u32, u32),
}

/// Climbs from the best of `from`; gives what was priced on the way, in the order it was looked at. `known`: not to be
/// looked at again; `reach`: how far behind the best a layout may be to be climbed from.
pub fn climb<T: Send>(
    control: &Control,
    mut from: Vec<Found>,
    reach: f64,
    known: impl Iterator<Item = Layout>,
    beside: impl Fn(&Layout) -> Vec<Layout>,
    price: impl Fn(&Layout, (u32, u32)) -> Result<Option<(Found, T)>> + Sync,
) -> Result<Vec<(Found, T)>> {
    from.retain(|f| f.score.0 > 0);
    // Stable: equals keep their order.
    from.sort_by(|a, b| order(&b.score, &a.score));
    from.truncate(BEAM);
    if let Some(best) = from.first().map(|f| f.score) {
        from.retain(|f| worth_more(f.score, best, reach));
    }
    let mut seen: HashSet<Layout> = known.collect();
    let mut out: Vec<(Found, T)> = Vec::new();
    for _ in 0..ROUNDS {
        let Some(best) = from.first().map(|f| f.score) else { break };
        let mut next: Vec<(Layout, (u32, u32))> = Vec::new();
        for f in &from {
            next.extend(beside(&f.layout).into_iter().filter(|l| seen.insert(*l)).map(|l| (l, f.at)));
        }
        let one = |(layout, at): &(Layout, (u32, u32))| {
            control.check()?;
            price(layout, *at)
        };
        let found: Vec<Result<Option<(Found, T)>>> = crate::pool::install(|| next.par_iter().map(one).collect())?;
        for f in found {
            if let Some((f, priced)) = f? {
                from.push(f);
                out.push((f, priced));
            }
        }
        from.retain(|f| f.score.0 > 0);
        from.sort_by(|a, b| order(&b.score, &a.score));
        from.truncate(BEAM);
        let gained = from.first().is_some_and(|f| f.score.0 > best.0 || f.score.1 > best.1 + GAIN * best.1.abs());
        if !gained {
            break;
        }
    }
    Ok(out)
}

impl Task<'_> {
    fn beside(&self, layout: &Layout, prefill: bool) -> Vec<Layout> {
        let (micro, groups) = if prefill {
            (&space::PREFILL_MICROBATCHES[..], &space::GROUPS[..1])
        } else {
            (&space::MICROBATCHES[..], &space::GROUPS[..])
        };
        space::beside(&self.choices(), layout, micro, groups)
    }

    /// Rows of a layout on the coarse grid, climbed from a batch and chunk.
    fn mixed_near(
        &self,
        level: u8,
        layout: &Layout,
        (batch, _): (u32, u32),
        per_octave: u32,
        aim: &Aim,
    ) -> Result<Option<(Found, (Arc<Timer>, Vec<Row>))>> {
        let timer = self.timers.get(*layout, || self.timer(layout, self.workload))?;
        let most = most_sequences(&timer, self.load.isl.min(512.0));
        let count = self.most((0, 1), layout.gpus());
        let m = layout.microbatches();
        let batches: Vec<u32> = space::batches(most, per_octave).into_iter().filter(|b| *b >= m).collect();
        if most < 1.0 || count == 0 || batches.is_empty() {
            return Ok(None);
        }
        let per_decode = self.per_decode();
        let grid: Vec<Vec<u32>> = batches.iter().map(|b| chunk_grid(&self.load, *b, per_decode)).collect();
        let better = |a: &(Row, (u8, f64)), b: &(Row, (u8, f64))| order(&a.1, &b.1).is_gt();
        let mut climb = Climb::new(grid.iter().map(|c| (0, c.len())), better);
        let start = batches.partition_point(|b| *b < batch).min(batches.len() - 1);
        climb.run(&[start], 1, |i, j| {
            let (batch, chunk) = (batches[i], grid[i][j]);
            let point = timer.mixed(&self.load, f64::from(batch), f64::from(chunk), count);
            let main = Part { layout: *layout, batch, chunk, count };
            let (framework, scanned) = (self.framework, timer.scans());
            let row = Row { level, framework, main, prefill: None, point, scanned, leads: false };
            (row, aim.score(&row.point))
        });
        let Some((.., (best, score))) = climb.best() else { return Ok(None) };
        // Rising in batch and falling in chunk, as a whole grid is.
        let mut rows: Vec<Row> = climb.priced().map(|(.., (row, _))| row).collect();
        rows.sort_by(|a, b| a.main.batch.cmp(&b.main.batch).then(b.main.chunk.cmp(&a.main.chunk)));
        let found = Found { layout: *layout, score, at: (best.main.batch, best.main.chunk) };
        Ok(Some((found, (timer, rows))))
    }

    /// Units of a mixed level beyond those of the grid, whose layouts have the rows `groups`.
    pub(super) fn mixed_beyond<'r>(
        &self,
        level: u8,
        groups: impl Iterator<Item = &'r [Row]>,
        known: impl Iterator<Item = Layout>,
        per_octave: u32,
        aim: &Aim,
    ) -> Result<Vec<(Arc<Timer>, Vec<Row>)>> {
        let best = |rows: &[Row]| {
            let (row, score) = best_of(rows, aim)?;
            Some(Found { layout: row.main.layout, score, at: (row.main.batch, row.main.chunk) })
        };
        let found = climb(
            self.control,
            groups.filter_map(best).collect(),
            reach(per_octave),
            known,
            |l| self.beside(l, false),
            |l, at| self.mixed_near(level, l, at, per_octave, aim),
        )?;
        Ok(found.into_iter().map(|(_, group)| group).collect())
    }

    /// Units for the decode slot beyond those of the grid, dense under a TPOT limit (seconds a step).
    pub(super) fn decode_beyond(
        &self,
        priced: &Priced<DecodeSide>,
        per_octave: u32,
        limit: f64,
    ) -> Result<Priced<DecodeSide>> {
        let value = |slot: &Slot<DecodeSide>| {
            let gpus = f64::from(slot.0.gpus());
            let within = slot.2.iter().filter(|s| s.step.seconds <= limit).map(|s| s.rate / gpus);
            let least = slot.2.iter().map(|s| s.step.seconds).fold(f64::INFINITY, f64::min);
            worth(within.fold(0.0, f64::max), least / limit)
        };
        let kept = |l: &Layout| Ok((*self.decoded.get(*l, || self.decode_of(l, per_octave))?).clone());
        self.beyond(priced, false, value, kept)
    }

    /// Units for the prefill slot beyond those of the grid, dense under a TTFT limit in seconds.
    pub(super) fn prefill_beyond(&self, priced: &Priced<PromptSide>, limit: f64) -> Result<Priced<PromptSide>> {
        let prompts = self.workload.prefill_part();
        let value = |slot: &Slot<PromptSide>| {
            let gpus = f64::from(slot.0.gpus());
            let within = slot.2.iter().filter(|s| s.2.prefill.latency_s <= limit).map(|s| s.2.rate / gpus);
            let least = slot.2.iter().map(|s| s.2.prefill.latency_s).fold(f64::INFINITY, f64::min);
            worth(within.fold(0.0, f64::max), least / limit)
        };
        let kept = |l: &Layout| Ok((*self.prompted.get(*l, || self.prefill_of(l, &prompts))?).clone());
        self.beyond(priced, true, value, kept)
    }

    /// Slots beyond a grid: a climb by what a GPU gives, then the proportions of the densest at every size near theirs.
    fn beyond<S: Clone + Send + Sync>(
        &self,
        priced: &Priced<S>,
        prefill: bool,
        value: impl Fn(&Slot<S>) -> (u8, f64) + Sync,
        price: impl Fn(&Layout) -> Result<Slot<S>> + Sync,
    ) -> Result<Priced<S>> {
        let of = |slot: &Slot<S>| Found { layout: slot.0, score: value(slot), at: (0, 0) };
        let mut best: Vec<Found> = priced.iter().map(of).collect();
        let mut known: HashSet<Layout> = best.iter().map(|f| f.layout).collect();
        let one = |layout: &Layout| -> Result<Option<(Found, Slot<S>)>> {
            let slot = price(layout)?;
            Ok(Some((of(&slot), slot)))
        };
        let climbed = climb(
            self.control,
            best.clone(),
            f64::INFINITY,
            known.iter().copied(),
            |l| self.beside(l, prefill),
            |l, _| one(l),
        )?;
        known.extend(climbed.iter().map(|(f, _)| f.layout));
        best.extend(climbed.iter().map(|(f, _)| *f));
        best.retain(|f| f.score.0 > 0);
        best.sort_by(|a, b| order(&b.score, &a.score));
        let mut wanted: Vec<Layout> = Vec::new();
        for f in best.iter().take(PROPORTIONS) {
            wanted.extend(self.at_every_size(&f.layout).into_iter().filter(|l| known.insert(*l)));
        }
        let checked = |layout: &Layout| {
            self.control.check()?;
            price(layout)
        };
        let sized: Vec<Result<Slot<S>>> = crate::pool::install(|| wanted.par_iter().map(checked).collect())?;
        let mut out: Priced<S> = climbed.into_iter().map(|(_, slot)| slot).collect();
        for slot in sized {
            out.push(slot?);
        }
        Ok(out)
    }

    /// A unit's options at every size near its own: with its proportions, with its FFN pool, with its attention pool.
    fn at_every_size(&self, layout: &Layout) -> Vec<Layout> {
        let Layout::Afd { attention_gpus: a, tp, ffn_gpus: f, moe_tp, microbatches, groups, pp, .. } = *layout else {
            return Vec::new();
        };
        let mut out: Vec<Layout> = Vec::new();
        let (own, step) = (f64::from((a + f) * pp), tp * groups);
        let near = |g: &u32| f64::from(*g) <= own * FAR && f64::from(*g) >= own / FAR && g.is_multiple_of(pp);
        for size in space::sizes(self.budget).into_iter().filter(near).map(|g| g / pp) {
            let share = (f64::from(size) * f64::from(a) / f64::from(a + f) / f64::from(step)).round() as u32 * step;
            for attention in [share, size.saturating_sub(f), a] {
                let Some(ffn) = size.checked_sub(attention).filter(|f| *f > 0) else { continue };
                let found = space::unit(&self.choices(), [attention, ffn], tp, moe_tp, [microbatches, groups, pp]);
                out.extend(found.filter(|l| !out.contains(l)));
            }
        }
        out
    }
}

/// Within a limit by what a GPU gives; beyond it by how far.
fn worth(within: f64, excess: f64) -> (u8, f64) {
    if within > 0.0 {
        (2, within)
    } else if excess.is_finite() {
        (1, -excess)
    } else {
        (0, 0.0)
    }
}
