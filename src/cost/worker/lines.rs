//! A worker's step as a sum of lines: what hangs on a rank's tokens, on all ranks' tokens, on logits rows, and
//! the attention kernels.
//!
//! A MoE layer of one lane is `A(rank) + E(all)`; where the shared expert hides behind the routed path,
//! `A(rank) + max(X(rank) + E(all), S(rank))` with X the exchange. The parts are read off `Worker::moe_layer`
//! itself. Limits: no two-batch overlap, whose lanes do not add up (`tabulates`).

use std::sync::Arc;

use super::{Lane, MoePart, Worker};
use crate::cost::attention::{KernelLines, Lengths};
use crate::cost::draft;
use crate::cost::line::{Line, Lines, Place, Tokens};
use crate::cost::sink::{Op, Sink, Total};
use crate::cost::{Batch, ffn};
use crate::kernels::Reading;
use crate::network::A2aKind;

/// One lane in one mode.
#[derive(Debug)]
struct LaneLines {
    /// Most tokens of a rank that it takes.
    most: f64,
    rank: Arc<Line>,
    all: Arc<Line>,
    /// The exchange beside which the shared expert runs, and the shared expert; none: it hides behind nothing.
    beside: Option<(Option<Arc<Line>>, Arc<Line>)>,
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
    hop: Option<Arc<Line>>,
}

/// Seconds of a MoE layer by what they hang on.
#[derive(Default)]
struct Buckets {
    reduce: f64,
    exchange: f64,
    experts: f64,
    shared: f64,
}

impl Sink for Buckets {
    const DETAIL: bool = true;

    fn add(&mut self, op: Op, count: f64, reading: Reading) {
        let part = match op {
            Op::Dispatch | Op::Combine => &mut self.exchange,
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

    /// Attention kernels of one layer of each of the first `kinds` (full, sliding) over the prompts of `b`.
    pub fn prompt_kernels(&self, b: &Batch, kinds: usize) -> Vec<f64> {
        self.attention.prompt_kernels(b, kinds)
    }

    fn logits_work(&self, rows: f64, decode: bool) -> f64 {
        let mut t = Tokens::default();
        ffn::norm(&self.memory, self.hidden, rows, decode, 1.0, &mut t);
        t.0 + self.logits[usize::from(decode)].at(&[rows]).seconds
    }

    fn buckets(&self, moe: &MoePart, lane: Lane, batch: &Batch) -> Buckets {
        let mut b = Buckets::default();
        self.moe_layer(moe, lane, batch, 1.0, &mut b);
        b
    }

    fn lane_lines(&self, lines: &Lines, moe: &MoePart, lane: Lane, decode: bool) -> LaneLines {
        let p = &self.parallel;
        let (tp, mode) = (p.tp, u32::from(decode));
        let (kind, most) = match lane {
            Lane::Dispatch(k) => (3 + k as u32, k.most_tokens()),
            Lane::Gather => (2, f64::INFINITY),
            Lane::Tensor => (1, f64::INFINITY),
        };
        let hides = decode && self.beside() && moe.shared.is_some();
        let at = |x: f64| self.buckets(moe, lane, &self.with_tokens(x, decode));
        let rank = lines.get(("lane", [kind.min(3), tp, mode, p.cp, 0, 0]), |x| {
            let b = at(x);
            b.reduce + if hides { 0.0 } else { b.shared }
        });
        let dispatched = matches!(lane, Lane::Dispatch(_));
        let exchange =
            dispatched.then(|| lines.get(("exchange", [kind, moe.a2a.ep, tp, mode, p.cp, 0]), |x| at(x).exchange));
        let gpus = if lane == Lane::Gather { p.stage_gpus() } else { 0 };
        let all = lines.get(("experts", [kind.min(3), p.ep(), p.moe_tp, gpus, mode, 0]), |x| {
            let each = x / f64::from(p.dp);
            let batch = if decode { Batch::decode(each, 1.0, 1.0) } else { Batch::prefill(1.0, each, 0.0) };
            let b = self.buckets(moe, lane, &batch);
            b.experts + if dispatched { 0.0 } else { b.exchange }
        });
        let beside = moe.shared.as_ref().filter(|_| hides).map(|shared| {
            let whole = lane != Lane::Tensor || self.lib.whole_shared();
            let width = if lane == Lane::Tensor { 1 } else { tp };
            let mlp = &shared[usize::from(whole)];
            let line = lines.get(("shared", [u32::from(whole), tp, width, 0, 0, 0]), |x| {
                mlp.total(x / f64::from(width), true).seconds
            });
            (exchange.clone(), line)
        });
        let rank = match (&exchange, hides) {
            // Nothing hides behind the exchange: one line less to read.
            (Some(e), false) => {
                lines.get(("lane+exchange", [kind, moe.a2a.ep, tp, mode, p.cp, 0]), |x| rank.read(x) + e.read(x))
            }
            _ => rank,
        };
        LaneLines { most: most * f64::from(tp), rank, all, beside }
    }
}

impl WorkerLines {
    /// `lines`: of this library; `attention`: of this library and these lengths.
    pub fn new(w: &Worker, lines: &Lines, attention: &Lines, lengths: Lengths) -> WorkerLines {
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
                    .filter(|l| !(graph && **l == Lane::Dispatch(A2aKind::Normal)))
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
                lines.get(key("tokens", mode), |x| {
                    let embedding = w.memory[mode].at(&[x * w.hidden * 4.0]).seconds;
                    embedding + w.token_work(x, mode == 1, counts.dense, counts.moe)
                })
            }),
            logits: pair(&|mode| lines.get(key("logits", mode), |x| w.logits_work(x, mode == 1))),
            draft: w.draft.as_ref().map(|projection| {
                pair(&|mode| {
                    lines.get(key("draft", mode), |x| {
                        let project = projection[mode].at(&[x / f64::from(p.tp)]).seconds;
                        project + w.token_work(x, mode == 1, one.0, one.1)
                    })
                })
            }),
            moe: counts.moe[0] + counts.moe[1],
            lanes: [lanes(false), lanes(true)],
            hop: (p.pp > 1).then(|| {
                lines.get(("hop", [p.tp, 0, 0, 0, 0, 0]), |x| {
                    w.lib.comm.p2p(x * w.hidden * 2.0 / f64::from(p.tp), true).seconds
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
            let routed = lane.all.at(all);
            let t = lane.rank.at(at)
                + match &lane.beside {
                    None => routed,
                    Some((exchange, shared)) => {
                        (routed + exchange.as_ref().map_or(0.0, |e| e.at(at))).max(shared.at(at))
                    }
                };
            best = best.min(t);
        }
        best
    }

    /// A step without its attention kernels: of all layers, and of one draft layer; `all` ranks' tokens.
    #[inline]
    fn around(&self, b: &Batch, kernel: [f64; 2]) -> f64 {
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
            layer = self.layer(mode, rank, at, self.dp * b.mean_tokens());
            t += self.moe * layer;
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
        let mut kernel = [0.0; 2];
        for (i, (layers, k)) in self.kernels.iter().enumerate() {
            let mut t = if b.decode > 0.0 { k.decode(rows, b.context) } else { 0.0 };
            if b.has_prefill() {
                t += k.prompt(b, rest);
            }
            kernel[0] += layers * t;
            if i == 0 {
                kernel[1] = t;
            }
        }
        let mut t = self.around(b, kernel);
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

    /// One pipeline stage of a prefill chunk, given its attention kernel of each kind of layer.
    pub fn chunk(&self, b: &Batch, kernels: &[f64]) -> f64 {
        let all: f64 = self.kernels.iter().zip(kernels).map(|((layers, _), k)| layers * k).sum();
        let t = self.around(b, [all, kernels.first().copied().unwrap_or(0.0)]);
        self.hop.as_ref().map_or(t, |hop| t * self.share + hop.read(b.tokens()))
    }

    /// Kinds of attention layers, and whether the last of them slides.
    pub fn kinds(&self) -> usize {
        self.kernels.len()
    }
}
