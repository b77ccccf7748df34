//! What a plan costs: US dollars and joules an output token.
//!
//! The whole budget is paid for at the list price an hour, each pool at its own device. Power is that of the boards: what
//! they may draw (`watts`), and what they draw at this load (`watts_drawn`), of which energy is made:
//!
//! ```text
//! drawn = sum over GPUs of limit x (busy x running(T) + (1 - busy) x IDLE)        running(T) = min(1, a + b log2 T)
//! T     = tokens that the GPU's attention rank carries a step: sequences in decode and prompt tokens beside them
//! busy  = share of the time in which it has steps to run: prefill workers beside a slower decode side wait
//! ```
//!
//! a and b are fitted to measured servers of three models (vLLM on H100 and B200) and held against six others: power
//! within 7 % (dense) and 22 % (experts) in the mean, where the boards' limit is 14 and 48 % off
//! (`validation/energy.tsv`, section `energy`; ML.ENERGY benchmark 3.0, 2025-12). They were fitted by sequences in decode alone;
//! prompt tokens beside them, which T counts, add 1 to 2 %.
//! Limits: no host and no network; nobody measured the pools of AFD, which count as GPUs of a worker with as many tokens a
//! rank; how long kernels wait for exchanges is only in the two laws.

use super::Engine;
use super::engine::Compiled;
use super::step_engine::StepEngine;
use crate::spec::plan::Hardware;
use crate::spec::{Cluster, Plan, Role};

/// Share of the limit at one token a rank, and what each doubling adds: without experts and with.
pub const DENSE: [f64; 2] = [0.613, 0.0371];
pub const EXPERTS: [f64; 2] = [0.486, 0.0249];
/// Share of the limit that an idle GPU with a loaded model draws: 80.3 of 700 W (H200, Serial Alice GPU energy benchmark, 2026-06).
pub const IDLE: f64 = 0.115;

/// Share of a board's limit that a GPU draws while steps run, by tokens a rank and step.
pub fn running(experts: bool, tokens: f64) -> f64 {
    let [one, doubling] = if experts { EXPERTS } else { DENSE };
    (one + doubling * tokens.max(1.0).log2()).min(1.0)
}

impl Engine {
    pub(super) fn bill(&self) -> (f64, f64) {
        bill(&self.plan, &self.library().cluster)
    }

    /// US dollars for a million output tokens.
    pub(crate) fn usd_per_mtok(&self) -> f64 {
        self.bill().0 / 3600.0 / self.tokens_per_s() * 1e6
    }

    /// Energy of an output token by the power that the boards draw at this load, joules.
    pub(crate) fn joules_per_token(&self) -> f64 {
        self.watts_drawn() / self.tokens_per_s()
    }

    /// Power that all boards of the budget draw at this load, watts.
    pub(crate) fn watts_drawn(&self) -> f64 {
        let lib = self.library();
        let experts = lib.model.moe.is_some();
        let (load, point) = (&self.load, &self.point);
        let decoding = point.decode_batch * (1.0 + f64::from(lib.serving.mtp));
        // Prompts that come as sequences leave, a rank and step.
        let prompts = if load.osl > 1.0 {
            point.decode_batch * load.isl * lib.serving.tokens_per_step() / (load.osl - 1.0)
        } else {
            load.isl
        };
        // In an open loop a rank may have nothing to do; in a closed one somebody is always there.
        let busy = |ranks: f64| self.open_loop.map_or(1.0, |_| 1.0 - (-point.decode_batch * ranks).exp());
        let share = |tokens: f64, busy: f64| busy * running(experts, tokens) + (1.0 - busy) * IDLE;
        let roles = self.plan.hardware();
        let slots: Vec<(&StepEngine, u32, &[Hardware<'_>], f64)> = match &self.compiled {
            Compiled::Mixed { engine, replicas } => {
                vec![(engine, *replicas, &roles, share(decoding + prompts, busy(engine.ranks())))]
            }
            Compiled::Pd { prefill, prefill_count, decode, decode_count } => {
                let most = self.prefill_rate.filter(|r| *r > 0.0);
                let feeding = most.map_or(1.0, |most| (point.requests_per_s / most).min(1.0));
                let (own, others) = roles.split_at(roles.partition_point(|r| r.role == Role::Prompts));
                vec![
                    (prefill, *prefill_count, own, share(load.isl, feeding)),
                    (&**decode, *decode_count, others, share(decoding, busy(decode.ranks()))),
                ]
            }
        };
        let board = lib.cluster.device.power_w;
        let drawn: f64 = slots
            .iter()
            .map(|(engine, count, roles, share)| {
                let own = roles.iter().filter_map(|r| Some((f64::from(r.gpus), r.device?.power_w)));
                let limit = f64::from(engine.gpus() * count) * board;
                share * own.fold(limit, |sum, (n, watts)| sum + n * (watts - board))
            })
            .sum();
        drawn + f64::from(lib.cluster.gpus.saturating_sub(self.gpus())) * board * IDLE
    }
}

/// US dollars an hour and board power of the whole budget: every pool at its own device, GPUs that
/// the plan leaves idle at the cluster's.
pub fn bill(plan: &Plan, cluster: &Cluster) -> (f64, f64) {
    let all = f64::from(cluster.gpus);
    let start = (cluster.device.usd_per_hour * all, cluster.device.power_w * all);
    plan.hardware().into_iter().filter_map(|role| Some((f64::from(role.gpus), role.device?))).fold(
        start,
        |(usd, watts), (n, d)| {
            (usd + n * (d.usd_per_hour - cluster.device.usd_per_hour), watts + n * (d.power_w - cluster.device.power_w))
        },
    )
}
