//! Prices of steps in fixed point, so that many steps add up to the same bits as one by one.
//!
//! Time inside a run of steps is counted in [`FINE`] parts of a picosecond. A worker's decode step at
//! n sequences is compiled once, on first use, to straight pieces over the KV tokens of the rank:
//! `price(n, T) = base + slope T` with whole `base` and `slope`; knots lie a factor 2^(1/2) apart in
//! mean context (the engine's own surfaces are straight between measured points, some octaves apart).
//! j equal steps then take `j first + delta j (j - 1) / 2`. Steps over several ranks or micro-batches
//! take the slowest rank (a barrier): the most sequences and the most KV, experts the tokens of all; their price is convex in the step number and is replaced by
//! its chord over at most an eighth more context (above it by less than 0.1 % then).
//!
//! Limit: straight pieces between contexts a factor 2^(1/2) apart, so a step may be off by what the engine curves
//! between them.

use std::sync::OnceLock;

use super::deployment::{Lines, PARTS, PoolSpec, Timing, decode_batch};
use crate::cost::Batch;
use crate::serving::StepEngine;
use crate::serving::path;
use crate::serving::pipeline::{self, Rows, Stages};
use crate::serving::step_engine::EngineKind;

/// Parts of a picosecond.
pub const FINE: u64 = 1 << 16;

/// Seconds in fine units.
fn fine(seconds: f64) -> i64 {
    (seconds * super::PS * FINE as f64).round() as i64
}

struct Piece {
    /// First rank-total context of the piece, in parts of a token.
    from: u64,
    base: i64,
    slope: i64,
}

/// Sequences on the rank that has most, on all ranks, and KV of the fullest rank, of one micro-batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PassPart {
    pub n: u32,
    pub all: u32,
    pub context: u64,
    /// How much `context` grows a step on the fullest rank, and at most.
    pub grow: u64,
}

/// A run of decode steps: step i (from 0) takes `first + i delta` fine units.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Steps {
    pub first: i64,
    pub delta: i64,
    pub count: u32,
}

impl Steps {
    /// Fine units of the first `j` steps.
    pub(crate) fn time(&self, j: u32) -> u128 {
        let j = i128::from(j);
        let t = j * i128::from(self.first) + i128::from(self.delta) * (j * (j - 1) / 2);
        t.max(0) as u128
    }
}

/// The prompt side of a step, over all ranks.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Chunk {
    /// Tokens and sequences on the busiest rank.
    pub tokens: u32,
    pub sequences: u32,
    pub ending: u32,
    /// Sum over its sequences of (tokens x tokens before them).
    pub past_weight: u64,
    /// Tokens of all ranks.
    pub all: u64,
    /// Decoding sequences beside them, as if on the busiest rank: with those tokens, what the fullest rank carries.
    pub beside: u32,
}

/// Prices of one pool.
pub struct Pricer {
    timing: Timing,
    ranks: u32,
    stages: u32,
    per_decode: u32,
    /// Prompt tokens of one stage's batch at most.
    budget: f64,
    curves: Vec<OnceLock<Vec<Piece>>>,
    /// By the sequences on the fullest rank and on all: what is less where the others have fewer.
    slack: Vec<OnceLock<Vec<OnceLock<i64>>>>,
}

const KNOTS: i32 = 44;

impl Pricer {
    pub(crate) fn new(pool: &PoolSpec) -> Pricer {
        let n = match &pool.timing {
            Timing::Engine(..) => pool.max_seqs.min(1 << 16) as usize + 1,
            _ => 0,
        };
        Pricer {
            timing: pool.timing.clone(),
            ranks: pool.ranks,
            stages: pool.stages,
            per_decode: pool.per_decode,
            budget: f64::from(pool.budget) / f64::from(pool.stages),
            curves: std::iter::repeat_with(OnceLock::new).take(n).collect(),
            slack: std::iter::repeat_with(OnceLock::new).take(if pool.ranks > 1 { n } else { 0 }).collect(),
        }
    }

    fn curve(&self, s: &StepEngine, n: u32) -> &[Piece] {
        self.curves[n as usize].get_or_init(|| {
            let stages = f64::from(self.stages);
            let at = |context: f64| {
                let total = context * f64::from(n) * PARTS as f64;
                s.step(&decode_batch(f64::from(n) / stages, total / stages, self.per_decode)).seconds
            };
            let knots: Vec<f64> =
                (0..KNOTS).map(|i| if i == 0 { 1.0 } else { 2f64.powf(f64::from(i) / 2.0).round() }).collect();
            let parts = |context: f64| (context * f64::from(n)) as u64 * PARTS;
            let mut pieces: Vec<Piece> = Vec::with_capacity(knots.len());
            for w in knots.windows(2) {
                let (a, b) = (parts(w[0]), parts(w[1]));
                if b <= a {
                    continue;
                }
                let (pa, pb) = (fine(at(w[0])), fine(at(w[1])));
                let slope = (pb - pa) / (b - a) as i64;
                pieces.push(Piece { from: a, base: pa - slope * a as i64, slope });
            }
            pieces
        })
    }

    /// At most `most` equal decode steps from here, and what they take.
    pub fn decode(&self, parts: &[PassPart], most: u32) -> Steps {
        match &self.timing {
            Timing::Fixed { decode_ps, .. } => {
                Steps { first: (*decode_ps as i64) << FINE.trailing_zeros(), delta: 0, count: most }
            }
            Timing::Lines(lines) => self.chord(parts, most, |p| self.lines(lines, p)),
            Timing::Engine(..) => {
                let Some(s) = self.timing.step_engine() else { return Steps::default() };
                match &s.kind {
                    EngineKind::Worker(..) if self.ranks == 1 => self.exact(s, &parts[0], most),
                    EngineKind::Worker(..) => {
                        let fewer = self.fewer(s, &parts[0]);
                        self.chord(parts, most, |p| {
                            let piece = self.piece(s, &p[0]).0;
                            piece.base + piece.slope * p[0].context as i64 + fewer
                        })
                    }
                    // A pipeline's stages share the batch in flight.
                    EngineKind::Afd(u) => self.chord(parts, most, |p| {
                        let stages = f64::from(self.stages);
                        let batches: Vec<Batch> = p
                            .iter()
                            .filter(|p| p.n > 0)
                            .map(|p| {
                                let n = f64::from(p.n) / stages;
                                let slack = self.slack(p.n, p.all);
                                Batch { slack, ..decode_batch(n, p.context as f64 / stages, self.per_decode) }
                            })
                            .collect();
                        fine(u.schedule(&batches, u.overlapped).seconds)
                    }),
                }
            }
        }
    }

    fn piece(&self, s: &StepEngine, p: &PassPart) -> (&Piece, u64) {
        let curve = self.curve(s, p.n.clamp(1, self.curves.len() as u32 - 1));
        let i = curve.partition_point(|k| k.from <= p.context).saturating_sub(1);
        (&curve[i], curve.get(i + 1).map_or(u64::MAX, |k| k.from))
    }

    /// How much fewer sequences than the fullest rank the mean one has.
    fn slack(&self, n: u32, all: u32) -> f64 {
        1.0 - (f64::from(all) / (f64::from(n.max(1)) * f64::from(self.ranks))).min(1.0)
    }

    /// What a step takes less where the other ranks have fewer sequences than the fullest: their experts see fewer
    /// tokens. At the workload's own context, on which it does not hang but for what hides behind attention.
    fn fewer(&self, s: &StepEngine, p: &PassPart) -> i64 {
        let n = p.n.clamp(1, self.slack.len() as u32 - 1);
        if p.all >= n * self.ranks {
            return 0;
        }
        let row = self.slack[n as usize]
            .get_or_init(|| std::iter::repeat_with(OnceLock::new).take((n * self.ranks) as usize).collect());
        *row[p.all as usize].get_or_init(|| {
            let Timing::Engine(engine, _) = &self.timing else { return 0 };
            let n = f64::from(n) / f64::from(self.stages);
            let context = engine.workload.mean_final_tokens() * n * PARTS as f64;
            let even = decode_batch(n, context, self.per_decode);
            let uneven = Batch { slack: self.slack(p.n, p.all), ..even };
            fine(s.step(&uneven).seconds) - fine(s.step(&even).seconds)
        })
    }

    /// One rank, one micro-batch: straight up to the next knot.
    fn exact(&self, s: &StepEngine, p: &PassPart, most: u32) -> Steps {
        let (piece, next) = self.piece(s, p);
        let first = piece.base + piece.slope * p.context as i64;
        let room = next.saturating_sub(p.context).div_ceil(p.grow.max(1));
        let count = most.min(room.min(u64::from(u32::MAX)) as u32).max(1);
        Steps { first, delta: piece.slope * p.grow as i64, count }
    }

    /// Price now, price at the end, straight in between.
    fn chord(&self, parts: &[PassPart], most: u32, price: impl Fn(&[PassPart]) -> i64) -> Steps {
        let reach = parts.iter().filter(|p| p.grow > 0).map(|p| p.context / (8 * p.grow)).min().unwrap_or(1);
        let count = most.min((reach.max(16)).min(u64::from(u32::MAX)) as u32).max(1);
        let first = price(parts);
        if count == 1 {
            return Steps { first, delta: 0, count };
        }
        let later: Vec<PassPart> =
            parts.iter().map(|p| PassPart { context: p.context + p.grow * u64::from(count - 1), ..*p }).collect();
        Steps { first, delta: (price(&later) - first) / i64::from(count - 1), count }
    }

    fn lines(&self, l: &Lines, parts: &[PassPart]) -> i64 {
        let stages: Vec<Stages> = parts
            .iter()
            .filter(|p| p.n > 0)
            .map(|p| {
                let n = f64::from(p.n);
                let wire = (l.alpha_c * n + l.beta_c) / 2.0;
                let attention = l.alpha_a * p.context as f64 / PARTS as f64 + l.beta_a;
                Stages::new(attention, wire, l.alpha_f * f64::from(p.all) + l.beta_f, wire)
            })
            .collect();
        fine(pipeline::step_time(&[Rows { layers: 1, stages: &stages }], false, true) / super::PS)
    }

    /// A step that carries prompt tokens beside `all` decoding sequences of all ranks (0: decode waits), which have
    /// `context` parts of KV on the fullest rank; fine units.
    pub(crate) fn mixed(&self, all: u32, context: u64, chunk: &Chunk) -> i64 {
        let n = if all > 0 { f64::from(chunk.beside) } else { 0.0 };
        match &self.timing {
            Timing::Fixed { prefill_ps, decode_ps } => {
                let decode = if all > 0 { *decode_ps } else { 0 };
                ((prefill_ps + decode) as i64) << FINE.trailing_zeros()
            }
            Timing::Lines(_) => 0,
            Timing::Engine(..) => {
                let Some(s) = self.timing.step_engine() else { return 0 };
                let stages = f64::from(self.stages);
                let tokens = f64::from(chunk.tokens.max(1));
                let sequences = f64::from(chunk.sequences.max(1));
                let slack = self.slack(chunk.beside, all);
                let decode = Batch { slack, ..decode_batch(n / stages, context as f64 / stages, self.per_decode) };
                // Prompts fill the batches of as few stages of an AFD unit as hold them; the others only decode.
                let with = match s.kind {
                    EngineKind::Afd(_) if n > 0.0 => (tokens / self.budget).ceil().clamp(1.0, stages),
                    _ => stages,
                };
                let batch = Batch {
                    sequences,
                    new: tokens / sequences / with,
                    past: chunk.past_weight as f64 / tokens,
                    busy: (chunk.all as f64 / (tokens * f64::from(self.ranks))).min(1.0),
                    ending: f64::from(chunk.ending) / with,
                    ..decode
                };
                let mixed = s.step(&batch).seconds.max(path::launch_s(s.library()));
                if with == stages {
                    return fine(mixed);
                }
                fine((with * mixed + (stages - with) * s.step(&decode).seconds) / stages)
            }
        }
    }
}
