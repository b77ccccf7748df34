//! From measured points to a full box: outliers out, launch floors off if asked, holes filled, order kept.

use std::collections::BTreeMap;

use ndarray::{Array3, s};

use super::held::Held;
use super::order::{outliers, relax};
use super::{Axis, Grid, STEPS, Scale, node, shape, slope};
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
    let Work { axes, seconds, flags, .. } = work;
    let seconds = seconds.mapv(|s| s.unwrap_or(0.0));
    Some((Grid::new(axes, seconds, flags, recipe.roofline, check), dropped))
}

/// Where a node stands on each axis.
pub(super) type At = [usize; 3];

pub(super) struct Work {
    pub axes: Vec<Axis>,
    pub seconds: Array3<Option<f64>>,
    smooth: Array3<f64>,
    flags: Array3<Evidence>,
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
        let mut work = Work::empty(axes, recipe.roofline);
        for (x, seconds, evidence) in points.iter() {
            let at = [0, 1, 2].map(|a| work.axes.get(a).map_or(0, |axis| axis.x.partition_point(|&v| v < x[a])));
            work.seconds[at] = Some(seconds);
            work.flags[at] = evidence;
        }
        Some(work)
    }

    fn empty(axes: Vec<Axis>, roofline: Roofline) -> Work {
        let shape = shape(&axes);
        Work {
            seconds: Array3::from_elem(shape, None),
            smooth: Array3::from_shape_fn(shape, |(i, j, k)| roofline.smooth(&node(&axes, [i, j, k]))),
            flags: Array3::from_elem(shape, Evidence::Extrapolated),
            roofline,
            axes,
        }
    }

    /// The same box with empty nodes beyond the end of every axis.
    fn extended(&self) -> Work {
        let mut work = Work::empty(self.axes.iter().map(|a| a.extended(OCTAVES)).collect(), self.roofline);
        let [i, j, k] = shape(&self.axes);
        work.seconds.slice_mut(s![..i, ..j, ..k]).assign(&self.seconds);
        work.flags.slice_mut(s![..i, ..j, ..k]).assign(&self.flags);
        work
    }

    /// All nodes, the last axis fastest.
    pub fn nodes(&self) -> impl Iterator<Item = At> + use<> {
        ndarray::indices(self.seconds.raw_dim()).into_iter().map(|(i, j, k)| [i, j, k])
    }

    /// The first node with a value.
    fn first(&self) -> Option<At> {
        self.nodes().find(|i| self.seconds[*i].is_some())
    }

    pub fn node(&self, i: At) -> [f64; 3] {
        node(&self.axes, i)
    }

    /// The nearest node with a value on axis `a`, below (`step` -1) or above (+1) node `i`.
    pub fn neighbour(&self, mut i: At, a: usize, up: bool) -> Option<At> {
        loop {
            i[a] = if up { i[a] + 1 } else { i[a].checked_sub(1)? };
            if self.seconds.get(i)?.is_some() {
                return Some(i);
            }
        }
    }

    pub fn ratio(&self, i: At) -> f64 {
        self.seconds[i].unwrap_or(0.0) / self.smooth[i]
    }

    /// Estimate of node `i` from both neighbours on axis `a`, and the gap between them in octaves.
    pub fn between(&self, i: At, a: usize) -> Option<(f64, f64)> {
        let (lo, hi) = (self.neighbour(i, a, false)?, self.neighbour(i, a, true)?);
        let axis = &self.axes[a];
        let (pl, p, ph) = (lo[a], i[a], hi[a]);
        let w = (axis.u[p] - axis.u[pl]) / (axis.u[ph] - axis.u[pl]);
        let seconds = self.seconds[lo]? * (1.0 - w) + self.seconds[hi]? * w;
        Some((seconds, ((1.0 + axis.x[ph]) / (1.0 + axis.x[pl])).log2()))
    }

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
        let least = self.roofline.least(&self.node(i)) - self.roofline.least(&self.node(lo));
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
    fn without_floor(&mut self) {
        let Some(first) = self.first() else { return };
        let least = self.roofline.least(&self.node(first));
        let lowest = self.seconds[first].unwrap_or(0.0);
        if lowest <= 3.0 * least + 5e-6 {
            return;
        }
        // The floor is noisy: the upper decile of the times near it where the device has a tenth of it to do.
        let mut small: Vec<f64> = self
            .nodes()
            .filter(|&i| self.roofline.least(&self.node(i)) <= least + 0.1 * lowest)
            .filter_map(|i| self.seconds[i].filter(|&t| t <= 1.5 * lowest))
            .collect();
        small.sort_by(f64::total_cmp);
        let floor = small[(small.len() - 1) * 9 / 10].max(lowest);
        let knee = 1.5 * floor;
        for i in self.nodes() {
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
