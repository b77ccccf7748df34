//! Layouts beyond the coarse grid: from those that lead it, one step at a time to better ones.
//!
//! AFD units share their GPUs in so many ways that the coarse grid (`space::units`) holds few of them. A beam of the
//! best layouts looks at everything one step away (`space::beside`: a few GPUs more or less in either pool, another
//! TP, expert TP, number of micro-batches, groups or stages, one unit more or less on the budget) and keeps the best,
//! until a round finds nothing better. What is looked at is priced by the clock that prices the grid. Limit: it is a
//! climb; what it misses is held against everything there is in tests/rust/fair.rs.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use rayon::prelude::*;

use super::levels::{Priced, PromptSide, Slot, Task, coarse};
use super::refine::{Aim, At, best_of, order, polish, rate_within, reach, worth_more};
use super::row::{Layout, Part, Row};
use super::space;
use super::timer::Timer;
use crate::control::Control;
use crate::error::Result;
use crate::math::climb::Climb;
use crate::serving::choose::{chunk_grid, most_sequences};
use crate::serving::pd::DecodeSide;

/// Layouts that a round starts from, those of them with the same number on the budget, stages and groups, and rounds at
/// most.
const BEAM: usize = 16;
const ALIKE: usize = 2;
const ROUNDS: usize = 12;
/// Layouts of the grid that are priced as the climb prices before it starts.
const SEEDS: usize = 64;
/// A round that gains less than this is the last.
const GAIN: f64 = 1e-4;
/// A layout that is only climbed through is polished to this share of its batch and chunk.
const NEARLY: u32 = 32;
/// Layouts of the densest whose proportions are tried at every size, and how far from theirs.
const PROPORTIONS: usize = 3;
const FAR: f64 = 2.2;

/// A layout's clock and its rows.
pub type Group = (Arc<Timer>, Vec<Row>);

/// How good a layout is (as [`Aim::score`]), and the batch and chunk that are.
#[derive(Clone, Copy)]
pub struct Found {
    pub layout: Layout,
    pub score: (u8, f64),
    pub at: At,
}

/// Climbs from the best of `from`; gives what was priced on the way, in the order it was looked at. `known`: not to be
/// looked at again; `reach`: how far behind the best a layout may be to be climbed from.
pub fn climb<T: Send>(
    control: &Control,
    mut from: Vec<Found>,
    reach: f64,
    known: impl Iterator<Item = Layout>,
    beside: impl Fn(&Layout) -> Vec<Layout>,
    price: impl Fn(&Layout, At) -> Result<Option<(Found, T)>> + Sync,
) -> Result<Vec<(Found, T)>> {
    from.retain(|f| f.score.0 > 0);
    keep(&mut from, SEEDS, 2 * ALIKE);
    if let Some(best) = from.first().map(|f| f.score) {
        from.retain(|f| worth_more(f.score, best, reach));
    }
    // The grid judges some by a batch far from their best.
    let seeds: Vec<Result<Option<(Found, T)>>> =
        crate::pool::install(|| from.par_iter().map(|f| price(&f.layout, f.at)).collect())?;
    for (f, seed) in from.iter_mut().zip(seeds) {
        if let Some((found, _)) = seed? {
            *f = found;
        }
    }
    keep(&mut from, BEAM, ALIKE);
    let mut seen: HashSet<Layout> = known.collect();
    let mut out: Vec<(Found, T)> = Vec::new();
    for _ in 0..ROUNDS {
        let Some(best) = from.first().map(|f| f.score) else { break };
        let mut next: Vec<(Layout, At)> = Vec::new();
        for f in &from {
            next.extend(beside(&f.layout).into_iter().filter(|l| seen.insert(*l)).map(|l| (l, f.at)));
        }
        let one = |(layout, at): &(Layout, At)| {
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
        keep(&mut from, BEAM, ALIKE);
        let gained = from.first().is_some_and(|f| f.score.0 > best.0 || f.score.1 > best.1 + GAIN * best.1.abs());
        if !gained {
            break;
        }
    }
    Ok(out)
}

/// Keeps the best, of those alike a few: climbs of another kind often start lower.
fn keep(from: &mut Vec<Found>, most: usize, alike: usize) {
    // Stable: equals keep their order.
    from.sort_by(|a, b| order(&b.score, &a.score));
    let mut kinds: HashMap<[u32; 3], usize> = HashMap::new();
    from.retain(|f| {
        let Layout::Afd { groups, pp, .. } = f.layout else { return true };
        let size = f.layout.gpus();
        // Sizes of which as many fit on a budget lie within a few per cent of each other: by octave quarters.
        let kind = kinds.entry([(f64::from(size).log2() * 4.0) as u32, groups, pp]).or_default();
        *kind += 1;
        *kind <= alike
    });
    from.truncate(most);
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
        [batch, _, interval]: At,
        per_octave: u32,
        aim: &Aim,
    ) -> Result<Option<(Found, Group)>> {
        let timer = self.timers.get(*layout, || self.timer(layout, self.workload))?;
        let most = most_sequences(&timer, self.load.isl.min(512.0));
        let count = self.most((0, 1), layout.gpus());
        let m = layout.microbatches();
        let batches: Vec<u32> = space::batches(most, per_octave).into_iter().filter(|b| *b >= m).collect();
        if most < 1.0 || count == 0 || batches.is_empty() {
            return Ok(None);
        }
        let cadences = self.cadences(&timer);
        let interval = if cadences.contains(&interval) { interval } else { cadences[0] };
        let per_decode = self.per_decode();
        let chunks = |b: &u32| coarse(chunk_grid(&self.load, *b, per_decode)).collect();
        let grid: Vec<Vec<u32>> = batches.iter().map(chunks).collect();
        let better = |a: &(Row, (u8, f64)), b: &(Row, (u8, f64))| order(&a.1, &b.1).is_gt();
        let mut climb = Climb::new(grid.iter().map(|c| (0, c.len())), better);
        let start = batches.partition_point(|b| *b < batch).min(batches.len() - 1);
        climb.run(&[start], 1, |i, j| {
            let (batch, chunk) = (batches[i], grid[i][j]);
            let point = timer.mixed(&self.load, [batch, chunk, interval], count);
            let main = Part { layout: *layout, batch, chunk, count, interval };
            let (framework, scanned) = (self.framework, timer.scans());
            let row = Row { level, framework, main, prefill: None, point, scanned, leads: false };
            (row, aim.score(&row.point))
        });
        let Some((.., (best, score))) = climb.best() else { return Ok(None) };
        let mut rows: Vec<Row> = climb.priced().map(|(.., (row, _))| row).collect();
        let start = [best.main.batch, best.main.chunk, interval];
        let within = (m, most.min(4096.0) as u32);
        let (at, score) = polish(start, score, within, &cadences, NEARLY, |[batch, chunk, interval]| {
            let point = timer.mixed(&self.load, [batch, chunk, interval], count);
            let main = Part { layout: *layout, batch, chunk, count, interval };
            rows.push(Row { main, point, ..best });
            aim.score(&point)
        });
        // Rising in batch, falling in chunk and rising in cadence, as a whole grid is.
        rows.sort_by(|a, b| {
            let (x, y) = (&a.main, &b.main);
            x.batch.cmp(&y.batch).then(y.chunk.cmp(&x.chunk)).then(x.interval.cmp(&y.interval))
        });
        rows.dedup_by(|a, b| a.main == b.main);
        let found = Found { layout: *layout, score, at };
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
    ) -> Result<Vec<Group>> {
        let best = |rows: &[Row]| {
            let (row, score) = best_of(rows, aim)?;
            Some(Found { layout: row.main.layout, score, at: [row.main.batch, row.main.chunk, row.main.interval] })
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
            let least = slot.2.iter().map(|s| s.step.seconds).fold(f64::INFINITY, f64::min);
            worth(rate_within(&slot.2, limit).map_or(0.0, |r| r / gpus), least / limit)
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
        let of = |slot: &Slot<S>| Found { layout: slot.0, score: value(slot), at: [0, 0, 1] };
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
