//! A worker's step as a sum of lines: what hangs on a rank's tokens, on all ranks' tokens, on logits rows, and
//! the attention kernels.
//!
//! A MoE layer of one lane is `A(rank) + max(X(rank) + max(M(rank), E(all)), S(rank))`: X the exchange (of a fused
//! kernel its start-up, the bytes M then hide behind the experts E or these behind them), S the shared expert where it
//! hides behind the routed path. Two half-batches in turn are the ring of `overlap::two_batches` over the same parts
//! at half the tokens, taken where it is shorter. The parts are read off `Worker::layer_of` itself.

use std::sync::Arc;

use super::{Lane, LayerParts, MoePart, Worker};
use crate::cost::attention::{KernelLines, Lengths};
use crate::cost::line::{Line, Lines, Place, Tokens};
use crate::cost::sink::{Op, Sink, Total};
use crate::cost::{Batch, ffn};
use crate::cost::{draft, overlap};
use crate::kernels::Reading;
use crate::network::A2aKind;

/// One lane in one mode.
#[derive(Debug)]
struct LaneLines {
    /// Most tokens of a rank that it takes.
    most: f64,
    rank: Arc<Line>,
    all: Arc<Line>,
    /// Bytes that a fused kernel moves beside the experts.
    moved: Option<Arc<Line>>,
    /// What the shared expert hides behind beside the experts, and the shared expert; none: it hides behind nothing.
    exchange: Option<Arc<Line>>,
    shared: Option<Arc<Line>>,
}

/// One lane in one mode for two half-batches.
#[derive(Debug)]
struct HalfLines {
    most: f64,
    tensor: bool,
    slowed: f64,
    before: Arc<Line>,
    ways: Option<[Arc<Line>; 2]>,
    /// Experts, and what collectives carry to them and back.
    all: [Arc<Line>; 3],
    shared: Arc<Line>,
}

/// Layers that run as two half-batches where that is shorter.
#[derive(Debug)]
struct Halving {
    /// MoE layers with attention of each kind.
    layers: Vec<f64>,
    /// Token work of one layer's attention, and its kernels over half the prompts.
    attention: [Arc<Line>; 2],
    kernels: Vec<KernelLines>,
    lanes: [Vec<HalfLines>; 2],
}

/// The lines of one worker, [prefill, decode] where a step differs.
#[derive(Debug)]
pub struct WorkerLines {
    dp: f64,
    cp: f64,
    pp: f64,
    /// Share of the layers on the slowest stage.
    share: f64,
    mtp: u32,
    /// Layers with attention of each kind, full first.
    kernels: Vec<(f64, KernelLines)>,
    tokens: [Arc<Line>; 2],
    logits: [Arc<Line>; 2],
    draft: Option<[Arc<Line>; 2]>,
    moe: f64,
    lanes: [Vec<LaneLines>; 2],
    halving: Option<Halving>,
    hop: Option<Arc<Line>>,
}

/// Seconds of a MoE layer by what they hang on.
#[derive(Default)]
struct Buckets {
    reduce: f64,
    out: f64,
    back: f64,
    experts: f64,
    shared: f64,
}

impl Sink for Buckets {
    const DETAIL: bool = true;

    fn add(&mut self, op: Op, count: f64, reading: Reading) {
        let part = match op {
            Op::Dispatch => &mut self.out,
            Op::Combine => &mut self.back,
            Op::Experts => &mut self.experts,
            Op::SharedExpert => &mut self.shared,
            _ => &mut self.reduce,
        };
        *part += count * reading.seconds;
    }

    fn merge(&mut self, total: &Total) {
        self.reduce += total.seconds;
    }
}

impl Worker {
    /// A step in which a rank's GPU group has `tokens`.
    fn with_tokens(&self, tokens: f64, decode: bool) -> Batch {
        if decode {
            Batch::decode(tokens, 1.0, 1.0)
        } else {
            Batch::prefill(1.0, tokens * f64::from(self.parallel.cp), 0.0)
        }
    }

    /// What hangs on a rank's tokens in `dense` and `moe` layers, experts and attention kernels left out.
    fn token_work(&self, tokens: f64, decode: bool, dense: [f64; 2], moe: [f64; 2]) -> f64 {
        let batch = self.with_tokens(tokens, decode);
        let mut t = Tokens::default();
        for (i, sliding) in [false, true].into_iter().enumerate() {
            self.dense_layers(&batch, sliding, dense[i], &mut t);
            self.attention.price(&self.lib.comm, &batch, sliding, moe[i], &mut t);
        }
        t.0
    }

    fn logits_work(&self, rows: f64, decode: bool) -> f64 {
        let mut t = Tokens::default();
        ffn::norm(&self.memory, self.hidden, rows, decode, 1.0, &mut t);
        t.0 + self.logits[usize::from(decode)].at(&[rows]).seconds
    }

    /// Parts of a MoE layer none of which hides behind another.
    fn buckets(&self, lane: Lane, batch: &Batch) -> Buckets {
        let mut b = Buckets::default();
        if let Some(moe) = &self.moe {
            self.layer_of(moe, lane, batch, false, 1.0, &mut b);
        }
        b
    }

    /// The same at a rank's tokens, and at those of all ranks.
    fn of_rank(&self, lane: Lane, decode: bool, tokens: f64) -> Buckets {
        self.buckets(lane, &self.with_tokens(tokens, decode))
    }

    fn of_all(&self, lane: Lane, decode: bool, tokens: f64) -> Buckets {
        let each = tokens / f64::from(self.parallel.dp);
        self.buckets(lane, &if decode { Batch::decode(each, 1.0, 1.0) } else { Batch::prefill(1.0, each, 0.0) })
    }

    fn lane_lines(self: &Arc<Self>, lines: &Lines, moe: &MoePart, lane: Lane, decode: bool) -> LaneLines {
        let p = &self.parallel;
        let (tp, mode) = (p.tp, u32::from(decode));
        let (kind, most) = number(lane);
        let hides = decode && self.overlap && moe.shared.is_some();
        let own = self.clone();
        let rank = lines.get(("lane", [kind.min(3), tp, mode, p.cp, u32::from(hides), 0]), move |x| {
            let b = own.of_rank(lane, decode, x);
            b.reduce + if hides { 0.0 } else { b.shared }
        });
        let (all, gpus) = (self.expert_lines(lines, lane, decode), p.stage_gpus());
        let key = [kind, moe.a2a.ep, tp, mode, p.cp, gpus];
        let shared = hides.then(|| {
            let whole = lane != Lane::Tensor || self.lib.whole_shared();
            let width = if lane == Lane::Tensor { 1 } else { tp };
            let own = self.clone();
            lines.get(("shared", [u32::from(whole), tp, width, 0, 0, 0]), move |x| {
                let shared = own.moe.as_ref().and_then(|m| m.shared.as_ref());
                shared.map_or(0.0, |s| s[usize::from(whole)].total(x / f64::from(width), true).seconds)
            })
        });
        let most = most * f64::from(tp);
        let own = self.clone();
        let (moved, exchange) = match lane {
            Lane::Tensor | Lane::Gather => (None, None),
            Lane::Dispatch(_) => {
                let of = move |x| own.of_rank(lane, decode, x);
                let exchange = lines.get(("exchange", key), move |x| {
                    let b = of(x);
                    b.out + b.back
                });
                (None, Some(exchange))
            }
            Lane::Fused(kind) => {
                let ways = move |x: f64, back| {
                    let own_tokens = x / f64::from(own.parallel.tp);
                    let moe = own.moe.as_ref();
                    moe.map_or(0.0, |m| m.exchange(&own.lib.comm, own_tokens, kind, decode, back).seconds)
                };
                let starts = [ways(0.0, false), ways(0.0, true)];
                let moved =
                    lines.get(("moved", key), move |x| (ways(x, false) - starts[0]).max(ways(x, true) - starts[1]));
                (Some(moved), Some(lines.get(("starts", key), move |_| starts[0] + starts[1])))
            }
        };
        if let (Some(e), None, None) = (&exchange, &shared, &moved) {
            // Nothing hides behind the exchange: one line less to read.
            let (a, e) = (rank, e.clone());
            let rank = lines.get(("lane+exchange", key), move |x| a.read(x) + e.read(x));
            return LaneLines { most, rank, all, moved: None, exchange: None, shared: None };
        }
        LaneLines { most, rank, all, moved, exchange, shared }
    }

    /// Experts, with the collectives of a lane whose exchange hangs on all ranks' tokens; of a fused kernel with fewer
    /// SMs.
    fn expert_lines(self: &Arc<Self>, lines: &Lines, lane: Lane, decode: bool) -> Arc<Line> {
        let p = &self.parallel;
        let gpus = if lane == Lane::Gather { p.stage_gpus() } else { 0 };
        let kind = match lane {
            Lane::Fused(_) => 6,
            _ => number(lane).0.min(3),
        };
        let own = self.clone();
        lines.get(("experts", [kind, p.ep(), p.moe_tp, gpus, u32::from(decode), 0]), move |x| {
            if let (Lane::Fused(_), Some(moe)) = (lane, &own.moe) {
                let experts = moe.experts.dispatched(x, decode);
                let reads = moe.reads * (1.0 - moe.missed.powf(x));
                return overlap::beside_exchange(experts.seconds, reads, own.slowed);
            }
            let b = own.of_all(lane, decode, x);
            b.experts + if lane.exchange().is_some() { 0.0 } else { b.out + b.back }
        })
    }

    fn half_lines(self: &Arc<Self>, lines: &Lines, lane: Lane, decode: bool) -> HalfLines {
        let p = &self.parallel;
        let (kind, most) = number(lane);
        let key = [kind, p.ep(), p.tp, u32::from(decode), p.cp, p.stage_gpus()];
        let of_rank = |name, part: fn(&Buckets) -> f64| {
            let own = self.clone();
            lines.get((name, key), move |x| part(&own.of_rank(lane, decode, x)))
        };
        let of_all = |name, part: fn(&Buckets) -> f64| {
            let own = self.clone();
            lines.get((name, key), move |x| part(&own.of_all(lane, decode, x)))
        };
        HalfLines {
            most: most * f64::from(p.tp),
            tensor: lane == Lane::Tensor,
            slowed: overlap::slowdown(&self.lib, lane.exchange()),
            before: of_rank("half.before", |b| b.reduce),
            ways: lane.exchange().is_some().then(|| [of_rank("half.out", |b| b.out), of_rank("half.back", |b| b.back)]),
            all: [
                of_all("half.experts", |b| b.experts),
                of_all("half.gather", |b| b.out),
                of_all("half.scatter", |b| b.back),
            ],
            shared: of_rank("half.shared", |b| b.shared),
        }
    }

    fn halving(self: &Arc<Self>, lines: &Lines, attention: &Lines, lengths: Lengths) -> Option<Halving> {
        let moe = self.moe.as_ref().filter(|_| self.two_batches)?;
        let kinds: Vec<bool> = [false, true].into_iter().filter(|s| !s || self.counts.moe[1] > 0.0).collect();
        let lanes = |decode: bool| {
            let graph = decode && self.lib.graph(true);
            let apart = moe.lanes.iter().filter(|l| !matches!(l, Lane::Fused(_)));
            let taken = apart.filter(|l| !(graph && l.exchange() == Some(A2aKind::Normal)));
            taken.map(|l| self.half_lines(lines, *l, decode)).collect()
        };
        let p = &self.parallel;
        Some(Halving {
            layers: kinds.iter().map(|s| self.counts.moe[usize::from(*s)]).collect(),
            attention: [false, true].map(|decode| {
                let own = self.clone();
                lines.get(("half.attention", [p.tp, p.cp, u32::from(decode), 0, 0, 0]), move |x| {
                    own.token_work(x, decode, [0.0; 2], [1.0, 0.0])
                })
            }),
            kernels: kinds.iter().map(|s| KernelLines::new(&self.attention, attention, lengths, *s, 2)).collect(),
            lanes: [lanes(false), lanes(true)],
        })
    }
}

/// Number of a lane, and the most tokens of a GPU that it takes.
fn number(lane: Lane) -> (u32, f64) {
    match lane {
        Lane::Tensor => (1, f64::INFINITY),
        Lane::Gather => (2, f64::INFINITY),
        Lane::Dispatch(k) => (3 + k as u32, k.most_tokens()),
        Lane::Fused(k) => (3 + k as u32 + 16, k.most_tokens()),
    }
}

impl HalfLines {
    /// Both halves of a layer, whose attention takes `attention` seconds a half.
    fn wall(&self, attention: f64, at: Place, all: Place) -> f64 {
        let (out, back) = match &self.ways {
            Some([out, back]) => (out.at(at), back.at(at)),
            None => (self.all[1].at(all), self.all[2].at(all)),
        };
        let experts = self.all[0].at(all) + self.shared.at(at);
        LayerParts { before: self.before.at(at), out, experts, back }.overlapped(attention, self.tensor, self.slowed)
    }
}

impl Halving {
    /// Seconds that halving saves over all layers: `kernels` are those of whole and of half-batches, by kind.
    fn saves(&self, mode: usize, rank: f64, all: f64, layer: f64, kernels: impl Iterator<Item = [f64; 2]>) -> f64 {
        let (at, half, all) = (Place::of(rank), Place::of(0.5 * rank), Place::of(0.5 * all));
        let (whole, part) = (self.attention[mode].at(at), self.attention[mode].at(half));
        let mut saved = 0.0;
        for (layers, [kernel, half_kernel]) in self.layers.iter().zip(kernels) {
            let lanes = self.lanes[mode].iter().filter(|l| 0.5 * rank <= l.most);
            let wall = lanes.map(|l| l.wall(part + half_kernel, half, all)).fold(f64::INFINITY, f64::min);
            saved += layers * (whole + kernel + layer - wall).max(0.0);
        }
        saved
    }
}

impl WorkerLines {
    /// `lines`: of this library; `attention`: of this library and these lengths.
    pub fn new(w: &Arc<Worker>, lines: &Lines, attention: &Lines, lengths: Lengths) -> WorkerLines {
        let p = &w.parallel;
        let key = |name, mode: usize| (name, [p.tp, p.cp, mode as u32, 0, 0, 0]);
        let (counts, mtp) = (w.counts, w.lib.serving.mtp);
        let kernels = [false, true]
            .into_iter()
            .map(|sliding| (counts.dense[usize::from(sliding)] + counts.moe[usize::from(sliding)], sliding))
            .filter(|(layers, sliding)| *layers > 0.0 || !sliding)
            .map(|(layers, sliding)| (layers, KernelLines::new(&w.attention, attention, lengths, sliding, 1)))
            .collect();
        let pair = |make: &dyn Fn(usize) -> Arc<Line>| [make(0), make(1)];
        let one = if w.moe.is_some() { ([0.0; 2], [1.0, 0.0]) } else { ([1.0, 0.0], [0.0; 2]) };
        let lanes = |decode: bool| -> Vec<LaneLines> {
            let graph = decode && w.lib.graph(true);
            w.moe.as_ref().map_or_else(Vec::new, |moe| {
                moe.lanes
                    .iter()
                    .filter(|l| !(graph && l.exchange() == Some(A2aKind::Normal)))
                    .map(|l| w.lane_lines(lines, moe, *l, decode))
                    .collect()
            })
        };
        let layers = w.lib.model.layers;
        WorkerLines {
            dp: f64::from(p.dp),
            cp: f64::from(p.cp),
            pp: f64::from(p.pp),
            share: f64::from(layers.div_ceil(p.pp)) / f64::from(layers),
            mtp,
            kernels,
            tokens: pair(&|mode| {
                let w = w.clone();
                lines.get(key("tokens", mode), move |x| {
                    let embedding = w.memory[mode].at(&[x * w.hidden * 4.0]).seconds;
                    embedding + w.token_work(x, mode == 1, counts.dense, counts.moe)
                })
            }),
            logits: pair(&|mode| {
                let w = w.clone();
                lines.get(key("logits", mode), move |x| w.logits_work(x, mode == 1))
            }),
            draft: w.draft.is_some().then(|| {
                pair(&|mode| {
                    let w = w.clone();
                    lines.get(key("draft", mode), move |x| {
                        let project = w
                            .draft
                            .as_ref()
                            .map_or(0.0, |projection| projection[mode].at(&[x / f64::from(w.parallel.tp)]).seconds);
                        project + w.token_work(x, mode == 1, one.0, one.1)
                    })
                })
            }),
            moe: counts.moe[0] + counts.moe[1],
            lanes: [lanes(false), lanes(true)],
            halving: w.halving(lines, attention, lengths),
            hop: (p.pp > 1).then(|| {
                let w = w.clone();
                lines.get(("hop", [p.tp, 0, 0, 0, 0, 0]), move |x| {
                    w.lib.comm.p2p(x * w.hidden * 2.0 / f64::from(w.parallel.tp), true).seconds
                })
            }),
        }
    }

    /// The fastest lane of one MoE layer.
    #[inline]
    fn layer(&self, mode: usize, rank: f64, at: Place, all: f64) -> f64 {
        let all = Place::of(all);
        let mut best = f64::INFINITY;
        for lane in self.lanes[mode].iter().filter(|l| rank <= l.most) {
            let mut routed = lane.all.at(all);
            if let Some(moved) = &lane.moved {
                routed = routed.max(moved.at(at));
            }
            if let Some(exchange) = &lane.exchange {
                routed += exchange.at(at);
            }
            if let Some(shared) = &lane.shared {
                routed = routed.max(shared.at(at));
            }
            best = best.min(lane.rank.at(at) + routed);
        }
        best
    }

    /// A step without its attention kernels, of which `kernel` gives all layers' and one draft layer's; `halves`: one
    /// layer's of each kind, of whole and of half-batches.
    #[inline]
    fn around(&self, b: &Batch, kernel: [f64; 2], halves: impl FnOnce(&Halving) -> [[f64; 2]; 2]) -> f64 {
        let mode = usize::from(!b.has_prefill());
        let rank = b.decode * b.per_decode + b.sequences * b.new / self.cp;
        let at = Place::of(rank);
        let mut t = self.tokens[mode].at(at) + kernel[0];
        let rows = b.decode * b.per_decode + b.ending;
        if rows > 0.0 {
            t += self.logits[mode].read(rows);
        }
        let mut layer = 0.0;
        if self.moe > 0.0 {
            let all = self.dp * b.mean_tokens();
            layer = self.layer(mode, rank, at, all);
            t += self.moe * layer;
            if let Some(h) = self.halving.as_ref().filter(|_| b.decode >= 2.0 || mode == 0) {
                t -= h.saves(mode, rank, all, layer, halves(h).into_iter());
            }
        }
        if let Some(draft) = &self.draft {
            t += draft[mode].at(at) + layer + kernel[1];
            let rows = b.decode + b.ending;
            if rows > 0.0 {
                t += self.logits[mode].read(rows);
            }
        }
        t
    }

    /// Wall time of one step as decode sees it; `rest`: its prompt tokens are the end of a prompt.
    pub fn step(&self, b: &Batch, rest: bool) -> f64 {
        let rows = b.decode * b.per_decode;
        let of = |k: &KernelLines, rows: f64| {
            let prompt = if b.has_prefill() { k.prompt(b, rest) } else { 0.0 };
            prompt + if b.decode > 0.0 { k.decode(rows, b.context) } else { 0.0 }
        };
        let mut kernel = [0.0; 2];
        for (i, (layers, k)) in self.kernels.iter().enumerate() {
            let t = of(k, rows);
            kernel[0] += layers * t;
            if i == 0 {
                kernel[1] = t;
            }
        }
        let mut t = self.around(b, kernel, |h| {
            let mut both = [[0.0; 2]; 2];
            for (out, ((_, whole), half)) in both.iter_mut().zip(self.kernels.iter().zip(&h.kernels)) {
                *out = [of(whole, rows), of(half, 0.5 * rows)];
            }
            both
        });
        let [_, (one, more)] = draft::passes(self.mtp, b);
        if more > 0.0 {
            t += more * self.draft_alone(&one);
        }
        if let Some(hop) = &self.hop {
            t = (t * self.share + hop.read(b.tokens())) * self.pp;
        }
        t
    }

    /// A further draft pass: one token a sequence.
    fn draft_alone(&self, b: &Batch) -> f64 {
        let Some(draft) = &self.draft else { return 0.0 };
        let (at, rows) = (Place::of(b.decode), b.decode);
        let layer = if self.moe > 0.0 { self.layer(1, rows, at, self.dp * rows) } else { 0.0 };
        let kernel = self.kernels.first().map_or(0.0, |(_, k)| k.decode(rows, b.context));
        draft[1].at(at) + layer + kernel + self.logits[1].read(rows)
    }

    /// One pipeline stage of a prefill chunk, given its attention kernel of each kind of layer, then those of half of it.
    pub fn chunk(&self, b: &Batch, kernels: &[f64]) -> f64 {
        let kinds = self.kinds();
        let all: f64 = self.kernels.iter().zip(kernels).map(|((layers, _), k)| layers * k).sum();
        let t = self.around(b, [all, kernels.first().copied().unwrap_or(0.0)], |_| {
            std::array::from_fn(|i| [i, kinds + i].map(|at| kernels.get(at).copied().unwrap_or(0.0)))
        });
        self.hop.as_ref().map_or(t, |hop| t * self.share + hop.read(b.tokens()))
    }

    /// Attention kernels of the prompts of `b` as [`WorkerLines::chunk`] takes them.
    pub fn prompt_kernels(&self, w: &Worker, b: &Batch) -> Vec<f64> {
        let kinds = self.kinds();
        let mut out = w.attention.prompt_kernels(b, kinds);
        if self.halving.is_some() {
            out.extend(w.attention.prompt_kernels(&b.part(2), kinds));
        }
        out
    }

    /// Kinds of attention layers, and whether the last of them slides.
    fn kinds(&self) -> usize {
        self.kernels.len()
    }

    /// Kernels of a chunk.
    pub fn width(&self) -> usize {
        self.kinds() * if self.halving.is_some() { 2 } else { 1 }
    }
}
