//! A worker's step as a sum of lines: what hangs on a rank's tokens, on all ranks' tokens, on logits rows, and
//! the attention kernels.
//!
//! MoE layers take the fastest lane (`lane_lines`), or two half-batches in turn where those are faster. The parts are read
//! off what `Worker` calls to price a step.

use std::sync::Arc;

use super::lane::LayerTokens;
use super::lane_lines::LaneLines;
use super::{Worker, splits};
use crate::cost::attention::{KernelLines, Lengths};
use crate::cost::draft;
use crate::cost::line::{Line, Lines, Place, Tokens};
use crate::cost::program::{DRAFT_MIXER, Ffn, LayerKind, MOST_MIXERS};
use crate::cost::{Batch, ffn};
use crate::spec::Parallel;

/// Layers that run as two half-batches where that is shorter.
#[derive(Debug)]
struct Halving {
    /// MoE layers with each mixer.
    layers: Vec<f64>,
    /// Token work of one layer's attention, and its kernels over half the prompts.
    attention: [Arc<Line>; 2],
    kernels: Vec<KernelLines>,
    lanes: [Vec<LaneLines>; 2],
}

/// The lines of one worker, [prefill, decode] where a step differs.
#[derive(Debug)]
pub struct WorkerLines {
    tp: f64,
    dp: f64,
    cp: f64,
    pp: f64,
    /// Share of the layers on the slowest stage.
    share: f64,
    mtp: u32,
    /// Whether the shared expert of a decode step hides behind the routed path.
    hides: bool,
    /// Layers with each mixer.
    kernels: Vec<(f64, KernelLines)>,
    tokens: [Arc<Line>; 2],
    logits: [Arc<Line>; 2],
    draft: Option<[Arc<Line>; 2]>,
    moe: f64,
    lanes: [Vec<LaneLines>; 2],
    halving: Option<Halving>,
    hop: Option<Arc<Line>>,
}

/// A step in which a rank's GPU group has `tokens`.
fn tokens_of(parallel: &Parallel, tokens: f64, decode: bool) -> Batch {
    if decode { Batch::decode(tokens, 1.0, 1.0) } else { Batch::prefill(1.0, tokens * f64::from(parallel.cp), 0.0) }
}

fn places(rank: f64, tp: f64, all: f64) -> LayerTokens<Place> {
    LayerTokens { rank: Place::of(rank), own: Place::of(rank / tp), all: Place::of(all) }
}

impl Worker {
    /// What hangs on a rank's tokens in these layers, experts and mixer kernels left out.
    fn token_work(&self, tokens: f64, decode: bool, kinds: &[LayerKind]) -> f64 {
        let batch = tokens_of(&self.parallel, tokens, decode);
        let mut t = Tokens::default();
        for LayerKind { mixer, ffn, layers } in kinds {
            match ffn {
                Ffn::Dense => self.dense_layers(&batch, *mixer, f64::from(*layers), &mut t),
                Ffn::Experts => self.attention.price(&self.lib.comm, &batch, *mixer, f64::from(*layers), &mut t),
            }
        }
        t.0
    }

    fn logits_work(&self, rows: f64, decode: bool) -> f64 {
        let mut t = Tokens::default();
        ffn::norm(&self.memory, self.hidden, rows, decode, 1.0, &mut t);
        t.0 + self.logits[usize::from(decode)].at(&[rows]).seconds
    }

    fn halving(self: &Arc<Self>, lines: &Lines, attention: &Lines, lengths: Lengths) -> Option<Halving> {
        let moe = self.moe.as_ref().filter(|_| self.two_batches)?;
        let program = &self.lib.program;
        let mixers = 0..program.mixers().len();
        let with_experts = |mixer: usize| -> f64 {
            let kinds = program.kinds().iter().filter(|k| k.mixer == mixer && k.ffn == Ffn::Experts);
            kinds.map(|k| f64::from(k.layers)).sum()
        };
        let lanes = |decode| moe.lane_lines(lines, decode, true);
        let p = &self.parallel;
        Some(Halving {
            layers: mixers.clone().map(with_experts).collect(),
            attention: [false, true].map(|decode| {
                let own = self.clone();
                lines.get(("half.attention", [p.tp, p.cp, u32::from(decode), 0, 0, 0]), move |x| {
                    own.token_work(x, decode, &[LayerKind { mixer: DRAFT_MIXER, ffn: Ffn::Experts, layers: 1 }])
                })
            }),
            kernels: mixers.map(|m| KernelLines::new(&self.attention, attention, lengths, m, 2)).collect(),
            lanes: [lanes(false), lanes(true)],
        })
    }
}

impl Halving {
    /// Seconds that halving saves over all layers, `half` of a rank's tokens at a time: `kernels` are those of whole and
    /// of half-batches, by kind.
    fn saves(
        &self,
        mode: usize,
        half: f64,
        whole: Place,
        places: &LayerTokens<Place>,
        layer: f64,
        kernels: impl Iterator<Item = [f64; 2]>,
    ) -> f64 {
        let (whole, part) = (self.attention[mode].at(whole), self.attention[mode].at(places.rank));
        let mut saved = 0.0;
        for (layers, [kernel, half_kernel]) in self.layers.iter().zip(kernels) {
            let lanes = self.lanes[mode].iter().filter(|l| half <= l.most);
            let wall = lanes.map(|l| l.wall(places, part + half_kernel)).fold(f64::INFINITY, f64::min);
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
        let (program, mtp) = (&w.lib.program, w.lib.serving.mtp);
        let kernels = (0..program.mixers().len())
            .map(|m| (program.layers_of(m), KernelLines::new(&w.attention, attention, lengths, m, 1)))
            .collect();
        let pair = |make: &dyn Fn(usize) -> Arc<Line>| [make(0), make(1)];
        let ffn = if w.moe.is_some() { Ffn::Experts } else { Ffn::Dense };
        let one = LayerKind { mixer: DRAFT_MIXER, ffn, layers: 1 };
        let lanes = |decode| w.moe.as_ref().map_or_else(Vec::new, |moe| moe.lane_lines(lines, decode, false));
        let layers = w.lib.model.layers;
        WorkerLines {
            tp: f64::from(p.tp),
            dp: f64::from(p.dp),
            cp: f64::from(p.cp),
            pp: f64::from(p.pp),
            share: f64::from(layers.div_ceil(p.pp)) / f64::from(layers),
            mtp,
            hides: w.lib.assumptions.shared_expert_overlap,
            kernels,
            tokens: pair(&|mode| {
                let w = w.clone();
                lines.get(key("tokens", mode), move |x| {
                    let embedding = w.memory[mode].at(&[x * w.hidden * 4.0]).seconds;
                    embedding + w.token_work(x, mode == 1, w.lib.program.kinds())
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
                        project + w.token_work(x, mode == 1, &[one])
                    })
                })
            }),
            moe: program.layers_with(Ffn::Experts),
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
    fn layer(&self, mode: usize, rank: f64, at: &LayerTokens<Place>) -> f64 {
        let hides = self.hides && mode == 1;
        let lanes = self.lanes[mode].iter().filter(|l| rank <= l.most);
        lanes.map(|l| l.seconds(at, hides)).fold(f64::INFINITY, f64::min)
    }

    /// A step without its attention kernels, of which `kernel` gives all layers' and one draft layer's; `halves`: one
    /// layer's of each kind, of whole and of half-batches.
    #[inline]
    fn around(&self, b: &Batch, kernel: [f64; 2], halves: impl FnOnce(&Halving) -> [[f64; 2]; MOST_MIXERS]) -> f64 {
        let mode = usize::from(!b.has_prefill());
        let rank = b.rank_tokens(self.cp);
        let at = Place::of(rank);
        let mut t = self.tokens[mode].at(at) + kernel[0];
        let rows = b.decode * b.per_decode + b.ending;
        if rows > 0.0 {
            t += self.logits[mode].read(rows);
        }
        let mut layer = 0.0;
        if self.moe > 0.0 {
            let all = self.dp * b.mean_tokens();
            layer = self.layer(mode, rank, &places(rank, self.tp, all));
            t += self.moe * layer;
            if let Some(h) = self.halving.as_ref().filter(|_| splits(b)) {
                let half = places(0.5 * rank, self.tp, 0.5 * all);
                t -= h.saves(mode, 0.5 * rank, at, &half, layer, halves(h).into_iter());
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
            let mut both = [[0.0; 2]; MOST_MIXERS];
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
        let places = places(rows, self.tp, self.dp * rows);
        let layer = if self.moe > 0.0 { self.layer(1, rows, &places) } else { 0.0 };
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
        let mut out = w.attention.prompt_kernels(b);
        if self.halving.is_some() {
            out.extend(w.attention.prompt_kernels(&b.part(2)));
        }
        out
    }

    /// Number of mixers.
    fn kinds(&self) -> usize {
        self.kernels.len()
    }

    /// Kernels of a chunk.
    pub fn width(&self) -> usize {
        self.kinds() * if self.halving.is_some() { 2 } else { 1 }
    }
}
