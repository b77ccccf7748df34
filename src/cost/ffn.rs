//! The FFN side of a layer: dense FFN, router, shared expert, routed experts.
//!
//! Routed experts are read from rows that already are the hottest rank of their load
//! distribution, at the tokens of all ranks together; nothing is multiplied by an imbalance here.
//! Another load (an exponent, a histogram, EPLB copies) lies between the balanced and the skewed
//! rows, by the load of its fullest rank (balance); redundant copies add their weights by roofline.
//!
//! Limit: routing is a distribution, the same in every layer and step; what a batch really picks is not drawn.

use std::sync::Arc;

use super::ledger::{Ledger, Op, Total};
use super::library::Library;
use super::program::Surfaces;
use crate::error::Result;
use crate::kernels::roofline::{BANDWIDTH_EFFICIENCY, Roofline};
use crate::kernels::{Evidence, Reading, Surface};
use crate::spec::Dtype;

/// MLP: gate and up in one GEMM (up alone where there is no gate), elementwise work, down.
#[derive(Clone)]
pub struct GatedMlp {
    up: [Arc<Surface>; 2],
    down: [Arc<Surface>; 2],
    memory: [Surface; 2],
    width: f64,
    /// Bytes of a column between the two: gate and up are read, the product is written (BF16).
    moved: f64,
}

impl GatedMlp {
    /// `intermediate` and the format are those of the whole MLP; `shards` ranks split it.
    pub(crate) fn new(lib: &Library, dtype: Dtype, intermediate: u32, shards: u32) -> Result<GatedMlp> {
        let width = intermediate.div_ceil(shards);
        let hidden = lib.model.hidden;
        let first = if lib.model.gated { 2 * width } else { width };
        Ok(GatedMlp {
            up: [lib.gemm(false, dtype, first, hidden)?, lib.gemm(true, dtype, first, hidden)?],
            down: [lib.gemm(false, dtype, hidden, width)?, lib.gemm(true, dtype, hidden, width)?],
            memory: [lib.memory(false), lib.memory(true)],
            width: f64::from(width),
            moved: if lib.model.gated { 6.0 } else { 4.0 },
        })
    }

    pub fn price<S: Ledger>(&self, op: Op, tokens: f64, decode: bool, count: f64, ledger: &mut S) {
        let mode = usize::from(decode);
        ledger.add(op, count, self.up[mode].at(&[tokens]));
        ledger.add(op, count, self.memory[mode].at(&[tokens * self.width * self.moved]));
        ledger.add(op, count, self.down[mode].at(&[tokens]));
    }

    pub(crate) fn total(&self, tokens: f64, decode: bool) -> Total {
        let mut t = Total::default();
        self.price(Op::SharedExpert, tokens, decode, 1.0, &mut t);
        t
    }

    /// Adds the part of the MLP that is not hidden behind `beside` seconds of other work.
    pub(crate) fn price_beside<S: Ledger>(
        &self,
        op: Op,
        tokens: f64,
        decode: bool,
        count: f64,
        beside: f64,
        ledger: &mut S,
    ) {
        let own = self.total(tokens, decode).seconds;
        let exposed = (own - beside).max(0.0);
        if exposed > 0.0 {
            self.price(op, tokens, decode, count * exposed / own, ledger);
        }
    }
}

/// Kernels under one load distribution, [prefill, decode].
#[derive(Clone)]
struct Lanes {
    fused: [Arc<Surface>; 2],
    grouped: [Option<Arc<Surface>>; 2],
}

impl Lanes {
    /// `None` for a model without experts.
    fn new(lib: &Library, ep: u32, moe_tp: u32, attention_dp: bool, even: bool) -> Result<Option<Lanes>> {
        let fused = |decode| lib.experts_fused(decode, ep, moe_tp, attention_dp, even);
        let (Some(prefill), Some(decode)) = (fused(false)?, fused(true)?) else {
            return Ok(None);
        };
        let grouped = if moe_tp == 1 {
            [lib.experts_grouped(false, ep, even)?, lib.experts_grouped(true, ep, even)?]
        } else {
            [None, None]
        };
        Ok(Some(Lanes { fused: [prefill, decode], grouped }))
    }
}

/// A load between the balanced rows (0) and the rows that are read (1), or beyond.
#[derive(Clone)]
struct Skew {
    even: Lanes,
    at: f64,
    /// Rooflines of the fullest rank without and with redundant copies.
    copies: Option<[Roofline; 2]>,
}

impl Skew {
    /// `row` moved to the load asked for, given the balanced row beside it.
    fn apply(&self, row: Reading, even: Reading, tokens: f64) -> Reading {
        // A balanced row slower than the skewed one is no bound on what balance brings.
        let spread = (row.seconds - even.seconds).max(0.0);
        let x = [tokens, 0.0, 0.0];
        let weights = self.copies.map_or(1.0, |[one, more]| more.smooth(&x) / one.smooth(&x));
        let known = if self.at > 1.0 { Evidence::Extrapolated } else { Evidence::Interpolated };
        Reading {
            seconds: (row.seconds + spread * (self.at - 1.0)) * weights,
            evidence: row.evidence.max(even.evidence).max(known),
        }
    }
}

/// Routed experts of one pool: the fused kernel and, where measured, the grouped one.
#[derive(Clone)]
pub struct Experts {
    lanes: Lanes,
    skew: Option<Skew>,
    pub ep: u32,
    pub moe_tp: u32,
    /// Seconds that HBM needs for the weights of all experts of a GPU, and the share of experts that one token misses.
    weights_s: f64,
    missed: f64,
}

impl Experts {
    /// `None` for a model without experts. `attention_dp`: whether ranks of attention data parallelism bring the tokens
    /// (an AFD pool: yes).
    pub fn new(lib: &Library, ep: u32, moe_tp: u32, attention_dp: bool) -> Result<Option<Experts>> {
        let lanes = |even| Lanes::new(lib, ep, moe_tp, attention_dp, even);
        let (Some(m), Some(own)) = (&lib.model.moe, lanes(false)?) else { return Ok(None) };
        let skew = match lib.skew(ep) {
            Some(at) => lanes(true)?.map(|even| Skew { even, at, copies: lib.copies(ep, moe_tp) }),
            None => None,
        };
        let weights_s = f64::from(m.experts.div_ceil(ep)) / f64::from(moe_tp)
            * lib.model.expert_weight_bytes(&lib.quant)
            / (lib.cluster.device.hbm_bytes_per_s * BANDWIDTH_EFFICIENCY);
        let missed = 1.0 - f64::from(m.topk) / f64::from(m.experts);
        Ok(Some(Experts { lanes: own, skew, ep, moe_tp, weights_s, missed }))
    }

    /// Seconds that HBM needs for the weights of the experts that `tokens` reach.
    pub fn reads(&self, tokens: f64) -> f64 {
        self.weights_s * (1.0 - self.missed.powf(tokens))
    }

    /// Seconds that the separate kernels of a decode step (sort, two GEMMs, activation, combine) take beside reading the
    /// weights and computing: the least that any number of tokens shows above its reads. A kernel that works in waves of
    /// experts has one start and loads the next wave's weights meanwhile. 0 where lanes are read as measured.
    pub fn between(&self, lib: &Library) -> f64 {
        if lib.assumptions.lanes == crate::spec::assumptions::Lanes::AsMeasured {
            return 0.0;
        }
        let above = |tokens: f64| (self.best(tokens, true).seconds - self.reads(tokens)).max(0.0);
        (4..=12).map(|octave| above(f64::from(1_u32 << octave))).fold(f64::INFINITY, f64::min)
    }

    /// Fused kernel at `tokens` of all ranks together.
    pub fn fused(&self, tokens: f64, decode: bool) -> Reading {
        let mode = usize::from(decode);
        let row = self.lanes.fused[mode].at(&[tokens]);
        match &self.skew {
            Some(s) => s.apply(row, s.even.fused[mode].at(&[tokens]), tokens),
            None => row,
        }
    }

    fn grouped(&self, tokens: f64, decode: bool) -> Option<Reading> {
        let mode = usize::from(decode);
        let row = self.lanes.grouped[mode].as_ref()?.at(&[tokens]);
        Some(match &self.skew {
            Some(s) => s.apply(row, s.even.grouped[mode].as_ref().map_or(row, |g| g.at(&[tokens])), tokens),
            None => row,
        })
    }

    /// Kernel that works on dispatched tokens: grouped where measured, else the fused one.
    pub fn dispatched(&self, tokens: f64, decode: bool) -> Reading {
        self.grouped(tokens, decode).unwrap_or_else(|| self.fused(tokens, decode))
    }

    /// The faster of the two kernels.
    pub(crate) fn best(&self, tokens: f64, decode: bool) -> Reading {
        let fused = self.fused(tokens, decode);
        self.grouped(tokens, decode).filter(|g| g.seconds < fused.seconds).unwrap_or(fused)
    }
}

/// Router GEMM and the norm before it; for latent experts also the products that bring a token to their width and back.
#[derive(Clone)]
pub struct Router {
    gemm: [Arc<Surface>; 2],
    /// To the latent and back, each [prefill, decode].
    latent: Option<[[Arc<Surface>; 2]; 2]>,
    memory: [Surface; 2],
    hidden: f64,
}

impl Router {
    pub(crate) fn new(lib: &Library, experts: u32) -> Result<Router> {
        let hidden = lib.model.hidden;
        let format = lib.formats.shared_gemm;
        let pair =
            |n, k| -> Result<[Arc<Surface>; 2]> { Ok([lib.gemm(false, format, n, k)?, lib.gemm(true, format, n, k)?]) };
        let latent = match lib.model.expert_hidden() {
            same if same == hidden => None,
            latent => Some([pair(latent, hidden)?, pair(hidden, latent)?]),
        };
        Ok(Router {
            latent,
            gemm: [lib.gemm(false, Dtype::Bf16, experts, hidden)?, lib.gemm(true, Dtype::Bf16, experts, hidden)?],
            memory: [lib.memory(false), lib.memory(true)],
            hidden: f64::from(hidden),
        })
    }

    pub fn price<S: Ledger>(&self, tokens: f64, decode: bool, count: f64, ledger: &mut S) {
        norm(&self.memory, self.hidden, tokens, decode, count, ledger);
        self.price_gemm(tokens, decode, count, ledger);
    }

    /// The GEMM alone, where the norm runs elsewhere; gives the seconds of one.
    pub(crate) fn price_gemm<S: Ledger>(&self, tokens: f64, decode: bool, count: f64, ledger: &mut S) -> f64 {
        let gemm = self.gemm[usize::from(decode)].at(&[tokens]);
        ledger.add(Op::Router, count, gemm);
        let mut seconds = gemm.seconds;
        for way in self.latent.iter().flatten() {
            let product = way[usize::from(decode)].at(&[tokens]);
            ledger.add(Op::Router, count, product);
            seconds += product.seconds;
        }
        seconds
    }
}

/// The norm before a dense FFN.
pub(crate) fn norm<S: Ledger>(
    memory: &[Surface; 2],
    hidden: f64,
    tokens: f64,
    decode: bool,
    count: f64,
    ledger: &mut S,
) {
    ledger.add(Op::Norm, count, memory[usize::from(decode)].at(&[tokens * hidden * 8.0]));
}
