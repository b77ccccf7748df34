//! Per-user latency limits.

use serde::{Deserialize, Serialize};

use crate::error::Problems;

use super::limits::Check;

/// Limits; `None` means no limit. `percentile` none: means (what the analytic models give).
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Slo {
    pub ttft_ms: Option<f64>,
    pub tpot_ms: Option<f64>,
    pub percentile: Option<f64>,
}

impl Slo {
    /// Everything that is wrong; paths are relative to it.
    pub fn check(&self) -> Problems {
        let mut c = Check::new();
        for (field, limit) in [("ttft_ms", self.ttft_ms), ("tpot_ms", self.tpot_ms)] {
            if let Some(ms) = limit {
                c.positive(field, ms, 1e9);
            }
        }
        if let Some(p) = self.percentile
            && !(50.0..=99.9).contains(&p)
        {
            let hint = if p > 0.0 && p < 1.0 { format!("did you mean {}?", p * 100.0) } else { String::new() };
            c.wrong("percentile", format!("must be from 50 to 99.9, is {p}"), hint);
        }
        c.problems
    }
}
