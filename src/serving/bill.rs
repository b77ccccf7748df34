//! What a plan costs: US dollars and joules an output token.
//!
//! The whole budget is paid for, each pool at its own device, at the list price an hour and the board's limit of power.
//! Limits: no power by load, no host, no network.

use super::Engine;
use crate::spec::{Cluster, Plan};

impl Engine {
    pub(super) fn bill(&self) -> (f64, f64) {
        bill(&self.plan, &self.library().cluster)
    }

    /// US dollars for a million output tokens.
    pub(crate) fn usd_per_mtok(&self) -> f64 {
        self.bill().0 / 3600.0 / self.tokens_per_s() * 1e6
    }

    /// Energy of an output token with all GPUs at their board limit, joules.
    pub(crate) fn joules_per_token(&self) -> f64 {
        self.bill().1 / self.tokens_per_s()
    }
}

/// US dollars an hour and board power of the whole budget: every pool at its own device, GPUs that
/// the plan leaves idle at the cluster's.
pub fn bill(plan: &Plan, cluster: &Cluster) -> (f64, f64) {
    let units = plan.afd_units();
    let all = f64::from(cluster.gpus);
    let start = (cluster.device.usd_per_hour * all, cluster.device.power_w * all);
    let pools = units.iter().flat_map(|a| [(&a.attention, a.stages()), (&a.ffn, a.stages())]);
    pools.filter_map(|(p, units)| p.device.as_ref().map(|d| (f64::from(p.gpus * units), d))).fold(
        start,
        |(usd, watts), (n, d)| {
            (usd + n * (d.usd_per_hour - cluster.device.usd_per_hour), watts + n * (d.power_w - cluster.device.power_w))
        },
    )
}
