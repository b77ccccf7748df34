//! From measured points to a full box: outliers out, launch floors off if asked, holes filled, order kept.
//!
//! Limit: one lane at a time; a hole that no neighbour reaches is filled by utilisation or slope, never by another
//! lane.

use super::held::Held;
use super::lattice::{At, Floors, Lattice, Recipe};
use super::order::{outliers, relax};
use super::points::Points;
use super::{Grid, STEPS, slope};
use crate::kernels::evidence::{Check, Evidence};

/// The compiled grid and the points that were left out, each with its reason; `None` without points.
pub(crate) fn build(points: &Points, recipe: &Recipe) -> Option<(Grid, Vec<String>)> {
    build_held(points, recipe, None)
}

/// The same; with `held`, nodes that no row reaches hold a utilisation instead of continuing a slope.
pub(crate) fn build_held(points: &Points, recipe: &Recipe, held: Option<&Held>) -> Option<(Grid, Vec<String>)> {
    let mut points = points.clone();
    let mut dropped = Vec::new();
    // Points on a whole bad line only show once the next line is gone: a few rounds.
    for _ in 0..3 {
        let found = outliers(&Lattice::new(&points, recipe)?);
        if found.is_empty() {
            break;
        }
        for (x, reason) in found {
            points.remove(&x);
            dropped.push(reason);
        }
    }
    let mut work = Lattice::new(&points, recipe)?;
    let altered = work.order(true);
    let first = work.first()?;
    let check = Check {
        floor: work.seconds[first].unwrap_or(0.0),
        least: recipe.roofline.least(&work.node(first)),
        eager: recipe.floors != Floors::None,
        altered,
        points: points.len(),
    };
    if recipe.floors == Floors::Removed {
        work.without_floor();
    }
    work.fill(held);
    work.order(false);
    let mut work = work.extended();
    work.fill(held);
    work.order(false);
    let Lattice { axes, seconds, flags, .. } = work;
    let seconds = seconds.mapv(|s| s.unwrap_or(0.0));
    Some((Grid::new(axes, seconds, flags, recipe.roofline, check), dropped))
}

impl Lattice {
    /// As `between`, the gap widened by how badly the same axis predicts the two neighbours themselves:
    /// of two axes the one that is smoother here counts more.
    fn judged(&self, i: At, a: usize) -> Option<(f64, f64)> {
        let (seconds, gap) = self.between(i, a)?;
        let mut error = 0.01;
        for up in [false, true] {
            let j = self.neighbour(i, a, up)?;
            if let (Some((e, _)), Some(t)) = (self.between(j, a), self.seconds[j]) {
                error += (e / t).ln().abs();
            }
        }
        Some((seconds, gap * error))
    }

    /// Estimate of node `i` beyond the last value on axis `a`: the marginal cost goes on.
    fn beyond(&self, i: At, a: usize) -> Option<(f64, f64)> {
        let lo = self.neighbour(i, a, false)?;
        let t = self.seconds[lo]?;
        let average = t / self.smooth[lo];
        let mut kappa = average;
        let mut low = self.neighbour(lo, a, false);
        // One point alone says nothing about the slope: it counts little beside other axes.
        let trust = if low.is_some() { 1.0 } else { 4.0 };
        let (mut times, mut smooths) = ([t; 4], [self.smooth[lo]; 4]);
        let (mut known, mut from) = (0, self.axes[a].x[lo[a]]);
        while let (Some(j), true) = (low, known < STEPS.len()) {
            let x = self.axes[a].x[j[a]];
            let next = self.neighbour(j, a, false);
            if x <= STEPS[known] * from || next.is_none() {
                (times[known + 1], smooths[known + 1], from) = (self.seconds[j]?, self.smooth[j], x);
                known += 1;
            }
            low = next;
        }
        if known > 0 {
            kappa = slope(&times[..=known], &smooths[..=known], self.roofline.launch);
        }
        let least = self.roofline.bound(&self.node(i)) - self.roofline.bound(&self.node(lo));
        let grown = (kappa * (self.smooth[i] - self.smooth[lo])).max(least).max(0.0);
        let (x0, x1) = (self.axes[a].x[lo[a]], self.axes[a].x[i[a]]);
        Some((t + grown, trust * ((1.0 + x1) / (1.0 + x0)).log2()))
    }

    /// Estimate of node `i` below the first value on axis `a`: utilisation held.
    fn before(&self, i: At, a: usize) -> Option<(f64, f64)> {
        let hi = self.neighbour(i, a, true)?;
        let (x0, x1) = (self.axes[a].x[i[a]], self.axes[a].x[hi[a]]);
        Some((self.seconds[hi]? * self.smooth[i] / self.smooth[hi], ((1.0 + x1) / (1.0 + x0)).log2()))
    }

    fn combine(estimates: impl Iterator<Item = (f64, f64)>) -> Option<f64> {
        let (mut sum, mut weights) = (0.0, 0.0);
        for (seconds, gap) in estimates {
            let w = 1.0 / (gap * gap).max(1e-12);
            sum += w * seconds.ln();
            weights += w;
        }
        (weights > 0.0).then(|| (sum / weights).exp())
    }

    /// Values for every hole: between neighbours where there are, else the slope goes on, else utilisation is held
    /// (with `held`: as that holds it, instead of both).
    fn fill(&mut self, held: Option<&Held>) {
        let dims = self.axes.len();
        while self.seconds.iter().any(Option::is_none) {
            let mut found: Vec<(At, f64, Evidence)> = Vec::new();
            for rank in 0..3 {
                for i in self.nodes() {
                    if self.seconds[i].is_some() {
                        continue;
                    }
                    let estimate = match rank {
                        0 => Self::combine((0..dims).filter_map(|a| self.judged(i, a))),
                        1 if held.is_some() => held.and_then(|h| h.seconds(&self.node(i))),
                        1 => Self::combine((0..dims).filter_map(|a| self.beyond(i, a))),
                        _ => Self::combine((0..dims).filter_map(|a| self.before(i, a))),
                    };
                    if let Some(seconds) = estimate {
                        let evidence = if rank == 0 { Evidence::Interpolated } else { Evidence::Extrapolated };
                        found.push((i, seconds, evidence));
                    }
                }
                if !found.is_empty() {
                    break;
                }
            }
            if found.is_empty() {
                // Cannot happen while one value exists: some hole shares a line with it or with a filled one.
                return;
            }
            for (i, seconds, evidence) in found {
                self.seconds[i] = Some(seconds);
                self.flags[i] = self.flags[i].min(evidence).max(evidence);
            }
        }
    }

    /// Lines of the box along axis `a`, node by node.
    fn lines(&self, a: usize) -> impl Iterator<Item = Vec<At>> + use<> {
        let n = self.axes[a].x.len();
        let along = move |mut i: At, k: usize| {
            i[a] = k;
            i
        };
        self.nodes().filter(move |i| i[a] == 0).map(move |i| (0..n).map(|k| along(i, k)).collect())
    }

    /// Restores the order along every axis: more is never less than `TOLERANCE` of what came before.
    /// Returns how many measured points had to give way.
    fn order(&mut self, measured_only: bool) -> usize {
        let original = self.seconds.clone();
        for _ in 0..4 {
            let mut changed = false;
            for a in 0..self.axes.len() {
                for line in self.lines(a) {
                    let line: Vec<At> = line.into_iter().filter(|&i| self.seconds[i].is_some()).collect();
                    let mut t: Vec<f64> = line.iter().filter_map(|&i| self.seconds[i]).collect();
                    let weight: Vec<f64> = line
                        .iter()
                        .map(|&i| if self.flags[i] <= Evidence::Interpolated { 1.0 } else { 0.05 })
                        .collect();
                    if relax(&mut t, &weight) {
                        changed = true;
                        for (&i, t) in line.iter().zip(t) {
                            self.seconds[i] = Some(t);
                        }
                    }
                }
            }
            if !changed {
                break;
            }
        }
        let mut altered = 0;
        if measured_only {
            for i in self.nodes() {
                if self.seconds[i] != original[i] {
                    altered += 1;
                    self.flags[i] = self.flags[i].max(Evidence::Interpolated);
                }
            }
        }
        altered
    }

    /// `launch="graph"` of a lane that its operator found to be an eager one: where the floor exceeds
    /// 3x its own roofline + 5 us, times near the floor are the host's, not the device's. An asynchronous launch costs max(host, device): at 1.5
    /// floors and more the time is the device's and stays; from there the time falls in a straight
    /// line to the roofline at the floor itself. (Subtracting the floor everywhere would take half of
    /// a GEMM that three other frameworks confirm.)
    ///
    /// Over a past (three axes) each past has a floor of its own, up to 1.5 times the lowest: the host takes longer for a
    /// long one, whatever the number of new tokens (sglang's sparse attention on b200: 1.39 ms a layer for 4 to 512 of them
    /// up to 65,536 cached tokens, 1.82 at 131,072).
    fn without_floor(&mut self) {
        let Some(first) = self.first() else { return };
        let least = self.roofline.least(&self.node(first));
        let lowest = self.seconds[first].unwrap_or(0.0);
        if lowest <= 3.0 * least + 5e-6 {
            return;
        }
        // The floor is noisy: the upper decile of the times near it where the device has a tenth of it to do.
        let floor_of = |lattice: &Lattice, past: Option<usize>, lowest: f64| {
            let mut small: Vec<f64> = lattice
                .nodes()
                .filter(|i| past.is_none_or(|p| i[2] == p))
                .filter(|&i| lattice.roofline.least(&lattice.node(i)) <= least + 0.1 * lowest)
                .filter_map(|i| lattice.seconds[i].filter(|&t| t <= 1.5 * lowest))
                .collect();
            small.sort_by(f64::total_cmp);
            small.get(small.len().saturating_sub(1) * 9 / 10).map_or(lowest, |t| t.max(lowest))
        };
        let whole = floor_of(self, None, lowest);
        let mut floors = vec![whole; self.axes.get(2).map_or(1, |past| past.x.len())];
        for past in 1..floors.len() {
            let here = self.nodes().filter(|i| i[2] == past).find_map(|i| self.seconds[i]);
            let here = here
                .filter(|t| *t > 1.1 * whole && *t <= 1.5 * lowest)
                .map_or(whole, |t| floor_of(self, Some(past), t));
            // It does not fall with a longer past.
            floors[past] = here.max(floors[past - 1]);
        }
        for i in self.nodes() {
            let (Some(t), floor) = (self.seconds[i], floors[i[2]]) else { continue };
            let knee = 1.5 * floor;
            if t >= knee {
                continue;
            }
            let bound = self.roofline.least(&self.node(i));
            let share = ((t - floor) / (knee - floor)).max(0.0);
            let graph = (least + share * (knee - least)).max(bound).min(t);
            if graph < 0.95 * t {
                self.flags[i] = Evidence::Roofline;
            }
            self.seconds[i] = Some(graph);
        }
    }
}
