//! What a model is made of: the facts a layer program needs, nothing about time.

use serde::{Deserialize, Deserializer, Serialize};

use crate::error::Problems;

use super::dtype::Quant;
use super::expert_load::ExpertLoad;
use super::json::{self, json_methods};
use super::limits::{Check, nearest_divisors};
use super::record::{choices, record};

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
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
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
        }
        let (kind, inside) = json::tagged(deserializer, &["gqa", "mla"])?;
        Ok(if kind == "gqa" {
            let Gqa { heads, kv_heads, head_dim, window } = json::inside(inside)?;
            Attention::Gqa { heads, kv_heads, head_dim, window }
        } else {
            let Mla { heads, q_lora, kv_lora, nope, rope, v, indexer } = json::inside(inside)?;
            Attention::Mla { heads, q_lora, kv_lora, nope, rope, v, indexer }
        })
    }
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
    /// Load of the experts in the kernel rows to use (`power_law_1.01`, `power_law_1.2`, `balanced`).
    pub distribution: ExpertLoad,
}

choices! {
    /// A part of the model that a quantised checkpoint may leave in BF16.
    #[derive(PartialOrd, Ord)]
    Part {
        /// Query projection of GQA, or of MLA without query compression.
        Q = "q",
        /// Key and value projections of GQA.
        Kv = "kv",
        QA = "q_a",
        QB = "q_b",
        KvA = "kv_a",
        KvB = "kv_b",
        O = "o",
        Indexer = "indexer",
        SharedExpert = "shared_expert",
        DenseFfn = "dense_ffn",
        /// Layer norms of the latents, which no checkpoint quantises: no format follows from their being listed
        /// (but see the switch `listed_norms`).
        LatentNorms = "latent_norms",
    }
}

record! {
    /// A language model.
    pub struct Model as model {
        /// What it is called.
        pub name: String,
        /// Where the facts come from.
        pub source: String,
        /// Hugging Face architecture (``DeepseekV32ForCausalLM``), a key of the module tables.
        pub architecture: String,
        /// Decoder layers.
        pub layers: u32,
        /// Hidden size.
        pub hidden: u32,
        /// Vocabulary size.
        pub vocab: u32,
        /// Longest context, tokens.
        pub max_context: u32,
        /// Kind and sizes of the attention.
        pub attention: Attention,
        /// First layers that have a dense FFN (all of them when `moe` is None).
        pub dense_layers: u32,
        /// Intermediate size of the dense FFN; 0: none.
        pub dense_intermediate: u32,
        /// Sizes of the expert layers; None: a dense model.
        pub moe: Option<Moe> = None,
        /// Whether embedding and head share their weights.
        pub tied_embeddings: bool,
        /// Multi-token-prediction layers in the checkpoint.
        pub mtp_layers: u32,
        /// Number formats of the checkpoint; every field is set.
        pub quant: Quant,
        /// Parts that the checkpoint leaves in BF16, whatever ``quant.gemm`` says; ``latent_norms``: its list names norms,
        /// which are so anyhow.
        pub bf16_parts: Vec<Part> = Vec::new(),
    }
}

json_methods!(Model => "model");

impl Model {
    /// Everything that is wrong with these facts; paths are relative to it.
    pub fn check(&self) -> Problems {
        let mut c = Check::new();
        if self.name.is_empty() {
            c.wrong("name", "is empty", "");
        }
        c.count("layers", self.layers, 1, 10_000);
        c.count("hidden", self.hidden, 1, 1_000_000);
        c.count("vocab", self.vocab, 1, 100_000_000);
        c.count("max_context", self.max_context, 1, 1_000_000_000);
        c.count("mtp_layers", self.mtp_layers, 0, 1000);
        self.check_attention(&mut c);
        match &self.moe {
            Some(moe) => {
                c.count("moe.experts", moe.experts, 1, 65_536);
                if c.count("moe.topk", moe.topk, 1, 65_536) && moe.topk > moe.experts {
                    c.wrong("moe.topk", format!("{} exceeds {} experts", moe.topk, moe.experts), "");
                }
                c.count("moe.intermediate", moe.intermediate, 1, 10_000_000);
                c.count("moe.shared_intermediate", moe.shared_intermediate, 0, 10_000_000);
                let grouped = c.count("moe.groups", moe.groups, 1, 65_536);
                if grouped && moe.experts % moe.groups != 0 {
                    let message = format!("{} does not divide {} experts", moe.groups, moe.experts);
                    c.wrong("moe.groups", message, nearest_divisors(moe.groups, moe.experts));
                }
                c.count("moe.topk_groups", moe.topk_groups, 1, moe.groups.max(1));
                c.count("dense_layers", self.dense_layers, 0, self.layers);
                c.count("dense_intermediate", self.dense_intermediate, u32::from(self.dense_layers > 0), 10_000_000);
            }
            None => {
                if self.dense_layers != self.layers {
                    c.wrong("dense_layers", format!("must be all {} layers when moe is none", self.layers), "");
                }
                c.count("dense_intermediate", self.dense_intermediate, 1, 10_000_000);
            }
        }
        let q = &self.quant;
        for (field, set) in [
            ("gemm", q.gemm.is_some()),
            ("moe", q.moe.is_some()),
            ("attention", q.attention.is_some()),
            ("kv", q.kv.is_some()),
            ("comm", q.comm.is_some()),
        ] {
            if !set {
                c.wrong(&format!("quant.{field}"), "must be set: it is the checkpoint's own format", "");
            }
        }
        let mut problems = c.problems;
        problems.nest("quant", q.check());
        problems
    }

    fn check_attention(&self, c: &mut Check) {
        const HEAD: u32 = 65_536;
        match &self.attention {
            Attention::Gqa { heads, kv_heads, head_dim, window } => {
                c.count("attention.heads", *heads, 1, HEAD);
                c.count("attention.head_dim", *head_dim, 1, HEAD);
                if c.count("attention.kv_heads", *kv_heads, 1, HEAD) && heads % kv_heads != 0 {
                    let message = format!("{kv_heads} does not divide {heads} attention heads");
                    c.wrong("attention.kv_heads", message, nearest_divisors(*kv_heads, *heads));
                }
                if let Some(w) = window {
                    c.count("attention.window.tokens", w.tokens, 1, 1_000_000_000);
                    if w.layers.len() != self.layers as usize {
                        let message = format!("has {} entries for {} layers", w.layers.len(), self.layers);
                        c.wrong("attention.window.layers", message, "");
                    }
                }
            }
            Attention::Mla { heads, q_lora, kv_lora, nope, rope, v, indexer } => {
                c.count("attention.heads", *heads, 1, HEAD);
                c.count("attention.q_lora", *q_lora, 0, HEAD);
                c.count("attention.kv_lora", *kv_lora, 1, HEAD);
                c.count("attention.nope", *nope, 1, HEAD);
                c.count("attention.rope", *rope, 1, HEAD);
                c.count("attention.v", *v, 1, HEAD);
                if let Some(i) = indexer {
                    c.count("attention.indexer.heads", i.heads, 1, HEAD);
                    c.count("attention.indexer.head_dim", i.head_dim, 1, HEAD);
                    c.count("attention.indexer.topk", i.topk, 1, 100_000_000);
                }
            }
        }
    }
}
