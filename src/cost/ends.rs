//! What stands around the layers of a step on one of `tp` ranks: the embedding before them, the final norm and the LM
//! head after them, and before a draft layer the projection of (hidden, embedding) (`draft`).
//!
//! Workers and the attention pools of AFD units have the same. The vocabulary is split over the ranks, and so are the rows
//! of the projection. Limit: the gather of logits and the sampling are left out.

use std::sync::Arc;

use super::ffn;
use super::ledger::{Ledger, Op, Seconds};
use super::library::Library;
use super::piecewise::{Piecewise, Tabulated};
use super::program::Surfaces;
use crate::error::Result;
use crate::kernels::Surface;
use crate::spec::Dtype;

/// The ends of one rank, [prefill, decode].
#[derive(Clone)]
pub(super) struct Ends {
    memory: [Surface; 2],
    logits: [Arc<Surface>; 2],
    /// None without drafts.
    projection: Option<[Arc<Surface>; 2]>,
    hidden: f64,
    tp: u32,
}

impl Ends {
    pub(crate) fn new(lib: &Library, tp: u32) -> Result<Ends> {
        let (format, h) = (lib.formats.dense_gemm, lib.model.hidden);
        let vocab = lib.model.vocab.div_ceil(tp);
        let gemm = |dtype, n, k| -> Result<_> { Ok([lib.gemm(false, dtype, n, k)?, lib.gemm(true, dtype, n, k)?]) };
        let projection = if lib.serving.mtp > 0 { Some(gemm(format, h, 2 * h)?) } else { None };
        Ok(Ends {
            memory: [lib.memory(false), lib.memory(true)],
            logits: gemm(Dtype::Bf16, vocab, h)?,
            projection,
            hidden: f64::from(h),
            tp,
        })
    }

    pub(crate) fn embedding<S: Ledger>(&self, tokens: f64, decode: bool, ledger: &mut S) {
        ledger.add(Op::Embedding, 1.0, self.memory[usize::from(decode)].at(&[tokens * self.hidden * 4.0]));
    }

    pub(crate) fn projection<S: Ledger>(&self, tokens: f64, decode: bool, count: f64, ledger: &mut S) {
        if let Some(projection) = &self.projection {
            ledger.add(Op::Draft, count, projection[usize::from(decode)].at(&[tokens / f64::from(self.tp)]));
        }
    }

    /// Final norm and LM head.
    pub(crate) fn logits<S: Ledger>(&self, rows: f64, decode: bool, count: f64, ledger: &mut S) {
        ffn::norm(&self.memory, self.hidden, rows, decode, count, ledger);
        ledger.add(Op::Logits, count, self.logits[usize::from(decode)].at(&[rows]));
    }
}

/// The same as lines, [prefill, decode]: over tokens, and logits over rows.
#[derive(Debug)]
pub(super) struct EndLines {
    pub embedding: [Arc<Piecewise>; 2],
    pub projection: [Arc<Piecewise>; 2],
    pub logits: [Arc<Piecewise>; 2],
}

impl EndLines {
    pub(crate) fn new(ends: &Ends, lines: &Tabulated) -> EndLines {
        let line = |name, price: fn(&Ends, f64, bool, &mut Seconds)| {
            [false, true].map(|decode| {
                let ends = ends.clone();
                lines.get((name, [ends.tp, u32::from(decode), 0, 0, 0, 0]), move |x| {
                    let mut t = Seconds::default();
                    price(&ends, x, decode, &mut t);
                    t.0
                })
            })
        };
        EndLines {
            embedding: line("embedding", |e, x, decode, t| e.embedding(x, decode, t)),
            projection: line("projection", |e, x, decode, t| e.projection(x, decode, 1.0, t)),
            logits: line("logits", |e, rows, decode, t| e.logits(rows, decode, 1.0, t)),
        }
    }
}
