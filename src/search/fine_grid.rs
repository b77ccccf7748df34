//! The fine grid of chunks: pieces that a prompt is cut into, and prompts that a step carries whole.
//!
//! Limit: a list by mean lengths; chunks that only suit some of the prompts are not tried.

use crate::serving::choose::Cycle;

/// Batch, chunk and cadence of a mixed step.
pub type At = [u32; 3];

/// Pieces that a prompt may be cut into, finely, and prompts that a step may carry.
pub const PIECES: [f64; 22] = [
    64.0, 48.0, 32.0, 24.0, 20.0, 16.0, 14.0, 12.0, 11.0, 10.0, 9.0, 8.0, 7.0, 6.0, 5.0, 4.0, 3.5, 3.0, 2.5, 2.0, 1.5,
    1.0,
];

const PROMPTS: [f64; 14] = [1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 12.0, 16.0, 24.0, 32.0, 48.0, 64.0];

/// Chunk budgets of the fine grid at a cadence, ascending.
pub fn fine_chunks(isl: f64, osl: f64, batch: u32, per_decode: f64, interval: u32) -> Vec<u32> {
    let beside = f64::from(batch) * per_decode;
    let pieces = PIECES.iter().map(|n| (isl / n).ceil().max(1.0)).filter(|c| *c >= 16.0 || *c >= isl);
    let cycle = Cycle { osl, interval };
    let whole = PROMPTS.iter().filter(|n| cycle.brings(**n, batch) && cycle.holds(**n, **n * isl)).map(|n| n * isl);
    let mut out: Vec<u32> = pieces.chain(whole).map(|c| (c + beside).min(4e9) as u32).collect();
    out.dedup();
    out
}

/// `fine_chunks` of every batch, from one table: what is beside the prompts only shifts it, and the more sequences
/// decode the more whole prompts there are.
#[derive(Clone, Debug)]
pub struct FineGrid {
    /// Tokens of prompts, ascending, and how many whole ones they are (none: a piece of one).
    tokens: Vec<(u32, Option<f64>)>,
    isl: f64,
    osl: f64,
    per_decode: f64,
}

impl FineGrid {
    pub fn new(isl: f64, osl: f64, per_decode: f64) -> FineGrid {
        let pieces = fine_chunks(isl, osl.max(2.0), 0, 0.0, 1).into_iter().map(|c| (c, None));
        let mut tokens: Vec<(u32, Option<f64>)> = pieces.collect();
        tokens.extend(PROMPTS.iter().map(|n| ((n * isl).min(4e9) as u32, Some(*n))));
        tokens.dedup_by_key(|t| t.0);
        FineGrid { tokens, isl, osl, per_decode }
    }

    /// Number of chunks beside `batch` at a cadence.
    pub fn width(&self, batch: u32, interval: u32) -> usize {
        let cycle = Cycle { osl: self.osl, interval };
        let stands = |n: f64| cycle.brings(n, batch) && cycle.holds(n, n * self.isl);
        self.tokens.partition_point(|(_, n)| n.is_none_or(stands))
    }

    pub fn chunk(&self, batch: u32, i: usize) -> u32 {
        (f64::from(self.tokens[i].0) + f64::from(batch) * self.per_decode).min(4e9) as u32
    }
}
