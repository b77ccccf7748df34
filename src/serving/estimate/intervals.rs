//! How far the figures of a plan may be off, in their own units.
//!
//! Limit: residuals of the servers that were measured, by kind; a server of a kind that nobody measured has those of
//! all.

use crate::serving::Engine;
use crate::serving::residuals::{self, Interval, Quantity, Served};

/// Ends of an interval in the figure's own unit, and what it rests on.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Ends {
    pub low: f64,
    pub high: f64,
    pub from: String,
}

/// By figure: `ttft_ms`, `tpot_ms`, `tokens_per_s`, `kv_tokens`.
pub type Intervals = std::collections::BTreeMap<&'static str, Ends>;

impl Engine {
    /// Intervals of the plan's figures that hold what is measured with a chance, strictly between 0 and 1.
    pub(crate) fn intervals(&self, chance: f64) -> Intervals {
        let served = Served::of(self.library(), self.plan.level());
        let figures = [
            ("ttft_ms", Quantity::Ttft, self.point.ttft_s * 1e3),
            ("tpot_ms", Quantity::Tpot, self.point.tpot_s * 1e3),
            ("tokens_per_s", Quantity::Rate, self.tokens_per_s()),
            ("kv_tokens", Quantity::Kv, self.kv_tokens()),
        ];
        let ends = |(name, quantity, value): (&'static str, Quantity, f64)| {
            let Interval { factors: [low, high], from } = residuals::interval(&served, quantity, chance);
            (name, Ends { low: low * value, high: high * value, from })
        };
        figures.into_iter().map(ends).collect()
    }
}
