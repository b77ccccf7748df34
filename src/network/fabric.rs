//! The fabric as explicit ports: which ports a flow from one GPU to another passes, and how fast each is.
//!
//! Per GPU four ports of one direction each: scale-up out and in, NIC out and in. A scale-up domain
//! (8-GPU node, NVL72 rack) is one non-blocking switch. Scale-out is rail-optimised: NIC i of every
//! node hangs on leaf i of its pod, so flows of one rail stay below the leaf; flows to another rail
//! or another pod pass the leaf's uplink and the other leaf's downlink, whose capacity is that of
//! the NICs below it divided by the oversubscription. A last domain may be partial.
//!
//! Source: network.md 2.1 (rail-optimised fat tree, 64-port leaves). Limits: no path
//! diversity inside the spine (ideal adaptive routing), no PXN unless the pattern itself forwards
//! over NVLink, switch hops (0.3 us) are part of the kernels' alpha.

use crate::error::{Error, Result};
use crate::network::wires::LEAF_DOMAINS;
use crate::spec::Fabric as Spec;

/// What a port belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Port {
    NvlinkOut(u32),
    NvlinkIn(u32),
    NicOut(u32),
    NicIn(u32),
    /// Uplinks of the leaf of one pod and rail.
    LeafUp {
        pod: u32,
        rail: u32,
    },
    LeafDown {
        pod: u32,
        rail: u32,
    },
}

impl Port {
    pub fn name(self) -> String {
        match self {
            Port::NvlinkOut(g) => format!("nvlink_out[{g}]"),
            Port::NvlinkIn(g) => format!("nvlink_in[{g}]"),
            Port::NicOut(g) => format!("nic_out[{g}]"),
            Port::NicIn(g) => format!("nic_in[{g}]"),
            Port::LeafUp { pod, rail } => format!("leaf_up[{pod},{rail}]"),
            Port::LeafDown { pod, rail } => format!("leaf_down[{pod},{rail}]"),
        }
    }
}

/// Ports one flow passes; at most four.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Path {
    ports: [u32; 4],
    len: u8,
}

impl Path {
    pub fn new(ports: &[u32]) -> Path {
        let mut p = Path::default();
        for port in ports.iter().take(4) {
            p.ports[usize::from(p.len)] = *port;
            p.len += 1;
        }
        p
    }

    pub fn as_slice(&self) -> &[u32] {
        &self.ports[..usize::from(self.len)]
    }
}

/// GPUs `0..gpus` with their ports.
#[derive(Clone, Debug, PartialEq)]
pub struct Fabric {
    pub gpus: u32,
    /// GPUs of a scale-up domain.
    pub domain: u32,
    /// Rails: NICs of a domain that reach different leaves.
    rails: u32,
    pods: u32,
    capacities: Vec<f64>,
    blocking: bool,
}

impl Fabric {
    /// Ports of `gpus` GPUs joined as `spec` says.
    pub fn new(spec: &Spec, gpus: u32) -> Fabric {
        let gpus = gpus.max(1);
        let domain = spec.domain_gpus.max(1);
        let domains = gpus.div_ceil(domain);
        let pods = domains.div_ceil(LEAF_DOMAINS);
        let rails = domain.min(gpus);
        let mut capacities = Vec::with_capacity((4 * gpus + 2 * pods * rails) as usize);
        for _ in 0..gpus {
            capacities.extend([
                spec.nvlink_bytes_per_s,
                spec.nvlink_bytes_per_s,
                spec.nic_bytes_per_s,
                spec.nic_bytes_per_s,
            ]);
        }
        for pod in 0..pods {
            for rail in 0..rails {
                // NICs below this leaf: one a domain of the pod that has a GPU on the rail.
                let first = pod * LEAF_DOMAINS;
                let below = (first..domains.min(first + LEAF_DOMAINS)).filter(|d| d * domain + rail < gpus).count();
                let rate = (below.max(1) as f64) * spec.nic_bytes_per_s / spec.oversubscription.max(1.0);
                capacities.extend([rate, rate]);
            }
        }
        Fabric { gpus, domain, rails, pods, capacities, blocking: spec.oversubscription > 1.0 }
    }

    /// Bytes per second of every port.
    pub fn capacities(&self) -> &[f64] {
        &self.capacities
    }

    pub fn port(&self, id: u32) -> Port {
        if id < 4 * self.gpus {
            let g = id / 4;
            return [Port::NvlinkOut(g), Port::NvlinkIn(g), Port::NicOut(g), Port::NicIn(g)][(id % 4) as usize];
        }
        let leaf = (id - 4 * self.gpus) / 2;
        let (pod, rail) = (leaf / self.rails, leaf % self.rails);
        if id.is_multiple_of(2) { Port::LeafUp { pod, rail } } else { Port::LeafDown { pod, rail } }
    }

    /// Number of a port, if the fabric has it.
    pub fn id(&self, port: Port) -> Option<u32> {
        let gpu = |g: u32, i: u32| (g < self.gpus).then_some(4 * g + i);
        let leaf = |pod: u32, rail: u32, i: u32| {
            (pod < self.pods && rail < self.rails).then(|| 4 * self.gpus + 2 * (pod * self.rails + rail) + i)
        };
        match port {
            Port::NvlinkOut(g) => gpu(g, 0),
            Port::NvlinkIn(g) => gpu(g, 1),
            Port::NicOut(g) => gpu(g, 2),
            Port::NicIn(g) => gpu(g, 3),
            Port::LeafUp { pod, rail } => leaf(pod, rail, 0),
            Port::LeafDown { pod, rail } => leaf(pod, rail, 1),
        }
    }

    pub fn same_domain(&self, a: u32, b: u32) -> bool {
        a / self.domain == b / self.domain
    }

    fn pod(&self, gpu: u32) -> u32 {
        gpu / self.domain / LEAF_DOMAINS
    }

    fn rail(&self, gpu: u32) -> u32 {
        gpu % self.domain
    }

    /// Whether a flow between two domains leaves its leaf.
    pub fn passes_spine(&self, src: u32, dst: u32) -> bool {
        !self.same_domain(src, dst) && (self.rail(src) != self.rail(dst) || self.pod(src) != self.pod(dst))
    }

    /// Ports of a flow; empty when it stays on one GPU.
    pub fn path(&self, src: u32, dst: u32) -> Result<Path> {
        for (field, g) in [("src", src), ("dst", dst)] {
            if g >= self.gpus {
                let text = format!("GPU {g} is not in a fabric of {}", self.gpus);
                return Err(Error::spec(field, text, format!("0 to {}", self.gpus - 1)));
            }
        }
        Ok(self.ports_between(src, dst))
    }

    fn ports_between(&self, src: u32, dst: u32) -> Path {
        if src == dst {
            return Path::default();
        }
        if self.same_domain(src, dst) {
            return Path::new(&[4 * src, 4 * dst + 1]);
        }
        let (out, into) = (4 * src + 2, 4 * dst + 3);
        if !self.blocking || !self.passes_spine(src, dst) {
            return Path::new(&[out, into]);
        }
        let leaf = |gpu: u32| 4 * self.gpus + 2 * (self.pod(gpu) * self.rails + self.rail(gpu));
        Path::new(&[out, leaf(src), leaf(dst) + 1, into])
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn hgx(gpus: u32, oversubscription: f64) -> Fabric {
        let spec = Spec {
            domain_gpus: 8,
            node_gpus: 8,
            nvlink_bytes_per_s: 450e9,
            nic_bytes_per_s: 50e9,
            oversubscription,
            source: String::new(),
        };
        Fabric::new(&spec, gpus)
    }

    #[test]
    fn paths_pass_the_ports_they_should() {
        let names = |f: &Fabric, a: u32, b: u32| -> Vec<String> {
            f.path(a, b).unwrap().as_slice().iter().map(|p| f.port(*p).name()).collect()
        };
        let f = hgx(600, 2.0);
        assert_eq!(names(&f, 3, 3), Vec::<String>::new());
        assert_eq!(names(&f, 0, 7), ["nvlink_out[0]", "nvlink_in[7]"]);
        assert_eq!(names(&f, 1, 9), ["nic_out[1]", "nic_in[9]"]);
        assert_eq!(names(&f, 1, 10), ["nic_out[1]", "leaf_up[0,1]", "leaf_down[0,2]", "nic_in[10]"]);
        assert_eq!(names(&f, 1, 257), ["nic_out[1]", "leaf_up[0,1]", "leaf_down[1,1]", "nic_in[257]"]);
        // Nothing above the leaf can block where the spine is full.
        assert_eq!(names(&hgx(600, 1.0), 1, 10), ["nic_out[1]", "nic_in[10]"]);
        assert!(f.path(0, 600).unwrap_err().to_string().contains("dst: GPU 600 is not in a fabric of 600"));
    }

    #[test]
    fn every_port_has_a_number_and_a_rate() {
        let f = hgx(20, 4.0);
        for id in 0..f.capacities().len() as u32 {
            assert_eq!(f.id(f.port(id)), Some(id));
        }
        // Rail 5 of 20 GPUs hangs on two nodes only: the last is partial.
        let leaf = |rail| f.capacities()[f.id(Port::LeafUp { pod: 0, rail }).unwrap() as usize];
        assert_eq!((leaf(0), leaf(5)), (3.0 * 50e9 / 4.0, 2.0 * 50e9 / 4.0));
        assert_eq!(f.id(Port::NicIn(20)), None);
    }
}
