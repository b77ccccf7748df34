//! Softmax attention as a mixer: GQA, with a sliding window or without, MLA and DSA.
//!
//! GQA is priced operator by operator; MLA and DSA as the whole measured block. Layers with a window have kernels of
//! their own. Weights and KV of a layer: `spec::memory`.
//!
//! Limit: causal attention only; what a window saves is counted, sinks and learned biases cost nothing.

use std::sync::Arc;

use super::ledger::Op;
use super::program::{Heads, Mixer, MixerRank, State, Surfaces};
use super::published;
use crate::error::{Error, Result};
use crate::kernels::{Evidence, Reading, Surface};
use crate::spec::assumptions::AttentionElementwise;
use crate::spec::{Attention, Dtype, Model, OutputGate, Quant};

/// Softmax attention of one kind of layer.
#[derive(Clone, Debug)]
pub struct Softmax {
    attention: Attention,
    /// Tokens that a layer sees; 0: all.
    window: u32,
    /// Whether this is the model's attention, whose kernels the library makes.
    own: bool,
}

impl Softmax {
    /// Grouped-query attention of another shape than the model's; `window` 0: it sees all tokens.
    pub(crate) fn other(attention: &Attention, window: u32) -> Softmax {
        Softmax { attention: attention.clone(), window, own: false }
    }

    /// `slides`: whether this is the kind with the model's window.
    pub fn new(attention: &Attention, slides: bool) -> Softmax {
        let window = match attention {
            Attention::Gqa { window: Some(w), .. } if slides => w.tokens,
            _ => 0,
        };
        Softmax { attention: attention.clone(), window, own: true }
    }
}

impl Mixer for Softmax {
    fn name(&self) -> &'static str {
        if self.window > 0 { "sliding attention" } else { "attention" }
    }

    fn state(&self, kv: Dtype) -> State {
        let window = if self.window > 0 { f64::from(self.window) } else { f64::INFINITY };
        State { per_token: self.attention.kv_bytes_per_token(kv), window, per_sequence: 0.0 }
    }

    fn shards(&self, tp: u32) -> u32 {
        self.attention.kv_shards(tp)
    }

    fn weight_bytes(&self, model: &Model, quant: &Quant, tp: u32) -> f64 {
        model.block_weight_bytes_per_rank(&self.attention, quant, tp)
    }

    fn on_rank(&self, from: &dyn Surfaces, tp: u32, cp: u32) -> Result<Arc<dyn MixerRank>> {
        let (mut decode, mut prefill, mut gate) = (None, None, None);
        let projections = match &self.attention {
            Attention::Gqa { heads, kv_heads, head_dim, shape, .. } => {
                let (heads, kv_heads) = (heads / tp, (kv_heads / tp).max(1));
                let v_dim = self.attention.value_dim();
                let gate = match shape.gate {
                    OutputGate::None => 0,
                    OutputGate::Head => heads,
                    OutputGate::Element => heads * v_dim,
                };
                let queries = heads * head_dim + gate;
                let kv = kv_heads * (head_dim + v_dim);
                let kv_columns = if shape.shared_kv { kv_heads * head_dim } else { kv };
                let inner = heads * v_dim;
                if !self.own || v_dim != *head_dim {
                    // Bytes and products hang on the mean width of keys and values.
                    let h = Heads { heads, kv_heads, head_dim: (head_dim + v_dim) / 2, window: self.window };
                    (decode, prefill) = (Some(from.decode_heads(h)?), Some(from.prompt_heads(h)?));
                }
                let gemm = |decode, n, k| from.gemm(decode, from.formats().attention_gemm, n, k);
                let pair = |n, k| -> Result<[Arc<Surface>; 2]> { Ok([gemm(false, n, k)?, gemm(true, n, k)?]) };
                let hidden = from.model().hidden;
                let (first, rank) = match shape.q_rank {
                    0 => (queries + kv_columns, None),
                    rank => (rank + kv_columns, Some(pair(queries, rank)?)),
                };
                Some(Projections {
                    qkv: pair(first, hidden)?,
                    rank,
                    out: pair(hidden, inner)?,
                    memory: [from.memory(false), from.memory(true)],
                    rope_bytes: f64::from(heads * head_dim + kv) * 4.0,
                    // The output and its gate in, the product out (BF16).
                    gate_bytes: if gate > 0 { f64::from(2 * inner + gate) * 2.0 } else { 0.0 },
                    launches: (from.assumptions().attention_elementwise == AttentionElementwise::Launches)
                        .then(|| published::attention_launches(from.model())),
                })
            }
            Attention::Mla { heads, v, gate: gated, .. } => {
                if *gated {
                    let (inner, hidden) = (heads / tp * v, from.model().hidden);
                    let gemm = |decode| from.gemm(decode, from.formats().attention_gemm, inner, hidden);
                    gate = Some(Gate {
                        gemm: [gemm(false)?, gemm(true)?],
                        memory: [from.memory(false), from.memory(true)],
                        // The output and its gate in, the product out (BF16).
                        bytes: f64::from(3 * inner) * 2.0,
                    });
                }
                if !self.own {
                    decode = Some(from.latent_block(&self.attention, tp, true)?);
                    prefill = Some(from.latent_block(&self.attention, tp, false)?);
                }
                None
            }
            Attention::Own(own) => {
                return Err(Error::spec("model.mixers", format!("{} has kernels of its own", own.name()), ""));
            }
        };
        Ok(Arc::new(SoftmaxRank {
            projections,
            gate,
            decode: decode.map_or_else(|| from.generation(tp, self.window), Ok)?,
            prefill: prefill.map_or_else(|| from.context(tp, self.window), Ok)?,
            window: f64::from(self.window),
            cp: f64::from(cp),
        }))
    }
}

/// Separate projections (GQA only).
struct Projections {
    qkv: [Arc<Surface>; 2],
    /// Queries go through fewer columns first.
    rank: Option<[Arc<Surface>; 2]>,
    out: [Arc<Surface>; 2],
    /// Elementwise work, [prefill, decode].
    memory: [Surface; 2],
    /// Bytes per token of q, k and v, read and written once by rope and the cache write.
    rope_bytes: f64,
    /// Bytes per token where the output has a gate.
    gate_bytes: f64,
    /// Seconds of a prefill layer in place of those bytes, where the assumptions have it so.
    launches: Option<f64>,
}

/// The output gate of latent attention, beside its block.
struct Gate {
    gemm: [Arc<Surface>; 2],
    memory: [Surface; 2],
    /// Bytes of each token.
    bytes: f64,
}

struct SoftmaxRank {
    projections: Option<Projections>,
    gate: Option<Gate>,
    decode: Arc<Surface>,
    prefill: Arc<Surface>,
    /// Tokens a sliding layer sees; 0: all.
    window: f64,
    cp: f64,
}

impl MixerRank for SoftmaxRank {
    fn before(&self, tokens: f64, prefill: bool, take: &mut dyn FnMut(Op, Reading)) {
        let Some(p) = &self.projections else { return };
        let mode = usize::from(!prefill);
        take(Op::Qkv, p.qkv[mode].at(&[tokens]));
        if let Some(rank) = &p.rank {
            take(Op::Qkv, rank[mode].at(&[tokens]));
        }
        match p.launches {
            None => take(Op::Qkv, p.memory[mode].at(&[tokens * p.rope_bytes])),
            Some(seconds) if prefill => take(Op::Qkv, Reading { seconds, evidence: Evidence::Roofline }),
            Some(_) => {}
        }
    }

    fn after(&self, tokens: f64, prefill: bool, take: &mut dyn FnMut(Op, Reading)) {
        if let Some(p) = &self.projections {
            let mode = usize::from(!prefill);
            if p.gate_bytes > 0.0 {
                take(Op::AttentionOut, p.memory[mode].at(&[tokens * p.gate_bytes]));
            }
            take(Op::AttentionOut, p.out[mode].at(&[tokens]));
        }
        if let Some(gate) = &self.gate {
            let mode = usize::from(!prefill);
            take(Op::AttentionOut, gate.gemm[mode].at(&[tokens]));
            take(Op::AttentionOut, gate.memory[mode].at(&[tokens * gate.bytes]));
        }
    }

    fn decode(&self, rows: f64, context: f64) -> Reading {
        let context = if self.window > 0.0 { context.min(self.window) } else { context };
        self.decode.at(&[rows, context.max(1.0)])
    }

    fn prompt(&self, sequences: f64, new: f64, past: f64) -> Reading {
        let own = new / self.cp;
        let mut past = past + (new - own) / 2.0;
        if self.window > 0.0 {
            past = past.min(self.window);
        }
        self.prefill.at(&[sequences, own, past])
    }

    fn measured(&self) -> [bool; 2] {
        [self.prefill.is_measured(), self.decode.is_measured()]
    }
}
