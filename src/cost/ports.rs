//! What a step does to the ports of a GPU that holds KV, as a ledger of operator times.
//!
//! For each tier and direction: `busy_s`, seconds the port carries the step's own bytes at the wire rate, and
//! `extra_s`, how much longer the step's phases take when one more flow (KV on its way) shares that port
//! throughout. A phase of n flows then keeps n/(n+1) of the port (max-min): `extra = busy / n`.
//! Source: network.md section 4.5. Limits: the sharing of a port that does not bind is charged as
//! if it did; phases bound by their start-up are not longer for it.

use super::ledger::{Ledger, Op, Total};
use crate::kernels::Reading;
use crate::network::report::{PortUse, Report};
use crate::network::{CommTime, Link, PortSide};

/// One direction of one tier.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PortTime {
    pub busy_s: f64,
    pub extra_s: f64,
}

impl PortTime {
    fn add(&mut self, count: f64, port: &PortUse) {
        let busy = count * port.seconds();
        self.busy_s += busy;
        self.extra_s += busy / port.flows;
    }
}

/// Both directions of both tiers of the GPUs that hold KV.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct StepPorts {
    /// Scale-up, then scale-out; in, then out.
    pub tiers: [[PortTime; 2]; 2],
}

impl StepPorts {
    pub(crate) fn plus(&self, other: &StepPorts, count: f64) -> StepPorts {
        let mut sum = *self;
        for (mine, theirs) in sum.tiers.as_flattened_mut().iter_mut().zip(other.tiers.as_flattened()) {
            mine.busy_s += count * theirs.busy_s;
            mine.extra_s += count * theirs.extra_s;
        }
        sum
    }
}

impl Ledger for StepPorts {
    const DETAIL: bool = true;

    fn add(&mut self, _op: Op, _count: f64, _reading: Reading) {}

    fn carry(&mut self, _op: Op, count: f64, _time: CommTime, report: impl FnOnce() -> Report) {
        if count <= 0.0 {
            return;
        }
        for port in report().ports.iter().filter(|p| p.side != PortSide::Ffn) {
            let tier = usize::from(port.port.link() == Link::Nic);
            self.tiers[tier][usize::from(port.port.is_out())].add(count, port);
        }
    }

    fn merge(&mut self, _total: &Total) {
        // No operators in it; callers price in detail.
    }
}
