//! One figure and its prediction.

use crate::network::params::Misfit;

/// One figure and its prediction.
#[derive(Clone, Debug, PartialEq)]
pub struct CheckedRow {
    pub section: &'static str,
    pub name: String,
    pub system: String,
    pub model: String,
    pub framework: String,
    pub metric: &'static str,
    pub target: f64,
    /// NaN where nothing could be computed.
    pub predicted: f64,
    pub source: String,
    /// `ok`, `ok:...`, `relabelled:<rule>`, `suspect:<why>`, `not-computable:<reason>`, `unsupported-model`.
    pub status: String,
    pub note: String,
    /// Where a row stands for a table of measurements: how its errors spread.
    pub spread: Option<Misfit>,
}

impl CheckedRow {
    /// Signed error relative to the target.
    pub fn error(&self) -> f64 {
        self.predicted / self.target - 1.0
    }
}
