//! Latent attention (MLA): its dimensions, and the work of a kernel and of a whole block by them.
//!
//! Limit: dimensions and work; times come from `mla` and `dsa`.

use crate::error::{Error, Result};
use crate::kernels::roofline::{self, Attend, Block, Index};
use crate::spec::{Attention, Device, Dtype, Indexer, Model};

use super::attention::kv_bytes;

/// The dimensions of an MLA block.
#[derive(Clone, Copy, Debug)]
pub(super) struct Dims {
    pub hidden: f64,
    pub q_lora: f64,
    pub kv_lora: f64,
    pub nope: f64,
    pub rope: f64,
    pub v: f64,
    pub indexer: Option<Indexer>,
}

pub(super) fn dims(model: &Model) -> Result<Dims> {
    match &model.attention {
        Attention::Mla { q_lora, kv_lora, nope, rope, v, indexer, .. } => Ok(Dims {
            hidden: f64::from(model.hidden),
            q_lora: f64::from(*q_lora),
            kv_lora: f64::from(*kv_lora),
            nope: f64::from(*nope),
            rope: f64::from(*rope),
            v: f64::from(*v),
            indexer: *indexer,
        }),
        Attention::Gqa { .. } | Attention::Own(_) => {
            Err(Error::spec("model.attention", "is not MLA", "use the GQA operators"))
        }
    }
}

/// The block's roofline, `heads` heads of one rank (physics.md section 1).
pub(super) fn block(device: &Device, d: &Dims, heads: f64, gemm: Dtype, kv: Dtype, decode: bool) -> Block {
    let bw = roofline::bandwidth(device);
    let q_out = heads * (d.nope + d.rope);
    let q = if d.q_lora > 0.0 { d.hidden * d.q_lora + d.q_lora * q_out } else { d.hidden * q_out };
    let mut weights = q + d.hidden * (d.kv_lora + d.rope) + heads * d.v * d.hidden + heads * d.kv_lora * (d.nope + d.v);
    let mut index = None;
    if let Some(i) = d.indexer.filter(|i| !i.shared) {
        let (n, di) = (f64::from(i.heads), f64::from(i.head_dim));
        weights += d.hidden * di + d.q_lora.max(1.0) * n * di + d.hidden * n;
        index = Some(Index { pair: i.keys() * 2.0 * n * di / device.fp8_flops, kv: i.keys() * (di + 4.0) / bw });
    }
    Block {
        weights: weights * gemm.weight_bytes() / bw,
        token_math: 2.0 * weights / roofline::flops(device, gemm),
        token_memory: 4.0 * d.hidden / bw,
        index,
        attend: attend(device, d, heads, kv, decode),
    }
}

/// The kernel's roofline: absorbed (latent keys) in decode and DSA, per-head keys in plain prefill.
pub(super) fn attend(device: &Device, d: &Dims, heads: f64, kv: Dtype, decode: bool) -> Attend {
    let bw = roofline::bandwidth(device);
    let latent = d.kv_lora + d.rope;
    let absorbed = decode || d.indexer.is_some();
    let per_pair = if absorbed { 2.0 * heads * (latent + d.kv_lora) } else { 2.0 * heads * (d.nope + d.rope + d.v) };
    let fp8 = kv != Dtype::Bf16;
    let row = match (d.indexer, fp8) {
        // FP8 latent, its scales, and the rotary part in BF16.
        (Some(_), true) => d.kv_lora + d.kv_lora / 128.0 * 4.0 + 2.0 * d.rope,
        _ => latent * kv_bytes(kv),
    };
    Attend {
        pair: per_pair / if fp8 { device.fp8_flops } else { device.bf16_flops },
        io: 2.0 * heads * (d.nope + d.rope + d.v) / bw,
        kv: if absorbed { row / bw } else { 2.0 * heads * (d.nope + d.rope + d.v) / bw },
        window: d.indexer.map_or(f64::INFINITY, |i| f64::from(i.topk)),
        sparse: d.indexer.is_some(),
    }
}
