//! Numbers that a point of a space can be asked for.
//!
//! Limit: means of a steady state; percentiles of requests are asked of a simulation (`optimize::measure`).

use crate::serving::Engine;
use crate::spec::choices;

choices! {
    /// Numbers that a point can be asked for.
    Metric {
        TtftMs = "ttft_ms",
        TpotMs = "tpot_ms",
        ItlWorstMs = "itl_worst_ms",
        RequestsPerS = "requests_per_s",
        TokensPerS = "tokens_per_s",
        TokensPerSPerGpu = "tokens_per_s_per_gpu",
        TokensPerSPerUser = "tokens_per_s_per_user",
        Concurrency = "concurrency",
        Gpus = "gpus",
        MemoryGib = "memory_gib",
        UsdPerMtok = "usd_per_mtok",
        MeasuredShare = "measured_share",
        TpotMeasuredShare = "tpot_measured_share",
        TtftMeasuredShare = "ttft_measured_share",
    }
}

impl Metric {
    /// Whether less of it is better.
    pub(crate) fn less(self) -> bool {
        use Metric::{Gpus, ItlWorstMs, MemoryGib, TpotMs, TtftMs, UsdPerMtok};
        matches!(self, TtftMs | TpotMs | ItlWorstMs | Gpus | MemoryGib | UsdPerMtok)
    }

    /// Whether a plan has it that does not stand.
    pub(super) fn of_any(self) -> bool {
        matches!(self, Metric::MemoryGib | Metric::Gpus)
    }

    /// Of a plan that stands.
    pub(super) fn of(self, engine: &Engine) -> f64 {
        let (point, tokens) = (&engine.point, engine.tokens_per_s());
        match self {
            Metric::TtftMs => point.ttft_s * 1e3,
            Metric::TpotMs => point.tpot_s * 1e3,
            Metric::ItlWorstMs => point.itl_worst_s * 1e3,
            Metric::RequestsPerS => point.requests_per_s,
            Metric::TokensPerS => tokens,
            Metric::TokensPerSPerGpu => tokens / f64::from(engine.library().cluster.gpus),
            // Nothing is decoded: nobody's tokens come at any rate.
            Metric::TokensPerSPerUser if point.tpot_s <= 0.0 => f64::NAN,
            Metric::TokensPerSPerUser => 1.0 / point.tpot_s,
            Metric::Concurrency => point.concurrency,
            Metric::Gpus => f64::from(engine.gpus()),
            Metric::MemoryGib => point.memory_bytes / crate::units::GIB,
            Metric::UsdPerMtok => engine.usd_per_mtok(),
            Metric::MeasuredShare => point.evidence.share(),
            Metric::TpotMeasuredShare => point.evidence.tpot.share(),
            Metric::TtftMeasuredShare => point.evidence.ttft.share(),
        }
    }
}
