//! Block-sparse attention as a mixer (`spec::mixers::block_sparse`): the whole measured block where there are rows, else
//! projections by the dense GEMM tables, indexer and attention by roofline (`kernels::ops::block_sparse`).
//!
//! Limit: which blocks a query picks is not modelled, only how many.

use std::sync::Arc;

use super::blocks::{Kernels, Projections};
use crate::cost::program::{Mixer, MixerRank, State, Surfaces};
use crate::error::Result;
use crate::kernels::Surface;
use crate::kernels::ops::{Source, block_sparse_block, block_sparse_kernel, by_roofline};
use crate::spec::mixers::BlockSparse;
use crate::spec::{Attention, Dtype, Model, OwnMixer, Quant};

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
        let hidden = from.model().hidden;
        let (gemm, kv) = (from.formats().attention_gemm, from.formats().kv);
        let shards = self.shards(tp);
        let (heads, kv_heads, index_heads) = (b.heads / tp, b.kv_heads / shards, (b.index_heads / shards).max(1));
        let local = [heads, kv_heads, index_heads].map(f64::from);
        let whole = |s: &Source, decode| block_sparse_block(s, hidden, &b, heads, [gemm, kv], decode);
        let part = |s: &Source, decode| by_roofline(block_sparse_kernel(&s.device, &b, local, kv, decode));
        let pair =
            |n, k| -> Result<[Arc<Surface>; 2]> { Ok([from.gemm(false, gemm, n, k)?, from.gemm(true, gemm, n, k)?]) };
        // Queries, keys, values, index queries and the index key in one product.
        let columns = (heads + 2 * kv_heads) * b.head_dim + (index_heads + 1) * b.index_dim;
        Kernels::new(from, &own, tp, &whole, &part)?.rank(cp, || {
            Ok(Projections {
                inward: vec![pair(columns, hidden)?],
                outward: vec![pair(hidden, heads * b.head_dim)?],
                memory: [from.memory(false), from.memory(true)],
                rope_bytes: f64::from(columns) * 4.0,
            })
        })
    }
}
