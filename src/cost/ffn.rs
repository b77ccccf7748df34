//! The FFN side of a layer: dense FFN, router, shared expert, routed experts.
//!
//! Routed experts are read from rows that already are the hottest rank of their load
//! distribution, at the tokens of all ranks together; nothing is multiplied by an imbalance here.

use std::sync::Arc;

use super::library::Library;
use super::sink::{Op, Sink, Total};
use crate::error::Result;
use crate::kernels::{Reading, Surface};
use crate::spec::Dtype;

/// Gated MLP: gate and up in one GEMM, elementwise product, down.
#[derive(Clone)]
pub struct GatedMlp {
    up: [Arc<Surface>; 2],
    down: [Arc<Surface>; 2],
    memory: [Surface; 2],
    width: f64,
}

impl GatedMlp {
    /// `intermediate` and the format are those of the whole MLP; `shards` ranks split it.
    pub fn new(lib: &Library, dtype: Dtype, intermediate: u32, shards: u32) -> Result<GatedMlp> {
        let width = intermediate.div_ceil(shards);
        let hidden = lib.model.hidden;
        Ok(GatedMlp {
            up: [lib.gemm(false, dtype, 2 * width, hidden)?, lib.gemm(true, dtype, 2 * width, hidden)?],
            down: [lib.gemm(false, dtype, hidden, width)?, lib.gemm(true, dtype, hidden, width)?],
            memory: [lib.memory(false), lib.memory(true)],
            width: f64::from(width),
        })
    }

    pub fn price<S: Sink>(&self, op: Op, tokens: f64, decode: bool, count: f64, sink: &mut S) {
        let mode = usize::from(decode);
        sink.add(op, count, self.up[mode].at(&[tokens]));
        // Read gate and up, write the product (BF16).
        sink.add(op, count, self.memory[mode].at(&[tokens * self.width * 6.0]));
        sink.add(op, count, self.down[mode].at(&[tokens]));
    }

    pub fn total(&self, tokens: f64, decode: bool) -> Total {
        let mut t = Total::default();
        self.price(Op::SharedExpert, tokens, decode, 1.0, &mut t);
        t
    }

    /// Adds the part of the MLP that is not hidden behind `beside` seconds of other work.
    pub fn price_beside<S: Sink>(&self, op: Op, tokens: f64, decode: bool, count: f64, beside: f64, sink: &mut S) {
        let own = self.total(tokens, decode).seconds;
        let exposed = (own - beside).max(0.0);
        if exposed > 0.0 {
            self.price(op, tokens, decode, count * exposed / own, sink);
        }
    }
}

/// Routed experts of one pool: the fused kernel and, where measured, the grouped one.
#[derive(Clone)]
pub struct Experts {
    /// [prefill, decode].
    fused: [Arc<Surface>; 2],
    grouped: [Option<Arc<Surface>>; 2],
    pub ep: u32,
    pub moe_tp: u32,
}

impl Experts {
    /// `None` for a model without experts.
    pub fn new(lib: &Library, ep: u32, moe_tp: u32) -> Result<Option<Experts>> {
        let (Some(prefill), Some(decode)) =
            (lib.experts_fused(false, ep, moe_tp)?, lib.experts_fused(true, ep, moe_tp)?)
        else {
            return Ok(None);
        };
        let grouped =
            if moe_tp == 1 { [lib.experts_grouped(false, ep)?, lib.experts_grouped(true, ep)?] } else { [None, None] };
        Ok(Some(Experts { fused: [prefill, decode], grouped, ep, moe_tp }))
    }

    /// Fused kernel at `tokens` of all ranks together.
    pub fn fused(&self, tokens: f64, decode: bool) -> Reading {
        self.fused[usize::from(decode)].at(&[tokens])
    }

    /// Kernel that works on dispatched tokens: grouped where measured, else the fused one.
    pub fn dispatched(&self, tokens: f64, decode: bool) -> Reading {
        match &self.grouped[usize::from(decode)] {
            Some(g) => g.at(&[tokens]),
            None => self.fused(tokens, decode),
        }
    }

    /// Whether the grouped kernel was measured for this phase.
    pub fn has_grouped(&self, decode: bool) -> bool {
        self.grouped[usize::from(decode)].is_some()
    }

    /// The faster of the two kernels.
    pub fn best(&self, tokens: f64, decode: bool) -> Reading {
        let fused = self.fused(tokens, decode);
        match &self.grouped[usize::from(decode)] {
            Some(g) => {
                let grouped = g.at(&[tokens]);
                if grouped.seconds < fused.seconds { grouped } else { fused }
            }
            None => fused,
        }
    }

    pub fn source(&self, decode: bool, dispatched: bool) -> &str {
        match (&self.grouped[usize::from(decode)], dispatched) {
            (Some(g), true) => g.source(),
            _ => self.fused[usize::from(decode)].source(),
        }
    }
}

/// Router GEMM and the norm before it.
#[derive(Clone)]
pub struct Router {
    gemm: [Arc<Surface>; 2],
    memory: [Surface; 2],
    hidden: f64,
}

impl Router {
    pub fn new(lib: &Library, experts: u32) -> Result<Router> {
        let hidden = lib.model.hidden;
        Ok(Router {
            gemm: [lib.gemm(false, Dtype::Bf16, experts, hidden)?, lib.gemm(true, Dtype::Bf16, experts, hidden)?],
            memory: [lib.memory(false), lib.memory(true)],
            hidden: f64::from(hidden),
        })
    }

    pub fn price<S: Sink>(&self, tokens: f64, decode: bool, count: f64, sink: &mut S) {
        let mode = usize::from(decode);
        sink.add(Op::Norm, count, self.memory[mode].at(&[tokens * self.hidden * 8.0]));
        sink.add(Op::Router, count, self.gemm[mode].at(&[tokens]));
    }
}

/// The norm before a dense FFN.
pub fn norm<S: Sink>(memory: &[Surface; 2], hidden: f64, tokens: f64, decode: bool, count: f64, sink: &mut S) {
    sink.add(Op::Norm, count, memory[usize::from(decode)].at(&[tokens * hidden * 8.0]));
}
