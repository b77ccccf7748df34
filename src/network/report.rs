//! One phase taken apart: its time, its start-up, what each kind of port carries and which one binds.
//!
//! The time is the one that estimates use ([`Comm`]); the ports are the closed form's bytes through
//! the busiest GPU, so that `alpha + max(port)` can be compared with it: at measured ranks the table
//! decides, and the ports say what the kernel had to move. `bound` is the port that takes longest at
//! its wire rate, or `alpha` where the start-up is more than half of the time.
//!
//! Limit: the busiest GPU of a side stands for all; ports of switches and hosts are not told.

use super::a2a::{A2aKind, A2aShape};
use super::afd::{AfdShape, Way};
use super::curve::CommTime;
use super::port::{Collective, GpuPort, Link, PortSide, Tier};
use super::skew;
use super::traffic::{Ports, packed, payload_bytes, return_bytes};
use super::{Comm, Seats, wires::Wires};
use crate::kernels::Evidence;

/// Bytes through the busiest port of a kind.
#[derive(Clone, Debug, PartialEq)]
pub struct PortUse {
    pub port: GpuPort,
    pub side: PortSide,
    pub bytes: f64,
    pub bytes_per_s: f64,
    /// Flows that share the port while the phase lasts (messages to as many peers at a time).
    pub flows: f64,
}

impl PortUse {
    /// Seconds at the wire rate.
    pub(crate) fn seconds(&self) -> f64 {
        self.bytes / self.bytes_per_s
    }
}

/// A phase and what it is made of.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    pub seconds: f64,
    /// Start-up of the kernel: its time for the smallest message.
    pub alpha_s: f64,
    pub ports: Vec<PortUse>,
    pub evidence: Evidence,
    /// Which kernel.
    pub kernel: &'static str,
    pub tier: Tier,
}

impl Report {
    fn new(time: CommTime, alpha_s: f64, ports: Vec<PortUse>, kernel: &'static str) -> Report {
        let over = |link: Link| ports.iter().any(|p| p.port.link() == link && p.bytes > 0.0);
        let tier = match (over(Link::Nvlink), over(Link::Nic)) {
            (true, true) => Tier::Both,
            (false, true) => Tier::ScaleOut,
            _ => Tier::ScaleUp,
        };
        Report {
            seconds: time.seconds,
            alpha_s: alpha_s.min(time.seconds),
            ports,
            evidence: time.evidence,
            kernel,
            tier,
        }
    }

    /// The same phase at a time found otherwise, `alpha_s` of it for the smallest message.
    pub(crate) fn timed(self, time: CommTime, alpha_s: f64) -> Report {
        Report { seconds: time.seconds, alpha_s: alpha_s.min(time.seconds), evidence: time.evidence, ..self }
    }

    /// The port that the phase waits for; none: it waits for the start-up.
    pub fn bound(&self) -> Option<GpuPort> {
        if self.alpha_s > 0.5 * self.seconds {
            return None;
        }
        self.ports.iter().max_by(|a, b| a.seconds().total_cmp(&b.seconds())).map(|p| p.port)
    }
}

/// One GPU's share of a phase: bytes through its ports, and the peers it has there at a time.
struct Through {
    side: PortSide,
    bytes: Ports,
    near: f64,
    far: f64,
}

impl Through {
    /// Both directions; `into` scales what comes in (hot ranks).
    fn ports(&self, wires: &Wires, domains: u32, out: f64, into: f64) -> Vec<PortUse> {
        let nic = wires.nic(domains);
        let (nvlink, side) = (self.bytes.nvlink, self.side);
        let one =
            |port, bytes, bytes_per_s, flows: f64| PortUse { port, side, bytes, bytes_per_s, flows: flows.max(1.0) };
        let mut ports = vec![
            one(GpuPort::NvlinkOut, nvlink * out, wires.nvlink, self.near),
            one(GpuPort::NvlinkIn, nvlink * into, wires.nvlink, self.near),
            one(GpuPort::NicOut, self.bytes.nic * out, nic, self.far),
            one(GpuPort::NicIn, self.bytes.nic * into, nic, self.far),
        ];
        ports.retain(|p| p.bytes > 0.0);
        ports
    }
}

/// Peers of a GPU inside its domain and beyond it, in an all-to-all of packed GPUs: every other GPU, or with
/// one copy a node the GPUs of its own rail.
fn peers(kind: A2aKind, ep: u32, domain: u32) -> (f64, f64) {
    let (most, least, domains) = packed(ep, domain);
    let far = if kind == A2aKind::Normal { domains - 1 } else { ep.max(1) - least.min(ep) };
    (f64::from(most - 1), f64::from(far))
}

impl Comm {
    /// A collective of GPUs that sit like this; `bytes`: the full buffer.
    pub(crate) fn report_collective(&self, op: Collective, bytes: f64, seats: Seats) -> Report {
        let wires = &self.inner.wires;
        let c = &self.inner.collectives;
        let at = |bytes: f64| match op {
            Collective::AllGather => c.all_gather(bytes, seats),
            Collective::ReduceScatter => c.reduce_scatter(bytes, seats),
            Collective::AllReduce => c.all_reduce(bytes, seats, true),
        };
        let passes = if op == Collective::AllReduce { 2.0 } else { 1.0 };
        let share = |n: u32| 1.0 - 1.0 / f64::from(n.max(1));
        // Ring traffic inside the domain, then each rail passes on what its GPU holds.
        let across = seats.domains > 1;
        let nic = if across { passes * share(seats.domains) * bytes / f64::from(seats.least) } else { 0.0 };
        let inside = Ports { nvlink: passes * share(seats.most) * bytes, nic };
        // Rings: one neighbour at a time.
        let ring = Through { side: PortSide::Gpu, bytes: inside, near: 1.0, far: 1.0 };
        let ports = ring.ports(wires, seats.domains, 1.0, 1.0);
        let kernel = if op == Collective::AllReduce { "nccl or custom" } else { "nccl" };
        Report::new(at(bytes), at(1.0).seconds, ports, kernel)
    }

    /// Packed from the start of a domain.
    pub fn packed(&self, ranks: u32) -> Seats {
        self.inner.collectives.packed(ranks)
    }

    /// The kernel that takes this many tokens soonest.
    pub fn best_kind(&self, shape: &A2aShape, tokens: f64) -> A2aKind {
        let cost = |k: A2aKind| self.dispatch(shape, tokens, k).seconds + self.combine(shape, tokens, k).seconds;
        let reaches = |k: &&A2aKind| {
            tokens <= k.most_tokens() && (**k != A2aKind::OneSided || shape.ep <= self.inner.wires.domain)
        };
        let fits = self.kinds().iter().filter(reaches);
        fits.copied().min_by(|a, b| cost(*a).total_cmp(&cost(*b))).unwrap_or(A2aKind::Normal)
    }

    /// Dispatch (`back`: combine) of `tokens` per source GPU. `load`: experts' shares; the hot rank's
    /// incoming port (combine: outgoing) sets the bytes, as if every rank carried as much.
    pub(crate) fn report_exchange(
        &self,
        shape: &A2aShape,
        tokens: f64,
        kind: A2aKind,
        back: bool,
        load: Option<&[f64]>,
    ) -> Report {
        let dedup = kind != A2aKind::LowLatency;
        let hot = load.map_or(1.0, |l| skew::hot_factor(l, shape.ep, shape.topk, dedup));
        let at =
            |tokens: f64| if back { self.combine(shape, tokens, kind) } else { self.dispatch(shape, tokens, kind) };
        let mut time = at(tokens * hot);
        if hot > 1.0 {
            time = time.at_best(Evidence::Interpolated);
        }
        let payload = if back { return_bytes(shape.hidden) } else { payload_bytes(shape.hidden, shape.dispatch_dtype) };
        let domain = self.inner.wires.domain;
        let (ports, domains) = (kind.ports(shape, domain), packed(shape.ep, domain).2);
        let (out, into) = if back { (hot, 1.0) } else { (1.0, hot) };
        let (near, far) = peers(kind, shape.ep, domain);
        let gpu = Through { side: PortSide::Gpu, bytes: ports.scale(tokens * payload), near, far };
        let ports = gpu.ports(&self.inner.wires, domains, out, into);
        Report::new(time, at(f64::MIN_POSITIVE.max(1e-3)).seconds, ports, kind.name())
    }

    /// A2F (`back`: F2A) of `tokens` per attention rank.
    pub(crate) fn report_afd(&self, shape: &AfdShape, tokens: f64, back: bool) -> Report {
        let at = |tokens: f64| if back { self.f2a(shape, tokens) } else { self.a2f(shape, tokens) };
        let payload = if back { return_bytes(shape.hidden) } else { payload_bytes(shape.hidden, shape.dispatch_dtype) };
        self.hop(shape, self.afd().report(shape, tokens, payload, back), at(tokens), at(1e-3).seconds, back)
    }

    /// The hops of a layer whose tokens travel once each (router, or dense layer, on the FFN side).
    pub(crate) fn report_afd_home(&self, shape: &AfdShape, tokens: f64, back: bool) -> Report {
        let at = |tokens: f64| self.afd_home(shape, tokens, back);
        self.hop(shape, self.afd().home_way(shape, tokens, back), at(tokens), at(1e-3).seconds, back)
    }

    fn hop(&self, shape: &AfdShape, way: Way, time: CommTime, alpha_s: f64, back: bool) -> Report {
        let wires = &self.inner.wires;
        let Way { hop, kernel, .. } = way;
        let s = shape.spread(wires.domain);
        let (a, f) = (f64::from(shape.attention_gpus), f64::from(shape.ffn_gpus));
        // One copy a node leaves through one GPU there.
        let far = if kernel == A2aKind::Normal { f64::from(s.ffn_domains) } else { f * s.attention_far };
        let attention = Through { side: PortSide::Attention, bytes: hop.attention, near: f * s.attention_near, far };
        let ffn = Through { side: PortSide::Ffn, bytes: hop.ffn, near: a * s.ffn_near, far: a * s.ffn_far };
        let (sent, received) = if back { (&ffn, &attention) } else { (&attention, &ffn) };
        let mut ports = sent.ports(wires, hop.domains, 1.0, 0.0);
        ports.extend(received.ports(wires, hop.domains, 0.0, 1.0));
        ports.sort_by_key(|p| p.side);
        Report::new(time, alpha_s, ports, kernel.name())
    }

    /// The KV of one request over `links` pairs of GPUs; by layer: the layers follow the computation.
    pub fn report_kv(&self, bytes: f64, links: u32, same_domain: bool, layers: Option<(u32, f64)>) -> Report {
        let wires = &self.inner.wires;
        let per_link = bytes / f64::from(links.max(1));
        let (bytes_of_tier, domains) = if same_domain {
            (Ports { nvlink: per_link, nic: 0.0 }, 1)
        } else {
            (Ports { nvlink: 0.0, nic: per_link }, 2)
        };
        let of = |side| Through { side, bytes: bytes_of_tier, near: 1.0, far: 1.0 };
        let mut ports = of(PortSide::Prefill).ports(wires, domains, 1.0, 0.0);
        ports.extend(of(PortSide::Decode).ports(wires, domains, 0.0, 1.0));
        match layers {
            None => {
                let time = self.kv_transfer(bytes, links, same_domain);
                Report::new(time, self.kv_transfer(0.0, links, same_domain).seconds, ports, "kv bulk")
            }
            Some((layers, compute_s)) => {
                let n = f64::from(layers.max(1));
                let one = self.kv_layer(bytes / n, links, same_domain);
                // What the computation of a layer does not hide, and the last layer whole.
                let exposed = (one.seconds - compute_s).max(0.0) * (n - 1.0) + one.seconds;
                let time = CommTime { seconds: exposed, ..one };
                Report::new(time, self.kv_layer(0.0, links, same_domain).seconds, ports, "kv by layer")
            }
        }
    }

    /// GPUs of a scale-up domain.
    pub fn domain(&self) -> u32 {
        self.inner.wires.domain
    }
}
