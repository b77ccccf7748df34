//! A model's layer program, priced: one step on one worker or one AFD unit, and the memory it takes.
//!
//! A step is described by what one attention rank carries ([`Batch`]); every operator reads its
//! time from a compiled surface and hands it to a [`Ledger`] together with how well it is known.
//! Sources: physics.md sections 1, 3 and 4. Limits: identical sequences within a rank (means).

pub mod afd;
pub mod attention;
pub mod balance;
pub mod chain;
pub mod draft;
mod ends;
pub mod family;
pub mod ffn;
pub mod ledger;
pub mod library;
pub mod memory;
pub mod overlap;
pub mod piecewise;
pub mod ports;
pub mod program;
pub mod published;
pub mod running;
pub mod softmax;
pub mod what_if;
pub mod worker;

pub use afd::{AfdLines, AfdUnit, LayerStages};
pub use attention::Lengths;
pub use ledger::{Detail, Entry, Ledger, Op, Total};
pub use library::Library;
pub use memory::{Item, Memory, MemoryItem};
pub use piecewise::Tabulated;
pub use ports::{PortTime, StepPorts};
pub use program::Program;
pub use worker::{Worker, WorkerLines};

/// What one attention rank carries in one step. Counts may be fractional: they are means.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Batch {
    /// Decoding sequences.
    pub decode: f64,
    /// Tokens already in KV of each decoding sequence.
    pub context: f64,
    /// Tokens that each decoding sequence feeds (1 + draft tokens).
    pub per_decode: f64,
    /// Sequences with prompt tokens in this step.
    pub sequences: f64,
    /// New prompt tokens of each of those.
    pub new: f64,
    /// Tokens in KV before the new ones.
    pub past: f64,
    /// Share of the attention ranks that carry the prompt tokens in this step (1: all of them).
    pub busy: f64,
    /// Prompts that end in this step and so need logits.
    pub ending: f64,
    /// Share of the decoding sequences that the mean rank has fewer than this, the fullest one (0: all alike).
    pub slack: f64,
}

impl Batch {
    pub fn decode(batch: f64, context: f64, per_decode: f64) -> Batch {
        Batch { decode: batch, context, per_decode, busy: 1.0, ..Batch::default() }
    }

    pub fn prefill(sequences: f64, new: f64, past: f64) -> Batch {
        Batch { sequences, new, past, per_decode: 1.0, busy: 1.0, ending: sequences, ..Batch::default() }
    }

    /// Tokens of a rank that carries a prompt chunk.
    pub(crate) fn tokens(&self) -> f64 {
        self.decode * self.per_decode + self.sequences * self.new
    }

    /// The same of one of the `cp` ranks that share its new prompt tokens.
    pub(crate) fn rank_tokens(&self, cp: f64) -> f64 {
        self.decode * self.per_decode + self.sequences * self.new / cp
    }

    /// Mean tokens over all ranks: what the experts see, divided by the ranks.
    pub(crate) fn mean_tokens(&self) -> f64 {
        self.decode * self.per_decode * (1.0 - self.slack) + self.busy * self.sequences * self.new
    }

    /// Rows of logits: every token that is verified, and the last one of a prompt.
    pub(crate) fn logit_rows(&self) -> f64 {
        self.decode * self.per_decode + self.ending
    }

    /// The same of a draft pass: one a sequence, its last accepted token's.
    pub(crate) fn draft_rows(&self) -> f64 {
        self.decode + self.ending
    }

    pub(crate) fn has_prefill(&self) -> bool {
        self.sequences > 0.0 && self.new > 0.0
    }

    /// One of `parts` equal micro-batches: decode sequences divided, prompts cut into consecutive pieces.
    pub fn part(&self, parts: u32) -> Batch {
        let n = f64::from(parts.max(1));
        let mut b = self.scaled(1.0 / n);
        if self.has_prefill() {
            // Consecutive pieces of the same prompts rather than fractions of a sequence.
            b.sequences = self.sequences;
            b.new = self.new / n;
            b.past = self.past + self.new * (n - 1.0) / (2.0 * n);
        }
        b
    }

    /// The same batch with every count scaled: one of several equal micro-batches.
    pub(crate) fn scaled(&self, share: f64) -> Batch {
        Batch { decode: self.decode * share, sequences: self.sequences * share, ending: self.ending * share, ..*self }
    }
}
