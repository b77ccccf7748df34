//! The decode slots that a search for pairs goes through: what each offers at most, and more only where that may lead.
//!
//! A front is priced ([`Front`]), and what a pair of it gives is kept for every pair of limits; the best whole batch under
//! a TPOT limit is looked for only where a bound says that it may lead (`fine_decode`).
//!
//! Limit: bounds are of one slot: what the partner costs in GPUs is only known once they are paired.

use std::sync::OnceLock;

use super::marks::Mark;
use super::row::Row;
use super::sides::{Candidate, Offer, Sides};
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

/// What no batch gives from one of the grid to the next one, `to`: the step is no shorter than at the first.
pub(super) fn most_between(from: &DecodeSide, to: f64, micro: u32) -> f64 {
    from.rate * to / (from.batch - f64::from(micro - 1)).max(1.0)
}
