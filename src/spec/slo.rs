//! Per-user latency limits.

use serde::{Deserialize, Serialize};

/// Limits; `None` means no limit. `percentile` none: means (what the analytic models give).
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Slo {
    pub ttft_ms: Option<f64>,
    pub tpot_ms: Option<f64>,
    pub percentile: Option<f64>,
}
