//! The true optimum of a space: every point is priced, or a bound proves that it cannot be the best.
//!
//! Best-first branch and bound in rounds. A point is left out only if
//! - memory: a point of the same plan with a batch and a chunk no larger does not fit (`cost::memory`:
//!   bytes are a sum of terms that never fall with sequences or tokens in flight);
//! - slot, replica: the slot of P/D that it shares, or one replica of it, does not stand alone;
//! - gpus: it needs more GPUs than its cluster has, which the engine refuses;
//! - objective, constraint: its bounds (`bound`) cannot reach the best, or cannot keep a limit.
//!
//! Points that no server starts (`spec::rules`) cannot win and are not priced, unless that is lifted.
//! Everything else - TPOT of P/D, and batch, chunk and layout of a plan without slots - has no
//! bound that holds for every table (measured grids rise only within their noise), and is enumerated.
//! Rounds are of fixed sizes, so what is priced does not depend on the number of threads. Points
//! within `TIE` of the best are all priced and told.
//!
//! Limit: nothing between the listed values, and only as true as the prices: an optimum of the model, not of a server.

mod answer;
mod bound;
mod corner;
mod goal;
mod measure;
mod simulated;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rayon::prelude::*;

pub use self::goal::Goal;
pub use self::simulated::{Requests, Simulated};

use self::bound::{Bounds, Proof, Verdict};
use self::corner::Corner;
use crate::columns::{Column, Columns};
use crate::control::Control;
use crate::design::{Metric, Outcome, Priced, Space, columns, price_rows};
use crate::error::{Error, Result};
use crate::kernels::KernelDb;
use crate::serving::Binding;

/// Points whose objective is as near as this are ties.
pub const TIE: f64 = 1e-9;
/// Points bounded and sorted at a time, points priced in the first round, and how many times as many in the largest.
const CHUNK: u64 = 1 << 20;
const ROUND: usize = 64;
const LARGEST: usize = 64;
const BLOCK: usize = 4096;

/// A search and how far it is; a stopped one keeps what it has.
pub struct Search {
    pub space: Arc<Space>,
    pub goal: Goal,
    points: Points,
    chunk: u64,
    round: usize,
    runnable: bool,
    state: Mutex<State>,
}

/// All points of the space, or some in rising order.
enum Points {
    All(u64),
    Some(Vec<u64>),
}

impl Points {
    /// Some points of a space, or all.
    fn new(space: &Space, points: Option<Vec<u64>>) -> Result<Points> {
        let points = match points {
            Some(mut some) => {
                space.check_points(&some)?;
                some.sort_unstable();
                some.dedup();
                Points::Some(some)
            }
            None => Points::All(space.size()),
        };
        if points.len() == 0 {
            return Err(Error::spec("space", "has no points", "widen it, or drop a constraint"));
        }
        Ok(points)
    }

    fn len(&self) -> u64 {
        match self {
            Points::All(n) => *n,
            Points::Some(v) => v.len() as u64,
        }
    }

    fn slice(&self, from: u64, to: u64) -> Vec<u64> {
        match self {
            Points::All(_) => (from..to).collect(),
            Points::Some(v) => v[from as usize..to as usize].to_vec(),
        }
    }
}

#[derive(Default)]
struct State {
    priced: BTreeMap<u64, (Priced, Vec<bool>)>,
    /// Points left out, by why; constraints by their number.
    pruned: BTreeMap<Proof, u64>,
    broken: Vec<u64>,
    best: Option<(f64, u64)>,
    /// Corners (batch, chunk) that do not fit, by the choices on all other axes.
    full: BTreeMap<u64, Vec<[f64; 2]>>,
    complete: bool,
}

/// A point that may still be the best.
struct Candidate {
    hope: f64,
    /// 0: the smallest batch and chunk of its plan, priced before others of equal hope.
    rank: u8,
    point: u64,
}

/// Whether a point of this hope can neither beat nor equal the best.
fn hopeless(hope: f64, best: Option<(f64, u64)>) -> bool {
    best.is_some_and(|(best, _)| hope < best - TIE * best.abs())
}

impl Search {
    /// `points`: of the space; none: all.
    pub fn new(space: Arc<Space>, points: Option<Vec<u64>>, objective: &str, constraints: &[String]) -> Result<Search> {
        let goal = Goal::new(&space, objective, constraints)?;
        let points = Points::new(&space, points)?;
        let state = State { broken: vec![0; goal.constraints.len()], ..State::default() };
        Ok(Search { space, goal, points, chunk: CHUNK, round: ROUND, runnable: true, state: Mutex::new(state) })
    }

    /// Whether only points that a server starts may win (the rule, unless it is lifted here).
    pub fn runnable(mut self, only: bool) -> Search {
        self.runnable = only;
        self
    }

    /// Bounds and sorts `chunk` points at a time, and prices `round` of them in the first round; the optimum is the same.
    pub fn in_pieces(mut self, chunk: u64, round: usize) -> Search {
        (self.chunk, self.round) = (chunk.max(1), round.max(1));
        self
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The metric that is made as good as possible, and whether more of it is better.
    pub fn objective(&self) -> (String, bool) {
        (self.goal.metric.name().to_string(), self.goal.maximise)
    }

    /// Goes through the whole space; stopped, it keeps the rounds that are done.
    pub fn run(&self, db: &Arc<KernelDb>, control: &Control) -> Result<()> {
        let total = self.points.len();
        control.set_total(total);
        let corner = Corner::of(&self.space);
        let mut bounds = Bounds::new(&self.space);
        let mut from = 0;
        while from < total {
            let to = (from + self.chunk).min(total);
            let points = self.points.slice(from, to);
            bounds.learn(db, &self.space, &points, control)?;
            let candidates = self.candidates(&bounds, corner.as_ref(), &points, control)?;
            self.rounds(db, &candidates, corner.as_ref(), control)?;
            from = to;
        }
        self.state().complete = true;
        Ok(())
    }

    /// Points that nothing rules out, the most hopeful first.
    fn candidates(
        &self,
        bounds: &Bounds,
        corner: Option<&Corner>,
        points: &[u64],
        control: &Control,
    ) -> Result<Vec<Candidate>> {
        let best = self.state().best;
        let blocks: Vec<Result<(Vec<Candidate>, State)>> = crate::pool::install(|| {
            let block = |block: &[u64]| {
                control.check()?;
                let mut left = State { broken: vec![0; self.goal.constraints.len()], ..State::default() };
                let mut found = Vec::new();
                for &point in block {
                    let choices = self.space.choices(point);
                    let reach = match bounds.judge(&self.space, &choices) {
                        Verdict::Out(by) => {
                            *left.pruned.entry(by).or_default() += 1;
                            continue;
                        }
                        Verdict::Reach(reach) => reach,
                    };
                    let of = |m: Metric| reach.map_or((f64::NEG_INFINITY, f64::INFINITY), |r| r.of(m));
                    if let Some(c) = self.goal.broken(&self.space, &choices, of) {
                        left.broken[c] += 1;
                        continue;
                    }
                    let hope = self.goal.hope(of(self.goal.metric));
                    if hopeless(hope, best) {
                        *left.pruned.entry(Proof::Objective).or_default() += 1;
                        continue;
                    }
                    let rank = corner.map_or(0, |c| c.rank(&self.space, &choices));
                    found.push(Candidate { hope, rank, point });
                }
                Ok((found, left))
            };
            points.par_chunks(BLOCK).map(block).collect()
        })?;
        let mut found = Vec::new();
        let mut state = self.state();
        for block in blocks {
            let (some, left) = block?;
            found.extend(some);
            for (by, n) in left.pruned {
                *state.pruned.entry(by).or_default() += n;
            }
            state.broken.iter_mut().zip(left.broken).for_each(|(a, b)| *a += b);
        }
        drop(state);
        control.advance((points.len() - found.len()) as u64);
        let order = |a: &Candidate, b: &Candidate| {
            b.hope.total_cmp(&a.hope).then(a.rank.cmp(&b.rank)).then(a.point.cmp(&b.point))
        };
        crate::pool::install(|| found.par_sort_unstable_by(order))?;
        Ok(found)
    }

    fn rounds(
        &self,
        db: &Arc<KernelDb>,
        candidates: &[Candidate],
        corner: Option<&Corner>,
        control: &Control,
    ) -> Result<()> {
        let mut at = 0;
        let mut size = self.round;
        while at < candidates.len() {
            let mut round = Vec::new();
            let mut state = self.state();
            let first = &candidates[at];
            while at < candidates.len() && round.len() < size {
                let c = &candidates[at];
                if hopeless(c.hope, state.best) {
                    // They are sorted: nor can any behind it.
                    let rest = (candidates.len() - at) as u64;
                    *state.pruned.entry(Proof::Objective).or_default() += rest;
                    control.advance(rest);
                    at = candidates.len();
                    break;
                }
                // The smallest corners tell which plans of equal hope are worth a second look.
                if c.rank > first.rank && c.hope == first.hope {
                    break;
                }
                at += 1;
                if corner.is_some_and(|k| state.too_full(k, &self.space, c.point)) {
                    *state.pruned.entry(Proof::Memory).or_default() += 1;
                    control.advance(1);
                } else {
                    round.push(c.point);
                }
            }
            drop(state);
            round.sort_unstable();
            let rows = price_rows(db, &self.space, &round, &self.goal.metrics, self.runnable, control)?;
            let mut state = self.state();
            for (point, row) in round.into_iter().zip(rows) {
                state.take(self, corner, point, row);
            }
            size = (size * 2).min(self.round * LARGEST);
        }
        Ok(())
    }

    /// Prices some points, outside any proof, and keeps them: a sampler's.
    pub fn take(&self, db: &Arc<KernelDb>, points: &[u64], control: &Control) -> Result<Columns> {
        self.space.check_points(points)?;
        let rows = price_rows(db, &self.space, points, &self.goal.metrics, self.runnable, control)?;
        let mut out = columns(&self.space, points, &self.goal.metrics, &rows);
        let mut state = self.state();
        let mut kept = Vec::with_capacity(rows.len());
        for (point, row) in points.iter().zip(rows) {
            state.take(self, None, *point, row);
            kept.push(state.kept(*point));
        }
        out.push("kept", Column::Bool(kept));
        Ok(out)
    }
}

impl State {
    /// Whether a priced point stands and keeps every constraint.
    fn kept(&self, point: u64) -> bool {
        self.priced.get(&point).is_some_and(|(row, kept)| row.feasible && kept.iter().all(|k| *k))
    }

    fn too_full(&self, corner: &Corner, space: &Space, point: u64) -> bool {
        let (key, at) = corner.at(space, &space.choices(point));
        self.full.get(&key).is_some_and(|full| full.iter().any(|f| at[0] >= f[0] && at[1] >= f[1]))
    }

    fn take(&mut self, search: &Search, corner: Option<&Corner>, point: u64, row: Priced) {
        let kept = search.goal.keeps(&search.space, point, &row);
        if let Some(corner) = corner.filter(|_| matches!(row.outcome, Outcome::Priced(Binding::Memory(_)))) {
            let (key, at) = corner.at(&search.space, &search.space.choices(point));
            self.full.entry(key).or_default().push(at);
        }
        let score = search.goal.score(row.metrics[0]);
        if row.feasible && kept.iter().all(|k| *k) && !score.is_nan() {
            let wins = self.best.is_none_or(|(best, at)| score > best || (score == best && point < at));
            if wins {
                self.best = Some((score, point));
            }
        }
        self.priced.insert(point, (row, kept));
    }
}
