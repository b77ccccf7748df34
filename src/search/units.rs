//! Layouts beyond the coarse grid: from those that lead it, one step at a time to better ones.
//!
//! AFD units share their GPUs in so many ways that the coarse grid (`space::units`) holds few of them. A beam of the
//! best layouts looks at everything one step away (`space::beside`: a few GPUs more or less in either pool, another
//! TP, expert TP, number of micro-batches, groups or stages, one unit more or less on the budget) and keeps the best,
//! until two rounds in a row find nothing better. What is looked at is priced by the clock that prices the grid.
//! Limit: it is a climb; what it misses is held against everything there is in tests/rust/fair.rs.

use std::sync::Arc;

use rayon::prelude::*;
use rustc_hash::{FxHashMap, FxHashSet};

use super::aim::order;
use super::constants::climb::{ALIKE, BEAM, FAR, GAIN, PROPORTIONS, ROUNDS, VAIN};
use super::row::Layout;
use super::sides::{Priced, PromptSide, Slot};
use super::space;
use super::task::Task;
use crate::control::Control;
use crate::error::Result;
use crate::serving::pd::DecodeSide;
use crate::spec::Role;

/// How good a layout is (as `Aim::score`).
#[derive(Clone, Copy)]
pub struct Found {
    pub layout: Layout,
    pub score: (u8, f64),
}

/// Climbs from the best of `from`; gives what was priced on the way, in the order it was looked at. `seen`: not to be
/// looked at again; `last`: rounds in a row without gain after which it ends.
pub(crate) fn climb<T: Send>(
    control: &Control,
    mut from: Vec<Found>,
    last: usize,
    seen: &mut FxHashSet<Layout>,
    beside: impl Fn(&Layout) -> Result<Arc<Vec<Layout>>>,
    price: impl Fn(&Layout) -> Result<(Found, T)> + Sync,
) -> Result<Vec<(Found, T)>> {
    from.retain(|f| f.score.0 > 0);
    keep(&mut from, BEAM, ALIKE);
    let mut out: Vec<(Found, T)> = Vec::new();
    let mut vain = 0;
    for _ in 0..ROUNDS {
        let Some(best) = from.first().map(|f| f.score) else { break };
        let mut next: Vec<Layout> = Vec::new();
        for f in &from {
            next.extend(beside(&f.layout)?.iter().copied().filter(|l| seen.insert(*l)));
        }
        let one = |layout: &Layout| {
            control.check()?;
            price(layout)
        };
        let found: Vec<Result<(Found, T)>> = crate::pool::install(|| next.par_iter().map(one).collect())?;
        for f in found {
            let (f, priced) = f?;
            from.push(f);
            out.push((f, priced));
        }
        from.retain(|f| f.score.0 > 0);
        keep(&mut from, BEAM, ALIKE);
        let gained = from.first().is_some_and(|f| f.score.0 > best.0 || f.score.1 > best.1 + GAIN * best.1.abs());
        vain = if gained { 0 } else { vain + 1 };
        if vain == last {
            break;
        }
    }
    Ok(out)
}

/// Keeps the best, of those alike a few: climbs of another kind often start lower.
fn keep(from: &mut Vec<Found>, most: usize, alike: usize) {
    // Stable: equals keep their order.
    from.sort_by(|a, b| order(&b.score, &a.score));
    let mut kinds: FxHashMap<[u32; 3], usize> = FxHashMap::default();
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
    pub(super) fn beside(&self, layout: &Layout, role: Role) -> Result<Arc<Vec<Layout>>> {
        let (micro, groups) = match role {
            Role::Prompts => (&space::PREFILL_MICROBATCHES[..], &space::GROUPS[..1]),
            Role::Both | Role::Decode => (&space::MICROBATCHES[..], &space::GROUPS[..]),
        };
        self.neighbours.get((*layout, role), || {
            let all = space::beside(&self.choices(), layout, micro, groups);
            Ok(all.into_iter().filter(|l| self.partners(l, role) != 0).collect())
        })
    }

    /// Units for the decode slot beyond those of the grid, dense under a TPOT limit (seconds a step).
    pub(super) fn decode_beyond(
        &self,
        priced: &Priced<DecodeSide>,
        per_octave: u32,
        limit: f64,
    ) -> Result<Vec<Arc<Slot<DecodeSide>>>> {
        let value = |slot: &Slot<DecodeSide>| {
            let gpus = f64::from(slot.0.gpus());
            let least = slot.2.iter().map(|s| s.step.seconds).fold(f64::INFINITY, f64::min);
            worth(rate_within(&slot.2, limit).map_or(0.0, |r| r / gpus), least / limit)
        };
        let kept = |l: &Layout| self.decoded.get(*l, || self.decode_of(l, per_octave));
        self.beyond(priced, Role::Decode, value, kept)
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
        let kept = |l: &Layout| self.prompted.get(*l, || self.prefill_of(l, &prompts));
        let found = self.beyond(priced, Role::Prompts, value, kept)?;
        Ok(found.iter().map(|slot| (**slot).clone()).collect())
    }

    /// Slots beyond a grid: a climb by what a GPU gives, then the proportions of the densest at every size near theirs.
    fn beyond<S: Send + Sync>(
        &self,
        priced: &Priced<S>,
        role: Role,
        value: impl Fn(&Slot<S>) -> (u8, f64) + Sync,
        price: impl Fn(&Layout) -> Result<Arc<Slot<S>>> + Sync,
    ) -> Result<Vec<Arc<Slot<S>>>> {
        let of = |slot: &Slot<S>| Found { layout: slot.0, score: value(slot) };
        let mut best: Vec<Found> = priced.iter().map(of).collect();
        let mut known: FxHashSet<Layout> = best.iter().map(|f| f.layout).collect();
        let one = |layout: &Layout| -> Result<(Found, Arc<Slot<S>>)> {
            let slot = price(layout)?;
            Ok((of(&slot), slot))
        };
        let climbed = climb(self.control, best.clone(), VAIN, &mut known, |l| self.beside(l, role), one)?;
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
        let sized: Vec<Result<Arc<Slot<S>>>> = crate::pool::install(|| wanted.par_iter().map(checked).collect())?;
        let mut out: Vec<Arc<Slot<S>>> = climbed.into_iter().map(|(_, slot)| slot).collect();
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

/// Rate of a decode slot at the largest batch within a step time, between the batches priced around it.
pub(super) fn rate_within(sides: &[DecodeSide], limit: f64) -> Option<f64> {
    let within = sides.iter().rposition(|s| s.step.seconds <= limit)?;
    let (a, b) = (&sides[within], sides.get(within + 1));
    Some(b.map_or(a.rate, |b| {
        let w = (limit - a.step.seconds) / (b.step.seconds - a.step.seconds).max(1e-12);
        a.rate + w.clamp(0.0, 1.0) * (b.rate - a.rate).max(0.0)
    }))
}
