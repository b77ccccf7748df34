//! Uneven experts: which ports are hot.
//!
//! `load[i]` is expert i's share of the routed copies; experts lie on ranks in equal consecutive
//! blocks (the first ranks hold one more where they do not divide). Without deduplication a rank's
//! port carries copies in proportion to its share, so the hot factor is max/mean. With it, a rank is
//! reached once however many of its experts were drawn: `h_r = 1 - (1 - s_r)^k` for k draws with
//! replacement, which is exact in the limit of many experts; only the ratio to an even rank is used.
//!
//! An exponent a stands for loads i^-a (Zipf; 0: even). Expert ids say nothing about popularity, so
//! hot experts are dealt to the ranks like cards: expert i goes to rank i mod N.
//! Source: network.md 1.1 (multiply the hot port by max/mean). Limits: one snapshot, no
//! correlation between the k experts of a token.

use crate::error::{Error, Problems, Result};

/// Shares of the ranks, from a histogram over consecutive experts.
pub(crate) fn rank_shares(load: &[f64], ranks: u32) -> Vec<f64> {
    let n = ranks.max(1) as usize;
    let total: f64 = load.iter().sum();
    let (small, larger) = (load.len() / n, load.len() % n);
    let mut at = 0;
    (0..n)
        .map(|r| {
            let own = small + usize::from(r < larger);
            let share = load[at..at + own].iter().sum::<f64>() / total;
            at += own;
            share
        })
        .collect()
}

/// A histogram of `experts` Zipf loads, dealt to `ranks` ranks in turn.
pub fn zipf(experts: u32, exponent: f64, ranks: u32) -> Vec<f64> {
    let n = ranks.max(1) as usize;
    let mut hands: Vec<Vec<f64>> = vec![Vec::new(); n];
    for i in 0..experts as usize {
        hands[i % n].push(((i + 1) as f64).powf(-exponent));
    }
    hands.concat()
}

/// How much more the hottest rank's port carries than that of an even rank.
pub(crate) fn hot_factor(load: &[f64], ranks: u32, topk: u32, dedup: bool) -> f64 {
    let n = f64::from(ranks.max(1));
    let most = rank_shares(load, ranks).into_iter().fold(0.0, f64::max);
    if !dedup {
        return (most * n).max(1.0);
    }
    let hit = |share: f64| 1.0 - (1.0 - share).powi(topk as i32);
    (hit(most) / hit(1.0 / n)).max(1.0)
}

/// Everything wrong with a histogram.
pub fn check(load: &[f64], experts: u32, path: &str) -> Result<()> {
    let mut p = Problems::new();
    if load.len() != experts as usize {
        p.push(path, format!("has {} entries for {experts} experts", load.len()), "one an expert");
    }
    if let Some(i) = load.iter().position(|x| !(x.is_finite() && *x >= 0.0)) {
        p.push(format!("{path}[{i}]"), format!("{} is not a load", load[i]), "0 or more");
    }
    if p.is_empty() && load.iter().sum::<f64>() <= 0.0 {
        p.push(path, "is zero everywhere", "");
    }
    if p.is_empty() { Ok(()) } else { Err(Error::Spec(p)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn even_loads_are_not_hot_and_one_hot_expert_is() {
        assert_eq!(hot_factor(&[1.0; 256], 32, 8, false), 1.0);
        assert_eq!(hot_factor(&zipf(256, 0.0, 32), 32, 8, true), 1.0);
        let mut load = [1.0; 256];
        load[17] = 256.0;
        // Half of all copies go to its rank, which has seven others of the 256 besides.
        let expected = (256.0 + 7.0) / (255.0 + 256.0) * 32.0;
        assert!((hot_factor(&load, 32, 8, false) - expected).abs() < 1e-12);
        // Once a token at most: no more than all tokens, against the 1 - (31/32)^8 of an even rank.
        let even = 1.0 - (31.0_f64 / 32.0).powi(8);
        let hot = hot_factor(&load, 32, 8, true);
        assert!(hot < 1.0 / even + 1e-12 && hot > 0.98 / even);
    }

    #[test]
    fn dealt_experts_share_the_heat() {
        let even: f64 = zipf(256, 1.0, 32).iter().sum();
        let other: f64 = zipf(256, 1.0, 7).iter().sum();
        assert!((even - other).abs() < 1e-9);
        let (few, many) = (hot_factor(&zipf(256, 1.0, 8), 8, 8, false), hot_factor(&zipf(256, 1.0, 64), 64, 8, false));
        assert!(few < many && few > 1.0);
    }
}
