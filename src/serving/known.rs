//! How well the two latencies of a plan are known: operator time behind each, by class of evidence.
//!
//! TTFT rests on prefill (or on mixed steps), TPOT on the decode step (or on the mean of mixed and decode steps). The
//! two are never pooled: a prefill of a second hides a decode step of 20 ms. Only ratios are read, so single
//! precision is enough (a search keeps one of these a plan).
//!
//! Limit: shares of operator time; waits and hosts have no class of evidence and do not count.

use serde::{Deserialize, Serialize};

use crate::cost::Total;
use crate::kernels::{CLASSES, Evidence};

/// Seconds behind one latency, by class in the order of `kernels::Evidence`; on a common scale, not absolute.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Known {
    /// Of all operators.
    pub all: [f32; CLASSES],
    /// Of computing alone, without communication.
    pub compute: [f32; CLASSES],
}

impl Known {
    pub(crate) fn of(work: &Total) -> Known {
        let short = |seconds: [f64; CLASSES]| seconds.map(|s| s as f32);
        Known { all: short(work.by_evidence), compute: short(work.compute) }
    }

    fn plus(&self, other: &Known) -> Known {
        let add = |a: [f32; CLASSES], b: [f32; CLASSES]| std::array::from_fn(|i| a[i] + b[i]);
        Known { all: add(self.all, other.all), compute: add(self.compute, other.compute) }
    }

    /// Measured or interpolated share of all operator time; not a number where there is none.
    pub(crate) fn share(&self) -> f64 {
        measured(&self.all)
    }

    /// The same of computing alone.
    pub(crate) fn compute_share(&self) -> f64 {
        measured(&self.compute)
    }

    /// Share that is measured on the device that a what-if device stands on, and scaled.
    pub fn scaled(&self) -> f64 {
        f64::from(self.all[Evidence::Scaled as usize]) / self.all.iter().copied().map(f64::from).sum::<f64>()
    }
}

fn measured(seconds: &[f32; CLASSES]) -> f64 {
    let [measured, interpolated, ..] = seconds.map(f64::from);
    (measured + interpolated) / seconds.iter().copied().map(f64::from).sum::<f64>()
}

/// What is known of each latency.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ByPhase {
    pub ttft: Known,
    pub tpot: Known,
}

impl ByPhase {
    /// The smaller of the two shares; that of TTFT where nothing is decoded.
    pub(crate) fn share(&self) -> f64 {
        self.ttft.share().min(self.tpot.share())
    }

    pub(crate) fn compute_share(&self) -> f64 {
        self.ttft.compute_share().min(self.tpot.compute_share())
    }

    /// Both together, each counted as often as a request pays for it.
    pub(crate) fn pooled(&self) -> Known {
        self.ttft.plus(&self.tpot)
    }
}
