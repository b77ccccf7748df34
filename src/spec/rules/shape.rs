//! How a worker or an AFD unit is cut, as far as rules care.
//!
//! Limit: widths only; batches, formats and places do not count.

use crate::spec::{AfdPlan, Parallel, Slot};

/// How a worker or an AFD unit is cut, as far as rules care.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    pub tp: u32,
    pub dp: u32,
    pub cp: u32,
    pub pp: u32,
    pub ep: u32,
    pub moe_tp: u32,
}

/// Anything with a shape.
pub trait Layout {
    fn shape(&self, experts: u32) -> Shape;
}

impl Layout for Parallel {
    fn shape(&self, _: u32) -> Shape {
        Shape { tp: self.tp, dp: self.dp, cp: self.cp, pp: self.pp, ep: self.ep(), moe_tp: self.moe_tp }
    }
}

impl Layout for AfdPlan {
    /// Attention of one group, experts of the FFN pool.
    fn shape(&self, experts: u32) -> Shape {
        let dp = (self.attention.ranks() / self.attention_groups.max(1)).max(1);
        let ep = self.ffn.ep_for(experts.max(1));
        Shape { tp: self.attention.tp, dp, cp: 1, pp: self.pp, ep, moe_tp: self.ffn.moe_tp }
    }
}

impl Layout for Slot {
    fn shape(&self, experts: u32) -> Shape {
        match self {
            Slot::Workers(w) => w.parallel.shape(experts),
            Slot::Afd(a) => a.shape(experts),
        }
    }
}
