//! Bytes per port from the pattern of communication, never from a factor (network.md 1).
//!
//! Everything here is per token and per GPU, in multiples of one payload where not said otherwise.
//! `N` destination GPUs in domains of `G`, `k` routed experts of `E`:
//!
//! | scheme | NVLink | NIC |
//! |---|---|---|
//! | low-latency, no dedup | k (G-1)/N | k (1 - G/N) |
//! | one-sided, dedup per GPU | D (1 - 1/N) | - |
//! | normal, dedup per node and NVLink forward | D (G-1)/G | Dn (n-1)/n |
//!
//! D and Dn: expected distinct GPUs and nodes of a token, uniform routing. Group-limited routing
//! (DeepSeek-V3: 8 groups, top 4) bounds Dn; its effect on D is left out (-4 % at 64 GPUs).
//!
//! Limit: expected values of uniform or given routing; the spread between steps is not in them.

use crate::math::combinatorics::{distinct_groups, hit_probability};
use crate::spec::Dtype;

/// Bytes or payloads through the busiest GPU's ports, one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Ports {
    pub nvlink: f64,
    pub nic: f64,
}

impl Ports {
    pub(crate) fn scale(self, by: f64) -> Ports {
        Ports { nvlink: self.nvlink * by, nic: self.nic * by }
    }
}

/// Bytes of one token's activation on the wire, scales included: at H = 7168 FP8 7,392, BF16
/// 14,336, NVFP4 4,032. Per-tensor FP8 travels with the same 1x128 scales as block FP8.
pub fn payload_bytes(hidden: u32, dtype: Dtype) -> f64 {
    let per = match dtype {
        Dtype::Fp8 => Dtype::Fp8Block.activation_bytes(),
        other => other.activation_bytes(),
    };
    f64::from(hidden) * per
}

/// What comes back: BF16 whatever went out.
pub fn return_bytes(hidden: u32) -> f64 {
    2.0 * f64::from(hidden)
}

/// Expected distinct nodes of a token when experts lie evenly on `nodes` nodes and routing first
/// picks `topk_groups` of `groups` groups of consecutive experts (0 or all groups: no limit).
pub fn distinct_nodes(experts: u32, nodes: u32, k: u32, groups: u32, topk_groups: u32) -> f64 {
    let free = distinct_groups(experts, nodes, k);
    if groups <= 1 || topk_groups == 0 || topk_groups >= groups || nodes <= 1 || !experts.is_multiple_of(groups) {
        return free;
    }
    let limited = |n: u32| limited_nodes(experts, n, k, groups, topk_groups);
    let (below, above) = if nodes >= groups {
        (nodes / groups * groups, nodes.div_ceil(groups) * groups)
    } else {
        let divides = |n: &u32| groups.is_multiple_of(*n);
        ((1..=nodes).rev().find(divides).unwrap_or(1), (nodes..=groups).find(divides).unwrap_or(groups))
    };
    // Groups that straddle nodes: between the node counts that do not cut them.
    let reached = if below == above {
        limited(nodes)
    } else {
        let w = f64::from(nodes - below) / f64::from(above - below);
        limited(below) * (1.0 - w) + limited(above) * w
    };
    reached.min(free)
}

/// Exact where nodes are whole groups or groups whole nodes.
fn limited_nodes(experts: u32, nodes: u32, k: u32, groups: u32, topk_groups: u32) -> f64 {
    let per_group = experts / groups;
    if nodes.is_multiple_of(groups) {
        // Each chosen group is whole nodes: k experts over those of the chosen groups.
        return distinct_groups(per_group * topk_groups, topk_groups * (nodes / groups), k);
    }
    // A node holds several groups, j of them chosen with hypergeometric probability.
    let per_node = groups / nodes;
    let pool = per_group * topk_groups;
    let hit: f64 = (1..=per_node.min(topk_groups))
        .map(|j| hypergeometric(groups, per_node, topk_groups, j) * hit_probability(pool, per_group * j, k))
        .sum();
    f64::from(nodes) * hit
}

/// Probability of `j` marked among `draws` from `total` with `marked` marked.
fn hypergeometric(total: u32, marked: u32, draws: u32, j: u32) -> f64 {
    choose(marked, j) * choose(total - marked, draws.saturating_sub(j)) / choose(total, draws)
}

fn choose(n: u32, k: u32) -> f64 {
    if k > n {
        return 0.0;
    }
    (0..k).fold(1.0, |c, i| c * f64::from(n - i) / f64::from(i + 1))
}

/// GPUs of the fullest and of the emptiest domain, and the number of domains, of `ranks`
/// consecutive GPUs packed from the start of a domain.
pub fn packed(ranks: u32, domain: u32) -> (u32, u32, u32) {
    let (domain, ranks) = (domain.max(1), ranks.max(1));
    let full = ranks.min(domain);
    let rest = ranks % domain;
    (full, if rest == 0 || ranks < domain { full } else { rest }, ranks.div_ceil(domain))
}

/// Copies of one token that each of k experts gets its own of.
pub fn low_latency(k: u32, ep: u32, domain: u32) -> Ports {
    let (k, n) = (f64::from(k), f64::from(ep.max(1)));
    let (most, least, domains) = packed(ep, domain);
    Ports { nvlink: k * f64::from(most - 1) / n, nic: if domains > 1 { k * (1.0 - f64::from(least) / n) } else { 0.0 } }
}

/// One copy per destination GPU, one domain.
pub fn one_sided(experts: u32, k: u32, ep: u32) -> Ports {
    Ports { nvlink: distinct_groups(experts, ep, k) * (1.0 - 1.0 / f64::from(ep.max(1))), nic: 0.0 }
}

/// One copy per node over the NIC, then forwarded to each destination GPU over NVLink.
pub(crate) fn normal(experts: u32, k: u32, groups: u32, topk_groups: u32, ep: u32, domain: u32) -> Ports {
    let (most, _, domains) = packed(ep, domain);
    let copies = distinct_groups(experts, ep, k);
    let nvlink = copies * (1.0 - 1.0 / f64::from(most));
    if domains <= 1 {
        return Ports { nvlink, nic: 0.0 };
    }
    let n = f64::from(domains);
    Ports { nvlink, nic: distinct_nodes(experts, domains, k, groups, topk_groups) * (n - 1.0) / n }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads() {
        assert_eq!(payload_bytes(7168, Dtype::Fp8), 7392.0);
        assert_eq!(payload_bytes(7168, Dtype::Fp8Block), 7392.0);
        assert_eq!(payload_bytes(7168, Dtype::Bf16), 14336.0);
        assert_eq!(payload_bytes(7168, Dtype::Nvfp4), 4032.0);
    }

    #[test]
    fn nodes_under_group_limited_routing() {
        // network.md 1: free, 8-GPU nodes of EP16..EP256.
        for (nodes, d) in [(1, 1.0), (2, 1.993), (4, 3.614), (8, 5.295), (16, 6.523), (32, 7.267)] {
            assert!((distinct_nodes(256, nodes, 8, 0, 0) - d).abs() < 6e-4, "{nodes}");
        }
        // One group a node: k = 8 of the 128 experts of 4 chosen nodes.
        let four = distinct_nodes(256, 8, 8, 8, 4);
        assert!(four < 4.0 && four > 3.6, "{four}");
        // Two groups a node: never more than without the limit.
        for nodes in [2, 3, 4, 5, 8, 12, 16, 32] {
            assert!(distinct_nodes(256, nodes, 8, 8, 4) <= distinct_nodes(256, nodes, 8, 0, 0) + 1e-12, "{nodes}");
        }
        assert!(distinct_nodes(256, 16, 8, 8, 4) <= 8.0);
        let mut last = 0.0;
        for nodes in 1..=64 {
            let d = distinct_nodes(256, nodes, 8, 8, 4);
            assert!(d >= last, "{nodes}");
            last = d;
        }
    }

    #[test]
    fn ports_of_schemes() {
        assert_eq!(low_latency(8, 8, 8), Ports { nvlink: 7.0, nic: 0.0 });
        assert_eq!(low_latency(8, 64, 8), Ports { nvlink: 7.0 / 8.0, nic: 7.0 });
        assert!((low_latency(8, 12, 8).nic - 8.0 * 8.0 / 12.0).abs() < 1e-12);
        assert!((one_sided(256, 8, 64).nvlink - 7.676 * 63.0 / 64.0).abs() < 1e-3);
        assert_eq!(packed(20, 8), (8, 4, 3));
        assert_eq!(packed(4, 8), (4, 4, 1));
    }
}
