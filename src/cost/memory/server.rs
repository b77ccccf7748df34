//! Room that a server leaves for KV on one GPU: its memory fraction and what it counts inside (physics.md section 4).
//!
//! | law | KV room |
//! |---|---|
//! | of-total (vLLM) | f C - weights - activations - communicators (- CUDA graphs) |
//! | of-free-before (SGLang) | f (C - context - communicators) - weights |
//! | of-free-after (TensorRT-LLM) | f (C - context - communicators - weights - activations) |
//!
//! C: capacity as the driver reports it. Activations are those of the server's profile run: the larger of a step at
//! its token budget and of its sampler on `max_num_seqs` rows of logits, one after the other. Sources:
//! `serving/defaults.json`. Limits: a server of a version that is not known (a fraction was given by hand
//! that is not the newest version's default) is charged the most of any version.

use super::context::Context;
use crate::spec::servers::{self, Law, Server};
use crate::spec::{Device, Parallel};
use crate::units::{GIB, MIB};

/// Which part of a device is not for weights, KV, activations and buffers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Room {
    /// All of the device is for them (published formulas, devices without a server).
    All,
    /// Share f of the capacity; at least `least` bytes stay outside.
    OfTotal {
        fraction: f64,
        least: f64,
    },
    OfFreeBefore {
        fraction: f64,
        context: f64,
        graphs: f64,
    },
    OfFreeAfter {
        fraction: f64,
        context: f64,
        graphs: f64,
    },
}

/// What a server takes beside weights and KV, bytes per GPU.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Overhead {
    pub room: Room,
    /// Least activations: the sampler's.
    pub sampler: f64,
    /// Tokens that the profile run has at least.
    pub tokens: f64,
    /// CUDA graphs inside the fraction.
    pub graphs: f64,
    pub buffers: f64,
}

/// The layout that a server runs.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    /// GPUs that talk to one another.
    pub gpus: u32,
    pub tp: u32,
    pub dp: u32,
    pub pp: u32,
    /// Experts apart from attention ranks, over so many GPUs.
    pub ep: u32,
    pub layers: f64,
    /// Whether logits are computed here.
    pub head: bool,
}

impl Layout {
    pub(crate) fn of(p: &Parallel, layers: u32) -> Layout {
        let layers = f64::from(layers.div_ceil(p.pp));
        Layout { gpus: p.gpus(), tp: p.tp, dp: p.dp * p.cp, pp: p.pp, ep: p.ep(), layers, head: true }
    }
}

/// Of the server that a question means: the newest version known; the one that takes most where another fraction than
/// its default was given by hand, since the version is not known then.
pub(crate) fn overhead(cx: &Context<'_>, layout: &Layout) -> Overhead {
    let all = servers::versions(cx.framework);
    let none = Overhead { room: Room::All, sampler: 0.0, tokens: 0.0, graphs: 0.0, buffers: 0.0 };
    if !cx.device.is_gpu() {
        let room = cx.serving.memory_fraction.map_or(Room::All, |fraction| Room::OfTotal { fraction, least: 0.0 });
        return Overhead { room, ..none };
    }
    let of = |server: &Server| overhead_of(cx, layout, server);
    let newest = all.last();
    let asked = cx.serving.memory_fraction;
    if asked.is_none() || asked == newest.and_then(|s| s.fraction) {
        return newest.map_or(none, of);
    }
    all.iter().map(of).max_by(|a, b| (a.sampler + a.graphs).total_cmp(&(b.sampler + b.graphs))).unwrap_or(none)
}

/// Of one range of versions.
pub(crate) fn overhead_of(cx: &Context<'_>, layout: &Layout, server: &Server) -> Overhead {
    let data = servers::servers();
    let capacity = cx.device.reported_bytes();
    let context = data.context_gib.value * GIB;
    let graphs = server.graph_mib_per_layer * layout.layers * MIB;
    let buffers = communicators(cx, layout);
    let fraction = cx.serving.memory_fraction.or(server.fraction).unwrap_or_else(|| formula(cx, layout, server));
    let (inside, outside) = if server.graphs_inside { (graphs, 0.0) } else { (0.0, graphs) };
    let room = match server.law {
        Law::OfTotal => Room::OfTotal { fraction, least: (context + outside).min(capacity) },
        Law::OfFreeBefore => {
            let graphs = graph_reserve(cx, layout, server).unwrap_or(outside);
            Room::OfFreeBefore { fraction, context, graphs }
        }
        Law::OfFreeAfter => Room::OfFreeAfter { fraction, context, graphs: outside },
    };
    let words = server.sampler_words + if layout.tp > 1 { server.gathered_words } else { 0.0 };
    let rows = f64::from(server.max_num_seqs) * f64::from(cx.model.vocab);
    Overhead {
        room,
        sampler: if layout.head && server.sampler_words > 0.0 { 4.0 * words * rows } else { 0.0 },
        tokens: budget(cx.device, layout, server),
        graphs: inside,
        buffers,
    }
}

/// Tokens of one step and rank that the server is set up for.
pub(crate) fn budget(device: &Device, layout: &Layout, server: &Server) -> f64 {
    let gib = device.reported_bytes() / GIB;
    let all = server.formula.as_ref().and_then(|f| f.bucket(gib)).map_or(f64::from(server.budget_tokens), |b| b.tokens);
    if server.budget_of_worker { (all / f64::from(layout.dp.max(1))).floor().max(1.0) } else { all }
}

fn captured(cx: &Context<'_>, layout: &Layout, server: &Server) -> Option<f64> {
    let bucket = server.formula.as_ref()?.bucket(cx.device.reported_bytes() / GIB)?;
    // SGLang's tensor-parallel size is all of a worker.
    Some(if layout.gpus < 4 { bucket.graph_batch } else { bucket.graph_batch_tp4 })
}

fn graph_reserve(cx: &Context<'_>, layout: &Layout, server: &Server) -> Option<f64> {
    let formula = server.formula.as_ref()?;
    Some(captured(cx, layout, server)? * formula.per_graph_batch_mib * MIB)
}

/// SGLang's `mem_fraction_static`: what is left of the device beside its estimate of activations and graphs.
fn formula(cx: &Context<'_>, layout: &Layout, server: &Server) -> f64 {
    let Some(f) = server.formula.as_ref() else { return 1.0 };
    let mib = cx.device.reported_bytes() / MIB;
    let (Some(batch), Some(bucket)) = (captured(cx, layout, server), f.bucket(mib / 1024.0)) else { return 1.0 };
    if layout.dp > cx.node_gpus {
        return f.wide_fraction;
    }
    let mut reserved = f.meta_mib
        + bucket.tokens.max(f.least_tokens) * f.per_token_mib
        + batch * f.per_graph_batch_mib
        + f64::from(layout.gpus) * f.per_gpu_mib;
    if layout.dp > 1 {
        let large = if batch > f.dp_large_from { f.dp_large_per_batch_mib } else { 0.0 };
        reserved += batch * f64::from(layout.dp) * (f.dp_per_batch_mib + large);
    }
    if mib > f.least_from_gib * 1024.0 {
        reserved = reserved.max(f.least_mib);
    }
    if cx.serving.mtp > 0 {
        reserved += f.draft_mib;
    }
    ((mib - reserved) / mib).max(0.0)
}

/// Communicators and the buffers of the all-to-all kernels that a layout uses.
fn communicators(cx: &Context<'_>, layout: &Layout) -> f64 {
    let data = &servers::servers().communicators;
    if layout.gpus <= 1 {
        return data.alone_gib * GIB;
    }
    let group = if cx.device.is_blackwell() { data.blackwell_gib } else { data.hopper_gib } * GIB;
    group + exchange(cx, layout)
}

/// DeepEP's low-latency buffers where experts span nodes, TensorRT-LLM's one-sided workspace where attention ranks
/// share experts inside an NVLink domain.
fn exchange(cx: &Context<'_>, layout: &Layout) -> f64 {
    let (Some(moe), true) = (&cx.model.moe, layout.dp > 1 && layout.ep > 1) else { return 0.0 };
    let data = &servers::servers().exchange;
    if let Some(mib) = data.one_sided_mib.get(&cx.framework) {
        return mib * MIB;
    }
    let Some(tokens) = data.low_latency_tokens.get(&cx.framework).filter(|_| layout.ep > cx.node_gpus) else {
        return 0.0;
    };
    // deep_ep, get_low_latency_rdma_size_hint: two sets of send and receive buffers.
    let (hidden, experts, tokens) = (f64::from(cx.model.hidden), f64::from(moe.experts), f64::from(*tokens));
    let dispatch = 16.0 + (2.0 * hidden).max(hidden + 4.0 * (hidden / 128.0));
    let combine = 2.0 * hidden;
    let send = (tokens * dispatch).max(experts * tokens * combine);
    let receive = (experts * tokens * dispatch).max(experts * tokens * combine);
    2.0 * (send + receive + 4.0 * experts)
}
