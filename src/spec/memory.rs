//! Bytes and parameters of a model: weights by what really sits in each layer, KV per token.
//!
//! Weights are the projections, experts, router, norms, embedding and head; biases and quantisation
//! scales of activations are left out (below 0.1 % of any catalogued model).

use super::dtype::{Dtype, Formats, Quant};
use super::model::{Attention, Indexer, Model, Part};

/// One weight matrix of an attention block.
#[derive(Clone, Copy, Debug)]
struct Matrix {
    part: Part,
    parameters: f64,
    /// Whether attention TP shards it (by heads), keeps it whole on each rank, or shards it by KV heads.
    split: Split,
}

#[derive(Clone, Copy, Debug)]
enum Split {
    Heads,
    KvHeads(u32),
    Whole,
}

impl Split {
    fn ranks(self, tp: u32) -> f64 {
        f64::from(match self {
            Split::Heads => tp.max(1),
            Split::KvHeads(kv) => tp.clamp(1, kv.max(1)),
            Split::Whole => 1,
        })
    }
}

fn matrix(part: Part, rows: f64, columns: f64, split: Split) -> Matrix {
    Matrix { part, parameters: rows * columns, split }
}

/// Bytes of one token's indexer key: FP8 values and an FP32 scale per 128 of them.
fn indexer_row(i: &Indexer) -> f64 {
    f64::from(i.head_dim) + 4.0 * f64::from(i.head_dim.div_ceil(128))
}

impl Attention {
    /// KV bytes of one token in one layer, on all ranks that share the heads.
    pub fn kv_bytes_per_token(&self, kv: Dtype) -> f64 {
        match self {
            Attention::Gqa { kv_heads, head_dim, .. } => {
                2.0 * f64::from(*kv_heads) * f64::from(*head_dim) * kv.kv_bytes()
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
        }
    }

    /// In how many pieces attention TP cuts the KV of a token (MLA: each rank keeps all of it).
    pub fn kv_shards(&self, tp: u32) -> u32 {
        match self {
            Attention::Gqa { kv_heads, .. } => tp.clamp(1, (*kv_heads).max(1)),
            Attention::Mla { .. } => 1,
        }
    }

    fn matrices(&self, hidden: u32) -> Vec<Matrix> {
        let h = f64::from(hidden);
        match self {
            Attention::Gqa { heads, kv_heads, head_dim, .. } => {
                let q = f64::from(*heads) * f64::from(*head_dim);
                let kv = 2.0 * f64::from(*kv_heads) * f64::from(*head_dim);
                vec![
                    matrix(Part::Q, h, q, Split::Heads),
                    matrix(Part::Kv, h, kv, Split::KvHeads(*kv_heads)),
                    matrix(Part::O, q, h, Split::Heads),
                ]
            }
            Attention::Mla { heads, q_lora, kv_lora, nope, rope, v, indexer } => {
                let n = f64::from(*heads);
                let (q_lora, kv_lora) = (f64::from(*q_lora), f64::from(*kv_lora));
                let (nope, rope, v) = (f64::from(*nope), f64::from(*rope), f64::from(*v));
                let mut all = Vec::with_capacity(6);
                let query_in = if q_lora > 0.0 {
                    all.push(matrix(Part::QA, h, q_lora, Split::Whole));
                    all.push(matrix(Part::QB, q_lora, n * (nope + rope), Split::Heads));
                    q_lora
                } else {
                    all.push(matrix(Part::Q, h, n * (nope + rope), Split::Heads));
                    h
                };
                all.push(matrix(Part::KvA, h, kv_lora + rope, Split::Whole));
                all.push(matrix(Part::KvB, kv_lora, n * (nope + v), Split::Heads));
                all.push(matrix(Part::O, n * v, h, Split::Heads));
                if let Some(i) = indexer {
                    let (ni, di) = (f64::from(i.heads), f64::from(i.head_dim));
                    // Query, key and head-weight projections; every rank scores with all of them.
                    all.push(matrix(Part::Indexer, 1.0, query_in * ni * di + h * di + h * ni, Split::Whole));
                }
                all
            }
        }
    }
}

impl Model {
    /// The formats in force: the checkpoint's with `quant` on top. Parts that the checkpoint left
    /// in BF16 stay so unless another GEMM format is asked for.
    pub fn formats(&self, quant: &Quant) -> Formats {
        let q = quant.resolve(&self.quant);
        let gemm = q.gemm.unwrap_or(Dtype::Bf16);
        let moe = q.moe.unwrap_or(gemm);
        let of = |part| self.part_format(part, gemm);
        let matrices = self.attention.matrices(self.hidden);
        let whole: f64 = matrices.iter().map(|m| m.parameters).sum();
        let quantised: f64 = matrices.iter().filter(|m| of(m.part) == gemm).map(|m| m.parameters).sum();
        Formats {
            gemm,
            attention_gemm: if 2.0 * quantised >= whole { gemm } else { Dtype::Bf16 },
            shared_gemm: of(Part::SharedExpert),
            dense_gemm: of(Part::DenseFfn),
            moe,
            attention: q.attention.unwrap_or(Dtype::Bf16),
            kv: q.kv.unwrap_or(Dtype::Bf16),
            comm: q.comm.unwrap_or(moe.payload()),
        }
    }

    /// The format of one part where GEMMs run in `gemm`.
    pub fn part_format(&self, part: Part, gemm: Dtype) -> Dtype {
        let as_shipped = self.quant.gemm == Some(gemm);
        if as_shipped && self.bf16_parts.contains(&part) { Dtype::Bf16 } else { gemm }
    }

    /// The model with its whole attention block in BF16 where the checkpoint's exclusion list names the norms of
    /// the latents.
    pub fn with_norms_as_block(&self) -> Model {
        let mut model = self.clone();
        if self.bf16_parts.contains(&Part::LatentNorms) {
            model.bf16_parts.extend(self.attention.matrices(self.hidden).iter().map(|m| m.part));
            model.bf16_parts.sort();
            model.bf16_parts.dedup();
        }
        model
    }

    /// Whether the model has weights of this part.
    pub fn has(&self, part: Part) -> bool {
        match part {
            Part::SharedExpert => self.shared_expert_parameters() > 0.0,
            Part::LatentNorms => self.is_mla(),
            Part::DenseFfn => self.dense_ffn_parameters() > 0.0,
            _ => self.attention.matrices(self.hidden).iter().any(|m| m.part == part),
        }
    }

    pub fn is_mla(&self) -> bool {
        matches!(self.attention, Attention::Mla { .. })
    }

    /// Whether attention is sparse through an indexer (DSA).
    pub fn is_dsa(&self) -> bool {
        matches!(self.attention, Attention::Mla { indexer: Some(_), .. })
    }

    pub fn moe_layers(&self) -> u32 {
        if self.moe.is_some() { self.layers.saturating_sub(self.dense_layers) } else { 0 }
    }

    /// KV bytes of one token in all layers. A token that has left a sliding window takes less: `cost::program`.
    pub fn kv_bytes_per_token(&self, kv: Dtype) -> f64 {
        f64::from(self.layers) * self.attention.kv_bytes_per_token(kv)
    }

    /// Parameters of one attention block, indexer included, norms not.
    pub fn attention_parameters_per_layer(&self) -> f64 {
        self.attention.matrices(self.hidden).iter().map(|m| m.parameters).sum()
    }

    /// Weight bytes of one attention block.
    pub fn attention_weight_bytes_per_layer(&self, quant: &Quant) -> f64 {
        self.attention_weight_bytes_per_rank(quant, 1)
    }

    /// Weight bytes of one attention block on one attention-TP rank: down-projections and the
    /// indexer stand on every rank, KV projections are split by min(tp, kv_heads).
    pub fn attention_weight_bytes_per_rank(&self, quant: &Quant, tp: u32) -> f64 {
        let gemm = self.formats(quant).gemm;
        let matrices = self.attention.matrices(self.hidden);
        matrices.iter().map(|m| m.parameters * self.part_format(m.part, gemm).weight_bytes() / m.split.ranks(tp)).sum()
    }

    /// Parameters of one routed expert (gate, up and down).
    pub fn expert_parameters(&self) -> f64 {
        self.moe.as_ref().map_or(0.0, |m| 3.0 * f64::from(self.hidden) * f64::from(m.intermediate))
    }

    /// Weight bytes of one routed expert.
    pub fn expert_weight_bytes(&self, quant: &Quant) -> f64 {
        self.expert_parameters() * self.formats(quant).moe.weight_bytes()
    }

    pub fn shared_expert_parameters(&self) -> f64 {
        self.moe.as_ref().map_or(0.0, |m| 3.0 * f64::from(self.hidden) * f64::from(m.shared_intermediate))
    }

    /// Weight bytes of all shared experts of one MoE layer.
    pub fn shared_expert_weight_bytes(&self, quant: &Quant) -> f64 {
        self.shared_expert_parameters() * self.formats(quant).shared_gemm.weight_bytes()
    }

    /// Router weights of one MoE layer; checkpoints keep them in BF16.
    pub fn router_weight_bytes(&self) -> f64 {
        self.router_parameters() * Dtype::Bf16.weight_bytes()
    }

    fn router_parameters(&self) -> f64 {
        self.moe.as_ref().map_or(0.0, |m| f64::from(self.hidden) * f64::from(m.experts))
    }

    pub fn dense_ffn_parameters(&self) -> f64 {
        3.0 * f64::from(self.hidden) * f64::from(self.dense_intermediate)
    }

    /// Weight bytes of one dense FFN layer.
    pub fn dense_ffn_weight_bytes(&self, quant: &Quant) -> f64 {
        self.dense_ffn_parameters() * self.formats(quant).dense_gemm.weight_bytes()
    }

    /// Input embedding; checkpoints keep it in BF16.
    pub fn embedding_bytes(&self) -> f64 {
        f64::from(self.vocab) * f64::from(self.hidden) * Dtype::Bf16.weight_bytes()
    }

    /// LM head beside the embedding: nothing when the two are tied. BF16, as in every catalogued checkpoint.
    pub fn head_bytes(&self) -> f64 {
        if self.tied_embeddings { 0.0 } else { self.embedding_bytes() }
    }

    /// One multi-token-prediction layer: a layer of the last kind and the projection that joins
    /// hidden state and embedding. Kept in BF16 where the checkpoint is NVFP4, as those checkpoints do.
    pub fn mtp_layer_weight_bytes(&self, quant: &Quant) -> f64 {
        let asked = self.formats(quant);
        let keep = |f: Dtype| if self.quant.gemm == Some(Dtype::Nvfp4) && f == Dtype::Nvfp4 { Dtype::Bf16 } else { f };
        let h = f64::from(self.hidden);
        let ffn = match &self.moe {
            Some(m) => {
                f64::from(m.experts) * self.expert_parameters() * keep(asked.moe).weight_bytes()
                    + self.shared_expert_parameters() * keep(asked.shared_gemm).weight_bytes()
                    + self.router_weight_bytes()
            }
            None => self.dense_ffn_parameters() * keep(asked.dense_gemm).weight_bytes(),
        };
        self.attention_parameters_per_layer() * keep(asked.attention_gemm).weight_bytes()
            + ffn
            + 2.0 * h * h * Dtype::Bf16.weight_bytes()
    }

    fn norm_parameters(&self) -> f64 {
        (2.0 * f64::from(self.layers) + 1.0) * f64::from(self.hidden)
    }

    /// Weight bytes of the whole model, without its MTP layers.
    pub fn weight_bytes(&self, quant: &Quant) -> f64 {
        let experts = self.moe.as_ref().map_or(0.0, |m| f64::from(m.experts));
        let moe = experts * self.expert_weight_bytes(quant)
            + self.shared_expert_weight_bytes(quant)
            + self.router_weight_bytes();
        let dense = f64::from(self.layers - self.moe_layers());
        f64::from(self.layers) * self.attention_weight_bytes_per_layer(quant)
            + f64::from(self.moe_layers()) * moe
            + dense * self.dense_ffn_weight_bytes(quant)
            + self.embedding_bytes()
            + self.head_bytes()
            + self.norm_parameters() * Dtype::Bf16.weight_bytes()
    }

    /// Parameters of the whole model, without its MTP layers.
    pub fn parameters(&self) -> f64 {
        self.count(self.moe.as_ref().map_or(0.0, |m| f64::from(m.experts)))
    }

    /// Parameters that one token passes through (routed experts: top-k of them).
    pub fn active_parameters(&self) -> f64 {
        self.count(self.moe.as_ref().map_or(0.0, |m| f64::from(m.topk)))
    }

    fn count(&self, experts: f64) -> f64 {
        let moe = experts * self.expert_parameters() + self.shared_expert_parameters() + self.router_parameters();
        let tables = (self.embedding_bytes() + self.head_bytes()) / Dtype::Bf16.weight_bytes();
        let dense = f64::from(self.layers - self.moe_layers());
        f64::from(self.layers) * self.attention_parameters_per_layer()
            + f64::from(self.moe_layers()) * moe
            + dense * self.dense_ffn_parameters()
            + tables
            + self.norm_parameters()
    }
}
