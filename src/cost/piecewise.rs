//! Step times as one-dimensional tables, for scans over batches and chunks.
//!
//! For one layout and workload every part of a step hangs on one number: tokens of a rank, tokens of all
//! ranks, rows of logits, sequences. A [`Piecewise`] holds such a part on the knots `2^e (1 + k/32)`, so that a place
//! is found from the bits of the number, and most knots of the measured tables (8, 12, 80, 96, 1536 ..) are knots
//! here too: between them a table that is linear is read exactly. Layouts that share a part share its line.
//!
//! An octave is priced when it is first read, so a layout that is looked at in one corner costs one corner.
//! A cell in which the time bends or jumps (rows at 1024 and 1025 tokens, another kernel regime) is cut into 32.
//!
//! Error: nothing at shared knots; elsewhere a bend of slope s inside a cell costs at most s x/4096 at x, and a
//! jump is spread over a thousandth of x. Below 1/16 the first value, beyond 2^24 the last.
//!
//! Limit: from 1/16 to 2^24; a jump of a table between two knots is smeared over them.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use rustc_hash::FxHashMap;

use super::ledger::{Ledger, Op, Total};
use crate::kernels::{Evidence, Reading};

/// Bits of the mantissa that number the knots of an octave.
const BITS: u32 = 5;
const LOW: i32 = -4;
const HIGH: i32 = 24;
const PER_OCTAVE: usize = 1 << BITS;
const OCTAVES: usize = (HIGH - LOW) as usize;
const CELLS: usize = PER_OCTAVE * OCTAVES;
const SHIFT: u32 = 52 - BITS;
/// Place of the first knot among the bits of all numbers.
const FIRST: u64 = ((1023 + LOW) as u64) << BITS;
/// Knots that are always priced; those between only where these are not on one line.
const STRIDE: usize = 4;
/// How far off the line a knot may lie.
const STRAIGHT: f64 = 2e-4;
/// Parts of a cell that is not straight, and how far from its neighbours' slope a cell is looked into.
const FINE: usize = 32;
const STEEP: f64 = 2e-3;

/// Where a number lies among the knots.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    cell: usize,
    weight: f64,
}

impl Place {
    #[inline]
    pub(crate) fn of(x: f64) -> Place {
        const LEAST: f64 = 1.0 / 16.0;
        const MOST: f64 = 16_777_215.0;
        let bits = x.clamp(LEAST, MOST).to_bits();
        let weight = (bits & ((1 << SHIFT) - 1)) as f64 * (1.0 / (1u64 << SHIFT) as f64);
        Place { cell: ((bits >> SHIFT) - FIRST) as usize, weight }
    }
}

/// The number at a knot, of this or of a neighbouring octave.
fn knot(i: isize) -> f64 {
    let (octave, k) = (i.div_euclid(PER_OCTAVE as isize), i.rem_euclid(PER_OCTAVE as isize));
    2f64.powi(LOW + octave as i32) * (1.0 + k as f64 / PER_OCTAVE as f64)
}

/// What a line is made from.
pub type Price = Box<dyn Fn(f64) -> f64 + Send + Sync>;

/// The knots of one octave.
struct Octave {
    seconds: [f64; PER_OCTAVE + 1],
    /// Cells that are cut finer, as bits, and their knots, rising.
    bent: u32,
    fine: Box<[[f64; FINE + 1]]>,
}

impl Octave {
    /// Prices `f` on every fourth knot, and between them only where it bends.
    fn of(octave: usize, f: &Price) -> Octave {
        let first = (octave * PER_OCTAVE) as isize;
        let x = |i: usize| knot(first + i as isize);
        let mut t = [0.0; PER_OCTAVE + 1];
        for i in (0..=PER_OCTAVE).step_by(STRIDE) {
            t[i] = f(x(i));
        }
        for from in (0..PER_OCTAVE).step_by(2 * STRIDE) {
            let (middle, to) = (from + STRIDE, from + 2 * STRIDE);
            let straight = |a: usize, b: usize, at: usize, t: &[f64]| {
                let w = (x(at) - x(a)) / (x(b) - x(a));
                t[a] + w * (t[b] - t[a])
            };
            let bends = (straight(from, to, middle, &t) - t[middle]).abs() > STRAIGHT * t[middle].abs();
            for i in (from + 1..to).filter(|i| *i != middle) {
                t[i] = if bends {
                    f(x(i))
                } else if i < middle {
                    straight(from, middle, i, &t)
                } else {
                    straight(middle, to, i, &t)
                };
            }
        }
        // Slopes beyond both ends; the first and the last cell of all are as straight as they are.
        let before = (octave > 0).then(|| f(knot(first - 1)));
        let after = (octave + 1 < OCTAVES).then(|| f(knot(first + PER_OCTAVE as isize + 1)));
        let at = |i: isize| match i {
            -1 => before.unwrap_or(t[0]),
            i if i as usize > PER_OCTAVE => after.unwrap_or(t[PER_OCTAVE]),
            i => t[i as usize],
        };
        // Steps double where an octave begins.
        let step = |i: isize| {
            let wide = if i < 0 { 2.0 } else { 1.0 };
            let narrow = if i >= PER_OCTAVE as isize { 0.5 } else { 1.0 };
            (at(i + 1) - at(i)) * wide * narrow
        };
        let (mut bent, mut fine) = (0, Vec::new());
        for i in 0..PER_OCTAVE {
            let cell = octave * PER_OCTAVE + i;
            if cell == 0 || cell + 1 == CELLS {
                continue;
            }
            let k = i as isize;
            if (2.0 * step(k) - step(k - 1) - step(k + 1)).abs() < STEEP * t[i].abs() {
                continue;
            }
            let (from, width) = (x(i), x(i + 1) - x(i));
            let middle = f(from + 0.5 * width);
            if (t[i] + 0.5 * (t[i + 1] - t[i]) - middle).abs() > STRAIGHT * middle.abs() {
                bent |= 1 << i;
                let mut knots = [0.0; FINE + 1];
                for (k, t) in knots.iter_mut().enumerate() {
                    *t = f(from + width * k as f64 / FINE as f64);
                }
                fine.push(knots);
            }
        }
        Octave { seconds: t, bent, fine: fine.into() }
    }

    #[inline]
    fn at(&self, i: usize, weight: f64) -> f64 {
        if self.bent >> i & 1 == 1 {
            return self.within(i, weight);
        }
        let (a, b) = (self.seconds[i], self.seconds[i + 1]);
        a + weight * (b - a)
    }

    /// Inside a cell that is cut finer.
    #[cold]
    fn within(&self, i: usize, weight: f64) -> f64 {
        let k = (self.bent & ((1 << i) - 1)).count_ones() as usize;
        let (knots, u) = (&self.fine[k], weight * FINE as f64);
        let (a, b) = (knots[u as usize], knots[u as usize + 1]);
        a + u.fract() * (b - a)
    }
}

/// Seconds over one number; an octave is priced when it is first read.
pub struct Piecewise {
    price: Price,
    octaves: [OnceLock<Box<Octave>>; OCTAVES],
}

impl std::fmt::Debug for Piecewise {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Piecewise({} octaves)", self.octaves.iter().filter(|o| o.get().is_some()).count())
    }
}

impl Piecewise {
    pub(crate) fn of(price: impl Fn(f64) -> f64 + Send + Sync + 'static) -> Piecewise {
        Piecewise { price: Box::new(price), octaves: [const { OnceLock::new() }; OCTAVES] }
    }

    #[inline]
    pub(crate) fn at(&self, p: Place) -> f64 {
        let (octave, i) = (p.cell / PER_OCTAVE, p.cell % PER_OCTAVE);
        match self.octaves[octave].get() {
            Some(o) => o.at(i, p.weight),
            None => self.first(octave).at(i, p.weight),
        }
    }

    /// The same as a walk over operators takes it; a line does not know how well its parts are known.
    #[inline]
    pub(super) fn reading(&self, p: Place) -> Reading {
        known(self.at(p))
    }

    #[cold]
    fn first(&self, octave: usize) -> &Octave {
        self.octaves[octave].get_or_init(|| Box::new(Octave::of(octave, &self.price)))
    }

    fn bytes(&self) -> usize {
        let octaves = self.octaves.iter().filter_map(OnceLock::get);
        size_of::<Piecewise>() + octaves.map(|o| size_of::<Octave>() + size_of_val(&*o.fine)).sum::<usize>()
    }

    #[inline]
    pub(crate) fn read(&self, x: f64) -> f64 {
        self.at(Place::of(x))
    }
}

/// Seconds of a line as a walk over operators takes them.
#[inline]
pub(super) fn known(seconds: f64) -> Reading {
    Reading { seconds, evidence: Evidence::Interpolated }
}

/// What a line is of, and the numbers that make it that one.
pub type PieceKey = (&'static str, [u32; 6]);

/// Lines by what they are of; made once, shared by every layout that needs them.
#[derive(Debug, Default)]
pub struct Tabulated {
    kept: Mutex<FxHashMap<PieceKey, Arc<Piecewise>>>,
}

impl Tabulated {
    pub(crate) fn get(&self, key: PieceKey, price: impl Fn(f64) -> f64 + Send + Sync + 'static) -> Arc<Piecewise> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.entry(key).or_insert_with(|| Arc::new(Piecewise::of(price))).clone()
    }

    /// Lines kept, and the bytes they take.
    pub(crate) fn size(&self) -> (usize, usize) {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        (kept.len(), kept.values().map(|l| l.bytes()).sum())
    }
}

/// Seconds of what hangs on tokens alone: all but the attention kernels.
#[derive(Default)]
pub(super) struct Tokens(pub f64);

impl Ledger for Tokens {
    const DETAIL: bool = true;

    fn add(&mut self, op: Op, count: f64, reading: Reading) {
        if !matches!(op, Op::AttentionDecode | Op::AttentionPrefill) {
            self.0 += count * reading.seconds;
        }
    }

    fn merge(&mut self, total: &Total) {
        self.0 += total.seconds;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knots_are_exact_and_places_round_trip() {
        for x in [0.0625, 1.0, 3.0, 80.0, 96.0, 1536.0, 65_536.0] {
            let p = Place::of(x);
            assert_eq!((knot(p.cell as isize), p.weight), (x, 0.0));
        }
        let p = Place::of(100.5);
        let from = knot(p.cell as isize);
        assert!((from + p.weight * (knot(p.cell as isize + 1) - from) - 100.5).abs() < 1e-9);
        assert_eq!(Place::of(f64::NAN.max(0.0)).cell, 0);
        assert_eq!(Place::of(1e30).cell, CELLS - 1);
    }

    #[test]
    fn a_line_keeps_what_is_linear_and_follows_what_bends() {
        let linear = Piecewise::of(|x| 3.0 + 0.25 * x);
        let bent = Piecewise::of(|x| x.max(100.5));
        let jump = Piecewise::of(|x| if x > 1024.0 { 2.0 * x } else { x });
        let power = Piecewise::of(|x| x.powf(0.7));
        for i in 0..2000 {
            let x = 0.07 * 1.009f64.powi(i);
            if x > 1e6 {
                break;
            }
            assert!((linear.read(x) / (3.0 + 0.25 * x) - 1.0).abs() < 1e-12);
            assert!((bent.read(x) / x.max(100.5) - 1.0).abs() < 1.0 / 4096.0);
            let (low, high) = (x < 1024.0, x > 1025.0);
            assert!(!(low || high) || (jump.read(x) / if high { 2.0 * x } else { x } - 1.0).abs() < 1e-12, "{x}");
            assert!((power.read(x) / x.powf(0.7) - 1.0).abs() < 3e-4, "{x}");
        }
    }
}
