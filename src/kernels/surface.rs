//! A compiled kernel time: straight-line evaluation over at most three axes, with evidence.
//!
//! A surface is a small tree over measured grids: a grid, a sum of parts, two regimes of one kernel, or
//! a bare roofline. A kernel stretched over a past and a lane continued with another lane's increments
//! are trees too, but only while building: their values are baked into one grid. A surface is built
//! once and evaluated without allocation; cloning it shares the tables.
//!
//! Limit: three axes; inputs are cut off at 1e12.

use std::sync::Arc;

use super::evidence::{Check, Evidence, Reading};
use super::grid::Grid;
use super::roofline::{Roofline, Work, visible_pairs};

/// Inputs are cut off here: far beyond any table, and small enough that squares stay finite.
const LARGEST: f64 = 1e12;

/// A part of a surface.
#[derive(Clone, Debug)]
pub(crate) enum Node {
    Grid(Arc<Grid>),
    Roofline(Roofline),
    /// The inner node's first axis is the product of the first `axes` axes (tokens = sequences x new).
    Tokens {
        inner: Box<Node>,
        axes: usize,
    },
    Sum(Vec<Node>),
    /// A prefill kernel measured without a past, over (sequences, length), stretched over a past:
    /// T(new, past) = T(full) pairs(new, past)/pairs(full, 0), full = new + past (physics.md section 2);
    /// never below the kernel without its past, nor below its roofline.
    Past {
        inner: Box<Node>,
        window: f64,
        floor: Roofline,
    },
    /// `lane` up to `anchor` tokens of past, beyond it plus the growth of `donor` from there.
    Increment {
        lane: Box<Node>,
        donor: Box<Node>,
        anchor: f64,
    },
    /// One kernel while new + past <= split, another beyond (DSA: dense attention, then the indexer).
    Regimes {
        split: f64,
        below: Box<Node>,
        above: Box<Node>,
    },
    /// A kernel of one axis whose utilisation is held beyond its last row: T(end) times the ratio of what the
    /// roofline's arithmetic or traffic, whichever is longer, takes at the two sizes.
    Held {
        inner: Box<Node>,
        end: f64,
        work: Work,
    },
    /// A kernel on a device that nobody measured: the time on the measured one, times the ratio of the
    /// two rooflines (the utilisation is held). Known no better than scaled.
    Scaled {
        inner: Box<Node>,
        from: Box<Node>,
        to: Box<Node>,
    },
}

impl Node {
    /// Checks of the lane's own grids (not of a donor's).
    fn checks(&self, found: &mut Vec<Check>) {
        match self {
            Node::Grid(g) => found.push(g.check),
            Node::Roofline(_) => {}
            Node::Tokens { inner, .. }
            | Node::Past { inner, .. }
            | Node::Held { inner, .. }
            | Node::Scaled { inner, .. } => inner.checks(found),
            Node::Sum(parts) => parts.iter().for_each(|p| p.checks(found)),
            Node::Increment { lane, .. } => lane.checks(found),
            Node::Regimes { below, above, .. } => {
                below.checks(found);
                above.checks(found);
            }
        }
    }

    pub(crate) fn eval(&self, x: &[f64; 3]) -> Reading {
        match self {
            Node::Grid(g) => g.eval(x),
            Node::Roofline(r) => Reading { seconds: r.least(x), evidence: Evidence::Roofline },
            Node::Tokens { inner, axes } => inner.eval(&[x[..*axes].iter().product(), 0.0, 0.0]),
            Node::Sum(parts) => {
                let mut total = Reading { seconds: 0.0, evidence: Evidence::Measured };
                let mut largest = 0.0;
                for part in parts {
                    let r = part.eval(x);
                    total.seconds += r.seconds;
                    if r.seconds > largest {
                        largest = r.seconds;
                        total.evidence = r.evidence;
                    }
                }
                total
            }
            Node::Past { inner, window, floor } => {
                let alone = inner.eval(&[x[0], x[1], 0.0]);
                if x[2] <= 0.0 {
                    return alone;
                }
                let full = x[1] + x[2];
                let whole = inner.eval(&[x[0], full, 0.0]);
                let share = visible_pairs(x[1], x[2], *window) / visible_pairs(full, 0.0, *window);
                let seconds = (whole.seconds * share).max(alone.seconds).max(floor.least(x));
                Reading { seconds, evidence: whole.evidence.max(alone.evidence).max(Evidence::Interpolated) }
            }
            Node::Increment { lane, donor, anchor } => {
                if x[2] <= *anchor {
                    return lane.eval(x);
                }
                let at = [x[0], x[1], *anchor];
                let base = lane.eval(&at);
                let (from, to) = (donor.eval(&at), donor.eval(x));
                let grown = (to.seconds - from.seconds).max(0.0);
                let mut evidence = base.evidence.max(Evidence::Interpolated);
                if grown > base.seconds {
                    // A floor-free donor is tagged as roofline near its own floor; its growth is measured.
                    evidence = evidence.max(to.evidence.min(Evidence::Extrapolated));
                }
                Reading { seconds: base.seconds + grown, evidence }
            }
            Node::Regimes { split, below, above } => {
                if x[1] + x[2] > *split {
                    return above.eval(x);
                }
                below.eval(x)
            }
            Node::Held { inner, end, work } => {
                if x[0] <= *end {
                    return inner.eval(x);
                }
                let size = |x: f64| {
                    let (math, memory) = work.times(&[x, 0.0, 0.0]);
                    math.max(memory)
                };
                let last = inner.eval(&[*end, 0.0, 0.0]);
                let evidence = last.evidence.max(Evidence::Extrapolated);
                Reading { seconds: last.seconds * size(x[0]) / size(*end), evidence }
            }
            Node::Scaled { inner, from, to } => {
                let ratio = to.eval(x).seconds / from.eval(x).seconds;
                let there = inner.eval(x);
                Reading { seconds: there.seconds * ratio, evidence: there.evidence.max(Evidence::Scaled) }
            }
        }
    }
}

/// A kernel time over up to three axes; built once by `kernels::ops`, evaluated without allocation.
#[derive(Clone, Debug)]
pub struct Surface {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    node: Node,
    source: String,
    /// Points of the lane that were not used, each with its reason.
    dropped: Vec<String>,
    checks: Vec<Check>,
}

impl Surface {
    pub(crate) fn new(node: Node, source: impl Into<String>, dropped: Vec<String>) -> Surface {
        let mut checks = Vec::new();
        node.checks(&mut checks);
        Surface { inner: Arc::new(Inner { node, source: source.into(), dropped, checks }) }
    }

    /// Another node made of this surface's lane: what was found out about the lane stays.
    pub(crate) fn with(&self, node: Node, source: impl Into<String>) -> Surface {
        let (dropped, checks) = (self.inner.dropped.clone(), self.inner.checks.clone());
        Surface { inner: Arc::new(Inner { node, source: source.into(), dropped, checks }) }
    }

    /// The same kernel of one axis with its utilisation of `work` held beyond its last row; a bare roofline
    /// as it is.
    pub(crate) fn held(&self, work: Work) -> Surface {
        let Node::Grid(grid) = &self.inner.node else { return self.clone() };
        let Some(axis) = grid.axes.first().filter(|_| grid.axes.len() == 1) else { return self.clone() };
        let inner = Box::new(self.inner.node.clone());
        let node = Node::Held { inner, end: axis.end, work };
        self.with(node, self.inner.source.clone())
    }

    /// The same kernel on another device, from the rooflines of both.
    pub(crate) fn on_device(&self, from: &Surface, to: &Surface, device: &str) -> Surface {
        let part = |s: &Surface| Box::new(s.inner.node.clone());
        let node = Node::Scaled { inner: part(self), from: part(from), to: part(to) };
        self.with(node, format!("{} scaled to {device} by roofline", self.inner.source))
    }

    /// What building its grids found, for the evidence report.
    pub(crate) fn checks(&self) -> &[Check] {
        &self.inner.checks
    }

    /// Whether it rests on rows of a table at all; else it is a bare roofline.
    pub fn is_measured(&self) -> bool {
        !self.inner.checks.is_empty()
    }

    pub(crate) fn node(&self) -> &Node {
        &self.inner.node
    }

    /// Time at `x` (one value per axis, in the order the constructor in `ops` documents; missing axes are zero).
    /// Any positive input gives a positive finite time.
    pub fn at(&self, x: &[f64]) -> Reading {
        let mut y = [0.0; 3];
        for (to, from) in y.iter_mut().zip(x) {
            // Also turns a NaN into zero.
            *to = if *from > 0.0 { from.min(LARGEST) } else { 0.0 };
        }
        self.inner.node.eval(&y)
    }

    /// Lane the numbers come from: framework, version, table, kernel source (for explain()).
    pub fn source(&self) -> &str {
        &self.inner.source
    }

    /// Measured points of the lane that were found to be outliers and are not used.
    pub fn dropped(&self) -> &[String] {
        &self.inner.dropped
    }
}
