//! What a layout gives under any limits, read from the points priced on its grid.
//!
//! Points of one cadence whose steps carry about as many prompt tokens form a chain as the batch rises, those of one batch
//! as the budget does. Between two neighbours of a chain the gain is taken as linear in the excess over the limits, so
//! that a layout whose best batch or budget lies between two of the grid is not judged by the smaller one:
//!
//! ```text
//! g = g_a + (g_b - g_a) (1 - e_a) / (e_b - e_a)      e_a <= 1 < e_b, g_a < g_b
//! ```
//!
//! What lies a little over the limits is brought within them by a smaller batch, a smaller budget or another cadence, at
//! a price: the prospect of a mark at excess e is g / e^2 (with g / e the same is found, a tenth later).
//!
//! Limit: both judge where to look further, never what is said, and are no bounds (`constants::finer::FINER`); what the search
//! loses by them is held in tests/rust/fair.rs.

use super::aim::{Aim, order};
use super::constants::marks::{ALIKE, NEAR};
use super::leaders::Tiers;
use super::row::Row;
use crate::serving::steady_state;
use crate::spec::Slo;

const NONE: u32 = u32::MAX;

/// Rate and latencies of a row; a row that does not stand has no rate.
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    pub rate: f64,
    pub latencies: [f64; 2],
    batch: u32,
    /// The next of its chains, in batch and in budget.
    next: [u32; 2],
}

impl Mark {
    pub(super) fn of(r: &Row) -> Mark {
        let p = &r.point;
        let rate = if p.stands() { p.requests_per_s } else { f64::NEG_INFINITY };
        Mark { rate, latencies: [p.ttft_s, p.tpot_s], batch: r.main.batch, next: [NONE; 2] }
    }

    pub(crate) fn stands(&self) -> bool {
        self.rate > f64::NEG_INFINITY
    }

    pub(crate) fn excess(&self, slo: &Slo) -> f64 {
        steady_state::excess(self.latencies, slo)
    }

    /// The prospect of a standing mark at so much over the limits; nothing far from them.
    fn prospect(&self, excess: f64, aim: &Aim) -> f64 {
        if excess <= NEAR { self.gain(aim) / excess.max(1.0).powi(2) } else { 0.0 }
    }

    /// As [`Aim::gain`] of its row.
    pub(crate) fn gain(&self, aim: &Aim) -> f64 {
        aim.objective.gain_of(self.rate, self.latencies[1])
    }
}

/// The best prospect of marks: what their layout may give within the limits; 0: nothing of it is near them.
pub(crate) fn prospect<'a>(marks: impl Iterator<Item = &'a Mark>, aim: &Aim) -> f64 {
    marks.filter(|m| m.stands()).map(|m| m.prospect(m.excess(&aim.slo), aim)).fold(0.0, f64::max)
}

/// What a layout gives under limits: class and value of its best, as [`Aim::score`] of a row, its prospect, and what
/// its rows reach.
#[derive(Clone, Copy, Debug, Default)]
pub struct Judged {
    pub score: (u8, f64),
    pub prospect: f64,
    pub tiers: Tiers,
}

/// Place of a mark, and its score.
pub type Placed = (usize, (u8, f64));

/// The marks of the rows of one layout, in their order.
#[derive(Debug, Default)]
pub struct Marks(Vec<Mark>);

impl Marks {
    /// `rows`: of one layout, rising in batch, then in cadence, falling in budget; `per_decode`: tokens that a decoding sequence takes of a step.
    pub(crate) fn of(rows: &[Row], per_decode: f64) -> Marks {
        let mut marks: Vec<Mark> = rows.iter().map(Mark::of).collect();
        let carried = |r: &Row| (f64::from(r.main.chunk) - f64::from(r.main.batch) * per_decode).max(1.0);
        let mut blocks = rows.chunk_by(|a, b| a.main.batch == b.main.batch).peekable();
        let mut start = 0;
        while let Some(block) = blocks.next() {
            let after = start + block.len();
            for (i, r) in block.iter().enumerate() {
                let own = carried(r);
                let apart = |b: &Row| (carried(b) / own).ln().abs();
                let alike = blocks.peek().into_iter().flat_map(|b| b.iter().enumerate());
                let alike = alike.filter(|(_, b)| b.main.interval == r.main.interval).map(|(k, b)| (k, apart(b)));
                let next = alike.reduce(|a, b| if b.1 < a.1 { b } else { a }).filter(|n| n.1 <= ALIKE.ln());
                let wider = i.checked_sub(1).filter(|k| block[*k].main.interval == r.main.interval);
                marks[start + i].next =
                    [next.map(|(k, _)| after + k), wider.map(|k| start + k)].map(|k| k.map_or(NONE, |k| k as u32));
            }
            start = after;
        }
        Marks(marks)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Mark> {
        self.0.iter()
    }

    /// Of each kind (`of` a place) the mark of the best prospect of each batch, the best batch first.
    pub(crate) fn best_batches(&self, aim: &Aim, of: impl Fn(usize) -> u32) -> Vec<(u32, Vec<Placed>)> {
        let score = |m: &Mark| {
            let excess = m.excess(&aim.slo);
            match m.prospect(excess, aim) {
                _ if !m.stands() => (0, 0.0),
                gain if gain > 0.0 => (2, gain),
                _ => (1, -excess),
            }
        };
        let mut kinds: Vec<(u32, Vec<Placed>)> = Vec::new();
        let mut start = 0;
        for block in self.0.chunk_by(|a, b| a.batch == b.batch) {
            for (i, m) in (start..).zip(block) {
                let (kind, placed) = (of(i), (i, score(m)));
                let Some((_, best)) = kinds.iter_mut().find(|(k, _)| *k == kind) else {
                    kinds.push((kind, vec![placed]));
                    continue;
                };
                match best.last_mut().filter(|(place, _)| *place >= start) {
                    Some(last) if order(&placed.1, &last.1).is_ge() => *last = placed,
                    Some(_) => {}
                    None => best.push(placed),
                }
            }
            start += block.len();
        }
        // Stable: equals keep their order.
        kinds.iter_mut().for_each(|(_, best)| best.sort_by(|a, b| order(&b.1, &a.1)));
        kinds
    }

    /// Neighbours of a chain between which the limits are met, those first that are taken to give the most there.
    pub(crate) fn links(&self, aim: &Aim) -> Vec<[usize; 2]> {
        let excess = self.excess(aim);
        let mut all: Vec<([usize; 2], f64)> = Vec::new();
        for (i, m) in self.0.iter().enumerate().filter(|(_, m)| m.stands()) {
            let ends = m.next.into_iter().map(|next| ([i, next as usize], self.within(i, next, &excess, aim)));
            all.extend(ends.filter_map(|(at, gain)| Some((at, gain.filter(|gain| *gain > m.gain(aim))?))));
        }
        // Stable: equals keep their order.
        all.sort_by(|a, b| b.1.total_cmp(&a.1));
        all.into_iter().map(|(at, _)| at).collect()
    }

    fn excess(&self, aim: &Aim) -> Vec<f64> {
        self.0.iter().map(|m| m.excess(&aim.slo)).collect()
    }

    /// What is taken to be gained from a standing mark up to the next of a chain; none: it is not within the limits.
    /// `excess`: of every mark.
    fn within(&self, i: usize, next: u32, excess: &[f64], aim: &Aim) -> Option<f64> {
        let (gain, own) = (self.0[i].gain(aim), excess[i]);
        if own > 1.0 {
            return None;
        }
        let Some(n) = self.0.get(next as usize).filter(|n| n.stands()) else { return Some(gain) };
        let (more, beyond) = (n.gain(aim), excess[next as usize]);
        let between = beyond > 1.0 && more > gain;
        Some(if between { gain + (more - gain) * (1.0 - own) / (beyond - own) } else { gain })
    }

    /// What the layout gives under these limits.
    pub fn judge(&self, aim: &Aim) -> Judged {
        let (mut best, mut prospect, mut tiers) = (f64::NEG_INFINITY, 0.0_f64, Tiers::default());
        let excess = self.excess(aim);
        for (i, m) in self.0.iter().enumerate().filter(|(_, m)| m.stands()) {
            tiers.add(m.gain(aim), excess[i]);
            prospect = prospect.max(m.prospect(excess[i], aim));
            best = m.next.into_iter().filter_map(|next| self.within(i, next, &excess, aim)).fold(best, f64::max);
        }
        let score = if best > f64::NEG_INFINITY { (2, best) } else { tiers.score() };
        Judged { score, prospect, tiers }
    }
}
