//! Exact Pareto frontiers in two or three costs, and the rows that are as good within a tolerance.
//!
//! A row is beaten by another that costs no more in every respect and less in one; of equal rows
//! the first stands. Rows are sorted by the first cost; then a running minimum (two costs) or the
//! staircase of the other two (three costs; Kung, Luccio, Preparata 1975) decides: O(n log n).
//!
//! With a tolerance, a row off the frontier is a tie if it would stand were each of its costs
//! smaller by the fraction `epsilon` of its size. Costs are minimised; NaN never takes part.
//!
//! Limit: two or three costs; rows with a cost that is not a number do not take part.

use std::collections::BTreeMap;

use rayon::prelude::*;

/// Order of doubles as integers; -0 and 0 are equal.
fn key(x: f64) -> i64 {
    let bits = (x + 0.0).to_bits() as i64;
    bits ^ (((bits >> 63) as u64) >> 1) as i64
}

/// Rows of a sample, and how many of its frontier are tried on every row.
const SAMPLE: usize = 4096;
const PIVOTS: usize = 24;

/// Rows worth sorting: numbers, and not beaten by more than the tolerance by one of a few good rows
/// of a sample. Beating in every cost leaves no doubt, so nothing that could stand is lost.
fn candidates(costs: &[&[f64]], epsilon: f64) -> Vec<u32> {
    let n = costs[0].len();
    let sound = |i: &u32| costs.iter().all(|c| !c[*i as usize].is_nan());
    if n <= 4 * SAMPLE {
        return (0..n as u32).filter(sound).collect();
    }
    let sample: Vec<u32> = (0..SAMPLE).map(|i| (i * (n / SAMPLE)) as u32).filter(sound).collect();
    let columns: Vec<Vec<f64>> = costs.iter().map(|c| sample.iter().map(|i| c[*i as usize]).collect()).collect();
    let views: Vec<&[f64]> = columns.iter().map(Vec::as_slice).collect();
    let beats =
        |pivot: &[f64], i: usize, from: &[&[f64]]| from.iter().zip(pivot).all(|(c, p)| *p < improved(c[i], epsilon));
    let mut pivots: Vec<(usize, Vec<f64>)> = frontier(&views, 0.0)
        .into_iter()
        .map(|(row, _)| {
            let pivot: Vec<f64> = views.iter().map(|c| c[row]).collect();
            ((0..sample.len()).filter(|i| beats(&pivot, *i, &views)).count(), pivot)
        })
        .collect();
    pivots.sort_by_key(|(beaten, _)| std::cmp::Reverse(*beaten));
    pivots.truncate(PIVOTS);
    (0..n as u32).filter(|i| sound(i) && !pivots.iter().any(|(_, pivot)| beats(pivot, *i as usize, costs))).collect()
}

/// In the crate's own pool; without one, on this thread.
fn sort<K: Ord + Send>(rows: &mut [u32], by: impl Fn(&u32) -> K + Sync + Send) {
    if crate::pool::install(|| rows.par_sort_unstable_by_key(&by)).is_err() {
        rows.sort_unstable_by_key(&by);
    }
}

fn improved(x: f64, epsilon: f64) -> f64 {
    x - epsilon * x.abs()
}

/// Rows that are not beaten, as (row, whether it is a tie only), in rising order of the first cost.
/// `costs`: two or three columns of equal length.
pub fn frontier(costs: &[&[f64]], epsilon: f64) -> Vec<(usize, bool)> {
    let Some((first, rest)) = costs.split_first() else { return Vec::new() };
    let mut order = candidates(costs, epsilon);
    sort(&mut order, |i| {
        let at = |c: &[f64]| key(c[*i as usize]);
        (at(first), rest.first().map_or(0, |c| at(c)), rest.get(1).map_or(0, |c| at(c)), *i)
    });
    let flat = vec![0.0; if rest.len() < 2 { first.len() } else { 0 }];
    let second = rest.first().copied().unwrap_or(&flat);
    let third = rest.get(1).copied().unwrap_or(&flat);
    let mut stairs = Stairs::default();
    let mut front: Vec<u32> = Vec::new();
    let mut beaten: Vec<u32> = Vec::new();
    for i in order {
        let (b, c) = (second[i as usize], third[i as usize]);
        if stairs.covers(b, c) {
            beaten.push(i);
        } else {
            stairs.add(b, c);
            front.push(i);
        }
    }
    let mut out: Vec<(usize, bool)> = front.iter().map(|i| (*i as usize, false)).collect();
    if epsilon > 0.0 {
        // Beaten rows by their improved first cost, against the part of the frontier that costs no more.
        let better = |c: &[f64], i: u32| improved(c[i as usize], epsilon);
        sort(&mut beaten, |i| (key(better(first, *i)), *i));
        let mut stairs = Stairs::default();
        let mut next = front.iter().peekable();
        for i in beaten {
            while let Some(f) = next.next_if(|f| first[**f as usize] <= better(first, i)) {
                stairs.add(second[*f as usize], third[*f as usize]);
            }
            let third = if rest.len() < 2 { 0.0 } else { better(third, i) };
            if !stairs.covers(better(second, i), third) {
                out.push((i as usize, true));
            }
        }
        out.sort_unstable_by_key(|(i, _)| (key(first[*i]), *i));
    }
    out
}

/// The lower-left staircase of points (b, c): c falls as b rises.
#[derive(Default)]
struct Stairs {
    steps: BTreeMap<i64, i64>,
}

impl Stairs {
    /// Whether a step costs no more in both.
    fn covers(&self, b: f64, c: f64) -> bool {
        self.steps.range(..=key(b)).next_back().is_some_and(|(_, least)| *least <= key(c))
    }

    fn add(&mut self, b: f64, c: f64) {
        if self.covers(b, c) {
            return;
        }
        let (b, c) = (key(b), key(c));
        while let Some((&at, &other)) = self.steps.range(b..).next() {
            if other < c {
                break;
            }
            self.steps.remove(&at);
        }
        self.steps.insert(b, c);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The slow, obvious twin: every row against every other.
    fn twin(costs: &[&[f64]], epsilon: f64) -> Vec<(usize, bool)> {
        let n = costs[0].len();
        let sound = |i: usize| costs.iter().all(|c| !c[i].is_nan());
        let beats = |j: usize, i: usize, at: &dyn Fn(f64) -> f64| {
            let no_more = costs.iter().all(|c| c[j] <= at(c[i]));
            no_more && (costs.iter().any(|c| c[j] < at(c[i])) || j < i)
        };
        let front: Vec<usize> =
            (0..n).filter(|i| sound(*i) && !(0..n).any(|j| j != *i && sound(j) && beats(j, *i, &|x| x))).collect();
        let mut out: Vec<(usize, bool)> = (0..n)
            .filter(|i| sound(*i))
            .filter_map(|i| {
                if front.contains(&i) {
                    return Some((i, false));
                }
                let still = front.iter().any(|j| costs.iter().all(|c| c[*j] <= improved(c[i], epsilon)));
                (epsilon > 0.0 && !still).then_some((i, true))
            })
            .collect();
        out.sort_by(|a, b| costs[0][a.0].total_cmp(&costs[0][b.0]).then(a.0.cmp(&b.0)));
        out
    }

    #[test]
    fn many_rows_lose_nothing_to_the_sample() {
        let mut state = 1u64;
        let mut draw = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f64
        };
        let n = 5 * SAMPLE;
        let columns: Vec<Vec<f64>> = (0..3).map(|_| (0..n).map(|_| draw() - 8e6).collect()).collect();
        let views: Vec<&[f64]> = columns.iter().map(Vec::as_slice).collect();
        for costs in [&views[..2], &views[..]] {
            for epsilon in [0.0, 0.01] {
                let few = candidates(costs, epsilon);
                assert!(few.len() < n / 2);
                let front: Vec<usize> = frontier(costs, epsilon).into_iter().map(|(i, _)| i).collect();
                // Sorting all of them, in chunks small enough to be taken whole.
                let mut all: Vec<usize> = Vec::new();
                for k in 0..5 {
                    let part: Vec<Vec<f64>> = costs.iter().map(|c| c[k * SAMPLE..(k + 1) * SAMPLE].to_vec()).collect();
                    let part: Vec<&[f64]> = part.iter().map(Vec::as_slice).collect();
                    all.extend(frontier(&part, epsilon).into_iter().map(|(i, _)| k * SAMPLE + i));
                }
                let kept: Vec<Vec<f64>> = costs.iter().map(|c| all.iter().map(|i| c[*i]).collect()).collect();
                let kept: Vec<&[f64]> = kept.iter().map(Vec::as_slice).collect();
                assert!(kept[0].len() < 4 * SAMPLE);
                let mut slow: Vec<usize> = frontier(&kept, epsilon).into_iter().map(|(i, _)| all[i]).collect();
                let mut fast = front.clone();
                slow.sort_unstable();
                fast.sort_unstable();
                assert_eq!(fast, slow);
            }
        }
    }

    fn cost() -> impl Strategy<Value = f64> {
        prop_oneof![8 => (0u32..8).prop_map(f64::from), 4 => -5.0..5.0f64, 1 => Just(f64::NAN), 1 => Just(f64::INFINITY)]
    }

    proptest! {
        #[test]
        fn the_twin_agrees(rows in prop::collection::vec((cost(), cost(), cost()), 0..60), epsilon in prop_oneof![Just(0.0), 0.0..0.5f64]) {
            let a: Vec<f64> = rows.iter().map(|r| r.0).collect();
            let b: Vec<f64> = rows.iter().map(|r| r.1).collect();
            let c: Vec<f64> = rows.iter().map(|r| r.2).collect();
            for costs in [vec![&a[..], &b[..]], vec![&a[..], &b[..], &c[..]]] {
                let mut fast = frontier(&costs, epsilon);
                let mut slow = twin(&costs, epsilon);
                // Equal first costs: the order of the frontier is by the other costs, that of the twin by row.
                fast.sort_unstable();
                slow.sort_unstable();
                prop_assert_eq!(fast, slow);
            }
        }
    }
}
