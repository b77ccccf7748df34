//! Points of a space judged by the requests they serve: the same requests for all, with the same seed.
//!
//! Points are taken one after another. A candidate is dropped after the first quarter of the requests if, request by
//! request, it is worse than the best so far with 99 % confidence (batch means, `sim::statistics`): statistical, and no
//! proof. That needs an open loop of enough requests, and an objective that is a mean over them.
//!
//! Limit: one seed and one trace for all; the winner of close candidates may be another under other requests.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::measure::{Measure, Served};
use super::{Points, TIE};
use crate::columns::{Column, Columns};
use crate::control::Control;
use crate::design::{Expression, Reader, Space, axis_columns, name_of};
use crate::error::{Error, Problems, Result};
use crate::kernels::KernelDb;
use crate::serving::Engine;
use crate::sim::fixed::Fixed;
use crate::sim::settings::Options;
use crate::sim::trace::Trace;
use crate::sim::{self, Deployment, Outcome, Settings, Status, statistics, to_s};
use crate::spec::{Distribution, Slo, Workload};

/// The first quarter of the requests decides which candidates are dropped, if they are so many.
const PREFIX: usize = 4;
const LEAST: usize = 100;
/// Lengths of a trace that stand for it where a plan leaves something open.
const LENGTHS: usize = 4096;
/// Metrics that every answer shows.
const SHOWN: [&str; 3] = ["ttft_ms", "tpot_ms", "tokens_per_s"];

/// What the candidates serve, and how.
pub struct Requests {
    pub trace: Arc<Trace>,
    pub slo: Option<Slo>,
    pub fixed: Option<Fixed>,
    pub options: Options,
    pub seed: u64,
}

/// A search by simulation and how far it is; a stopped one keeps what it has.
pub struct Simulated {
    pub space: Arc<Space>,
    points: Points,
    served: Requests,
    /// The first requests, where they are enough for a test.
    prefix: Option<Trace>,
    constraints: Vec<Expression>,
    /// The objective first.
    metrics: Vec<Measure>,
    maximise: bool,
    runnable: bool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    rows: BTreeMap<u64, Row>,
    leader: Option<Leader>,
    dropped: u64,
    complete: bool,
}

#[derive(Clone)]
struct Row {
    metrics: Vec<f64>,
    feasible: bool,
    kept: bool,
    status: String,
}

/// The best so far: its score, and what each of the first requests adds to the objective.
struct Leader {
    score: f64,
    point: u64,
    each: Option<Vec<f64>>,
}

/// Names in the text of a constraint.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == '.')).filter(|w| !w.is_empty())
}

impl Simulated {
    /// `points`: of the space; none: all. `runnable`: only points that a server starts may win.
    ///
    /// # Errors
    /// An objective, limit or constraint that does not fit, all of them by name.
    pub fn new(
        space: Arc<Space>,
        points: Option<Vec<u64>>,
        objective: &str,
        constraints: &[String],
        runnable: bool,
        served: Requests,
    ) -> Result<Simulated> {
        let mut problems = Problems::new();
        let (metric, maximise) = Measure::objective(objective, &mut problems);
        if metric.as_ref().is_some_and(Measure::wants_slo) && served.slo.is_none() {
            let hint = "simulate={'trace': trace, 'slo': dg.SLO(ttft_ms=..., tpot_ms=...)}";
            problems.push("simulate.slo", "is required by goodput", hint);
        }
        problems.into_result()?;
        let mut further: Vec<&str> = constraints.iter().flat_map(|c| words(c)).collect();
        further.sort_unstable();
        let mut metrics: Vec<Measure> = Vec::new();
        for one in metric.into_iter().chain(SHOWN.into_iter().chain(further).filter_map(Measure::named)) {
            if !metrics.contains(&one) && (served.slo.is_some() || !one.wants_slo()) {
                metrics.push(one);
            }
        }
        let axes = &space.description.axes;
        let names = || metrics.iter().map(|m| m.name.as_str()).chain(axes.iter().map(|a| a.path.as_str()));
        let named = |name: &str| name_of(names(), name, "a metric or an axis");
        let read = |(i, text): (usize, &String)| Expression::new(text, &format!("constraints[{i}]"), &named);
        let constraints = constraints.iter().enumerate().map(read).collect::<Result<Vec<_>>>()?;
        let points = Points::new(&space, points)?;
        let prefix = if metrics[0].is_mean() { first_requests(&served.trace)? } else { None };
        let state = Mutex::default();
        Ok(Simulated { space, points, served, prefix, constraints, metrics, maximise, runnable, state })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The metric that is made as good as possible, and whether more of it is better.
    pub fn objective(&self) -> (String, bool) {
        (self.metrics[0].name.clone(), self.maximise)
    }

    /// Goes through all points, one after another; stopped, it keeps those that are done.
    pub fn run(&self, db: &Arc<KernelDb>, control: &Control) -> Result<()> {
        control.set_total(self.points.len());
        let mut reader = Reader::new(db, &self.space);
        for point in self.points.slice(0, self.points.len()) {
            self.judge(&mut reader, point, control)?;
            control.advance(1);
        }
        self.state().complete = true;
        Ok(())
    }

    /// Judges some points and gives their rows: a sampler's.
    pub fn take(&self, db: &Arc<KernelDb>, points: &[u64], control: &Control) -> Result<Columns> {
        self.space.check_points(points)?;
        let mut reader = Reader::new(db, &self.space);
        points.iter().try_for_each(|p| self.judge(&mut reader, *p, control))?;
        Ok(self.columns(points))
    }

    fn judge(&self, reader: &mut Reader<'_>, point: u64, control: &Control) -> Result<()> {
        control.check()?;
        let row = match self.row(reader, point, control) {
            Ok(row) => row,
            Err(Error::Cancelled) => return Err(Error::Cancelled),
            Err(e) => self.nothing(e.to_string().replace('\n', "; ")),
        };
        self.state().rows.insert(point, row);
        Ok(())
    }

    fn nothing(&self, status: String) -> Row {
        Row { metrics: vec![f64::NAN; self.metrics.len()], feasible: false, kept: false, status }
    }

    fn row(&self, reader: &mut Reader<'_>, point: u64, control: &Control) -> Result<Row> {
        // A point that is wrong in itself is told so by its engine.
        if self.runnable
            && let Ok(Some(status)) = reader.broken(point)
        {
            return Ok(self.nothing(status));
        }
        let slo = self.served.slo.as_ref();
        let mut each = None;
        if let Some(prefix) = &self.prefix {
            let (outcome, gpus) = self.serve(reader, point, prefix, control)?;
            each = self.metrics[0].each(&Served { requests: &prefix.requests, outcome: &outcome, gpus }, slo);
            if self.worse(each.as_deref()) {
                self.state().dropped += 1;
                return Ok(self.nothing("dropped: worse on the first requests (99 %)".into()));
            }
        }
        let trace = &self.served.trace;
        let (outcome, gpus) = self.serve(reader, point, trace, control)?;
        let served = Served { requests: &trace.requests, outcome: &outcome, gpus };
        let metrics: Vec<f64> = self.metrics.iter().map(|m| m.of(&served, slo)).collect();
        let lost = outcome.status.iter().filter(|s| **s != Status::Finished).count();
        if lost > 0 && !self.metrics[0].is_rate() {
            let status = format!("{lost} requests did not finish");
            return Ok(Row { metrics, feasible: false, kept: false, status });
        }
        let choices = self.space.choices(point);
        let value = |i: usize| {
            metrics.get(i).copied().unwrap_or_else(|| {
                let axis = i - metrics.len();
                self.space.number(axis, choices[axis])
            })
        };
        let kept = self.constraints.iter().all(|c| c.holds(value));
        let score = if self.maximise { metrics[0] } else { -metrics[0] };
        let mut state = self.state();
        if kept && !score.is_nan() && state.leader.as_ref().is_none_or(|best| score > best.score) {
            state.leader = Some(Leader { score, point, each });
        }
        Ok(Row { metrics, feasible: true, kept, status: "ok".into() })
    }

    /// What becomes of the requests under a point's plan, and its GPUs.
    fn serve(&self, reader: &mut Reader<'_>, point: u64, trace: &Trace, control: &Control) -> Result<(Outcome, u32)> {
        let (lib, _, plan) = reader.parts(point)?;
        let engine = Arc::new(Engine::new(lib, &workload_of(trace), plan)?);
        let deployment = Deployment::timed(&engine, self.served.fixed)?;
        let settings = self.served.options.settings(engine.library().kv_bytes(1.0))?;
        let settings = Settings { seed: self.served.seed, ..settings };
        let outcome = sim::simulate(&deployment, &trace.requests, &settings, &control.part())?;
        Ok((outcome, deployment.gpus()))
    }

    /// Whether it is worse than the best so far with 99 % confidence, request by request.
    fn worse(&self, each: Option<&[f64]>) -> bool {
        let state = self.state();
        let best = state.leader.as_ref().and_then(|leader| leader.each.as_ref());
        let (Some(mine), Some(best)) = (each, best) else { return false };
        let sign = if self.maximise { 1.0 } else { -1.0 };
        let difference = mine.iter().zip(best).map(|(a, b)| sign * a - sign * b).filter(|d| !d.is_nan());
        let found = statistics::interval(&difference.collect::<Vec<_>>());
        found.half_99.is_some_and(|half| found.mean + half < 0.0)
    }

    fn columns(&self, points: &[u64]) -> Columns {
        let mut out = axis_columns(&self.space, points);
        let state = self.state();
        let rows: Vec<&Row> = points.iter().filter_map(|p| state.rows.get(p)).collect();
        for (i, metric) in self.metrics.iter().enumerate() {
            out.push(metric.name.clone(), Column::F64(rows.iter().map(|r| r.metrics[i]).collect()));
        }
        out.push("feasible", Column::Bool(rows.iter().map(|r| r.feasible).collect()));
        out.push("kept", Column::Bool(rows.iter().map(|r| r.kept).collect()));
        out.push("status", Column::from_strings(rows.iter().map(|r| &r.status)));
        out
    }

    /// Every point that was judged.
    pub fn points(&self) -> Columns {
        let points: Vec<u64> = self.state().rows.keys().copied().collect();
        self.columns(&points)
    }

    /// Points by what became of them.
    pub fn certificate(&self) -> Columns {
        let (judged, dropped) = {
            let state = self.state();
            (state.rows.len() as u64, state.dropped)
        };
        let all = self.points.len();
        let mut rows = vec![
            ("points", all, "in the space"),
            ("priced", judged - dropped, "simulated with the same requests and seed"),
            ("dropped", dropped, "worse than the best so far on the first requests: 99 % confidence, not a proof"),
            ("not looked at", all - judged, "nothing is proved of these"),
        ];
        rows.retain(|(what, n, _)| *n > 0 || ["points", "priced"].contains(what));
        let mut out = Columns::new();
        out.push("what", Column::from_strings(rows.iter().map(|r| r.0)));
        out.push("points", Column::I64(rows.iter().map(|r| r.1 as i64).collect()));
        out.push("why", Column::from_strings(rows.iter().map(|r| r.2)));
        out
    }

    pub fn complete(&self) -> bool {
        self.state().complete
    }

    /// The number of the best point, and of all that tie with it.
    ///
    /// # Errors
    /// If no point has the objective within the constraints; says why.
    pub fn best(&self) -> Result<(u64, Vec<u64>)> {
        let state = self.state();
        let Some(leader) = &state.leader else {
            let mut why: Vec<&str> = Vec::new();
            for row in state.rows.values() {
                let said = if row.feasible { "breaks a constraint" } else { row.status.as_str() };
                if !why.contains(&said) {
                    why.push(said);
                }
            }
            why.truncate(4);
            let said = if why.is_empty() { "none was run".to_string() } else { why.join("; ") };
            let (n, metric) = (state.rows.len(), &self.metrics[0].name);
            let text = format!("none of {n} points has a {metric} within the constraints: {said}");
            return Err(Error::spec("objective", text, "loosen a constraint, or widen an axis"));
        };
        let sign = if self.maximise { 1.0 } else { -1.0 };
        let tied = |row: &Row| row.kept && sign * row.metrics[0] >= leader.score - TIE * leader.score.abs();
        let ties = state.rows.iter().filter(|(_, row)| tied(row)).map(|(point, _)| *point).collect();
        Ok((leader.point, ties))
    }
}

/// The first requests of an open loop, if they are enough for a test.
fn first_requests(trace: &Trace) -> Result<Option<Trace>> {
    let first = trace.requests.len() / PREFIX;
    if trace.rate().is_none() || first < LEAST {
        return Ok(None);
    }
    trace.window(0.0, to_s(trace.requests.arrival_ps[first])).map(Some)
}

/// The lengths of a trace, for what a plan leaves open.
fn workload_of(trace: &Trace) -> Workload {
    let lengths = trace.lengths(LENGTHS);
    let mean = |i: usize| Distribution::fixed(lengths.iter().map(|l| l[i]).sum::<f64>() / lengths.len().max(1) as f64);
    let (prefix, isl, osl) = (mean(0), mean(1), mean(2));
    Workload { prefix, isl, osl, lengths, ..Workload::fixed("trace", 0.0, 1.0, 1.0) }
}
