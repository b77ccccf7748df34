//! Compressed attention (DeepSeek-V4): every head reads one row of keys that are values too, the last tokens as they are
//! and the others `ratio` at a time as one row, of which an indexer may pick the best.
//!
//! ```text
//! rows seen by a query     min(c, window) + min(c / ratio, topk)
//! bytes of a sequence      c / ratio (row + index row) + window row + state of the compressor (FP32)
//! ```
//!
//! Sources: `config.json` and `inference/model.py` of deepseek-ai/DeepSeek-V4-Pro and -Flash (2026-04): `Compressor` with
//! its two projections, its positions and its two states of `coff ratio` rows of `coff head_dim`, coff 2 where groups
//! overlap (layers with an indexer) and 1 else; `Indexer` with a compressor of its own; output through `o_groups` groups of
//! `o_lora_rank` columns. An FP8 row is 448 values, 64 rotary ones in BF16, 7 scales and a byte of padding (vLLM's
//! `fp8_ds_mla`, 584 bytes), an FP8 index row 128 values and a scale; BF16 rows give the published 9.62 GiB a sequence of
//! 1,048,576 tokens (V4-Pro). Limits: a server reserves the ring of the window whole, and so it is counted; what the
//! checkpoint has in FP32 (compressors) is counted as BF16.

use serde::{Deserialize, Serialize};

use super::facts::{Facts, Found, HEAD, Reading};
use crate::spec::dtype::Dtype;
use crate::spec::limits::Check;
use crate::spec::matrix::{Matrix, MatrixPart, Split, matrix};

/// Compressed attention of one kind of layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Compressed {
    pub heads: u32,
    /// Width of the row that all heads read.
    pub head_dim: u32,
    /// Rotary part of it.
    pub rope: u32,
    pub q_lora: u32,
    pub o_lora: u32,
    pub o_groups: u32,
    /// Last tokens, kept as they are.
    pub window: u32,
    /// Tokens that one compressed row stands for; 0: nothing is kept but the window.
    pub ratio: u32,
    /// Compressed rows that the indexer picks; 0: all are read, and there is no indexer.
    pub topk: u32,
    pub index_heads: u32,
    pub index_dim: u32,
}

impl Compressed {
    /// Groups overlap where an indexer picks among them.
    fn overlap(&self) -> f64 {
        if self.topk > 0 { 2.0 } else { 1.0 }
    }

    /// Columns of both projections of the compressors, and what weighs the indexer's heads.
    pub(crate) fn compressor_columns(&self) -> f64 {
        if self.ratio == 0 {
            return 0.0;
        }
        let index =
            if self.topk > 0 { 2.0 * 2.0 * f64::from(self.index_dim) + f64::from(self.index_heads) } else { 0.0 };
        2.0 * self.overlap() * f64::from(self.head_dim) + index
    }

    /// Bytes of one row, and of one index row.
    pub fn rows(&self, kv: Dtype) -> (f64, f64) {
        let index = f64::from(self.index_dim);
        if matches!(kv, Dtype::Fp8 | Dtype::Fp8Block) {
            let nope = self.head_dim - self.rope;
            let scales = nope.div_ceil(64).next_multiple_of(8);
            (f64::from(nope + 2 * self.rope + scales), index + 4.0 * (index / 128.0).ceil())
        } else {
            (f64::from(self.head_dim) * kv.kv_bytes(), index * kv.kv_bytes())
        }
    }
}

impl Facts for Compressed {
    fn name(&self) -> &'static str {
        "compressed attention"
    }

    fn heads(&self) -> (u32, &'static str) {
        (self.heads, "heads of the compressed attention")
    }

    fn check(&self, c: &mut Check) {
        let sizes =
            [("heads", self.heads), ("head_dim", self.head_dim), ("q_lora", self.q_lora), ("o_lora", self.o_lora)];
        for (field, n) in sizes {
            c.count(field, n, 1, HEAD);
        }
        c.count("rope", self.rope, 0, self.head_dim.max(1));
        c.count("o_groups", self.o_groups, 1, self.heads.max(1));
        c.count("window", self.window, 1, 1_000_000_000);
        c.count("ratio", self.ratio, 0, 1_000_000);
        if c.count("topk", self.topk, 0, 100_000_000) && self.topk > 0 {
            c.count("index_heads", self.index_heads, 1, HEAD);
            c.count("index_dim", self.index_dim, 1, HEAD);
        }
    }

    fn read(Reading { f, layers, mtp }: &mut Reading) -> Option<Option<Found<Compressed>>> {
        if !f.says("compress_ratios") {
            return Some(None);
        }
        let list = f.per_layer("compress_ratios", *layers, *mtp)?;
        let ratios: Option<Vec<u32>> = list.iter().map(|v| u32::try_from(v.as_u64()?).ok()).collect();
        let Some(ratios) = ratios else {
            f.wrong("compress_ratios", "must be whole numbers", "");
            return None;
        };
        // Layers that the reference gives an indexer; it overlaps their groups (`compress_ratio == 4`).
        const INDEXED: u32 = 4;
        if let Some(other) = ratios.iter().find(|r| ![0, INDEXED, 128].contains(r)) {
            f.wrong("compress_ratios", format!("{other} is a ratio that is not known: not supported"), "0, 4 or 128");
            return None;
        }
        if f.get("num_key_value_heads").is_some_and(|v| v.as_u64() != Some(1)) {
            f.wrong("num_key_value_heads", "more than one row for all heads: not supported", "1");
        }
        let heads = f.need(&["num_attention_heads"], HEAD);
        let head_dim = f.need(&["head_dim"], HEAD);
        let rope = f.need(&["qk_rope_head_dim"], HEAD);
        let q_lora = f.need(&["q_lora_rank"], HEAD);
        let o_lora = f.need(&["o_lora_rank"], HEAD);
        let o_groups = f.need(&["o_groups"], HEAD);
        let window = f.need(&["sliding_window"], 1_000_000_000);
        let topk = f.need(&["index_topk"], 100_000_000);
        let index_heads = f.need(&["index_n_heads"], HEAD);
        let index_dim = f.need(&["index_head_dim"], HEAD);
        // The first layers choose experts by the token's number: the table is no product.
        f.seen("num_hash_layers");
        let (topk, index_heads, index_dim) = (topk?, index_heads?, index_dim?);
        let window_only = Compressed {
            heads: heads?,
            head_dim: head_dim?,
            rope: rope?,
            q_lora: q_lora?,
            o_lora: o_lora?,
            o_groups: o_groups?,
            window: window?,
            ratio: 0,
            topk: 0,
            index_heads: 0,
            index_dim: 0,
        };
        let mut known: Vec<u32> = ratios.iter().copied().filter(|r| *r > 0).collect();
        known.sort_unstable();
        known.dedup();
        let of = |ratio: &u32| match *ratio == INDEXED {
            true => Compressed { ratio: *ratio, topk, index_heads, index_dim, ..window_only },
            false => Compressed { ratio: *ratio, ..window_only },
        };
        let place = |ratio: &u32| known.iter().position(|k| k == ratio).map_or(0, |at| at as u32 + 1);
        Some(Some(Found {
            attention: Some(window_only),
            mixers: known.iter().map(of).collect(),
            layer_mixers: ratios.iter().map(|r| vec![place(r)]).collect(),
        }))
    }

    fn matrices(&self, hidden: u32) -> Vec<Matrix> {
        let (h, wide) = (f64::from(hidden), f64::from(self.heads) * f64::from(self.head_dim));
        let (q_lora, o_lora) = (f64::from(self.q_lora), f64::from(self.o_lora));
        let mut all = vec![
            matrix(MatrixPart::QA, h, q_lora, Split::Whole),
            matrix(MatrixPart::QB, q_lora, wide, Split::Heads),
            matrix(MatrixPart::KvA, h, f64::from(self.head_dim), Split::Whole),
            matrix(MatrixPart::O, wide, o_lora, Split::Heads),
            matrix(MatrixPart::O, f64::from(self.o_groups) * o_lora, h, Split::Heads),
        ];
        if self.topk > 0 {
            let index = f64::from(self.index_heads) * f64::from(self.index_dim);
            all.push(matrix(MatrixPart::Indexer, q_lora, index, Split::Whole));
        }
        all
    }

    /// Compressors with the positions in a group.
    fn small(&self, hidden: u32) -> f64 {
        let positions = f64::from(self.ratio) * self.overlap() * f64::from(self.head_dim);
        let index = if self.topk > 0 { f64::from(self.ratio) * 2.0 * f64::from(self.index_dim) } else { 0.0 };
        f64::from(hidden) * self.compressor_columns() + positions + index
    }

    fn kv_bytes_per_token(&self, kv: Dtype) -> f64 {
        if self.ratio == 0 {
            return 0.0;
        }
        let (row, index) = self.rows(kv);
        (row + if self.topk > 0 { index } else { 0.0 }) / f64::from(self.ratio)
    }

    fn state_bytes(&self, kv: Dtype) -> f64 {
        let states = |width: u32| {
            // Values and scores.
            2.0 * self.overlap() * f64::from(self.ratio) * self.overlap() * f64::from(width) * 4.0
        };
        let index = if self.topk > 0 { states(self.index_dim) } else { 0.0 };
        f64::from(self.window) * self.rows(kv).0 + states(self.head_dim) + index
    }

    fn row_bytes(&self) -> f64 {
        4.0 * f64::from(self.heads) * f64::from(self.head_dim)
    }

    /// Of the window alone nobody measured rows; it stands in the few layers beside the others.
    fn tables(&self) -> Vec<&'static str> {
        vec![if self.topk > 0 { "dsv4_csa_generation_module" } else { "dsv4_hca_generation_module" }]
    }
}
