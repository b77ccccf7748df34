//! Compressed attention as a mixer (`spec::mixers::compressed`): the whole measured block where there are rows, else
//! projections by the dense GEMM tables and the kernels by roofline (`kernels::ops::compressed`).
//!
//! Limit: where rows are missing the kernels are rooflines, tagged so; what one layer's choice saves the next is not
//! modelled.

use std::sync::Arc;

use super::blocks::{Kernels, Projections};
use crate::cost::program::{Mixer, MixerRank, State, Surfaces};
use crate::error::Result;
use crate::kernels::Surface;
use crate::kernels::ops::{Source, by_roofline, compressed_block, compressed_kernel};
use crate::spec::mixers::Compressed;
use crate::spec::{Attention, Dtype, Model, OwnMixer, Quant};

#[derive(Clone, Debug)]
pub struct CompressedAttention(pub Compressed);

impl Mixer for CompressedAttention {
    fn name(&self) -> &'static str {
        if self.0.topk > 0 { "compressed sparse attention" } else { "compressed attention" }
    }

    fn state(&self, kv: Dtype) -> State {
        let (per_token, per_sequence) = OwnMixer::Compressed(self.0).state(kv);
        State { per_token, window: f64::INFINITY, per_sequence }
    }

    /// All heads read one row: every rank has it.
    fn shards(&self, _: u32) -> u32 {
        1
    }

    fn weight_bytes(&self, model: &Model, quant: &Quant, tp: u32) -> f64 {
        model.block_weight_bytes_per_rank(&Attention::Own(OwnMixer::Compressed(self.0)), quant, tp)
    }

    fn on_rank(&self, from: &dyn Surfaces, tp: u32, cp: u32) -> Result<Arc<dyn MixerRank>> {
        let (c, own) = (self.0, OwnMixer::Compressed(self.0));
        let (hidden, heads) = (from.model().hidden, c.heads / tp);
        let (gemm, kv) = (from.formats().attention_gemm, from.formats().kv);
        let whole = |s: &Source, decode| compressed_block(s, hidden, &c, heads, [gemm, kv], decode);
        let part = |s: &Source, decode| by_roofline(compressed_kernel(&s.device, &c, f64::from(heads), kv, decode));
        let pair = |dtype, n, k| -> Result<[Arc<Surface>; 2]> {
            Ok([from.gemm(false, dtype, n, k)?, from.gemm(true, dtype, n, k)?])
        };
        Kernels::new(from, &own, tp, &whole, &part)?.rank(cp, || {
            // Groups of heads share the first half of the way out; a rank has whole groups, or a part of one.
            let groups = (c.o_groups / tp).max(1);
            let mut inward =
                vec![pair(gemm, c.q_lora + c.head_dim, hidden)?, pair(gemm, heads * c.head_dim, c.q_lora)?];
            if c.ratio > 0 {
                inward.push(pair(Dtype::Bf16, c.compressor_columns() as u32, hidden)?);
            }
            if c.topk > 0 {
                inward.push(pair(gemm, c.index_heads * c.index_dim, c.q_lora)?);
            }
            let outward = vec![
                pair(gemm, groups * c.o_lora, heads * c.head_dim / groups)?,
                pair(gemm, hidden, groups * c.o_lora)?,
            ];
            let memory = [from.memory(false), from.memory(true)];
            // Norm, rotary and cache write of queries and of the row (BF16).
            Ok(Projections { inward, outward, memory, rope_bytes: f64::from(heads * c.head_dim + c.head_dim) * 4.0 })
        })
    }
}
