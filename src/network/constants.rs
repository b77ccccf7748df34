//! Figures that stand in where no table reaches. Every one is from reference/network.md (section
//! in brackets) or says that it is an assumption.

use crate::spec::Cluster;
use crate::units::US;

/// One collective: alpha = `alpha + per_rank (n - 1)` seconds (all-to-all in a rack: per log2 n), and
/// its share of the wire.
#[derive(Clone, Copy, Debug)]
pub struct Start {
    pub alpha: f64,
    pub per_rank: f64,
    pub eta: f64,
}

const fn start(alpha_us: f64, per_rank_us: f64, eta: f64) -> Start {
    Start { alpha: alpha_us * US, per_rank: per_rank_us * US, eta }
}

/// Starting parameters of one kind of system [4.6].
#[derive(Clone, Copy, Debug)]
pub struct Starts {
    pub all_reduce: Start,
    pub all_gather: Start,
    pub reduce_scatter: Start,
    pub all_to_all: Start,
    /// DeepEP low-latency inside one node; `per_rank` unused.
    pub dispatch: Start,
    pub combine: Start,
}

/// AG and RS are quoted for H100 and B200 only; the others take those of their generation.
pub const H100: Starts = Starts {
    all_reduce: start(5.6, 1.7, 0.64),
    all_gather: start(5.3, 0.93, 0.54),
    reduce_scatter: start(5.4, 0.77, 0.53),
    all_to_all: start(9.2, 0.06, 0.57),
    dispatch: start(11.9, 0.0, 0.56),
    combine: start(11.7, 0.0, 0.49),
};
const H200: Starts = Starts {
    all_reduce: start(5.4, 1.87, 0.65),
    all_to_all: start(8.9, 0.18, 0.59),
    dispatch: start(10.4, 0.0, 0.57),
    combine: start(10.6, 0.0, 0.51),
    ..H100
};
const B200: Starts = Starts {
    all_reduce: start(8.3, 2.7, 0.55),
    all_gather: start(8.5, 1.4, 0.48),
    reduce_scatter: start(8.5, 1.3, 0.44),
    all_to_all: start(12.4, 0.03, 0.42),
    dispatch: start(20.0, 0.0, 0.53),
    combine: start(19.4, 0.0, 0.67),
};
const B300: Starts = Starts {
    all_reduce: start(8.2, 2.6, 0.56),
    all_to_all: start(12.0, 0.1, 0.44),
    dispatch: start(20.3, 0.0, 0.53),
    combine: start(20.3, 0.0, 0.68),
    ..B200
};
const GB200: Starts = Starts {
    all_reduce: start(9.0, 2.6, 0.54),
    all_to_all: start(12.5, 0.0, 0.38),
    dispatch: start(15.6, 0.0, 0.49),
    combine: start(15.2, 0.0, 0.64),
    ..B200
};
const GB300: Starts = Starts {
    all_reduce: start(8.0, 2.7, 0.55),
    all_to_all: start(12.3, 0.0, 0.40),
    dispatch: start(15.5, 0.0, 0.50),
    combine: start(15.0, 0.0, 0.64),
    ..B200
};

/// By system name, else by generation and size of the scale-up domain.
pub fn starts(cluster: &Cluster) -> Starts {
    match cluster.system.as_str() {
        "h100_sxm" => H100,
        "h200_sxm" => H200,
        "b200_sxm" => B200,
        "b300_sxm" => B300,
        "gb200" => GB200,
        "gb300" => GB300,
        _ if cluster.fabric.domain_gpus > 8 => GB200,
        _ if cluster.device.sm >= 100 => B200,
        _ => H100,
    }
}

/// Systems with the same fabric, whose table stands in (tagged extrapolated) where a system has none.
pub fn twin(system: &str) -> Option<&'static str> {
    match system {
        "gb200" => Some("gb300"),
        "gb300" => Some("gb200"),
        "b200_sxm" => Some("b300_sxm"),
        "b300_sxm" => Some("b200_sxm"),
        _ => None,
    }
}

/// Low-latency all-to-all across nodes on H100, NDR400 [4.6]: alpha = base + per_log2 log2(nodes),
/// the ports add as a p-norm, and the NIC is used to `eta_nic`. On other systems the step from one
/// node is taken over: the same NIC-side protocol, the system's own launch.
#[derive(Clone, Copy, Debug)]
pub struct AcrossNodes {
    pub base: f64,
    pub per_log2: f64,
    pub eta_nic: f64,
    pub p: f64,
}
pub const LL_DISPATCH: AcrossNodes = AcrossNodes { base: 15.0 * US, per_log2: 4.8 * US, eta_nic: 0.97, p: 1.46 };
pub const LL_COMBINE: AcrossNodes = AcrossNodes { base: 12.3 * US, per_log2: 6.2 * US, eta_nic: 0.97, p: 1.1 };

/// One-sided all-to-all in an NVL72 rack, GB200 [4.6]: alpha = base + per_log2 log2(ranks).
pub const ONE_SIDED_DISPATCH: Start = start(12.7, 1.5, 0.71);
pub const ONE_SIDED_COMBINE: Start = start(11.4, 3.6, 0.74);

/// DeepEP normal across nodes: what the smallest messages cost more per doubling of nodes, notify
/// included (H100 sglang 0.5.6.post2, 20 SMs, 1, 2 and 4 nodes: 37, 59, 88 us out, 48, 84, 124 back),
/// and the share of the NIC at 4,096 tokens on 4 nodes.
pub const NORMAL_DISPATCH_PER_LOG2: f64 = 25.5 * US;
pub const NORMAL_COMBINE_PER_LOG2: f64 = 38.0 * US;
pub const NORMAL_ETA_NIC: f64 = 0.93;
/// DeepEP normal inside one node at 20 SMs, where there is no table: alpha and share of NVLink.
pub const NORMAL_DISPATCH: Start = start(30.0, 0.0, 0.6);
pub const NORMAL_COMBINE: Start = start(50.0, 0.0, 0.6);
/// SMs of the normal kernels: DeepEP's own default.
pub const NORMAL_SMS: i64 = 20;

/// Share of the NIC of a collective across nodes: 48-49 of 50 GB/s [2.1].
pub const ETA_NIC: f64 = 0.97;
/// Per doubling of nodes, one pass of a collective (reduce-scatter or all-gather). Assumption: the
/// one-way 2.8-3.7 us of InfiniBand [2.1] and a proxy on either side, near the 4.8 us of [4.6].
pub const NIC_ALPHA_PER_LOG2: f64 = 5.0 * US;
/// 8-GPU nodes under one leaf switch of a 64-port rail [2.1]; a group beyond pays oversubscription.
pub const LEAF_DOMAINS: u32 = 32;

/// KV transfer of a whole request: Mooncake under vLLM on 8 x 400G, 20 MB to 4.5 GB [2.4], alpha of the fit.
pub const KV_BULK_ALPHA: f64 = 378.0 * US;
/// One layer of it. Assumption: one posted batch of RDMA writes on a warm connection, two one-way
/// trips and their bookkeeping; the descriptors were built with the request.
pub const KV_LAYER_ALPHA: f64 = 10.0 * US;
/// Inside a scale-up domain. Assumption: a copy kernel and an event, bulk or by layer.
pub const KV_NVLINK_ALPHA: f64 = 10.0 * US;
/// Share of the link: 365 to 389 of 400 GB/s, 780 of 800 [2.4].
pub const KV_ETA: f64 = 0.96;
