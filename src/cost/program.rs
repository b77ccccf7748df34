//! The layer program of a model: its kinds of layer as data, in the order of the layers.
//!
//! A layer mixes the tokens of a sequence ([`Mixer`]: attention, with a window or without) and then feeds each token
//! through an FFN ([`Ffn`]). A kind of layer is a mixer with an FFN. Workers, AFD units, memory and the scan walk the
//! kinds and know none by name: a model family is its config reader, its mixers and the program that orders them.
//!
//! What a mixer keeps of a sequence of `c` tokens, over all layers and the ranks that share it out (physics.md
//! section 4):
//!
//! ```text
//! bytes = sum over mixers  layers (min(c, window) per_token + per_sequence)
//! ```
//!
//! Limits: with pipeline stages each holds the mean mix of mixers, not its own; the layer of an MTP module keeps what
//! the mean layer keeps (`draft`).

use std::fmt::Debug;
use std::ops::Range;
use std::sync::Arc;

use super::ledger::Op;
use crate::error::{Problems, Result};
use crate::kernels::ops::Source;
use crate::kernels::{Reading, Surface};
use crate::spec::dtype::Formats;
use crate::spec::{Assumptions, Attention, Dtype, Model, OwnMixer, Quant};

/// What one layer keeps of a sequence, on all ranks that share it out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct State {
    /// Bytes of each token kept.
    pub per_token: f64,
    /// Most tokens kept; infinite: all.
    pub window: f64,
    /// Bytes whatever the length.
    pub per_sequence: f64,
}

/// Heads of grouped-query attention on one rank.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Heads {
    pub heads: u32,
    pub kv_heads: u32,
    pub head_dim: u32,
    /// Tokens that a layer sees; 0: all.
    pub window: u32,
}

/// Makes a surface from a system's rows and its device.
pub type Make<'a> = dyn Fn(&Source) -> Result<Surface> + 'a;

/// The compiled surfaces that a mixer's operators are made from (`library` has them), of one model on one system.
pub trait Surfaces {
    fn model(&self) -> &Model;
    fn formats(&self) -> &Formats;
    /// Formats asked for.
    fn quant(&self) -> &Quant;
    fn assumptions(&self) -> &Assumptions;

    /// Dense GEMM; axis: rows.
    fn gemm(&self, decode: bool, dtype: Dtype, n: u32, k: u32) -> Result<Arc<Surface>>;

    /// Decode attention of one TP rank; axes: sequences, context. `window` 0: full attention.
    fn generation(&self, tp: u32, window: u32) -> Result<Arc<Surface>>;

    /// Prefill attention of one TP rank; axes: sequences, new tokens, past tokens.
    fn context(&self, tp: u32, window: u32) -> Result<Arc<Surface>>;

    /// Decode attention over these heads of a rank; axes as `generation`.
    fn decode_heads(&self, heads: Heads) -> Result<Arc<Surface>>;

    /// Prefill attention over these heads of a rank; axes as `context`.
    fn prompt_heads(&self, heads: Heads) -> Result<Arc<Surface>>;

    /// The block of latent attention of another shape than the model's; axes as `generation` (`decode`) or `context`.
    fn latent_block(&self, attention: &Attention, tp: u32, decode: bool) -> Result<Arc<Surface>>;

    /// What `make` makes, made once for a kind with facts of its own on one of `ranks`.
    fn own(&self, mixer: &OwnMixer, ranks: u32, decode: bool, make: &Make) -> Result<Arc<Surface>>;

    /// The whole block of such a kind, projections and all, as `make` makes it; None where no rows were measured.
    fn block(&self, mixer: &OwnMixer, ranks: u32, decode: bool, make: &Make) -> Result<Option<Arc<Surface>>>;

    /// Elementwise work; axis: bytes.
    fn memory(&self, decode: bool) -> Surface;
}

/// What mixes the tokens of a sequence in one kind of layer.
pub trait Mixer: Debug + Send + Sync {
    /// In words that end a sentence about it: `attention`, `sliding attention`.
    fn name(&self) -> &'static str;

    /// What one layer keeps, in this KV format.
    fn state(&self, kv: Dtype) -> State;

    /// Over how many of `tp` ranks the state is split; the others hold copies.
    fn shards(&self, tp: u32) -> u32;

    /// Weight bytes of one layer on one of `tp` ranks.
    fn weight_bytes(&self, model: &Model, quant: &Quant, tp: u32) -> f64;

    /// Its operators on one rank of `tp` x `cp`.
    fn on_rank(&self, from: &dyn Surfaces, tp: u32, cp: u32) -> Result<Arc<dyn MixerRank>>;
}

/// A mixer compiled for one rank. Norm and residual around it are priced by the layer.
pub trait MixerRank: Send + Sync {
    /// What hangs on the step's tokens before the kernels (projections), operator by operator. `prefill`: whether the
    /// step carries prompt tokens.
    fn before(&self, tokens: f64, prefill: bool, take: &mut dyn FnMut(Op, Reading));

    /// The same after the kernels.
    fn after(&self, tokens: f64, prefill: bool, take: &mut dyn FnMut(Op, Reading));

    /// The decode kernel: `rows` query rows over `context` tokens each.
    fn decode(&self, rows: f64, context: f64) -> Reading;

    /// The prefill kernel: `sequences` with `new` tokens each over `past`, of which this rank computes its share.
    fn prompt(&self, sequences: f64, new: f64, past: f64) -> Reading;

    /// Whether rows were measured for the prefill kernel, and for the decode kernel.
    fn measured(&self) -> [bool; 2];
}

/// What a layer feeds each token through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ffn {
    Dense,
    Experts,
}

/// A kind of layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayerKind {
    /// Among the program's mixers.
    pub mixer: usize,
    pub ffn: Ffn,
    pub layers: u32,
}

/// Most mixers of a program.
pub const MOST_MIXERS: usize = 4;
/// The mixer of an MTP module's layer: the program's first.
pub const DRAFT_MIXER: usize = 0;

/// The kinds of layer of a model, and their order.
#[derive(Clone, Debug)]
pub struct Program {
    mixers: Vec<Arc<dyn Mixer>>,
    /// Mixers outermost, dense FFNs before experts.
    kinds: Vec<LayerKind>,
    /// Equal layers in a row, in the order of the layers: how many, and of which kind.
    runs: Vec<(u32, usize)>,
}

impl Program {
    /// `layers`: mixer and FFN of each.
    ///
    /// # Errors
    /// If there is no mixer, there are more than [`MOST_MIXERS`], or a layer names one that is not there.
    pub fn new(mixers: Vec<Arc<dyn Mixer>>, layers: &[(usize, Ffn)]) -> Result<Program> {
        let mut problems = Problems::new();
        if !(1..=MOST_MIXERS).contains(&mixers.len()) {
            problems.push("mixers", format!("must be 1 to {MOST_MIXERS}, got {}", mixers.len()), "");
        }
        for (i, (mixer, _)) in layers.iter().enumerate().filter(|(_, l)| l.0 >= mixers.len()) {
            problems.push(format!("layers[{i}]"), format!("names mixer {mixer} of {}", mixers.len()), "");
        }
        problems.into_result()?;
        Ok(Program::ordered(mixers, layers))
    }

    /// The same of mixers and layers that are known to fit.
    pub(super) fn ordered(mixers: Vec<Arc<dyn Mixer>>, layers: &[(usize, Ffn)]) -> Program {
        let mut found = layers.to_vec();
        found.sort_unstable();
        found.dedup();
        let count = |kind: &(usize, Ffn)| layers.iter().filter(|l| *l == kind).count() as u32;
        let kinds = found.iter().map(|k| LayerKind { mixer: k.0, ffn: k.1, layers: count(k) }).collect();
        let place = |layer: &(usize, Ffn)| found.iter().position(|k| k == layer).unwrap_or(0);
        let runs = layers.chunk_by(|a, b| a == b).map(|run| (run.len() as u32, place(&run[0]))).collect();
        Program { mixers, kinds, runs }
    }

    pub fn mixers(&self) -> &[Arc<dyn Mixer>] {
        &self.mixers
    }

    pub fn kinds(&self) -> &[LayerKind] {
        &self.kinds
    }

    pub fn runs(&self) -> &[(u32, usize)] {
        &self.runs
    }

    /// Whether any layer has experts.
    pub(crate) fn has_experts(&self) -> bool {
        self.kinds.iter().any(|k| k.ffn == Ffn::Experts)
    }

    /// Layers with this FFN.
    pub fn layers_with(&self, ffn: Ffn) -> f64 {
        f64::from(self.layers_within(ffn, 0..self.layers()))
    }

    /// Those of them among the layers of a pipeline stage.
    pub(crate) fn layers_within(&self, ffn: Ffn, stage: Range<u32>) -> u32 {
        let (mut at, mut inside) = (0, 0);
        for (layers, kind) in &self.runs {
            let (from, to) = (at, at + layers);
            if self.kinds[*kind].ffn == ffn {
                inside += to.min(stage.end).saturating_sub(from.max(stage.start));
            }
            at = to;
        }
        inside
    }

    /// The mixer of the first kind with this FFN.
    pub(crate) fn first_with(&self, ffn: Ffn) -> usize {
        self.kinds.iter().find(|k| k.ffn == ffn).map_or(DRAFT_MIXER, |k| k.mixer)
    }

    /// Layers with this mixer.
    pub fn layers_of(&self, mixer: usize) -> f64 {
        f64::from(self.kinds.iter().filter(|k| k.mixer == mixer).map(|k| k.layers).sum::<u32>())
    }

    /// Layers in all.
    pub(crate) fn layers(&self) -> u32 {
        self.kinds.iter().map(|k| k.layers).sum()
    }

    /// Bytes that all layers keep of a sequence of `context` tokens, on one of `tp` ranks.
    pub fn state_bytes(&self, context: f64, kv: Dtype, tp: u32) -> f64 {
        // Mixers whose tokens take the same room are counted together.
        let mut rooms: Vec<(f64, u32, f64)> = Vec::with_capacity(self.mixers.len());
        let mut whole = 0.0;
        for (i, m) in self.mixers.iter().enumerate() {
            let (layers, state, shards) = (self.layers_of(i), m.state(kv), m.shards(tp));
            let tokens = layers * context.min(state.window);
            match rooms.iter_mut().find(|r| r.0 == state.per_token && r.1 == shards) {
                Some(room) => room.2 += tokens,
                None => rooms.push((state.per_token, shards, tokens)),
            }
            whole += layers * state.per_sequence / f64::from(shards);
        }
        rooms.iter().fold(whole, |sum, (per_token, shards, tokens)| sum + tokens * per_token / f64::from(*shards))
    }

    /// Weight bytes of the mixer of the mean layer on one of `tp` ranks.
    pub(crate) fn mixer_weight_bytes(&self, model: &Model, quant: &Quant, tp: u32) -> f64 {
        let bytes = |i: usize| self.mixers[i].weight_bytes(model, quant, tp);
        let first = bytes(0);
        let rest: Vec<f64> = (1..self.mixers.len()).map(bytes).collect();
        if rest.iter().all(|b| *b == first) {
            return first;
        }
        let all = [first].into_iter().chain(rest).enumerate();
        all.map(|(i, b)| self.layers_of(i) * b).sum::<f64>() / f64::from(self.layers())
    }
}
