//! Compressed attention (`spec::mixers::compressed`): whole measured blocks where there are any, and its rooflines.
//!
//! ```text
//! pairs of a query      min(c, window) + min(c / ratio, topk), every head against rows of head_dim
//! index                 c / ratio keys of index_dim, all heads of the indexer, on every rank
//! ```
//!
//! Rows: `dsv4_csa_*_module` (layers with an indexer) and `dsv4_hca_*_module` (without), DeepSeek-V4-Pro and -Flash. Layers that
//! keep the window alone have no rows. How low the roofline lies below them: on B200, in the median 0.46 to 0.58 of the
//! time for decode and 0.32 to 0.49 for prefill (SGLang 0.5.14, TensorRT-LLM 1.3.0rc23, vLLM 0.24.0). Limits: a query is
//! charged the whole window however short its sequence; decode reads the window's rows once a sequence.

use crate::error::Result;
use crate::kernels::roofline::{self, Attend, Block, Index, Roofline, Work, kernels};
use crate::kernels::surface::Surface;
use crate::spec::mixers::Compressed;
use crate::spec::{Device, Dtype, LayerMixer, Model, OwnMixer};

use super::Source;
use super::block::{Asked, Sizes, bare, block};

/// Kernels of the projections: two in, norms, rotary and cache write, two out.
const PROJECTIONS: f64 = 6.0;

/// A block: what its layers have, in a model of this hidden size.
#[derive(Clone, Copy, PartialEq)]
struct Whole {
    hidden: u32,
    of: Compressed,
}

impl Sizes for Whole {
    fn of(model: &Model, like: &Whole) -> Option<Whole> {
        let compressed = |m: &LayerMixer| match m {
            LayerMixer::Own(OwnMixer::Compressed(c)) => Some(*c),
            _ => None,
        };
        let same = |c: &Compressed| c.ratio > 0 && (c.topk > 0) == (like.of.topk > 0);
        let of = model.mixers.iter().filter_map(compressed).find(same)?;
        Some(Whole { hidden: model.hidden, of })
    }

    fn roofline(&self, source: &Source, heads: f64, gemm: Dtype, kv: Dtype, decode: bool) -> Roofline {
        let (device, c) = (&source.device, &self.of);
        let kernel = compressed_kernel(device, c, heads, kv, decode);
        let (Work::BlockContext(b) | Work::BlockDecode(b)) = kernel.work else { return kernel };
        let (bw, hidden) = (roofline::bandwidth(device), f64::from(self.hidden));
        let (row, q_lora, o_lora) = (f64::from(c.head_dim), f64::from(c.q_lora), f64::from(c.o_lora));
        // A rank has whole groups of the way out, or a part of one.
        let groups = (f64::from(c.o_groups) * heads / f64::from(c.heads)).max(1.0);
        let index = q_lora * f64::from(c.index_heads) * f64::from(c.index_dim);
        let weights = hidden * (q_lora + row) + heads * row * (q_lora + o_lora) + groups * o_lora * hidden + index;
        let pools = hidden * c.compressor_columns();
        let block = Block {
            weights: (weights * gemm.weight_bytes() + pools * Dtype::Bf16.weight_bytes()) / bw,
            token_math: b.token_math
                + 2.0 * weights / roofline::flops(device, gemm)
                + 2.0 * pools / roofline::flops(device, Dtype::Bf16),
            token_memory: b.token_memory + 4.0 * hidden / bw,
            ..b
        };
        let work = if decode { Work::BlockDecode(block) } else { Work::BlockContext(block) };
        Roofline { work, launch: kernel.launch + PROJECTIONS * device.launch_s }
    }
}

/// Tables of a kind of layer: prefill, decode. None: layers that keep the window alone.
fn tables(c: &Compressed) -> Option<[&'static str; 2]> {
    match (c.ratio, c.topk) {
        (0, _) => None,
        (_, 0) => Some(["dsv4_hca_context_module", "dsv4_hca_generation_module"]),
        _ => Some(["dsv4_csa_context_module", "dsv4_csa_generation_module"]),
    }
}

/// The whole block of a layer on a rank with `heads` of its heads, in a model of this hidden size; without rows a roofline.
/// Axes: sequences, and for decode context, for prefill new tokens and past.
pub fn compressed_block(
    source: &Source,
    hidden: u32,
    of: &Compressed,
    heads: u32,
    [gemm, kv]: [Dtype; 2],
    decode: bool,
) -> Result<Surface> {
    let table = tables(of).map_or("", |t| t[usize::from(decode)]);
    let asked = Asked { source, table, sizes: Whole { hidden, of: *of }, heads, gemm, kv, decode };
    Ok(block(asked)?.unwrap_or_else(|| bare(asked)))
}

/// The kernels beside the projections, by their work.
pub fn compressed_kernel(device: &Device, c: &Compressed, heads: f64, kv: Dtype, decode: bool) -> Roofline {
    let bw = roofline::bandwidth(device);
    let width = f64::from(c.head_dim);
    let (row, key) = c.rows(kv);
    let (row, key) = (row / bw, key / bw);
    // Scores and values over the same row: 2 multiply-adds of its width.
    let pair = heads * 4.0 * width / roofline::flops(device, Dtype::Bf16);
    let io = heads * 2.0 * width * 2.0 / bw;
    let window = f64::from(c.window);
    let mut launches = kernels::ATTENTION;
    let work = if c.ratio == 0 {
        let attend = Attend { pair, io, kv: row, window, sparse: false };
        if decode { Work::Decode(attend) } else { Work::Context(attend) }
    } else {
        let ratio = f64::from(c.ratio);
        // Pooling and the write of the compressed row.
        launches += 1.0;
        let reach = if c.topk > 0 { f64::from(c.topk) * ratio } else { f64::INFINITY };
        let attend = Attend { pair: pair / ratio, io, kv: row / ratio, window: reach, sparse: c.topk > 0 };
        let index = (c.topk > 0).then(|| {
            // Quantise, pool and write the key, logits, top-k.
            launches += 4.0;
            let heads = f64::from(c.index_heads) * f64::from(c.index_dim);
            Index { pair: 2.0 * heads / ratio / roofline::flops(device, Dtype::Fp8), kv: key / ratio }
        });
        let token_memory = if decode { window * row } else { row };
        let block = Block { weights: 0.0, token_math: window * pair, token_memory, index, attend };
        if decode { Work::BlockDecode(block) } else { Work::BlockContext(block) }
    };
    Roofline { work, launch: launches * device.launch_s }
}
