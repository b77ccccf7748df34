//! What travels between the pools of an AFD unit and how long the wire takes: the assumptions' answers, chosen once when
//! a library is made.
//!
//! Physical: the expected copies of a token in the model's exchange format, on the calibrated law of the network
//! (`network::afd`). Published planners count other copies and divide by a bandwidth (`cost::published`). Limit: other
//! copies on the calibrated law keep its start-up and its efficiency.

use crate::cost::published;
use crate::network::{AfdShape, traffic};
use crate::spec::assumptions::{AfdWire, Copies};
use crate::spec::{Assumptions, Fabric};

/// A2F (or, `back`, F2A) of the micro-batch of one attention rank at one layer.
pub(in crate::cost) struct Hop<'a> {
    pub shape: &'a AfdShape,
    pub fabric: &'a Fabric,
    /// Groups of FFN GPUs that hold all experts.
    pub replicas: u32,
    pub tokens: f64,
    pub back: bool,
}

/// How hops are counted and timed.
pub(in crate::cost) struct HopStrategy {
    /// Bytes through the busier end; none: those of the law.
    pub bytes: Option<fn(&Hop<'_>) -> f64>,
    /// Seconds of so many bytes in a unit of so many GPUs; none: the law's.
    pub wire: Option<fn(f64, &Fabric, u32) -> f64>,
    /// Whether the all-gather over attention TP that ends the law's F2A is taken out.
    pub no_gather: bool,
}

impl HopStrategy {
    pub(crate) fn of(a: &Assumptions) -> HopStrategy {
        let wire: Option<fn(f64, &Fabric, u32) -> f64> = match a.afd_wire {
            AfdWire::Calibrated => None,
            AfdWire::Bandwidth => {
                Some(|bytes, fabric, gpus| published::paper_p2p(bytes, published::tier_bandwidth(fabric, gpus)))
            }
            AfdWire::NodeLink => Some(|bytes, fabric, _| published::node_link(bytes, fabric)),
        };
        HopStrategy {
            bytes: (a.copies != Copies::Expected).then(|| counted(a.copies)),
            wire,
            no_gather: !a.afd_reductions && wire.is_none(),
        }
    }
}

/// How bytes through the busier end are counted.
pub(in crate::cost) fn counted(copies: Copies) -> fn(&Hop<'_>) -> f64 {
    match copies {
        Copies::Expected => expected,
        Copies::HalfOfWorst => half_of_worst,
        Copies::OneLink => one_link,
    }
}

impl Hop<'_> {
    fn hidden(&self) -> f64 {
        f64::from(self.shape.hidden)
    }

    /// Attention-DP ranks of one group.
    fn ranks(&self) -> f64 {
        f64::from(self.shape.attention_gpus / self.shape.attention_tp)
    }
}

/// Expected distinct expert groups; as many back.
pub(in crate::cost) fn expected(h: &Hop<'_>) -> f64 {
    let payload = if h.back {
        traffic::return_bytes(h.shape.hidden)
    } else {
        traffic::payload_bytes(h.shape.hidden, h.shape.dispatch_dtype)
    };
    let moe_tp = f64::from(h.shape.moe_tp.max(1));
    let sent = h.tokens * h.shape.copies() * moe_tp * payload / f64::from(h.shape.attention_tp);
    let received = h.ranks() * h.tokens * h.shape.hit() * payload / f64::from(h.replicas);
    sent.max(received)
}

fn half_of_worst(h: &Hop<'_>) -> f64 {
    let (a, f) = (f64::from(h.shape.attention_gpus), f64::from(h.shape.ffn_gpus));
    let (sent, received) = if h.back {
        published::paper_f2a_bytes(h.tokens, h.hidden(), h.ranks(), a, f)
    } else {
        let copies = published::paper_copies(h.shape.topk, h.shape.ffn_gpus);
        published::paper_a2f_bytes(h.tokens, h.hidden(), h.ranks(), a, f, copies)
    };
    sent.max(received)
}

fn one_link(h: &Hop<'_>) -> f64 {
    let nodes = h.shape.ffn_gpus.div_ceil(h.fabric.node_gpus.max(1));
    published::one_link_bytes(h.tokens, h.hidden(), h.shape.experts, h.shape.topk, nodes).max(0.0)
}
