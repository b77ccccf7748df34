//! Whether the groups of a plan can all stand as their times assume: none across more domains than it must.
//!
//! Limit: counts domains; which cables and switches a scheduler hands out is not known.

use crate::network::packing;
use crate::spec::{AfdPlan, Cluster, Plan, Slot};

/// What to say when they cannot.
pub(crate) fn warning(plan: &Plan, cluster: &Cluster) -> Option<String> {
    let unit = |a: &AfdPlan| (a.stages(), a.attention.gpus + a.ffn.gpus);
    let slot = |s: &Slot| match s {
        Slot::Workers(w) => (w.count, w.parallel.gpus()),
        Slot::Afd(a) => unit(a),
    };
    let kinds = match plan {
        Plan::Aggregated(a) => [(a.replicas, a.parallel.gpus()), (0, 1)],
        Plan::Afd(a) => [unit(a), (0, 1)],
        Plan::Pd(pd) => [slot(&pd.prefill), slot(&pd.decode)],
    };
    let domain = cluster.fabric.domain_gpus;
    // Groups placed by hand are priced where they stand.
    if plan.afd_units().iter().any(|a| a.placement.is_some()) {
        return None;
    }
    if packing::fits(cluster.gpus, domain, kinds) {
        return None;
    }
    let groups: Vec<String> = kinds.iter().filter(|(n, _)| *n > 0).map(|(n, g)| format!("{n} of {g} GPUs")).collect();
    Some(format!(
        "placement: {} do not fit domains of {domain} GPUs without straddling; priced as if they did",
        groups.join(" and ")
    ))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::spec::{Aggregated, Parallel, catalog};

    #[test]
    fn sixes_on_nodes_of_eight_are_said() {
        let of = |replicas: u32, tp: u32| {
            let parallel = Parallel { tp, ..Parallel::default() };
            Plan::Aggregated(Aggregated { parallel, batch: None, chunk_tokens: None, replicas, ..Default::default() })
        };
        let cluster = catalog::cluster("b200_sxm", 32).unwrap();
        assert!(warning(&of(5, 6), &cluster).unwrap().contains("5 of 6 GPUs"));
        assert_eq!(warning(&of(4, 6), &cluster), None);
        assert_eq!(warning(&of(8, 4), &cluster), None);
    }
}
