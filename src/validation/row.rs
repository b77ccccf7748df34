//! One figure and its prediction.
//!
//! Limit: one number against one number; spreads of a table stand in `n`, `median` and `p95`.

use crate::error::{Problems, Result, near};
use crate::network::params::Misfit;
use crate::spec::choices;

choices! {
    /// What figures are checked, in the order in which they are reported.
    Section {
        /// End-to-end figures of deployments.
        Deployed = "deployed",
        /// Measured points of the InferenceX sample.
        Silicon = "silicon",
        /// Steps and capacities of AFD, and of wide EP beside it.
        Afd = "afd",
        /// Servers with all requests queued.
        Saturated = "saturated",
        /// Measured servers, simulated request by request.
        Served = "served",
        /// Power of servers by load, and joules a token.
        Energy = "energy",
        /// Formulas and tables of papers.
        Literature = "literature",
        /// Communication tables.
        Network = "network",
    }
}

impl Section {
    /// The sections of these names.
    ///
    /// # Errors
    /// What is not a section, with the nearest name.
    pub fn parse<S: AsRef<str>>(names: &[S]) -> Result<Vec<Section>> {
        let mut p = Problems::new();
        let mut found = Vec::with_capacity(names.len());
        for name in names.iter().map(AsRef::as_ref) {
            match Section::named(name) {
                Some(section) => found.push(section),
                None => p.push("sections", format!("unknown section '{name}'"), near(name, Section::NAMES)),
            }
        }
        p.into_result().map(|()| found)
    }

    /// Those asked for; none named: all.
    pub fn asked(named: &[Section]) -> &[Section] {
        if named.is_empty() { Section::ALL } else { named }
    }
}

/// One figure and its prediction.
#[derive(Clone, Debug, PartialEq)]
pub struct CheckedRow {
    pub section: Section,
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
