//! Block-sparse attention (`spec::mixers::block_sparse`): whole measured blocks where there are any, and its rooflines.
//!
//! Every index head scores all keys of its sequence, and a query reads `block blocks` tokens. Rows: `msa_*_module`
//! (MiniMax-M3). How low the roofline lies below them: on B200, in the median 0.52 (SGLang 0.5.16), 0.17 (TensorRT-LLM
//! 1.3.0rc23) and 0.79 (vLLM 0.24.0) of the time for decode, 0.08, 0.01 and 0.49 for prefill. Limits: blocks are taken for the
//! picks of a token each; prompts that share blocks read them once.

use crate::error::Result;
use crate::kernels::roofline::{self, Attend, Block, Index, Roofline, Work, kernels};
use crate::kernels::surface::Surface;
use crate::spec::mixers::BlockSparse;
use crate::spec::{Device, Dtype, LayerMixer, Model, OwnMixer};

use super::Source;
use super::block::{Asked, Sizes, bare, block};

/// Kernels of the projections: one in, norms, rotary and cache write, one out.
const PROJECTIONS: f64 = 4.0;

/// A block: what its layers have, in a model of this hidden size.
#[derive(Clone, Copy, PartialEq)]
struct Whole {
    hidden: u32,
    of: BlockSparse,
}

impl Sizes for Whole {
    fn of(model: &Model, _: &Whole) -> Option<Whole> {
        let of = model.mixers.iter().find_map(|m| match m {
            LayerMixer::Own(OwnMixer::BlockSparse(b)) => Some(*b),
            _ => None,
        })?;
        Some(Whole { hidden: model.hidden, of })
    }

    fn roofline(&self, source: &Source, heads: f64, gemm: Dtype, kv: Dtype, decode: bool) -> Roofline {
        let (device, b) = (&source.device, &self.of);
        let share = heads / f64::from(b.heads);
        let local = [heads, (f64::from(b.kv_heads) * share).max(1.0), (f64::from(b.index_heads) * share).max(1.0)];
        let kernel = block_sparse_kernel(device, b, local, kv, decode);
        let (Work::BlockContext(k) | Work::BlockDecode(k)) = kernel.work else { return kernel };
        let (bw, hidden) = (roofline::bandwidth(device), f64::from(self.hidden));
        let (width, index) = (f64::from(b.head_dim), f64::from(b.index_dim));
        let weights = hidden * ((2.0 * local[0] + 2.0 * local[1]) * width + (local[2] + 1.0) * index);
        let block = Block {
            weights: weights * gemm.weight_bytes() / bw,
            token_math: k.token_math + 2.0 * weights / roofline::flops(device, gemm),
            token_memory: k.token_memory + 4.0 * hidden / bw,
            ..k
        };
        let work = if decode { Work::BlockDecode(block) } else { Work::BlockContext(block) };
        Roofline { work, launch: kernel.launch + PROJECTIONS * device.launch_s }
    }
}

/// The whole block of a layer on a rank with `heads` of its heads, in a model of this hidden size; without rows a roofline.
/// Axes: sequences, and for decode context, for prefill new tokens and past.
pub fn block_sparse_block(
    source: &Source,
    hidden: u32,
    of: &BlockSparse,
    heads: u32,
    [gemm, kv]: [Dtype; 2],
    decode: bool,
) -> Result<Surface> {
    let table = if decode { "msa_generation_module" } else { "msa_context_module" };
    let asked = Asked { source, table, sizes: Whole { hidden, of: *of }, heads, gemm, kv, decode };
    Ok(block(asked)?.unwrap_or_else(|| bare(asked)))
}

/// The kernels beside the projections, by their work; `local`: heads, KV heads and index heads of a rank.
pub fn block_sparse_kernel(device: &Device, b: &BlockSparse, local: [f64; 3], kv: Dtype, decode: bool) -> Roofline {
    let bw = roofline::bandwidth(device);
    let [heads, kv_heads, index_heads] = local;
    let (width, index) = (f64::from(b.head_dim), f64::from(b.index_dim));
    let rate = roofline::flops(device, Dtype::Bf16);
    let attend = Attend {
        pair: heads * 4.0 * width / rate,
        io: heads * 2.0 * width * 2.0 / bw,
        kv: 2.0 * kv_heads * width * kv.kv_bytes() / bw,
        window: b.reach(),
        sparse: true,
    };
    let keys = Index { pair: 2.0 * index_heads * index / rate, kv: index * Dtype::Bf16.kv_bytes() / bw };
    let block = Block { weights: 0.0, token_math: 0.0, token_memory: 0.0, index: Some(keys), attend };
    let work = if decode { Work::BlockDecode(block) } else { Work::BlockContext(block) };
    // Attention and the reduction over its splits; scores, top-k.
    Roofline { work, launch: (kernels::ATTENTION + 2.0) * device.launch_s }
}
