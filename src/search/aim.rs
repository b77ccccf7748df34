//! How good a plan is under the limits.
//!
//! Limit: how near a miss is counts each limit alike, whatever the limits are worth.

use std::cmp::Ordering;

use super::objective::Objective;
use crate::serving::{Binding, SteadyState};
use crate::spec::Slo;

/// How good a point is under the limits: within them by its gain, else by how near it is.
#[derive(Clone, Copy, Debug)]
pub struct Aim {
    pub slo: Slo,
    pub objective: Objective,
}

impl Aim {
    /// What is optimised; more is better.
    pub(crate) fn gain(&self, p: &SteadyState) -> f64 {
        self.objective.gain(p)
    }

    /// Class (2 within the limits, 1 standing, 0 not) and value; more is better in both.
    pub fn score(&self, p: &SteadyState) -> (u8, f64) {
        if !p.stands() {
            (0, -p.memory_bytes)
        } else if p.binding_under(&self.slo) == Binding::None {
            (2, self.gain(p))
        } else {
            (1, -p.excess(&self.slo))
        }
    }
}

/// Compares scores: by class, then by value.
pub(crate) fn order(a: &(u8, f64), b: &(u8, f64)) -> Ordering {
    a.0.cmp(&b.0).then(a.1.total_cmp(&b.1))
}
