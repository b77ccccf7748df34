//! What fits a plan's memory as its servers count it: KV tokens, requests, and what is short where nothing does.
//!
//! Limit: sequences of the mean final length; blocks that are begun and fragmentation are not counted.

use super::choose;
use super::engine::{Compiled, Engine};
use super::steady_state::Binding;
use super::step_engine::StepEngine;
use crate::cost::Item;
use crate::error::{Error, Result};
use crate::spec::{Plan, PlanPool};

impl Engine {
    /// Who holds the KV of decoding requests, how often, and tokens in flight on one of its ranks. P/D: the decode
    /// slot; AFD: the attention pool.
    fn kv_holder(&self) -> (&StepEngine, u32, f64) {
        match (&self.compiled, &self.plan) {
            (Compiled::Mixed { engine, replicas }, plan) => {
                let chunk = match plan {
                    Plan::Aggregated(a) => a.chunk_tokens,
                    Plan::Afd(a) => a.chunk_tokens,
                    Plan::Pd(_) => None,
                };
                (engine, *replicas, chunk.map_or(0.0, f64::from))
            }
            (Compiled::Pd { decode, decode_count, .. }, _) => (decode, *decode_count, 1.0),
        }
    }

    /// KV tokens that fit one attention rank (of all its pipeline stages), in sequences of the workload's mean
    /// final length.
    pub fn kv_tokens(&self) -> f64 {
        let (holder, _, tokens) = self.kv_holder();
        holder.kv_tokens(tokens, self.workload.mean_final_tokens()).0.floor()
    }

    /// Requests of the workload's lengths that fit the deployment's memory at a time.
    pub fn max_sequences(&self) -> f64 {
        let (holder, count, tokens) = self.kv_holder();
        let most = choose::most_sequences(holder, tokens).max(0.0) * holder.stages_in_flight();
        (most.floor() * holder.ranks() * f64::from(count)).floor()
    }

    /// `Ok` for a plan that stands; else which pool is short, what it needs and what it may have.
    pub fn must_stand(&self) -> Result<()> {
        if self.point.stands() {
            return Ok(());
        }
        let (need, have) = match self.point.binding {
            Binding::Memory(_) => self.shortfall(),
            _ => ("sizes that divide".to_string(), self.point.binding.label()),
        };
        Err(Error::Infeasible { reason: self.point.binding.label(), need, have })
    }

    /// Of the GPU that lacks most: what it needs and what the server may fill.
    fn shortfall(&self) -> (String, String) {
        let rows = self.memory();
        let of = |pool, item| rows.iter().find(|r| r.pool == pool && r.item == item).map_or(0.0, |r| r.gib);
        let uses = |pool| rows.iter().filter(move |r| r.pool == pool && r.item.is_use());
        let need = |pool| -> f64 { uses(pool).map(|r| r.gib).sum() };
        let have = |pool| of(pool, Item::Capacity) - of(pool, Item::Outside);
        let mut pools: Vec<PlanPool> = rows.iter().map(|r| r.pool).collect();
        // Of pools that lack as much the last by name.
        pools.sort_by_key(|p| p.name());
        let lacks = |p: &PlanPool| need(*p) - have(*p);
        let Some(worst) = pools.into_iter().max_by(|a, b| lacks(a).total_cmp(&lacks(b))) else {
            return (String::new(), String::new());
        };
        let parts: Vec<String> =
            uses(worst).filter(|r| r.gib >= 0.05).map(|r| format!("{} {:.1}", r.item.name(), r.gib)).collect();
        let short = need(worst) - have(worst);
        (
            format!(
                "{:.1} GiB on each GPU of {} ({}), {short:.1} GiB more",
                need(worst),
                worst.name(),
                parts.join(", ")
            ),
            format!(
                "{:.1} GiB ({:.1} GiB less {:.1} that the server leaves alone); more TP, EP or GPUs, a smaller batch, \
                 narrower formats or a larger memory_fraction",
                have(worst),
                of(worst, Item::Capacity),
                of(worst, Item::Outside)
            ),
        )
    }
}
