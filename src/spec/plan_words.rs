//! Plans in words: who does what with which GPUs.
//!
//! Limit: English only; what a plan leaves open is left out.

use super::hardware::Device;
use super::plan::{AfdPlan, Parallel, Plan, Slot, Workers};

fn count(n: u32, thing: &str) -> String {
    format!("{n} {thing}{}", if n == 1 { "" } else { "s" })
}

fn split(p: &Parallel) -> String {
    let named = |list: &[(&str, u32)]| {
        let wide: Vec<String> = list.iter().filter(|(_, n)| *n > 1).map(|(name, n)| format!("{name}{n}")).collect();
        if wide.is_empty() { "whole".to_string() } else { wide.join(" ") }
    };
    let attention = named(&[("TP", p.tp), ("DP", p.dp), ("CP", p.cp), ("PP", p.pp)]);
    let experts = named(&[("EP", p.ep()), ("TP", p.moe_tp)]);
    format!("{} (attention {attention}, experts {experts})", count(p.gpus(), "GPU"))
}

fn load(batch: Option<u32>, chunk: Option<u32>) -> String {
    let tokens = chunk.map(|c| format!("{c} tokens a step"));
    let batch = batch.map(|b| format!("{b} a rank"));
    [batch, tokens].into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// Hardware of a role's own.
fn on(device: Option<&Device>) -> String {
    device.map_or(String::new(), |d| format!(" on {}", d.name))
}

fn unit(p: &AfdPlan) -> String {
    let ffn = if p.ffn.moe_tp > 1 { format!(" in groups of TP{}", p.ffn.moe_tp) } else { String::new() };
    let stages = if p.pp > 1 { format!(" in {} pipeline stages", p.pp) } else { String::new() };
    let groups =
        if p.attention_groups > 1 { format!(", {} attention groups", p.attention_groups) } else { String::new() };
    let parts = count(p.microbatches.unwrap_or(1), "micro-batch").replace("chs", "ches");
    format!(
        "{} of {}A (TP{}){} + {}F{ffn}{}{stages}{groups}, {parts}",
        count(p.units, "unit"),
        p.attention.gpus,
        p.attention.tp,
        on(p.attention.device.as_ref()),
        p.ffn.gpus,
        on(p.ffn.device.as_ref()),
    )
}

fn joined(head: String, load: String, overlap: bool, every: Option<u32>) -> String {
    let overlap = if overlap { "two batches that overlap".to_string() } else { String::new() };
    let every = every.filter(|n| *n > 1).map_or(String::new(), |n| format!("prompts every {n} steps"));
    [head, load, overlap, every].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(", ")
}

impl Workers {
    /// In words.
    pub fn words(&self) -> String {
        let head = format!("{} of {}{}", count(self.count, "worker"), split(&self.parallel), on(self.device.as_ref()));
        joined(head, load(self.batch, self.chunk_tokens), self.two_batch_overlap == Some(true), None)
    }
}

impl Slot {
    /// In words.
    pub fn words(&self) -> String {
        match self {
            Slot::Workers(w) => w.words(),
            Slot::Afd(a) => a.words(),
        }
    }
}

impl AfdPlan {
    /// In words.
    pub fn words(&self) -> String {
        joined(unit(self), load(self.batch, self.chunk_tokens), false, self.prefill_interval)
    }
}

impl Plan {
    /// In words.
    pub fn words(&self) -> String {
        match self {
            Plan::Pd(p) => format!("prefill {}; decode {}", p.prefill.words(), p.decode.words()),
            Plan::Afd(a) => a.words(),
            Plan::Aggregated(a) => {
                let head = format!("{} of {}", count(a.replicas, "replica"), split(&a.parallel));
                let overlap = a.two_batch_overlap == Some(true);
                joined(head, load(a.batch, a.chunk_tokens), overlap, a.prefill_interval)
            }
        }
    }
}
