//! Per-user latency limits.
//!
//! Limit: TTFT and TPOT, one percentile for both; no limit on single gaps or on whole answers.

use crate::error::Problems;

use super::json::json_methods;
use super::limits::Check;
use super::record::record;

record! {
    /// Per-user latency limits; None means no limit.
    #[derive(Copy)]
    pub struct Slo as slo {
        /// Time to first token, milliseconds.
        pub ttft_ms: Option<f64> = None,
        /// Time per output token after the first, milliseconds.
        pub tpot_ms: Option<f64> = None,
        /// Which percentile of requests must keep them (50 to 99.9): in the simulator and with ``arrivals="poisson"``; a
        /// closed loop has means alone and refuses it. None: the mean.
        pub percentile: Option<f64> = None,
    }
}

json_methods!(Slo => "slo");

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
