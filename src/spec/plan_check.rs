//! A plan against a model and a cluster: everything wrong with it at once, each with what would do.

use crate::error::Problems;

use super::hardware::Cluster;
use super::limits::{Check, MANY, nearest_divisors};
use super::model::{Attention, Model};
use super::plan::{AfdPlan, Parallel, Placement, Plan, PoolPlan, Slot, Workers};

/// What a slot is used for.
#[derive(Clone, Copy, PartialEq)]
enum Phase {
    Prefill,
    Decode,
    Both,
}

impl Plan {
    /// Everything that is wrong; paths as the user writes them (`plan.decode.parallel.tp`).
    pub fn check(&self, model: &Model, cluster: &Cluster) -> Problems {
        let mut c = Check::new("plan");
        match self {
            Plan::Aggregated(a) => {
                c.count("replicas", a.replicas, 1, MANY);
                batch(&mut c, "", a.batch, a.chunk_tokens);
                parallel(&mut c, "parallel", &a.parallel, model, Phase::Both);
            }
            Plan::Pd(pd) => {
                slot(&mut c, "prefill", &pd.prefill, model, cluster, Phase::Prefill);
                slot(&mut c, "decode", &pd.decode, model, cluster, Phase::Decode);
            }
            Plan::Afd(a) => afd(&mut c, "", a, model, cluster),
        }
        let gpus = self.gpus();
        // A plan whose parts are out of range has no meaningful size.
        if gpus > cluster.gpus && gpus < u32::MAX {
            let message = format!("needs {gpus} GPUs, the cluster has {}", cluster.gpus);
            c.wrong("", message, format!("{} too many", gpus - cluster.gpus));
        }
        c.problems
    }
}

/// `a.b`, or `b` when there is no `a`.
fn at(prefix: &str, field: &str) -> String {
    if prefix.is_empty() { field.to_string() } else { format!("{prefix}.{field}") }
}

fn batch(c: &mut Check, prefix: &str, batch: Option<u32>, chunk: Option<u32>) {
    c.count_if(&at(prefix, "batch"), batch, 1, 10_000_000);
    c.count_if(&at(prefix, "chunk_tokens"), chunk, 1, 100_000_000);
}

fn slot(c: &mut Check, prefix: &str, slot: &Slot, model: &Model, cluster: &Cluster, phase: Phase) {
    match slot {
        Slot::Workers(w) => workers(c, prefix, w, model, phase),
        Slot::Afd(a) => afd(c, prefix, a, model, cluster),
    }
}

fn workers(c: &mut Check, prefix: &str, w: &Workers, model: &Model, phase: Phase) {
    c.count(&at(prefix, "count"), w.count, 1, MANY);
    batch(c, prefix, w.batch, w.chunk_tokens);
    parallel(c, &at(prefix, "parallel"), &w.parallel, model, phase);
}

fn divides(c: &mut Check, path: &str, value: u32, whole: u32, what: &str) {
    if !whole.is_multiple_of(value) {
        c.wrong(path, format!("{value} does not divide {whole} {what}"), nearest_divisors(value, whole));
    }
}

/// Attention TP: whole heads on each rank, and KV heads either split evenly or copied evenly.
fn attention_tp(c: &mut Check, path: &str, tp: u32, model: &Model) {
    let heads = model.attention.heads();
    if !heads.is_multiple_of(tp) {
        divides(c, path, tp, heads, "attention heads");
    } else if let Attention::Gqa { kv_heads, .. } = &model.attention
        && !kv_heads.is_multiple_of(tp)
        && !tp.is_multiple_of(*kv_heads)
    {
        let message = format!("{tp} neither divides nor is a multiple of {kv_heads} KV heads");
        c.wrong(path, message, nearest_divisors(tp, *kv_heads));
    }
}

fn parallel(c: &mut Check, prefix: &str, p: &Parallel, model: &Model, phase: Phase) {
    let path = |field: &str| at(prefix, field);
    let mut sane = true;
    for (field, value) in [("tp", p.tp), ("dp", p.dp), ("pp", p.pp), ("cp", p.cp), ("moe_tp", p.moe_tp)] {
        sane &= c.count(&path(field), value, 1, MANY);
    }
    sane &= c.count_if(&path("ep"), p.ep, 1, MANY);
    if !sane {
        return;
    }
    attention_tp(c, &path("tp"), p.tp, model);
    if p.pp > model.layers {
        c.wrong(&path("pp"), format!("{} stages for {} layers", p.pp, model.layers), "");
    }
    if p.cp > 1 && phase != Phase::Prefill {
        c.wrong(&path("cp"), "context parallelism is for prefill workers only", "cp=1");
    }
    let stage = u64::from(p.tp) * u64::from(p.dp) * u64::from(p.cp);
    let Some(moe) = &model.moe else {
        dense_model(c, prefix, p, model);
        return;
    };
    divides(c, &path("moe_tp"), p.moe_tp, moe.intermediate, "(the experts' intermediate size)");
    match p.ep {
        Some(ep) => {
            let experts = u64::from(ep) * u64::from(p.moe_tp);
            if experts != stage {
                let message = format!("ep * moe_tp = {experts} but tp * dp * cp = {stage}");
                let hint = if stage.is_multiple_of(u64::from(p.moe_tp)) {
                    format!("did you mean ep={}?", stage / u64::from(p.moe_tp))
                } else {
                    "both count the GPUs of a stage".into()
                };
                c.wrong(&path("ep"), message, hint);
            }
        }
        None => {
            if !stage.is_multiple_of(u64::from(p.moe_tp)) {
                let whole = u32::try_from(stage).unwrap_or(u32::MAX);
                divides(c, &path("moe_tp"), p.moe_tp, whole, "GPUs of a stage (tp * dp * cp)");
            }
        }
    }
    let ep = p.ep.map_or(stage / u64::from(p.moe_tp), u64::from);
    if ep > u64::from(moe.experts) {
        let message = format!("{ep} expert ranks for {} experts", moe.experts);
        c.wrong(&path("ep"), message, "raise moe_tp, or use more and smaller workers");
    }
}

fn dense_model(c: &mut Check, prefix: &str, p: &Parallel, model: &Model) {
    if p.ep.is_some_and(|ep| ep > 1) {
        c.wrong(&at(prefix, "ep"), format!("{} has no experts", model.name), "leave it out");
    }
    if p.moe_tp > 1 {
        c.wrong(&at(prefix, "moe_tp"), format!("{} has no experts", model.name), "a dense FFN is split by tp");
    }
    divides(c, &at(prefix, "tp"), p.tp, model.dense_intermediate, "(the FFN's intermediate size)");
}

fn pool(c: &mut Check, prefix: &str, p: &PoolPlan) -> bool {
    let mut sane = true;
    for (field, value) in [("gpus", p.gpus), ("tp", p.tp), ("moe_tp", p.moe_tp)] {
        sane &= c.count(&at(prefix, field), value, 1, MANY);
    }
    sane &= c.count_if(&at(prefix, "ep"), p.ep, 1, MANY);
    if let Some(device) = &p.device {
        let path = c.path(prefix);
        c.problems.nest(&path, device.check());
    }
    sane
}

fn afd(c: &mut Check, prefix: &str, a: &AfdPlan, model: &Model, cluster: &Cluster) {
    let path = |field: &str| at(prefix, field);
    c.count(&path("units"), a.units, 1, MANY);
    batch(c, prefix, a.batch, a.chunk_tokens);
    let whole = c.count_if(&path("microbatches"), a.microbatches, 1, 64);
    if let (true, Some(m), Some(b)) = (whole, a.microbatches, a.batch)
        && b < m
        && b > 0
    {
        let message = format!("{b} sequences cannot fill {m} micro-batches");
        c.wrong(&path("batch"), message, format!("batch={m}, or microbatches={b}"));
    }
    if pool(c, &path("attention"), &a.attention) {
        let p = &a.attention;
        attention_tp(c, &path("attention.tp"), p.tp, model);
        divides(c, &path("attention.tp"), p.tp, p.gpus, "GPUs of the pool");
        if p.ep.is_some() || p.moe_tp > 1 {
            let field = if p.ep.is_some() { "attention.ep" } else { "attention.moe_tp" };
            c.wrong(&path(field), "the attention pool holds no routed experts", "set it on ffn");
        }
    }
    if pool(c, &path("ffn"), &a.ffn) {
        ffn_pool(c, &path("ffn"), &a.ffn, model);
    }
    if let Some(placement) = &a.placement {
        self::placement(c, &path("placement"), placement, a, cluster);
    }
}

fn ffn_pool(c: &mut Check, prefix: &str, p: &PoolPlan, model: &Model) {
    let path = |field: &str| at(prefix, field);
    if p.tp > 1 {
        c.wrong(&path("tp"), "an FFN pool is split by ep and moe_tp", format!("moe_tp={}", p.tp));
    }
    divides(c, &path("moe_tp"), p.moe_tp, p.gpus, "GPUs of the pool");
    let Some(moe) = &model.moe else {
        divides(c, &path("moe_tp"), p.moe_tp, model.dense_intermediate, "(the FFN's intermediate size)");
        if p.ep.is_some_and(|ep| ep > 1) {
            c.wrong(&path("ep"), format!("{} has no experts", model.name), "leave it out");
        }
        return;
    };
    divides(c, &path("moe_tp"), p.moe_tp, moe.intermediate, "(the experts' intermediate size)");
    if let Some(ep) = p.ep {
        if ep > moe.experts {
            c.wrong(&path("ep"), format!("{ep} expert ranks for {} experts", moe.experts), "");
        }
        let group = u64::from(ep) * u64::from(p.moe_tp);
        if !u64::from(p.gpus).is_multiple_of(group) {
            let message = format!("groups of ep * moe_tp = {group} do not fill {} GPUs", p.gpus);
            c.wrong(&path("ep"), message, nearest_divisors(ep, (p.gpus / p.moe_tp).max(1)));
        }
    }
}

fn placement(c: &mut Check, prefix: &str, placement: &Placement, a: &AfdPlan, cluster: &Cluster) {
    let pools = [
        ("attention", &placement.attention, Some(a.attention.gpus.saturating_mul(a.units))),
        ("ffn", &placement.ffn, Some(a.ffn.gpus.saturating_mul(a.units))),
        ("prefill", &placement.prefill, None),
        ("decode", &placement.decode, None),
    ];
    let mut seen = std::collections::BTreeMap::new();
    for (name, ids, wanted) in pools {
        let path = at(prefix, name);
        if let Some(n) = wanted
            && ids.len() != n as usize
        {
            c.wrong(&path, format!("names {} GPUs, the pool has {n}", ids.len()), "");
        }
        if let Some(id) = ids.iter().find(|id| **id >= cluster.gpus) {
            c.wrong(&path, format!("GPU {id} is not one of 0..{}", cluster.gpus), "");
        }
        let twice = ids.iter().find_map(|id| seen.insert(*id, name).map(|other| (*id, other)));
        if let Some((id, other)) = twice {
            let message =
                if other == name { format!("GPU {id} is named twice") } else { format!("GPU {id} is also in {other}") };
            c.wrong(&path, message, "");
        }
    }
}
