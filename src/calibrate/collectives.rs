//! Protocol lines of one collective, from groups of two and four.
//!
//! Starts: the sizes cut into as many runs as there are lines, one line fitted to each run, then all
//! together. Source: network.md 4.6. Limit: with two group sizes the terms in n are just
//! determined; groups of eight and more are check rows and never seen here.

use super::digits::{rounded, rounded_misfit};
use super::least::{self, Found, Range};
use crate::network::law::{CollectiveLaw, Pattern, ProtocolLine};
use crate::network::params::{Fitted, Misfit};
use crate::network::samples::{CollectiveTable, Sample};
use crate::units::US;

/// Larger groups are held out (network.md 5: n = 8 from n <= 4).
pub const MOST_RANKS: u32 = 4;

/// Shares of the sizes where one protocol hands over to the next.
const CUTS: [(f64, f64); 6] = [(0.2, 0.5), (0.3, 0.6), (0.4, 0.6), (0.4, 0.8), (0.5, 0.7), (0.6, 0.8)];

/// alpha, per rank, eta, own.
const RANGES: [Range; 4] = [
    Range::Log { least: 0.05 * US, most: 1000.0 * US },
    Range::Linear { most: 100.0 * US, unit: US },
    Range::Log { least: 1e-4, most: 1.05 },
    Range::Linear { most: 100.0, unit: 1.0 },
];

fn law(parameters: &[f64], patterns: &[Pattern]) -> CollectiveLaw {
    let lines = parameters.chunks_exact(RANGES.len()).zip(patterns);
    CollectiveLaw {
        lines: lines
            .map(|(p, &pattern)| ProtocolLine { pattern, alpha: p[0], per_rank: p[1], eta: p[2], own: p[3] })
            .collect(),
    }
}

fn fit_lines(rows: &[Sample], rate: f64, patterns: &[Pattern], start: &[f64]) -> Found {
    let ranges = RANGES.repeat(patterns.len());
    let measured: Vec<f64> = rows.iter().map(|s| s.seconds.ln()).collect();
    least::minimise(&ranges, start, &measured, |p, out| {
        let law = law(p, patterns);
        for (o, s) in out.iter_mut().zip(rows) {
            *o = law.seconds(s.ranks, s.bytes, rate);
        }
    })
}

/// Patterns for which rows exist on both sides of every cut.
fn from_cuts(rows: &[Sample], rate: f64, patterns: &[Pattern], cuts: (f64, f64)) -> Found {
    let mut sizes: Vec<f64> = rows.iter().map(|s| s.bytes).collect();
    sizes.sort_by(f64::total_cmp);
    sizes.dedup();
    let at = |share: f64| sizes[((sizes.len() - 1) as f64 * share).round() as usize];
    let edges = [0.0, at(cuts.0), at(cuts.1), f64::INFINITY];
    let mut start = Vec::new();
    for (k, &pattern) in patterns.iter().enumerate() {
        let run: Vec<Sample> = rows.iter().filter(|s| s.bytes > edges[k] && s.bytes <= edges[k + 1]).copied().collect();
        let floor = run.iter().map(|s| s.seconds).fold(f64::INFINITY, f64::min);
        let guess = [0.7 * floor, US, 0.5, 0.1];
        start.extend(fit_lines(&run, rate, &[pattern], &guess).parameters);
    }
    fit_lines(rows, rate, patterns, &start)
}

/// None for a table with fewer rows than unknowns.
pub fn fit(table: &CollectiveTable) -> Option<Fitted<CollectiveLaw>> {
    let rows: Vec<Sample> = table.samples.iter().filter(|s| s.ranks <= MOST_RANKS).copied().collect();
    let patterns = table.patterns();
    if rows.len() < RANGES.len() * patterns.len() {
        return None;
    }
    let rate = table.bytes_per_s;
    let found = least::best(CUTS.into_iter().map(|cuts| from_cuts(&rows, rate, patterns, cuts)))?;
    let kept: Vec<f64> = found.parameters.into_iter().map(rounded).collect();
    let mut law = law(&kept, patterns);
    for line in law.lines.iter_mut().filter(|l| l.pattern == Pattern::OneShot) {
        line.own = 0.0;
    }
    law.lines.sort_by(|a, b| a.alpha.total_cmp(&b.alpha));
    let fit = Misfit::of(rows.iter().map(|s| (law.seconds(s.ranks, s.bytes, rate), s.seconds)))?;
    let mut ranks: Vec<u32> = rows.iter().map(|s| s.ranks).collect();
    ranks.sort_unstable();
    ranks.dedup();
    Some(Fitted { id: table.id.clone(), ranks, fit: rounded_misfit(fit), law })
}
