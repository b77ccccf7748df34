//! The points that keep all constraints, as a decision diagram: counted, numbered and found without being listed.
//!
//! A node stands for all ways of setting the leading axes after which the constraints ask the same of those behind
//! (`residual`), and has a child for each value of its axis. Nodes that are equal are one (Bryant 1986), and an axis that
//! no constraint reads costs nothing. Points are numbered in the order of the axes, last fastest:
//!
//! ```text
//! points(node) = sum of points(child)          number = points of the children before, at every node on the way
//! ```
//!
//! Limits: the states of the constraints that are open at once, [`limits::STATES`]; a constraint that mixes many axes so
//! that hardly two settings ask the same (a hash, say) has as many states as there are settings.

use rustc_hash::FxHashMap;

use super::expression::Expression;
use super::residual::{Verdict, verdict};
use crate::control::Control;
use crate::error::{Error, Result};
use crate::limits;

/// Nothing keeps the constraints from here on.
const NONE: u32 = u32::MAX;

#[derive(Clone, Debug)]
enum Node {
    /// The end: all is set.
    End,
    /// An axis that no constraint reads.
    Even(u32),
    /// Children by value, and the points before each.
    Listed { children: Box<[u32]>, before: Box<[u64]> },
}

/// Points of the constrained axes.
#[derive(Clone, Debug)]
pub(super) struct Diagram {
    nodes: Vec<Node>,
    points: Vec<u64>,
    root: u32,
}

impl Diagram {
    /// The points of `axes` (the values of each) that keep `constraints`; none: there is no such point.
    ///
    /// # Errors
    /// If there are too many states or points, or the caller asked to stop.
    pub fn new(axes: &[Vec<f64>], constraints: &[&Expression], control: &Control) -> Result<Option<Diagram>> {
        let mut build = Build::new(axes, constraints, control);
        let root = build.descend(0, false)?;
        Ok((root != NONE).then_some(Diagram { nodes: build.nodes, points: build.points, root }))
    }

    /// Whether any point keeps them.
    pub fn any(axes: &[Vec<f64>], constraints: &[&Expression], control: &Control) -> Result<bool> {
        Ok(Build::new(axes, constraints, control).descend(0, true)? != NONE)
    }

    pub fn size(&self) -> u64 {
        self.points[self.root as usize]
    }

    /// Puts the choices of point `i` into `out`, one an axis.
    pub fn choices(&self, mut i: u64, out: &mut [usize]) {
        let mut at = self.root;
        for slot in out {
            match &self.nodes[at as usize] {
                Node::End => return,
                Node::Even(child) => {
                    let each = self.points[*child as usize].max(1);
                    *slot = (i / each) as usize;
                    i %= each;
                    at = *child;
                }
                Node::Listed { children, before } => {
                    // Values without points begin where the next one does: the last that begins there has it.
                    let choice = before.partition_point(|b| *b <= i).saturating_sub(1);
                    *slot = choice;
                    i -= before[choice];
                    at = children[choice];
                }
            }
        }
    }

    /// The number of the point with these choices, if it keeps the constraints.
    pub fn index_of(&self, choices: &[usize]) -> Option<u64> {
        let (mut at, mut number) = (self.root, 0);
        for choice in choices {
            match &self.nodes[at as usize] {
                Node::End => break,
                Node::Even(child) => {
                    number += *choice as u64 * self.points[*child as usize];
                    at = *child;
                }
                Node::Listed { children, before } => {
                    number += before.get(*choice)?;
                    at = *children.get(*choice).filter(|c| **c != NONE)?;
                }
            }
        }
        Some(number)
    }
}

struct Build<'a> {
    axes: &'a [Vec<f64>],
    constraints: &'a [&'a Expression],
    control: &'a Control,
    ranges: Vec<(f64, f64)>,
    read: Vec<bool>,
    choice: Vec<usize>,
    /// By axis: the node of every state met.
    known: Vec<FxHashMap<Box<[u64]>, u32>>,
    states: u64,
    steps: u64,
    /// By axis: the node of every list of children.
    unique: Vec<FxHashMap<Box<[u32]>, u32>>,
    nodes: Vec<Node>,
    points: Vec<u64>,
}

impl<'a> Build<'a> {
    fn new(axes: &'a [Vec<f64>], constraints: &'a [&'a Expression], control: &'a Control) -> Build<'a> {
        let end = |of: fn(f64, f64) -> f64, v: &[f64]| v.iter().copied().reduce(of).unwrap_or(0.0);
        let mut read = vec![false; axes.len()];
        constraints.iter().flat_map(|c| &c.axes).for_each(|a| read[*a] = true);
        Build {
            axes,
            constraints,
            control,
            ranges: axes.iter().map(|v| (end(f64::min, v), end(f64::max, v))).collect(),
            read,
            choice: vec![0; axes.len()],
            known: vec![FxHashMap::default(); axes.len()],
            states: 0,
            steps: 0,
            unique: vec![FxHashMap::default(); axes.len()],
            nodes: vec![Node::End],
            points: vec![1],
        }
    }

    /// What the constraints ask of the axes from `axis` on; none where one fails already.
    fn state(&self, axis: usize) -> Option<Vec<u64>> {
        let mut text = Vec::new();
        let value = |a: usize| self.axes[a][self.choice[a]];
        for (i, c) in self.constraints.iter().enumerate() {
            match verdict(c, axis, value, |a| self.ranges[a], &mut text) {
                Verdict::Holds => {}
                Verdict::Fails => return None,
                // What follows is not what stands before: no place of an expression is so high.
                Verdict::Open => text.push(u64::MAX - i as u64),
            }
        }
        Some(text)
    }

    /// The node of the axes from `axis` on, those before being set; `any`: the first point ends the search.
    fn descend(&mut self, axis: usize, any: bool) -> Result<u32> {
        self.steps += 1;
        if self.steps.is_multiple_of(1024) {
            self.control.check()?;
        }
        let Some(state) = self.state(axis) else { return Ok(NONE) };
        if axis == self.axes.len() {
            return Ok(0);
        }
        if let Some(node) = self.known[axis].get(state.as_slice()) {
            return Ok(*node);
        }
        let radix = self.axes[axis].len();
        let node = if self.read[axis] {
            let mut children = Vec::with_capacity(radix);
            for v in 0..radix {
                self.choice[axis] = v;
                children.push(self.descend(axis + 1, any)?);
                if any && children[v] != NONE {
                    return Ok(children[v]);
                }
            }
            self.listed(axis, children)?
        } else {
            self.choice[axis] = 0;
            let child = self.descend(axis + 1, any)?;
            if child == NONE { NONE } else { self.even(axis, child, radix as u64)? }
        };
        self.states += 1;
        if self.states > limits::STATES.most() {
            let hint = "give the constrained axes fewer values, or part the constraint";
            return Err(limits::STATES.exceeded("where", self.states, hint));
        }
        self.known[axis].insert(state.into_boxed_slice(), node);
        Ok(node)
    }

    fn even(&mut self, axis: usize, child: u32, radix: u64) -> Result<u32> {
        if let Some(node) = self.unique[axis].get([child].as_slice()) {
            return Ok(*node);
        }
        let points = self.points[child as usize].checked_mul(radix).ok_or_else(too_many)?;
        Ok(self.push(axis, vec![child], Node::Even(child), points))
    }

    fn listed(&mut self, axis: usize, children: Vec<u32>) -> Result<u32> {
        if children.iter().all(|c| *c == NONE) {
            return Ok(NONE);
        }
        if let Some(node) = self.unique[axis].get(children.as_slice()) {
            return Ok(*node);
        }
        let mut before = Vec::with_capacity(children.len());
        let mut points = 0u64;
        for c in &children {
            before.push(points);
            let more = if *c == NONE { 0 } else { self.points[*c as usize] };
            points = points.checked_add(more).ok_or_else(too_many)?;
        }
        let node = Node::Listed { children: children.clone().into(), before: before.into() };
        Ok(self.push(axis, children, node, points))
    }

    fn push(&mut self, axis: usize, key: Vec<u32>, node: Node, points: u64) -> u32 {
        let id = self.nodes.len() as u32;
        self.nodes.push(node);
        self.points.push(points);
        self.unique[axis].insert(key.into_boxed_slice(), id);
        id
    }
}

/// The error of a space whose points no number reaches.
pub(super) fn too_many() -> Error {
    Error::spec("axes", "the space has more points than can be numbered", "give fewer values an axis")
}
