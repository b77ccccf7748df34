//! Multi-token prediction: what the draft passes of a step cost beside the wider verification.
//!
//! A step of n draft tokens verifies 1 + n tokens a sequence and then drafts the next n one after
//! another. Each draft pass is the MTP module: a projection of (hidden, embedding) to the hidden
//! size, one layer of the model's last kind, and the shared LM head (DeepSeek-V3, arXiv 2412.19437
//! section 2.2, whose one module is applied n times as SGLang and vLLM do). The first pass takes
//! all verified tokens and the prompt tokens of the step (its KV must know them); the others one
//! token a sequence. Limits: a model without an MTP module is priced as if it had one of its own
//! last layer; sampling and tree drafts are left out.

use super::Batch;
use super::library::Library;
use crate::spec::{Model, Serving};

/// Layers that keep KV: the model's, and the MTP module's one.
pub(crate) fn kv_layers(model: &Model, serving: &Serving) -> f64 {
    f64::from(model.layers) + f64::from(u32::from(serving.mtp > 0))
}

impl Library {
    /// Layers whose KV a P/D deployment ships: the MTP module drafts over the prompt as well.
    pub(crate) fn kv_layers(&self) -> f64 {
        kv_layers(&self.model, &self.serving)
    }

    /// KV bytes of a sequence of `tokens` in all those layers, on all ranks that share its heads.
    pub fn kv_bytes(&self, tokens: f64) -> f64 {
        self.program.state_bytes(tokens, self.formats.kv, 1) * self.kv_layers() / f64::from(self.model.layers)
    }
}

/// The draft passes of a step: what each carries, and how many of it.
pub(crate) fn passes(mtp: u32, batch: &Batch) -> [(Batch, f64); 2] {
    let rest = Batch::decode(batch.decode, batch.context, 1.0);
    let more = if batch.decode > 0.0 { f64::from(mtp.saturating_sub(1)) } else { 0.0 };
    [(*batch, if mtp > 0 { 1.0 } else { 0.0 }), (rest, more)]
}
