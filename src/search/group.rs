//! A layout that serves both phases: its rows on the coarse grid, what they reach, and what is known beside them.
//!
//! Limit: holds what was priced and no more: nothing says that a point between two of its rows is worse.

use std::sync::{Arc, Mutex};

use rustc_hash::FxHashMap;

use super::candidate_clock::CandidateClock;
use super::fine_grid::At;
use super::marks::Marks;
use super::row::{Layout, Row};
use crate::serving::SteadyState;

/// What is known of a layout beside its coarse rows: points by batch and chunk, and the most sequences it holds.
#[derive(Default)]
pub struct Known {
    pub points: FxHashMap<At, SteadyState>,
    pub most: Option<u32>,
}

/// A layout of a mixed level: its clock, its rows on the grid, what they reach, and what is known beside them.
pub struct Group {
    pub clock: Arc<CandidateClock>,
    pub rows: Vec<Row>,
    pub marks: Marks,
    pub known: Mutex<Known>,
}

impl Group {
    pub(crate) fn layout(&self) -> Option<Layout> {
        self.rows.first().map(|r| r.main.layout)
    }
}
