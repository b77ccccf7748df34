//! Softmax attention as a mixer: GQA, with a sliding window or without, MLA and DSA.
//!
//! GQA is priced operator by operator; MLA and DSA as the whole measured block. Layers with a window have kernels of
//! their own. Weights and KV of a layer: `spec::memory`.

use std::sync::Arc;

use super::ledger::Op;
use super::program::{Mixer, MixerRank, State, Surfaces};
use super::published;
use crate::error::Result;
use crate::kernels::{Evidence, Reading, Surface};
use crate::spec::assumptions::AttentionElementwise;
use crate::spec::{Attention, Dtype, Model, Quant};

/// Softmax attention of one kind of layer.
#[derive(Clone, Debug)]
pub struct Softmax {
    attention: Attention,
    /// Tokens that a layer sees; 0: all.
    window: u32,
}

impl Softmax {
    /// `slides`: whether this is the kind with the model's window.
    pub fn new(attention: &Attention, slides: bool) -> Softmax {
        let window = match attention {
            Attention::Gqa { window: Some(w), .. } if slides => w.tokens,
            _ => 0,
        };
        Softmax { attention: attention.clone(), window }
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
        model.attention_weight_bytes_per_rank(quant, tp)
    }

    fn on_rank(&self, from: &dyn Surfaces, tp: u32, cp: u32) -> Result<Arc<dyn MixerRank>> {
        let projections = match &self.attention {
            Attention::Gqa { heads, kv_heads, head_dim, .. } => {
                let width = (heads / tp + 2 * (kv_heads / tp).max(1)) * head_dim;
                let inner = heads / tp * head_dim;
                let gemm = |decode, n, k| from.gemm(decode, from.formats().attention_gemm, n, k);
                let pair = |n, k| -> Result<[Arc<Surface>; 2]> { Ok([gemm(false, n, k)?, gemm(true, n, k)?]) };
                Some(Projections {
                    qkv: pair(width, from.model().hidden)?,
                    out: pair(from.model().hidden, inner)?,
                    memory: [from.memory(false), from.memory(true)],
                    rope_bytes: f64::from(width) * 4.0,
                    launches: (from.assumptions().attention_elementwise == AttentionElementwise::Launches)
                        .then(|| published::attention_launches(from.model())),
                })
            }
            Attention::Mla { .. } => None,
        };
        Ok(Arc::new(SoftmaxRank {
            projections,
            decode: from.generation(tp, self.window)?,
            prefill: from.context(tp, self.window)?,
            window: f64::from(self.window),
            cp: f64::from(cp),
        }))
    }
}

/// Separate projections (GQA only).
struct Projections {
    qkv: [Arc<Surface>; 2],
    out: [Arc<Surface>; 2],
    /// Elementwise work, [prefill, decode].
    memory: [Surface; 2],
    /// Bytes per token of q, k and v, read and written once by rope and the cache write.
    rope_bytes: f64,
    /// Seconds of a prefill layer in place of those bytes, where the assumptions have it so.
    launches: Option<f64>,
}

struct SoftmaxRank {
    projections: Option<Projections>,
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
        match p.launches {
            None => take(Op::Qkv, p.memory[mode].at(&[tokens * p.rope_bytes])),
            Some(seconds) if prefill => take(Op::Qkv, Reading { seconds, evidence: Evidence::Roofline }),
            Some(_) => {}
        }
    }

    fn after(&self, tokens: f64, prefill: bool, take: &mut dyn FnMut(Op, Reading)) {
        if let Some(p) = &self.projections {
            take(Op::AttentionOut, p.out[usize::from(!prefill)].at(&[tokens]));
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
