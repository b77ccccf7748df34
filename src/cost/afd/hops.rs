//! What travels between the pools of an AFD unit: A2F, F2A, and the hop to the next pipeline stage.
//!
//! Copies and wire are the library's (`library::hops`), the calibrated law the network's (`network::afd`). Where groups of
//! attention GPUs share an FFN pool, the pool's ports are asked for too.
//!
//! Limit: a hop is priced alone, at a mean load of every port; what other units or jobs send at the same time is not
//! seen.

use std::sync::Arc;

use crate::cost::ledger::{Ledger, Op};
use crate::cost::library::hops::{self, Hop};
use crate::cost::{Batch, Library};
use crate::kernels::Evidence;
use crate::network::spread::Spread;
use crate::network::{AfdShape, CommTime};
use crate::spec::AfdPlan;
use crate::spec::assumptions::Copies;

/// Where the pools sit, unless that is the packing of one group.
pub(super) fn spread(plan: &AfdPlan, domain: u32) -> Option<Spread> {
    match &plan.placement {
        Some(p) => {
            let stages = plan.stages();
            Some(Spread::slowest_group(&p.attention, &p.ffn, stages, plan.attention_groups, domain))
        }
        None if plan.attention_groups > 1 => {
            Some(Spread::packed_groups(plan.attention.gpus, plan.ffn.gpus, plan.attention_groups, domain))
        }
        None => None,
    }
}

/// The hops of one unit.
pub struct Hops {
    pub(super) lib: Arc<Library>,
    pub(super) shape: AfdShape,
    /// Attention groups that share the FFN pool.
    pub(super) groups: u32,
    /// Groups of FFN GPUs that hold all experts.
    pub(super) replicas: u32,
    /// Whether tokens travel once each to an FFN GPU that routes them.
    pub(super) router_on_ffn: bool,
}

impl Hops {
    fn hidden(&self) -> f64 {
        f64::from(self.shape.hidden)
    }

    /// A2F (or, `back`, F2A) of a MoE layer.
    pub fn price<S: Ledger>(&self, batch: &Batch, back: bool, ledger: &mut S) {
        if self.router_on_ffn {
            return self.price_home(batch, back, ledger);
        }
        let tokens = batch.tokens();
        let (op, hop) = (if back { Op::F2a } else { Op::A2f }, self.transfer(tokens, back));
        ledger.carry(op, 1.0, hop, || self.lib.comm.report_afd(&self.shape, tokens, back));
    }

    /// A2F (or, `back`, F2A) of one micro-batch and layer, as the library counts and times hops.
    pub(crate) fn transfer(&self, tokens: f64, back: bool) -> CommTime {
        let how = self.lib.hops();
        let law = |tokens| {
            if back { self.lib.comm.f2a(&self.shape, tokens) } else { self.lib.comm.a2f(&self.shape, tokens) }
        };
        let hop = self.hop(tokens, back);
        let priced = |seconds| CommTime { seconds, evidence: Evidence::Extrapolated };
        let mut time = match (how.wire, how.bytes) {
            (None, None) => law(tokens),
            (None, Some(bytes)) => {
                // Same start-up and efficiency, other bytes.
                let (start, own) = (law(0.0).seconds, hops::expected(&hop));
                priced(start + (law(tokens).seconds - start) * bytes(&hop) / own.max(f64::MIN_POSITIVE))
            }
            (Some(wire), bytes) => {
                let gpus = self.shape.attention_gpus + self.shape.ffn_gpus;
                priced(wire(bytes.unwrap_or(hops::expected)(&hop), &self.lib.cluster.fabric, gpus))
            }
        };
        if back && self.shape.attention_tp > 1 && how.no_gather {
            let row = 2.0 * self.hidden();
            time.seconds =
                (time.seconds - self.lib.comm.all_gather(tokens * row, self.shape.attention_tp).seconds).max(0.0);
        }
        time
    }

    /// Bytes through the busier end of A2F or F2A, counted in this way.
    pub(crate) fn transfer_bytes(&self, tokens: f64, back: bool, copies: Copies) -> f64 {
        hops::counted(copies)(&self.hop(tokens, back))
    }

    fn hop(&self, tokens: f64, back: bool) -> Hop<'_> {
        Hop { shape: &self.shape, fabric: &self.lib.cluster.fabric, replicas: self.replicas, tokens, back }
    }

    /// A token that travels whole has the model's width, whatever its experts read.
    pub(super) fn home(&self) -> AfdShape {
        AfdShape { hidden: self.lib.model.hidden, ..self.shape }
    }

    /// The two hops of a layer whose tokens travel once each (a dense layer, or a router, on the FFN pool):
    /// one copy out, one vector back.
    pub(crate) fn price_home<S: Ledger>(&self, batch: &Batch, back: bool, ledger: &mut S) {
        let (op, tokens) = (if back { Op::F2a } else { Op::A2f }, batch.tokens());
        let shape = self.home();
        let hop = self.lib.comm.afd_home(&shape, tokens, back);
        ledger.carry(op, 1.0, hop, || self.lib.comm.report_afd_home(&shape, tokens, back));
    }

    /// Seconds of the two hops that the FFN side's ports are taken, where groups share them. `home`: one copy a token.
    pub(crate) fn ports(&self, batch: &Batch, home: bool) -> [f64; 2] {
        if self.groups == 1 {
            return [0.0; 2];
        }
        let tokens = batch.tokens();
        let shape = if home { self.home() } else { self.shape };
        [false, true].map(|back| self.lib.comm.afd_ffn_seconds(&shape, tokens, back, home))
    }

    /// One hop of a micro-batch's hidden states to the attention pool of the next pipeline stage: each GPU sends its
    /// share of the residual. `near`: both stages in one scale-up domain.
    pub(crate) fn stage_hop(&self, batch: &Batch, near: bool) -> CommTime {
        let bytes = batch.tokens() * self.lib.model.residual_row() / f64::from(self.shape.attention_tp);
        self.lib.comm.p2p(bytes, near)
    }
}
