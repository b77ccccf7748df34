//! The decode slots that a search for pairs goes through: what each offers at most, and more only where that may lead.
//!
//! A front is priced ([`Front`]), and what a pair of it gives is kept for every pair of limits. The best whole batch of a
//! layout under a TPOT limit ([`Fine`]) is looked for only once a bound says that it may lead: between two batches
//! `a < c` of the grid a step is no shorter than at `a`, so that no batch gives more than `rate_a c / a`. Micro-batches of
//! unequal size make the step a saw: with `m` of them `a` counts as `m - 1` less and `c` as `m` more, and batches as far
//! beyond the two are tried. A layout stands twice: at its best batch within the limit, and at the next one, which keeps
//! the limit where the prompts leave it less than it could serve. Limit: a deeper saw would break the bound;
//! tests/rust/pairs.rs looks for one.

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

    /// What it gives, if it has been worked out; None: [`Slots::within`] bounds it.
    fn worked_out(&self, _j: usize) -> Option<f64> {
        None
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

    /// Below its rate a slot runs a smaller batch: less than the one of the grid behind the last whose step is short enough.
    fn within(&self, j: usize, seconds: f64) -> Offer {
        let Bounds { most, step } = self.at(j);
        let (below, micro) = (&self.sides.below[j], self.sides.front[j].layout.microbatches());
        let rate = match below.iter().rposition(|s| s.step.seconds <= seconds) {
            _ if step <= seconds => most.rate,
            None if micro == 1 => 0.0,
            None => below.first().map_or(most.rate, |s| s.rate),
            Some(last) => below.get(last + 1).map_or(most.rate, |to| most_between(&below[last], to.batch, micro)),
        };
        Offer { rate, ..most }
    }

    fn mark(&self, i: usize, j: usize, price: impl FnOnce(&Candidate<DecodeSide>) -> Option<Row>) -> Option<Mark> {
        let found = &self.marks.found[j * self.marks.prompts + i];
        *found.get_or_init(|| standing(price(self.get(j))))
    }
}

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
    timer: Arc<Timer>,
    /// The best of the grid within the limit, and the batches between which, both left out, one may be better.
    best: DecodeSide,
    between: [u32; 2],
    bounds: Bounds,
    found: OnceLock<[Candidate<DecodeSide>; 2]>,
}

impl<'a, 't> Fine<'a, 't> {
    pub fn new<'s>(task: &'a Task<'t>, limit: f64, slots: impl Iterator<Item = &'s Slot<DecodeSide>>) -> Fine<'a, 't> {
        let slots = slots.filter_map(|slot| Whole::of(slot, limit)).collect();
        Fine { task, limit, slots }
    }

    /// Every slot worked out, without next batches that are no better.
    pub fn all(&self) -> Vec<Candidate<DecodeSide>> {
        let every = (0..self.len()).map(|j| (self.get(j).clone(), self.worked_out(j)));
        every.filter(|(_, rate)| *rate != Some(0.0)).map(|(c, _)| c).collect()
    }
}

/// What no batch gives from one of the grid to the next one, `to`: the step is no shorter than at the first.
fn most_between(from: &DecodeSide, to: f64, micro: u32) -> f64 {
    from.rate * to / (from.batch - f64::from(micro - 1)).max(1.0)
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
        let rate = best.rate.max(most_between(&from, to, layout.microbatches()));
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
        2 * self.slots.len()
    }

    fn at(&self, j: usize) -> Bounds {
        self.slots[j / 2].bounds
    }

    fn get(&self, j: usize) -> &Candidate<DecodeSide> {
        let slot = &self.slots[j / 2];
        let found = slot.found.get_or_init(|| {
            let micro = slot.layout.microbatches();
            let sides = self.task.largest_within(micro, &slot.timer, slot.best, slot.between, self.limit);
            sides.map(|side| Candidate {
                layout: slot.layout,
                stepper: slot.timer.clone(),
                batch: side.batch as u32,
                chunk: 0,
                side: side.with_ports(&slot.timer, &self.task.load),
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
    /// The side of most rate among `best` and the whole batches between two: the last within the limit, those near it
    /// (micro-batches of unequal size make the step a saw), and some of the rest. And the first beyond the limit, if there
    /// is one with more rate.
    fn largest_within(
        &self,
        micro: u32,
        timer: &Timer,
        mut best: DecodeSide,
        [from, to]: [u32; 2],
        limit: f64,
    ) -> [DecodeSide; 2] {
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
        let next = timer.decode_side(&self.load, f64::from(high));
        [best, if next.short.is_none() && next.rate > best.rate { next } else { best }]
    }
}
