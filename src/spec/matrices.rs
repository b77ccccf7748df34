//! Weight matrices of attention.
//!
//! Limit: projections of softmax, latent and sparse attention; norms and biases are left out.

use super::attention::{Attention, OutputGate};
use super::matrix::{Matrix, MatrixPart, Split, matrix};

impl Attention {
    pub(super) fn matrices(&self, hidden: u32) -> Vec<Matrix> {
        let h = f64::from(hidden);
        match self {
            Attention::Gqa { heads, kv_heads, head_dim, shape, .. } => {
                let (heads, width, v) = (f64::from(*heads), f64::from(*head_dim), f64::from(self.value_dim()));
                let gate = match shape.gate {
                    OutputGate::None => 0.0,
                    OutputGate::Head => heads,
                    OutputGate::Element => heads * v,
                };
                let q = heads * width + gate;
                let kv = f64::from(*kv_heads) * if shape.shared_kv { width } else { width + v };
                let mut all = Vec::with_capacity(4);
                if shape.q_rank > 0 {
                    let rank = f64::from(shape.q_rank);
                    all.push(matrix(MatrixPart::QA, h, rank, Split::Whole));
                    all.push(matrix(MatrixPart::QB, rank, q, Split::Heads));
                } else {
                    all.push(matrix(MatrixPart::Q, h, q, Split::Heads));
                }
                all.push(matrix(MatrixPart::Kv, h, kv, Split::KvHeads(*kv_heads)));
                all.push(matrix(MatrixPart::O, heads * v, h, Split::Heads));
                all
            }
            Attention::Mla { heads, q_lora, kv_lora, nope, rope, v, indexer, gate } => {
                let n = f64::from(*heads);
                let (q_lora, kv_lora) = (f64::from(*q_lora), f64::from(*kv_lora));
                let (nope, rope, v) = (f64::from(*nope), f64::from(*rope), f64::from(*v));
                let mut all = Vec::with_capacity(6);
                let query_in = if q_lora > 0.0 {
                    all.push(matrix(MatrixPart::QA, h, q_lora, Split::Whole));
                    all.push(matrix(MatrixPart::QB, q_lora, n * (nope + rope), Split::Heads));
                    q_lora
                } else {
                    all.push(matrix(MatrixPart::Q, h, n * (nope + rope), Split::Heads));
                    h
                };
                all.push(matrix(MatrixPart::KvA, h, kv_lora + rope, Split::Whole));
                all.push(matrix(MatrixPart::KvB, kv_lora, n * (nope + v), Split::Heads));
                all.push(matrix(MatrixPart::O, n * v, h, Split::Heads));
                if *gate {
                    all.push(matrix(MatrixPart::O, h, n * v, Split::Heads));
                }
                if let Some(i) = indexer.filter(|i| !i.shared) {
                    let (ni, di) = (f64::from(i.heads), f64::from(i.head_dim));
                    // Query, key and head-weight projections; every rank scores with all of them.
                    all.push(matrix(MatrixPart::Indexer, 1.0, query_in * ni * di + h * di + h * ni, Split::Whole));
                }
                all
            }
            Attention::Own(own) => own.facts().matrices(hidden),
        }
    }
}
