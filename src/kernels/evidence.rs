//! How well a time is known.
//!
//! Limit: classes, not intervals: how far a time may be off is said by residuals of servers (`serving`), not here.

use serde::{Deserialize, Serialize};

/// Classes of evidence.
pub const CLASSES: usize = 5;

/// How well a time is known, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Evidence {
    Measured = 0,
    Interpolated = 1,
    /// Measured or interpolated on the device of the tables, and scaled by two rooflines to a what-if device.
    Scaled = 2,
    Extrapolated = 3,
    Roofline = 4,
}

impl Evidence {
    /// The word that results use.
    pub fn name(self) -> &'static str {
        match self {
            Evidence::Measured => "measured",
            Evidence::Interpolated => "interpolated",
            Evidence::Scaled => "scaled",
            Evidence::Extrapolated => "extrapolated",
            Evidence::Roofline => "roofline",
        }
    }
}

/// A time and how well it is known.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reading {
    pub seconds: f64,
    pub evidence: Evidence,
}

/// What building a grid found: its floor against its roofline there, and points out of order.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Check {
    pub floor: f64,
    pub least: f64,
    /// The operator takes the floor for the host's.
    pub eager: bool,
    pub altered: usize,
    pub points: usize,
}
