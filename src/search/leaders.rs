//! The rows that a level may be led by, and the one that leads it.
//!
//! A scan is off by a few parts in a thousand, in its rates and against its limits. What may lead is therefore
//! what comes near the best of three tiers ([`Tiers`]): within limits [`NEAR`] wider, within the limits, and within
//! limits as much narrower, whose best certainly keeps them. Of these candidates the engine prices those that a
//! scan puts within [`CLOSE`] of the best, and then all that still claim more than the exact best. `explore` settles
//! a level and `regimes` a cell by this one rule and find the same leader. Limit: a plan that the scan sees more
//! than twice [`NEAR`] below the best of every tier is not looked at again.

use rayon::prelude::*;

use super::aim::Aim;
use super::blocks::{self, BLOCK};
use super::constants::scan::{CLOSE, MOST, NEAR, ROUNDS};
use super::row::Row;
use crate::control::Control;
use crate::error::Result;
use crate::serving::SteadyState;

/// The head of a list of rows: what it is led by, and which scanned ones may still lead it.
pub struct Head {
    best_exact: f64,
    best: f64,
    /// Value and index of the scanned rows near the best, best first.
    pub scanned: Vec<(f64, usize)>,
}

impl Default for Head {
    fn default() -> Head {
        Head { best_exact: f64::NEG_INFINITY, best: f64::NEG_INFINITY, scanned: Vec::new() }
    }
}

impl Head {
    /// Of `value`, more is better; scanned rows as near as `near` to the best.
    pub(crate) fn of(rows: &[Row], near: f64, value: impl Fn(&Row) -> Option<f64> + Sync) -> Head {
        let of_block = |(k, rows): (usize, &[Row])| {
            let mut head = Head::default();
            for (i, r) in rows.iter().enumerate() {
                let Some(v) = value(r) else { continue };
                head.best = head.best.max(v);
                if r.scanned {
                    if v >= below(head.best, near) {
                        head.scanned.push((v, k * BLOCK + i));
                    }
                } else {
                    head.best_exact = head.best_exact.max(v);
                }
            }
            head
        };
        let blocks: Vec<Head> = blocks::by_block(rows, of_block);
        let mut head = blocks.into_iter().fold(Head::default(), |mut head, b| {
            head.best = head.best.max(b.best);
            head.best_exact = head.best_exact.max(b.best_exact);
            head.scanned.extend(b.scanned);
            head
        });
        let least = below(head.best, near);
        head.scanned.retain(|(v, _)| *v >= least);
        head.scanned.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        head
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.best == f64::NEG_INFINITY
    }

    /// Rows to price next: at first all close to the best, then only what says more than the exact best.
    pub(crate) fn next(self, first: bool) -> impl Iterator<Item = usize> {
        let least = if first { below(self.best, CLOSE) } else { self.best_exact };
        self.scanned.into_iter().filter(move |(v, _)| *v > least || first && *v >= least).take(MOST).map(|(_, i)| i)
    }
}

/// What is `near` below the best, whatever its sign.
pub(crate) fn below(best: f64, near: f64) -> f64 {
    best - near * best.abs()
}

/// The best gains within wider limits, within the limits and within narrower ones; the least excess over them.
#[derive(Clone, Copy, Debug)]
pub struct Tiers {
    best: [f64; 3],
    nearest: f64,
}

/// Excess over the limits up to which a row is of each tier.
pub const LIMITS: [f64; 3] = [1.0 + NEAR, 1.0, 1.0 - NEAR];

impl Default for Tiers {
    fn default() -> Tiers {
        Tiers { best: [f64::NEG_INFINITY; 3], nearest: f64::INFINITY }
    }
}

impl Tiers {
    pub fn of(rows: &[Row], aim: &Aim) -> Tiers {
        let some = |(_, rows): (usize, &[Row])| {
            let mut tiers = Tiers::default();
            for r in rows.iter().filter(|r| r.point.stands()) {
                tiers.add(aim.gain(&r.point), r.point.excess(&aim.slo));
            }
            tiers
        };
        blocks::by_block(rows, some).into_iter().fold(Tiers::default(), Tiers::and)
    }

    pub(crate) fn add(&mut self, gain: f64, excess: f64) {
        for (best, limit) in self.best.iter_mut().zip(LIMITS) {
            if excess <= limit && gain > *best {
                *best = gain;
            }
        }
        self.nearest = self.nearest.min(excess);
    }

    pub fn and(self, other: Tiers) -> Tiers {
        let mut best = self.best;
        best.iter_mut().zip(other.best).for_each(|(a, b)| *a = a.max(b));
        Tiers { best, nearest: self.nearest.min(other.nearest) }
    }

    /// Whether rows that reach `own` have among them one that may lead.
    pub(crate) fn meets(&self, own: &Tiers) -> bool {
        let near = |k: usize| own.best[k] > f64::NEG_INFINITY && own.best[k] >= below(self.best[k], 2.0 * NEAR);
        (0..3).any(near) || !self.is_sure() && own.nearest <= self.nearest * (1.0 + 2.0 * NEAR)
    }

    /// Class and value of the best row, as [`Aim::score`] has them; class 0 if none stands.
    pub(crate) fn score(&self) -> (u8, f64) {
        match self.best[1] {
            best if best > f64::NEG_INFINITY => (2, best),
            _ => (u8::from(self.nearest < f64::INFINITY), -self.nearest),
        }
    }

    /// Whether something certainly keeps the limits.
    pub fn is_sure(&self) -> bool {
        self.best[2] > f64::NEG_INFINITY
    }

    /// Gains below this are near no tier's best.
    pub(crate) fn floor(&self) -> f64 {
        if self.is_sure() { below(self.best[2], 2.0 * NEAR) } else { f64::NEG_INFINITY }
    }

    /// Whether what is at least so far over the limits may lead.
    pub(crate) fn allows(&self, excess: f64) -> bool {
        excess <= LIMITS[0] || !self.is_sure() && excess <= self.nearest * (1.0 + 2.0 * NEAR)
    }

    /// Whether a standing row may lead.
    pub fn takes(&self, gain: f64, excess: f64) -> bool {
        let near = |k: usize| excess <= LIMITS[k] && gain >= below(self.best[k], 2.0 * NEAR);
        (0..3).any(near) || !self.is_sure() && excess <= self.nearest * (1.0 + 2.0 * NEAR)
    }
}

/// Indices of the rows that may lead; where none stands, of the one that lacks the least memory.
pub(crate) fn candidates(rows: &[Row], aim: &Aim) -> Vec<usize> {
    let tiers = Tiers::of(rows, aim);
    let takes = |r: &Row| r.point.stands() && tiers.takes(aim.gain(&r.point), r.point.excess(&aim.slo));
    let mut out = blocks::filter(rows, takes);
    if out.is_empty() {
        out.extend((0..rows.len()).min_by(|a, b| rows[*a].point.memory_bytes.total_cmp(&rows[*b].point.memory_bytes)));
    }
    out
}

/// What a row is worth under the limits; looser for what is scanned, whose limits are as uncertain as its rate.
pub(crate) fn gain(r: &Row, aim: &Aim) -> Option<f64> {
    let loose = if r.scanned { 1.0 + NEAR } else { 1.0 };
    let within = r.point.stands() && r.point.excess(&aim.slo) <= loose;
    within.then(|| aim.gain(&r.point))
}

/// The list that a level's leader stands at the head of: gains within the limits, else nearness to them.
pub(crate) fn lead(rows: &[Row], aim: &Aim, near: f64) -> Head {
    let within = Head::of(rows, near, |r| gain(r, aim));
    if within.is_empty() {
        Head::of(rows, near, |r| r.point.stands().then(|| -r.point.excess(&aim.slo)))
    } else {
        within
    }
}

/// Prices what may lead among candidates by `exact` until an exact row does.
pub(crate) fn settle(
    rows: &mut [Row],
    aim: &Aim,
    control: &Control,
    exact: impl Fn(&Row) -> Result<SteadyState> + Sync,
) -> Result<()> {
    for round in 0..ROUNDS {
        let wanted: Vec<usize> = lead(rows, aim, NEAR).next(round == 0).collect();
        if wanted.is_empty() {
            break;
        }
        price(rows, &wanted, control, &exact)?;
    }
    Ok(())
}

/// Puts the engine's points into the rows named.
pub fn price(
    rows: &mut [Row],
    wanted: &[usize],
    control: &Control,
    exact: &(impl Fn(&Row) -> Result<SteadyState> + Sync),
) -> Result<()> {
    let one = |i: &usize| {
        control.check()?;
        exact(&rows[*i])
    };
    let again: Vec<Result<SteadyState>> = crate::pool::install(|| wanted.par_iter().map(one).collect())?;
    for (i, point) in wanted.iter().zip(again) {
        rows[*i] = Row { point: point?, scanned: false, ..rows[*i] };
    }
    Ok(())
}

/// The leader of a level: the best within the limits, at equal gain the faster step, then the sooner first token,
/// then the first; where none keeps them the nearest miss; where none stands the one that lacks the least memory.
/// Of rows as good, one that leads already goes first. What is scanned leads nothing, but memory is never scanned, and
/// what lacks it stands as it is. None: there is no such row.
pub(crate) fn leader<'a>(rows: impl Iterator<Item = &'a Row>, aim: impl Fn(&Row) -> Aim) -> Option<usize> {
    let mut best: Option<(usize, [f64; 5])> = None;
    for (i, r) in rows.enumerate().filter(|(_, r)| !r.scanned || !r.point.stands()) {
        let p = &r.point;
        let (class, value) = aim(r).score(p);
        // Nearest misses and what does not stand are told apart by their value alone.
        let ties = if class == 2 { [-p.tpot_s, -p.ttft_s] } else { [0.0; 2] };
        let rank = [f64::from(class), value, f64::from(u8::from(r.leads)), ties[0], ties[1]];
        if best.as_ref().is_none_or(|(_, b)| beats(&rank, b)) {
            best = Some((i, rank));
        }
    }
    best.map(|b| b.0)
}

fn beats(a: &[f64; 5], b: &[f64; 5]) -> bool {
    for (k, (x, y)) in a.iter().zip(b).enumerate() {
        // Sums in another order are no better.
        let same = if k == 1 { (x - y).abs() <= 1e-12 * y.abs() } else { x == y };
        if !same {
            return x > y;
        }
    }
    false
}
