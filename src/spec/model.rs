//! What a model is made of: the facts a layer program needs, nothing about time.

use serde::{Deserialize, Serialize};

use super::dtype::Quant;

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
}

/// Attention of all layers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Attention {
    /// Grouped-query attention.
    Gqa { heads: u32, kv_heads: u32, head_dim: u32, window: Option<SlidingWindow> },
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
    },
}

impl Attention {
    pub fn heads(&self) -> u32 {
        match self {
            Attention::Gqa { heads, .. } | Attention::Mla { heads, .. } => *heads,
        }
    }
}

/// Routed (and shared) experts of the MoE layers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Moe {
    pub experts: u32,
    pub topk: u32,
    /// Intermediate size of one routed expert.
    pub intermediate: u32,
    /// Intermediate size of all shared experts together; 0: none.
    pub shared_intermediate: u32,
    /// Group-limited routing: number of groups and how many of them a token may reach (1, 1: none).
    pub groups: u32,
    pub topk_groups: u32,
    /// Load distribution of the kernel rows to use (`power_law_1.01`, `power_law_1.2`, `balanced`).
    pub distribution: String,
}

/// A language model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Model {
    pub name: String,
    /// Where the facts come from.
    pub source: String,
    /// HF architecture (`DeepseekV32ForCausalLM`), a key of the module tables.
    pub architecture: String,
    pub layers: u32,
    pub hidden: u32,
    pub vocab: u32,
    pub max_context: u32,
    pub attention: Attention,
    /// The first layers that have a dense FFN (all of them when `moe` is none).
    pub dense_layers: u32,
    /// Intermediate size of the dense FFN; 0 when there is none.
    pub dense_intermediate: u32,
    pub moe: Option<Moe>,
    pub tied_embeddings: bool,
    /// Multi-token-prediction layers in the checkpoint.
    pub mtp_layers: u32,
    /// Formats of the checkpoint; every field is set.
    pub quant: Quant,
}
