//! What a plan leaves open: batch, chunk budget and micro-batches with the highest rate.
//!
//! Every choice lies on a lattice (batches x chunk budgets). The rate over it is smooth but for steps
//! of the tables and of memory, so it is not priced everywhere but climbed (`math::climb`). The exhaustive
//! search of the same lattice is its twin in the tests.
//!
//! Limit: the best of its lattice by rate alone; limits on latency are the search's business.

use super::aggregated;
use super::steady_state::{Binding, Load, SteadyState};
use super::step_engine::StepEngine;
use crate::math::climb::{Climb, spread};

/// Which of two points serves more; one that stands beats one that does not.
pub fn better(a: &SteadyState, b: &SteadyState) -> bool {
    match (a.stands(), b.stands()) {
        (true, false) => true,
        (false, true) => false,
        _ => a.requests_per_s > b.requests_per_s,
    }
}

/// Micro-batches tried when the user leaves them open.
pub fn microbatches(m: Option<u32>) -> Vec<u32> {
    m.map_or_else(|| (1..=4).collect(), |m| vec![m])
}

/// Batches tried when the user leaves the batch open: dense at the small end, then by eighths.
pub(crate) fn batch_grid(most: f64) -> Vec<u32> {
    let mut grid = Vec::new();
    let mut b: u32 = 1;
    let most = most.min(4096.0);
    while f64::from(b) <= most {
        grid.push(b);
        b += match b {
            0..16 => 1,
            16..32 => 2,
            32..64 => 4,
            64..128 => 8,
            128..256 => 16,
            256..512 => 32,
            _ => 128,
        };
    }
    grid
}

/// Most sequences per rank that any pool of the step engine holds with `tokens` in flight.
pub fn most_sequences(s: &StepEngine, tokens: f64) -> f64 {
    s.memory().iter().map(|m| m.sequences(tokens)).fold(f64::INFINITY, f64::min)
}

/// The steps from one that lets prompts in to the next (`cadence`): how many whole prompts a step's budget is worth.
#[derive(Clone, Copy, Debug)]
pub struct Cycle {
    pub osl: f64,
    pub interval: u32,
}

impl Cycle {
    /// Whether a budget for so many prompts is worth trying beside a batch: with half as many or fewer in a cycle, some of
    /// its room would stay empty. Where a cycle gathers few, three more than the mean come often enough.
    pub(crate) fn brings(&self, prompts: f64, batch: u32) -> bool {
        let gathered = f64::from(batch) * f64::from(self.interval) / (self.osl - 1.0).max(1e-9);
        let more = if self.interval > 1 { 3.0 } else { 0.0 };
        2.0 * gathered + more > prompts
    }

    /// Whether a search tries a budget for so many prompts of so many tokens in all: 8 a step of the cycle, and far more
    /// tokens than servers are given by default, since memory is charged for them.
    pub(crate) fn holds(&self, prompts: f64, tokens: f64) -> bool {
        let most_tokens = if self.interval > 1 { 131_072.0 } else { 32_768.0 };
        prompts <= 8.0 * f64::from(self.interval) && tokens <= most_tokens
    }
}

/// The chunk budget that a batch's own prompts just fill in every step, with 3 % to spare: a place to judge a layout by,
/// which refinement moves on from. `progress`: tokens that a decode step adds to a sequence. None where nothing decodes.
pub fn filled_budget(load: &Load, batch: u32, per_decode: f64, progress: f64) -> Option<u32> {
    let prompts = f64::from(batch) * load.isl * progress / (load.osl - 1.0);
    let budget = 1.03 * prompts + f64::from(batch) * per_decode;
    (load.osl > 1.0 && budget < 4e9).then_some(budget.ceil() as u32)
}

/// Chunk budgets worth trying for a batch: the prompt in 1, 2, 3, 4, 6, 8, 12, 16, 32 pieces beside the decode tokens,
/// and several prompts in one step where as many come in `interval` steps.
pub fn chunk_grid(load: &Load, batch: u32, per_decode: f64, interval: u32) -> Vec<u32> {
    let mut grid: Vec<u32> = [1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 32.0]
        .iter()
        .map(|n| (load.isl / n).ceil().max(1.0))
        .filter(|piece| *piece >= 16.0 || *piece >= load.isl)
        .map(|piece| (piece + f64::from(batch) * per_decode).min(4e9) as u32)
        .collect();
    let cycle = Cycle { osl: load.osl, interval };
    for n in [2.0, 4.0, 8.0, 16.0, 32.0, 64.0]
        .into_iter()
        .filter(|n| cycle.brings(*n, batch) && cycle.holds(*n, *n * load.isl))
    {
        grid.push((n * load.isl + f64::from(batch) * per_decode) as u32);
    }
    grid.sort_unstable();
    grid.dedup();
    grid
}

/// Batches and chunk budgets a mixed step engine may take; a value that is given stands alone.
pub fn lattice(
    s: &StepEngine,
    load: &Load,
    batch: Option<u32>,
    chunk: Option<u32>,
    interval: u32,
) -> Vec<(u32, Vec<u32>)> {
    let per_decode = 1.0 + f64::from(s.library().serving.mtp);
    let most = most_sequences(s, load.isl.min(8192.0)).max(1.0);
    let batches = batch.map_or_else(|| batch_grid(most), |b| vec![b]);
    let chunks = |b: u32| chunk.map_or_else(|| chunk_grid(load, b, per_decode, interval), |c| vec![c]);
    batches.into_iter().map(|b| (b, chunks(b))).collect()
}

/// What was chosen: which of the step engines, its batch and chunk budget, and the point.
#[derive(Clone, Copy, Debug)]
pub struct Choice {
    pub engine: usize,
    pub batch: u32,
    pub chunk: u32,
    pub point: SteadyState,
}

/// Rows of the lattice, per step engine, that are followed up.
const STARTS: usize = 4;

/// The best of the step engines (one per number of micro-batches), with its batch and chunk budget.
pub fn mixed(engines: &[&StepEngine], load: &Load, batch: Option<u32>, chunk: Option<u32>, replicas: u32) -> Choice {
    mixed_paced(engines, load, batch, chunk, replicas, None)
}

/// The same at the cadence of a plan (none: the server's own).
pub(crate) fn mixed_paced(
    engines: &[&StepEngine],
    load: &Load,
    batch: Option<u32>,
    chunk: Option<u32>,
    replicas: u32,
    interval: Option<u32>,
) -> Choice {
    let intervals: Vec<u32> = engines.iter().map(|s| aggregated::interval(s, interval)).collect();
    let mut rows: Vec<(usize, u32, Vec<u32>)> = Vec::new();
    let mut leads: Vec<usize> = Vec::new();
    for (k, s) in engines.iter().enumerate() {
        let lattice = lattice(s, load, batch, chunk, intervals[k]);
        // Tables have their nodes, and the rate its kinks, at powers of two.
        let kinks = (0..lattice.len()).filter(|&i| lattice[i].0 >= 64 && lattice[i].0.is_power_of_two());
        let mut some: Vec<usize> = spread(lattice.len(), 6).into_iter().chain(kinks).collect();
        some.sort_unstable();
        some.dedup();
        leads.extend(some.into_iter().map(|i| rows.len() + i));
        rows.extend(lattice.into_iter().map(|(b, c)| (k, b, c)));
    }
    let mut climb = Climb::new(rows.iter().map(|r| (r.0, r.2.len())), better);
    climb.run(&leads, STARTS * engines.len().min(2), |i, j| {
        let (k, b, chunks) = &rows[i];
        aggregated::solve_paced(engines[*k], load, f64::from(*b), f64::from(chunks[j]), replicas, intervals[*k])
    });
    climb.best().map_or(
        Choice { engine: 0, batch: 1, chunk: 1, point: SteadyState::unplaced(Binding::Divisibility, 0.0) },
        |(i, j, point)| Choice { engine: rows[i].0, batch: rows[i].1, chunk: rows[i].2[j], point },
    )
}
