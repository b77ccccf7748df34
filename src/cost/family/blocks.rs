//! Mixers whose whole block may have been measured: its rows stand alone, else projections stand beside the kernels.
//!
//! Rows of prefill alone are not used. Limit: with rows of decode alone, a step that carries both pays for the projections
//! of its decode tokens twice.

use std::sync::Arc;

use crate::cost::ledger::Op;
use crate::cost::program::{MixerRank, Surfaces};
use crate::error::Result;
use crate::kernels::ops::Source;
use crate::kernels::{Reading, Surface};
use crate::spec::OwnMixer;

/// What stands beside the kernels. Pairs are [prefill, decode].
pub(super) struct Projections {
    pub inward: Vec<[Arc<Surface>; 2]>,
    pub outward: Vec<[Arc<Surface>; 2]>,
    pub memory: [Surface; 2],
    /// Bytes of each token.
    pub rope_bytes: f64,
}

/// Kernels of a rank, [prefill, decode], and whether each is a whole block.
pub(super) struct Kernels {
    kernels: [Arc<Surface>; 2],
    whole: [bool; 2],
}

impl Kernels {
    /// `block` and `part` make the whole block, and what stands between the projections; true: of decode.
    pub fn new(
        from: &dyn Surfaces,
        own: &OwnMixer,
        tp: u32,
        block: &dyn Fn(&Source, bool) -> Result<Surface>,
        part: &dyn Fn(&Source, bool) -> Surface,
    ) -> Result<Kernels> {
        let make = |decode, allowed| -> Result<(Arc<Surface>, bool)> {
            let whole = if allowed { from.block(own, tp, decode, &|s| block(s, decode))? } else { None };
            Ok(match whole {
                Some(surface) => (surface, true),
                None => (from.own(own, tp, decode, &|s| Ok(part(s, decode)))?, false),
            })
        };
        let decode = make(true, true)?;
        let prefill = make(false, decode.1)?;
        Ok(Kernels { kernels: [prefill.0, decode.0], whole: [prefill.1, decode.1] })
    }

    /// The rank, `projections` made where they are needed.
    pub fn rank(self, cp: u32, projections: impl FnOnce() -> Result<Projections>) -> Result<Arc<dyn MixerRank>> {
        let Kernels { kernels, whole } = self;
        let projections = if whole == [true; 2] { None } else { Some(projections()?) };
        Ok(Arc::new(Rank { projections, kernels, whole, cp: f64::from(cp) }))
    }
}

struct Rank {
    projections: Option<Projections>,
    kernels: [Arc<Surface>; 2],
    whole: [bool; 2],
    cp: f64,
}

impl Rank {
    /// What stands beside the kernels of a phase, and its number.
    fn beside(&self, prefill: bool) -> Option<(&Projections, usize)> {
        let mode = usize::from(!prefill);
        self.projections.as_ref().filter(|_| !self.whole[mode]).map(|p| (p, mode))
    }
}

impl MixerRank for Rank {
    fn before(&self, tokens: f64, prefill: bool, take: &mut dyn FnMut(Op, Reading)) {
        let Some((p, mode)) = self.beside(prefill) else { return };
        for gemm in &p.inward {
            take(Op::Qkv, gemm[mode].at(&[tokens]));
        }
        take(Op::Qkv, p.memory[mode].at(&[tokens * p.rope_bytes]));
    }

    fn after(&self, tokens: f64, prefill: bool, take: &mut dyn FnMut(Op, Reading)) {
        let Some((p, mode)) = self.beside(prefill) else { return };
        for gemm in &p.outward {
            take(Op::AttentionOut, gemm[mode].at(&[tokens]));
        }
    }

    fn decode(&self, rows: f64, context: f64) -> Reading {
        self.kernels[1].at(&[rows, context.max(1.0)])
    }

    fn prompt(&self, sequences: f64, new: f64, past: f64) -> Reading {
        let own = new / self.cp;
        self.kernels[0].at(&[sequences, own, past + (new - own) / 2.0])
    }

    fn measured(&self) -> [bool; 2] {
        [self.kernels[0].is_measured(), self.kernels[1].is_measured()]
    }
}
