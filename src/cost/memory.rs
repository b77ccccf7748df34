//! What sits in each GPU's memory, pool by pool (physics.md section 4).
//!
//! bytes = weights that really sit there + KV of the sequences held + activations + CUDA graphs +
//! communication buffers + framework reserve, within the share of the device that the server may
//! fill (`server`). MLA and indexer KV are replicated over TP ranks, GQA KV is split by
//! min(tp, kv_heads). Published profiles keep their own formulas and fill the whole device. Limits:
//! activations are an estimate (rows that a layer keeps alive at once), not a trace.

mod books;
mod context;
pub mod server;

use self::books::Rank;
pub use self::context::Context;
use self::context::Weights;
use server::Layout;
pub use server::Room;

use super::draft;
use super::program::Ffn;
use super::published::{self, Role};
use crate::spec::assumptions::{FfnPool, KvReserve, SharedExpertSplit, SparseAttentionMemory};
use crate::spec::plan::{Side, stage_layers};
use crate::spec::workload::PrefixScope;
use crate::spec::{AfdPlan, Assumptions, Attention, Device, Model, Parallel, Pool, choices};

choices! {
    /// What memory holds, and what it is measured by.
    Item {
        Weights = "weights",
        Kv = "kv",
        Activations = "activations",
        Graphs = "cuda graphs",
        Buffers = "communication buffers",
        Reserve = "framework reserve",
        /// What the server leaves alone.
        Outside = "outside the fraction",
        /// The whole device.
        Capacity = "capacity",
    }
}

impl Item {
    /// Whether it is a use of the server's share.
    pub fn is_use(self) -> bool {
        !matches!(self, Item::Outside | Item::Capacity)
    }
}

/// One line of the memory table.
#[derive(Clone, Debug, PartialEq)]
pub struct MemoryItem {
    pub item: Item,
    pub bytes: f64,
}

/// Memory of one GPU of one pool, as a function of what it holds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Memory {
    pub pool: Pool,
    /// Of the device, as its driver reports it.
    pub capacity: f64,
    pub weights: f64,
    /// KV per resident sequence.
    pub kv_per_sequence: f64,
    /// KV held once per rank whatever the batch (a shared prefix).
    pub kv_shared: f64,
    pub activation_per_token: f64,
    /// Least activation memory, however few tokens are in flight.
    pub activation_floor: f64,
    /// Tokens that the server provides for, however few are in flight.
    pub activation_tokens: f64,
    /// CUDA graphs that the server counts as its own.
    pub graphs: f64,
    pub buffers: f64,
    pub reserve: f64,
    /// What of the device the server leaves alone.
    pub room: Room,
}

impl Memory {
    /// Bytes with `sequences` resident per attention rank and `tokens` in flight.
    pub fn bytes(&self, sequences: f64, tokens: f64) -> f64 {
        self.fixed(tokens) + self.kv_per_sequence * sequences
    }

    fn fixed(&self, tokens: f64) -> f64 {
        self.weights + self.kv_shared + self.activations(tokens) + self.graphs + self.buffers + self.reserve
    }

    fn activations(&self, tokens: f64) -> f64 {
        (self.activation_per_token * tokens.max(self.activation_tokens)).max(self.activation_floor)
    }

    /// Bytes of the device that stay outside the server's share.
    pub fn outside(&self, tokens: f64) -> f64 {
        let left = |context: f64| self.capacity - context - self.buffers;
        match self.room {
            Room::All => 0.0,
            Room::OfTotal { fraction, least } => ((1.0 - fraction) * self.capacity).max(least),
            Room::OfFreeBefore { fraction, context, graphs } => {
                // Activations stand outside the share; they are counted on their own.
                context + ((1.0 - fraction) * left(context) - self.activations(tokens)).max(graphs)
            }
            Room::OfFreeAfter { fraction, context, graphs } => {
                let free = left(context) - self.weights - self.activations(tokens) - self.reserve;
                context + ((1.0 - fraction) * free).max(graphs)
            }
        }
    }

    /// Most that `bytes` may be.
    pub(crate) fn limit(&self, tokens: f64) -> f64 {
        self.capacity - self.outside(tokens)
    }

    /// Bytes for the KV of sequences beside `tokens` in flight; negative when the rest does not fit.
    pub fn free(&self, tokens: f64) -> f64 {
        self.limit(tokens) - self.fixed(tokens)
    }

    /// Most sequences per rank that fit beside `tokens` in flight; negative when not even none fit.
    pub fn sequences(&self, tokens: f64) -> f64 {
        let free = self.free(tokens);
        if self.kv_per_sequence > 0.0 {
            free / self.kv_per_sequence
        } else if free >= 0.0 {
            f64::INFINITY
        } else {
            -1.0
        }
    }

    pub fn fits(&self, sequences: f64, tokens: f64) -> bool {
        self.bytes(sequences, tokens) <= self.limit(tokens)
    }

    pub fn items(&self, sequences: f64, tokens: f64) -> Vec<MemoryItem> {
        let item = |item, bytes| MemoryItem { item, bytes };
        vec![
            item(Item::Weights, self.weights),
            item(Item::Kv, self.kv_per_sequence * sequences + self.kv_shared),
            item(Item::Activations, self.activations(tokens)),
            item(Item::Graphs, self.graphs),
            item(Item::Buffers, self.buffers),
            item(Item::Reserve, self.reserve),
            item(Item::Outside, self.outside(tokens)),
            item(Item::Capacity, self.capacity),
        ]
    }
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
            cx.program.mixer_weight_bytes(model, quant, tp)
        },
        dense: model.dense_ffn_weight_bytes(quant) / t,
        router: model.router_weight_bytes() + model.latent_weight_bytes(quant),
        shared: model.shared_expert_weight_bytes(quant) / f64::from(shared_shards),
        expert: cx.books().expert(cx),
        embedding: cx.books().embedding(model, t),
        head: cx.books().head(model, t, with_head),
    }
}

/// Sparse attention whose weights and indexer cache are left out.
fn bare_sparse(model: &Model, a: &Assumptions) -> bool {
    a.sparse_attention_memory == SparseAttentionMemory::Ignored && model.is_dsa()
}

/// Bytes a layer keeps alive per token: residual, normed input, block output and their successors (8 hidden rows,
/// BF16), and of attention and experts the larger, since the one is done before the other begins. Attention: query
/// and output of the rank's heads, BF16. Experts: the dispatched copies in the format that the experts read, their
/// gate and up products in BF16, what goes into the down projection, and its BF16 result, on the rank's share of the
/// experts: every copy reaches all MoE-TP ranks of its expert, so D tokens x k over ep x moe_tp GPUs are
/// k moe_tp / tp of them a token.
fn activation_per_token(cx: &Context<'_>, tp: u32, moe_tp: u32, ranks_per_row: f64) -> f64 {
    let model = cx.model;
    let h = f64::from(model.hidden);
    let experts = model.moe.as_ref().map_or(6.0 * f64::from(model.dense_intermediate) / f64::from(tp), |m| {
        f64::from(m.topk) * copy_bytes(cx, f64::from(m.intermediate) / f64::from(moe_tp)) * ranks_per_row
    });
    16.0 * h + more_streams(model) + experts.max(head_bytes(model, tp))
}

/// One dispatched copy of a token at its expert.
fn copy_bytes(cx: &Context<'_>, inter: f64) -> f64 {
    let (h, read) = (f64::from(cx.model.hidden), cx.formats.moe.activation_bytes());
    read * (h + inter) + 4.0 * inter + 2.0 * h
}

/// Residual streams beyond the first, before and after a block.
fn more_streams(model: &Model) -> f64 {
    2.0 * (model.residual_row() - 2.0 * f64::from(model.hidden))
}

/// Query and output of a rank's heads, BF16.
fn head_bytes(model: &Model, tp: u32) -> f64 {
    let per_head = match &model.attention {
        Attention::Gqa { head_dim, .. } => 2.0 * f64::from(*head_dim),
        Attention::Mla { kv_lora, rope, v, .. } => f64::from(kv_lora + rope + v),
        Attention::Own(own) => return own.row_bytes() / f64::from(tp),
    };
    2.0 * f64::from(model.attention.heads()) / f64::from(tp) * per_head
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
    let bare = bare_sparse(model, cx.assumptions);
    let published = if bare { Some(published::bare_latent_kv(kv)) } else { cx.books().latent_kv(model, kv) };
    let counted = published.map_or(1.0, |bytes| bytes / model.attention.kv_bytes_per_token(cx.formats.kv));
    let kept = draft::kv_layers(model, cx.serving) / f64::from(model.layers);
    let bytes = |tokens| cx.program.state_bytes(tokens, cx.formats.kv, tp) * counted * kept;
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

/// Memory of one GPU of a worker.
pub fn worker(cx: &Context<'_>, p: &Parallel) -> Memory {
    let model = cx.model;
    let stage = |layers: u32| f64::from(layers.div_ceil(p.pp));
    let [dense_layers, moe_layers] =
        [Ffn::Dense, Ffn::Experts].map(|ffn| cx.program.layers_within(ffn, 0..model.layers));
    let whole_shared =
        p.dp * p.cp > 1 || (cx.assumptions.shared_expert_split == SharedExpertSplit::Whole && model.is_dsa());
    let w = weights(cx, p.tp, if whole_shared { 1 } else { p.tp }, false);
    let w = cx.books().of_worker(cx, p, w);
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
    let books = cx.books();
    let taken = books.overhead(cx, &Layout::of(p, model.layers), p.tp);
    let rank = Rank { role: Role::Whole, tp: p.tp, ranks: f64::from(p.dp), ep: p.ep(), gpus: p.tp };
    let own = activation_per_token(cx, p.tp, p.moe_tp, f64::from(p.moe_tp) / f64::from(p.tp));
    // Pipeline stages hold L/pp layers of pp batches: the same bytes in all.
    Memory {
        pool: Pool::Worker,
        capacity: cx.books().capacity(cx.device),
        weights: bytes,
        kv_per_sequence: per_sequence,
        kv_shared: shared / f64::from(p.pp),
        activation_per_token: books.activation(cx, own, &rank) / f64::from(p.cp),
        activation_floor: taken.sampler,
        activation_tokens: taken.tokens,
        graphs: taken.graphs,
        buffers: taken.buffers,
        reserve: books.reserve(cx),
        room: taken.room,
    }
}

/// Memory of one GPU of each pool of an AFD unit: (attention, ffn).
pub fn afd(cx: &Context<'_>, plan: &AfdPlan, ep: u32, ffn_device: &Device) -> (Memory, Memory) {
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
    let on_pool = plan.dense_side(model.moe.is_some()) == Side::Ffn;
    let dense = if on_pool { (0.0, whole_dense) } else { (w.dense, 0.0) };
    // The MTP module is one more MoE layer.
    let mtp = f64::from(u32::from(cx.serving.mtp > 0));
    let local = local_experts(cx, ep, plan.ffn.moe_tp);
    // Of the fullest pipeline stage: dense layers and embedding stand in the first, drafts and head in the last.
    let (mut attention, mut ffn) = (0.0_f64, 0.0_f64);
    for stage in stage_layers(model.layers, pp) {
        let ends = |is: bool, bytes: f64| if is { bytes } else { 0.0 };
        let (first, last) = (stage.start == 0, stage.end == model.layers);
        let of = |ffn| f64::from(cx.program.layers_within(ffn, stage.clone()));
        let (dense_layers, moe_layers) = (of(Ffn::Dense), of(Ffn::Experts));
        let drafts = ends(last, mtp);
        // The MTP module of a dense model is one more dense layer.
        let dense_layers = dense_layers + if model.moe.is_none() { drafts } else { 0.0 };
        let drafts = if model.moe.is_none() { 0.0 } else { drafts };
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
    let reserve = cx.books().reserve(cx);
    let ffn_cx = Context { device: ffn_device, ..*cx };
    let h = f64::from(model.hidden);
    // A dense FFN is one expert that every token goes to.
    let topk = model.moe.as_ref().map_or(1.0, |m| f64::from(m.topk));
    let wide = model.moe.as_ref().map_or(model.dense_intermediate, |m| m.intermediate);
    let inter = f64::from(wide) / f64::from(plan.ffn.moe_tp);
    let ranks = f64::from(plan.attention.gpus / tp);
    let books = cx.books();
    let ffn_ranks = books.pool_ranks(tp, plan.ffn.gpus);
    let per_token =
        |own: f64, role: Role| books.activation(cx, own, &Rank { role, tp, ranks, ep, gpus: plan.ffn.gpus });
    let layers = f64::from(model.layers.div_ceil(pp));
    let (all, a) = (plan.attention.gpus + plan.ffn.gpus, plan.attention.gpus);
    let of_attention = Layout { gpus: all, tp, dp: a / tp, pp, ep: 1, layers, head: true };
    let of_ffn = Layout { gpus: all, tp: 1, dp: 1, pp, ep, layers, head: false };
    let taken = books.overhead(cx, &of_attention, tp);
    let ffn_taken = books.overhead(&ffn_cx, &of_ffn, ffn_ranks);
    (
        Memory {
            pool: Pool::Attention,
            capacity: cx.books().capacity(cx.device),
            weights: attention,
            // Pipeline stages hold L/pp layers of pp batches: the same bytes in all.
            kv_per_sequence: per_sequence,
            kv_shared: shared / f64::from(pp),
            // Residual rows, the rank's heads, and the send and receive buffers of A2F and F2A.
            activation_per_token: per_token(
                16.0 * h + more_streams(model) + head_bytes(model, tp).max(4.0 * topk * h / f64::from(tp)),
                Role::Attention,
            ),
            activation_floor: taken.sampler,
            activation_tokens: taken.tokens,
            graphs: taken.graphs,
            buffers: taken.buffers,
            reserve,
            room: taken.room,
        },
        Memory {
            pool: Pool::Ffn,
            capacity: books.capacity(ffn_device),
            weights: ffn,
            kv_per_sequence: 0.0,
            kv_shared: 0.0,
            // Per token of one attention rank, of any group: its routed copies spread over the pool's GPUs, each on all MoE-TP ranks.
            activation_per_token: per_token(
                topk * copy_bytes(cx, inter) * f64::from(plan.ffn.moe_tp) * f64::from(plan.attention.gpus / tp)
                    / f64::from(plan.ffn.gpus.max(1)),
                Role::Ffn,
            ),
            activation_floor: ffn_taken.sampler,
            // Micro-batches arrive as the attention ranks send them: no budget of its own.
            activation_tokens: 0.0,
            graphs: ffn_taken.graphs,
            buffers: ffn_taken.buffers,
            reserve,
            room: ffn_taken.room,
        },
    )
}
