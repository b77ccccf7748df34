//! Points of a space priced by the same engine as `estimate`, in parallel, in the order of their numbers.
//!
//! Parts of a question that the neighbouring point shares (model, cluster, workload ...) are read
//! and compiled once. A point that cannot be priced is a row with its reason in `status`; nothing
//! is dropped and nothing stops the others. One that no server starts (`spec::rules`) is such a row too, unless that
//! is lifted; `runnable` says of every point whether it keeps the rules. Evidence: `measured_share` is the smaller of
//! the shares of TTFT's and of TPOT's operator time that are measured or interpolated.
//!
//! Limit: steady states, each alone; points are priced to the same bits wherever and beside whatever they are priced.

use std::sync::Arc;

use rayon::prelude::*;
use serde_json::{Map, Value};

use super::metric::Metric;
use super::space::{Root, Space, set};
use crate::columns::{Column, Columns};
use crate::control::Control;
use crate::cost::Library;
use crate::error::{Error, Problems, Result, near};
use crate::kernels::KernelDb;
use crate::serving::{Binding, Engine};
use crate::spec::{Assumptions, Case, Cluster, Framework, Model, Plan, Quant, Rules, Serving, Workload};

/// Points that one thread takes at a time: neighbours share their parts.
const BLOCK: usize = 64;

#[derive(Clone, Debug)]
pub(crate) struct Priced {
    pub metrics: Vec<f64>,
    pub feasible: bool,
    pub outcome: Outcome,
    pub status: String,
    /// Whether its layouts keep the rules of the framework.
    pub runnable: bool,
}

/// What became of a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It was priced; what stops it, if anything.
    Priced(Binding),
    /// No server starts it.
    NotRunnable,
    /// It could not be priced.
    Error,
}

impl Outcome {
    pub(crate) fn label(self) -> String {
        match self {
            Outcome::Priced(binding) => binding.label(),
            Outcome::NotRunnable => NOT_RUNNABLE.into(),
            Outcome::Error => "error".into(),
        }
    }
}

/// What is said of a point that no server starts.
pub(crate) const NOT_RUNNABLE: &str = "not runnable";

/// The parts of a question as last read, by the choices on the axes that lead into them.
#[derive(Default)]
struct Memory {
    keys: Vec<Option<Vec<usize>>>,
    case: Option<Case>,
    plan: Option<Plan>,
    /// Whether the case has been checked as it stands.
    checked: bool,
    lib: Option<Arc<Library>>,
    rules: Option<Rules>,
}

/// Prices the points with these numbers; `runnable`: only those that a server starts.
pub fn price(
    db: &Arc<KernelDb>,
    space: &Space,
    points: &[u64],
    metrics: &[String],
    runnable: bool,
    control: &Control,
) -> Result<Columns> {
    let mut problems = Problems::new();
    let mut known = Vec::with_capacity(metrics.len());
    for (i, m) in metrics.iter().enumerate() {
        match Metric::named(m) {
            Some(metric) => known.push(metric),
            None => {
                let hint = near(m, Metric::NAMES);
                problems.push(format!("metrics[{i}]"), format!("'{m}' is not a metric"), hint);
            }
        }
    }
    problems.into_result()?;
    space.check_points(points)?;
    control.set_total(points.len() as u64);
    let rows = price_rows(db, space, points, &known, runnable, control)?;
    Ok(columns(space, points, &known, &rows))
}

/// The same as rows, progress left to the caller's total.
pub(crate) fn price_rows(
    db: &Arc<KernelDb>,
    space: &Space,
    points: &[u64],
    metrics: &[Metric],
    runnable: bool,
    control: &Control,
) -> Result<Vec<Priced>> {
    let blocks: Vec<Result<Vec<Priced>>> = crate::pool::install(|| {
        points
            .par_chunks(BLOCK)
            .map(|block| {
                let mut reader = Reader::new(db, space);
                let mut out = Vec::with_capacity(block.len());
                for &p in block {
                    control.check()?;
                    out.push(reader.price(p, metrics, runnable));
                    control.advance(1);
                }
                Ok(out)
            })
            .collect()
    })?;
    let mut rows = Vec::with_capacity(points.len());
    for block in blocks {
        rows.extend(block?);
    }
    Ok(rows)
}

/// Reads points of a space one after another; what the neighbour shares is kept.
pub(crate) struct Reader<'a> {
    db: &'a Arc<KernelDb>,
    space: &'a Space,
    /// Axes that lead into each part.
    into: Vec<Vec<usize>>,
    memory: Memory,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(db: &'a Arc<KernelDb>, space: &'a Space) -> Reader<'a> {
        let axes = &space.description.axes;
        let into = Root::NAMES
            .iter()
            .map(|root| {
                let under = |p: &str| p == *root || p.strip_prefix(root).is_some_and(|rest| rest.starts_with('.'));
                (0..axes.len()).filter(|a| under(&axes[*a].path)).collect()
            })
            .collect();
        let memory = Memory { keys: vec![None; Root::ALL.len()], ..Memory::default() };
        Reader { db, space, into, memory }
    }

    fn price(&mut self, point: u64, metrics: &[Metric], only: bool) -> Priced {
        let nothing = |outcome: Outcome, status: String| Priced {
            metrics: vec![f64::NAN; metrics.len()],
            feasible: false,
            outcome,
            status,
            runnable: false,
        };
        let failed = |e: Error| nothing(Outcome::Error, e.to_string().replace('\n', "; "));
        let broken = match self.broken(point) {
            Ok(broken) => broken,
            Err(e) => return failed(e),
        };
        let runnable = broken.is_none();
        if let (true, Some(status)) = (only, broken) {
            return nothing(Outcome::NotRunnable, status);
        }
        let engine = match self.memory.compiled(self.db).and_then(|(lib, w, plan)| Engine::new(lib, w, plan)) {
            Ok(engine) => engine,
            Err(e) => return failed(e),
        };
        let feasible = engine.point.stands();
        let value = |m: &Metric| if feasible || m.of_any() { m.of(&engine) } else { f64::NAN };
        Priced {
            metrics: metrics.iter().map(value).collect(),
            feasible,
            outcome: Outcome::Priced(engine.point.binding),
            status: "ok".into(),
            runnable,
        }
    }

    /// `not runnable: RULE, RULE` of a well-formed point whose layouts no server starts.
    pub(crate) fn broken(&mut self, point: u64) -> Result<Option<String>> {
        self.parts(point)?;
        let memory = &mut self.memory;
        let (Some(lib), Some(plan)) = (&memory.lib, &memory.plan) else { return Ok(None) };
        if memory.rules.is_none() {
            memory.rules = Some(Rules::new(lib.framework, None, &lib.model, &lib.cluster)?);
        }
        let Some(rules) = &memory.rules else { return Ok(None) };
        // A plan that is wrong in itself is told so by the engine.
        if rules.plan(plan) || !plan.check(&lib.model, &lib.cluster).is_empty() {
            return Ok(None);
        }
        let mut names: Vec<String> = rules.violations(plan).into_iter().map(|v| v.rule).collect();
        names.dedup();
        Ok(Some(format!("{NOT_RUNNABLE}: {}", names.join(", "))))
    }

    /// What a point asks for, compiled up to its plan.
    pub(crate) fn parts(&mut self, point: u64) -> Result<(&Arc<Library>, &Workload, &Plan)> {
        let Reader { db, space, into, memory } = self;
        let choices = space.choices(point);
        let key = |root: Root| -> Vec<usize> { into[root as usize].iter().map(|a| choices[*a]).collect() };
        let value = |root: Root| -> Result<Value> {
            let mut part = Map::new();
            if let Some(base) = space.description.question.get(root.name()) {
                part.insert(root.name().into(), base.clone());
            }
            for &a in &into[root as usize] {
                set(&mut part, &space.description.axes[a].path, space.value(a, choices[a]))?;
            }
            Ok(part.remove(root.name()).unwrap_or(Value::Null))
        };
        if memory.case.is_none() {
            let model = Model::from_value(value(Root::Model)?)?;
            let cluster = Cluster::from_value(value(Root::Cluster)?)?;
            memory.case = Some(Case::new(model, cluster, Workload::from_value(value(Root::Workload)?)?));
            for root in [Root::Model, Root::Cluster, Root::Workload] {
                memory.keys[root as usize] = Some(key(root));
            }
        }
        for &root in Root::ALL {
            let key = key(root);
            if memory.keys[root as usize].as_ref() != Some(&key) {
                // Until it is read; what is compiled from it is stale at once.
                memory.keys[root as usize] = None;
                memory.read(root, value(root)?)?;
                memory.keys[root as usize] = Some(key);
            }
        }
        memory.compiled(db)
    }
}

impl Memory {
    fn compiled(&mut self, db: &Arc<KernelDb>) -> Result<(&Arc<Library>, &Workload, &Plan)> {
        let missing = || Error::spec("space", "a part of the question is missing", "");
        let (case, plan) = (self.case.as_ref().ok_or_else(missing)?, self.plan.as_ref().ok_or_else(missing)?);
        if !self.checked {
            case.check().into_result()?;
            self.checked = true;
        }
        if self.lib.is_none() {
            self.lib = Some(case.library(db, case.framework(db)?)?);
        }
        Ok((self.lib.as_ref().ok_or_else(missing)?, &case.workload, plan))
    }

    /// Reads one part anew.
    fn read(&mut self, root: Root, value: Value) -> Result<()> {
        if root == Root::Plan {
            self.plan = Some(Plan::from_value(value)?);
            return Ok(());
        }
        self.checked = false;
        if root != Root::Workload {
            (self.lib, self.rules) = (None, None);
        }
        let Some(case) = &mut self.case else { return Ok(()) };
        let none = value.is_null();
        match root {
            Root::Model => case.model = Model::from_value(value)?,
            Root::Cluster => case.cluster = Cluster::from_value(value)?,
            Root::Workload => case.workload = Workload::from_value(value)?,
            Root::Quant => case.quant = if none { Quant::default() } else { Quant::from_value(value)? },
            Root::Serving => case.serving = if none { Serving::default() } else { Serving::from_value(value)? },
            Root::Assumptions => {
                case.assumptions = if none { Assumptions::physical() } else { Assumptions::from_value(value)? };
            }
            Root::Plan => {}
            Root::Framework => {
                let asked = value.as_str().map(|name| Framework::asked(name, "framework")).transpose()?;
                case.frameworks = asked.map(|framework| vec![framework]);
            }
        }
        Ok(())
    }
}

/// Point number, axis values, metrics, feasible, runnable, binding, status.
pub(crate) fn columns(space: &Space, points: &[u64], metrics: &[Metric], rows: &[Priced]) -> Columns {
    let mut out = axis_columns(space, points);
    for (i, m) in metrics.iter().enumerate() {
        out.push(m.name(), Column::F64(rows.iter().map(|r| r.metrics[i]).collect()));
    }
    out.push("feasible", Column::Bool(rows.iter().map(|r| r.feasible).collect()));
    out.push("runnable", Column::Bool(rows.iter().map(|r| r.runnable).collect()));
    out.push("binding", Column::from_strings(rows.iter().map(|r| r.outcome.label())));
    out.push("status", Column::from_strings(rows.iter().map(|r| &r.status)));
    out
}

/// Point numbers and axis values.
pub(crate) fn axis_columns(space: &Space, points: &[u64]) -> Columns {
    let mut out = Columns::new();
    out.push("point", Column::I64(points.iter().map(|p| *p as i64).collect()));
    let choices: Vec<Vec<usize>> = points.iter().map(|p| space.choices(*p)).collect();
    for (a, axis) in space.description.axes.iter().enumerate() {
        out.push(axis.path.clone(), axis_column(&axis.values, choices.iter().map(|c| c[a])));
    }
    out
}

impl Space {
    /// Point numbers and axis values, without a price.
    pub fn values(&self, points: &[u64]) -> Result<Columns> {
        self.check_points(points)?;
        Ok(axis_columns(self, points))
    }

    pub(crate) fn check_points(&self, points: &[u64]) -> Result<()> {
        match points.iter().find(|p| **p >= self.size()) {
            Some(p) => Err(Error::spec("points", format!("{p} is not a point of a space of {}", self.size()), "")),
            None => Ok(()),
        }
    }
}

/// Whole numbers, numbers or words, as the values of the axis are.
fn axis_column(values: &[Value], choices: impl Iterator<Item = usize>) -> Column {
    if values.iter().all(|v| v.as_i64().is_some()) {
        return Column::I64(choices.map(|c| values[c].as_i64().unwrap_or_default()).collect());
    }
    if values.iter().all(|v| v.as_f64().is_some()) {
        return Column::F64(choices.map(|c| values[c].as_f64().unwrap_or(f64::NAN)).collect());
    }
    let labels: Vec<String> = values.iter().map(label).collect();
    Column::Cat { codes: choices.map(|c| c as i32).collect(), labels }
}

/// A value in a word: itself, or the name of what it describes.
fn label(value: &Value) -> String {
    match value {
        Value::String(s) => s.clone(),
        Value::Object(map) => map.get("name").and_then(Value::as_str).map_or_else(|| value.to_string(), str::to_string),
        other => other.to_string(),
    }
}
