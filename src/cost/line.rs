//! Step times as one-dimensional tables, for scans over batches and chunks.
//!
//! For one layout and workload every part of a step hangs on one number: tokens of a rank, tokens of all
//! ranks, rows of logits, sequences. A [`Line`] holds such a part on the knots `2^e (1 + k/32)`, so that a place
//! is found from the bits of the number, and most knots of the measured tables (8, 12, 80, 96, 1536 ..) are knots
//! here too: between them a table that is linear is read exactly. Layouts that share a part share its line.
//!
//! Error: nothing at shared knots; elsewhere a bend of slope s inside a cell costs at most s x/128 at x, and a
//! jump (another kernel regime) is spread over its cell. Below 1/16 the first value, beyond 2^24 the last.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::sink::{Op, Sink, Total};
use crate::kernels::Reading;

/// Bits of the mantissa that number the knots of an octave.
const BITS: u32 = 5;
const LOW: i32 = -4;
const HIGH: i32 = 24;
const PER_OCTAVE: usize = 1 << BITS;
const CELLS: usize = PER_OCTAVE * (HIGH - LOW) as usize;
const SHIFT: u32 = 52 - BITS;
/// Place of the first knot among the bits of all numbers.
const FIRST: u64 = ((1023 + LOW) as u64) << BITS;
/// Knots that are always priced; those between only where these are not on one line.
const STRIDE: usize = 4;
/// How far off the line a knot may lie.
const STRAIGHT: f64 = 2e-4;

/// Where a number lies among the knots.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    cell: usize,
    weight: f64,
}

impl Place {
    #[inline]
    pub fn of(x: f64) -> Place {
        const LEAST: f64 = 1.0 / 16.0;
        const MOST: f64 = 16_777_215.0;
        let bits = x.clamp(LEAST, MOST).to_bits();
        let weight = (bits & ((1 << SHIFT) - 1)) as f64 * (1.0 / (1u64 << SHIFT) as f64);
        Place { cell: ((bits >> SHIFT) - FIRST) as usize, weight }
    }
}

/// The number at a knot.
fn knot(i: usize) -> f64 {
    let (octave, k) = (i / PER_OCTAVE, i % PER_OCTAVE);
    2f64.powi(LOW + octave as i32) * (1.0 + k as f64 / PER_OCTAVE as f64)
}

/// Seconds over one number.
#[derive(Debug)]
pub struct Line {
    seconds: Box<[f64]>,
}

impl Line {
    /// Prices `f` on the knots, and between every other fourth only where it bends.
    pub fn of(f: impl Fn(f64) -> f64) -> Line {
        let mut t = vec![0.0; CELLS + 1];
        for i in (0..=CELLS).step_by(STRIDE) {
            t[i] = f(knot(i));
        }
        for from in (0..CELLS).step_by(2 * STRIDE) {
            let (middle, to) = (from + STRIDE, from + 2 * STRIDE);
            let straight = |a: usize, b: usize, at: usize, t: &[f64]| {
                let w = (knot(at) - knot(a)) / (knot(b) - knot(a));
                t[a] + w * (t[b] - t[a])
            };
            let bends = (straight(from, to, middle, &t) - t[middle]).abs() > STRAIGHT * t[middle].abs();
            for i in (from + 1..to).filter(|i| *i != middle) {
                t[i] = if bends {
                    f(knot(i))
                } else if i < middle {
                    straight(from, middle, i, &t)
                } else {
                    straight(middle, to, i, &t)
                };
            }
        }
        Line { seconds: t.into() }
    }

    #[inline]
    pub fn at(&self, p: Place) -> f64 {
        let (a, b) = (self.seconds[p.cell], self.seconds[p.cell + 1]);
        a + p.weight * (b - a)
    }

    #[inline]
    pub fn read(&self, x: f64) -> f64 {
        self.at(Place::of(x))
    }
}

/// What a line is of, and the numbers that make it that one.
pub type Key = (&'static str, [u32; 6]);

/// Lines by what they are of; made once, shared by every layout that needs them.
#[derive(Debug, Default)]
pub struct Lines {
    kept: Mutex<HashMap<Key, Arc<Line>>>,
}

impl Lines {
    pub fn get(&self, key: Key, make: impl Fn(f64) -> f64) -> Arc<Line> {
        let lock = || self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = lock().get(&key) {
            return found.clone();
        }
        // Made outside the lock: two threads may make the same line, and both get the same numbers.
        let made = Arc::new(Line::of(make));
        lock().entry(key).or_insert(made).clone()
    }

    /// Lines kept, and the bytes they take.
    pub fn size(&self) -> (usize, usize) {
        let n = self.kept.lock().unwrap_or_else(PoisonError::into_inner).len();
        (n, n * (CELLS + 1) * size_of::<f64>())
    }
}

/// Seconds of what hangs on tokens alone: all but the attention kernels.
#[derive(Default)]
pub(super) struct Tokens(pub f64);

impl Sink for Tokens {
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
            assert_eq!((knot(p.cell), p.weight), (x, 0.0));
        }
        let p = Place::of(100.5);
        assert!((knot(p.cell) + p.weight * (knot(p.cell + 1) - knot(p.cell)) - 100.5).abs() < 1e-9);
        assert_eq!(Place::of(f64::NAN.max(0.0)).cell, 0);
        assert_eq!(Place::of(1e30).cell, CELLS - 1);
    }

    #[test]
    fn a_line_keeps_what_is_linear_and_follows_what_bends() {
        let linear = Line::of(|x| 3.0 + 0.25 * x);
        let bent = Line::of(|x| x.max(100.0));
        let power = Line::of(|x| x.powf(0.7));
        for i in 0..2000 {
            let x = 0.07 * 1.009f64.powi(i);
            if x > 1e6 {
                break;
            }
            assert!((linear.read(x) / (3.0 + 0.25 * x) - 1.0).abs() < 1e-12);
            assert!((bent.read(x) / x.max(100.0) - 1.0).abs() < 1.0 / 128.0);
            assert!((power.read(x) / x.powf(0.7) - 1.0).abs() < 3e-4, "{x}");
        }
    }
}
