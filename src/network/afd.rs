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
//! Tiers: pools are packed or placed by hand (spread.rs); the busiest GPU of each side counts.
//!
//! Kernels: nobody has published a measured M-to-N table. Alpha and efficiency are those of the
//! one-sided kernel (unit inside a rack) or of DeepEP low-latency, which sends each copy over the
//! NIC; where the unit spans nodes DeepEP normal (one copy per destination node, then NVLink;
//! group-limited routing bounds the nodes) is the alternative, and the faster is taken, as a
//! serving system would. Everything is extrapolated at best: +-20-30 %.
//! Source: network.md 1.2, physics.md 5. Limit: A2F and F2A sharing one direction of a
//! link (`half_duplex`) is the pipeline's business, not a longer transfer.

use super::a2a::{A2aKind, AllToAll, Kernel, Phase};
use super::curve::CommTime;
use super::spread::Spread;
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
    /// Where the pools sit; none: packed, attention first.
    pub spread: Option<Spread>,
}

/// Bytes through the busiest ports of both sides for one micro-batch.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Hop {
    pub attention: Ports,
    pub ffn: Ports,
    /// Domains the unit spans.
    pub domains: u32,
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

    /// Where the pools sit.
    pub(crate) fn spread(&self, domain: u32) -> Spread {
        self.spread.unwrap_or_else(|| Spread::packed(self.attention_gpus, self.ffn_gpus, domain))
    }

    fn tiers(&self, attention: f64, ffn: f64, wires: &Wires) -> Hop {
        let s = self.spread(wires.domain);
        Hop {
            attention: Ports { nvlink: attention * s.attention_near, nic: attention * s.attention_far },
            ffn: Ports { nvlink: ffn * s.ffn_near, nic: ffn * s.ffn_far },
            domains: s.domains,
        }
    }

    /// One copy per destination domain over the NIC, forwarded inside it over NVLink.
    fn by_node(&self, tokens: f64, payload: f64, wires: &Wires) -> Hop {
        let spread = self.spread(wires.domain);
        let direct = self.direct(tokens, payload, wires);
        let (reached, per_gpu) = spread.reached(self.experts, self.topk, self.ffn_gpus);
        let nodes = spread.ffn_domains.max(1);
        let limit = distinct_nodes(self.experts, nodes, self.topk, self.groups, self.topk_groups)
            / distinct_groups(self.experts, nodes, self.topk).max(f64::MIN_POSITIVE);
        let (attention, entering) = self.bytes(tokens, reached * limit, per_gpu * limit, payload);
        let far = |p: Ports, v: f64| v.min(p.nic);
        Hop {
            attention: Ports { nic: far(direct.attention, attention), ..direct.attention },
            // Every copy of a GPU reaches it over NVLink in the end.
            ffn: Ports { nvlink: direct.ffn.nvlink + direct.ffn.nic, nic: far(direct.ffn, entering) },
            domains: spread.domains,
        }
    }
}

/// One hop by one kernel.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Way {
    pub time: CommTime,
    /// Seconds that its bytes keep the ports of the FFN side, start-up left out.
    pub ffn_s: f64,
    pub hop: Hop,
    pub kernel: A2aKind,
}

/// The hops of one cluster.
#[derive(Clone, Copy, Debug)]
pub struct Afd<'a> {
    pub kernels: &'a AllToAll,
    pub wires: &'a Wires,
    pub alpha_scale: f64,
}

impl Afd<'_> {
    /// Time of a hop, and the seconds of it that the FFN side's ports are taken.
    fn price(&self, hop: &Hop, phase: &Phase, shape: &AfdShape) -> (CommTime, f64) {
        let gpus = shape.attention_gpus + shape.ffn_gpus;
        let ports = |p: Ports| phase.rule.seconds(p, self.wires, hop.domains);
        let ffn_s = ports(hop.ffn);
        let seconds = self.alpha_scale * phase.alpha(gpus, shape.experts) + ports(hop.attention).max(ffn_s);
        (CommTime { seconds, evidence: Evidence::Extrapolated }, ffn_s)
    }

    /// The way that a hop takes: its time, what moves, and the kernel. `reduced`: one summed vector
    /// a token; `phase`: which half of a kernel.
    fn way(
        &self,
        shape: &AfdShape,
        tokens: f64,
        payload: f64,
        reduced: bool,
        phase: impl Fn(&Kernel) -> &Phase,
    ) -> Way {
        let own = if reduced {
            shape.reduced(tokens, payload, self.wires)
        } else {
            shape.direct(tokens, payload, self.wires)
        };
        let by = |hop: Hop, kernel: &Kernel, kind| {
            let (time, ffn_s) = self.price(&hop, phase(kernel), shape);
            Way { time, ffn_s, hop, kernel: kind }
        };
        match &self.kernels.one_sided {
            Some(kernel) if own.domains == 1 => by(own, kernel, A2aKind::OneSided),
            _ => {
                let direct = by(own, &self.kernels.low_latency, A2aKind::LowLatency);
                if own.domains == 1 || reduced {
                    return direct;
                }
                let by_node = by(shape.by_node(tokens, payload, self.wires), &self.kernels.normal, A2aKind::Normal);
                if by_node.time.seconds < direct.time.seconds { by_node } else { direct }
            }
        }
    }

    /// What A2F (`back`: F2A, its partial sums and all-gather left out) moves, and by which kernel.
    pub(crate) fn report(&self, shape: &AfdShape, tokens: f64, payload: f64, back: bool) -> Way {
        if back {
            self.way(shape, tokens, payload, shape.prereduce, |k| &k.combine)
        } else {
            self.way(shape, tokens, payload, false, |k| &k.dispatch)
        }
    }

    pub(crate) fn a2f(&self, shape: &AfdShape, tokens: f64) -> CommTime {
        self.report(shape, tokens, payload_bytes(shape.hidden, shape.dispatch_dtype), false).time
    }

    /// Without the all-gather over attention TP, which the caller adds.
    pub(crate) fn f2a(&self, shape: &AfdShape, tokens: f64) -> CommTime {
        let payload = return_bytes(shape.hidden);
        let back = self.report(shape, tokens, payload, true).time;
        if shape.prereduce { self.sums(shape, tokens, payload).then(back) } else { back }
    }

    /// Seconds of A2F (`back`: F2A) that the ports of the FFN side are taken. Groups of attention GPUs that
    /// share the pool wait there for one another, and nowhere else: start-up, the ports of their own GPUs and
    /// the all-gather over attention TP are each group's own. Partial sums that meet inside the pool count whole.
    pub(crate) fn ffn_seconds(&self, shape: &AfdShape, tokens: f64, back: bool) -> f64 {
        if !back {
            return self.report(shape, tokens, payload_bytes(shape.hidden, shape.dispatch_dtype), false).ffn_s;
        }
        let payload = return_bytes(shape.hidden);
        let own = self.report(shape, tokens, payload, true).ffn_s;
        if shape.prereduce { own + self.sums(shape, tokens, payload).seconds } else { own }
    }

    /// One copy of each token to one FFN GPU, whatever its experts, and one vector back from there:
    /// routing and the exchange between experts are the FFN pool's own business.
    pub(crate) fn home(&self, shape: &AfdShape, tokens: f64, back: bool) -> CommTime {
        self.home_way(shape, tokens, back).time
    }

    /// What that moves, and by which kernel.
    pub(crate) fn home_way(&self, shape: &AfdShape, tokens: f64, back: bool) -> Way {
        // Nothing is known of the experts on the way out, so nothing is quantised per expert: BF16 both ways.
        let payload = return_bytes(shape.hidden);
        self.way(shape, tokens, payload, true, |k| if back { &k.combine } else { &k.dispatch })
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
