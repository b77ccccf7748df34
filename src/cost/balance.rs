//! How uneven the experts' load is on the fullest rank, before and after redundant copies.
//!
//! Loads of E experts come from a histogram, or from a power law p(x) ~ x^-alpha between 1 and
//! `SPAN` (the law by which the measured expert rows were drawn), taken at the middles of E equal
//! slices of probability. Hot-rank ratio lambda = load of the fullest of `ep` ranks over the mean:
//! experts lie on ranks in random order (mean over `DRAWS` seeded shuffles) or, with redundant
//! slots, as EPLB lays them: each further slot to the expert with the largest load per copy, then
//! copies packed by decreasing load on the emptiest rank that has a slot left (DeepSeek EPLB,
//! github.com/deepseek-ai/EPLB, its global policy).
//!
//! The kernel time between the measured balanced row (lambda = 1) and a measured skewed row goes
//! with lambda - 1: t = t_even + (t_skewed - t_even) x, x = (lambda - 1)/(lambda_skewed - 1).
//! Limits: loads that do not change in time; copies share an expert's load evenly.

use rand_pcg::Pcg64Mcg;
use rand_pcg::rand_core::{Rng, SeedableRng};

/// Largest over smallest load of the power law: 0.8 of 8,192 tokens, as the rows were drawn.
const SPAN: f64 = 6553.6;
const DRAWS: u32 = 64;

/// Relative loads of `experts` experts under a power law of exponent `alpha`.
pub(crate) fn power_law(alpha: f64, experts: u32) -> Vec<f64> {
    let n = f64::from(experts);
    (0..experts)
        .map(|i| {
            let u = (f64::from(i) + 0.5) / n;
            if (alpha - 1.0).abs() < 1e-9 {
                SPAN.powf(u)
            } else {
                let k = 1.0 - alpha;
                ((SPAN.powf(k) - 1.0) * u + 1.0).powf(1.0 / k)
            }
        })
        .collect()
}

/// Load of the fullest rank over the mean, experts in random order on `ep` ranks.
pub(crate) fn hot_rank(loads: &[f64], ep: u32) -> f64 {
    if ep <= 1 || loads.is_empty() {
        return 1.0;
    }
    let slots = loads.len().div_ceil(ep as usize);
    let mean = loads.iter().sum::<f64>() / f64::from(ep);
    let mut order = loads.to_vec();
    let mut rng = Pcg64Mcg::seed_from_u64(1);
    let total: f64 = (0..DRAWS)
        .map(|_| {
            for i in (1..order.len()).rev() {
                order.swap(i, (rng.next_u64() % (i as u64 + 1)) as usize);
            }
            order.chunks(slots).map(|rank| rank.iter().sum::<f64>()).fold(0.0, f64::max)
        })
        .sum();
    total / f64::from(DRAWS) / mean
}

/// The same after EPLB with `extra` redundant slots.
pub(crate) fn balanced_rank(loads: &[f64], ep: u32, extra: u32) -> f64 {
    if ep <= 1 || loads.is_empty() {
        return 1.0;
    }
    let mut copies = vec![1_u32; loads.len()];
    for _ in 0..extra {
        let share = |i: usize| loads[i] / f64::from(copies[i]);
        if let Some(i) = (0..loads.len()).max_by(|a, b| share(*a).total_cmp(&share(*b)).then(b.cmp(a))) {
            copies[i] += 1;
        }
    }
    let mut parts: Vec<f64> =
        loads.iter().zip(&copies).flat_map(|(l, c)| std::iter::repeat_n(l / f64::from(*c), *c as usize)).collect();
    parts.sort_by(|a, b| b.total_cmp(a));
    let slots = parts.len().div_ceil(ep as usize);
    let mut ranks = vec![(0.0_f64, 0_usize); ep as usize];
    for part in parts {
        let open = ranks.iter_mut().filter(|r| r.1 < slots);
        if let Some(rank) = open.min_by(|a, b| a.0.total_cmp(&b.0)) {
            rank.0 += part;
            rank.1 += 1;
        }
    }
    let mean = loads.iter().sum::<f64>() / f64::from(ep);
    ranks.iter().map(|r| r.0).fold(0.0, f64::max) / mean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn even_loads_are_even() {
        assert_eq!(hot_rank(&[1.0; 256], 8), 1.0);
        assert_eq!(balanced_rank(&[1.0; 256], 8, 0), 1.0);
        assert_eq!(hot_rank(&power_law(1.2, 256), 1), 1.0);
    }

    #[test]
    fn skew_rises_with_ranks_and_falls_with_copies() {
        let loads = power_law(1.01, 256);
        assert!(hot_rank(&loads, 64) > hot_rank(&loads, 16) && hot_rank(&loads, 16) > 1.1);
        let none = balanced_rank(&loads, 64, 0);
        assert!(none < hot_rank(&loads, 64), "packing alone helps");
        assert!(balanced_rank(&loads, 64, 64) < none);
        // One expert with everything: as many copies as ranks even it out.
        let mut one = vec![0.0; 32];
        one[3] = 1.0;
        assert_eq!(hot_rank(&one, 8), 8.0);
        assert!((balanced_rank(&one, 8, 7) - 1.0).abs() < 1e-12);
    }

    /// Three experts of loads 4, 1, 1 on two ranks, one copy more: 2 + 1 each.
    #[test]
    fn a_case_by_hand() {
        assert!((balanced_rank(&[4.0, 1.0, 1.0], 2, 1) - 1.0).abs() < 1e-12);
        assert!((balanced_rank(&[4.0, 1.0, 1.0, 0.0], 2, 0) - 8.0 / 6.0).abs() < 1e-12);
    }
}
