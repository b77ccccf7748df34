//! What a step takes, and what a round of prompts takes.
//!
//! Limit: two sums of seconds; no percentiles, no order of operators.

use crate::cost::Total;

/// Wall time of one step and the operator time in it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct StepTime<W = Total> {
    /// From the first operator to the last (AFD: one pass of the pipeline).
    pub seconds: f64,
    pub work: W,
}

/// Prefill of one request (or of one round of them) on a step engine.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Prefill {
    /// From the first chunk to the last logits.
    pub latency_s: f64,
    /// Time between rounds in steady state.
    pub period_s: f64,
    /// Requests finished per round, all ranks together.
    pub requests: f64,
    pub chunks: f64,
    /// Sequences per rank whose last chunks end together, so that their KV leaves together.
    pub together: f64,
    pub work: Total,
}
