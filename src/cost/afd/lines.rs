//! An AFD unit's micro-batch read from lines: `stages` puts its parts together.
//!
//! A line is priced by what `AfdUnit` calls to price the part, and hangs on a micro-batch's tokens, the tokens of all ranks
//! or rows of logits; mixer kernels have lines of their own (`attention`).
//!
//! Limit: only what a search places (packed pools); between knots a line is within 0.1 % of the engine, beside jumps of
//! the tables within 1 %.

use std::sync::Arc;

use super::AfdUnit;
use super::stages::{LayerStages, UnitParts};
use crate::cost::Batch;
use crate::cost::attention::{KernelLines, Lengths};
use crate::cost::ends::EndLines;
use crate::cost::ledger::{Ledger, Op, Seconds, Sum};
use crate::cost::piecewise::{Piecewise, Place, Tabulated, Tokens, known};
use crate::cost::program::MOST_MIXERS;

/// The lines of one unit at one number of micro-batches, [prefill, decode] where a stage differs.
#[derive(Debug)]
pub struct AfdLines {
    ranks: f64,
    /// By mixer: its kernels, and the rest of the attention stage of a MoE and of a dense layer.
    kernels: Vec<KernelLines>,
    attention: Vec<[Arc<Piecewise>; 2]>,
    dense: Vec<[Arc<Piecewise>; 2]>,
    ffn: [Arc<Piecewise>; 2],
    hops: [Arc<Piecewise>; 2],
    /// Ports of the FFN side under them, where groups share those.
    ports: Option<[Arc<Piecewise>; 2]>,
    /// Start-up of both hops, the time that HBM needs for the weights, and what stands between separate kernels, where a
    /// dispatch may be fused.
    fused: Option<([f64; 2], Arc<Piecewise>, f64)>,
    /// By mixer what HBM needs for its weights, where small kernels hide behind another micro-batch's attention.
    streams: Option<Vec<f64>>,
    home: Option<Home>,
    ends: EndLines,
}

/// Layers of a dense model.
#[derive(Debug)]
struct Home {
    /// A2F and F2A, and what they take of the pool's ports where groups share it.
    hops: [Arc<Piecewise>; 2],
    ports: Option<[Arc<Piecewise>; 2]>,
    /// The FFN stage [prefill, decode], by the tokens of all ranks.
    ffn: [Arc<Piecewise>; 2],
}

/// Prices an attention stage with one mixer.
type Price = fn(&AfdUnit, &Batch, usize, &mut Tokens);

fn with_tokens(tokens: f64, decode: bool) -> Batch {
    if decode { Batch::decode(tokens, 1.0, 1.0) } else { Batch::prefill(1.0, tokens, 0.0) }
}

impl AfdUnit {
    /// Kernels of one layer of each mixer over the prompts of `b`.
    pub(crate) fn prompt_kernels(&self, b: &Batch) -> Vec<f64> {
        self.attention.prompt_kernels(b)
    }

    /// Whether its stages add up as the lines have it: everything where a search places it.
    pub(crate) fn tabulates(&self) -> bool {
        !self.router_on_ffn
            && (!self.dense_on_ffn || self.experts.is_none())
            && self.shared_on_ffn
            && !self.hops.shape.prereduce
            && !self.placed
            && Arc::ptr_eq(&self.lib, &self.ffn_lib)
    }
}

impl AfdLines {
    /// `lines`: of this library; `attention`: of this library and these lengths.
    pub(crate) fn new(
        u: &Arc<AfdUnit>,
        lines: &Tabulated,
        attention: &Tabulated,
        lengths: Lengths,
        microbatches: u32,
    ) -> AfdLines {
        let tp = u.attention_tp;
        let mixers = 0..u.lib.program.mixers().len();
        let by_mixer = |name: &'static str, price: Price| -> Vec<_> {
            let line = |mixer: usize, decode| {
                let u = u.clone();
                lines.get((name, [tp, u32::from(decode), mixer as u32, 0, 0, 0]), move |x| {
                    let mut t = Tokens::default();
                    price(&u, &with_tokens(x, decode), mixer, &mut t);
                    t.0
                })
            };
            mixers.clone().map(|m| [line(m, false), line(m, true)]).collect()
        };
        let (ep, moe_tp) = (u.ep, u.moe_tp);
        // Groups stand apart from the pool as the whole unit does.
        let key = [u.attention_gpus, tp, u.ffn_gpus, ep, moe_tp, u.groups];
        let hop = |names: [&'static str; 2], seconds: fn(&AfdUnit, f64, bool) -> f64| {
            [false, true].map(|back| {
                let u = u.clone();
                lines.get((names[usize::from(back)], key), move |x| seconds(&u, x, back))
            })
        };
        let dense_ffn = |decode: bool| {
            let u = u.clone();
            lines.get(("afd.dense.ffn", [u.ffn_gpus, ep, moe_tp, u32::from(decode), 0, 0]), move |x| {
                let mut t = Seconds::default();
                u.price_dense_ffn_of(x, decode, &mut t);
                t.0
            })
        };
        AfdLines {
            home: u.experts.is_none().then(|| Home {
                hops: hop(["afd.home.out", "afd.home.back"], |u, x, back| {
                    u.lib.comm.afd_home(&u.hops.home(), x, back).seconds
                }),
                ports: (u.groups > 1).then(|| {
                    hop(["afd.home.ports.in", "afd.home.ports.out"], |u, x, back| {
                        u.lib.comm.afd_ffn_seconds(&u.hops.home(), x, back, true)
                    })
                }),
                ffn: [false, true].map(dense_ffn),
            }),
            ranks: u.ranks(),
            kernels: mixers
                .clone()
                .map(|m| KernelLines::new(&u.attention, attention, lengths, m, microbatches))
                .collect(),
            attention: by_mixer("afd.attention", |u, b, m, t| u.price_attention(b, m, t)),
            dense: by_mixer("afd.dense", |u, b, m, t| u.price_dense(b, m, t)),
            ffn: [false, true].map(|decode| {
                let u = u.clone();
                lines.get(("afd.ffn", [u.ffn_gpus, ep, moe_tp, u32::from(decode), 0, 0]), move |x| {
                    // Units of other numbers of ranks share the line: not by way of the tokens of one, which would round.
                    let mut t = Seconds::default();
                    u.price_ffn_of(x, &with_tokens(1.0, decode), &mut t);
                    t.0
                })
            }),
            hops: hop(["afd.a2f", "afd.f2a"], |u, x, back| u.hops.transfer(x, back).seconds),
            ports: (u.groups > 1).then(|| {
                hop(["afd.ports.in", "afd.ports.out"], |u, x, back| {
                    u.lib.comm.afd_ffn_seconds(&u.hops.shape, x, back, false)
                })
            }),
            fused: u.slowed.map(|_| {
                let of = u.clone();
                let reads = lines.get(("afd.reads", [u.ffn_gpus, ep, moe_tp, 0, 0, 0]), move |x| of.reads(x));
                (u.starts, reads, u.between)
            }),
            streams: u.lib.serving.attention_streams.then(|| mixers.map(|m| u.attention_traffic(m)).collect()),
            ends: EndLines::new(&u.ends, lines),
        }
    }

    /// Number of mixers.
    pub(crate) fn mixers(&self) -> usize {
        self.kernels.len()
    }

    /// Prompt kernels of a mixed step, of each mixer and micro-batch.
    pub(crate) fn prompts(&self, b: &Batch, rest: bool) -> [f64; MOST_MIXERS] {
        let mut out = [0.0; MOST_MIXERS];
        if b.has_prefill() {
            for (t, k) in out.iter_mut().zip(&self.kernels) {
                *t = k.prompt(b, rest);
            }
        }
        out
    }

    /// Its parts, where the prompt kernels of a micro-batch take `prompts`.
    pub(crate) fn with_prompts(&self, prompts: [f64; MOST_MIXERS]) -> impl UnitParts {
        Read { lines: self, prompts }
    }
}

/// Lines read for one micro-batch and its draft passes.
struct Read<'a> {
    lines: &'a AfdLines,
    prompts: [f64; MOST_MIXERS],
}

/// A micro-batch among the knots, and what its layers share.
struct At {
    mode: usize,
    place: Place,
    /// Tokens of all ranks.
    all: Place,
    /// Kernels of each mixer.
    kernels: [f64; MOST_MIXERS],
    /// A2F and F2A, and the FFN stage.
    hops: [f64; 2],
    ffn: f64,
}

impl UnitParts for Read<'_> {
    type At = At;

    #[inline]
    fn at(&self, b: &Batch) -> At {
        let (lines, mode) = (self.lines, usize::from(!b.has_prefill()));
        let (place, all) = (Place::of(b.tokens()), Place::of(lines.ranks * b.mean_tokens()));
        // Draft passes after the first carry no prompt tokens.
        let mut kernels = if b.has_prefill() { self.prompts } else { [0.0; MOST_MIXERS] };
        if b.decode > 0.0 {
            let rows = b.decode * b.per_decode;
            kernels.iter_mut().zip(&lines.kernels).for_each(|(t, k)| *t += k.decode(rows, b.context));
        }
        let [out, home] = &lines.hops;
        At { mode, place, all, kernels, hops: [out.at(place), home.at(place)], ffn: lines.ffn[mode].at(all) }
    }

    #[inline]
    fn embedding<S: Ledger>(&self, at: &At, ledger: &mut S) {
        ledger.add(Op::Embedding, 1.0, self.lines.ends.embedding[at.mode].reading(at.place));
    }

    #[inline]
    fn projection<S: Ledger>(&self, at: &At, ledger: &mut S) {
        ledger.add(Op::Draft, 1.0, self.lines.ends.projection[at.mode].reading(at.place));
    }

    #[inline]
    fn logits<S: Ledger>(&self, at: &At, rows: f64, ledger: &mut S) {
        ledger.add(Op::Logits, 1.0, self.lines.ends.logits[at.mode].reading(Place::of(rows)));
    }

    #[inline]
    fn attention<S: Ledger>(&self, at: &At, mixer: usize, ledger: &mut S) {
        ledger.add(Op::Norm, 1.0, known(self.lines.attention[mixer][at.mode].at(at.place) + at.kernels[mixer]));
    }

    #[inline]
    fn hop<S: Ledger>(&self, at: &At, back: bool, ledger: &mut S) {
        ledger.add(if back { Op::F2a } else { Op::A2f }, 1.0, known(at.hops[usize::from(back)]));
    }

    #[inline]
    fn ffn<S: Ledger>(&self, at: &At, ledger: &mut S) -> f64 {
        ledger.add(Op::Experts, 1.0, known(at.ffn));
        0.0
    }

    #[inline]
    fn ports(&self, at: &At) -> [f64; 2] {
        self.lines.ports.as_ref().map_or([0.0; 2], |[into, out]| [into.at(at.place), out.at(at.place)])
    }

    #[inline]
    fn fused(&self, at: &At) -> ([f64; 2], f64, f64) {
        let fused = self.lines.fused.as_ref();
        fused.map_or(([0.0; 2], 0.0, 0.0), |(starts, reads, between)| (*starts, reads.at(at.all), *between))
    }

    #[inline]
    fn hidden(&self, at: &At, mixer: usize) -> f64 {
        let Some(traffic) = self.lines.streams.as_ref().filter(|_| at.mode == 1) else { return 0.0 };
        super::behind_attention(traffic[mixer], self.lines.attention[mixer][1].at(at.place), at.kernels[mixer])
    }

    #[inline]
    fn dense<S: Sum>(&self, at: &At, mixer: usize) -> LayerStages<S> {
        let mut s = LayerStages::<S>::default();
        s.attention.add(Op::Norm, 1.0, known(self.lines.dense[mixer][at.mode].at(at.place) + at.kernels[mixer]));
        if let Some(home) = &self.lines.home {
            let [out, back] = &home.hops;
            s.a2f.add(Op::A2f, 1.0, known(out.at(at.place)));
            s.ffn.add(Op::DenseFfn, 1.0, known(home.ffn[at.mode].at(at.all)));
            s.f2a.add(Op::F2a, 1.0, known(back.at(at.place)));
            s.ports = home.ports.as_ref().map_or([0.0; 2], |[into, out]| [into.at(at.place), out.at(at.place)]);
        }
        s
    }
}
