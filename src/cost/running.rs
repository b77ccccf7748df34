//! Layers that keep a running state as mixers: gated DeltaNet, Kimi delta attention, Mamba-2.
//!
//! A projection in, a convolution and the rule over the state (`kernels::ops::running`), a gated norm, a projection out.
//! What a sequence keeps is the same whatever its length. Sizes: `spec::mixers`. Limits: a rank beyond the key heads holds
//! copies of what another holds; with context parallelism each rank works on its own tokens, and handing the state from
//! rank to rank is not charged.

use std::sync::Arc;

use super::ledger::Op;
use super::program::{Mixer, MixerRank, State, Surfaces};
use crate::error::Result;
use crate::kernels::{Reading, Surface};
use crate::spec::{Dtype, LayerMixer, Model, Quant};

/// A layer with a running state.
#[derive(Clone, Debug)]
pub struct RunningState {
    mixer: LayerMixer,
}

impl RunningState {
    pub fn new(mixer: &LayerMixer) -> RunningState {
        RunningState { mixer: mixer.clone() }
    }
}

impl Mixer for RunningState {
    fn name(&self) -> &'static str {
        match self.mixer {
            LayerMixer::KimiDelta(_) => "Kimi delta attention",
            LayerMixer::Mamba2(_) => "Mamba-2",
            _ => "gated DeltaNet",
        }
    }

    fn state(&self, _: Dtype) -> State {
        State { per_token: 0.0, window: 0.0, per_sequence: self.mixer.state_bytes() }
    }

    fn shards(&self, tp: u32) -> u32 {
        self.mixer.shards(tp)
    }

    fn weight_bytes(&self, model: &Model, quant: &Quant, tp: u32) -> f64 {
        model.mixer_weight_bytes_per_rank(&self.mixer, quant, tp)
    }

    fn on_rank(&self, from: &dyn Surfaces, tp: u32, cp: u32) -> Result<Arc<dyn MixerRank>> {
        let ranks = self.mixer.shards(tp);
        let format = from.model().mixer_format(&self.mixer, from.quant());
        let part = |columns: f64| (columns / f64::from(ranks)).ceil() as u32;
        let sizes = self.mixer.running();
        let (inward, outward) = sizes.map_or((1.0, 1.0), |r| (r.columns_in, r.columns_out));
        let (hidden, own) = (from.model().hidden, part(outward));
        let pair = |n, k| -> Result<[Arc<Surface>; 2]> {
            Ok([from.gemm(false, format, n, k)?, from.gemm(true, format, n, k)?])
        };
        Ok(Arc::new(RunningRank {
            inward: pair(part(inward), hidden)?,
            outward: pair(hidden, own)?,
            kernels: [from.running(&self.mixer, ranks, false)?, from.running(&self.mixer, ranks, true)?],
            memory: [from.memory(false), from.memory(true)],
            // The rule's output and its gate in, the normed product out (BF16).
            gated_norm: f64::from(own) * 6.0,
            cp: f64::from(cp),
        }))
    }
}

/// Pairs are [prefill, decode].
struct RunningRank {
    inward: [Arc<Surface>; 2],
    outward: [Arc<Surface>; 2],
    kernels: [Arc<Surface>; 2],
    memory: [Surface; 2],
    /// Bytes of each token.
    gated_norm: f64,
    cp: f64,
}

impl MixerRank for RunningRank {
    fn before(&self, tokens: f64, prefill: bool, take: &mut dyn FnMut(Op, Reading)) {
        take(Op::Qkv, self.inward[usize::from(!prefill)].at(&[tokens]));
    }

    fn after(&self, tokens: f64, prefill: bool, take: &mut dyn FnMut(Op, Reading)) {
        let mode = usize::from(!prefill);
        take(Op::AttentionOut, self.memory[mode].at(&[tokens * self.gated_norm]));
        take(Op::AttentionOut, self.outward[mode].at(&[tokens]));
    }

    fn decode(&self, rows: f64, _: f64) -> Reading {
        self.kernels[1].at(&[rows])
    }

    fn prompt(&self, sequences: f64, new: f64, _: f64) -> Reading {
        self.kernels[0].at(&[sequences, new / self.cp])
    }

    fn measured(&self) -> [bool; 2] {
        [self.kernels[0].is_measured(), self.kernels[1].is_measured()]
    }
}
