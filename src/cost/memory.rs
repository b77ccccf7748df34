//! What sits in each GPU's memory, pool by pool (physics.md section 4).
//!
//! bytes = weights that really sit there + KV of the sequences held + activations of the tokens in
//! flight + communication buffers + framework reserve. MLA and indexer KV are replicated over TP
//! ranks, GQA KV is split by min(tp, kv_heads). Limits: activations are an estimate (rows that a
//! layer keeps alive at once), not a trace.

use super::draft;
use super::published::{self, Role};
use crate::spec::assumptions::{Activations, FfnPool, KvReserve, SharedExpertSplit, SparseAttentionMemory};
use crate::spec::dtype::Formats;
use crate::spec::plan::{Side, stage_layers};
use crate::spec::workload::PrefixScope;
use crate::spec::{AfdPlan, Assumptions, Attention, Model, Parallel, Quant, Serving, Workload};
use crate::units::{GIB, MIB};

/// One line of the memory table.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct MemoryItem {
    pub pool: &'static str,
    pub item: &'static str,
    pub bytes: f64,
}

/// Memory of one GPU of one pool, as a function of what it holds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Memory {
    pub pool: &'static str,
    pub capacity: f64,
    pub weights: f64,
    /// KV per resident sequence.
    pub kv_per_sequence: f64,
    /// KV held once per rank whatever the batch (a shared prefix).
    pub kv_shared: f64,
    pub activation_per_token: f64,
    /// Least activation memory, however few tokens are in flight.
    pub activation_floor: f64,
    pub buffers: f64,
    pub reserve: f64,
}

impl Memory {
    /// Bytes with `sequences` resident per attention rank and `tokens` in flight.
    pub fn bytes(&self, sequences: f64, tokens: f64) -> f64 {
        self.fixed(tokens) + self.kv_per_sequence * sequences
    }

    fn fixed(&self, tokens: f64) -> f64 {
        self.weights + self.kv_shared + self.activations(tokens) + self.buffers + self.reserve
    }

    fn activations(&self, tokens: f64) -> f64 {
        (self.activation_per_token * tokens).max(self.activation_floor)
    }

    /// Most sequences per rank that fit beside `tokens` in flight; negative when not even none fit.
    pub fn sequences(&self, tokens: f64) -> f64 {
        let free = self.capacity - self.fixed(tokens);
        if self.kv_per_sequence > 0.0 {
            free / self.kv_per_sequence
        } else if free >= 0.0 {
            f64::INFINITY
        } else {
            -1.0
        }
    }

    pub fn fits(&self, sequences: f64, tokens: f64) -> bool {
        self.bytes(sequences, tokens) <= self.capacity
    }

    pub fn items(&self, sequences: f64, tokens: f64) -> Vec<MemoryItem> {
        let item = |item, bytes| MemoryItem { pool: self.pool, item, bytes };
        vec![
            item("weights", self.weights),
            item("kv", self.kv_per_sequence * sequences + self.kv_shared),
            item("activations", self.activations(tokens)),
            item("communication buffers", self.buffers),
            item("framework reserve", self.reserve),
            item("capacity", self.capacity),
        ]
    }
}

struct Weights {
    attention: f64,
    dense: f64,
    router: f64,
    shared: f64,
    expert: f64,
    embedding: f64,
    head: f64,
    /// Projection of the MTP module; 0 without drafts.
    draft: f64,
}

/// Weight bytes of each part on one rank: attention per layer, dense FFN per dense layer, one expert of one layer ...
///
/// `with_head`: whether aiconfigurator counts the head of a GQA model.
fn weights(cx: &Context<'_>, tp: u32, shared_shards: u32, with_head: bool) -> Weights {
    let (model, quant) = (cx.model, cx.quant);
    let t = f64::from(tp);
    let h = f64::from(model.hidden);
    let draft = if cx.serving.mtp > 0 { 2.0 * h * h * cx.formats.dense_gemm.weight_bytes() } else { 0.0 };
    Weights {
        draft,
        attention: if bare_sparse(model, cx.assumptions) {
            0.0
        } else {
            model.attention_weight_bytes_per_rank(quant, tp)
        },
        dense: model.dense_ffn_weight_bytes(quant) / t,
        router: model.router_weight_bytes(),
        shared: model.shared_expert_weight_bytes(quant) / f64::from(shared_shards),
        expert: model.expert_weight_bytes(quant),
        embedding: match cx.assumptions.activations {
            // aiconfigurator splits the table of GQA models only.
            Activations::Framework if model.is_mla() => model.embedding_bytes(),
            _ => model.embedding_bytes() / t,
        },
        head: match cx.assumptions.activations {
            Activations::AliveRows => model.head_bytes() / t,
            // Published planners count the embedding once, tied or not.
            Activations::Coefficients => 0.0,
            // The operators that aiconfigurator adds up are those of prefill, and GQA's have no head there.
            Activations::Framework if model.is_mla() || with_head => model.head_bytes() / t,
            Activations::Framework => 0.0,
        },
    }
}

/// Sparse attention whose weights and indexer cache are left out.
fn bare_sparse(model: &Model, a: &Assumptions) -> bool {
    a.sparse_attention_memory == SparseAttentionMemory::Ignored && model.is_dsa()
}

/// NCCL buffers by ranks (342 MiB at 2, 392 MiB from 4 on): reference/aiconfigurator.md section 2.
fn buffers(ranks: u32) -> f64 {
    match ranks {
        0 | 1 => 0.0,
        2 | 3 => 342.0 * MIB,
        _ => 392.0 * MIB,
    }
}

/// Rows a layer keeps alive per token, in BF16: residual, normed input, block output and their
/// successors (8 hidden rows), query and attention output of the rank's heads, and the dispatched
/// copies with their gate/up products on the rank's share of the experts: every copy reaches all MoE-TP
/// ranks of its expert, so D tokens x k over ep x moe_tp GPUs are k moe_tp / tp of them a token.
fn activation_per_token(model: &Model, tp: u32, moe_tp: u32, ranks_per_row: f64) -> f64 {
    let h = f64::from(model.hidden);
    let per_head = match &model.attention {
        Attention::Gqa { head_dim, .. } => 2.0 * f64::from(*head_dim),
        Attention::Mla { kv_lora, rope, v, .. } => f64::from(kv_lora + rope + v),
    };
    let heads = f64::from(model.attention.heads()) / f64::from(tp);
    let experts = model.moe.as_ref().map_or(3.0 * f64::from(model.dense_intermediate) / f64::from(tp), |m| {
        f64::from(m.topk) * (2.0 * h + 3.0 * f64::from(m.intermediate) / f64::from(moe_tp)) * ranks_per_row
    });
    2.0 * (8.0 * h + heads * per_head + experts)
}

/// KV terms of a sequence under a workload: (per sequence, shared per rank).
///
/// Attention reads the prefix from the memory of whoever computes, so every pool that attends holds
/// it for the sequences it has in flight; `prefix_home` decides only what P/D must ship.
fn kv_terms(cx: &Context<'_>, tp: u32) -> (f64, f64) {
    let (model, w) = (cx.model, cx.workload);
    let m = w.means();
    let own = match cx.assumptions.kv_reserve {
        KvReserve::Full => m.isl + m.osl,
        KvReserve::Mean => (w.theta() - m.prefix).max(m.isl),
    };
    let kv = cx.formats.kv.kv_bytes();
    let published = match cx.assumptions.activations {
        _ if bare_sparse(model, cx.assumptions) => Some(published::bare_latent_kv(kv)),
        Activations::Framework => published::framework_latent_kv(model, kv),
        _ => None,
    };
    let counted = published.map_or(1.0, |bytes| bytes / model.attention.kv_bytes_per_token(cx.formats.kv));
    let kept = draft::kv_layers(model, cx.serving) / f64::from(model.layers);
    let bytes = |tokens| model.kv_bytes_per_rank(tokens, cx.formats.kv, tp) * counted * kept;
    match w.prefix_scope {
        PrefixScope::Request => (bytes(m.prefix + own), 0.0),
        PrefixScope::Shared => (bytes(own), bytes(m.prefix)),
    }
}

/// Experts in the memory of the fullest rank: its share of all and of the redundant copies.
fn local_experts(cx: &Context<'_>, ep: u32, moe_tp: u32) -> f64 {
    let slots = |m: &crate::spec::Moe| (m.experts + cx.serving.eplb_slots).div_ceil(ep);
    cx.model.moe.as_ref().map_or(0.0, |m| f64::from(slots(m)) / f64::from(moe_tp))
}

/// What all memory formulas need.
pub struct Context<'a> {
    pub model: &'a Model,
    pub quant: &'a Quant,
    pub formats: &'a Formats,
    pub serving: &'a Serving,
    pub assumptions: &'a Assumptions,
    pub workload: &'a Workload,
    pub capacity: f64,
    /// Whose memory manager: only published coefficients depend on it.
    pub framework: &'a str,
    pub node_gpus: u32,
}

fn reserve(cx: &Context<'_>) -> f64 {
    let factor = match cx.assumptions.activations {
        Activations::AliveRows => 1.0,
        Activations::Coefficients | Activations::Framework => published::reserve_factor(cx.framework),
    };
    cx.serving.framework_reserve_gib * GIB * factor
}

fn activation_floor(cx: &Context<'_>) -> f64 {
    match cx.assumptions.activations {
        Activations::Framework => published::framework_activation_floor(cx.framework),
        Activations::AliveRows | Activations::Coefficients => 0.0,
    }
}

/// Whether aiconfigurator adds up the operators of sglang's wide EP: experts beyond one node, no MoE-TP.
fn wide_ep(cx: &Context<'_>, p: &Parallel) -> bool {
    cx.assumptions.activations == Activations::Framework
        && cx.framework == "sglang"
        && cx.model.is_mla()
        && p.dp > 1
        && p.moe_tp == 1
        && p.stage_gpus() > cx.node_gpus
}

/// Those operators: no head, and no embedding with sparse attention; dense latent attention is its
/// down-projections, counted twice.
fn without_ends(w: Weights, model: &Model) -> Weights {
    let Attention::Mla { q_lora, kv_lora, rope, indexer, .. } = &model.attention else { return w };
    if indexer.is_some() {
        return Weights { head: 0.0, embedding: 0.0, ..w };
    }
    let down = f64::from(model.hidden) * f64::from(q_lora + kv_lora + rope);
    // One byte a weight: these operators exist for block-scaled FP8 only.
    Weights { head: 0.0, router: 0.0, attention: 2.0 * down, ..w }
}

/// Memory of one GPU of a worker.
pub fn worker(cx: &Context<'_>, p: &Parallel, pool: &'static str) -> Memory {
    let model = cx.model;
    let stage = |layers: u32| f64::from(layers.div_ceil(p.pp));
    let dense_layers = if model.moe.is_none() { model.layers } else { model.dense_layers };
    let moe_layers = model.layers - dense_layers;
    let whole_shared =
        p.dp * p.cp > 1 || (cx.assumptions.shared_expert_split == SharedExpertSplit::Whole && model.is_dsa());
    let w = weights(cx, p.tp, if whole_shared { 1 } else { p.tp }, false);
    let w = if wide_ep(cx, p) { without_ends(w, model) } else { w };
    let moe_layer = w.router + w.shared + local_experts(cx, p.ep(), p.moe_tp) * w.expert;
    // The MTP module is one more layer of the last kind, on the last stage.
    let last = if model.moe.is_some() { moe_layer } else { w.dense };
    let module = if cx.serving.mtp > 0 { w.attention + last + w.draft } else { 0.0 };
    let bytes = stage(model.layers) * w.attention
        + stage(dense_layers) * w.dense
        + stage(moe_layers) * moe_layer
        + module
        + w.embedding
        + w.head;
    let (per_sequence, shared) = kv_terms(cx, p.tp);
    // Pipeline stages hold L/pp layers of pp batches: the same bytes in all.
    Memory {
        pool,
        capacity: cx.capacity,
        weights: bytes,
        kv_per_sequence: per_sequence,
        kv_shared: shared / f64::from(p.pp),
        activation_per_token: match cx.assumptions.activations {
            Activations::AliveRows => {
                activation_per_token(model, p.tp, p.moe_tp, f64::from(p.moe_tp) / f64::from(p.tp)) / f64::from(p.cp)
            }
            Activations::Coefficients => {
                published::activation_per_token(model, Role::Whole, p.tp, f64::from(p.dp), p.ep(), cx.framework)
                    / f64::from(p.cp)
            }
            Activations::Framework => {
                published::framework_activation(model, p.tp, f64::from(p.dp), p.ep(), cx.framework) / f64::from(p.cp)
            }
        },
        activation_floor: activation_floor(cx),
        buffers: buffers(match cx.assumptions.activations {
            Activations::AliveRows => p.stage_gpus(),
            Activations::Coefficients | Activations::Framework => p.tp,
        }),
        reserve: reserve(cx),
    }
}

/// Memory of one GPU of each pool of an AFD unit: (attention, ffn).
pub fn afd(cx: &Context<'_>, plan: &AfdPlan, ep: u32, ffn_capacity: f64) -> (Memory, Memory) {
    let model = cx.model;
    let (tp, pp) = (plan.attention.tp, plan.pp.max(1));
    // aiconfigurator takes the operators of the phase a unit is for: of GQA models decode alone has a head.
    let w = weights(cx, tp, 1, cx.workload.means().osl > 1.0);
    let shared_on_ffn = plan.shared_expert == Side::Ffn;
    let side = |on: bool| if on { w.shared } else { 0.0 };
    let on_ffn = |part: Side, bytes: f64| if part == Side::Ffn { (0.0, bytes) } else { (bytes, 0.0) };
    let whole = cx.assumptions.ffn_pool == FfnPool::Whole;
    let router = on_ffn(if whole { Side::Ffn } else { plan.router }, w.router);
    // A data-parallel copy on every moe-TP group of the FFN pool.
    let whole_dense = w.dense * f64::from(tp) / f64::from(plan.ffn.moe_tp);
    let dense = if plan.dense == Side::Ffn { (0.0, whole_dense) } else { (w.dense, 0.0) };
    // The MTP module is one more MoE layer.
    let mtp = f64::from(u32::from(cx.serving.mtp > 0));
    let local = local_experts(cx, ep, plan.ffn.moe_tp);
    // Of the fullest pipeline stage: dense layers and embedding stand in the first, drafts and head in the last.
    let (mut attention, mut ffn) = (0.0_f64, 0.0_f64);
    for stage in stage_layers(model.layers, pp) {
        let ends = |is: bool, bytes: f64| if is { bytes } else { 0.0 };
        let (first, last) = (stage.start == 0, stage.end == model.layers);
        let dense_layers = f64::from(model.dense_layers.clamp(stage.start, stage.end) - stage.start);
        let moe_layers = f64::from(stage.end - stage.start) - dense_layers;
        let drafts = ends(last, mtp);
        let here = (dense_layers + moe_layers + drafts) * w.attention
            + dense_layers * dense.0
            + (moe_layers + drafts) * (router.0 + side(!shared_on_ffn))
            + ends(last, w.draft)
            + ends(first, w.embedding)
            + ends(last, w.head);
        attention = attention.max(here);
        ffn = ffn
            .max((moe_layers + drafts) * (local * w.expert + router.1 + side(shared_on_ffn)) + dense_layers * dense.1);
    }
    let (per_sequence, shared) = kv_terms(cx, tp);
    let reserve = reserve(cx);
    let h = f64::from(model.hidden);
    let topk = model.moe.as_ref().map_or(0.0, |m| f64::from(m.topk));
    let inter = model.moe.as_ref().map_or(0.0, |m| f64::from(m.intermediate) / f64::from(plan.ffn.moe_tp));
    let per_head = match &model.attention {
        Attention::Gqa { head_dim, .. } => 2.0 * f64::from(*head_dim),
        Attention::Mla { kv_lora, rope, v, .. } => f64::from(kv_lora + rope + v),
    };
    let heads = f64::from(model.attention.heads()) / f64::from(tp);
    let charged = cx.assumptions.activations != Activations::AliveRows;
    let ranks = f64::from(plan.attention.gpus / tp);
    // aiconfigurator takes the FFN pool for one replica of TP over all its GPUs.
    let ffn_ranks = if cx.assumptions.activations == Activations::Framework { plan.ffn.gpus } else { tp };
    let per_token = |own: f64, role: Role| match cx.assumptions.activations {
        Activations::AliveRows => own,
        Activations::Framework if role == Role::Ffn => {
            ranks * published::framework_activation(model, ffn_ranks, 1.0, ep, cx.framework)
        }
        Activations::Framework => published::framework_activation(model, tp, 1.0, 1, cx.framework),
        Activations::Coefficients => published::activation_per_token(model, role, tp, ranks, ep, cx.framework),
    };
    (
        Memory {
            pool: "attention",
            capacity: cx.capacity,
            weights: attention,
            // Pipeline stages hold L/pp layers of pp batches: the same bytes in all.
            kv_per_sequence: per_sequence,
            kv_shared: shared / f64::from(pp),
            // Residual rows, the rank's heads, and the send and receive buffers of A2F and F2A.
            activation_per_token: per_token(
                2.0 * (8.0 * h + heads * per_head + 2.0 * topk * h / f64::from(tp)),
                Role::Attention,
            ),
            activation_floor: activation_floor(cx),
            buffers: buffers(if charged { tp } else { plan.attention.gpus }),
            reserve,
        },
        Memory {
            pool: "ffn",
            capacity: ffn_capacity,
            weights: ffn,
            kv_per_sequence: 0.0,
            kv_shared: 0.0,
            // Per token of one attention rank, of any group: its routed copies spread over the pool's GPUs, each on all MoE-TP ranks.
            activation_per_token: per_token(
                2.0 * topk * (2.0 * h + 3.0 * inter) * f64::from(plan.ffn.moe_tp) * f64::from(plan.attention.gpus / tp)
                    / f64::from(plan.ffn.gpus.max(1)),
                Role::Ffn,
            ),
            activation_floor: activation_floor(cx),
            buffers: buffers(if charged { ffn_ranks } else { plan.ffn.gpus }),
            reserve,
        },
    )
}
