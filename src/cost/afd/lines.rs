//! An AFD unit's stages as lines over a micro-batch's tokens, and the FFN's over the tokens of all ranks.

use std::sync::Arc;

use super::AfdUnit;
use crate::cost::Batch;
use crate::cost::attention::{KernelLines, Lengths};
use crate::cost::line::{Line, Lines, Place, Tokens};
use crate::cost::program::{DRAFT_MIXER, Ffn, LayerKind, MOST_MIXERS};
use crate::cost::sink::Total;
use crate::cost::{draft, overlap};

/// The lines of one unit at one number of micro-batches, [prefill, decode] where a stage differs.
#[derive(Debug)]
pub struct AfdLines {
    ranks: f64,
    mtp: u32,
    /// Kernels of each mixer, and the rest of the attention stage of a MoE layer.
    kernels: Vec<KernelLines>,
    attention: Vec<[Arc<Line>; 2]>,
    ffn: [Arc<Line>; 2],
    fused: Option<Fused>,
    hops: [Arc<Line>; 2],
    /// Ports of the FFN side under them, where groups share those.
    ports: Option<[Arc<Line>; 2]>,
    /// Of each mixer the rest of a dense layer, where it has one.
    dense: Vec<Option<[Arc<Line>; 2]>>,
    embedding: [Arc<Line>; 2],
    logits: [Arc<Line>; 2],
    draft: Option<[Arc<Line>; 2]>,
}

/// The FFN stage beside a dispatch fused into it, and the start-up of both hops that nothing hides.
#[derive(Debug)]
struct Fused {
    ffn: [Arc<Line>; 2],
    starts: [f64; 2],
}

/// Stage times of one micro-batch in each kind of layer.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PartStages {
    /// Of each mixer: the attention stage of a MoE layer, and a whole dense layer.
    attention: [f64; MOST_MIXERS],
    dense: [f64; MOST_MIXERS],
    /// A2F, FFN and F2A of a MoE layer.
    routed: [f64; 3],
    pub ends: f64,
    /// Four stages of the first draft pass, and of each further one.
    pub draft: [f64; 4],
    pub more: [f64; 4],
    /// Seconds of A2F and F2A that the FFN side's ports are taken, where groups share them; of further draft passes.
    pub ports: [f64; 2],
    pub more_ports: [f64; 2],
}

impl PartStages {
    /// The four stages of a layer of this kind.
    pub fn of(&self, kind: &LayerKind) -> [f64; 4] {
        let [a2f, ffn, f2a] = self.routed;
        match kind.ffn {
            Ffn::Dense => [self.dense[kind.mixer], 0.0, 0.0, 0.0],
            Ffn::Experts => [self.attention[kind.mixer], a2f, ffn, f2a],
        }
    }
}

impl AfdUnit {
    fn with_tokens(tokens: f64, decode: bool) -> Batch {
        if decode { Batch::decode(tokens, 1.0, 1.0) } else { Batch::prefill(1.0, tokens, 0.0) }
    }

    /// Kernels of one layer of each mixer over the prompts of `b`.
    pub fn prompt_kernels(&self, b: &Batch) -> Vec<f64> {
        self.attention.prompt_kernels(b)
    }

    /// Whether its stages add up as the lines have it: everything where a search places it, nothing fused.
    pub fn tabulates(&self) -> bool {
        !self.router_on_ffn
            && !self.dense_on_ffn
            && self.shared_on_ffn
            && !self.hops.shape.prereduce
            && !self.placed
            && Arc::ptr_eq(&self.lib, &self.ffn_lib)
    }
}

impl AfdLines {
    /// `lines`: of this library; `attention`: of this library and these lengths.
    pub fn new(u: &Arc<AfdUnit>, lines: &Lines, attention: &Lines, lengths: Lengths, microbatches: u32) -> AfdLines {
        let (tp, program) = (u.attention_tp, &u.lib.program);
        let mixers = 0..program.mixers().len();
        let kernels =
            mixers.clone().map(|m| KernelLines::new(&u.attention, attention, lengths, m, microbatches)).collect();
        let work = |name, mixer: usize, price: fn(&AfdUnit, &Batch, usize, &mut Tokens)| {
            [false, true].map(|decode| {
                let u = u.clone();
                lines.get((name, [tp, u32::from(decode), mixer as u32, 0, 0, 0]), move |x| {
                    let mut t = Tokens::default();
                    price(&u, &AfdUnit::with_tokens(x, decode), mixer, &mut t);
                    t.0
                })
            })
        };
        let dense = |mixer: usize| program.kinds().iter().any(|k| k.mixer == mixer && k.ffn == Ffn::Dense);
        let (ep, moe_tp) = (u.experts.ep, u.experts.moe_tp);
        let ffn = |name, seconds: fn(&AfdUnit, f64, f64) -> f64| {
            [false, true].map(|decode| {
                let u = u.clone();
                lines.get((name, [u.ffn_gpus, ep, moe_tp, u32::from(decode), 0, 0]), move |x| {
                    let mut t = Total::default();
                    // Units of other numbers of ranks share the line: not by way of the tokens of one, which would round.
                    u.price_ffn_of(x, &AfdUnit::with_tokens(1.0, decode), &mut t);
                    seconds(&u, x, t.seconds)
                })
            })
        };
        // Groups stand apart from the pool as the whole unit does.
        let key = [u.attention_gpus, tp, u.ffn_gpus, ep, moe_tp, u.groups];
        let hop = |names: [&'static str; 2], seconds: fn(&AfdUnit, f64, bool) -> f64| {
            [false, true].map(|back| {
                let u = u.clone();
                lines.get((names[usize::from(back)], key), move |x| seconds(&u, x, back))
            })
        };
        AfdLines {
            ranks: u.ranks(),
            mtp: u.lib.serving.mtp,
            kernels,
            attention: mixers
                .clone()
                .map(|m| work("afd.attention", m, |u, b, m, t| u.price_attention(b, m, t)))
                .collect(),
            ffn: ffn("afd.ffn", |_, _, seconds| seconds),
            fused: u.slowed.map(|_| Fused {
                ffn: ffn("afd.ffn.fused", |u, all, seconds| {
                    overlap::beside_exchange(seconds, u.reads(all), u.slowed.unwrap_or(1.0))
                }),
                starts: u.starts,
            }),
            hops: hop(["afd.a2f", "afd.f2a"], |u, x, back| u.hops.transfer(x, back).seconds),
            ports: (u.groups > 1).then(|| {
                hop(["afd.ports.in", "afd.ports.out"], |u, x, back| {
                    u.lib.comm.afd_ffn_seconds(&u.hops.shape, x, back, false)
                })
            }),
            dense: mixers
                .map(|m| dense(m).then(|| work("afd.dense", m, |u, b, m, t| u.price_dense(b, m, t))))
                .collect(),
            embedding: [0, 1].map(|mode: usize| {
                let u = u.clone();
                lines.get(("afd.embedding", [mode as u32, 0, 0, 0, 0, 0]), move |x| {
                    u.memory[mode].at(&[x * u.hidden * 4.0]).seconds
                })
            }),
            logits: [false, true].map(|decode| {
                let u = u.clone();
                lines.get(("afd.logits", [tp, u32::from(decode), 0, 0, 0, 0]), move |rows| {
                    let mut t = Tokens::default();
                    u.price_logits(&AfdUnit::with_tokens(1.0, decode), rows, &mut t);
                    t.0
                })
            }),
            draft: u.draft.is_some().then(|| {
                [0, 1].map(|mode: usize| {
                    let u = u.clone();
                    lines.get(("afd.draft", [tp, mode as u32, 0, 0, 0, 0]), move |x| {
                        u.draft.as_ref().map_or(0.0, |p| p[mode].at(&[x / f64::from(tp)]).seconds)
                    })
                })
            }),
        }
    }

    /// Whether a fused dispatch is one more way to the experts.
    pub fn may_fuse(&self) -> bool {
        self.fused.is_some()
    }

    /// Number of mixers.
    pub fn mixers(&self) -> usize {
        self.kernels.len()
    }

    /// Prompt kernels of a mixed step, of each mixer and micro-batch.
    pub fn prompts(&self, b: &Batch, rest: bool) -> [f64; MOST_MIXERS] {
        let mut out = [0.0; MOST_MIXERS];
        if b.has_prefill() {
            for (t, k) in out.iter_mut().zip(&self.kernels) {
                *t = k.prompt(b, rest);
            }
        }
        out
    }

    /// Stages of one micro-batch whose prompt kernels take `prompts`; `fused`: with the hops inside the FFN stage.
    pub fn stages(&self, b: &Batch, prompts: [f64; MOST_MIXERS], fused: bool) -> PartStages {
        let fused = self.fused.as_ref().filter(|_| fused);
        // (A2F, FFN, F2A) and the ports under the hops.
        let routed = |mode: usize, at: Place, all: f64| {
            let (out, home) = (self.hops[0].at(at), self.hops[1].at(at));
            match fused {
                None => [out, self.ffn[mode].read(all), home],
                Some(f) => {
                    let own = f.ffn[mode].read(all);
                    [f.starts[0], (out - f.starts[0]).max(home - f.starts[1]).max(own), f.starts[1]]
                }
            }
        };
        let mode = usize::from(!b.has_prefill());
        let (tokens, rows) = (b.tokens(), b.decode * b.per_decode);
        let at = Place::of(tokens);
        let kernel = |i: usize| {
            let decode = if b.decode > 0.0 { self.kernels[i].decode(rows, b.context) } else { 0.0 };
            decode + prompts[i]
        };
        let shared = self.ports.as_ref().filter(|_| fused.is_none());
        let ports = |at: Place| shared.map_or([0.0; 2], |[into, out]| [into.at(at), out.at(at)]);
        let mut out = PartStages {
            routed: routed(mode, at, self.ranks * b.mean_tokens()),
            ports: ports(at),
            ..PartStages::default()
        };
        for (i, around) in self.attention.iter().enumerate() {
            let kernel = kernel(i);
            out.attention[i] = around[mode].at(at) + kernel;
            if let Some(dense) = &self.dense[i] {
                out.dense[i] = dense[mode].at(at) + kernel;
            }
        }
        let logits = |mode: usize, rows: f64| if rows > 0.0 { self.logits[mode].read(rows) } else { 0.0 };
        out.ends = self.embedding[mode].at(at) + logits(mode, rows + b.ending);
        if let Some(draft) = &self.draft {
            let [a2f, ffn, f2a] = out.routed;
            out.draft = [out.attention[DRAFT_MIXER], a2f, ffn, f2a];
            out.draft[0] += draft[mode].at(at) + logits(mode, b.decode + b.ending);
            let [_, (one, more)] = draft::passes(self.mtp, b);
            if more > 0.0 {
                let at = Place::of(one.decode);
                let kernel = self.kernels[DRAFT_MIXER].decode(one.decode, one.context);
                let attention =
                    self.attention[DRAFT_MIXER][1].at(at) + kernel + draft[1].at(at) + logits(1, one.decode);
                let [a2f, ffn, f2a] = routed(1, at, self.ranks * one.decode);
                out.more = [attention, a2f, ffn, f2a];
                out.more_ports = ports(at);
            }
        }
        out
    }
}
