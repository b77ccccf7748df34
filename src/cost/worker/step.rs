//! The parts of a worker's step in their order: told once, whoever tells their seconds.
//!
//! ```text
//! step   embedding + every kind of layer + logits + each draft pass (projection + one layer + logits)
//! layer  mixer + dense FFN, or a MoE layer: mixer + its fastest lane, or two half-batches of both in turn
//! stage  step x ceil(L/pp)/L + hop: the slowest of pp pipeline stages of L layers
//! ```
//!
//! [`StepParts`] says what a part takes. `Worker` prices it operator by operator, `WorkerLines` reads it from lines that are
//! priced so: an operator that a part gains there counts in both. `lane` does the same for a MoE layer after its mixer.
//!
//! Limit: stages of PP have equal layers up to rounding; a step that skips layers has no place here.

use crate::cost::library::Library;
use crate::cost::program::{DRAFT_MIXER, Ffn, LayerKind};
use crate::cost::{Batch, draft};

/// What the parts of a step take.
pub(super) trait StepParts {
    /// A batch with what all its parts need.
    type At;

    fn at(&self, batch: &Batch) -> Self::At;

    fn embedding(&mut self, at: &Self::At);

    /// Layers of one kind. `may_halve`: whether MoE layers may run as two half-batches.
    fn layers(&mut self, at: &Self::At, kind: LayerKind, count: f64, may_halve: bool);

    /// What makes (hidden, embedding) the input of a draft layer.
    fn projection(&mut self, at: &Self::At, count: f64);

    /// Final norm and LM head.
    fn logits(&mut self, at: &Self::At, rows: f64, count: f64);
}

/// The order of the parts of a model's steps.
#[derive(Clone, Debug)]
pub(super) struct Order {
    kinds: Vec<LayerKind>,
    /// The layer of an MTP module.
    draft: LayerKind,
    mtp: u32,
    /// Pipeline stages, and the share of the layers on the slowest.
    stages: u32,
    share: f64,
}

impl Order {
    pub(crate) fn new(lib: &Library, stages: u32) -> Order {
        let layers = lib.model.layers;
        let ffn = if lib.model.moe.is_some() { Ffn::Experts } else { Ffn::Dense };
        Order {
            kinds: lib.program.kinds().to_vec(),
            draft: LayerKind { mixer: DRAFT_MIXER, ffn, layers: 1 },
            mtp: lib.serving.mtp,
            stages,
            share: f64::from(layers.div_ceil(stages.max(1))) / f64::from(layers),
        }
    }

    /// One step through all layers.
    #[inline]
    pub(crate) fn step<P: StepParts>(&self, parts: &mut P, batch: &Batch) {
        let at = parts.at(batch);
        parts.embedding(&at);
        for kind in &self.kinds {
            parts.layers(&at, *kind, f64::from(kind.layers), true);
        }
        logits(parts, &at, batch.logit_rows(), 1.0);
        let [(_, first), (rest, more)] = draft::passes(self.mtp, batch);
        if first > 0.0 {
            self.draft_pass(parts, &at, batch, first);
        }
        if more > 0.0 {
            let at = parts.at(&rest);
            self.draft_pass(parts, &at, &rest, more);
        }
    }

    /// The layer of a draft pass runs whole.
    #[inline]
    fn draft_pass<P: StepParts>(&self, parts: &mut P, at: &P::At, batch: &Batch, count: f64) {
        parts.projection(at, count);
        parts.layers(at, self.draft, count, false);
        logits(parts, at, batch.draft_rows(), count);
    }

    /// The share of a step on the slowest pipeline stage; none: there is one stage.
    pub(crate) fn cut(&self) -> Option<f64> {
        (self.stages > 1).then_some(self.share)
    }
}

fn logits<P: StepParts>(parts: &mut P, at: &P::At, rows: f64, count: f64) {
    if rows > 0.0 {
        parts.logits(at, rows, count);
    }
}

/// Whether a MoE layer of this batch can be halved.
#[inline]
pub(super) fn splits(batch: &Batch) -> bool {
    batch.decode >= 2.0 || batch.has_prefill()
}
