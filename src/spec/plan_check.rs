//! What is wrong with a plan: alone (ranges), and against a model and a cluster (divisibility, fit).
//! All problems at once, each with what would do.
//!
//! Limit: divisibility and counts; memory is the engine's to judge, and servers' rules are `rules`'.

use std::collections::BTreeMap;

use crate::error::Problems;

use super::attention::Attention;
use super::hardware::Cluster;
use super::level::Role;
use super::limits::{Check, MANY, nearest_divisors};
use super::model::Model;
use super::plan::{AfdPlan, Aggregated, Parallel, PdPlan, Placement, Plan, PoolPlan, Slot, Workers};

/// Gives the parts of a plan a `check` of their own, for the moment they are built.
macro_rules! checks {
    ($($part:ty => $check:ident),* $(,)?) => { $(
        impl $part {
            /// What is wrong with it alone, whatever the model; paths are relative to it.
            pub fn check(&self) -> Problems {
                let mut c = Check::new();
                $check(&mut c, self);
                c.problems
            }
        }
    )* };
}

checks! {
    Parallel => parallel,
    Workers => workers,
    Aggregated => aggregated,
    PdPlan => pd,
    AfdPlan => afd_part,
    PoolPlan => pool,
    Placement => placement,
}

impl Plan {
    /// Everything that is wrong; paths as the user writes them (`plan.decode.parallel.tp`).
    pub fn check(&self, model: &Model, cluster: &Cluster) -> Problems {
        let mut c = Check::under("plan");
        match self {
            Plan::Aggregated(a) => {
                if aggregated(&mut c, a) {
                    c.within("parallel", |c| fit_parallel(c, &a.parallel, model, Role::Both));
                }
            }
            Plan::Pd(p) => {
                c.within("prefill", |c| fit_slot(c, &p.prefill, model, cluster, Role::Prompts));
                c.within("decode", |c| fit_slot(c, &p.decode, model, cluster, Role::Decode));
            }
            Plan::Afd(a) => fit_afd(&mut c, a, model, cluster, Role::Both),
        }
        let gpus = self.gpus();
        // A plan whose parts are out of range has no meaningful size.
        if c.problems.is_empty() && gpus > cluster.gpus {
            let message = format!("needs {gpus} GPUs, the cluster has {}", cluster.gpus);
            c.wrong("", message, format!("{} too many", gpus - cluster.gpus));
        }
        c.problems
    }
}

// --- alone ---------------------------------------------------------------------------------------

fn batch(c: &mut Check, batch: Option<u32>, chunk: Option<u32>) -> bool {
    c.count_if("batch", batch, 1, 10_000_000) & c.count_if("chunk_tokens", chunk, 1, 100_000_000)
}

fn parallel(c: &mut Check, p: &Parallel) -> bool {
    let fields = [("tp", p.tp), ("dp", p.dp), ("pp", p.pp), ("cp", p.cp), ("moe_tp", p.moe_tp)];
    let good = fields.iter().fold(true, |good, (field, value)| c.count(field, *value, 1, MANY) & good);
    good & c.count_if("ep", p.ep, 1, MANY)
}

fn workers(c: &mut Check, w: &Workers) -> bool {
    let good = c.count("count", w.count, 1, MANY) & batch(c, w.batch, w.chunk_tokens);
    c.within("parallel", |c| parallel(c, &w.parallel)) & good
}

fn aggregated(c: &mut Check, a: &Aggregated) -> bool {
    let good = c.count("replicas", a.replicas, 1, MANY)
        & batch(c, a.batch, a.chunk_tokens)
        & c.count_if("prefill_interval", a.prefill_interval, 1, 1000);
    c.within("parallel", |c| parallel(c, &a.parallel)) & good
}

fn pd(c: &mut Check, p: &PdPlan) -> bool {
    let slot = |c: &mut Check, s: &Slot, role| match s {
        Slot::Workers(w) => workers(c, w),
        Slot::Afd(a) => afd(c, a, role),
    };
    c.within("prefill", |c| slot(c, &p.prefill, Role::Prompts))
        & c.within("decode", |c| slot(c, &p.decode, Role::Decode))
}

fn pool(c: &mut Check, p: &PoolPlan) -> bool {
    let fields = [("gpus", p.gpus), ("tp", p.tp), ("moe_tp", p.moe_tp)];
    let good = fields.iter().fold(true, |good, (field, value)| c.count(field, *value, 1, MANY) & good);
    let good = c.count_if("ep", p.ep, 1, MANY) & good;
    let Some(device) = &p.device else { return good };
    let inner = device.check();
    let sound = inner.is_empty();
    let path = c.path("device");
    c.problems.nest(&path, inner);
    good & sound
}

/// Which slot it will stand in is not known yet: what any slot would refuse.
fn afd_part(c: &mut Check, a: &AfdPlan) -> bool {
    afd(c, a, Role::Prompts)
}

fn afd(c: &mut Check, a: &AfdPlan, role: Role) -> bool {
    let mut good = c.count("units", a.units, 1, MANY) & batch(c, a.batch, a.chunk_tokens);
    good &= c.count_if("microbatches", a.microbatches, 1, 64);
    good &= c.count_if("prefill_interval", a.prefill_interval, 1, 1000);
    good &= c.count("attention_groups", a.attention_groups, 1, 64) & c.count("pp", a.pp, 1, MANY);
    good &= c.within("attention", |c| pool(c, &a.attention));
    good &= c.within("ffn", |c| pool(c, &a.ffn));
    if let Some(p) = &a.placement {
        good &= c.within("placement", |c| placement(c, p));
    }
    if let (true, Some(m), Some(b)) = (good, a.microbatches, a.batch)
        && b < m
        // The chunks of one prompt fill the micro-batches of a prefill slot.
        && role != Role::Prompts
    {
        let message = format!("{b} sequences cannot fill {m} micro-batches");
        c.wrong("batch", message, format!("batch={m}, or microbatches={b}"));
        good = false;
    }
    good
}

fn pools(p: &Placement) -> [(&'static str, &Vec<u32>); 4] {
    [("attention", &p.attention), ("ffn", &p.ffn), ("prefill", &p.prefill), ("decode", &p.decode)]
}

fn placement(c: &mut Check, p: &Placement) -> bool {
    let mut good = true;
    let mut seen = BTreeMap::new();
    for (name, ids) in pools(p) {
        if let Some((id, other)) = ids.iter().find_map(|id| seen.insert(*id, name).map(|other| (*id, other))) {
            let where_else = if other == name { "named twice".to_string() } else { format!("also in {other}") };
            c.wrong(name, format!("GPU {id} is {where_else}"), "");
            good = false;
        }
    }
    good
}

// --- against a model and a cluster -----------------------------------------------------------------

fn fit_slot(c: &mut Check, slot: &Slot, model: &Model, cluster: &Cluster, role: Role) {
    match slot {
        Slot::Workers(w) => {
            if workers(c, w) {
                c.within("parallel", |c| fit_parallel(c, &w.parallel, model, role));
            }
        }
        Slot::Afd(a) => fit_afd(c, a, model, cluster, role),
    }
}

fn divides(c: &mut Check, field: &str, value: u32, whole: u32, what: &str) {
    if !whole.is_multiple_of(value) {
        c.wrong(field, format!("{value} does not divide {whole} {what}"), nearest_divisors(value, whole));
    }
}

/// Attention TP: whole heads on each rank, and KV heads either split evenly or copied evenly.
fn attention_tp(c: &mut Check, tp: u32, model: &Model) {
    let heads = model.attention.heads();
    if !heads.is_multiple_of(tp) {
        divides(c, "tp", tp, heads, "attention heads");
    } else if let Attention::Gqa { kv_heads, .. } = &model.attention
        && !kv_heads.is_multiple_of(tp)
        && !tp.is_multiple_of(*kv_heads)
    {
        let message = format!("{tp} neither divides nor is a multiple of {kv_heads} KV heads");
        c.wrong("tp", message, nearest_divisors(tp, *kv_heads));
    }
    for mixer in &model.mixers {
        let (heads, what) = mixer.heads();
        if model.attention.heads().is_multiple_of(tp) {
            divides(c, "tp", tp, heads, what);
        }
    }
}

fn fit_parallel(c: &mut Check, p: &Parallel, model: &Model, role: Role) {
    attention_tp(c, p.tp, model);
    if p.pp > model.layers {
        c.wrong("pp", format!("{} stages for {} layers", p.pp, model.layers), "");
    }
    if p.cp > 1 && role != Role::Prompts {
        c.wrong("cp", "context parallelism is for prefill workers only", "cp=1");
    }
    let Some(moe) = &model.moe else {
        no_experts(c, p.ep, model);
        if p.moe_tp > 1 {
            c.wrong("moe_tp", format!("{} has no experts", model.name), "a dense FFN is split by tp");
        }
        divides(c, "tp", p.tp, model.dense_intermediate, "(the FFN's intermediate size)");
        return;
    };
    divides(c, "moe_tp", p.moe_tp, moe.intermediate, "(the experts' intermediate size)");
    let stage = u64::from(p.tp) * u64::from(p.dp) * u64::from(p.cp);
    let moe_tp = u64::from(p.moe_tp);
    let ep = match p.ep {
        Some(ep) => {
            let ep = u64::from(ep);
            if ep * moe_tp != stage {
                let message = format!("ep * moe_tp = {} but tp * dp * cp = {stage}", ep * moe_tp);
                let hint = if stage.is_multiple_of(moe_tp) {
                    format!("did you mean ep={}?", stage / moe_tp)
                } else {
                    "both count the GPUs of a stage".into()
                };
                c.wrong("ep", message, hint);
            }
            ep
        }
        None => {
            if !stage.is_multiple_of(moe_tp) {
                let whole = u32::try_from(stage).unwrap_or(u32::MAX);
                divides(c, "moe_tp", p.moe_tp, whole, "GPUs of a stage (tp * dp * cp)");
            }
            stage / moe_tp
        }
    };
    if ep > u64::from(moe.experts) {
        let message = format!("{ep} expert ranks for {} experts", moe.experts);
        c.wrong("ep", message, "raise moe_tp, or use more and smaller workers");
    }
}

fn no_experts(c: &mut Check, ep: Option<u32>, model: &Model) {
    if ep.is_some_and(|ep| ep > 1) {
        c.wrong("ep", format!("{} has no experts", model.name), "leave it out");
    }
}

fn fit_afd(c: &mut Check, a: &AfdPlan, model: &Model, cluster: &Cluster, role: Role) {
    if !afd(c, a, role) {
        return;
    }
    c.within("attention", |c| {
        let p = &a.attention;
        attention_tp(c, p.tp, model);
        divides(c, "tp", p.tp, p.gpus, "GPUs of the pool");
        for (field, set) in [("ep", p.ep.is_some()), ("moe_tp", p.moe_tp > 1)] {
            if set {
                c.wrong(field, "the attention pool holds no routed experts", "set it on ffn");
            }
        }
    });
    c.within("ffn", |c| fit_ffn(c, &a.ffn, model));
    groups(c, a);
    if a.pp > model.layers {
        c.wrong("pp", format!("{} stages for {} layers", a.pp, model.layers), format!("at most {}", model.layers));
    }
    if let Some(p) = &a.placement {
        let sizes = [Some(a.attention.gpus), Some(a.ffn.gpus), None, None];
        c.within("placement", |c| {
            for ((name, ids), size) in pools(p).into_iter().zip(sizes) {
                if let Some(id) = ids.iter().find(|id| **id >= cluster.gpus) {
                    c.wrong(name, format!("GPU {id} is not one of 0..{}", cluster.gpus), "");
                }
                let wanted = size.map(|s| s as usize * a.stages() as usize);
                if wanted.is_some_and(|n| n != ids.len()) {
                    let wanted = wanted.unwrap_or_default();
                    c.wrong(name, format!("names {} GPUs, the pool has {wanted}", ids.len()), "");
                }
            }
        });
    }
}

/// Attention groups: whole ranks in each.
fn groups(c: &mut Check, a: &AfdPlan) {
    let (groups, pool) = (a.attention_groups, &a.attention);
    if groups > 1 && pool.gpus.is_multiple_of(pool.tp) && !pool.ranks().is_multiple_of(groups) {
        let message = format!("{groups} groups do not share {} attention ranks of tp={} evenly", pool.ranks(), pool.tp);
        c.wrong("attention_groups", message, nearest_divisors(groups, pool.ranks()));
    }
}

fn fit_ffn(c: &mut Check, p: &PoolPlan, model: &Model) {
    if p.tp > 1 {
        c.wrong("tp", "an FFN pool is split by ep and moe_tp", format!("moe_tp={}", p.tp));
    }
    divides(c, "moe_tp", p.moe_tp, p.gpus, "GPUs of the pool");
    let Some(moe) = &model.moe else {
        divides(c, "moe_tp", p.moe_tp, model.dense_intermediate, "(the FFN's intermediate size)");
        return no_experts(c, p.ep, model);
    };
    divides(c, "moe_tp", p.moe_tp, moe.intermediate, "(the experts' intermediate size)");
    let Some(ep) = p.ep else { return };
    if ep > moe.experts {
        c.wrong("ep", format!("{ep} expert ranks for {} experts", moe.experts), "");
    }
    let group = u64::from(ep) * u64::from(p.moe_tp);
    if !u64::from(p.gpus).is_multiple_of(group) {
        let message = format!("groups of ep * moe_tp = {group} do not fill {} GPUs", p.gpus);
        c.wrong("ep", message, nearest_divisors(ep, (p.gpus / p.moe_tp).max(1)));
    }
}
