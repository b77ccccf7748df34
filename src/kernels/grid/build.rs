//! From measured points to a full box: outliers out, launch floors off if asked, holes filled, order kept.

use std::collections::BTreeMap;

use super::held::Held;
use super::order::{outliers, relax};
use super::{Axis, Grid, STEPS, Scale, node, slope, strides};
use crate::kernels::roofline::Roofline;
use crate::kernels::surface::{Check, Evidence};

/// Doublings beyond the end of every axis that become nodes.
const OCTAVES: i32 = 5;

/// Measured (or blended) points of one lane.
#[derive(Clone, Debug, Default)]
pub(crate) struct Points {
    /// Coordinates as bits (they are non-negative, so bit order is number order), seconds, evidence.
    map: BTreeMap<[u64; 3], (f64, Evidence)>,
}

impl Points {
    pub fn insert(&mut self, x: [f64; 3], seconds: f64, evidence: Evidence) {
        if seconds.is_finite() && seconds > 0.0 {
            self.map.insert(x.map(f64::to_bits), (seconds, evidence));
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = ([f64; 3], f64, Evidence)> + '_ {
        self.map.iter().map(|(k, v)| (k.map(f64::from_bits), v.0, v.1))
    }

    pub fn get(&self, x: &[f64; 3]) -> Option<f64> {
        self.map.get(&x.map(f64::to_bits)).map(|v| v.0)
    }

    pub fn remove(&mut self, x: &[f64; 3]) {
        self.map.remove(&x.map(f64::to_bits));
    }

    pub fn len(&self) -> usize {
        self.map.len()
    }

    pub fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    /// The points that satisfy a condition on their coordinates.
    pub fn filter(&self, keep: impl Fn(&[f64; 3]) -> bool) -> Points {
        Points { map: self.map.iter().filter(|(k, _)| keep(&k.map(f64::from_bits))).map(|(k, v)| (*k, *v)).collect() }
    }
}

/// What an operator found about the launch floors of a lane, and what is to be done about them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Floors {
    /// The lane has none.
    None,
    /// Measured in eager mode and to be priced so.
    Kept,
    /// Measured in eager mode, to be priced as under a CUDA graph.
    Removed,
}

impl Floors {
    pub fn new(eager: bool, graph: bool) -> Floors {
        match (eager, graph) {
            (false, _) => Floors::None,
            (true, false) => Floors::Kept,
            (true, true) => Floors::Removed,
        }
    }
}

/// How a lane is compiled.
#[derive(Clone, Debug)]
pub(crate) struct Recipe {
    pub scales: Vec<Scale>,
    pub roofline: Roofline,
    pub floors: Floors,
}

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
        let found = outliers(&Work::new(&points, recipe)?);
        if found.is_empty() {
            break;
        }
        for (x, reason) in found {
            points.remove(&x);
            dropped.push(reason);
        }
    }
    let mut work = Work::new(&points, recipe)?;
    let altered = work.order(true);
    let first = (0..work.seconds.len()).find(|&i| work.seconds[i].is_some())?;
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
    let Work { axes, seconds, flags, .. } = work;
    let seconds: Vec<f64> = seconds.into_iter().map(|s| s.unwrap_or(0.0)).collect();
    Some((Grid::new(axes, seconds, flags, recipe.roofline, check), dropped))
}

pub(super) struct Work {
    pub axes: Vec<Axis>,
    strides: [usize; 3],
    pub seconds: Vec<Option<f64>>,
    smooth: Vec<f64>,
    flags: Vec<Evidence>,
    roofline: Roofline,
}

impl Work {
    fn new(points: &Points, recipe: &Recipe) -> Option<Work> {
        if points.is_empty() {
            return None;
        }
        let axes: Vec<Axis> = (0..recipe.scales.len())
            .map(|a| {
                let mut x: Vec<f64> = points.iter().map(|p| p.0[a]).collect();
                x.sort_by(f64::total_cmp);
                x.dedup();
                Axis::new(x, recipe.scales[a])
            })
            .collect();
        let strides = strides(&axes);
        let size = axes.iter().map(|a| a.x.len()).product();
        let mut work = Work {
            strides,
            seconds: vec![None; size],
            smooth: (0..size).map(|i| recipe.roofline.smooth(&node(&axes, &strides, i))).collect(),
            flags: vec![Evidence::Extrapolated; size],
            roofline: recipe.roofline,
            axes,
        };
        for (x, seconds, evidence) in points.iter() {
            let i =
                (0..work.axes.len()).map(|a| work.axes[a].x.partition_point(|&v| v < x[a]) * strides[a]).sum::<usize>();
            work.seconds[i] = Some(seconds);
            work.flags[i] = evidence;
        }
        Some(work)
    }

    /// The same box with empty nodes beyond the end of every axis.
    fn extended(&self) -> Work {
        let axes: Vec<Axis> = self.axes.iter().map(|a| a.extended(OCTAVES)).collect();
        let strides = strides(&axes);
        let size = axes.iter().map(|a| a.x.len()).product();
        let mut work = Work {
            strides,
            seconds: vec![None; size],
            smooth: (0..size).map(|i| self.roofline.smooth(&node(&axes, &strides, i))).collect(),
            flags: vec![Evidence::Extrapolated; size],
            roofline: self.roofline,
            axes,
        };
        for i in 0..self.seconds.len() {
            let j: usize = (0..self.axes.len()).map(|a| self.position(i, a) * strides[a]).sum();
            work.seconds[j] = self.seconds[i];
            work.smooth[j] = self.smooth[i];
            work.flags[j] = self.flags[i];
        }
        work
    }

    pub fn node(&self, i: usize) -> [f64; 3] {
        node(&self.axes, &self.strides, i)
    }

    /// Position of node `i` on axis `a`.
    pub fn position(&self, i: usize, a: usize) -> usize {
        i / self.strides[a] % self.axes[a].x.len()
    }

    /// The nearest node with a value on axis `a`, below (`step` -1) or above (+1) node `i`.
    pub fn neighbour(&self, i: usize, a: usize, up: bool) -> Option<usize> {
        let (mut at, n) = (self.position(i, a), self.axes[a].x.len());
        let mut j = i;
        loop {
            if up {
                at += 1;
                if at >= n {
                    return None;
                }
                j += self.strides[a];
            } else {
                if at == 0 {
                    return None;
                }
                at -= 1;
                j -= self.strides[a];
            }
            if self.seconds[j].is_some() {
                return Some(j);
            }
        }
    }

    pub fn ratio(&self, i: usize) -> f64 {
        self.seconds[i].unwrap_or(0.0) / self.smooth[i]
    }

    /// Estimate of node `i` from both neighbours on axis `a`, and the gap between them in octaves.
    pub fn between(&self, i: usize, a: usize) -> Option<(f64, f64)> {
        let (lo, hi) = (self.neighbour(i, a, false)?, self.neighbour(i, a, true)?);
        let axis = &self.axes[a];
        let (pl, p, ph) = (self.position(lo, a), self.position(i, a), self.position(hi, a));
        let w = (axis.u[p] - axis.u[pl]) / (axis.u[ph] - axis.u[pl]);
        let seconds = self.seconds[lo]? * (1.0 - w) + self.seconds[hi]? * w;
        Some((seconds, ((1.0 + axis.x[ph]) / (1.0 + axis.x[pl])).log2()))
    }

    /// As `between`, the gap widened by how badly the same axis predicts the two neighbours themselves:
    /// of two axes the one that is smoother here counts more.
    fn judged(&self, i: usize, a: usize) -> Option<(f64, f64)> {
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
    fn beyond(&self, i: usize, a: usize) -> Option<(f64, f64)> {
        let lo = self.neighbour(i, a, false)?;
        let t = self.seconds[lo]?;
        let average = t / self.smooth[lo];
        let mut kappa = average;
        let mut low = self.neighbour(lo, a, false);
        // One point alone says nothing about the slope: it counts little beside other axes.
        let trust = if low.is_some() { 1.0 } else { 4.0 };
        let (mut times, mut smooths) = ([t; 4], [self.smooth[lo]; 4]);
        let (mut known, mut from) = (0, self.axes[a].x[self.position(lo, a)]);
        while let (Some(j), true) = (low, known < STEPS.len()) {
            let x = self.axes[a].x[self.position(j, a)];
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
        let least = self.roofline.least(&self.node(i)) - self.roofline.least(&self.node(lo));
        let grown = (kappa * (self.smooth[i] - self.smooth[lo])).max(least).max(0.0);
        let (x0, x1) = (self.axes[a].x[self.position(lo, a)], self.axes[a].x[self.position(i, a)]);
        Some((t + grown, trust * ((1.0 + x1) / (1.0 + x0)).log2()))
    }

    /// Estimate of node `i` below the first value on axis `a`: utilisation held.
    fn before(&self, i: usize, a: usize) -> Option<(f64, f64)> {
        let hi = self.neighbour(i, a, true)?;
        let (x0, x1) = (self.axes[a].x[self.position(i, a)], self.axes[a].x[self.position(hi, a)]);
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
            let mut found: Vec<(usize, f64, Evidence)> = Vec::new();
            for rank in 0..3 {
                for i in 0..self.seconds.len() {
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

    /// Lines of the box along axis `a`, as node indices.
    fn lines(&self, a: usize) -> impl Iterator<Item = Vec<usize>> + '_ {
        let n = self.axes[a].x.len();
        (0..self.seconds.len())
            .filter(move |&i| self.position(i, a) == 0)
            .map(move |i| (0..n).map(|k| i + k * self.strides[a]).collect())
    }

    /// Restores the order along every axis: more is never less than `TOLERANCE` of what came before.
    /// Returns how many measured points had to give way.
    fn order(&mut self, measured_only: bool) -> usize {
        let original = self.seconds.clone();
        for _ in 0..4 {
            let mut changed = false;
            for a in 0..self.axes.len() {
                let lines: Vec<Vec<usize>> = self.lines(a).collect();
                for line in lines {
                    let line: Vec<usize> = line.into_iter().filter(|&i| self.seconds[i].is_some()).collect();
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
            for (i, &before) in original.iter().enumerate() {
                if self.seconds[i] != before {
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
    fn without_floor(&mut self) {
        let Some(first) = (0..self.seconds.len()).find(|&i| self.seconds[i].is_some()) else { return };
        let least = self.roofline.least(&self.node(first));
        let lowest = self.seconds[first].unwrap_or(0.0);
        if lowest <= 3.0 * least + 5e-6 {
            return;
        }
        // The floor is noisy: the upper decile of the times near it where the device has a tenth of it to do.
        let mut small: Vec<f64> = (0..self.seconds.len())
            .filter(|&i| self.roofline.least(&self.node(i)) <= least + 0.1 * lowest)
            .filter_map(|i| self.seconds[i].filter(|&t| t <= 1.5 * lowest))
            .collect();
        small.sort_by(f64::total_cmp);
        let floor = small[(small.len() - 1) * 9 / 10].max(lowest);
        let knee = 1.5 * floor;
        for i in 0..self.seconds.len() {
            let Some(t) = self.seconds[i] else { continue };
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
