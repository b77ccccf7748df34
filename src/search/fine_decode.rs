//! The best whole batch of each decode layout that leads its size, under a TPOT limit.
//!
//! It is looked for only once a bound says that it may lead: between two batches `a < c` of the grid a step is no shorter
//! than at `a`, so that no batch gives more than `rate_a c / a`. Micro-batches of unequal size make the step a saw: with
//! `m` of them `a` counts as `m - 1` less and `c` as `m` more, and batches as far beyond the two are tried. A layout stands
//! twice: at its best batch within the limit, and at the next one, which keeps the limit where the prompts leave it less
//! than it could serve. Limit: a deeper saw would break the bound; tests/rust/pairs.rs looks for one.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use super::aim::Aim;
use super::candidate_clock::CandidateClock;
use super::constants::finer::{PER_SIZE, SPREAD};
use super::frontier::Class;
use super::row::Layout;
use super::sides::{Candidate, Offer, Sides, Slot};
use super::slots::{Bounds, Slots, most_between};
use super::task::Task;
use super::units::rate_within;
use crate::error::Result;
use crate::serving::pd::DecodeSide;

/// Layouts under one TPOT limit, each at its best whole batch (even places) and at the next one.
pub struct Fine<'a, 't> {
    task: &'a Task<'t>,
    /// Seconds of a step.
    limit: f64,
    slots: Vec<Whole>,
}

/// A layout between two batches of its grid, the first of which keeps the limit.
struct Whole {
    layout: Layout,
    clock: Arc<CandidateClock>,
    /// The best of the grid within the limit, and the batches between which, both left out, one may be better.
    best: DecodeSide,
    between: [u32; 2],
    bounds: Bounds,
    found: OnceLock<[Candidate<DecodeSide>; 2]>,
}

impl<'a, 't> Fine<'a, 't> {
    pub(crate) fn new<'s>(
        task: &'a Task<'t>,
        limit: f64,
        slots: impl Iterator<Item = &'s Slot<DecodeSide>>,
    ) -> Fine<'a, 't> {
        let slots = slots.filter_map(|slot| Whole::of(slot, limit)).collect();
        Fine { task, limit, slots }
    }

    /// Every slot worked out, without next batches that are no better.
    pub fn all(&self) -> Vec<Candidate<DecodeSide>> {
        let every = (0..self.len()).map(|j| (self.get(j).clone(), self.worked_out(j)));
        every.filter(|(_, rate)| *rate != Some(0.0)).map(|(c, _)| c).collect()
    }
}

impl Fine<'_, '_> {
    /// A layout's first batch beyond the limit, if it gives more than its best within.
    pub(super) fn beyond_limit(&self, layout: &Layout) -> Option<&Candidate<DecodeSide>> {
        let j = 2 * self.slots.iter().position(|s| s.layout == *layout)? + 1;
        let next = self.get(j);
        (self.worked_out(j) != Some(0.0)).then_some(next)
    }
}

impl Whole {
    fn of((layout, clock, sides): &Slot<DecodeSide>, limit: f64) -> Option<Whole> {
        let within = sides.iter().rposition(|s| s.step.seconds <= limit)?;
        let kept = sides[..=within].iter().filter(|s| s.step.seconds <= limit);
        let best = *kept.clone().reduce(|a, b| if b.rate > a.rate { b } else { a })?;
        let from = sides[within];
        let micro = f64::from(layout.microbatches());
        let to = sides.get(within + 1).map_or(from.batch, |s| s.batch + micro);
        let step = kept.map(|s| s.step.seconds).fold(f64::INFINITY, f64::min);
        let rate = best.rate.max(most_between(&from, to, layout.microbatches()));
        Some(Whole {
            layout: *layout,
            clock: clock.clone(),
            best,
            between: [from.batch as u32, to as u32],
            bounds: Bounds { most: Offer { gpus: layout.gpus(), rate }, step },
            found: OnceLock::new(),
        })
    }
}

impl Slots for Fine<'_, '_> {
    fn len(&self) -> usize {
        2 * self.slots.len()
    }

    fn at(&self, j: usize) -> Bounds {
        self.slots[j / 2].bounds
    }

    fn get(&self, j: usize) -> &Candidate<DecodeSide> {
        let slot = &self.slots[j / 2];
        let found = slot.found.get_or_init(|| {
            let micro = slot.layout.microbatches();
            let sides = self.task.largest_within(micro, &slot.clock, slot.best, slot.between, self.limit);
            sides.map(|side| Candidate {
                layout: slot.layout,
                clock: slot.clock.clone(),
                batch: side.batch as u32,
                chunk: 0,
                side: side.with_ports(&slot.clock, &self.task.load),
            })
        });
        &found[j % 2]
    }

    /// A rate of nothing where the next batch is no better than the best within the limit.
    fn worked_out(&self, j: usize) -> Option<f64> {
        let [best, next] = self.slots[j / 2].found.get()?;
        match j % 2 {
            0 => Some(best.side.rate),
            _ if next.batch == best.batch => Some(0.0),
            _ => Some(next.side.rate),
        }
    }
}

impl Task<'_> {
    /// For each decode layout that leads its size, its best whole batch within the TPOT limit.
    pub fn fine_decode(&self, sides: &Sides, aim: &Aim) -> Result<Fine<'_, '_>> {
        let limit = aim.slo.tpot_ms.map_or(f64::INFINITY, |t| t * 1e-3 * self.progress());
        let beyond = match sides.decode.first() {
            Some((layout, ..)) if layout.is_afd() => self.decode_beyond(&sides.decode, sides.per_octave, limit)?,
            _ => Vec::new(),
        };
        let priced: Vec<&Slot<DecodeSide>> = sides.decode.iter().chain(beyond.iter().map(|s| &**s)).collect();
        // Rate at the limit, between the coarse batches around it.
        let mut by_size: BTreeMap<Class, Vec<(f64, usize)>> = BTreeMap::new();
        let ways = self.decode_class();
        for (k, (layout, clock, sides)) in priced.iter().enumerate() {
            let Some(rate) = rate_within(sides, limit) else { continue };
            by_size.entry(ways(layout, clock).class(rate)).or_default().push((rate, k));
        }
        let mut chosen: Vec<usize> = Vec::new();
        for found in by_size.values_mut() {
            found.sort_by(|a, b| b.0.total_cmp(&a.0));
            chosen.extend(found.iter().take(PER_SIZE).map(|f| f.1));
        }
        Ok(Fine::new(self, limit, chosen.into_iter().map(|k| priced[k])))
    }

    /// The side of most rate among `best` and the whole batches between two: the last within the limit, those near it
    /// (micro-batches of unequal size make the step a saw), and some of the rest. And the first beyond the limit, if there
    /// is one with more rate.
    fn largest_within(
        &self,
        micro: u32,
        clock: &CandidateClock,
        mut best: DecodeSide,
        [from, to]: [u32; 2],
        limit: f64,
    ) -> [DecodeSide; 2] {
        let mut keeps = |b: u32| {
            let side = clock.decode_side(&self.load, f64::from(b));
            let keeps = side.short.is_none() && side.step.seconds <= limit;
            if keeps && side.rate > best.rate {
                best = side;
            }
            keeps
        };
        let (mut low, mut high) = (from, to);
        while high - low > micro {
            let middle = low + (high - low) / 2;
            let whole = middle - middle % micro;
            let middle = if whole > low { whole } else { middle };
            if keeps(middle) {
                low = middle;
            } else {
                high = middle;
            }
        }
        let near = low.saturating_sub(2 * micro).max(micro)..(high + micro).min(to);
        let stride = ((to - from) / SPREAD).max(1) as usize;
        // Kernels change their pace at powers of two, so that a micro-batch may be the fullest there.
        let power = micro * ((low / micro).max(1).next_power_of_two() / 2);
        let spread =
            (from + 1..to).step_by(stride).chain([power, 2 * power].into_iter().filter(|b| from < *b && *b < to));
        for b in near.clone().chain(spread.filter(|b| !near.contains(b))) {
            keeps(b);
        }
        let next = clock.decode_side(&self.load, f64::from(high));
        [best, if next.short.is_none() && next.rate > best.rate { next } else { best }]
    }
}
