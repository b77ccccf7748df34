//! Attention of a model and the parts of its layers: sizes, nothing about time.
//!
//! Limit: causal softmax attention; cross-attention and encoders are not described.

use serde::{Deserialize, Deserializer, Serialize};

use super::dtype::Dtype;
use super::json;
use super::limits::{Check, nearest_divisors};
use super::mixers::OwnMixer;
use crate::error::Problems;

/// Sliding-window layers of an otherwise full-attention model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SlidingWindow {
    /// Tokens that a sliding layer sees.
    pub tokens: u32,
    /// For each layer, whether it slides; as long as the model has layers.
    pub layers: Vec<bool>,
}

/// The lightning indexer of DeepSeek sparse attention (DSA).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Indexer {
    pub heads: u32,
    pub head_dim: u32,
    /// Tokens that each query attends to.
    pub topk: u32,
    /// Whether it is another layer's, whose picks are taken: no weights and no keys of its own.
    #[serde(default, skip_serializing_if = "is_false")]
    pub shared: bool,
    /// Tokens that one index key stands for (GLM-5.3-Flash pools them); 0: one.
    #[serde(default, skip_serializing_if = "zero")]
    pub pool: u32,
}

impl Indexer {
    /// Index keys of a token.
    pub(crate) fn keys(&self) -> f64 {
        1.0 / f64::from(self.pool.max(1))
    }
}

fn is_false(flag: &bool) -> bool {
    !flag
}

/// What multiplies the output of attention before its last projection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OutputGate {
    #[default]
    None,
    /// One value a head (Step-3.5).
    Head,
    /// One value for each of a head's (Qwen3-Next).
    Element,
}

/// What sets grouped-query attention apart from the plain one; all zero: nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Shape {
    /// Width of a value head; 0: that of a key head.
    #[serde(skip_serializing_if = "zero")]
    pub v_dim: u32,
    /// Columns that queries go through on their way (Step-3); 0: straight.
    #[serde(skip_serializing_if = "zero")]
    pub q_rank: u32,
    #[serde(skip_serializing_if = "no_gate")]
    pub gate: OutputGate,
    /// Whether values are keys before they are normed: one projection, two rows kept (Gemma-4).
    #[serde(skip_serializing_if = "is_false")]
    pub shared_kv: bool,
}

pub(super) fn zero(n: &u32) -> bool {
    *n == 0
}

fn no_gate(gate: &OutputGate) -> bool {
    *gate == OutputGate::None
}

/// Attention of all layers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Attention {
    /// Grouped-query attention.
    Gqa {
        heads: u32,
        kv_heads: u32,
        head_dim: u32,
        window: Option<SlidingWindow>,
        #[serde(flatten)]
        shape: Shape,
    },
    /// Multi-head latent attention; with an indexer it is DSA.
    Mla {
        heads: u32,
        /// 0: no query compression.
        q_lora: u32,
        kv_lora: u32,
        nope: u32,
        rope: u32,
        v: u32,
        indexer: Option<Indexer>,
        /// Whether each value of the output has a gate (Kimi-K3).
        #[serde(skip_serializing_if = "is_false")]
        gate: bool,
    },
    /// A kind of mixer with facts of its own.
    #[serde(untagged)]
    Own(OwnMixer),
}

impl<'de> Deserialize<'de> for Attention {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Gqa {
            heads: u32,
            kv_heads: u32,
            head_dim: u32,
            #[serde(default)]
            window: Option<SlidingWindow>,
            #[serde(default)]
            v_dim: u32,
            #[serde(default)]
            q_rank: u32,
            #[serde(default)]
            gate: OutputGate,
            #[serde(default)]
            shared_kv: bool,
        }
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Mla {
            heads: u32,
            q_lora: u32,
            kv_lora: u32,
            nope: u32,
            rope: u32,
            v: u32,
            #[serde(default)]
            indexer: Option<Indexer>,
            #[serde(default)]
            gate: bool,
        }
        let known: Vec<&str> = ["gqa", "mla"].iter().chain(OwnMixer::KINDS).copied().collect();
        let (kind, inside) = json::tagged(deserializer, &known)?;
        Ok(if kind == "gqa" {
            let Gqa { heads, kv_heads, head_dim, window, v_dim, q_rank, gate, shared_kv } = json::inside(inside)?;
            Attention::Gqa { heads, kv_heads, head_dim, window, shape: Shape { v_dim, q_rank, gate, shared_kv } }
        } else if kind == "mla" {
            let Mla { heads, q_lora, kv_lora, nope, rope, v, indexer, gate } = json::inside(inside)?;
            Attention::Mla { heads, q_lora, kv_lora, nope, rope, v, indexer, gate }
        } else {
            Attention::Own(OwnMixer::of(&kind, inside)?)
        })
    }
}

/// Bytes of one token's share of an indexer key: FP8 values and an FP32 scale per 128 of them.
fn indexer_row(i: &Indexer) -> f64 {
    if i.shared { 0.0 } else { i.keys() * (f64::from(i.head_dim) + 4.0 * f64::from(i.head_dim.div_ceil(128))) }
}

impl Attention {
    pub fn heads(&self) -> u32 {
        match self {
            Attention::Gqa { heads, .. } | Attention::Mla { heads, .. } => *heads,
            Attention::Own(own) => own.facts().heads().0,
        }
    }

    /// Width of a value head (of the latent's, for MLA; 0: of a kind of its own).
    pub(crate) fn value_dim(&self) -> u32 {
        match self {
            Attention::Gqa { head_dim, shape, .. } if shape.v_dim == 0 => *head_dim,
            Attention::Gqa { shape, .. } => shape.v_dim,
            Attention::Mla { v, .. } => *v,
            Attention::Own(_) => 0,
        }
    }

    /// KV bytes of one token in one layer, on all ranks that share the heads.
    pub fn kv_bytes_per_token(&self, kv: Dtype) -> f64 {
        match self {
            Attention::Gqa { kv_heads, head_dim, .. } => {
                (f64::from(*head_dim) + f64::from(self.value_dim())) * f64::from(*kv_heads) * kv.kv_bytes()
            }
            Attention::Mla { kv_lora, rope, indexer, .. } => {
                let (lora, rope) = (f64::from(*kv_lora), f64::from(*rope));
                let eight_bit = matches!(kv, Dtype::Fp8 | Dtype::Fp8Block);
                match indexer {
                    // The sparse kernels keep RoPE in BF16 and an FP32 scale per 128 latent values.
                    Some(i) if eight_bit => lora + 4.0 * (lora / 128.0).ceil() + 2.0 * rope + indexer_row(i),
                    Some(i) => (lora + rope) * kv.kv_bytes() + indexer_row(i),
                    None => (lora + rope) * kv.kv_bytes(),
                }
            }
            Attention::Own(own) => own.facts().kv_bytes_per_token(kv),
        }
    }

    /// Bytes that a layer keeps of a sequence whatever its length.
    pub(crate) fn state_bytes(&self, kv: Dtype) -> f64 {
        match self {
            Attention::Gqa { .. } | Attention::Mla { .. } => 0.0,
            Attention::Own(own) => own.facts().state_bytes(kv),
        }
    }

    /// Parameters beside the weight matrices; in BF16 whatever the format.
    pub(super) fn small(&self, hidden: u32) -> f64 {
        match self {
            Attention::Gqa { .. } | Attention::Mla { .. } => 0.0,
            Attention::Own(own) => own.facts().small(hidden),
        }
    }

    /// In how many pieces attention TP cuts the KV of a token (MLA: each rank keeps all of it).
    pub fn kv_shards(&self, tp: u32) -> u32 {
        match self {
            Attention::Gqa { kv_heads, .. } => tp.clamp(1, (*kv_heads).max(1)),
            Attention::Mla { .. } => 1,
            Attention::Own(own) => own.facts().shards(tp),
        }
    }

    /// Everything that is wrong with these sizes; paths are relative to it.
    pub(super) fn check(&self) -> Problems {
        const HEAD: u32 = 65_536;
        let mut c = Check::new();
        match self {
            Attention::Gqa { heads, kv_heads, head_dim, window, shape } => {
                c.count("heads", *heads, 1, HEAD);
                c.count("head_dim", *head_dim, 1, HEAD);
                if c.count("kv_heads", *kv_heads, 1, HEAD) && heads % kv_heads != 0 {
                    let message = format!("{kv_heads} does not divide {heads} attention heads");
                    c.wrong("kv_heads", message, nearest_divisors(*kv_heads, *heads));
                }
                if let Some(w) = window {
                    c.count("window.tokens", w.tokens, 1, 1_000_000_000);
                }
                c.count("v_dim", shape.v_dim, 0, HEAD);
                c.count("q_rank", shape.q_rank, 0, 1_000_000);
            }
            Attention::Mla { heads, q_lora, kv_lora, nope, rope, v, indexer, .. } => {
                c.count("heads", *heads, 1, HEAD);
                c.count("q_lora", *q_lora, 0, HEAD);
                c.count("kv_lora", *kv_lora, 1, HEAD);
                c.count("nope", *nope, 1, HEAD);
                c.count("rope", *rope, 0, HEAD);
                c.count("v", *v, 1, HEAD);
                if let Some(i) = indexer {
                    c.count("indexer.heads", i.heads, 1, HEAD);
                    c.count("indexer.head_dim", i.head_dim, 1, HEAD);
                    c.count("indexer.topk", i.topk, 1, 100_000_000);
                }
            }
            Attention::Own(own) => return own.check(),
        }
        c.problems
    }

    /// Plain grouped-query attention.
    pub(crate) fn gqa(heads: u32, kv_heads: u32, head_dim: u32, window: Option<SlidingWindow>) -> Attention {
        Attention::Gqa { heads, kv_heads, head_dim, window, shape: Shape::default() }
    }
}
