//! A2F and F2A: M attention GPUs to N FFN GPUs and back.
//!
//! Per token of an attention rank (`tp` GPUs, each sending 1/tp of the vector):
//!
//! ```text
//! copies         C = D_c
//! attention out  T C moe_tp b / tp                       each copy reaches all moe_tp ranks
//! FFN in         (M/tp) T h moe_tp b / (moe_tp R)        h = P(hit) of the fullest group, R replicas
//! ```
//!
//! The shared expert sits on every FFN GPU, so its token rides a routed copy and costs no other.
//! D_c: expected distinct EP groups, equal or not; with uneven experts (256 over 126) the fullest
//! group's h sets the FFN side. F2A carries the same partial sums in BF16 the other way, then an
//! all-gather over tp. `prereduce`: the FFN pool first sums the partials among its own GPUs (all
//! but one of them move once, at the combine's alpha), then one copy a token goes back.
//! time = alpha + max over both sides of the port rule over (NVLink, NIC).
//!
//! Tiers: pools are packed from the start of a domain, attention first, so at most one domain
//! holds both; the busiest GPU of each side counts. Given a `same_domain_fraction`, that share of
//! every GPU's bytes stays on NVLink.
//!
//! Kernels: nobody has published a measured M-to-N table. Alpha and efficiency are those of the
//! one-sided kernel (unit inside a rack) or of DeepEP low-latency, which sends each copy over the
//! NIC; where the unit spans nodes DeepEP normal (one copy per destination node, then NVLink;
//! group-limited routing bounds the nodes) is the alternative, and the faster is taken, as a
//! serving system would. Everything is extrapolated at best: +-20-30 %.
//! Source: reference/network.md 1.2, physics.md 5. Limit: A2F and F2A sharing one direction of a
//! link (`half_duplex`) is the pipeline's business, not a longer transfer.

use super::a2a::{AllToAll, Kernel, Phase};
use super::curve::CommTime;
use super::traffic::{Ports, distinct_nodes, packed, payload_bytes, return_bytes};
use super::wires::Wires;
use crate::kernels::Evidence;
use crate::math::combinatorics::{distinct_groups, hit_probability};
use crate::spec::Dtype;

/// One AFD unit as the network sees it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AfdShape {
    pub hidden: u32,
    pub topk: u32,
    pub experts: u32,
    /// Group-limited routing; 0 or 1: none.
    pub groups: u32,
    pub topk_groups: u32,
    pub attention_gpus: u32,
    pub attention_tp: u32,
    pub ffn_gpus: u32,
    /// EP groups of the FFN pool, each of `moe_tp` GPUs.
    pub ep: u32,
    pub moe_tp: u32,
    pub dispatch_dtype: Dtype,
    /// The FFN pool sums a token's partial results before they go back.
    pub prereduce: bool,
    /// The token also needs its shared expert on some FFN GPU: at least one copy goes out.
    pub shared_copy: bool,
    /// A2F and F2A share one direction of the links (the schedule's business).
    pub half_duplex: bool,
    /// Share of the traffic inside a domain; NaN: from packed placement.
    pub same_domain_fraction: f64,
}

/// Bytes through the busiest ports of both sides for one micro-batch.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Hop {
    pub attention: Ports,
    pub ffn: Ports,
    /// Domains the unit spans.
    pub domains: u32,
}

/// How a unit sits on the domains: attention first, FFN after it, from the start of a domain.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Layout {
    domains: u32,
    ffn_domains: u32,
    /// Attention and FFN GPUs in the one domain that holds both.
    mixed: (u32, u32),
}

impl Layout {
    fn new(shape: &AfdShape, domain: u32) -> Layout {
        let (a, f) = (shape.attention_gpus.max(1), shape.ffn_gpus.max(1));
        let rest = a % domain;
        let mixed = if rest == 0 { (0, 0) } else { (rest, f.min(domain - rest)) };
        let ffn_domains = (f - mixed.1).div_ceil(domain) + u32::from(mixed.1 > 0);
        Layout { domains: (a + f).div_ceil(domain), ffn_domains, mixed }
    }

    /// (largest NVLink share, largest NIC share) of a GPU of one side, which has `own` GPUs of
    /// which `mixed` share their domain with `others_here` of the `others`.
    fn shares(own: u32, mixed: u32, others_here: u32, others: u32) -> (f64, f64) {
        let near = f64::from(others_here) / f64::from(others);
        (if mixed > 0 { near } else { 0.0 }, if own > mixed { 1.0 } else { 1.0 - near })
    }
}

impl AfdShape {
    fn ranks(&self) -> f64 {
        f64::from(self.attention_gpus) / f64::from(self.attention_tp.max(1))
    }

    /// Copies of a token: distinct EP groups it goes to.
    pub fn copies(&self) -> f64 {
        let routed = distinct_groups(self.experts, self.ep.max(1), self.topk);
        if self.shared_copy { routed.max(1.0) } else { routed }
    }

    /// Probability that a token goes to the fullest EP group.
    pub fn hit(&self) -> f64 {
        hit_probability(self.experts, self.experts.div_ceil(self.ep.max(1)), self.topk)
    }

    /// FFN GPUs that serve one token set: replicas of the expert pool split the tokens.
    fn replicas(&self) -> f64 {
        (f64::from(self.ffn_gpus) / (f64::from(self.ep.max(1)) * f64::from(self.moe_tp.max(1)))).max(1.0)
    }

    /// Bytes of `tokens` per attention rank when every token travels in `copies` copies of `payload`
    /// per moe-TP rank, and the fullest FFN GPU sees a token with probability `hit`.
    fn bytes(&self, tokens: f64, copies: f64, hit: f64, payload: f64) -> (f64, f64) {
        let attention = tokens * copies * payload / f64::from(self.attention_tp.max(1));
        (attention, self.ranks() * tokens * hit * payload / self.replicas())
    }

    /// Without dedup over nodes: each copy goes its own way.
    pub fn direct(&self, tokens: f64, payload: f64, wires: &Wires) -> Hop {
        let copies = self.copies() * f64::from(self.moe_tp.max(1));
        let (attention, ffn) = self.bytes(tokens, copies, self.hit(), payload);
        self.tiers(attention, ffn, wires)
    }

    /// One summed vector a token, from wherever its sum was made.
    fn reduced(&self, tokens: f64, payload: f64, wires: &Wires) -> Hop {
        let attention = tokens * payload / f64::from(self.attention_tp.max(1));
        let ffn = self.ranks() * tokens * payload / f64::from(self.ffn_gpus.max(1));
        self.tiers(attention, ffn, wires)
    }

    fn tiers(&self, attention: f64, ffn: f64, wires: &Wires) -> Hop {
        let layout = Layout::new(self, wires.domain);
        let near = self.same_domain_fraction;
        if near.is_finite() {
            let near = near.clamp(0.0, 1.0);
            let split = |v: f64| Ports { nvlink: v * near, nic: v * (1.0 - near) };
            return Hop { attention: split(attention), ffn: split(ffn), domains: layout.domains };
        }
        let (a, f) = (self.attention_gpus.max(1), self.ffn_gpus.max(1));
        let (a_near, a_far) = Layout::shares(a, layout.mixed.0, layout.mixed.1, f);
        let (f_near, f_far) = Layout::shares(f, layout.mixed.1, layout.mixed.0, a);
        Hop {
            attention: Ports { nvlink: attention * a_near, nic: attention * a_far },
            ffn: Ports { nvlink: ffn * f_near, nic: ffn * f_far },
            domains: layout.domains,
        }
    }

    /// One copy per destination domain over the NIC, forwarded inside it over NVLink.
    fn by_node(&self, tokens: f64, payload: f64, wires: &Wires) -> Hop {
        let layout = Layout::new(self, wires.domain);
        let direct = self.direct(tokens, payload, wires);
        let f = self.ffn_gpus.max(1);
        // Domains of the FFN pool: the mixed one, full ones, the last one.
        let pure = f - layout.mixed.1;
        let sizes = [(layout.mixed.1, 1), (wires.domain, pure / wires.domain), (pure % wires.domain, 1)];
        let (mut reached, mut per_gpu) = (0.0, 0.0_f64);
        for (size, count) in sizes.into_iter().filter(|(size, count)| *size > 0 && *count > 0) {
            let held = (f64::from(self.experts) * f64::from(size) / f64::from(f)).ceil() as u32;
            let hit = hit_probability(self.experts, held.min(self.experts), self.topk);
            reached += f64::from(count) * hit;
            per_gpu = per_gpu.max(hit / f64::from(size));
        }
        let nodes = layout.ffn_domains.max(1);
        let limit = distinct_nodes(self.experts, nodes, self.topk, self.groups, self.topk_groups)
            / distinct_groups(self.experts, nodes, self.topk).max(f64::MIN_POSITIVE);
        let (attention, entering) = self.bytes(tokens, reached * limit, per_gpu * limit, payload);
        let far = |p: Ports, v: f64| v.min(p.nic);
        Hop {
            attention: Ports { nic: far(direct.attention, attention), ..direct.attention },
            // Every copy of a GPU reaches it over NVLink in the end.
            ffn: Ports { nvlink: direct.ffn.nvlink + direct.ffn.nic, nic: far(direct.ffn, entering) },
            domains: layout.domains,
        }
    }
}

/// The hops of one cluster.
#[derive(Clone, Copy, Debug)]
pub struct Afd<'a> {
    pub kernels: &'a AllToAll,
    pub wires: &'a Wires,
    pub alpha_scale: f64,
}

impl Afd<'_> {
    fn price(&self, hop: &Hop, phase: &Phase, shape: &AfdShape) -> CommTime {
        let gpus = shape.attention_gpus + shape.ffn_gpus;
        let ports = |p: Ports| phase.rule.seconds(p, self.wires, hop.domains);
        let seconds = self.alpha_scale * phase.alpha(gpus, shape.experts) + ports(hop.attention).max(ports(hop.ffn));
        CommTime { seconds, evidence: Evidence::Extrapolated }
    }

    fn hop(
        &self,
        shape: &AfdShape,
        tokens: f64,
        payload: f64,
        reduced: bool,
        phase: impl Fn(&Kernel) -> &Phase,
    ) -> CommTime {
        let own = if reduced {
            shape.reduced(tokens, payload, self.wires)
        } else {
            shape.direct(tokens, payload, self.wires)
        };
        match &self.kernels.one_sided {
            Some(kernel) if own.domains == 1 => self.price(&own, phase(kernel), shape),
            _ => {
                let direct = self.price(&own, phase(&self.kernels.low_latency), shape);
                if own.domains == 1 || reduced || shape.same_domain_fraction.is_finite() {
                    return direct;
                }
                let by_node = shape.by_node(tokens, payload, self.wires);
                direct.or(self.price(&by_node, phase(&self.kernels.normal), shape))
            }
        }
    }

    pub fn a2f(&self, shape: &AfdShape, tokens: f64) -> CommTime {
        self.hop(shape, tokens, payload_bytes(shape.hidden, shape.dispatch_dtype), false, |k| &k.dispatch)
    }

    /// Without the all-gather over attention TP, which the caller adds.
    pub fn f2a(&self, shape: &AfdShape, tokens: f64) -> CommTime {
        let payload = return_bytes(shape.hidden);
        let back = self.hop(shape, tokens, payload, shape.prereduce, |k| &k.combine);
        if shape.prereduce { self.sums(shape, tokens, payload).then(back) } else { back }
    }

    /// Partial sums meet inside the FFN pool: all but one of a token's move once.
    fn sums(&self, shape: &AfdShape, tokens: f64, payload: f64) -> CommTime {
        let partials = shape.copies() * f64::from(shape.moe_tp.max(1));
        let f = shape.ffn_gpus.max(1);
        let moved = shape.ranks() * tokens * (partials - 1.0).max(0.0) * payload / f64::from(f);
        if f == 1 || moved <= 0.0 {
            return CommTime::ZERO;
        }
        let (most, least, domains) = packed(f, self.wires.domain);
        let n = f64::from(f);
        let ports = Ports {
            nvlink: moved * f64::from(most - 1) / n,
            nic: if domains > 1 { moved * (1.0 - f64::from(least) / n) } else { 0.0 },
        };
        let kernel = match &self.kernels.one_sided {
            Some(k) if domains == 1 => &k.combine,
            _ => &self.kernels.low_latency.combine,
        };
        let seconds =
            self.alpha_scale * kernel.alpha(f, shape.experts) + kernel.rule.seconds(ports, self.wires, domains);
        CommTime { seconds, evidence: Evidence::Extrapolated }
    }
}
