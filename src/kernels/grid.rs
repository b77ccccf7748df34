//! A measured grid over up to three axes and its evaluation.
//!
//! Inside: the times themselves, multilinear in the scaled coordinates of the axes. Leave-one-out on
//! b200 and h200 prefers that to blending ratios to the roofline and to log or square-root coordinates
//! on every table and axis (MoE 2.6 against 2.8 %, DSA batch 2 against 4 %, decode batch 3 against 5 %),
//! with one exception: the length of a prefill kernel, whose time is a parabola, is interpolated in
//! x (1 + x/2048) (isl of attention 2.0-3.7 % against 3.5-6.6 %). It also keeps the order of the nodes.
//! Beyond an axis: the marginal cost goes on, T(x) = T(edge) + kappa [S(x) - S(edge)], where S is the
//! smooth roofline and kappa the measured slope at the end of the line against it; so a linear roofline
//! gives slope continuation, and a quadratic or saturating one is followed. Never less than what the
//! roofline itself grows by. The first octaves of that are nodes like the others, so that the order of
//! the nodes holds among them too. Below an axis: the smallest point's value. Continuous everywhere.
//!
//! Limit: kernels that change between two nodes are read as a straight line; beyond five doublings the last slope goes
//! on.

pub(crate) mod build;
pub(crate) mod held;
pub(crate) mod lattice;
mod order;
pub(crate) mod points;

use ndarray::Array3;

use super::evidence::{Check, Evidence, Reading};
use super::roofline::Roofline;

/// Coordinate in which an axis is interpolated.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Scale {
    Linear,
    /// x (1 + x/k): a time that is linear in short sequences and quadratic in long ones.
    Parabola(f64),
}

impl Scale {
    pub(crate) fn apply(self, x: f64) -> f64 {
        match self {
            Scale::Linear => x,
            Scale::Parabola(k) => x * (1.0 + x / k),
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Axis {
    pub x: Vec<f64>,
    u: Vec<f64>,
    scale: Scale,
    /// Last measured value; the nodes beyond it continue the slope, octave by octave.
    pub end: f64,
    /// Nodes below the edge, about an octave apart: the slope beyond the edge is judged between them.
    anchors: [f64; 3],
}

struct Place {
    index: usize,
    weight: f64,
    clamped: f64,
    outside: bool,
}

impl Axis {
    pub(crate) fn new(x: Vec<f64>, scale: Scale) -> Axis {
        let last = x.last().copied().unwrap_or(0.0);
        let mut from = last;
        let anchors = STEPS.map(|step| {
            from = x.iter().rev().copied().find(|&v| v <= step * from).unwrap_or(x[0]);
            from
        });
        Axis { end: last, u: x.iter().map(|&v| scale.apply(v)).collect(), x, scale, anchors }
    }

    /// The axis with `octaves` doublings beyond its end.
    pub(crate) fn extended(&self, octaves: i32) -> Axis {
        let mut x = self.x.clone();
        x.extend((1..=octaves).map(|o| self.end * 2f64.powi(o)).filter(|&v| v > self.end));
        Axis { end: self.end, ..Axis::new(x, self.scale) }
    }

    fn place(&self, x: f64) -> Place {
        let n = self.x.len();
        let last = self.x[n - 1];
        if x >= last {
            return Place { index: n - 1, weight: 0.0, clamped: last, outside: x > self.end };
        }
        if x <= self.x[0] {
            return Place { index: 0, weight: 0.0, clamped: self.x[0], outside: x < self.x[0] };
        }
        let index = self.x.partition_point(|&v| v <= x) - 1;
        if self.x[index] == x {
            return Place { index, weight: 0.0, clamped: x, outside: x > self.end };
        }
        let u = self.scale.apply(x);
        let weight = (u - self.u[index]) / (self.u[index + 1] - self.u[index]);
        Place { index, weight, clamped: x, outside: x > self.end }
    }
}

/// A full box of nodes; holes of the measurement are filled at build time and flagged.
#[derive(Clone, Debug)]
pub(crate) struct Grid {
    pub axes: Vec<Axis>,
    /// One dimension an axis; those beyond the axes have one place.
    seconds: Array3<f64>,
    flags: Array3<Evidence>,
    pub roofline: Roofline,
    pub check: Check,
}

impl Grid {
    pub(crate) fn new(
        axes: Vec<Axis>,
        seconds: Array3<f64>,
        flags: Array3<Evidence>,
        roofline: Roofline,
        check: Check,
    ) -> Grid {
        Grid { axes, seconds, flags, roofline, check }
    }

    fn inside(&self, places: &[Place; 3]) -> (f64, Evidence) {
        let dims = self.axes.len();
        let base = [0, 1, 2].map(|a| places[a].index);
        let mut total = 0.0;
        let mut evidence = self.flags[base];
        let mut heaviest = 0.0;
        let mut exact = true;
        for corner in 0..(1usize << dims) {
            let mut weight = 1.0;
            let mut at = base;
            for (a, place) in places.iter().enumerate().take(dims) {
                if corner >> a & 1 == 1 {
                    weight *= place.weight;
                    at[a] += 1;
                } else {
                    weight *= 1.0 - place.weight;
                }
            }
            if weight <= 0.0 {
                continue;
            }
            exact &= weight >= 1.0;
            total += weight * self.seconds[at];
            if weight > heaviest {
                heaviest = weight;
                evidence = self.flags[at];
            }
        }
        (total, if exact { evidence } else { evidence.max(Evidence::Interpolated) })
    }

    pub(crate) fn eval(&self, x: &[f64; 3]) -> Reading {
        let dims = self.axes.len();
        let none = || Place { index: 0, weight: 0.0, clamped: 0.0, outside: false };
        let mut places = [none(), none(), none()];
        let mut at = [0.0; 3];
        let mut outside = false;
        let mut beyond = false;
        for a in 0..dims {
            places[a] = self.axes[a].place(x[a]);
            at[a] = places[a].clamped;
            outside |= places[a].outside;
            beyond |= x[a] > at[a];
        }
        let (edge, evidence) = self.inside(&places);
        if !outside {
            return Reading { seconds: edge, evidence };
        }
        let evidence = evidence.max(Evidence::Extrapolated);
        if !beyond {
            return Reading { seconds: edge, evidence };
        }
        let s_edge = self.roofline.smooth(&at);
        let mut seconds = edge;
        let mut here = at;
        for a in 0..dims {
            if x[a] <= at[a] {
                continue;
            }
            // Slope over the last octave of this axis, the other coordinates where they are.
            let axis = &self.axes[a];
            let mut kappa = edge / s_edge;
            let (mut times, mut smooths) = ([edge; 4], [s_edge; 4]);
            let mut known = 0;
            for (i, anchor) in axis.anchors.iter().enumerate() {
                let above = if i == 0 { at[a] } else { axis.anchors[i - 1] };
                if *anchor >= above {
                    break;
                }
                let mut low = at;
                low[a] = *anchor;
                let keep = std::mem::replace(&mut places[a], axis.place(*anchor));
                times[i + 1] = self.inside(&places).0;
                smooths[i + 1] = self.roofline.smooth(&low);
                places[a] = keep;
                known = i + 1;
            }
            if known > 0 {
                kappa = slope(&times[..=known], &smooths[..=known], self.roofline.launch);
            }
            let mut next = here;
            next[a] = x[a];
            let smooth = self.roofline.smooth(&next) - self.roofline.smooth(&here);
            let least = self.roofline.bound(&next) - self.roofline.bound(&here);
            seconds += (kappa * smooth).max(least).max(0.0);
            here = next;
        }
        Reading { seconds, evidence }
    }
}

/// How far below the one before it the next anchor must lie: a fifth, then an octave each.
const STEPS: [f64; 3] = [0.81, 0.51, 0.51];

/// The measured slope against the smooth roofline's at the end of a line, from up to four points of
/// it, the edge first. Where the line bends upwards all the way its last octave is the marginal cost;
/// else a step of the launch floor or noise lies in it and the median of its slopes is taken. Never
/// below what overlap of arithmetic and traffic explains, never above a few times the average over
/// the work proper (launches left out).
pub(crate) fn slope(times: &[f64], smooths: &[f64], launch: f64) -> f64 {
    let n = times.len() - 1;
    let mut slopes = [0.0; 3];
    for i in 0..n {
        let ds = smooths[i] - smooths[i + 1];
        slopes[i] = if ds > 0.0 { (times[i] - times[i + 1]) / ds } else { times[0] / smooths[0] };
    }
    let slopes = &mut slopes[..n];
    let bends_up = slopes.windows(2).all(|w| w[0] >= w[1]);
    let kappa = if bends_up {
        // The first two anchors span the last octave.
        let far = n.min(2);
        let ds = smooths[0] - smooths[far];
        if ds > 0.0 { (times[0] - times[far]) / ds } else { slopes[0] }
    } else {
        slopes.sort_by(f64::total_cmp);
        (slopes[(n - 1) / 2] + slopes[n / 2]) / 2.0
    };
    kappa.clamp(0.6, (4.0 * times[0] / (smooths[0] - launch).max(1e-12)).max(0.6))
}

/// Nodes along each axis.
pub(crate) fn shape(axes: &[Axis]) -> [usize; 3] {
    [0, 1, 2].map(|a| axes.get(a).map_or(1, |axis| axis.x.len()))
}

/// Coordinates of a node.
pub(crate) fn node(axes: &[Axis], at: [usize; 3]) -> [f64; 3] {
    [0, 1, 2].map(|a| axes.get(a).map_or(0.0, |axis| axis.x[at[a]]))
}
