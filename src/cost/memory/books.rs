//! Whose book-keeping memory is counted by: a server's own, or a published planner's.
//!
//! A set of assumptions means one of three books (switch `activations`), chosen once; what they share is in `memory`, the
//! published formulas in `published`. Source: physics.md section 4.
//!
//! Limit: three books; memory managers of other servers, fragmentation and what a driver takes are only in the reserve.

use super::context::{Context, Weights};
use super::server::{self, Layout, Overhead, Room};
use crate::cost::published::{self, Role};
use crate::spec::assumptions::Activations;
use crate::spec::dtype::Dtype;
use crate::spec::{Attention, Device, Framework, Model, Parallel, servers};
use crate::units::{GIB, MIB};

/// The rank whose activations are counted.
pub(super) struct Rank {
    pub role: Role,
    pub tp: u32,
    /// Attention ranks whose tokens its experts see.
    pub ranks: f64,
    pub ep: u32,
    /// GPUs of its pool.
    pub gpus: u32,
}

/// What the books differ in. As written here: those of the published planners.
pub(super) trait Books: Sync {
    fn capacity(&self, device: &Device) -> f64 {
        device.hbm_bytes
    }

    fn embedding(&self, model: &Model, tp: f64) -> f64 {
        model.embedding_bytes() / tp
    }

    /// `with_head`: whether a head is counted for a GQA model.
    fn head(&self, model: &Model, tp: f64, with_head: bool) -> f64;

    /// One routed expert.
    fn expert(&self, cx: &Context<'_>) -> f64 {
        cx.model.expert_weight_bytes(cx.quant)
    }

    /// KV of a token and layer of latent attention, where it is counted otherwise than it is laid out.
    fn latent_kv(&self, _: &Model, _kv: f64) -> Option<f64> {
        None
    }

    /// The weights of a worker as they are added up.
    fn of_worker(&self, _: &Context<'_>, _: &Parallel, w: Weights) -> Weights {
        w
    }

    /// Ranks of the FFN pool of a unit with attention TP.
    fn pool_ranks(&self, tp: u32, _gpus: u32) -> u32 {
        tp
    }

    /// Activation bytes of a token in flight; `own`: the rows that are alive.
    fn activation(&self, cx: &Context<'_>, own: f64, rank: &Rank) -> f64;

    /// Least activations, however few tokens are in flight.
    fn sampler(&self, _: &Context<'_>) -> f64 {
        0.0
    }

    /// Memory kept for the framework.
    fn reserve(&self, cx: &Context<'_>) -> f64 {
        let gib = cx.serving.framework_reserve_gib.unwrap_or(published::RESERVE_GIB);
        gib * GIB * published::reserve_factor(cx.framework)
    }

    /// What is taken beside weights and KV.
    fn overhead(&self, cx: &Context<'_>, _: &Layout, nccl_ranks: u32) -> Overhead {
        let buffers = buffers(nccl_ranks);
        Overhead { room: Room::All, sampler: self.sampler(cx), tokens: 0.0, graphs: 0.0, buffers }
    }
}

impl Context<'_> {
    pub(super) fn books(&self) -> &'static dyn Books {
        match self.assumptions.activations {
            Activations::AliveRows => &OfServer,
            Activations::Coefficients => &OfPaper,
            Activations::Framework => &OfAiconfigurator,
        }
    }
}

/// Memory as the server has it.
struct OfServer;

impl Books for OfServer {
    fn capacity(&self, device: &Device) -> f64 {
        device.reported_bytes()
    }

    fn embedding(&self, model: &Model, tp: f64) -> f64 {
        model.embedding_bytes() / tp + servers::tower_bytes(&model.name)
    }

    fn head(&self, model: &Model, tp: f64, _: bool) -> f64 {
        model.head_bytes() / tp
    }

    fn expert(&self, cx: &Context<'_>) -> f64 {
        padded_expert(cx)
    }

    fn activation(&self, _: &Context<'_>, own: f64, _: &Rank) -> f64 {
        own
    }

    /// Servers have their fraction; what the user sets comes on top.
    fn reserve(&self, cx: &Context<'_>) -> f64 {
        cx.serving.framework_reserve_gib.unwrap_or(0.0) * GIB
    }

    fn overhead(&self, cx: &Context<'_>, layout: &Layout, _: u32) -> Overhead {
        server::overhead(cx, layout)
    }
}

/// The coefficients of the public code behind arXiv 2605.28302.
struct OfPaper;

impl Books for OfPaper {
    /// The embedding is counted once, tied or not.
    fn head(&self, _: &Model, _: f64, _: bool) -> f64 {
        0.0
    }

    fn activation(&self, cx: &Context<'_>, _: f64, rank: &Rank) -> f64 {
        published::activation_per_token(cx.model, rank.role, rank.tp, rank.ranks, rank.ep, cx.framework)
    }
}

/// aiconfigurator 0.12.
struct OfAiconfigurator;

impl Books for OfAiconfigurator {
    /// It splits the table of GQA models only.
    fn embedding(&self, model: &Model, tp: f64) -> f64 {
        if model.is_mla() { model.embedding_bytes() } else { model.embedding_bytes() / tp }
    }

    /// The operators that it adds up are those of prefill, and GQA's have no head there.
    fn head(&self, model: &Model, tp: f64, with_head: bool) -> f64 {
        if model.is_mla() || with_head { model.head_bytes() / tp } else { 0.0 }
    }

    fn latent_kv(&self, model: &Model, kv: f64) -> Option<f64> {
        published::framework_latent_kv(model, kv)
    }

    /// Of sglang's wide EP (experts beyond one node, no MoE-TP) it adds up other operators.
    fn of_worker(&self, cx: &Context<'_>, p: &Parallel, w: Weights) -> Weights {
        let wide = cx.framework == Framework::Sglang
            && cx.model.is_mla()
            && p.dp > 1
            && p.moe_tp == 1
            && p.stage_gpus() > cx.node_gpus;
        if wide { without_ends(w, cx.model) } else { w }
    }

    /// It takes the FFN pool for one replica of TP over all its GPUs.
    fn pool_ranks(&self, _: u32, gpus: u32) -> u32 {
        gpus
    }

    fn activation(&self, cx: &Context<'_>, _: f64, rank: &Rank) -> f64 {
        let of = |tp, ranks, ep| published::framework_activation(cx.model, tp, ranks, ep, cx.framework);
        match rank.role {
            Role::Whole => of(rank.tp, rank.ranks, rank.ep),
            Role::Attention => of(rank.tp, 1.0, 1),
            Role::Ffn => rank.ranks * of(rank.gpus, 1.0, rank.ep),
        }
    }

    fn sampler(&self, cx: &Context<'_>) -> f64 {
        published::framework_activation_floor(cx.framework)
    }
}

/// One routed expert as the framework stores it: padded for its kernels, and with its biases where it has any.
fn padded_expert(cx: &Context<'_>) -> f64 {
    let plain = cx.model.expert_weight_bytes(cx.quant);
    let padding = servers::servers().padding.iter().find(|p| p.formats.contains(&cx.formats.moe));
    let (Some(moe), Some(padding)) = (&cx.model.moe, padding) else { return plain };
    let to = if cx.device.is_blackwell() { padding.blackwell } else { padding.hopper };
    let [h, i] = [moe_size(cx.model.hidden, to[0]), moe_size(moe.intermediate, to[1])];
    let biases = if padding.biases { (2.0 * i + h) * Dtype::Bf16.weight_bytes() } else { 0.0 };
    3.0 * h * i * cx.formats.moe.weight_bytes() + biases
}

fn moe_size(size: u32, multiple: u32) -> f64 {
    f64::from(size.next_multiple_of(multiple))
}

/// NCCL buffers by ranks (342 MiB at 2, 392 MiB from 4 on): physics.md section 4.
fn buffers(ranks: u32) -> f64 {
    match ranks {
        0 | 1 => 0.0,
        2 | 3 => 342.0 * MIB,
        _ => 392.0 * MIB,
    }
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
