//! Attention kernels of one rank as lines, for one workload.
//!
//! Decode hangs on rows and on a context that differs little (the mean, above it what the slowest rank adds):
//! a few lines over rows, linear between their contexts. Prompt tokens of a mixed step come in three forms, each
//! of one number: a chunk of `x` tokens at the mean past, a rest of `x` tokens at the end of the prompt, `x` whole
//! prompts; for an AFD unit each is one of its micro-batches.
//!
//! Limit: contexts between the mean and the slowest rank's are linear between eight lines; spreads within a rank are
//! not seen.

use std::sync::Arc;

use super::AttentionPart;
use crate::cost::Batch;
use crate::cost::piecewise::{Piecewise, Place, Tabulated};

/// Lengths of a workload that attention sees, tokens.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Lengths {
    pub prefix: f64,
    pub isl: f64,
    /// Mean context of decode, and the longest mean that the slowest rank may have.
    pub context: f64,
    pub longest: f64,
}

/// Contexts at which decode has a line, closer at the mean.
const CONTEXTS: u32 = 8;

/// Kernels of one mixer.
#[derive(Debug)]
pub struct KernelLines {
    lengths: Lengths,
    decode: Vec<Arc<Piecewise>>,
    chunk: Arc<Piecewise>,
    rest: Arc<Piecewise>,
    prompts: Arc<Piecewise>,
}

fn context(l: &Lengths, k: u32) -> f64 {
    let share = f64::from(k) / f64::from(CONTEXTS);
    l.context + (l.longest - l.context) * share * share
}

impl AttentionPart {
    /// Prefill kernels of one layer of each mixer.
    pub(crate) fn prompt_kernels(&self, b: &Batch) -> Vec<f64> {
        (0..self.mixers.len()).map(|m| self.prompt_seconds(m, b)).collect()
    }
}

impl KernelLines {
    /// `parts`: micro-batches that a step is cut into. `lines`: of this workload alone.
    pub(crate) fn new(
        part: &Arc<AttentionPart>,
        lines: &Tabulated,
        lengths: Lengths,
        mixer: usize,
        parts: u32,
    ) -> KernelLines {
        let (tp, kind) = (part.tp, mixer as u32);
        let contexts = if lengths.longest > lengths.context * (1.0 + 1e-9) { CONTEXTS } else { 0 };
        let decode = (0..=contexts)
            .map(|k| {
                let (at, part) = (context(&lengths, k), part.clone());
                lines.get(("decode", [tp, kind, k, 0, 0, 0]), move |rows| part.decode_seconds(mixer, rows, at))
            })
            .collect();
        let Lengths { prefix, isl, .. } = lengths;
        let micro = |name, of: fn(f64, f64, f64) -> Batch| {
            let own = part.clone();
            lines.get((name, [tp, part.cp, kind, parts, 0, 0]), move |x| {
                own.prompt_seconds(mixer, &of(x, prefix, isl).part(parts))
            })
        };
        KernelLines {
            decode,
            chunk: micro("chunk", |x, prefix, isl| Batch::prefill(1.0, x, prefix + (isl - x).max(0.0) / 2.0)),
            rest: micro("rest", |x, prefix, isl| Batch::prefill(1.0, x, prefix + (isl - x).max(0.0))),
            prompts: micro("prompts", |x, prefix, isl| Batch::prefill(x, isl, prefix)),
            lengths,
        }
    }

    /// Decode kernel of `rows` at `context`.
    #[inline]
    pub(crate) fn decode(&self, rows: f64, at: f64) -> f64 {
        let place = Place::of(rows);
        let l = &self.lengths;
        let beyond = at - l.context;
        if self.decode.len() < 2 || beyond <= 0.0 {
            return self.decode[0].at(place);
        }
        let u = (beyond / (l.longest - l.context)).sqrt() * f64::from(CONTEXTS);
        let k = (u as u32).min(CONTEXTS - 1);
        let (from, to) = (context(l, k), context(l, k + 1));
        let (low, high) = (self.decode[k as usize].at(place), self.decode[k as usize + 1].at(place));
        low + (at - from) / (to - from) * (high - low)
    }

    /// Prompt kernel of a mixed step that carries the prompt tokens of `b`.
    #[inline]
    pub(crate) fn prompt(&self, b: &Batch, rest: bool) -> f64 {
        if rest {
            self.rest.read(b.new)
        } else if b.sequences > 1.0 {
            self.prompts.read(b.sequences)
        } else {
            self.chunk.read(b.new)
        }
    }
}
