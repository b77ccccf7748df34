//! The smallest batch and chunk of a plan that do not fit: nothing larger does.
//!
//! Limit: memory alone; plans with slots, or with batch or chunk left open, have no corner.

use super::bound::{axis, given};
use crate::design::Space;

/// Axes of batch and chunk of a plan without slots.
pub(super) struct Corner {
    axes: [Option<usize>; 2],
    /// Their smallest values.
    least: [f64; 2],
    lengths: Vec<usize>,
}

impl Corner {
    /// None where batch or chunk are left open: what is chosen for a larger batch may need less.
    pub(crate) fn of(space: &Space) -> Option<Corner> {
        let paths = ["plan.batch", "plan.chunk_tokens"];
        let axes = paths.map(|p| axis(space, p));
        let open = paths.iter().any(|p| !given(space, p));
        let lengths = space.lengths();
        let numbers = |a: usize| (0..lengths[a]).map(move |c| space.number(a, c));
        let least = axes.map(|a| a.map_or(0.0, |a| numbers(a).fold(f64::INFINITY, f64::min)));
        (!open && axes.iter().any(Option::is_some)).then_some(Corner { axes, least, lengths })
    }

    /// The plan without its batch and chunk, and those.
    pub(crate) fn at(&self, space: &Space, choices: &[usize]) -> (u64, [f64; 2]) {
        let others = (0..choices.len()).filter(|a| !self.axes.contains(&Some(*a)));
        let key = others.fold(0, |key, a| key * self.lengths[a] as u64 + choices[a] as u64);
        (key, self.axes.map(|a| a.map_or(0.0, |a| space.number(a, choices[a]))))
    }

    /// 0 at the smallest batch and chunk of all, else 1.
    pub(crate) fn rank(&self, space: &Space, choices: &[usize]) -> u8 {
        let smallest = |(a, least): (&Option<usize>, f64)| a.is_none_or(|a| space.number(a, choices[a]) <= least);
        u8::from(!self.axes.iter().zip(self.least).all(smallest))
    }
}
