//! Compressed attention as a mixer (`spec::mixers::compressed`): projections of rows by the dense GEMM tables, the kernels
//! by roofline.
//!
//! ```text
//! pairs of a query      min(c, window) + min(c / ratio, topk), every head against rows of head_dim
//! index                 c / ratio keys of index_dim, all heads of the indexer, on every rank
//! ```
//!
//! How low the roofline lies: whole blocks of DeepSeek-V4-Flash on one B200 by these formulas, over the rows of the wheel
//! `aisimulate` 0.13.0.dev202610270000000085 (SGLang 0.5.14, TensorRT-LLM 1.3.0rc23, vLLM 0.24.0), in the median 0.46 to 0.58
//! for decode and 0.32 to 0.49 for prefill. Those rows are not packed. Limits: a query is charged the whole window however short its sequence; decode reads the window's rows once a sequence.

use std::sync::Arc;

use crate::cost::ledger::Op;
use crate::cost::program::{Mixer, MixerRank, State, Surfaces};
use crate::error::Result;
use crate::kernels::ops::by_roofline;
use crate::kernels::roofline::{self, Attend, Block, Index, Roofline, Work, kernels};
use crate::kernels::{Reading, Surface};
use crate::spec::mixers::Compressed;
use crate::spec::{Attention, Device, Dtype, Model, OwnMixer, Quant};

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
        let (formats, hidden) = (from.formats(), from.model().hidden);
        let heads = c.heads / tp;
        let pair = |dtype, n, k| -> Result<[Arc<Surface>; 2]> {
            Ok([from.gemm(false, dtype, n, k)?, from.gemm(true, dtype, n, k)?])
        };
        let gemm = formats.attention_gemm;
        // Groups of heads share the first half of the way out; a rank has whole groups, or a part of one.
        let groups = (c.o_groups / tp).max(1);
        let mut inward = vec![pair(gemm, c.q_lora + c.head_dim, hidden)?, pair(gemm, heads * c.head_dim, c.q_lora)?];
        if c.ratio > 0 {
            inward.push(pair(Dtype::Bf16, c.compressor_columns() as u32, hidden)?);
        }
        if c.topk > 0 {
            inward.push(pair(gemm, c.index_heads * c.index_dim, c.q_lora)?);
        }
        let outward =
            vec![pair(gemm, groups * c.o_lora, heads * c.head_dim / groups)?, pair(gemm, hidden, groups * c.o_lora)?];
        let kernel = |decode| {
            let kv = formats.kv;
            from.own(&own, tp, decode, &move |s| Ok(by_roofline(roof(&s.device, &c, f64::from(heads), kv, decode))))
        };
        Ok(Arc::new(Rank {
            inward,
            outward,
            kernels: [kernel(false)?, kernel(true)?],
            memory: [from.memory(false), from.memory(true)],
            // Norm, rotary and cache write of queries and of the row (BF16).
            rope_bytes: f64::from(heads * c.head_dim + c.head_dim) * 4.0,
            cp: f64::from(cp),
        }))
    }
}

fn roof(device: &Device, c: &Compressed, heads: f64, kv: Dtype, decode: bool) -> Roofline {
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

/// Pairs are [prefill, decode].
pub(super) struct Rank {
    pub inward: Vec<[Arc<Surface>; 2]>,
    pub outward: Vec<[Arc<Surface>; 2]>,
    pub kernels: [Arc<Surface>; 2],
    pub memory: [Surface; 2],
    /// Bytes of each token.
    pub rope_bytes: f64,
    pub cp: f64,
}

impl MixerRank for Rank {
    fn before(&self, tokens: f64, prefill: bool, take: &mut dyn FnMut(Op, Reading)) {
        let mode = usize::from(!prefill);
        for gemm in &self.inward {
            take(Op::Qkv, gemm[mode].at(&[tokens]));
        }
        take(Op::Qkv, self.memory[mode].at(&[tokens * self.rope_bytes]));
    }

    fn after(&self, tokens: f64, prefill: bool, take: &mut dyn FnMut(Op, Reading)) {
        for gemm in &self.outward {
            take(Op::AttentionOut, gemm[usize::from(!prefill)].at(&[tokens]));
        }
    }

    fn decode(&self, rows: f64, context: f64) -> Reading {
        self.kernels[1].at(&[rows, context.max(1.0)])
    }

    fn prompt(&self, sequences: f64, new: f64, past: f64) -> Reading {
        let own = new / self.cp;
        self.kernels[0].at(&[sequences, own, past + (new - own) / 2.0])
    }

    fn measured(&self) -> [bool; 2] {
        [self.kernels[0].is_measured(), self.kernels[1].is_measured()]
    }
}
