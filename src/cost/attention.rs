//! The attention side of a layer: norm, projections, attention kernel, on one TP (and CP) rank.
//!
//! GQA is priced operator by operator; MLA and DSA as the whole measured block. Sliding-window
//! layers have kernels of their own. With context parallelism each of `cp` ranks takes 1/cp of
//! the new tokens, balanced so that all see the same mean context, and the new KV is gathered.
//! Limit: in a mixed step a whole-block table is charged for decode and for prefill tokens
//! separately, so its projections are read twice.

mod lines;

use std::sync::Arc;

pub use self::lines::{KernelLines, Lengths};
use super::Batch;
use super::library::Library;
use super::published;
use super::sink::{Op, Sink};
use crate::error::Result;
use crate::kernels::{Evidence, Reading, Surface};
use crate::network::Comm;
use crate::spec::Attention;
use crate::spec::assumptions::{AttentionElementwise, MixedAttention};

/// Attention kernels of one kind of layer.
#[derive(Clone)]
struct Kernels {
    decode: Arc<Surface>,
    prefill: Arc<Surface>,
    /// Tokens a sliding layer sees; 0: all.
    window: f64,
}

/// Separate projections (GQA only).
#[derive(Clone)]
struct Projections {
    qkv: [Arc<Surface>; 2],
    out: [Arc<Surface>; 2],
    /// Bytes per token of q, k and v, read and written once by rope and the cache write.
    rope_bytes: f64,
    /// Seconds of a prefill layer in place of those bytes, where the assumptions have it so.
    launches: Option<f64>,
}

/// Attention of one rank of a worker or of an attention pool.
#[derive(Clone)]
pub struct AttentionPart {
    full: Kernels,
    sliding: Option<Kernels>,
    projections: Option<Projections>,
    /// Elementwise work, [prefill, decode].
    memory: [Surface; 2],
    hidden: f64,
    tp: u32,
    cp: u32,
    /// Bytes of KV that a token adds in one layer.
    kv_row: f64,
    /// Whether a mixed step leaves decode attention out.
    by_name: bool,
}

impl AttentionPart {
    pub fn new(lib: &Library, tp: u32, cp: u32) -> Result<AttentionPart> {
        let kernels = |window: u32| -> Result<Kernels> {
            Ok(Kernels {
                decode: lib.generation(tp, window)?,
                prefill: lib.context(tp, window)?,
                window: f64::from(window),
            })
        };
        let (sliding, projections) = match &lib.model.attention {
            Attention::Gqa { heads, kv_heads, head_dim, window } => {
                let width = (heads / tp + 2 * (kv_heads / tp).max(1)) * head_dim;
                let inner = heads / tp * head_dim;
                let pair = |n, k| -> Result<[Arc<Surface>; 2]> {
                    Ok([
                        lib.gemm(false, lib.formats.attention_gemm, n, k)?,
                        lib.gemm(true, lib.formats.attention_gemm, n, k)?,
                    ])
                };
                let projections = Projections {
                    qkv: pair(width, lib.model.hidden)?,
                    out: pair(lib.model.hidden, inner)?,
                    rope_bytes: f64::from(width) * 4.0,
                    launches: (lib.assumptions.attention_elementwise == AttentionElementwise::Launches)
                        .then(|| published::attention_launches(&lib.model)),
                };
                let sliding = match window {
                    Some(w) if w.layers.iter().any(|s| *s) => Some(kernels(w.tokens)?),
                    _ => None,
                };
                (sliding, Some(projections))
            }
            Attention::Mla { .. } => (None, None),
        };
        Ok(AttentionPart {
            full: kernels(0)?,
            sliding,
            projections,
            memory: [lib.memory(false), lib.memory(true)],
            hidden: f64::from(lib.model.hidden),
            tp,
            cp,
            by_name: lib.assumptions.mixed_attention == MixedAttention::ByName
                && lib.model.is_mla()
                && !lib.model.is_dsa()
                && lib.framework != "sglang",
            kv_row: lib.model.attention.kv_bytes_per_token(lib.formats.kv),
        })
    }

    pub fn tp(&self) -> u32 {
        self.tp
    }

    fn kernels(&self, sliding: bool) -> &Kernels {
        match (&self.sliding, sliding) {
            (Some(k), true) => k,
            _ => &self.full,
        }
    }

    /// The decode kernel alone, of `rows` query rows over `context` tokens.
    fn decode_kernel(&self, rows: f64, context: f64, sliding: bool) -> Reading {
        let kernels = self.kernels(sliding);
        let context = if kernels.window > 0.0 { context.min(kernels.window) } else { context };
        kernels.decode.at(&[rows, context.max(1.0)])
    }

    /// The prefill kernel alone, of `sequences` with `new` tokens each over `past`.
    pub(super) fn prefill_kernel(&self, sequences: f64, new: f64, past: f64, sliding: bool) -> Reading {
        let kernels = self.kernels(sliding);
        let own = new / f64::from(self.cp);
        let mut past = past + (new - own) / 2.0;
        if kernels.window > 0.0 {
            past = past.min(kernels.window);
        }
        kernels.prefill.at(&[sequences, own, past])
    }

    /// `count` layers of one kind (`sliding` or full).
    pub fn price<S: Sink>(&self, comm: &Comm, batch: &Batch, sliding: bool, count: f64, sink: &mut S) {
        if count <= 0.0 {
            return;
        }
        let cp = f64::from(self.cp);
        let mode = usize::from(!batch.has_prefill());
        let tokens = batch.decode * batch.per_decode + batch.sequences * batch.new / cp;
        // Add and norm: read and write the residual, read the block's output, write the normed row (BF16).
        sink.add(Op::Norm, count, self.memory[mode].at(&[tokens * self.hidden * 8.0]));
        if let Some(p) = &self.projections {
            sink.add(Op::Qkv, count, p.qkv[mode].at(&[tokens]));
            match p.launches {
                None => sink.add(Op::Qkv, count, self.memory[mode].at(&[tokens * p.rope_bytes])),
                Some(seconds) if batch.has_prefill() => {
                    sink.add(Op::Qkv, count, Reading { seconds, evidence: Evidence::Roofline });
                }
                Some(_) => {}
            }
        }
        if batch.decode > 0.0 && !(self.by_name && batch.has_prefill()) {
            // Draft tokens are extra query rows over the same context.
            let kernel = self.decode_kernel(batch.decode * batch.per_decode, batch.context, sliding);
            sink.add(Op::AttentionDecode, count, kernel);
        }
        if batch.has_prefill() {
            let kernel = self.prefill_kernel(batch.sequences, batch.new, batch.past, sliding);
            sink.add(Op::AttentionPrefill, count, kernel);
            if self.cp > 1 {
                let bytes = batch.sequences * batch.new * self.kv_row;
                let gathered = comm.all_gather(bytes, self.cp);
                sink.carry(Op::ContextExchange, count, gathered, || {
                    comm.report_collective("all_gather", bytes, comm.packed(self.cp))
                });
            }
        }
        if let Some(p) = &self.projections {
            sink.add(Op::AttentionOut, count, p.out[mode].at(&[tokens]));
        }
    }
}
