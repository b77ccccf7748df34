//! What fills a slot of a plan: layouts with their clocks and what was priced on each, and those worth pairing.
//!
//! Limit: a slot is reduced to rate, latency and ways for KV; what else it has is asked of its engine.

use std::sync::Arc;

use super::candidate_clock::CandidateClock;
use super::kept::Kept;
use super::row::Layout;
use crate::serving::pd::{DecodeSide, PrefillSide};
use crate::spec::Level;

/// Layouts with their clocks and what was priced on each.
pub type Priced<S> = Vec<Slot<S>>;

/// A layout with its clock and what was priced on it.
pub type Slot<S> = (Layout, Arc<CandidateClock>, Vec<S>);

/// Sequences per rank and chunk of a round of prompts, and what it gives.
pub type PromptSide = (u32, u32, PrefillSide);

/// A candidate of one slot, reduced to what pairing needs.
#[derive(Clone)]
pub struct Candidate<S> {
    pub layout: Layout,
    pub clock: Arc<CandidateClock>,
    pub batch: u32,
    pub chunk: u32,
    pub side: S,
}

/// A way of cutting prompts: layout, sequences a rank, chunk.
pub type Cut = (Layout, u32, u32);

/// The prefill slot of a level: every priced side, those worth pairing, the same with prompts cut finer, and what pairs
/// have asked for beside them. Workloads with the same prompts share it.
pub struct Prompts {
    pub all: Priced<PromptSide>,
    pub front: Vec<Candidate<PrefillSide>>,
    pub every: Vec<Candidate<PrefillSide>>,
    /// Prompts cut around those of leaders.
    pub(super) cuts: Kept<Cut, PrefillSide>,
    /// Every way of cutting prompts on layouts of a kind (units) and size.
    pub(super) of_size: Kept<(bool, u32), Vec<Candidate<PrefillSide>>>,
}

/// Workers, or AFD units, in both slots.
pub struct Sides {
    pub prompts: Arc<Prompts>,
    pub per_octave: u32,
    pub decode: Priced<DecodeSide>,
    pub front: Vec<Candidate<DecodeSide>>,
    /// The smaller batches of each on the front, and its own.
    pub(super) below: Vec<Vec<DecodeSide>>,
}

/// GPUs of a slot, and requests per second that it gives.
#[derive(Clone, Copy, Debug)]
pub struct Offer {
    pub gpus: u32,
    pub rate: f64,
}

/// What fills (prefill, decode) in `pd` and in `pd+afd`: 0 workers, 1 units.
pub(crate) fn ways(level: Level) -> &'static [[usize; 2]] {
    if level == Level::Pd { &[[0, 0]] } else { &[[0, 1], [1, 0], [1, 1]] }
}
