//! Mixers that follow one another without an FFN between them: one layer (Nemotron-H has Mamba-2 and then attention).
//!
//! Bytes add up. What one keeps of each token and another of a sequence stand beside one another; with context parallelism
//! or a window the tokens kept are those of the one that keeps any.
//!
//! Limit: mixers of a chain run one after another, and nothing of one hides behind the next.

use std::sync::Arc;

use super::ledger::Op;
use super::program::{Mixer, MixerRank, State, Surfaces};
use crate::error::Result;
use crate::kernels::{Evidence, Reading, Surface};
use crate::spec::{Dtype, Model, Quant};

/// Mixers in their order.
#[derive(Debug)]
pub struct Chain {
    mixers: Vec<Arc<dyn Mixer>>,
}

impl Chain {
    pub(crate) fn new(mixers: Vec<Arc<dyn Mixer>>) -> Chain {
        Chain { mixers }
    }

    /// The one that keeps something of each token: its pieces are those that are counted.
    fn keeper(&self) -> Option<&Arc<dyn Mixer>> {
        self.mixers.iter().find(|m| m.state(Dtype::Bf16).per_token > 0.0).or(self.mixers.first())
    }
}

impl Mixer for Chain {
    fn name(&self) -> &'static str {
        "a running state and attention"
    }

    fn state(&self, kv: Dtype) -> State {
        let all: Vec<State> = self.mixers.iter().map(|m| m.state(kv)).collect();
        let kept = |s: &State| if s.per_token > 0.0 { s.window } else { 0.0 };
        State {
            per_token: all.iter().map(|s| s.per_token).sum(),
            window: all.iter().map(kept).fold(0.0, f64::max),
            per_sequence: all.iter().map(|s| s.per_sequence).sum(),
        }
    }

    fn shards(&self, tp: u32) -> u32 {
        self.keeper().map_or(1, |m| m.shards(tp))
    }

    fn weight_bytes(&self, model: &Model, quant: &Quant, tp: u32) -> f64 {
        self.mixers.iter().map(|m| m.weight_bytes(model, quant, tp)).sum()
    }

    fn on_rank(&self, from: &dyn Surfaces, tp: u32, cp: u32) -> Result<Arc<dyn MixerRank>> {
        let ranks = self.mixers.iter().map(|m| m.on_rank(from, tp, cp)).collect::<Result<_>>()?;
        let memory = [from.memory(false), from.memory(true)];
        Ok(Arc::new(ChainRank { ranks, memory, norm: f64::from(from.model().hidden) * 8.0 }))
    }
}

struct ChainRank {
    ranks: Vec<Arc<dyn MixerRank>>,
    /// Elementwise work, [prefill, decode].
    memory: [Surface; 2],
    /// Bytes of each token in the norm between two mixers.
    norm: f64,
}

/// The sum, known as well as its larger part.
fn sum(readings: impl Iterator<Item = Reading>) -> Reading {
    let (mut total, mut largest) = (Reading { seconds: 0.0, evidence: Evidence::Measured }, 0.0);
    for r in readings {
        total.seconds += r.seconds;
        if r.seconds > largest {
            (largest, total.evidence) = (r.seconds, r.evidence);
        }
    }
    total
}

impl MixerRank for ChainRank {
    fn before(&self, tokens: f64, prefill: bool, take: &mut dyn FnMut(Op, Reading)) {
        for (i, rank) in self.ranks.iter().enumerate() {
            if i > 0 {
                take(Op::Norm, self.memory[usize::from(!prefill)].at(&[tokens * self.norm]));
            }
            rank.before(tokens, prefill, take);
        }
    }

    fn after(&self, tokens: f64, prefill: bool, take: &mut dyn FnMut(Op, Reading)) {
        self.ranks.iter().for_each(|r| r.after(tokens, prefill, take));
    }

    fn decode(&self, rows: f64, context: f64) -> Reading {
        sum(self.ranks.iter().map(|r| r.decode(rows, context)))
    }

    fn prompt(&self, sequences: f64, new: f64, past: f64) -> Reading {
        sum(self.ranks.iter().map(|r| r.prompt(sequences, new, past)))
    }

    fn measured(&self) -> [bool; 2] {
        let both = |i: usize| self.ranks.iter().all(|r| r.measured()[i]);
        [both(0), both(1)]
    }
}
