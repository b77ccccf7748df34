//! Block-sparse grouped-query attention (MiniMax-M3): an indexer with a head for each KV head scores blocks of tokens, and
//! a group of query heads reads the best blocks.
//!
//! Sources: arXiv:2606.13392 and `config.json` of MiniMaxAI/MiniMax-M3 (`sparse_attention_config`): 16 blocks of 128 tokens,
//! 4 index heads of 128 beside 4 KV heads, one index key of 128 a token; index values are off in every sparse layer
//! (`sparse_disable_index_value`). The index key is kept in BF16. Limits: index keys stand on every rank and are counted
//! as split like the KV heads (a ninth of a row at most).

use serde::{Deserialize, Serialize};

use super::facts::{Facts, Found, HEAD, Reading};
use crate::spec::dtype::Dtype;
use crate::spec::limits::Check;
use crate::spec::matrix::{Matrix, MatrixPart, Split, matrix};

/// Block-sparse attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BlockSparse {
    pub heads: u32,
    pub kv_heads: u32,
    pub head_dim: u32,
    pub index_heads: u32,
    pub index_dim: u32,
    /// Tokens of a block, and blocks that a query reads.
    pub block: u32,
    pub blocks: u32,
}

impl BlockSparse {
    /// Most tokens that a query reads.
    pub(crate) fn reach(&self) -> f64 {
        f64::from(self.block) * f64::from(self.blocks)
    }
}

impl Facts for BlockSparse {
    fn name(&self) -> &'static str {
        "block-sparse attention"
    }

    fn heads(&self) -> (u32, &'static str) {
        (self.heads, "heads of the block-sparse attention")
    }

    fn check(&self, c: &mut Check) {
        let sizes = [("heads", self.heads), ("head_dim", self.head_dim), ("index_dim", self.index_dim)];
        for (field, n) in sizes {
            c.count(field, n, 1, HEAD);
        }
        c.count("kv_heads", self.kv_heads, 1, self.heads.max(1));
        c.count("index_heads", self.index_heads, 1, HEAD);
        c.count("block", self.block, 1, 1_000_000);
        c.count("blocks", self.blocks, 1, 1_000_000);
    }

    fn read(Reading { f, layers, mtp }: &mut Reading) -> Option<Option<Found<BlockSparse>>> {
        let on =
            f.says("sparse_attention_config") && f.flag("sparse_attention_config.use_sparse_attention").unwrap_or(true);
        if !on {
            return Some(None);
        }
        let name = "sparse_attention_config.sparse_attention_freq";
        if f.get(name).is_none() {
            f.wrong(name, "is missing: which layers are sparse is not known", "");
            return None;
        }
        let sparse: Vec<u32> =
            f.per_layer(name, *layers, *mtp)?.iter().map(|v| u32::from(v.as_u64() == Some(1))).collect();
        let heads = f.need(&["num_attention_heads"], HEAD);
        let kv_heads = f.or(&["num_key_value_heads"], 1, HEAD, heads.unwrap_or(1));
        let head_dim = f.need(&["head_dim"], HEAD);
        let index_heads = f.need(&["sparse_attention_config.sparse_num_index_heads"], HEAD);
        let index_dim = f.need(&["sparse_attention_config.sparse_index_dim"], HEAD);
        let block = f.need(&["sparse_attention_config.sparse_block_size"], 1_000_000);
        let blocks = f.need(&["sparse_attention_config.sparse_topk_blocks"], 1_000_000);
        let mixer = BlockSparse {
            heads: heads?,
            kv_heads: kv_heads?,
            head_dim: head_dim?,
            index_heads: index_heads?,
            index_dim: index_dim?,
            block: block?,
            blocks: blocks?,
        };
        let layer_mixers = sparse.iter().map(|s| vec![*s]).collect();
        Some(Some(Found { attention: None, mixers: vec![mixer], layer_mixers }))
    }

    fn matrices(&self, hidden: u32) -> Vec<Matrix> {
        let h = f64::from(hidden);
        let (wide, kv) = (f64::from(self.heads * self.head_dim), f64::from(2 * self.kv_heads * self.head_dim));
        vec![
            matrix(MatrixPart::Q, h, wide, Split::Heads),
            matrix(MatrixPart::Kv, h, kv, Split::KvHeads(self.kv_heads)),
            matrix(MatrixPart::O, wide, h, Split::Heads),
            matrix(MatrixPart::Indexer, h, f64::from(self.index_heads * self.index_dim), Split::KvHeads(self.kv_heads)),
            matrix(MatrixPart::Indexer, h, f64::from(self.index_dim), Split::Whole),
        ]
    }

    fn kv_bytes_per_token(&self, kv: Dtype) -> f64 {
        let keys = f64::from(self.index_dim) * Dtype::Bf16.kv_bytes();
        f64::from(2 * self.kv_heads * self.head_dim) * kv.kv_bytes() + keys
    }

    fn shards(&self, tp: u32) -> u32 {
        tp.clamp(1, self.kv_heads.max(1))
    }

    fn tables(&self) -> Vec<&'static str> {
        vec!["msa_generation_module"]
    }

    fn row_bytes(&self) -> f64 {
        4.0 * f64::from(self.heads) * f64::from(self.head_dim)
    }
}
