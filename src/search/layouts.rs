//! The layouts that a search starts from: of workers all there are, of AFD units the coarse grid.
//!
//! Limit: equal workers in a slot; fleets of mixed widths are not listed.

use super::row::Layout;
use super::space::{self, Choices, PREFILL_TURNS, TURNS};
use crate::cost::Library;

/// Layouts of the slots: of workers all there are, of AFD units the coarse grid.
pub struct Layouts {
    pub workers: Vec<Layout>,
    pub units: Vec<Layout>,
    pub prefill_workers: Vec<Layout>,
    pub prefill_units: Vec<Layout>,
}

impl Layouts {
    pub(crate) fn of(choices: &Choices<'_>) -> Layouts {
        Layouts {
            workers: space::workers(choices, false),
            units: space::units(choices, &TURNS),
            prefill_workers: space::workers(choices, true),
            prefill_units: space::units(choices, &PREFILL_TURNS),
        }
    }
}

/// Layouts of plain workers, whatever servers start.
pub fn worker_layouts(lib: &Library, budget: u32, prefill: bool) -> Vec<Layout> {
    space::workers(&Choices { lib, budget, rules: None }, prefill)
}

/// Layouts of the coarse grid of AFD units for decode and for mixed steps, whatever servers start.
pub fn unit_layouts(lib: &Library, budget: u32) -> Vec<Layout> {
    space::units(&Choices { lib, budget, rules: None }, &TURNS)
}

/// The same for prefill.
pub fn prefill_unit_layouts(lib: &Library, budget: u32) -> Vec<Layout> {
    space::units(&Choices { lib, budget, rules: None }, &PREFILL_TURNS)
}
