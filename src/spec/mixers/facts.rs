//! What every kind of mixer says of itself: sizes, weights, what it keeps of a sequence.
//!
//! ```text
//! state bytes = heads x key width x value width x 4 (FP32) + convolved columns x (conv - 1) x 2 (BF16)
//! ```
//!
//! the running state in FP32 (`mamba_ssm_dtype`, `mamba_ssm_cache_dtype`: float32), that of the convolution in BF16, as
//! SGLang and vLLM keep them. Limits: what steers decay (A, dt, biases) counts as parameters, not as a format.

use crate::spec::dtype::Dtype;
use crate::spec::hf::fields::Fields;
use crate::spec::limits::Check;
use crate::spec::matrix::{Matrix, MatrixPart, Split, matrix};

/// Widest and most of anything a head has.
pub const HEAD: u32 = 65_536;

/// Sizes that all layers with a running state have.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Running {
    /// Heads of the state, and in how many parts it can be cut.
    pub heads: u32,
    pub cuts: u32,
    /// Elements of the state of a head.
    pub head_state: f64,
    /// Columns of the projection in, of those that the convolution passes, and of the projection out.
    pub columns_in: f64,
    pub convolved: f64,
    pub columns_out: f64,
    pub conv: u32,
    /// Parameters beside the two projections.
    pub small: f64,
    /// Where its kernels were measured.
    pub rows: Option<Rows>,
}

/// A table of kernel rows, and the heads of keys and of values that it is asked for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rows {
    pub table: &'static str,
    pub keys: u32,
    pub values: u32,
}

/// Bytes of an element of the running state, and of the convolution's.
const STATE: f64 = 4.0;
const CONV: f64 = 2.0;

impl Running {
    /// Bytes of a sequence in one layer.
    pub(crate) fn bytes(&self) -> f64 {
        f64::from(self.heads) * self.head_state * STATE + self.convolved * f64::from(self.conv.saturating_sub(1)) * CONV
    }
}

/// What a kind of mixer is. One that keeps a running state says its name, its heads and its sizes, and no more.
pub(crate) trait Facts {
    /// In words that end a sentence about it.
    fn name(&self) -> &'static str;

    /// What attention TP must divide, and what that is in words.
    fn heads(&self) -> (u32, &'static str);

    /// Everything that is wrong with these sizes.
    fn check(&self, c: &mut Check);

    /// What a config says in fields of this kind's own: `Some(None)` where it has none; None: a problem was noted.
    fn read(_: &mut Reading) -> Option<Option<Found<Self>>>
    where
        Self: Sized,
    {
        Some(None)
    }

    /// Its sizes where it keeps a running state.
    fn running(&self) -> Option<Running> {
        None
    }

    /// Its weight matrices in a model of this hidden size.
    fn matrices(&self, hidden: u32) -> Vec<Matrix> {
        let h = f64::from(hidden);
        self.running().map_or(Vec::new(), |r| {
            vec![
                matrix(MatrixPart::Linear, h, r.columns_in, Split::KvHeads(r.cuts)),
                matrix(MatrixPart::Linear, r.columns_out, h, Split::KvHeads(r.cuts)),
            ]
        })
    }

    /// Parameters beside the matrices; in BF16 whatever the format.
    fn small(&self, _hidden: u32) -> f64 {
        self.running().map_or(0.0, |r| r.small)
    }

    /// Bytes that a token adds to what a layer keeps.
    fn kv_bytes_per_token(&self, _kv: Dtype) -> f64 {
        0.0
    }

    /// Bytes that a layer keeps of a sequence whatever its length.
    fn state_bytes(&self, _kv: Dtype) -> f64 {
        self.running().map_or(0.0, |r| r.bytes())
    }

    /// Over how many of `tp` ranks what it keeps is split; the others hold copies.
    fn shards(&self, tp: u32) -> u32 {
        self.running().map_or(1, |r| tp.clamp(1, r.cuts.max(1)))
    }

    /// Bytes that a token's query and output take on all ranks.
    fn row_bytes(&self) -> f64 {
        self.running().map_or(0.0, |r| 2.0 * (r.columns_in + r.columns_out))
    }

    /// Tables that measured its kernels; the first that is there will do.
    fn tables(&self) -> Vec<&'static str> {
        self.running().and_then(|r| r.rows).map_or(Vec::new(), |r| vec![r.table])
    }
}

/// A config under reading: its fields, and how many layers it has.
pub(crate) struct Reading<'f, 'a> {
    pub f: &'f mut Fields<'a>,
    pub layers: u32,
    /// Layers of MTP that lists may have behind the others.
    pub mtp: u32,
}

/// What a reader found: a kind for all layers that have no other (None: the attention that the config describes),
/// others, and for each layer which (0: the first).
pub(crate) struct Found<M> {
    pub attention: Option<M>,
    pub mixers: Vec<M>,
    pub layer_mixers: Vec<Vec<u32>>,
}

impl<M> Found<M> {
    pub(crate) fn map<N>(self, f: impl Fn(M) -> N) -> Found<N> {
        let Found { attention, mixers, layer_mixers } = self;
        Found { attention: attention.map(&f), mixers: mixers.into_iter().map(&f).collect(), layer_mixers }
    }
}
