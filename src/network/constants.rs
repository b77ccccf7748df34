//! Laws that stand in where no table reaches: those fitted for the system, else for its generation;
//! and figures that nothing was fitted to, each from network.md (section in brackets) or
//! said to be an assumption.
//!
//! Limit: a stand-in is as good as its likeness: systems that nobody measured take the laws of their generation and
//! domain.

use super::law::{CollectiveLaw, ExchangeLaw, Links};
use super::params::Params;
use super::wires::Wires;
use crate::error::{Error, Result};
use crate::spec::Cluster;
use crate::units::US;

/// Both directions of a kernel.
#[derive(Clone, Copy, Debug)]
pub struct Way {
    pub dispatch: ExchangeLaw,
    pub combine: ExchangeLaw,
}

/// The laws of one kind of system.
#[derive(Clone, Debug)]
pub struct Starts {
    pub all_reduce: CollectiveLaw,
    pub all_gather: CollectiveLaw,
    pub reduce_scatter: CollectiveLaw,
    pub all_to_all: CollectiveLaw,
    pub low_latency: Way,
    pub normal: Way,
    pub one_sided: Way,
}

/// Systems with fits of their own.
const FITTED: [&str; 6] = ["h100_sxm", "h200_sxm", "b200_sxm", "b300_sxm", "gb200", "gb300"];

/// The system whose laws serve a cluster: its own, else by generation and size of the scale-up domain.
pub(crate) fn stand_in(cluster: &Cluster) -> &str {
    match cluster.system.as_str() {
        own if FITTED.contains(&own) => own,
        _ if cluster.fabric.domain_gpus > 8 => "gb200",
        _ if cluster.device.sm >= 100 => "b200_sxm",
        _ => "h100_sxm",
    }
}

fn missing(what: &str) -> Error {
    Error::data("network/kernels.json", format!("no law of {what}; rebuild it with `make calibrate`"))
}

/// One node from the system's own rows. The step to several nodes is H100's on NDR400, the only system
/// measured there: the same NIC-side protocol, the system's own launch. Inside a rack the alpha rises
/// as the one-sided kernel's on GB200, the only one measured there.
fn deepep(params: &Params, cluster: &Cluster, wires: &Wires, variant: &str, op: &str) -> Result<ExchangeLaw> {
    let (system, fabric) = (stand_in(cluster), &cluster.fabric);
    let find = |system: &str, variant: &str, across: bool| {
        params.exchange(system, variant, op, across).ok_or_else(|| missing(&format!("{variant} {op} on {system}")))
    };
    let own = find(system, variant, false)?;
    let far = find("h100_sxm", variant, true)?;
    let rack = fabric.domain_gpus > 8;
    let per_log2_ranks = if rack { find("gb200", ONE_SIDED, false)?.per_log2_ranks } else { 0.0 };
    // Its own rows are those of one node.
    let node = f64::from(fabric.node_gpus.max(2));
    let measured = wires.measured();
    let links = Links { nvlink: measured.nvlink, nic: measured.nic(1) };
    Ok(ExchangeLaw {
        per_expert: own.per_expert,
        alpha: (own.alpha - per_log2_ranks * node.log2()).max(0.5 * own.alpha),
        per_log2_ranks,
        // What the SMs handle is proportional to NVLink's bytes, so their limit is a share of the wire.
        eta_nvlink: own.share_of_nvlink(NORMAL_SMS as f64, node / (node - 1.0), &links),
        sm_rate: None,
        step: far.step,
        per_log2_domains: far.per_log2_domains,
        eta_nic: far.eta_nic,
        // The normal kernel pipelines NIC and NVLink.
        p: if variant == LOW_LATENCY { far.p } else { None },
    })
}

const LOW_LATENCY: &str = "deepep_low_latency";
const NORMAL: &str = "deepep_normal";
const ONE_SIDED: &str = "NVLinkOneSided nvfp4";

/// The laws of the cluster's system.
pub(crate) fn starts(cluster: &Cluster, wires: &Wires) -> Result<Starts> {
    let params = Params::shipped()?;
    let system = stand_in(cluster);
    let nccl = |op: &str| {
        params.collective(system, "nccl", op, "half").cloned().ok_or_else(|| missing(&format!("{op} on {system}")))
    };
    let way = |variant: &str| -> Result<Way> {
        let law = |op: &str| deepep(params, cluster, wires, variant, op);
        Ok(Way { dispatch: law("dispatch")?, combine: law("combine")? })
    };
    let one_sided = |op: &str| {
        params.exchange("gb200", ONE_SIDED, op, false).copied().ok_or_else(|| missing("the one-sided kernel"))
    };
    Ok(Starts {
        all_reduce: nccl("all_reduce")?,
        all_gather: nccl("all_gather")?,
        reduce_scatter: nccl("reduce_scatter")?,
        all_to_all: nccl("alltoall")?,
        low_latency: way(LOW_LATENCY)?,
        normal: way(NORMAL)?,
        one_sided: Way { dispatch: one_sided("dispatch")?, combine: one_sided("combine")? },
    })
}

/// Systems with the same fabric, whose table stands in (tagged extrapolated) where a system has none.
pub(crate) fn twin(system: &str) -> Option<&'static str> {
    match system {
        "gb200" => Some("gb300"),
        "gb300" => Some("gb200"),
        "b200_sxm" => Some("b300_sxm"),
        "b300_sxm" => Some("b200_sxm"),
        _ => None,
    }
}

/// SMs of the normal kernels: DeepEP's own default.
pub const NORMAL_SMS: i64 = 20;

/// Share of the NIC of a collective across nodes: 48-49 of 50 GB/s [2.1].
pub const ETA_NIC: f64 = 0.97;
/// Per doubling of nodes, one pass of a collective (reduce-scatter or all-gather). Assumption: the
/// one-way 2.8-3.7 us of InfiniBand [2.1] and a proxy on either side, near the 4.8 us of [4.6].
pub const NIC_ALPHA_PER_LOG2: f64 = 5.0 * US;
/// KV transfer of a whole request: Mooncake under vLLM on 8 x 400G, 20 MB to 4.5 GB [2.4], alpha of the fit.
pub const KV_BULK_ALPHA: f64 = 378.0 * US;
/// One layer of it. Assumption: one posted batch of RDMA writes on a warm connection, two one-way
/// trips and their bookkeeping; the descriptors were built with the request.
pub const KV_LAYER_ALPHA: f64 = 10.0 * US;
/// Inside a scale-up domain. Assumption: a copy kernel and an event, bulk or by layer.
pub const KV_NVLINK_ALPHA: f64 = 10.0 * US;
/// Share of the link: 365 to 389 of 400 GB/s, 780 of 800 [2.4].
pub const KV_ETA: f64 = 0.96;
