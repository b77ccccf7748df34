//! Bytes and parameters of a model: weights by what really sits in each layer, KV per token.
//!
//! Weights are the projections, experts, router, norms, embedding and head; biases and quantisation
//! scales of activations are left out (below 0.1 % of any catalogued model).
//!
//! Limit: bytes of weights and KV; activations and reserves are `cost::memory`'s.

use super::attention::Attention;
use super::dtype::{Dtype, Formats, Quant};
use super::layer_mixer::LayerMixer;
use super::matrix::{Matrix, MatrixPart};
use super::model::Model;

impl Model {
    /// The formats in force: the checkpoint's with `quant` on top. Parts that the checkpoint left
    /// in BF16 stay so unless another GEMM format is asked for.
    pub fn formats(&self, quant: &Quant) -> Formats {
        let q = quant.resolve(&self.quant);
        let gemm = q.gemm.unwrap_or(Dtype::Bf16);
        let moe = q.moe.unwrap_or(gemm);
        let of = |part| self.part_format(part, gemm);
        let matrices = self.attention.matrices(self.hidden);
        Formats {
            gemm,
            attention_gemm: self.block_format(&matrices, gemm),
            shared_gemm: of(MatrixPart::SharedExpert),
            dense_gemm: of(MatrixPart::DenseFfn),
            moe,
            attention: q.attention.unwrap_or(Dtype::Bf16),
            kv: q.kv.unwrap_or(Dtype::Bf16),
            comm: q.comm.unwrap_or(moe.payload()),
        }
    }

    /// The format that most weights of a block have, where GEMMs run in `gemm`; BF16 where none has half of them.
    fn block_format(&self, matrices: &[Matrix], gemm: Dtype) -> Dtype {
        let whole: f64 = matrices.iter().map(|m| m.parameters).sum();
        let own = |format| {
            let has = matrices.iter().filter(|m| self.part_format(m.part, gemm) == format);
            2.0 * has.map(|m| m.parameters).sum::<f64>() >= whole
        };
        let others = self.part_formats.iter().map(|p| p.format);
        [gemm].into_iter().chain(others).find(|f| own(*f)).unwrap_or(Dtype::Bf16)
    }

    /// The format of one part where GEMMs run in `gemm`.
    pub fn part_format(&self, part: MatrixPart, gemm: Dtype) -> Dtype {
        if self.quant.gemm != Some(gemm) {
            return gemm;
        }
        match self.part_formats.iter().find(|p| p.part == part) {
            Some(own) => own.format,
            None if self.bf16_parts.contains(&part) => Dtype::Bf16,
            None => gemm,
        }
    }

    /// Bytes of a weight in this format: 4-bit integers with the checkpoint's own groups.
    pub(crate) fn bytes_of(&self, format: Dtype) -> f64 {
        match format {
            Dtype::Int4Wo => 0.5 + 2.0 / f64::from(self.int4_group.max(1)),
            other => other.weight_bytes(),
        }
    }

    /// The mixer of this number: none is `attention`.
    pub(crate) fn mixer(&self, number: u32) -> Option<&LayerMixer> {
        self.mixers.get((number as usize).checked_sub(1)?)
    }

    /// How often each mixer stands in all layers: `attention`, then the others.
    fn mixer_counts(&self) -> (f64, Vec<f64>) {
        if self.layer_mixers.is_empty() {
            return (f64::from(self.layers), vec![0.0; self.mixers.len()]);
        }
        let count = |n: usize| self.layer_mixers.iter().flatten().filter(|m| **m as usize == n).count() as f64;
        (count(0), (1..=self.mixers.len()).map(count).collect())
    }

    /// The sum over all layers of what a mixer has: `attention` once, then each of the others.
    fn over_layers(&self, attention: f64, other: impl Fn(&LayerMixer) -> f64) -> f64 {
        let (own, counts) = self.mixer_counts();
        let others = self.mixers.iter().zip(counts).map(|(m, n)| if n > 0.0 { n * other(m) } else { 0.0 });
        others.fold(own * attention, |sum, x| sum + x)
    }

    /// The model with its whole attention block in BF16 where the checkpoint's exclusion list names the norms of
    /// the latents.
    pub fn with_norms_as_block(&self) -> Model {
        let mut model = self.clone();
        if self.bf16_parts.contains(&MatrixPart::LatentNorms) {
            model.bf16_parts.extend(self.attention.matrices(self.hidden).iter().map(|m| m.part));
            model.bf16_parts.sort();
            model.bf16_parts.dedup();
        }
        model
    }

    /// Whether the model has weights of this part.
    pub(crate) fn has(&self, part: MatrixPart) -> bool {
        match part {
            MatrixPart::SharedExpert => self.shared_expert_parameters() > 0.0,
            MatrixPart::LatentNorms => self.is_mla(),
            MatrixPart::DenseFfn => self.dense_ffn_parameters() > 0.0,
            _ => {
                let mut others = self.mixers.iter().flat_map(|m| m.matrices(self.hidden));
                self.attention.matrices(self.hidden).iter().any(|m| m.part == part) || others.any(|m| m.part == part)
            }
        }
    }

    pub(crate) fn is_mla(&self) -> bool {
        matches!(self.attention, Attention::Mla { .. })
    }

    /// Whether attention is sparse through an indexer (DSA).
    pub fn is_dsa(&self) -> bool {
        matches!(self.attention, Attention::Mla { indexer: Some(_), .. })
    }

    /// What mixes the tokens, in words: `GQA + gated DeltaNet`.
    pub fn mixes(&self) -> String {
        let (own, mut windows) = match &self.attention {
            Attention::Gqa { window, .. } => ("GQA", window.is_some()),
            Attention::Mla { indexer: Some(_), .. } => ("DSA", false),
            Attention::Mla { .. } => ("MLA", false),
            Attention::Own(own) => (own.name(), false),
        };
        let mut words = vec![own];
        for mixer in &self.mixers {
            match mixer {
                LayerMixer::Attention(a) => windows |= a.window > 0,
                LayerMixer::Own(own) if words.contains(&own.name()) => {}
                LayerMixer::Own(own) => words.push(own.name()),
            }
        }
        words.join(" + ") + if windows { ", windows" } else { "" }
    }

    pub fn moe_layers(&self) -> u32 {
        if self.moe.is_some() { self.layers.saturating_sub(self.dense_layers) } else { 0 }
    }

    /// KV bytes of one token in all layers. A token that has left a sliding window takes less: `cost::program`.
    pub fn kv_bytes_per_token(&self, kv: Dtype) -> f64 {
        self.over_layers(self.attention.kv_bytes_per_token(kv), |m| m.kv_bytes_per_token(kv))
    }

    /// Bytes of a sequence in all layers whatever its length, in the checkpoint's own KV format: running states, and
    /// rings that a server reserves whole.
    pub fn state_bytes_per_sequence(&self) -> f64 {
        let kv = self.quant.kv.unwrap_or(Dtype::Bf16);
        self.over_layers(self.attention.state_bytes(kv), |m| m.state_bytes(kv))
    }

    /// Parameters of one attention block, indexer included, norms not.
    pub fn attention_parameters_per_layer(&self) -> f64 {
        self.attention.matrices(self.hidden).iter().map(|m| m.parameters).sum::<f64>()
            + self.attention.small(self.hidden)
    }

    /// Weight bytes of one attention block.
    pub fn attention_weight_bytes_per_layer(&self, quant: &Quant) -> f64 {
        self.attention_weight_bytes_per_rank(quant, 1)
    }

    /// Weight bytes of one attention block on one attention-TP rank: down-projections and the
    /// indexer stand on every rank, KV projections are split by min(tp, kv_heads).
    pub fn attention_weight_bytes_per_rank(&self, quant: &Quant, tp: u32) -> f64 {
        self.block_weight_bytes_per_rank(&self.attention, quant, tp)
    }

    /// The same of an attention block of another shape.
    pub(crate) fn block_weight_bytes_per_rank(&self, attention: &Attention, quant: &Quant, tp: u32) -> f64 {
        let small = attention.small(self.hidden) * Dtype::Bf16.weight_bytes() / f64::from(attention.kv_shards(tp));
        self.matrix_bytes(&attention.matrices(self.hidden), quant, tp) + small
    }

    /// Weight bytes of a layer's other mixer on one attention-TP rank.
    pub(crate) fn mixer_weight_bytes_per_rank(&self, mixer: &LayerMixer, quant: &Quant, tp: u32) -> f64 {
        let small = mixer.small(self.hidden) * Dtype::Bf16.weight_bytes() / f64::from(mixer.shards(tp));
        self.matrix_bytes(&mixer.matrices(self.hidden), quant, tp) + small
    }

    fn matrix_bytes(&self, matrices: &[Matrix], quant: &Quant, tp: u32) -> f64 {
        let gemm = self.formats(quant).gemm;
        let bytes = |part| self.bytes_of(self.part_format(part, gemm));
        matrices.iter().map(|m| m.parameters * bytes(m.part) / m.split.ranks(tp)).sum()
    }

    /// The format of most weights of a layer's other mixer.
    pub fn mixer_format(&self, mixer: &LayerMixer, quant: &Quant) -> Dtype {
        self.block_format(&mixer.matrices(self.hidden), self.formats(quant).gemm)
    }

    /// Matrices of an FFN: up and down, and the gate where it has one.
    pub(crate) fn ffn_matrices(&self) -> f64 {
        if self.gated { 3.0 } else { 2.0 }
    }

    /// Width of what experts read: the model's, or the latent's.
    pub(crate) fn expert_hidden(&self) -> u32 {
        self.moe.as_ref().map_or(self.hidden, |m| if m.latent > 0 { m.latent } else { self.hidden })
    }

    /// Parameters of the two projections between the model and its latent experts.
    fn latent_parameters(&self) -> f64 {
        self.moe.as_ref().map_or(0.0, |m| 2.0 * f64::from(self.hidden) * f64::from(m.latent))
    }

    /// Parameters of one routed expert (up and down, and the gate where it has one).
    pub fn expert_parameters(&self) -> f64 {
        let width = f64::from(self.expert_hidden());
        self.moe.as_ref().map_or(0.0, |m| self.ffn_matrices() * width * f64::from(m.intermediate))
    }

    /// Weight bytes of the projections to latent experts and back, of one MoE layer; with the shared expert's format.
    pub(crate) fn latent_weight_bytes(&self, quant: &Quant) -> f64 {
        self.latent_parameters() * self.bytes_of(self.formats(quant).shared_gemm)
    }

    /// Weight bytes of one routed expert.
    pub fn expert_weight_bytes(&self, quant: &Quant) -> f64 {
        self.expert_parameters() * self.bytes_of(self.formats(quant).moe)
    }

    pub(crate) fn shared_expert_parameters(&self) -> f64 {
        self.moe
            .as_ref()
            .map_or(0.0, |m| self.ffn_matrices() * f64::from(self.hidden) * f64::from(m.shared_intermediate))
    }

    /// Weight bytes of all shared experts of one MoE layer.
    pub fn shared_expert_weight_bytes(&self, quant: &Quant) -> f64 {
        self.shared_expert_parameters() * self.bytes_of(self.formats(quant).shared_gemm)
    }

    /// Router weights of one MoE layer; checkpoints keep them in BF16.
    pub fn router_weight_bytes(&self) -> f64 {
        self.router_parameters() * Dtype::Bf16.weight_bytes()
    }

    fn router_parameters(&self) -> f64 {
        self.moe.as_ref().map_or(0.0, |m| f64::from(self.hidden) * f64::from(m.experts))
    }

    pub(crate) fn dense_ffn_parameters(&self) -> f64 {
        self.ffn_matrices() * f64::from(self.hidden) * f64::from(self.dense_intermediate)
    }

    /// Weight bytes of one dense FFN layer.
    pub(crate) fn dense_ffn_weight_bytes(&self, quant: &Quant) -> f64 {
        self.dense_ffn_parameters() * self.bytes_of(self.formats(quant).dense_gemm)
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
    pub(crate) fn mtp_layer_weight_bytes(&self, quant: &Quant) -> f64 {
        let asked = self.formats(quant);
        let keep = |f: Dtype| if self.quant.gemm == Some(Dtype::Nvfp4) && f == Dtype::Nvfp4 { Dtype::Bf16 } else { f };
        let h = f64::from(self.hidden);
        let ffn = match &self.moe {
            Some(m) => {
                f64::from(m.experts) * self.expert_parameters() * self.bytes_of(keep(asked.moe))
                    + self.shared_expert_parameters() * self.bytes_of(keep(asked.shared_gemm))
                    + self.router_weight_bytes()
                    + self.latent_weight_bytes(quant)
            }
            None => self.dense_ffn_parameters() * self.bytes_of(keep(asked.dense_gemm)),
        };
        self.attention_parameters_per_layer() * self.bytes_of(keep(asked.attention_gemm))
            + ffn
            + 2.0 * h * h * Dtype::Bf16.weight_bytes()
    }

    fn norm_parameters(&self) -> f64 {
        let mixed = 2.0 * f64::from(self.layers) * self.stream_mixing();
        (2.0 * f64::from(self.layers) + 1.0) * f64::from(self.hidden) + mixed
    }

    /// Parameters that mix the streams around one block (`hc_attn_fn` and `hc_ffn_fn` of DeepSeek-V4: from all streams to
    /// a weight in and a weight out of each and a matrix between them); 0: a plain residual.
    pub(crate) fn stream_mixing(&self) -> f64 {
        let (n, h) = (f64::from(self.streams), f64::from(self.hidden));
        if self.streams > 1 { (2.0 + n) * n * (n * h + 1.0) + 3.0 } else { 0.0 }
    }

    /// Bytes of a token's residual, all streams (BF16).
    pub(crate) fn residual_row(&self) -> f64 {
        2.0 * f64::from(self.hidden) * f64::from(self.streams)
    }

    /// Bytes that the residual of a layer moves beyond a sum and a norm around each of its two blocks: of each token, and
    /// once a step (BF16; the mixing itself in FP32).
    ///
    /// Streams: all read and one written before a block, all and its output read and all written behind it, less the three
    /// rows of a plain sum. Attention over residuals (arXiv:2603.15031, `attn_res_block_size`): before each block the
    /// sums of the groups of layers so far, on average half of all, and a row in and out.
    pub fn residual_bytes(&self) -> (f64, f64) {
        let (n, h) = (f64::from(self.streams), f64::from(self.hidden));
        let streams = if self.streams > 1 { 2.0 * (3.0 * n - 1.0) * h * 2.0 } else { 0.0 };
        let back = match self.residual_block {
            0 => 0.0,
            block => 2.0 * (f64::from(self.layers) / (2.0 * f64::from(block)) + 2.0) * h * 2.0,
        };
        (streams + back, 2.0 * self.stream_mixing() * 4.0)
    }

    /// Weight bytes of the whole model, without its MTP layers.
    pub fn weight_bytes(&self, quant: &Quant) -> f64 {
        let experts = self.moe.as_ref().map_or(0.0, |m| f64::from(m.experts));
        let moe = experts * self.expert_weight_bytes(quant)
            + self.shared_expert_weight_bytes(quant)
            + self.router_weight_bytes()
            + self.latent_weight_bytes(quant);
        let dense = f64::from(self.layers - self.moe_layers());
        self.over_layers(self.attention_weight_bytes_per_layer(quant), |m| {
            self.mixer_weight_bytes_per_rank(m, quant, 1)
        }) + f64::from(self.moe_layers()) * moe
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
        let moe = experts * self.expert_parameters()
            + self.shared_expert_parameters()
            + self.router_parameters()
            + self.latent_parameters();
        let mixer =
            |m: &LayerMixer| m.matrices(self.hidden).iter().map(|m| m.parameters).sum::<f64>() + m.small(self.hidden);
        let tables = (self.embedding_bytes() + self.head_bytes()) / Dtype::Bf16.weight_bytes();
        let dense = f64::from(self.layers - self.moe_layers());
        self.over_layers(self.attention_parameters_per_layer(), mixer)
            + f64::from(self.moe_layers()) * moe
            + dense * self.dense_ffn_parameters()
            + tables
            + self.norm_parameters()
    }
}
