//! The lanes of a MoE layer as lines, whole and as two half-batches.
//!
//! A layer of one lane is `A(rank) + max(X(own) + max(M(own), E(all)), S(rank))`: X the exchange of a GPU's own tokens (of
//! a fused kernel its start-up, the bytes M then hide behind the experts E or these behind them), S the shared expert
//! where it hides behind the routed path. Two half-batches in turn are the ring of `overlap::two_batches` over the same
//! parts at half the tokens. The parts are read off `MoePart::layer_of` and what it calls.

use std::sync::Arc;

use super::moe::{Lane, LayerParts, MoePart};
use crate::cost::Batch;
use crate::cost::line::{Line, Lines, Place};
use crate::cost::overlap;
use crate::cost::sink::{Op, Sink, Total};
use crate::kernels::Reading;
use crate::network::A2aKind;
use crate::spec::Parallel;

/// One lane in one mode.
#[derive(Debug)]
pub(super) struct LaneLines {
    /// Most tokens of a rank that it takes.
    pub most: f64,
    /// Reductions and router, over a rank's tokens; experts, over those of all ranks.
    rank: Arc<Line>,
    experts: Arc<Line>,
    /// Collectives to the experts and back, over the tokens of all ranks.
    collective: Option<Arc<Line>>,
    /// The all-to-all, over a GPU's tokens: both ways, of a fused kernel their start-up.
    exchange: Option<Arc<Line>>,
    /// Bytes that a fused kernel moves beside the experts, over a GPU's tokens.
    moved: Option<Arc<Line>>,
    /// The shared expert, over a rank's tokens.
    shared: Option<Arc<Line>>,
}

/// One lane in one mode for two half-batches.
#[derive(Debug)]
pub(super) struct HalfLines {
    pub most: f64,
    tensor: bool,
    slowed: f64,
    before: Arc<Line>,
    experts: Arc<Line>,
    /// Dispatch and combine over a GPU's tokens, or gather and scatter over those of all ranks.
    ways: Option<[Arc<Line>; 2]>,
    collectives: Option<[Arc<Line>; 2]>,
    shared: Option<Arc<Line>>,
}

/// Seconds of a MoE layer that are neither exchange nor experts: reductions and router.
#[derive(Default)]
struct Around(f64);

impl Sink for Around {
    const DETAIL: bool = true;

    fn add(&mut self, op: Op, count: f64, reading: Reading) {
        if !matches!(op, Op::Dispatch | Op::Combine | Op::Experts | Op::SharedExpert) {
            self.0 += count * reading.seconds;
        }
    }

    fn merge(&mut self, total: &Total) {
        self.0 += total.seconds;
    }
}

/// A step in which a rank's GPU group has `tokens`.
pub(super) fn tokens_of(parallel: &Parallel, tokens: f64, decode: bool) -> Batch {
    if decode { Batch::decode(tokens, 1.0, 1.0) } else { Batch::prefill(1.0, tokens * f64::from(parallel.cp), 0.0) }
}

impl LaneLines {
    /// Seconds of a layer; `hides`: the shared expert behind the routed path.
    #[inline]
    pub fn seconds(&self, at: &Places, hides: bool) -> f64 {
        let mut routed = self.experts.at(at.all);
        if let Some(moved) = &self.moved {
            routed = routed.max(moved.at(at.own));
        }
        if let Some(exchange) = &self.exchange {
            routed += exchange.at(at.own);
        }
        if let Some(collective) = &self.collective {
            routed += collective.at(at.all);
        }
        if let Some(shared) = &self.shared {
            let shared = shared.at(at.rank);
            // Of the tensor lane it hides behind the experts alone, which is all that `routed` has there.
            routed = if hides { routed.max(shared) } else { routed + shared };
        }
        self.rank.at(at.rank) + routed
    }
}

impl MoePart {
    pub fn lane_lines(self: &Arc<Self>, lines: &Lines, lane: Lane, decode: bool) -> LaneLines {
        let own = self.clone();
        let (exchange, moved) = match lane {
            Lane::Tensor | Lane::Gather => (None, None),
            Lane::Dispatch(kind) => {
                let both = move |x| own.way(kind, x, false) + own.way(kind, x, true);
                (Some(lines.get(("exchange", self.exchange_key(kind)), both)), None)
            }
            Lane::Fused(kind) => {
                let starts = [own.way(kind, 0.0, false), own.way(kind, 0.0, true)];
                let longer = move |x| (own.way(kind, x, false) - starts[0]).max(own.way(kind, x, true) - starts[1]);
                let key = self.exchange_key(kind);
                let start = lines.get(("starts", key), move |_| starts[0] + starts[1]);
                (Some(start), Some(lines.get(("moved", key), longer)))
            }
        };
        let gpus = self.parallel.stage_gpus();
        let collective = (lane == Lane::Gather).then(|| {
            let own = self.clone();
            lines.get(("collectives", [gpus, 0, 0, 0, 0, 0]), move |x| own.collectives(x).into_iter().sum())
        });
        LaneLines {
            most: most_tokens(lane) * f64::from(self.parallel.tp),
            rank: self.rank_line(lines, lane, decode),
            experts: self.expert_line(lines, lane, decode),
            collective,
            exchange,
            moved,
            shared: self.shared_line(lines, lane, decode),
        }
    }

    fn exchange_key(&self, kind: A2aKind) -> [u32; 6] {
        [kind as u32, self.a2a.ep, 0, 0, 0, 0]
    }

    /// Seconds of one way of an all-to-all; no rows of one node stand in for it where steps are tabulated.
    fn way(&self, kind: A2aKind, own: f64, back: bool) -> f64 {
        self.exchange(own, kind, true, back).seconds
    }

    /// All-gather and reduce-scatter around the experts.
    fn collectives(&self, all: f64) -> [f64; 2] {
        let gpus = self.parallel.stage_gpus();
        let gathered = all * self.hidden * self.lib.gather_bytes();
        let scattered = all * self.hidden * 2.0;
        [self.lib.all_gather(gathered, gpus).seconds, self.lib.reduce_scatter(scattered, gpus).seconds]
    }

    /// Reductions and router of a lane.
    fn rank_line(self: &Arc<Self>, lines: &Lines, lane: Lane, decode: bool) -> Arc<Line> {
        let (p, own) = (&self.parallel, self.clone());
        let key = [u32::from(lane == Lane::Tensor), p.tp, p.cp, u32::from(decode), 0, 0];
        lines.get(("lane", key), move |x| {
            let mut b = Around::default();
            own.layer_of(lane, &tokens_of(&own.parallel, x, decode), false, 1.0, &mut b);
            b.0
        })
    }

    /// The experts' kernel; a fused one works with fewer SMs.
    fn expert_line(self: &Arc<Self>, lines: &Lines, lane: Lane, decode: bool) -> Arc<Line> {
        let (p, own) = (&self.parallel, self.clone());
        let kernel = match lane {
            Lane::Tensor | Lane::Gather => 0,
            Lane::Dispatch(_) => 1,
            Lane::Fused(_) => 2,
        };
        lines.get(("experts", [kernel, p.ep(), p.moe_tp, u32::from(decode), 0, 0]), move |x| match lane {
            Lane::Tensor | Lane::Gather => own.experts.fused(x, decode).seconds,
            Lane::Dispatch(_) => own.experts.dispatched(x, decode).seconds,
            Lane::Fused(_) => {
                let reads = own.reads * (1.0 - own.missed.powf(x));
                overlap::beside_exchange(own.experts.dispatched(x, decode).seconds, reads, own.slowed)
            }
        })
    }

    fn shared_line(self: &Arc<Self>, lines: &Lines, lane: Lane, decode: bool) -> Option<Arc<Line>> {
        self.shared.as_ref()?;
        let whole = lane != Lane::Tensor || self.lib.whole_shared();
        let width = if lane == Lane::Tensor { 1 } else { self.parallel.tp };
        let (own, key) = (self.clone(), [u32::from(whole), self.parallel.tp, width, u32::from(decode), 0, 0]);
        Some(lines.get(("shared", key), move |x| {
            own.shared.as_ref().map_or(0.0, |s| s[usize::from(whole)].total(x / f64::from(width), decode).seconds)
        }))
    }

    pub fn half_lines(self: &Arc<Self>, lines: &Lines, lane: Lane, decode: bool) -> HalfLines {
        let gpus = self.parallel.stage_gpus();
        HalfLines {
            most: most_tokens(lane) * f64::from(self.parallel.tp),
            tensor: lane == Lane::Tensor,
            slowed: overlap::slowdown(&self.lib, lane.exchange()),
            before: self.rank_line(lines, lane, decode),
            experts: self.expert_line(lines, lane, decode),
            ways: lane.exchange().map(|kind| {
                [("out", false), ("back", true)].map(|(name, back)| {
                    let own = self.clone();
                    lines.get((name, self.exchange_key(kind)), move |x| own.way(kind, x, back))
                })
            }),
            collectives: (lane == Lane::Gather).then(|| {
                [("gather", 0), ("scatter", 1)].map(|(name, i)| {
                    let own = self.clone();
                    lines.get((name, [gpus, 0, 0, 0, 0, 0]), move |x| own.collectives(x)[i])
                })
            }),
            shared: self.shared_line(lines, lane, decode),
        }
    }
}

/// Most tokens of a GPU that a lane takes.
fn most_tokens(lane: Lane) -> f64 {
    lane.exchange().map_or(f64::INFINITY, A2aKind::most_tokens)
}

/// A rank's tokens, those of one of its GPUs, and those of all ranks, among the knots.
#[derive(Clone, Copy)]
pub(super) struct Places {
    pub rank: Place,
    pub own: Place,
    pub all: Place,
}

impl Places {
    pub fn of(rank: f64, tp: f64, all: f64) -> Places {
        Places { rank: Place::of(rank), own: Place::of(rank / tp), all: Place::of(all) }
    }
}

impl HalfLines {
    /// Both halves of a layer, whose attention takes `attention` seconds a half.
    pub fn wall(&self, attention: f64, at: &Places) -> f64 {
        let [out, back] = match (&self.ways, &self.collectives) {
            (Some([out, back]), _) => [out.at(at.own), back.at(at.own)],
            (_, Some([out, back])) => [out.at(at.all), back.at(at.all)],
            _ => [0.0; 2],
        };
        let experts = self.experts.at(at.all) + self.shared.as_ref().map_or(0.0, |s| s.at(at.rank));
        let before = self.before.at(at.rank);
        LayerParts { before, out, experts, back }.overlapped(attention, self.tensor, self.slowed)
    }
}
