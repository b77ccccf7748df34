//! Where operator times go: a bare total in the search, a full list for `explain()`.
//!
//! Limit: a list of sums: when an operator ran, and beside what, is not in it.

use serde::Serialize;

use crate::kernels::{CLASSES, Evidence, Reading};
use crate::network::report::Report;
use crate::network::{CommTime, Tier};

impl From<CommTime> for Reading {
    fn from(t: CommTime) -> Reading {
        Reading { seconds: t.seconds, evidence: t.evidence }
    }
}

/// Operators by the names a breakdown shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Op {
    Embedding,
    Norm,
    Qkv,
    AttentionDecode,
    AttentionPrefill,
    AttentionOut,
    ContextExchange,
    TpReduce,
    Router,
    DenseFfn,
    SharedExpert,
    Dispatch,
    Experts,
    Combine,
    MoeTpReduce,
    A2f,
    F2a,
    Logits,
    PipelineHop,
    /// Projection before a draft layer.
    Draft,
    /// KV of P/D: the wait for it, and what both slots lose on the ports that it shares.
    KvTransfer,
    KvContention,
    /// What a request waits for outside of the steps that serve it.
    Front,
    InFlight,
    Ahead,
    Polling,
    Held,
    HandOver,
}

impl Op {
    pub fn name(self) -> &'static str {
        match self {
            Op::Embedding => "embedding",
            Op::Norm => "norm",
            Op::Qkv => "qkv",
            Op::AttentionDecode => "attention_decode",
            Op::AttentionPrefill => "attention_prefill",
            Op::AttentionOut => "attention_out",
            Op::ContextExchange => "context_exchange",
            Op::TpReduce => "tp_reduce",
            Op::Router => "router",
            Op::DenseFfn => "dense_ffn",
            Op::SharedExpert => "shared_expert",
            Op::Dispatch => "dispatch",
            Op::Experts => "experts",
            Op::Combine => "combine",
            Op::MoeTpReduce => "moe_tp_reduce",
            Op::A2f => "a2f",
            Op::F2a => "f2a",
            Op::Logits => "logits",
            Op::PipelineHop => "pipeline_hop",
            Op::Draft => "draft",
            Op::KvTransfer => "kv_transfer",
            Op::KvContention => "kv_contention",
            Op::Front => "front",
            Op::InFlight => "in_flight",
            Op::Ahead => "ahead",
            Op::Polling => "polling",
            Op::Held => "held",
            Op::HandOver => "hand_over",
        }
    }

    /// Whether this is arithmetic or memory work (kernels) rather than communication.
    pub fn is_compute(self) -> bool {
        !matches!(
            self,
            Op::ContextExchange
                | Op::TpReduce
                | Op::Dispatch
                | Op::Combine
                | Op::MoeTpReduce
                | Op::A2f
                | Op::F2a
                | Op::PipelineHop
                | Op::KvTransfer
                | Op::KvContention
                | Op::Front
                | Op::InFlight
                | Op::Ahead
                | Op::Polling
                | Op::Held
                | Op::HandOver
        )
    }
}

/// Takes operator times.
pub trait Ledger {
    /// Whether entries are kept one by one.
    const DETAIL: bool;

    /// `count` executions of `op`, each taking `reading`.
    fn add(&mut self, op: Op, count: f64, reading: Reading);

    /// `count` phases of communication of `time` each; `report` says what one moves and is only asked where
    /// that matters.
    #[inline]
    fn carry(&mut self, op: Op, count: f64, time: CommTime, _report: impl FnOnce() -> Report)
    where
        Self: Sized,
    {
        self.add(op, count, time.into());
    }

    /// A sum made elsewhere, taken over whole (only called where `DETAIL` is false).
    fn merge(&mut self, total: &Total);
}

/// Seconds in all, and how they divide over evidence classes, compute only and all.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Total {
    pub seconds: f64,
    /// Seconds by evidence class, in the order of `kernels::Evidence`.
    pub by_evidence: [f64; CLASSES],
    /// The same for compute operators only.
    pub compute: [f64; CLASSES],
}

impl Total {
    pub(crate) fn plus(&self, other: &Total) -> Total {
        let mut t = *self;
        t.merge(other);
        t
    }

    pub(crate) fn times(&self, x: f64) -> Total {
        Total {
            seconds: self.seconds * x,
            by_evidence: self.by_evidence.map(|v| v * x),
            compute: self.compute.map(|v| v * x),
        }
    }
}

impl Ledger for Total {
    const DETAIL: bool = false;

    #[inline]
    fn add(&mut self, op: Op, count: f64, reading: Reading) {
        let s = count * reading.seconds;
        self.seconds += s;
        self.by_evidence[reading.evidence as usize] += s;
        if op.is_compute() {
            self.compute[reading.evidence as usize] += s;
        }
    }

    #[inline]
    fn merge(&mut self, total: &Total) {
        self.seconds += total.seconds;
        for i in 0..CLASSES {
            self.by_evidence[i] += total.by_evidence[i];
            self.compute[i] += total.compute[i];
        }
    }
}

/// Seconds alone.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seconds(pub f64);

impl Ledger for Seconds {
    const DETAIL: bool = false;

    #[inline]
    fn add(&mut self, _op: Op, count: f64, reading: Reading) {
        self.0 += count * reading.seconds;
    }

    #[inline]
    fn merge(&mut self, total: &Total) {
        self.0 += total.seconds;
    }
}

/// Seconds of the operators that `price` adds.
pub(crate) fn seconds(price: impl FnOnce(&mut Seconds)) -> f64 {
    let mut t = Seconds::default();
    price(&mut t);
    t.0
}

/// A ledger that adds up.
pub trait Sum: Ledger + Copy + Default {
    fn seconds(&self) -> f64;
}

impl Sum for Total {
    fn seconds(&self) -> f64 {
        self.seconds
    }
}

impl Sum for Seconds {
    #[inline]
    fn seconds(&self) -> f64 {
        self.0
    }
}

/// One line of a breakdown.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Entry {
    pub op: Op,
    /// Executions in the step (layers).
    pub count: f64,
    /// Seconds of all executions.
    pub seconds: f64,
    pub evidence: Evidence,
    /// None: nothing crosses the fabric.
    pub tier: Option<Tier>,
}

/// Keeps every entry, merging those of the same operator, evidence and tier.
#[derive(Clone, Debug, Default)]
pub struct Detail {
    pub entries: Vec<Entry>,
}

impl Detail {
    pub fn seconds(&self) -> f64 {
        self.entries.iter().map(|e| e.seconds).sum()
    }

    fn keep(&mut self, op: Op, count: f64, reading: Reading, tier: Option<Tier>) {
        if count <= 0.0 || reading.seconds <= 0.0 {
            return;
        }
        let seconds = count * reading.seconds;
        match self.entries.iter_mut().find(|e| e.op == op && e.evidence == reading.evidence && e.tier == tier) {
            Some(e) => {
                e.count += count;
                e.seconds += seconds;
            }
            None => self.entries.push(Entry { op, count, seconds, evidence: reading.evidence, tier }),
        }
    }
}

impl Ledger for Detail {
    const DETAIL: bool = true;

    fn add(&mut self, op: Op, count: f64, reading: Reading) {
        self.keep(op, count, reading, None);
    }

    fn carry(&mut self, op: Op, count: f64, time: CommTime, report: impl FnOnce() -> Report) {
        if count > 0.0 && time.seconds > 0.0 {
            self.keep(op, count, time.into(), Some(report().tier));
        }
    }

    fn merge(&mut self, _total: &Total) {
        // A bare total has no operators to list; callers re-run in detail instead.
    }
}
