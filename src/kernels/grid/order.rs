//! Measured points that cannot be right, and times that fall where they should rise.
//!
//! Limit: needs neighbours on both sides along an axis; errors that a whole lane shares are not found.

use super::lattice::{At, Lattice};

/// Later points along an axis cost at least this share of earlier ones.
pub(super) const TOLERANCE: f64 = 0.9;

/// Points more than 4x off from the interpolation of both neighbours along every axis that has both
/// (where those neighbours agree), and whole last lines of an axis that jump over 2.5x away from a
/// trend that was steady before.
pub(super) fn outliers(lattice: &Lattice) -> Vec<([f64; 3], String)> {
    let dims = lattice.axes.len();
    let mut found = Vec::new();
    // For the last line of each axis: points judged, and those that jump.
    let mut edges: Vec<(usize, Vec<(At, f64)>)> = vec![(0, Vec::new()); dims];
    for i in lattice.nodes() {
        let Some(t) = lattice.seconds[i] else { continue };
        let (mut judged, mut off) = (0, 0);
        for (a, edge) in edges.iter_mut().enumerate() {
            match (lattice.neighbour(i, a, false), lattice.neighbour(i, a, true)) {
                (Some(l), Some(h)) => {
                    let agree = lattice.ratio(l) / lattice.ratio(h);
                    if let (true, Some((e, _))) = ((0.2..5.0).contains(&agree), lattice.between(i, a)) {
                        judged += 1;
                        off += usize::from(!(0.25..4.0).contains(&(t / e)));
                    }
                }
                (Some(l), None) if dims > 1 && i[a] + 1 == lattice.axes[a].x.len() => {
                    let Some(l2) = lattice.neighbour(l, a, false) else { continue };
                    let (jump, before) = (lattice.ratio(i) / lattice.ratio(l), lattice.ratio(l) / lattice.ratio(l2));
                    edge.0 += 1;
                    if jump > 2.5 && (0.5..1.5).contains(&before) {
                        edge.1.push((i, jump));
                    }
                }
                _ => {}
            }
        }
        if judged > 0 && off == judged {
            let x = lattice.node(i);
            found.push((x, format!("{:?}: {:.4} ms is over 4x off its neighbours", &x[..dims], t * 1e3)));
        }
    }
    for (a, (judged, jumping)) in edges.iter().enumerate() {
        // The few odd points of a sound line stay; a line that jumps as a whole goes as a whole.
        if *judged < 3 || 2 * jumping.len() <= *judged {
            continue;
        }
        let jump = jumping.iter().map(|j| j.1).sum::<f64>() / jumping.len() as f64;
        let last = lattice.axes[a].x.len() - 1;
        for i in lattice.nodes() {
            if i[a] == last
                && let Some(t) = lattice.seconds[i]
            {
                let x = lattice.node(i);
                let reason = format!(
                    "{:?}: {:.4} ms, the last line of axis {a} jumps {jump:.1}x against the roofline",
                    &x[..dims],
                    t * 1e3
                );
                found.push((x, reason));
            }
        }
    }
    found
}

/// Makes `t` keep the tolerated order with as little change as possible: points in a violating pair are
/// pulled to within the tolerance around the isotonic L1 fit of the logarithms. True if anything changed.
pub(super) fn relax(t: &mut [f64], weight: &[f64]) -> bool {
    let n = t.len();
    let mut high = 0.0f64;
    let mut bad = vec![false; n];
    for i in 0..n {
        bad[i] = t[i] < TOLERANCE * high * (1.0 - 1e-9);
        high = high.max(t[i]);
    }
    if !bad.contains(&true) {
        return false;
    }
    let mut low = f64::INFINITY;
    for i in (0..n).rev() {
        bad[i] |= low < TOLERANCE * t[i] * (1.0 - 1e-9);
        low = low.min(t[i]);
    }
    let fit = isotonic(t, weight);
    let half = TOLERANCE.sqrt();
    for strict in [false, true] {
        let before = t.to_vec();
        for i in 0..n {
            if bad[i] || strict {
                t[i] = before[i].clamp(fit[i] * half, fit[i] / half);
            }
        }
        let mut high = 0.0f64;
        let fine = t.iter().all(|&v| {
            let ok = v >= TOLERANCE * high * (1.0 - 1e-9);
            high = high.max(v);
            ok
        });
        if fine {
            break;
        }
    }
    true
}

/// Weighted L1 isotonic fit: pool adjacent violators, each block at its weighted median.
fn isotonic(t: &[f64], weight: &[f64]) -> Vec<f64> {
    let mut blocks: Vec<(f64, Vec<(f64, f64)>)> = Vec::new();
    for (&v, &w) in t.iter().zip(weight) {
        let mut members = vec![(v, w)];
        let mut level = v;
        while let Some((below, _)) = blocks.last() {
            if *below <= level {
                break;
            }
            if let Some((_, mut other)) = blocks.pop() {
                members.append(&mut other);
            }
            level = median(&mut members);
        }
        blocks.push((level, members));
    }
    blocks.iter().flat_map(|(level, members)| std::iter::repeat_n(*level, members.len())).collect()
}

fn median(members: &mut [(f64, f64)]) -> f64 {
    members.sort_by(|a, b| a.0.total_cmp(&b.0));
    let half: f64 = members.iter().map(|m| m.1).sum::<f64>() / 2.0;
    let mut sum = 0.0;
    for m in members.iter() {
        sum += m.1;
        if sum >= half {
            return m.0;
        }
    }
    members.last().map_or(0.0, |m| m.0)
}
