//! Who tells the steady state how long a step takes: the exact engine, or its tables (`scan`).
//!
//! The formulas of aggregated serving and of P/D are written once, over this trait; what a search scans and
//! what it reports differ only in the clock.
//!
//! Limit: asks for whole steps; where their time goes only the engine tells.

use super::step_engine::{Prefill, StepEngine, StepTime};
use crate::cost::{Batch, Total};

/// Operator time behind a step, where anybody asks for it.
pub trait StepWork: Copy + Default {
    fn plus(&self, other: &Self) -> Self;
    fn times(&self, x: f64) -> Self;
    fn total(&self) -> Total;
}

impl StepWork for Total {
    fn plus(&self, other: &Total) -> Total {
        Total::plus(self, other)
    }

    fn times(&self, x: f64) -> Total {
        Total::times(self, x)
    }

    fn total(&self) -> Total {
        *self
    }
}

/// Nobody asks.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Untold;

impl StepWork for Untold {
    fn plus(&self, _: &Untold) -> Untold {
        Untold
    }

    fn times(&self, _: f64) -> Untold {
        Untold
    }

    fn total(&self) -> Total {
        Total::default()
    }
}

/// What of its prompts a mixed step carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carried {
    /// A chunk at the mean past of a prompt's chunks, or several whole prompts.
    Chunk,
    /// What is left of a prompt after its full chunks.
    Rest,
}

/// A worker or an AFD unit that can be asked for its step times.
pub trait StepClock {
    type StepWork: StepWork;

    /// How far from the fixed point of the batch is near enough.
    const TOLERANCE: f64;

    fn engine(&self) -> &StepEngine;

    /// One step of decode tokens beside prompt tokens.
    fn mixed(&self, batch: &Batch, carried: Carried) -> StepTime<Self::StepWork>;

    /// Decode step of `batch` sequences per rank at `context`.
    fn decode(&self, batch: f64, context: f64) -> StepTime<Self::StepWork>;

    /// Prefill of rounds of `sequences` per rank, `isl` new tokens over `prefix`, in chunks.
    fn prefill(&self, sequences: f64, isl: f64, prefix: f64, chunk: f64) -> Prefill;
}

impl StepClock for StepEngine {
    type StepWork = Total;

    const TOLERANCE: f64 = 1e-6;

    fn engine(&self) -> &StepEngine {
        self
    }

    fn mixed(&self, batch: &Batch, _: Carried) -> StepTime {
        self.step(batch)
    }

    fn decode(&self, batch: f64, context: f64) -> StepTime {
        StepEngine::decode(self, batch, context)
    }

    fn prefill(&self, sequences: f64, isl: f64, prefix: f64, chunk: f64) -> Prefill {
        StepEngine::prefill(self, sequences, isl, prefix, chunk)
    }
}
