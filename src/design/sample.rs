//! Samples of a space: every k-th point, Latin hypercubes, Sobol' sequences.
//!
//! Latin hypercube: McKay, Beckman, Conover 1979. Sobol': direction numbers and hash-based Owen
//! scrambling of Burley 2020 (crate `sobol_burley`). A coordinate u of the unit cube is the value
//! `floor(u n)` of an axis of n values; points that break a constraint or were drawn before are
//! drawn again, so a sample has `n` distinct points, or the whole space when that is no larger.
//! Limits: a space whose constraints leave less than one point in 10,000 is filled up by evenly
//! spaced numbers; Sobol' beyond 65,536 draws goes on with another scrambling.

use rand_pcg::Pcg64;
use rand_pcg::rand_core::{Rng, SeedableRng};

use super::space::Space;
use crate::error::{Error, Result, near};
use crate::spec::choices;

choices! {
    /// Ways to sample.
    Method {
        /// Evenly spaced numbers.
        Grid = "grid",
        /// Latin hypercubes.
        Lhs = "lhs",
        Sobol = "sobol",
    }
}

/// Draws tried for each point wanted.
const TRIES: u64 = 10_000;

/// Numbers of `n` points in rising order.
pub fn sample(space: &Space, n: u64, method: &str, seed: u64) -> Result<Vec<u64>> {
    let method = Method::named(method).ok_or_else(|| {
        Error::spec("method", format!("'{method}' is not a way to sample"), near(method, Method::NAMES))
    })?;
    let size = space.size();
    if n >= size {
        return Ok((0..size).collect());
    }
    let even = |n: u64| (0..n).map(move |i| (u128::from(size) * u128::from(2 * i + 1) / u128::from(2 * n)) as u64);
    if method == Method::Grid {
        return Ok(even(n).collect());
    }
    let lengths = space.lengths();
    let mut found = std::collections::BTreeSet::new();
    let mut tries = 0;
    let mut rng = Pcg64::seed_from_u64(seed);
    let mut round = 0u32;
    while (found.len() as u64) < n && tries < n.saturating_mul(TRIES) {
        let wanted = n - found.len() as u64;
        let cube = if method == Method::Lhs {
            hypercube(wanted, lengths.len(), &mut rng)
        } else {
            sobol(wanted, lengths.len(), seed, &mut round)
        };
        tries += wanted;
        for u in cube {
            let choices: Vec<usize> =
                u.iter().zip(&lengths).map(|(u, n)| ((u * *n as f64) as usize).min(n - 1)).collect();
            if let Some(i) = space.index_of(&choices)
                && (found.len() as u64) < n
            {
                found.insert(i);
            }
        }
    }
    for i in even(n) {
        if found.len() as u64 >= n {
            break;
        }
        found.insert(i);
    }
    for i in 0..size {
        if found.len() as u64 >= n {
            break;
        }
        found.insert(i);
    }
    Ok(found.into_iter().collect())
}

fn unit(rng: &mut Pcg64) -> f64 {
    (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64
}

/// `n` points with exactly one in each of the `n` strata of every dimension.
fn hypercube(n: u64, dimensions: usize, rng: &mut Pcg64) -> Vec<Vec<f64>> {
    let mut points = vec![vec![0.0; dimensions]; n as usize];
    for d in 0..dimensions {
        let mut strata: Vec<u64> = (0..n).collect();
        for i in (1..strata.len()).rev() {
            strata.swap(i, (unit(rng) * (i + 1) as f64) as usize);
        }
        for (p, s) in points.iter_mut().zip(strata) {
            p[d] = (s as f64 + unit(rng)) / n as f64;
        }
    }
    points
}

/// The next `n` points of the scrambled sequence.
fn sobol(n: u64, dimensions: usize, seed: u64, round: &mut u32) -> Vec<Vec<f64>> {
    (0..n)
        .map(|_| {
            let i = *round;
            *round = round.wrapping_add(1);
            let scramble = (seed as u32) ^ ((seed >> 32) as u32) ^ (i >> 16).wrapping_mul(0x9e37_79b9);
            (0..dimensions)
                .map(|d| f64::from(sobol_burley::sample(i & 0xffff, d as u32 % sobol_burley::NUM_DIMENSIONS, scramble)))
                .collect()
        })
        .collect()
}
