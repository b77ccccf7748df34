//! The stages of an AFD unit's layers and the rows of a micro-batch: told once, whoever tells the seconds of their parts.
//!
//! ```text
//! MoE layer     attention, A2F, FFN, F2A
//! fused         attention, start-up out, max(FFN beside the exchange, A2F and F2A beyond their start-up), start-up back
//! micro-batch   every kind of layer; ends (embedding, logits); the first draft pass, and each further one
//! draft pass    a MoE layer with projection and logits in its attention stage
//! ```
//!
//! [`UnitParts`] says what a part takes. `AfdUnit` prices it operator by operator, `AfdLines` reads it from lines that are
//! priced so: an operator that a part gains there counts in both. In which order rows follow one another, how often, and
//! what that takes is the schedule's business (`serving`).
//!
//! Limit: four stages and no more; what overlaps inside a stage is only what a fused dispatch and hidden small kernels
//! do.

use crate::cost::ledger::{Ledger, Sum, Total};
use crate::cost::program::{DRAFT_MIXER, Ffn, Program};
use crate::cost::{Batch, draft, overlap};

/// The stages of one micro-batch at one layer, as sums of operator times.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LayerStages<S = Total> {
    pub attention: S,
    pub a2f: S,
    pub ffn: S,
    pub f2a: S,
    /// Seconds of the exchange into the experts that stand inside `ffn` (router on the FFN side).
    pub inner: f64,
    /// Start-up of A2F and F2A, which no fused kernel hides; 0 where nothing is fused.
    pub starts: [f64; 2],
    /// Seconds of A2F and F2A that the ports of the FFN side are taken; told only where groups share the pool.
    pub ports: [f64; 2],
    /// Seconds of the FFN stage that HBM needs for the weights, however many SMs work; 0 where nothing is fused.
    pub reads: f64,
    /// Seconds of the FFN stage that separate kernels take beside reading and computing, and one fused kernel does not.
    pub between: f64,
    /// Seconds of the attention stage that hide behind another micro-batch's attention kernel, where there is another.
    pub hidden: f64,
}

impl<S: Sum> LayerStages<S> {
    /// Seconds that (attention, A2F, FFN, F2A) are busy. `slowed`: what giving SMs to a fused
    /// dispatch does to the rest of the FFN stage; none: not fused.
    #[inline]
    pub fn seconds(&self, slowed: Option<f64>) -> [f64; 4] {
        let [a, x, f, y] = [self.attention, self.a2f, self.ffn, self.f2a].map(|s| s.seconds());
        let Some(s) = slowed else { return [a, x, f, y] };
        let own = f - self.inner;
        let own = overlap::beside_exchange(own, self.reads, self.between, s);
        if self.inner > 0.0 {
            return [a, x, self.inner.max(own), y];
        }
        let [out, home] = self.starts;
        [a, out, (x - out).max(y - home).max(own), home]
    }

    /// Seconds that (A2F, F2A) take the ports of the FFN side when they have stages of their own. A fused kernel
    /// moves its bytes inside the FFN stage.
    #[inline]
    pub(crate) fn ports(&self, slowed: Option<f64>) -> [f64; 2] {
        if slowed.is_some() && self.inner <= 0.0 { [0.0; 2] } else { self.ports }
    }
}

impl LayerStages {
    /// Operator time of all four, the FFN pool's for `groups` groups.
    pub(crate) fn work(&self, groups: f64) -> Total {
        let ffn = if groups == 1.0 { self.ffn } else { self.ffn.times(groups) };
        self.attention.plus(&self.a2f).plus(&ffn).plus(&self.f2a)
    }
}

/// What the parts of a micro-batch take.
pub trait UnitParts {
    /// A micro-batch with what all its parts need.
    type At;

    fn at(&self, batch: &Batch) -> Self::At;

    fn embedding<S: Ledger>(&self, at: &Self::At, ledger: &mut S);

    /// What makes (hidden, embedding) the input of a draft layer.
    fn projection<S: Ledger>(&self, at: &Self::At, ledger: &mut S);

    /// Final norm and LM head.
    fn logits<S: Ledger>(&self, at: &Self::At, rows: f64, ledger: &mut S);

    /// The attention stage of a MoE layer.
    fn attention<S: Ledger>(&self, at: &Self::At, mixer: usize, ledger: &mut S);

    /// A2F or (`back`) F2A of a MoE layer.
    fn hop<S: Ledger>(&self, at: &Self::At, back: bool, ledger: &mut S);

    /// The FFN stage of a MoE layer; gives the seconds of its own exchange into the experts.
    fn ffn<S: Ledger>(&self, at: &Self::At, ledger: &mut S) -> f64;

    /// [`LayerStages::ports`] of a MoE layer.
    fn ports(&self, at: &Self::At) -> [f64; 2];

    /// [`LayerStages::starts`], [`LayerStages::reads`] and [`LayerStages::between`].
    fn fused(&self, at: &Self::At) -> ([f64; 2], f64, f64);

    /// [`LayerStages::hidden`] of a MoE layer.
    fn hidden(&self, at: &Self::At, mixer: usize) -> f64;

    /// The stages of a dense layer.
    fn dense<S: Sum>(&self, at: &Self::At, mixer: usize) -> LayerStages<S>;
}

/// The four stages of a MoE layer.
#[inline]
pub(super) fn stages<P: UnitParts, S: Sum>(parts: &P, at: &P::At, mixer: usize) -> LayerStages<S> {
    let mut s = LayerStages::default();
    parts.attention(at, mixer, &mut s.attention);
    parts.hop(at, false, &mut s.a2f);
    s.inner = parts.ffn(at, &mut s.ffn);
    parts.hop(at, true, &mut s.f2a);
    s.ports = parts.ports(at);
    (s.starts, s.reads, s.between) = parts.fused(at);
    s.hidden = parts.hidden(at, mixer);
    s
}

/// Embedding, final norm and LM head of a micro-batch: attention-pool work once a step.
#[inline]
pub(super) fn ends<P: UnitParts, S: Ledger>(parts: &P, at: &P::At, batch: &Batch, ledger: &mut S) {
    parts.embedding(at, ledger);
    logits(parts, at, batch.logit_rows(), ledger);
}

/// What a draft pass adds to its layer on the attention pool: the projection before it and the logits after.
#[inline]
pub(super) fn draft_ends<P: UnitParts, S: Ledger>(parts: &P, at: &P::At, batch: &Batch, ledger: &mut S) {
    parts.projection(at, ledger);
    logits(parts, at, batch.draft_rows(), ledger);
}

#[inline]
fn logits<P: UnitParts, S: Ledger>(parts: &P, at: &P::At, rows: f64, ledger: &mut S) {
    if rows > 0.0 {
        parts.logits(at, rows, ledger);
    }
}

/// A row of a micro-batch: stages that are alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MicroRow {
    /// Layers of one kind, by its place among the program's kinds.
    Kind(usize),
    Ends,
    Draft,
    /// Draft passes after the first.
    MoreDrafts,
}

/// The rows of one micro-batch: each with its stages, what its attention pool does beside them, and how many there are.
#[inline]
pub fn rows<P: UnitParts, S: Sum>(
    parts: &P,
    program: &Program,
    mtp: u32,
    batch: &Batch,
    mut take: impl FnMut(MicroRow, LayerStages<S>, S, f64),
) {
    let at = parts.at(batch);
    // MoE layers first: the order of a sum is part of its bits.
    for ffn in [Ffn::Experts, Ffn::Dense] {
        for (i, kind) in program.kinds().iter().enumerate().filter(|(_, k)| k.ffn == ffn) {
            let s = match ffn {
                Ffn::Experts => stages(parts, &at, kind.mixer),
                Ffn::Dense => parts.dense(&at, kind.mixer),
            };
            take(MicroRow::Kind(i), s, S::default(), f64::from(kind.layers));
        }
    }
    let mut own = S::default();
    ends(parts, &at, batch, &mut own);
    take(MicroRow::Ends, LayerStages::default(), own, 1.0);
    let mut draft = |row, at: &P::At, batch: &Batch, count| {
        let mut own = S::default();
        draft_ends(parts, at, batch, &mut own);
        let layer = if program.has_experts() { stages(parts, at, DRAFT_MIXER) } else { parts.dense(at, DRAFT_MIXER) };
        take(row, layer, own, count);
    };
    let [(_, first), (rest, more)] = draft::passes(mtp, batch);
    if first > 0.0 {
        draft(MicroRow::Draft, &at, batch, first);
    }
    if more > 0.0 {
        draft(MicroRow::MoreDrafts, &parts.at(&rest), &rest, more);
    }
}
