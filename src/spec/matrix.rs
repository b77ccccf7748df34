//! Weight matrices of what mixes the tokens of a layer: which part of the model each is, and how attention TP cuts it.
//!
//! Limit: shapes and cuts; in which format a matrix stands is `memory`'s and the checkpoint's.

use super::record::choices;

choices! {
    /// A part of the model that a quantised checkpoint may leave in BF16.
    #[derive(PartialOrd, Ord)]
    MatrixPart {
        /// Query projection of GQA, or of MLA without query compression.
        Q = "q",
        /// Key and value projections of GQA.
        Kv = "kv",
        QA = "q_a",
        QB = "q_b",
        KvA = "kv_a",
        KvB = "kv_b",
        O = "o",
        Indexer = "indexer",
        /// Projections of layers that keep a running state (gated DeltaNet, Mamba-2).
        Linear = "linear",
        SharedExpert = "shared_expert",
        DenseFfn = "dense_ffn",
        /// Layer norms of the latents, which no checkpoint quantises: no format follows from their being listed
        /// (but see the switch `listed_norms`).
        LatentNorms = "latent_norms",
    }
}

/// One weight matrix of an attention block.
#[derive(Clone, Copy, Debug)]
pub struct Matrix {
    pub part: MatrixPart,
    pub parameters: f64,
    /// Whether attention TP shards it (by heads), keeps it whole on each rank, or shards it by KV heads.
    pub split: Split,
}

#[derive(Clone, Copy, Debug)]
pub enum Split {
    Heads,
    KvHeads(u32),
    Whole,
}

impl Split {
    pub(crate) fn ranks(self, tp: u32) -> f64 {
        f64::from(match self {
            Split::Heads => tp.max(1),
            Split::KvHeads(kv) => tp.clamp(1, kv.max(1)),
            Split::Whole => 1,
        })
    }
}

pub(crate) fn matrix(part: MatrixPart, rows: f64, columns: f64, split: Split) -> Matrix {
    Matrix { part, parameters: rows * columns, split }
}
