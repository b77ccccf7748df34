//! The mixer side of a layer on one TP (and CP) rank: norm, projections, kernels, whatever mixes the tokens.
//!
//! With context parallelism each of `cp` ranks takes 1/cp of the new tokens, balanced so that all see the same mean
//! context, and what the layer keeps of the new tokens is gathered. Limit: in a mixed step a whole-block table is
//! charged for decode and for prefill tokens separately, so its projections are read twice.

mod lines;

use std::sync::Arc;

pub use self::lines::{KernelLines, Lengths};
use super::Batch;
use super::ledger::{Ledger, Op};
use super::library::Library;
use super::program::{MixerRank, Surfaces};
use crate::error::Result;
use crate::kernels::Surface;
use crate::network::{Collective, Comm};
use crate::spec::Framework;
use crate::spec::assumptions::MixedAttention;

/// The mixers of one rank of a worker or of an attention pool.
#[derive(Clone)]
pub struct AttentionPart {
    /// By the program's mixers: operators, and bytes that a token adds to what a layer keeps.
    mixers: Vec<(Arc<dyn MixerRank>, f64)>,
    /// Elementwise work, [prefill, decode].
    memory: [Surface; 2],
    hidden: f64,
    /// Bytes of a residual that is more than a sum: of each token, and once a layer.
    residual: (f64, f64),
    tp: u32,
    cp: u32,
    /// Whether a mixed step leaves decode attention out.
    by_name: bool,
}

impl AttentionPart {
    pub(crate) fn new(lib: &Library, tp: u32, cp: u32) -> Result<AttentionPart> {
        let mixers = lib.program.mixers().iter();
        let mixers = mixers.map(|m| Ok((m.on_rank(lib, tp, cp)?, m.state(lib.formats.kv).per_token)));
        Ok(AttentionPart {
            mixers: mixers.collect::<Result<_>>()?,
            memory: [lib.memory(false), lib.memory(true)],
            hidden: f64::from(lib.model.hidden),
            residual: lib.model.residual_bytes(),
            tp,
            cp,
            by_name: lib.assumptions.mixed_attention == MixedAttention::ByName
                && lib.model.is_mla()
                && !lib.model.is_dsa()
                && lib.framework != Framework::Sglang,
        })
    }

    fn decode_seconds(&self, mixer: usize, rows: f64, context: f64) -> f64 {
        self.mixers[mixer].0.decode(rows, context).seconds
    }

    fn prompt_seconds(&self, mixer: usize, b: &Batch) -> f64 {
        self.mixers[mixer].0.prompt(b.sequences, b.new, b.past).seconds
    }

    /// `count` layers of one mixer.
    pub fn price<S: Ledger>(&self, comm: &Comm, batch: &Batch, mixer: usize, count: f64, ledger: &mut S) {
        if count <= 0.0 {
            return;
        }
        let prefill = batch.has_prefill();
        let tokens = batch.rank_tokens(f64::from(self.cp));
        let (own, kept) = &self.mixers[mixer];
        // Add and norm: read and write the residual, read the block's output, write the normed row (BF16).
        ledger.add(Op::Norm, count, self.memory[usize::from(!prefill)].at(&[tokens * self.hidden * 8.0]));
        if self.residual.0 > 0.0 {
            let bytes = tokens * self.residual.0 + self.residual.1;
            ledger.add(Op::Norm, count, self.memory[usize::from(!prefill)].at(&[bytes]));
        }
        own.before(tokens, prefill, &mut |op, reading| ledger.add(op, count, reading));
        if batch.decode > 0.0 && !(self.by_name && prefill) {
            // Draft tokens are extra query rows over the same context.
            ledger.add(Op::AttentionDecode, count, own.decode(batch.decode * batch.per_decode, batch.context));
        }
        if prefill {
            ledger.add(Op::AttentionPrefill, count, own.prompt(batch.sequences, batch.new, batch.past));
            if self.cp > 1 {
                let bytes = batch.sequences * batch.new * kept;
                let gathered = comm.all_gather(bytes, self.cp);
                ledger.carry(Op::ContextExchange, count, gathered, || {
                    comm.report_collective(Collective::AllGather, bytes, comm.packed(self.cp))
                });
            }
        }
        own.after(tokens, prefill, &mut |op, reading| ledger.add(op, count, reading));
    }
}
