//! The decode slots that a search for pairs goes through: what each offers at most, and more only where that may lead.
//!
//! A front is priced ([`Front`]), and what a pair of it gives is kept for every pair of limits. The best whole batch of a
//! layout under a TPOT limit ([`Fine`]) is looked for only once a bound says that it may lead: between two batches
//! `a < c` of the grid a step is no shorter than at `a`, so that no batch gives more than `rate_a c / a`. Micro-batches of
//! unequal size make the step a saw: with `m` of them `a` counts as `m - 1` less and `c` as `m` more, and batches as far
//! beyond the two are tried. Limit: a deeper saw would break the bound; tests/rust/pairs.rs looks for one.

use std::sync::{Arc, OnceLock};

use super::frontier::Candidate;
use super::levels::{Slot, Task};
use super::marks::Mark;
use super::pairs::{Offer, Sides};
use super::row::{Layout, Row};
use super::timer::Timer;
use crate::serving::pd::DecodeSide;

/// What is known of a slot before it is worked out: its GPUs, a rate that it does not pass, seconds of its step at least.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    pub most: Offer,
    pub step: f64,
}

/// Decode slots to pair up.
pub trait Slots {
    fn len(&self) -> usize;

    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn at(&self, j: usize) -> Bounds;

    /// The slot worked out.
    fn get(&self, j: usize) -> &Candidate<DecodeSide>;

    /// What it gives at most in steps of so many seconds.
    fn within(&self, j: usize, _seconds: f64) -> Offer {
        self.at(j).most
    }

    /// What it gives with the prompts numbered `i`; None: no plan that stands.
    fn mark(&self, _i: usize, j: usize, price: impl FnOnce(&Candidate<DecodeSide>) -> Option<Row>) -> Option<Mark> {
        standing(price(self.get(j)))
    }
}

/// Rate and latencies of a row that stands.
fn standing(row: Option<Row>) -> Option<Mark> {
    row.map(|r| Mark::of(&r)).filter(Mark::stands)
}

/// The priced decode slots of one kind with the prompts of one kind; each pair is worked out once.
pub struct Front<'a> {
    sides: &'a Sides,
    marks: &'a PairMarks,
}

/// What the pairs of two fronts give, as far as it has been asked.
pub struct PairMarks {
    prompts: usize,
    found: Vec<OnceLock<Option<Mark>>>,
}

impl PairMarks {
    pub fn new(prompts: usize, slots: usize) -> PairMarks {
        PairMarks { prompts, found: (0..prompts * slots).map(|_| OnceLock::new()).collect() }
    }
}

impl<'a> Front<'a> {
    pub fn new(sides: &'a Sides, marks: &'a PairMarks) -> Front<'a> {
        Front { sides, marks }
    }
}

impl Slots for Front<'_> {
    fn len(&self) -> usize {
        self.sides.front.len()
    }

    fn at(&self, j: usize) -> Bounds {
        let c = &self.sides.front[j];
        Bounds { most: Offer { gpus: c.layout.gpus(), rate: c.side.rate }, step: c.side.step.seconds }
    }

    fn get(&self, j: usize) -> &Candidate<DecodeSide> {
        &self.sides.front[j]
    }

    /// Below its rate a slot runs a smaller batch: less than the first of the grid whose step is longer.
    fn within(&self, j: usize, seconds: f64) -> Offer {
        let Bounds { most, step } = self.at(j);
        let rate = match self.sides.below[j].iter().position(|[_, s]| *s > seconds) {
            _ if step <= seconds => most.rate,
            Some(0) => 0.0,
            longer => longer.map_or(most.rate, |k| self.sides.below[j][k][0]),
        };
        Offer { rate, ..most }
    }

    fn mark(&self, i: usize, j: usize, price: impl FnOnce(&Candidate<DecodeSide>) -> Option<Row>) -> Option<Mark> {
        let found = &self.marks.found[j * self.marks.prompts + i];
        *found.get_or_init(|| standing(price(self.get(j))))
    }
}

/// Layouts under one TPOT limit, each at its best whole batch.
pub struct Fine<'a, 't> {
    task: &'a Task<'t>,
    /// Seconds of a step.
    limit: f64,
    slots: Vec<Whole>,
}

/// A layout between two batches of its grid, the first of which keeps the limit.
struct Whole {
    layout: Layout,
    timer: Arc<Timer>,
    /// The best of the grid within the limit, and the batches between which, both left out, one may be better.
    best: DecodeSide,
    between: [u32; 2],
    bounds: Bounds,
    found: OnceLock<Candidate<DecodeSide>>,
}

impl<'a, 't> Fine<'a, 't> {
    pub fn new<'s>(task: &'a Task<'t>, limit: f64, slots: impl Iterator<Item = &'s Slot<DecodeSide>>) -> Fine<'a, 't> {
        let slots = slots.filter_map(|slot| Whole::of(slot, limit)).collect();
        Fine { task, limit, slots }
    }

    /// Every slot worked out.
    pub fn all(&self) -> Vec<Candidate<DecodeSide>> {
        (0..self.len()).map(|j| self.get(j).clone()).collect()
    }
}

impl Whole {
    fn of((layout, timer, sides): &Slot<DecodeSide>, limit: f64) -> Option<Whole> {
        let within = sides.iter().rposition(|s| s.step.seconds <= limit)?;
        let kept = sides[..=within].iter().filter(|s| s.step.seconds <= limit);
        let best = *kept.clone().reduce(|a, b| if b.rate > a.rate { b } else { a })?;
        let from = sides[within];
        let micro = f64::from(layout.microbatches());
        let to = sides.get(within + 1).map_or(from.batch, |s| s.batch + micro);
        let step = kept.map(|s| s.step.seconds).fold(f64::INFINITY, f64::min);
        let rate = best.rate.max(from.rate * to / (from.batch - (micro - 1.0)).max(1.0));
        Some(Whole {
            layout: *layout,
            timer: timer.clone(),
            best,
            between: [from.batch as u32, to as u32],
            bounds: Bounds { most: Offer { gpus: layout.gpus(), rate }, step },
            found: OnceLock::new(),
        })
    }
}

/// Batches tried between the two besides those next to the limit.
const SPREAD: u32 = 8;

impl Slots for Fine<'_, '_> {
    fn len(&self) -> usize {
        self.slots.len()
    }

    fn at(&self, j: usize) -> Bounds {
        self.slots[j].bounds
    }

    fn get(&self, j: usize) -> &Candidate<DecodeSide> {
        let slot = &self.slots[j];
        slot.found.get_or_init(|| {
            let side =
                self.task.largest_within(slot.layout.microbatches(), &slot.timer, slot.best, slot.between, self.limit);
            Candidate {
                layout: slot.layout,
                stepper: slot.timer.clone(),
                batch: side.batch as u32,
                chunk: 0,
                side: side.with_ports(&slot.timer, &self.task.load),
            }
        })
    }
}

impl Task<'_> {
    /// The side of most rate among `best` and the whole batches between two: the last within the limit, those near it
    /// (micro-batches of unequal size make the step a saw), and some of the rest.
    fn largest_within(
        &self,
        micro: u32,
        timer: &Timer,
        mut best: DecodeSide,
        [from, to]: [u32; 2],
        limit: f64,
    ) -> DecodeSide {
        let mut keeps = |b: u32| {
            let side = timer.decode_side(&self.load, f64::from(b));
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
        for b in near.clone().chain((from + 1..to).step_by(stride).filter(|b| !near.contains(b))) {
            keeps(b);
        }
        best
    }
}
