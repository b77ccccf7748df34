//! The full box of a lane: every node of its axes, measured or not yet.
//!
//! Limit: at most three axes, and five doublings beyond the last value of each.

use ndarray::{Array3, s};

use super::points::Points;
use super::{Axis, Scale, node, shape};
use crate::kernels::evidence::Evidence;
use crate::kernels::roofline::Roofline;

/// Doublings beyond the end of every axis that become nodes.
const OCTAVES: i32 = 5;

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
    pub(crate) fn new(eager: bool, graph: bool) -> Floors {
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

/// Where a node stands on each axis.
pub(super) type At = [usize; 3];

/// The full box of a lane: its axes, and of every node the time if it is known, what the roofline says, and how well it
/// is known.
pub(super) struct Lattice {
    pub axes: Vec<Axis>,
    pub seconds: Array3<Option<f64>>,
    pub smooth: Array3<f64>,
    pub flags: Array3<Evidence>,
    pub roofline: Roofline,
}

impl Lattice {
    pub(crate) fn new(points: &Points, recipe: &Recipe) -> Option<Lattice> {
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
        let mut work = Lattice::empty(axes, recipe.roofline);
        for (x, seconds, evidence) in points.iter() {
            let at = [0, 1, 2].map(|a| work.axes.get(a).map_or(0, |axis| axis.x.partition_point(|&v| v < x[a])));
            work.seconds[at] = Some(seconds);
            work.flags[at] = evidence;
        }
        Some(work)
    }

    pub(crate) fn empty(axes: Vec<Axis>, roofline: Roofline) -> Lattice {
        let shape = shape(&axes);
        Lattice {
            seconds: Array3::from_elem(shape, None),
            smooth: Array3::from_shape_fn(shape, |(i, j, k)| roofline.smooth(&node(&axes, [i, j, k]))),
            flags: Array3::from_elem(shape, Evidence::Extrapolated),
            roofline,
            axes,
        }
    }

    /// The same box with empty nodes beyond the end of every axis.
    pub(crate) fn extended(&self) -> Lattice {
        let mut work = Lattice::empty(self.axes.iter().map(|a| a.extended(OCTAVES)).collect(), self.roofline);
        let [i, j, k] = shape(&self.axes);
        work.seconds.slice_mut(s![..i, ..j, ..k]).assign(&self.seconds);
        work.flags.slice_mut(s![..i, ..j, ..k]).assign(&self.flags);
        work
    }

    /// All nodes, the last axis fastest.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = At> + use<> {
        ndarray::indices(self.seconds.raw_dim()).into_iter().map(|(i, j, k)| [i, j, k])
    }

    /// The first node with a value.
    pub(crate) fn first(&self) -> Option<At> {
        self.nodes().find(|i| self.seconds[*i].is_some())
    }

    pub(crate) fn node(&self, i: At) -> [f64; 3] {
        node(&self.axes, i)
    }

    /// The nearest node with a value on axis `a`, below (`step` -1) or above (+1) node `i`.
    pub(crate) fn neighbour(&self, mut i: At, a: usize, up: bool) -> Option<At> {
        loop {
            i[a] = if up { i[a] + 1 } else { i[a].checked_sub(1)? };
            if self.seconds.get(i)?.is_some() {
                return Some(i);
            }
        }
    }

    pub(crate) fn ratio(&self, i: At) -> f64 {
        self.seconds[i].unwrap_or(0.0) / self.smooth[i]
    }

    /// Estimate of node `i` from both neighbours on axis `a`, and the gap between them in octaves.
    pub(crate) fn between(&self, i: At, a: usize) -> Option<(f64, f64)> {
        let (lo, hi) = (self.neighbour(i, a, false)?, self.neighbour(i, a, true)?);
        let axis = &self.axes[a];
        let (pl, p, ph) = (lo[a], i[a], hi[a]);
        let w = (axis.u[p] - axis.u[pl]) / (axis.u[ph] - axis.u[pl]);
        let seconds = self.seconds[lo]? * (1.0 - w) + self.seconds[hi]? * w;
        Some((seconds, ((1.0 + axis.x[ph]) / (1.0 + axis.x[pl])).log2()))
    }
}
