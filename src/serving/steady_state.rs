//! The numbers of one plan in steady state, and the words for what stops it.
//!
//! Limit: means: a plan whose rate swings between two states has the numbers of neither.

use serde::{Deserialize, Serialize};

use super::known::ByPhase;
use super::path::PathS;
use crate::network::Link;
use crate::spec::{PlanPool, Slo, Workload};

/// What stops a plan, in the fixed words of physics.md section 8.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Binding {
    /// Nothing: the plan stands.
    None,
    Ttft,
    Tpot,
    /// The pool whose memory does not hold weights and batch.
    Memory(PlanPool),
    /// The links that cannot carry the traffic.
    Bandwidth(Link),
    /// Prompts come faster than prefill can take them.
    PrefillRate,
    /// The sizes do not divide.
    Divisibility,
    /// It stands, but another plan is better.
    Dominated,
}

impl Binding {
    pub fn label(self) -> String {
        match self {
            Binding::None => String::new(),
            Binding::Ttft => "ttft".into(),
            Binding::Tpot => "tpot".into(),
            Binding::Memory(pool) => format!("memory:{}", pool.name()),
            Binding::Bandwidth(link) => format!("bandwidth:{}", link.name()),
            Binding::PrefillRate => "prefill-rate".into(),
            Binding::Divisibility => "divisibility".into(),
            Binding::Dominated => "dominated".into(),
        }
    }
}

/// Mean lengths of a workload, worked out once.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Load {
    pub prefix: f64,
    pub isl: f64,
    pub osl: f64,
    /// Stationary context of a decoding sequence (theta).
    pub context: f64,
    /// Tokens that P/D ships per request to decode, and to prefill before it can start.
    pub ship_to_decode: f64,
    pub ship_to_prefill: f64,
}

impl Load {
    /// Tokens of a prompt, cached ones included.
    pub(crate) fn prompt(&self) -> f64 {
        self.prefix + self.isl
    }

    /// What P/D ships of a prompt: to decode, to prefill.
    pub(crate) fn shipped(&self) -> [f64; 2] {
        [self.ship_to_decode, self.ship_to_prefill]
    }

    pub fn of(w: &Workload) -> Load {
        use crate::spec::workload::PrefixHome;
        let m = w.means();
        let (to_decode, to_prefill) = match w.prefix_home {
            PrefixHome::Both => (m.isl, 0.0),
            PrefixHome::Prefill => (m.isl + m.prefix, 0.0),
            PrefixHome::Decode => (m.isl, m.prefix),
        };
        Load {
            prefix: m.prefix,
            isl: m.isl.max(1.0),
            osl: m.osl.max(1.0),
            context: w.theta().max(1.0),
            ship_to_decode: to_decode,
            ship_to_prefill: to_prefill,
        }
    }
}

/// What moving KV between the slots of P/D costs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct KvCost {
    /// Of TTFT: the wait for KV that computation does not hide.
    pub wait_s: f64,
    /// Of TTFT and of a decode step: how much longer both are because KV shares their ports.
    pub prefill_s: f64,
    pub decode_s: f64,
    pub same_domain: bool,
}

/// Steady state of one plan (all replicas, units and workers together).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct SteadyState {
    /// As the client sees it.
    pub ttft_s: f64,
    /// 0 when nothing is decoded (one output token).
    pub tpot_s: f64,
    pub itl_worst_s: f64,
    pub requests_per_s: f64,
    pub concurrency: f64,
    /// Largest memory of any GPU.
    pub memory_bytes: f64,
    pub binding: Binding,
    /// Operator time behind each latency, by evidence.
    pub evidence: ByPhase,
    /// Sequences per attention rank that decode at a time.
    pub decode_batch: f64,
    pub kv: KvCost,
    /// Of TTFT: what a request waits for outside of the steps that serve it.
    pub path: PathS,
}

impl SteadyState {
    pub(crate) fn unplaced(binding: Binding, memory_bytes: f64) -> SteadyState {
        SteadyState {
            ttft_s: f64::NAN,
            tpot_s: f64::NAN,
            itl_worst_s: f64::NAN,
            requests_per_s: 0.0,
            concurrency: 0.0,
            memory_bytes,
            binding,
            evidence: ByPhase::default(),
            decode_batch: 0.0,
            kv: KvCost::default(),
            path: PathS::default(),
        }
    }

    /// TTFT without what a request waits for outside of the steps that serve it.
    pub fn service_ttft_s(&self) -> f64 {
        self.ttft_s - self.path.total_s()
    }

    /// Whether the plan can be built and fed at all.
    pub fn stands(&self) -> bool {
        matches!(self.binding, Binding::None | Binding::PrefillRate | Binding::Bandwidth(_) | Binding::Dominated)
    }

    /// The limit that is broken, the plan's own first, then the worse of the two latencies.
    pub fn binding_under(&self, slo: &Slo) -> Binding {
        if !self.stands() {
            return self.binding;
        }
        let over = |value_s: f64, limit_ms: Option<f64>| limit_ms.map_or(0.0, |l| value_s * 1e3 / l);
        let (ttft, tpot) = (over(self.ttft_s, slo.ttft_ms), over(self.tpot_s, slo.tpot_ms));
        if ttft <= 1.0 && tpot <= 1.0 {
            Binding::None
        } else if ttft >= tpot {
            Binding::Ttft
        } else {
            Binding::Tpot
        }
    }

    /// How far the worse latency is over its limit (<= 1: within).
    pub fn excess(&self, slo: &Slo) -> f64 {
        excess([self.ttft_s, self.tpot_s], slo)
    }
}

/// The same of (TTFT, TPOT) in seconds.
pub fn excess([ttft_s, tpot_s]: [f64; 2], slo: &Slo) -> f64 {
    let over = |value_s: f64, limit_ms: Option<f64>| limit_ms.map_or(0.0, |l| value_s * 1e3 / l);
    over(ttft_s, slo.ttft_ms).max(over(tpot_s, slo.tpot_ms))
}
