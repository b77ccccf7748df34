//! Devices and how they are joined: peaks, capacities, link speeds. SI units, per GPU, one direction.
//!
//! Limit: nominal figures of one GPU; hosts, storage and the power of switches are not described.

use crate::error::Problems;

use super::json::json_methods;
use super::limits::{Check, MANY};
use super::record::record;

record! {
    /// One GPU: peaks, capacities and costs. Per GPU, SI units.
    pub struct Device as device {
        /// What it is.
        pub name: String,
        /// Where the figures come from.
        pub source: String = "user".into(),
        /// Dense BF16 peak, FLOP/s.
        pub bf16_flops: f64,
        /// Dense FP8 peak, FLOP/s; 0: no such units.
        pub fp8_flops: f64,
        /// Dense FP4 peak, FLOP/s; 0: no such units.
        pub fp4_flops: f64 = 0.0,
        /// Memory bandwidth, bytes/s.
        pub hbm_bytes_per_s: f64,
        /// Memory capacity, bytes.
        pub hbm_bytes: f64,
        /// Least time of one kernel launch under a CUDA graph, seconds.
        pub launch_s: f64 = 2e-6,
        /// Board power, watts.
        pub power_w: f64 = 1000.0,
        /// Price of one GPU-hour, US dollars.
        pub usd_per_hour: f64 = 0.0,
        /// Compute capability (90 Hopper, 100 and 103 Blackwell); picks default kernel sources.
        pub sm: u32,
        /// Fitted to the log of an aggregated server: how far its mean TPOT is off, one standard deviation of ln(measured /
        /// predicted); 0: not fitted. Intervals of TPOT and rate take it in place of other people's servers.
        pub log_tpot_error: f64 = 0.0,
        /// The same of its mean TTFT.
        pub log_ttft_error: f64 = 0.0,
    }
}

record! {
    /// How GPUs are joined. Bandwidths per GPU and direction, bytes/s.
    pub struct Fabric as fabric {
        /// GPUs in one scale-up (NVLink) domain: 8 on HGX, 72 in an NVL72 rack.
        pub domain_gpus: u32,
        /// GPUs in one host (8 on HGX, 4 in an NVL72 tray).
        pub node_gpus: u32,
        /// Scale-up bandwidth, bytes/s.
        pub nvlink_bytes_per_s: f64,
        /// Scale-out bandwidth, bytes/s.
        pub nic_bytes_per_s: f64,
        /// 1: non-blocking; 2: half the bandwidth above the leaf.
        pub oversubscription: f64 = 1.0,
        /// Where the figures come from.
        pub source: String = "user".into(),
    }
}

record! {
    /// GPUs of one kind and their fabric.
    pub struct Cluster as cluster {
        /// System whose kernel tables are used (``b200_sxm``).
        pub system: String,
        /// The GPU budget.
        pub gpus: u32,
        /// The GPU.
        pub device: Device,
        /// How the GPUs are joined.
        pub fabric: Fabric,
    }
}

json_methods! {
    Device => "device",
    Fabric => "fabric",
    Cluster => "cluster",
}

impl Device {
    /// Whether the device multiplies FP4 numbers.
    pub(crate) fn has_fp4(&self) -> bool {
        self.fp4_flops > 0.0
    }

    /// Everything that is wrong; paths are relative to it.
    pub(crate) fn check(&self) -> Problems {
        let mut c = Check::new();
        if self.name.is_empty() {
            c.wrong("name", "is empty", "");
        }
        // Generous bounds: what-if hardware is welcome, slips of a unit are not.
        c.positive("bf16_flops", self.bf16_flops, 1e20);
        c.range("fp8_flops", self.fp8_flops, 0.0, 1e20);
        c.range("fp4_flops", self.fp4_flops, 0.0, 1e20);
        c.positive("hbm_bytes_per_s", self.hbm_bytes_per_s, 1e16);
        c.positive("hbm_bytes", self.hbm_bytes, 1e15);
        c.range("launch_s", self.launch_s, 0.0, 1.0);
        c.range("power_w", self.power_w, 0.0, 1e6);
        c.range("usd_per_hour", self.usd_per_hour, 0.0, 1e6);
        c.count("sm", self.sm, 1, 10_000);
        c.range("log_tpot_error", self.log_tpot_error, 0.0, 10.0);
        c.range("log_ttft_error", self.log_ttft_error, 0.0, 10.0);
        c.problems
    }
}

impl Fabric {
    /// Everything that is wrong; paths are relative to it.
    pub(crate) fn check(&self) -> Problems {
        let mut c = Check::new();
        c.count("domain_gpus", self.domain_gpus, 1, MANY);
        c.count("node_gpus", self.node_gpus, 1, MANY);
        let (domain, node) = (self.domain_gpus.max(1), self.node_gpus.max(1));
        if !domain.is_multiple_of(node) && !node.is_multiple_of(domain) {
            let text = format!("domains of {domain} GPUs and nodes of {node} do not tile a cluster");
            c.wrong("domain_gpus", text, "one must be a multiple of the other; the last domain may be partial");
        }
        c.positive("nvlink_bytes_per_s", self.nvlink_bytes_per_s, 1e16);
        c.positive("nic_bytes_per_s", self.nic_bytes_per_s, 1e16);
        c.range("oversubscription", self.oversubscription, 1.0, 1000.0);
        c.problems
    }
}

impl Cluster {
    /// Everything that is wrong; paths are relative to it.
    pub fn check(&self) -> Problems {
        let mut c = Check::new();
        if self.system.is_empty() {
            c.wrong("system", "is empty", "");
        }
        c.count("gpus", self.gpus, 1, MANY);
        let mut problems = c.problems;
        problems.nest("device", self.device.check());
        problems.nest("fabric", self.fabric.check());
        problems
    }
}
