//! The fabric as the closed forms see it: link rates per GPU and one direction.
//!
//! Limit: every GPU has the same links, and oversubscription is one factor above the leaf.

use super::traffic::Ports;
use crate::kernels::Evidence;
use crate::spec::Fabric;

/// 8-GPU nodes under one leaf switch of a 64-port rail [2.1]; a group beyond pays oversubscription.
pub const LEAF_DOMAINS: u32 = 32;

#[derive(Clone, Copy, Debug)]
pub struct Wires {
    /// GPUs of one scale-up domain.
    pub domain: u32,
    pub node: u32,
    pub nvlink: f64,
    nic: f64,
    oversubscription: f64,
    /// Links that the tables were measured on, bytes/s: (NVLink, NIC).
    tables: (f64, f64),
}

impl Wires {
    pub fn new(fabric: &Fabric) -> Wires {
        Wires {
            domain: fabric.domain_gpus.max(1),
            node: fabric.node_gpus.max(1),
            nvlink: fabric.nvlink_bytes_per_s,
            nic: fabric.nic_bytes_per_s,
            oversubscription: fabric.oversubscription.max(1.0),
            tables: (fabric.nvlink_bytes_per_s, fabric.nic_bytes_per_s),
        }
    }

    /// With tables that were measured on another fabric's links.
    pub(crate) fn with_tables_of(self, measured: &Fabric) -> Wires {
        Wires { tables: (measured.nvlink_bytes_per_s, measured.nic_bytes_per_s), ..self }
    }

    /// These groups on the links of the tables.
    pub(crate) fn measured(&self) -> Wires {
        Wires { nvlink: self.tables.0, nic: self.tables.1, ..*self }
    }

    /// Time of an NVLink byte over that in the tables.
    pub(crate) fn slowed(&self) -> f64 {
        self.tables.0 / self.nvlink
    }

    /// The best that a row may claim for a group of so many domains: measured only on the links it was measured on.
    pub fn known(&self, domains: u32) -> Evidence {
        let same = self.nvlink == self.tables.0 && (domains <= 1 || self.nic == self.tables.1);
        if same { Evidence::Measured } else { Evidence::Extrapolated }
    }

    /// NIC rate of a group of that many domains: beyond one leaf the uplinks are shared.
    pub(crate) fn nic(&self, domains: u32) -> f64 {
        if domains > LEAF_DOMAINS { self.nic / self.oversubscription } else { self.nic }
    }
}

/// How one kernel uses the ports: shares of the wire, and how NVLink and NIC time add up.
#[derive(Clone, Copy, Debug)]
pub struct PortRule {
    pub eta_nvlink: f64,
    pub eta_nic: f64,
    /// 1: one after the other; infinite: fully pipelined.
    pub p: f64,
}

impl PortRule {
    /// Seconds for `bytes` through a GPU's ports in a group of `domains` domains.
    pub(crate) fn seconds(&self, bytes: Ports, wires: &Wires, domains: u32) -> f64 {
        let nvlink = bytes.nvlink / (self.eta_nvlink * wires.nvlink);
        let nic = bytes.nic / (self.eta_nic * wires.nic(domains));
        let (most, least) = (nvlink.max(nic), nvlink.min(nic));
        if least <= 0.0 || self.p.is_infinite() {
            return most;
        }
        most * (1.0 + (least / most).powf(self.p)).powf(1.0 / self.p)
    }
}
