//! What a model is made of: the facts a layer program needs, nothing about time.
//!
//! Limit: one decoder; adapters, towers for pictures and draft models of their own are not described.

use serde::{Deserialize, Serialize};

use crate::error::Problems;

use super::attention::{Attention, zero};
use super::dtype::{Dtype, Quant};
use super::expert_load::ExpertLoad;
use super::json::json_methods;
use super::layer_mixer::LayerMixer;
use super::limits::{Check, nearest_divisors};
use super::matrix::MatrixPart;
use super::record::record;

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
    /// Width that tokens are brought to before the experts, where it is not the model's (latent experts); 0: the model's.
    #[serde(default, skip_serializing_if = "zero")]
    pub latent: u32,
    /// Load of the experts in the kernel rows to use (`power_law_1.01`, `power_law_1.2`, `balanced`).
    pub distribution: ExpertLoad,
}

/// The format of a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PartFormat {
    pub part: MatrixPart,
    pub format: Dtype,
}

/// Most combinations of mixers that a layer program tells apart (`cost::program::MOST_MIXERS`).
const MOST_KINDS: usize = 4;

/// Kimi-K2's and MXFP4's.
pub const USUAL_GROUP: u32 = 32;

fn usual_group(group: &u32) -> bool {
    *group == USUAL_GROUP
}

fn is_one(n: &u32) -> bool {
    *n == 1
}

fn is_true(flag: &bool) -> bool {
    *flag
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
        /// Layers that have a dense FFN: the first ones where `expert_layers` is empty (all of them when `moe` is None).
        pub dense_layers: u32,
        /// Intermediate size of the dense FFN; 0: none.
        pub dense_intermediate: u32,
        /// Sizes of the expert layers; None: a dense model.
        pub moe: Option<Moe> = None,
        /// For each layer, whether it has experts; empty: all after the first `dense_layers`.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        pub expert_layers: Vec<bool> = Vec::new(),
        /// Whether FFNs and experts have a gate: three matrices, else two.
        #[serde(skip_serializing_if = "is_true")]
        pub gated: bool = true,
        /// What mixes the tokens of layers without `attention`.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        pub mixers: Vec<LayerMixer> = Vec::new(),
        /// For each layer its mixers, one after the other: 0 is `attention`, 1 the first of `mixers`; empty: all 0.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        pub layer_mixers: Vec<Vec<u32>> = Vec::new(),
        /// Residual streams that hyper-connections mix before and after each block; 1: the plain residual.
        #[serde(skip_serializing_if = "is_one")]
        pub streams: u32 = 1,
        /// Layers whose sum attention over residuals reads back as one row (Kimi-K3); 0: none.
        #[serde(skip_serializing_if = "zero")]
        pub residual_block: u32 = 0,
        /// Whether embedding and head share their weights.
        pub tied_embeddings: bool,
        /// Multi-token-prediction layers in the checkpoint.
        pub mtp_layers: u32,
        /// Number formats of the checkpoint; every field is set.
        pub quant: Quant,
        /// Parts that the checkpoint leaves in BF16, whatever ``quant.gemm`` says; ``latent_norms``: its list names norms,
        /// which are so anyhow.
        pub bf16_parts: Vec<MatrixPart> = Vec::new(),
        /// Parts that the checkpoint has in a format of their own.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        pub part_formats: Vec<PartFormat> = Vec::new(),
        /// 4-bit integers that share a scale.
        #[serde(skip_serializing_if = "usual_group")]
        pub int4_group: u32 = 32,
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
        c.problems.nest("attention", self.attention.check());
        if let Attention::Gqa { window: Some(w), .. } = &self.attention
            && w.layers.len() != self.layers as usize
        {
            let message = format!("has {} entries for {} layers", w.layers.len(), self.layers);
            c.wrong("attention.window.layers", message, "");
        }
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
                c.count("moe.latent", moe.latent, 0, 1_000_000);
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
        self.check_layers(&mut c);
        c.count("int4_group", self.int4_group, 1, 1_000_000);
        c.count("streams", self.streams, 1, 64);
        c.count("residual_block", self.residual_block, 0, self.layers.max(1));
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

    /// Which layers have which mixer and FFN.
    fn check_layers(&self, c: &mut Check) {
        let layers = self.layers as usize;
        if !self.expert_layers.is_empty() {
            let dense = self.expert_layers.iter().filter(|e| !**e).count();
            if self.expert_layers.len() != layers {
                let message = format!("has {} entries for {layers} layers", self.expert_layers.len());
                c.wrong("expert_layers", message, "");
            } else if dense != self.dense_layers as usize {
                let message = format!("leaves {dense} layers without experts, dense_layers is {}", self.dense_layers);
                c.wrong("expert_layers", message, "");
            }
            if self.moe.is_none() {
                c.wrong("expert_layers", "is given, moe is none", "");
            }
        }
        for (i, mixer) in self.mixers.iter().enumerate() {
            c.problems.nest(&format!("mixers[{i}]"), mixer.check());
        }
        if self.layer_mixers.is_empty() {
            return;
        }
        if self.layer_mixers.len() != layers {
            let message = format!("has {} entries for {layers} layers", self.layer_mixers.len());
            c.wrong("layer_mixers", message, "");
        }
        let mut kinds: Vec<&[u32]> = self.layer_mixers.iter().map(Vec::as_slice).chain([&[0][..]]).collect();
        kinds.sort_unstable();
        kinds.dedup();
        if kinds.len() > MOST_KINDS {
            let message = format!("has {} combinations of mixers, the plain one among them", kinds.len());
            c.wrong("layer_mixers", message, format!("at most {MOST_KINDS}"));
        }
        let all = self.mixers.len() as u32;
        for (i, layer) in self.layer_mixers.iter().enumerate() {
            if layer.is_empty() {
                c.wrong(&format!("layer_mixers[{i}]"), "is empty: a layer mixes its tokens", "");
            } else if let Some(m) = layer.iter().find(|m| **m > all) {
                c.wrong(&format!("layer_mixers[{i}]"), format!("names mixer {m} of {all}"), "0 is attention");
            }
        }
    }
}
