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
use crate::kernels::ops::running;
use crate::kernels::{Reading, Surface};
use crate::spec::{Dtype, LayerMixer, Model, OwnMixer, Quant, Running};

/// A layer with a running state.
#[derive(Clone, Debug)]
pub struct RunningState {
    mixer: OwnMixer,
    sizes: Running,
}

impl RunningState {
    pub(crate) fn new(mixer: &OwnMixer) -> RunningState {
        RunningState { mixer: mixer.clone(), sizes: mixer.running().unwrap_or_default() }
    }
}

impl Mixer for RunningState {
    fn name(&self) -> &'static str {
        self.mixer.name()
    }

    fn state(&self, _: Dtype) -> State {
        State { per_token: 0.0, window: 0.0, per_sequence: self.sizes.bytes() }
    }

    fn shards(&self, tp: u32) -> u32 {
        self.mixer.shards(tp)
    }

    fn weight_bytes(&self, model: &Model, quant: &Quant, tp: u32) -> f64 {
        model.mixer_weight_bytes_per_rank(&LayerMixer::Own(self.mixer.clone()), quant, tp)
    }

    fn on_rank(&self, from: &dyn Surfaces, tp: u32, cp: u32) -> Result<Arc<dyn MixerRank>> {
        let ranks = self.mixer.shards(tp);
        let format = from.model().mixer_format(&LayerMixer::Own(self.mixer.clone()), from.quant());
        let part = |columns: f64| (columns / f64::from(ranks)).ceil() as u32;
        let (hidden, own) = (from.model().hidden, part(self.sizes.columns_out));
        let pair = |n, k| -> Result<[Arc<Surface>; 2]> {
            Ok([from.gemm(false, format, n, k)?, from.gemm(true, format, n, k)?])
        };
        let kernel =
            |decode| from.own(&self.mixer, ranks, decode, &|source| running(source, &self.sizes, ranks, decode));
        Ok(Arc::new(RunningRank {
            inward: pair(part(self.sizes.columns_in), hidden)?,
            outward: pair(hidden, own)?,
            kernels: [kernel(false)?, kernel(true)?],
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
