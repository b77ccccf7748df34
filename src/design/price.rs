//! Points of a space priced by the same engine as `estimate`, in parallel, in the order of their numbers.
//!
//! Parts of a question that the neighbouring point shares (model, cluster, workload ...) are read
//! and compiled once. A point that cannot be priced is a row with its reason in `status`; nothing
//! is dropped and nothing stops the others. One that no server starts (`spec::rules`) is such a row too, unless that
//! is lifted; `runnable` says of every point whether it keeps the rules. Evidence: `measured_share` is the smaller of
//! the shares of TTFT's and of TPOT's operator time that are measured or interpolated.

use std::sync::Arc;

use rayon::prelude::*;
use serde_json::{Map, Value};

use super::space::{ROOTS, Space, set};
use crate::columns::{Column, Columns};
use crate::control::Control;
use crate::cost::Library;
use crate::error::{Error, Problems, Result, near};
use crate::kernels::KernelDb;
use crate::serving::Engine;
use crate::spec::{Assumptions, Case, Cluster, Model, Plan, Quant, Rules, Serving, Workload};

/// Numbers that a point can be asked for.
pub const METRICS: [&str; 14] = [
    "ttft_ms",
    "tpot_ms",
    "itl_worst_ms",
    "requests_per_s",
    "tokens_per_s",
    "tokens_per_s_per_gpu",
    "tokens_per_s_per_user",
    "concurrency",
    "gpus",
    "memory_gib",
    "usd_per_mtok",
    "measured_share",
    "tpot_measured_share",
    "ttft_measured_share",
];

/// Points that one thread takes at a time: neighbours share their parts.
const BLOCK: usize = 64;

#[derive(Clone, Debug)]
pub(crate) struct Priced {
    pub metrics: Vec<f64>,
    pub feasible: bool,
    pub binding: String,
    pub status: String,
    /// Whether its layouts keep the rules of the framework.
    pub runnable: bool,
}

/// What binds a point that no server starts.
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
    for (i, m) in metrics.iter().enumerate().filter(|(_, m)| !METRICS.contains(&m.as_str())) {
        problems.push(format!("metrics[{i}]"), format!("'{m}' is not a metric"), near(m, METRICS));
    }
    problems.into_result()?;
    space.check_points(points)?;
    control.set_total(points.len() as u64);
    let rows = price_rows(db, space, points, metrics, runnable, control)?;
    Ok(columns(space, points, metrics, &rows))
}

/// The same as rows, progress left to the caller's total.
pub(crate) fn price_rows(
    db: &Arc<KernelDb>,
    space: &Space,
    points: &[u64],
    metrics: &[String],
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
    pub fn new(db: &'a Arc<KernelDb>, space: &'a Space) -> Reader<'a> {
        let axes = &space.description.axes;
        let into = ROOTS
            .iter()
            .map(|root| {
                let under = |p: &str| p == *root || p.strip_prefix(root).is_some_and(|rest| rest.starts_with('.'));
                (0..axes.len()).filter(|a| under(&axes[*a].path)).collect()
            })
            .collect();
        let memory = Memory { keys: vec![None; ROOTS.len()], ..Memory::default() };
        Reader { db, space, into, memory }
    }

    fn price(&mut self, point: u64, metrics: &[String], only: bool) -> Priced {
        let nothing = |binding: &str, status: String| Priced {
            metrics: vec![f64::NAN; metrics.len()],
            feasible: false,
            binding: binding.into(),
            status,
            runnable: false,
        };
        let failed = |e: Error| nothing("error", e.to_string().replace('\n', "; "));
        let broken = match self.broken(point) {
            Ok(broken) => broken,
            Err(e) => return failed(e),
        };
        let runnable = broken.is_none();
        if let (true, Some(status)) = (only, broken) {
            return nothing(NOT_RUNNABLE, status);
        }
        let engine = match self.memory.compiled(self.db).and_then(|(lib, w, plan)| Engine::new(lib, w, plan)) {
            Ok(engine) => engine,
            Err(e) => return failed(e),
        };
        let feasible = engine.point.stands();
        let value =
            |m: &String| if feasible || m == "memory_gib" || m == "gpus" { metric(&engine, m) } else { f64::NAN };
        Priced {
            metrics: metrics.iter().map(value).collect(),
            feasible,
            binding: engine.point.binding.label(),
            status: "ok".into(),
            runnable,
        }
    }

    /// `not runnable: RULE, RULE` of a well-formed point whose layouts no server starts.
    pub fn broken(&mut self, point: u64) -> Result<Option<String>> {
        self.parts(point)?;
        let memory = &mut self.memory;
        let (Some(lib), Some(plan)) = (&memory.lib, &memory.plan) else { return Ok(None) };
        if memory.rules.is_none() {
            memory.rules = Some(Rules::new(&lib.framework, None, &lib.model, &lib.cluster)?);
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
    pub fn parts(&mut self, point: u64) -> Result<(&Arc<Library>, &Workload, &Plan)> {
        let Reader { db, space, into, memory } = self;
        let choices = space.choices(point);
        let key = |root: usize| -> Vec<usize> { into[root].iter().map(|a| choices[*a]).collect() };
        let value = |root: usize| -> Result<Value> {
            let mut part = Map::new();
            if let Some(base) = space.description.question.get(ROOTS[root]) {
                part.insert(ROOTS[root].into(), base.clone());
            }
            for &a in &into[root] {
                set(&mut part, &space.description.axes[a].path, space.value(a, choices[a]))?;
            }
            Ok(part.remove(ROOTS[root]).unwrap_or(Value::Null))
        };
        if memory.case.is_none() {
            let model = Model::from_value(value(0)?)?;
            let (cluster, workload) = (Cluster::from_value(value(1)?)?, Workload::from_value(value(2)?)?);
            memory.case = Some(Case::new(model, cluster, workload));
            (0..3).for_each(|root| memory.keys[root] = Some(key(root)));
        }
        for (root, name) in ROOTS.into_iter().enumerate() {
            let key = key(root);
            if memory.keys[root].as_ref() != Some(&key) {
                // Until it is read; what is compiled from it is stale at once.
                memory.keys[root] = None;
                memory.read(name, value(root)?)?;
                memory.keys[root] = Some(key);
            }
        }
        memory.compiled(db)
    }
}

/// One number of a plan that stands.
fn metric(engine: &Engine, name: &str) -> f64 {
    let (point, tokens) = (&engine.point, engine.tokens_per_s());
    match name {
        "ttft_ms" => point.ttft_s * 1e3,
        "tpot_ms" => point.tpot_s * 1e3,
        "itl_worst_ms" => point.itl_worst_s * 1e3,
        "requests_per_s" => point.requests_per_s,
        "tokens_per_s" => tokens,
        "tokens_per_s_per_gpu" => tokens / f64::from(engine.library().cluster.gpus),
        // Nothing is decoded: nobody's tokens come at any rate.
        "tokens_per_s_per_user" if point.tpot_s <= 0.0 => f64::NAN,
        "tokens_per_s_per_user" => 1.0 / point.tpot_s,
        "concurrency" => point.concurrency,
        "gpus" => f64::from(engine.gpus()),
        "memory_gib" => point.memory_bytes / crate::units::GIB,
        "usd_per_mtok" => engine.usd_per_mtok(),
        "tpot_measured_share" => point.evidence.tpot.share(),
        "ttft_measured_share" => point.evidence.ttft.share(),
        _ => point.evidence.share(),
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
            self.lib = Some(case.library(db, &case.framework(db)?)?);
        }
        Ok((self.lib.as_ref().ok_or_else(missing)?, &case.workload, plan))
    }

    /// Reads one part anew.
    fn read(&mut self, root: &str, value: Value) -> Result<()> {
        if root == "plan" {
            self.plan = Some(Plan::from_value(value)?);
            return Ok(());
        }
        self.checked = false;
        if root != "workload" {
            (self.lib, self.rules) = (None, None);
        }
        let Some(case) = &mut self.case else { return Ok(()) };
        let none = value.is_null();
        match root {
            "model" => case.model = Model::from_value(value)?,
            "cluster" => case.cluster = Cluster::from_value(value)?,
            "workload" => case.workload = Workload::from_value(value)?,
            "quant" => case.quant = if none { Quant::default() } else { Quant::from_value(value)? },
            "serving" => case.serving = if none { Serving::default() } else { Serving::from_value(value)? },
            "assumptions" => {
                case.assumptions = if none { Assumptions::physical() } else { Assumptions::from_value(value)? };
            }
            _ => case.frameworks = value.as_str().map(|name| vec![name.to_string()]),
        }
        Ok(())
    }
}

/// Point number, axis values, metrics, feasible, runnable, binding, status.
pub(crate) fn columns(space: &Space, points: &[u64], metrics: &[String], rows: &[Priced]) -> Columns {
    let mut out = axis_columns(space, points);
    for (i, m) in metrics.iter().enumerate() {
        out.push(m.clone(), Column::F64(rows.iter().map(|r| r.metrics[i]).collect()));
    }
    out.push("feasible", Column::Bool(rows.iter().map(|r| r.feasible).collect()));
    out.push("runnable", Column::Bool(rows.iter().map(|r| r.runnable).collect()));
    out.push("binding", Column::from_strings(rows.iter().map(|r| &r.binding)));
    out.push("status", Column::from_strings(rows.iter().map(|r| &r.status)));
    out
}

fn axis_columns(space: &Space, points: &[u64]) -> Columns {
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
