//! A row of the sample with its prediction.
//!
//! Limit: one TPOT a row, a mean of a client's run.

use super::data::Raw;
use crate::serving::residuals::{self, CHANCE, Quantity, Served};

/// A row of the sample with its prediction.
#[derive(Clone, Debug)]
pub struct Point {
    pub raw: Raw,
    pub status: String,
    pub note: String,
    /// Milliseconds; NaN where nothing could be computed.
    pub tpot_ms: f64,
    /// NaN where nothing was simulated.
    pub ttft_ms: f64,
    /// The closed form's.
    pub steady_ttft_ms: f64,
    pub experts: bool,
}

impl Point {
    /// Whether nothing in the sample contradicts the row.
    pub(crate) fn credible(&self) -> bool {
        !self.status.starts_with("suspect")
    }

    pub(crate) fn error(&self) -> f64 {
        self.tpot_ms / self.raw.tpot_ms - 1.0
    }

    pub(crate) fn ttft_error(&self) -> f64 {
        self.ttft_ms / self.raw.ttft_ms - 1.0
    }

    /// Ends of the interval of 80 %, of the predicted figure.
    pub(crate) fn interval(&self, of: Quantity) -> [f64; 2] {
        let r = &self.raw;
        let hopper = matches!(r.system.as_str(), "h100_sxm" | "h200_sxm");
        residuals::interval(&Served::measured(r.framework, !hopper, self.experts, r.disagg), of, CHANCE).factors
    }
}
