//! Block-sparse attention as a mixer (`spec::mixers::block_sparse`): projections by the dense GEMM tables, indexer and
//! attention by roofline.
//!
//! How low the roofline lies: whole blocks on B200 by these formulas over the rows of the wheel `aisimulate`
//! 0.13.0.dev202610270000000085, in the median 0.52 (SGLang 0.5.16), 0.17 (TensorRT-LLM 1.3.0rc23) and 0.79 (vLLM 0.24.0) for
//! decode, 0.08, 0.01 and 0.49 for prefill: TTFT here is what kernels could do, not what they do. Those rows are not packed.
//! Every index head scores all keys of its sequence, and a query reads `block blocks` tokens. Limits: blocks are taken
//! for the picks of a token each; prompts that share blocks read them once (`roofline`).

use std::sync::Arc;

use super::compressed::Rank;
use crate::cost::program::{Mixer, MixerRank, State, Surfaces};
use crate::error::Result;
use crate::kernels::Surface;
use crate::kernels::ops::by_roofline;
use crate::kernels::roofline::{self, Attend, Block, Index, Roofline, Work, kernels};
use crate::spec::mixers::BlockSparse;
use crate::spec::{Attention, Device, Dtype, Model, OwnMixer, Quant};

#[derive(Clone, Debug)]
pub struct BlockSparseAttention(pub BlockSparse);

impl Mixer for BlockSparseAttention {
    fn name(&self) -> &'static str {
        "block-sparse attention"
    }

    fn state(&self, kv: Dtype) -> State {
        let (per_token, per_sequence) = OwnMixer::BlockSparse(self.0).state(kv);
        State { per_token, window: f64::INFINITY, per_sequence }
    }

    fn shards(&self, tp: u32) -> u32 {
        OwnMixer::BlockSparse(self.0).shards(tp)
    }

    fn weight_bytes(&self, model: &Model, quant: &Quant, tp: u32) -> f64 {
        model.block_weight_bytes_per_rank(&Attention::Own(OwnMixer::BlockSparse(self.0)), quant, tp)
    }

    fn on_rank(&self, from: &dyn Surfaces, tp: u32, cp: u32) -> Result<Arc<dyn MixerRank>> {
        let (b, own) = (self.0, OwnMixer::BlockSparse(self.0));
        let (formats, hidden) = (from.formats(), from.model().hidden);
        let shards = self.shards(tp);
        let (heads, kv_heads, index_heads) = (b.heads / tp, b.kv_heads / shards, (b.index_heads / shards).max(1));
        let pair = |n, k| -> Result<[Arc<Surface>; 2]> {
            let gemm = formats.attention_gemm;
            Ok([from.gemm(false, gemm, n, k)?, from.gemm(true, gemm, n, k)?])
        };
        // Queries, keys, values, index queries and the index key in one product.
        let columns = (heads + 2 * kv_heads) * b.head_dim + (index_heads + 1) * b.index_dim;
        let kernel = |decode| {
            let kv = formats.kv;
            from.own(&own, tp, decode, &move |s| {
                let local = [heads, kv_heads, index_heads].map(f64::from);
                Ok(by_roofline(roof(&s.device, &b, local, kv, decode)))
            })
        };
        Ok(Arc::new(Rank {
            inward: vec![pair(columns, hidden)?],
            outward: vec![pair(hidden, heads * b.head_dim)?],
            kernels: [kernel(false)?, kernel(true)?],
            memory: [from.memory(false), from.memory(true)],
            rope_bytes: f64::from(columns) * 4.0,
            cp: f64::from(cp),
        }))
    }
}

fn roof(device: &Device, b: &BlockSparse, local: [f64; 3], kv: Dtype, decode: bool) -> Roofline {
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
