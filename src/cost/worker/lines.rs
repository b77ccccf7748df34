//! A worker's step read from lines: `step` adds its parts up, `lane` those of a MoE layer.
//!
//! A line is priced by what `Worker` calls to price the part, and hangs on a rank's tokens, all ranks' tokens or rows of
//! logits; mixer kernels have lines of their own (`attention`). Limit: where `Worker` says how well a step is known, lines
//! tell its seconds alone.

use std::sync::Arc;

use super::Worker;
use super::lane::LayerTokens;
use super::lane_lines::LaneLines;
use super::step::{Order, StepParts, splits};
use crate::cost::Batch;
use crate::cost::attention::{KernelLines, Lengths};
use crate::cost::ends::EndLines;
use crate::cost::piecewise::{Piecewise, Place, Tabulated, Tokens};
use crate::cost::program::{Ffn, LayerKind, MOST_MIXERS};

/// What MoE layers read that run as two half-batches: their lanes, and prompt kernels of half the tokens.
#[derive(Debug)]
struct Halving {
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
    order: Order,
    /// Whether the shared expert of a decode step hides behind the routed path.
    hides: bool,
    ends: EndLines,
    /// By mixer: its kernels, the rest of it, and the rest of a dense layer with it.
    kernels: Vec<KernelLines>,
    around: Vec<[Arc<Piecewise>; 2]>,
    dense: Vec<[Arc<Piecewise>; 2]>,
    lanes: [Vec<LaneLines>; 2],
    halving: Option<Halving>,
    hop: Option<Arc<Piecewise>>,
}

/// Prices a layer's part with one mixer.
type Price = fn(&Worker, &Batch, usize, &mut Tokens);

impl WorkerLines {
    /// `lines`: of this library; `attention`: of this library and these lengths.
    pub(crate) fn new(w: &Arc<Worker>, lines: &Tabulated, attention: &Tabulated, lengths: Lengths) -> WorkerLines {
        let p = w.parallel;
        let mixers = 0..w.lib.program.mixers().len();
        let by_mixer = |name: &'static str, price: Price| -> Vec<_> {
            let line = |mixer: usize, decode| {
                let w = w.clone();
                lines.get((name, [p.tp, p.cp, u32::from(decode), mixer as u32, 0, 0]), move |x| {
                    let mut t = Tokens::default();
                    price(&w, &tokens_of(x, f64::from(w.parallel.cp), decode), mixer, &mut t);
                    t.0
                })
            };
            mixers.clone().map(|m| [line(m, false), line(m, true)]).collect()
        };
        let kernels = |parts| -> Vec<_> {
            mixers.clone().map(|m| KernelLines::new(&w.attention, attention, lengths, m, parts)).collect()
        };
        let lanes = |halves| {
            let of = |decode| w.moe.as_ref().map_or_else(Vec::new, |moe| moe.lane_lines(lines, decode, halves));
            [of(false), of(true)]
        };
        WorkerLines {
            tp: f64::from(p.tp),
            dp: f64::from(p.dp),
            cp: f64::from(p.cp),
            pp: f64::from(p.pp),
            order: w.order.clone(),
            hides: w.lib.assumptions.shared_expert_overlap,
            ends: EndLines::new(&w.ends, lines),
            kernels: kernels(1),
            around: by_mixer("mixer", |w, b, m, t| w.attention.price(&w.lib.comm, b, m, 1.0, t)),
            dense: by_mixer("dense", |w, b, m, t| w.dense_layers(b, m, 1.0, t)),
            lanes: lanes(false),
            halving: (w.overlaps() && w.moe.is_some()).then(|| Halving { kernels: kernels(2), lanes: lanes(true) }),
            hop: w.order.cut().map(|_| {
                let w = w.clone();
                lines.get(("hop", [p.tp, 0, 0, 0, 0, 0]), move |x| w.hop(x).seconds)
            }),
        }
    }

    /// Wall time of one step as decode sees it; `rest`: its prompt tokens are the end of a prompt.
    pub(crate) fn step(&self, b: &Batch, rest: bool) -> f64 {
        let prompt = |mixer: usize, half: bool| match &self.halving {
            Some(h) if half => h.kernels[mixer].prompt(b, rest),
            _ => self.kernels[mixer].prompt(b, rest),
        };
        self.stage(b, prompt) * self.pp
    }

    /// One pipeline stage of a prefill chunk, given its attention kernel of each mixer, then those of half of it.
    pub(crate) fn chunk(&self, b: &Batch, kernels: &[f64]) -> f64 {
        self.stage(b, |mixer, half| kernels[mixer + if half { self.kernels.len() } else { 0 }])
    }

    /// One pipeline stage; `prompt`: the prompt kernel of a mixer for the whole batch or half of it.
    #[inline]
    fn stage(&self, b: &Batch, prompt: impl Fn(usize, bool) -> f64) -> f64 {
        let mut read = Read { lines: self, prompt, seconds: 0.0 };
        self.order.step(&mut read, b);
        match (self.order.cut(), &self.hop) {
            (Some(share), Some(hop)) => read.seconds * share + hop.read(b.tokens()),
            _ => read.seconds,
        }
    }

    /// Attention kernels of the prompts of `b` as [`WorkerLines::chunk`] takes them.
    pub(crate) fn prompt_kernels(&self, w: &Worker, b: &Batch) -> Vec<f64> {
        let mut out = w.attention.prompt_kernels(b);
        if self.halving.is_some() {
            out.extend(w.attention.prompt_kernels(&b.part(2)));
        }
        out
    }

    /// Kernels of a chunk.
    pub(crate) fn width(&self) -> usize {
        self.kernels.len() * if self.halving.is_some() { 2 } else { 1 }
    }

    fn places(&self, b: &Batch) -> (f64, LayerTokens<Place>) {
        let rank = b.rank_tokens(self.cp);
        let own = Place::of(rank / self.tp);
        (rank, LayerTokens { rank: Place::of(rank), own, all: Place::of(self.dp * b.mean_tokens()) })
    }
}

/// A step in which a rank's GPU group has `tokens`.
fn tokens_of(tokens: f64, cp: f64, decode: bool) -> Batch {
    if decode { Batch::decode(tokens, 1.0, 1.0) } else { Batch::prefill(1.0, tokens * cp, 0.0) }
}

/// Lines read for one step, and their sum.
struct Read<'a, K> {
    lines: &'a WorkerLines,
    prompt: K,
    seconds: f64,
}

/// A batch among the knots, and what its layers share.
struct At {
    batch: Batch,
    mode: usize,
    places: LayerTokens<Place>,
    /// Kernels of each mixer.
    kernels: [f64; MOST_MIXERS],
    /// A MoE layer after its mixer, on its fastest lane.
    lane: f64,
}

impl<K: Fn(usize, bool) -> f64> Read<'_, K> {
    #[inline]
    fn kernel(&self, b: &Batch, mixer: usize, half: bool) -> f64 {
        let prompt = if b.has_prefill() { (self.prompt)(mixer, half) } else { 0.0 };
        if b.decode > 0.0 {
            prompt + self.lines.kernels[mixer].decode(b.decode * b.per_decode, b.context)
        } else {
            prompt
        }
    }

    /// A MoE layer as two half-batches in turn, on their fastest lane.
    fn wall(&self, at: &At, mixer: usize, halving: &Halving) -> f64 {
        let half = at.batch.part(2);
        let (rank, places) = self.lines.places(&half);
        let attention = self.lines.around[mixer][at.mode].at(places.rank) + self.kernel(&half, mixer, true);
        let lanes = halving.lanes[at.mode].iter().filter(|l| l.take(rank));
        lanes.map(|l| l.wall(&places, attention)).fold(f64::INFINITY, f64::min)
    }
}

impl<K: Fn(usize, bool) -> f64> StepParts for Read<'_, K> {
    type At = At;

    #[inline]
    fn at(&self, batch: &Batch) -> At {
        let mode = usize::from(!batch.has_prefill());
        let (rank, places) = self.lines.places(batch);
        let mut kernels = [0.0; MOST_MIXERS];
        for (mixer, kernel) in kernels.iter_mut().enumerate().take(self.lines.kernels.len()) {
            *kernel = self.kernel(batch, mixer, false);
        }
        let hides = self.lines.hides && mode == 1;
        let lanes = self.lines.lanes[mode].iter().filter(|l| l.take(rank));
        let lane = lanes.map(|l| l.seconds(&places, hides)).fold(f64::INFINITY, f64::min);
        At { batch: *batch, mode, places, kernels, lane }
    }

    #[inline]
    fn embedding(&mut self, at: &At) {
        self.seconds += self.lines.ends.embedding[at.mode].at(at.places.rank);
    }

    #[inline]
    fn layers(&mut self, at: &At, kind: LayerKind, count: f64, may_halve: bool) {
        let (lines, kernel) = (self.lines, at.kernels[kind.mixer]);
        let around = match kind.ffn {
            Ffn::Dense => &lines.dense,
            Ffn::Experts => &lines.around,
        };
        let mut layer = around[kind.mixer][at.mode].at(at.places.rank) + kernel;
        if kind.ffn == Ffn::Experts {
            layer += at.lane;
            if let Some(halving) = lines.halving.as_ref().filter(|_| may_halve && splits(&at.batch)) {
                layer = layer.min(self.wall(at, kind.mixer, halving));
            }
        }
        self.seconds += count * layer;
    }

    #[inline]
    fn projection(&mut self, at: &At, count: f64) {
        self.seconds += count * self.lines.ends.projection[at.mode].at(at.places.rank);
    }

    #[inline]
    fn logits(&mut self, at: &At, rows: f64, count: f64) {
        self.seconds += count * self.lines.ends.logits[at.mode].read(rows);
    }
}
