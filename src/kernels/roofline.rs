//! Rooflines: the least time a kernel can take on a device, from its arithmetic and its traffic.
//!
//! `least(x) = launches + max(math, memory)` is the lower bound that physics.md section 2 asks for;
//! `smooth(x) = launch + math + memory` has the same limits but no kink and never a zero slope,
//! so it is the yardstick that measured points are compared with: a measured time divided by
//! `smooth` is the inverse utilisation that is blended between shapes and held beyond the tables.
//! Memory runs at 0.8 of the nominal bandwidth, where rows show more than that at more (`bound`). DSA after physics.md section 1, except that prefill
//! reads each sequence's cache once and not once per new token (the tiles are reused: charged per
//! token the bound lies above what is measured at 131k tokens of past).
//!
//! Limit: one bandwidth and one rate a format; caches, clocks under load and tails of waves are not in it.

use crate::spec::{Device, Dtype};

/// Kernels that one call of an operator launches even in a CUDA graph; each costs at least one launch.
/// Without them a sound block of small kernels stands 5x above its roofline and is taken for eager mode.
/// At 2.5 us each they stay below the fastest measured block of every lane (DSA 51 us, MLA 25 us,
/// experts 13 us, decode attention 5 us).
pub mod kernels {
    /// Attention proper and the reduction over its splits.
    pub const ATTENTION: f64 = 2.0;
    /// Quantise and sort, two grouped GEMMs, activation, combine.
    pub const EXPERTS: f64 = 5.0;
    /// Down- and up-projections, norms, rotary and cache write, two absorbed BMMs, attention, output.
    pub const MLA: f64 = 8.0;
    /// The same, the indexer's projections, quantisation, cache write, logits and top-k.
    pub const DSA: f64 = 16.0;
}

/// Share of the nominal bandwidth that a kernel can reach.
pub const BANDWIDTH_EFFICIENCY: f64 = 0.8;

/// Arithmetic rate of a format in FLOP/s; formats a device has no units for run at the next wider rate.
pub(crate) fn flops(device: &Device, dtype: Dtype) -> f64 {
    match dtype {
        Dtype::Bf16 | Dtype::Int4Wo | Dtype::W4a16Mxfp4 | Dtype::W4a16Nvfp4 => device.bf16_flops,
        Dtype::Fp8 | Dtype::Fp8Block | Dtype::W4a8Mxfp4Mxfp8 => device.fp8_flops,
        Dtype::Nvfp4 if device.fp4_flops > 0.0 => device.fp4_flops,
        Dtype::Nvfp4 => device.fp8_flops,
    }
}

/// Reachable bandwidth in bytes/s.
pub(crate) fn bandwidth(device: &Device) -> f64 {
    device.hbm_bytes_per_s * BANDWIDTH_EFFICIENCY
}

/// Query-key pairs of one causal sequence of `new` tokens over `past`, each query seeing at most `window` keys.
pub(crate) fn visible_pairs(new: f64, past: f64, window: f64) -> f64 {
    let full = new * (past + 0.5 * new);
    if past + new <= window {
        full
    } else if past >= window {
        new * window
    } else {
        let growing = window - past;
        growing * (past + 0.5 * growing) + (new - growing) * window
    }
}

/// The attention kernel proper; every rate is already a time (seconds per unit and per sequence).
#[derive(Clone, Copy, Debug)]
pub struct Attend {
    /// Seconds of arithmetic per query-key pair, all heads.
    pub pair: f64,
    /// Seconds of traffic per new token (queries in, outputs out).
    pub io: f64,
    /// Seconds of traffic per cached token read.
    pub kv: f64,
    /// Keys a query sees; infinite: all.
    pub window: f64,
    /// True: the window is a top-k pick from the whole cache, not a sliding window.
    pub sparse: bool,
}

impl Attend {
    fn context(&self, b: f64, new: f64, past: f64) -> (f64, f64) {
        let reach = if self.sparse { self.window * new } else { self.window + new };
        let math = b * self.pair * visible_pairs(new, past, self.window);
        (math, b * (new * self.io + reach.min(new + past) * self.kv))
    }

    fn decode(&self, b: f64, c: f64) -> (f64, f64) {
        let seen = c.min(self.window);
        (b * self.pair * seen, b * (self.io + seen * self.kv))
    }
}

/// The lightning indexer: seconds of arithmetic per pair and of traffic per cached token.
#[derive(Clone, Copy, Debug)]
pub struct Index {
    pub pair: f64,
    pub kv: f64,
}

/// A whole attention block: projections (per token and once), indexer, kernel.
#[derive(Clone, Copy, Debug)]
pub struct Block {
    pub weights: f64,
    pub token_math: f64,
    pub token_memory: f64,
    pub index: Option<Index>,
    pub attend: Attend,
}

/// Routed experts of one rank; `rows` is one token in one expert.
#[derive(Clone, Copy, Debug)]
pub struct Experts {
    pub experts: f64,
    pub local: f64,
    pub topk: f64,
    pub row_math: f64,
    pub row_memory: f64,
    pub expert_memory: f64,
}

/// What a kernel does, as times of arithmetic and of traffic at full rate.
#[derive(Clone, Copy, Debug)]
pub enum Work {
    /// Affine in the first axis: `math * x`, `memory0 + memory * x`.
    Linear { math: f64, memory0: f64, memory: f64 },
    /// Axes: sequences, new tokens, past.
    Context(Attend),
    /// Axes: sequences, context.
    Decode(Attend),
    /// Axes: sequences, new tokens, past.
    BlockContext(Block),
    /// Axes: sequences, context.
    BlockDecode(Block),
    /// Axis: tokens of all ranks.
    Experts(Experts),
    /// Traffic of each sequence, arithmetic and traffic of each token. Axes: sequences, new tokens.
    Running { sequence: f64, math: f64, token: f64 },
}

impl Work {
    /// Seconds of arithmetic and of traffic.
    pub(crate) fn times(&self, x: &[f64; 3]) -> (f64, f64) {
        match self {
            Work::Linear { math, memory0, memory } => (math * x[0], memory0 + memory * x[0]),
            Work::Context(a) => a.context(x[0], x[1], x[2]),
            Work::Decode(a) => a.decode(x[0], x[1]),
            Work::BlockContext(k) => {
                let (math, memory) = k.attend.context(x[0], x[1], x[2]);
                let tokens = x[0] * x[1];
                let (im, ib) = k.index.map_or((0.0, 0.0), |i| {
                    (x[0] * i.pair * visible_pairs(x[1], x[2], f64::INFINITY), x[0] * i.kv * (x[1] + x[2]))
                });
                (math + im + tokens * k.token_math, memory + ib + k.weights + tokens * k.token_memory)
            }
            Work::BlockDecode(k) => {
                let (math, memory) = k.attend.decode(x[0], x[1]);
                let (im, ib) = k.index.map_or((0.0, 0.0), |i| (x[0] * i.pair * x[1], x[0] * i.kv * x[1]));
                (math + im + x[0] * k.token_math, memory + ib + k.weights + x[0] * k.token_memory)
            }
            Work::Running { sequence, math, token } => {
                let tokens = x[0] * x[1];
                (tokens * math, x[0] * sequence + tokens * token)
            }
            Work::Experts(e) => {
                let rows = x[0] * e.topk * e.local / e.experts;
                // An expert is read when at least one token picks it.
                let active = e.local * (1.0 - (x[0] * (-e.topk / e.experts).ln_1p()).exp());
                (rows * e.row_math, rows * e.row_memory + active * e.expert_memory)
            }
        }
    }
}

/// A kernel on a device.
#[derive(Clone, Copy, Debug)]
pub struct Roofline {
    pub work: Work,
    pub launch: f64,
}

impl Roofline {
    /// The lower bound.
    pub(crate) fn least(&self, x: &[f64; 3]) -> f64 {
        let (math, memory) = self.work.times(x);
        self.launch + math.max(memory)
    }

    /// What no kernel undercuts: arithmetic at the full rate, traffic at the nominal bandwidth. Decode attention over
    /// long contexts comes within a few percent of it (GB200, 64 heads on 4: 7.9 of 8 TB/s from 16,384 to 32,768 tokens).
    pub(crate) fn bound(&self, x: &[f64; 3]) -> f64 {
        let (math, memory) = self.work.times(x);
        self.launch + math.max(memory * BANDWIDTH_EFFICIENCY)
    }

    /// The yardstick without a kink.
    pub(crate) fn smooth(&self, x: &[f64; 3]) -> f64 {
        let (math, memory) = self.work.times(x);
        self.launch + math + memory
    }
}

/// Dense GEMM (m, k) x (k, n): the axis is m.
pub fn gemm(device: &Device, dtype: Dtype, n: f64, k: f64) -> Roofline {
    let bw = bandwidth(device);
    Roofline {
        work: Work::Linear {
            math: 2.0 * n * k / flops(device, dtype),
            memory0: n * k * dtype.weight_bytes() / bw,
            memory: (k * dtype.activation_bytes() + 2.0 * n) / bw,
        },
        launch: device.launch_s,
    }
}

/// Grouped experts of `[hidden, intermediate]`; `local` experts on the fullest rank; with a gate three matrices, else two.
pub(crate) fn experts(
    device: &Device,
    dtype: Dtype,
    [hidden, inter]: [f64; 2],
    gated: bool,
    experts: f64,
    local: f64,
    topk: f64,
) -> Roofline {
    let bw = bandwidth(device);
    let matrices = if gated { 3.0 } else { 2.0 };
    Roofline {
        work: Work::Experts(Experts {
            experts: experts.max(topk + 1e-9),
            local,
            topk,
            row_math: 2.0 * matrices * hidden * inter / flops(device, dtype),
            row_memory: (hidden * (dtype.activation_bytes() + 2.0) + matrices * inter * dtype.activation_bytes()) / bw,
            expert_memory: matrices * hidden * inter * dtype.weight_bytes() / bw,
        }),
        launch: kernels::EXPERTS * device.launch_s,
    }
}
