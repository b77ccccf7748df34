//! Devices and how they are joined: peaks, capacities, link speeds. SI units, per GPU, one direction.

use serde::{Deserialize, Serialize};

/// One GPU.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Device {
    pub name: String,
    pub source: String,
    /// Dense FLOP/s.
    pub bf16_flops: f64,
    pub fp8_flops: f64,
    /// 0: no FP4 units.
    pub fp4_flops: f64,
    pub hbm_bytes_per_s: f64,
    pub hbm_bytes: f64,
    /// Least time of one kernel launch under a CUDA graph.
    pub launch_s: f64,
    pub power_w: f64,
    pub usd_per_hour: f64,
    /// Compute capability (90 Hopper, 100/103 Blackwell): picks default kernel sources.
    pub sm: u32,
}

/// How GPUs are joined.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fabric {
    /// GPUs in one scale-up (NVLink) domain: 8 on HGX, 72 in an NVL72 rack.
    pub domain_gpus: u32,
    /// GPUs in one host (8 on HGX, 4 in an NVL72 tray).
    pub node_gpus: u32,
    /// Scale-up bandwidth.
    pub nvlink_bytes_per_s: f64,
    /// Scale-out bandwidth.
    pub nic_bytes_per_s: f64,
    /// 1: non-blocking; 2: half the bandwidth above the leaf.
    pub oversubscription: f64,
    pub source: String,
}

/// GPUs of one kind and their fabric.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cluster {
    /// System whose kernel tables are used (`b200_sxm`).
    pub system: String,
    pub gpus: u32,
    pub device: Device,
    pub fabric: Fabric,
}
