//! The operators a layer program is made of, each compiled to a [`Surface`] from the default lane
//! of its table, or to its roofline (tagged) where the pack holds nothing.

use std::sync::Arc;

use super::surface::Surface;
use super::table::KernelDb;
use crate::error::Result;
use crate::spec::{Device, Dtype, Model};

/// Where kernel times come from.
#[derive(Clone, Debug)]
pub struct Source {
    pub db: Arc<KernelDb>,
    pub system: String,
    pub framework: String,
    pub device: Device,
    /// True: eager-mode launch floors are replaced by roofline + slope (`launch="graph"`).
    pub graph: bool,
}

/// Dense GEMM (m, k) x (k, n). Axis: m (rows = tokens).
pub fn gemm(source: &Source, dtype: Dtype, n: u32, k: u32) -> Result<Surface> {
    let _ = (source, dtype, n, k);
    todo!()
}

/// GQA prefill attention kernel over a past. Axes: sequences, new tokens per sequence, past tokens per sequence.
/// `window` 0: full attention. Heads are those of one TP rank.
pub fn context_attention(source: &Source, heads: u32, kv_heads: u32, head_dim: u32, window: u32, attention: Dtype, kv: Dtype) -> Result<Surface> {
    let _ = (source, heads, kv_heads, head_dim, window, attention, kv);
    todo!()
}

/// GQA decode attention kernel. Axes: sequences, context tokens.
pub fn generation_attention(source: &Source, heads: u32, kv_heads: u32, head_dim: u32, window: u32, kv: Dtype) -> Result<Surface> {
    let _ = (source, heads, kv_heads, head_dim, window, kv);
    todo!()
}

/// The whole attention block of an MLA or DSA model in prefill, projections included. Axes: sequences, new tokens, past.
pub fn mla_context(source: &Source, model: &Model, heads: u32, gemm: Dtype, kv: Dtype) -> Result<Surface> {
    let _ = (source, model, heads, gemm, kv);
    todo!()
}

/// The whole attention block of an MLA or DSA model in decode. Axes: sequences, context tokens.
pub fn mla_generation(source: &Source, model: &Model, heads: u32, gemm: Dtype, kv: Dtype) -> Result<Surface> {
    let _ = (source, model, heads, gemm, kv);
    todo!()
}

/// Shape of one expert layer as one rank sees it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ExpertShape {
    pub hidden: u32,
    pub intermediate: u32,
    pub topk: u32,
    pub experts: u32,
    pub moe_tp: u32,
    pub ep: u32,
}

/// Fused MoE kernel of the hottest rank. Axis: tokens entering the layer (all ranks together).
pub fn moe(source: &Source, shape: ExpertShape, dtype: Dtype, distribution: &str) -> Result<Surface> {
    let _ = (source, shape, dtype, distribution);
    todo!()
}

/// Grouped wide-EP kernel (DeepEP layout); `None` where no such table exists for the shape. Axis as `moe`.
pub fn grouped_moe(source: &Source, shape: ExpertShape, dtype: Dtype, distribution: &str, decode: bool) -> Result<Option<Surface>> {
    let _ = (source, shape, dtype, distribution, decode);
    todo!()
}

/// Memory-bound elementwise work. Axis: bytes moved.
pub fn memory(source: &Source) -> Surface {
    let _ = source;
    todo!()
}
