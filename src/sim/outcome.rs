//! What became of each request, and what each instance did.
//!
//! Limit: equal decode steps are one span, so a timeline cannot tell them apart.

use crate::spec::Role;

/// A time that never came.
pub const NEVER: u64 = u64::MAX;

/// Every request ends in exactly one of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Finished,
    /// Longer than any pool can hold, or not admitted by the settings.
    Rejected,
    /// Still in the system (or not yet there) when the simulation stopped.
    Unfinished,
}

/// What a stretch of time on a lane was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpanKind {
    /// Steps of prompts, of decode, or of both.
    Steps(Role),
    /// KV on its way to decode.
    Transfer,
}

impl SpanKind {
    pub fn name(self) -> &'static str {
        match self {
            SpanKind::Steps(role) => role.name(),
            SpanKind::Transfer => "transfer",
        }
    }
}

/// A stretch of an instance's time; equal decode steps are one span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    pub instance: u32,
    /// 0: steps; 1 + r: KV transfers into or out of attention rank r.
    pub lane: u32,
    pub start_ps: u64,
    pub end_ps: u64,
    pub kind: SpanKind,
    /// Sequences in the steps (all ranks together).
    pub batch: u32,
    pub steps: u32,
}

/// One instance over the whole simulation.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    pub role: Role,
    pub gpus: u32,
    pub busy_ps: u64,
    pub steps: u64,
    pub prefill_tokens: u64,
    pub decode_tokens: u64,
    /// Integral over time of the share of KV blocks held by requests.
    pub kv_share_ps: f64,
    /// Integral over time of the sequences that decode.
    pub batch_ps: f64,
    /// Highest number of KV blocks held at a time.
    pub kv_peak_blocks: u64,
    pub preemptions: u64,
}

/// Columns of results, one row a request in the order of [`super::Requests`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    /// When it came (in a closed loop: when its user sent it); [`NEVER`] if it did not.
    pub arrival_ps: Vec<u64>,
    pub first_token_ps: Vec<u64>,
    pub finish_ps: Vec<u64>,
    /// 99th percentile (nearest rank) and largest of the gaps between its tokens; 0 with one token.
    pub itl_p99_ps: Vec<u64>,
    pub itl_max_ps: Vec<u64>,
    pub prefix_hit_tokens: Vec<u32>,
    /// Instance that decoded it (`u32::MAX`: none).
    pub instance: Vec<u32>,
    pub status: Vec<Status>,
    pub preemptions: Vec<u16>,
    pub usage: Vec<Usage>,
    /// When the last event happened.
    pub end_ps: u64,
    /// Integral over time of the requests in the system (for Little's law, exact).
    pub in_system_ps: u128,
    /// Events handled, and steps that they stand for.
    pub events: u64,
    pub steps: u64,
    /// Only filled on request.
    pub timeline: Vec<Span>,
}

impl Outcome {
    /// (finished, rejected, unfinished); they add up to the requests.
    pub fn counts(&self) -> (usize, usize, usize) {
        let of = |s: Status| self.status.iter().filter(|x| **x == s).count();
        (of(Status::Finished), of(Status::Rejected), of(Status::Unfinished))
    }
}
