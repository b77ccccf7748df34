//! Traces, simulations and what they say.
//!
//! Limit: settings come as JSON and are read anew each call; a timeline keeps as many stretches as the caller allows.

use std::path::PathBuf;
use std::sync::Arc;

use super::give::Payload;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use super::case::{Case, framework_of, plan_of, slo_of, workload_of};
use super::class_table::wrap;
use super::data::{Data, Spec};
use super::serve::Engine;
use super::{columns, errors, kernels, run};
use crate::calibrate::served as fitted;
use crate::columns::Columns;
use crate::error::{Error, Result, near};
use crate::sim::fixed::Fixed;
use crate::sim::metrics::{self, Latencies};
use crate::sim::replay::{Log, Server};
use crate::sim::replicas::{self, Job};
use crate::sim::settings::Options;
use crate::sim::trace::moment::Unit;
use crate::sim::trace::read::{self, Wanted};
use crate::sim::trace::roles::Named;
use crate::sim::trace::rows::OnError;
use crate::sim::trace::table::{self, Table};
use crate::sim::trace::{self, draw, lengths, servegen, weka};
use crate::sim::{Deployment, Requests, Settings, Span, SpanKind, goodput, perfetto as chrome, statistics, to_ps};
use crate::spec::assumptions::FirstToken;
use crate::spec::{self, Role, servers};

fn on_error(name: &str) -> Result<OnError> {
    match name {
        "raise" => Ok(OnError::Fail),
        "skip" => Ok(OnError::Skip),
        _ => Err(Error::spec("on_error", format!("'{name}' is not known"), near(name, ["raise", "skip"]))),
    }
}

fn text<T: serde::Serialize>(what: &T) -> Result<String> {
    serde_json::to_string(what).map_err(|e| Error::data("result", format!("cannot write JSON: {e}")))
}

/// Requests with arrivals.
#[pyclass(frozen, module = "disagg._core")]
pub struct Trace {
    pub(super) inner: Arc<trace::Trace>,
}

impl Trace {
    fn of(inner: trace::Trace) -> Trace {
        Trace { inner: Arc::new(inner) }
    }
}

#[pymethods]
impl Trace {
    /// Reads a file: `option` is the block size (mooncake, none: by the rows), the gap between sessions (weka) or the rate
    /// (lengths).
    #[staticmethod]
    #[pyo3(signature = (format, path, on_error, option, n, seed))]
    fn read(
        py: Python<'_>,
        format: &str,
        path: PathBuf,
        on_error: &str,
        option: f64,
        n: usize,
        seed: u64,
    ) -> PyResult<Trace> {
        let on_error = errors::guard(|| self::on_error(on_error))?;
        let format = format.to_string();
        run::run(py, None, move |_| {
            Ok(Trace::of(match format.as_str() {
                "mooncake" => read::mooncake(&path, (!option.is_nan()).then_some(option as u32), on_error)?,
                "azure" => read::azure(&path, on_error)?,
                "burstgpt" => read::burstgpt(&path, on_error)?,
                "weka" => weka::weka(&path, option, on_error)?,
                _ => lengths::lengths(&path, option, n, seed, on_error)?,
            }))
        })
    }

    /// Reads any table, a file or columns in memory; `named`: arrival, isl, osl, prefix, session.
    #[staticmethod]
    #[pyo3(signature = (path, columns, named, unit, block_tokens, on_error))]
    fn table(
        py: Python<'_>,
        path: PathBuf,
        columns: Option<Vec<(String, Bound<'_, PyAny>)>>,
        named: [Option<String>; 5],
        unit: Option<&str>,
        block_tokens: Option<u32>,
        on_error: &str,
    ) -> PyResult<Trace> {
        let [arrival, isl, osl, prefix, session] = named;
        let (on_error, unit) = errors::guard(|| {
            let unit = unit.map(|name| {
                let found = Unit::ALL.iter().find(|(n, _)| *n == name).map(|(_, u)| *u);
                let hint = || near(name, Unit::ALL.iter().map(|(n, _)| *n));
                found.ok_or_else(|| Error::spec("unit", format!("'{name}' is not a unit of time"), hint()))
            });
            if block_tokens == Some(0) {
                return Err(Error::spec("block_tokens", "is 0", "tokens of one named prompt block"));
            }
            Ok((self::on_error(on_error)?, unit.transpose()?))
        })?;
        let columns_named = Named { arrival, isl, osl, prefix, session };
        let wanted = Wanted { columns: columns_named, unit, block_tokens, on_error };
        let columns = columns.map(|all| all.into_iter().map(column).collect::<PyResult<Vec<_>>>()).transpose()?;
        run::run(py, None, move |_| {
            Ok(Trace::of(match columns {
                Some(columns) => read::frame(Table::columns(&path.display().to_string(), columns)?, &wanted)?,
                None => read::read(&path, &wanted)?,
            }))
        })
    }

    /// A service's day, drawn anew from its clients (ServeGen).
    #[staticmethod]
    fn servegen(
        py: Python<'_>,
        path: PathBuf,
        start_s: f64,
        end_s: Option<f64>,
        seed: u64,
        on_error: &str,
    ) -> PyResult<Trace> {
        let on_error = errors::guard(|| self::on_error(on_error))?;
        run::run(py, None, move |_| Ok(Trace::of(servegen::servegen(&path, start_s, end_s, seed, on_error)?)))
    }

    #[staticmethod]
    fn open(workload: &Spec, rate: f64, cv: f64, n: usize, seed: u64) -> PyResult<Trace> {
        errors::guard(|| Ok(Trace::of(draw::open(&workload_of(workload, "workload")?, rate, cv, n, seed)?)))
    }

    #[staticmethod]
    fn closed(workload: &Spec, users: u32, n: usize, think_s: f64, seed: u64) -> PyResult<Trace> {
        errors::guard(|| Ok(Trace::of(draw::closed(&workload_of(workload, "workload")?, users, n, think_s, seed)?)))
    }

    #[staticmethod]
    fn from_json(text: &str) -> PyResult<Trace> {
        errors::guard(|| {
            let found = serde_json::from_str(text).map_err(|e| Error::data("trace", format!("is not a trace: {e}")))?;
            Ok(Trace::of(found))
        })
    }

    fn to_json(&self) -> PyResult<String> {
        errors::guard(|| text(&*self.inner))
    }

    fn columns<'py>(&self, py: Python<'py>) -> PyResult<Payload<'py>> {
        columns::to_python(py, self.inner.columns())
    }

    #[getter]
    fn notes(&self) -> Vec<String> {
        self.inner.notes.clone()
    }

    fn stats(&self) -> PyResult<String> {
        errors::guard(|| text(&self.inner.stats()))
    }

    /// Share of prompt tokens that one cache of so many tokens (none: endless) would hold.
    #[pyo3(signature = (tokens=None))]
    fn prefix_hit(&self, tokens: Option<u64>) -> f64 {
        let sum = |v: &[u32]| v.iter().map(|x| f64::from(*x)).sum::<f64>();
        sum(&self.inner.hits(tokens)) / sum(&self.inner.requests.isl)
    }

    fn scale(&self, rate: f64) -> PyResult<Trace> {
        errors::guard(|| Ok(Trace::of(self.inner.scale(rate)?)))
    }

    fn with_priority(&self, priority: Vec<u8>) -> PyResult<Trace> {
        errors::guard(|| Ok(Trace::of(self.inner.with_priority(priority)?)))
    }

    fn window(&self, start_s: f64, end_s: f64) -> PyResult<Trace> {
        errors::guard(|| Ok(Trace::of(self.inner.window(start_s, end_s)?)))
    }

    /// Joint lengths (prefix, new, answer) of at most `most` requests.
    fn lengths(&self, most: usize) -> Vec<(f64, f64, f64)> {
        self.inner.lengths(most).into_iter().map(|[a, b, c]| (a, b, c)).collect()
    }

    fn __len__(&self) -> usize {
        self.inner.requests.len()
    }
}

/// A column of a person's table: numbers as they are, all else as JSON.
fn column((name, values): (String, Bound<'_, PyAny>)) -> PyResult<(String, table::Column)> {
    if let Ok(whole) = values.extract::<columns::Array<'_, i64>>() {
        return Ok((name, table::Column::Whole(whole.as_array().to_vec())));
    }
    if let Ok(numbers) = values.extract::<columns::Array<'_, f64>>() {
        return Ok((name, table::Column::Numbers(columns::floats(&numbers))));
    }
    let text: String = values.extract()?;
    let all = errors::guard(|| {
        serde_json::from_str(&text).map_err(|e| Error::data(format!("column '{name}'"), format!("is no list: {e}")))
    })?;
    Ok((name, table::Column::Any(all)))
}

/// Fixed times as Python gives them: prefill, decode and KV in milliseconds, KV per token in microseconds.
pub(super) type Times = (f64, f64, f64, f64);

pub(super) fn fixed((prefill_ms, decode_ms, kv_ms, kv_us_per_token): Times) -> Fixed {
    Fixed { prefill_ms, decode_ms, kv_ms, kv_us_per_token }
}

fn deployment(engine: &Engine, times: Option<Times>) -> Result<Deployment> {
    Deployment::timed(&engine.inner, times.map(fixed))
}

/// The settings that `options` (JSON) describe.
fn settings(engine: &Engine, options: &str, timeline: usize) -> Result<Settings> {
    let found = Options::from_json(options)?.settings(engine.inner.library().kv_bytes(1.0))?;
    Ok(Settings { timeline, ..found })
}

/// A summary, and the choices behind it that servers make differently.
#[derive(serde::Serialize)]
struct Told {
    #[serde(flatten)]
    figures: metrics::Summary,
    kv_admission: &'static str,
    /// P/D: what the first token waits for, and who says so.
    first_token: Option<FirstToken>,
    first_token_source: Option<String>,
}

/// What the first token of a P/D plan waits for, and where that is known from.
fn first_token(engine: &Engine) -> (Option<FirstToken>, Option<String>) {
    let lib = engine.inner.library();
    if !matches!(engine.inner.plan, spec::Plan::Pd(_)) {
        return (None, None);
    }
    let asked = lib.assumptions.first_token_from;
    let source = match servers::newest(lib.framework).filter(|_| asked == FirstToken::Server) {
        Some(server) => server.first_token_source.clone(),
        None => "assumptions.first_token_from".into(),
    };
    (Some(servers::first_token(lib.framework, asked)), Some(source))
}

/// (summary as JSON, {name: columns}) of each trace, with its seed.
#[pyfunction]
#[pyo3(signature = (engine, runs, fixed, options, timeline, progress: "_Report" = None))]
pub fn simulate<'py>(
    py: Python<'py>,
    engine: &Engine,
    runs: Vec<(PyRef<'_, Trace>, u64)>,
    fixed: Option<Times>,
    options: &str,
    timeline: usize,
    progress: Option<&Bound<'_, PyAny>>,
) -> PyResult<Vec<Bound<'py, PyTuple>>> {
    let (deployment, settings) =
        errors::guard(|| Ok((deployment(engine, fixed)?, settings(engine, options, timeline)?)))?;
    let (first_token, first_token_source) = first_token(engine);
    let runs: Vec<(Arc<trace::Trace>, u64)> = runs.iter().map(|(t, seed)| (t.inner.clone(), *seed)).collect();
    let found = run::run(py, progress, move |control| {
        let jobs: Vec<Job<'_>> = runs.iter().map(|(t, seed)| (&t.requests, *seed)).collect();
        replicas::each(&deployment, &jobs, &settings, control, |r, o| {
            let tables = [
                ("requests", metrics::requests(r, o)),
                ("percentiles", metrics::percentiles(r, o)),
                ("utilization", metrics::utilization(o)),
                ("timeline", metrics::timeline(o)),
            ];
            let told = Told {
                figures: metrics::summary(r, o, deployment.gpus()),
                kv_admission: settings.kv_admission.name(),
                first_token,
                first_token_source: first_token_source.clone(),
            };
            Ok((text(&told)?, tables))
        })
    })?;
    let to_python = |(summary, tables): (String, [(&str, Columns); 4])| {
        let frames = PyDict::new(py);
        for (name, table) in tables {
            frames.set_item(name, columns::to_python(py, table)?)?;
        }
        PyTuple::new(py, [summary.into_pyobject(py)?.into_any(), frames.into_any()])
    };
    found.into_iter().map(to_python).collect()
}

/// Simulate the trace at each rate, and find the highest rate that holds the SLO.
///
/// Parameters
/// ----------
/// slo
///     Limits at ``slo.percentile`` (None: means).
/// rates
///     Mean arrivals per second; the same requests at each, in parallel.
/// trace
///     What arrives.
///
/// Returns
/// -------
/// Frame
///     One row a rate; ``attrs["highest_rate"]`` is bisected to 1 % between the last rate that holds
///     and the first that fails (None: the lowest fails; the largest given: none fails). ``note`` says where a run is
///     too short for its rate, or offers more than is served.
///
/// Raises
/// ------
/// SpecError
///     If an input does not fit.
#[pyfunction]
#[pyo3(signature = (engine, trace, slo, rates, fixed, options, seed, progress: "_Report" = None))]
#[allow(clippy::too_many_arguments)]
pub fn goodput_curve<'py>(
    py: Python<'py>,
    engine: &Engine,
    trace: &Trace,
    slo: &Spec,
    rates: Vec<f64>,
    fixed: Option<Times>,
    options: &str,
    seed: u64,
    progress: Option<&Bound<'_, PyAny>>,
) -> PyResult<Payload<'py>> {
    let (deployment, settings, slo) = errors::guard(|| {
        let s = Settings { seed, ..settings(engine, options, 0)? };
        Ok((deployment(engine, fixed)?, s, slo_of(slo, "slo")?))
    })?;
    let trace = trace.inner.clone();
    let found =
        run::run(py, progress, move |control| goodput::curve(&deployment, &trace, &slo, &rates, &settings, control))?;
    columns::to_python(py, found)
}

/// Goodput of finished columns, as JSON.
#[pyfunction]
pub fn judge(
    ttft_ms: columns::Array<'_, f64>,
    tpot_ms: columns::Array<'_, f64>,
    e2e_ms: columns::Array<'_, f64>,
    finished: columns::Array<'_, bool>,
    window_s: f64,
    lacks: f64,
    slo: &Spec,
) -> PyResult<(f64, f64, f64, f64, bool)> {
    let l = Latencies {
        ttft_ms: columns::floats(&ttft_ms),
        tpot_ms: columns::floats(&tpot_ms),
        e2e_ms: columns::floats(&e2e_ms),
    };
    let finished = finished.as_array().to_vec();
    errors::guard(|| {
        let slo = slo_of(slo, "slo")?;
        slo.check().into_result()?;
        let g = metrics::judge(&l, &finished, window_s, lacks, &slo);
        Ok((g.requests_per_s, g.share, g.ttft_ms, g.tpot_ms, g.holds))
    })
}

/// (mean, half width at 99 %, ends of the 95 % interval: infinite where there is none, values).
#[pyfunction]
pub fn mean_interval(values: columns::Array<'_, f64>) -> (f64, Option<f64>, Option<(f64, f64)>, usize) {
    let i = statistics::interval(&columns::floats(&values));
    (i.mean, i.half_99, i.ends_95(), i.values)
}

/// A timeline as Chrome trace events.
#[pyfunction]
pub fn perfetto(
    start_s: columns::Array<'_, f64>,
    end_s: columns::Array<'_, f64>,
    whole: [columns::Array<'_, i64>; 4],
    kinds: Vec<String>,
    names: Vec<String>,
) -> PyResult<String> {
    let (start, end) = (columns::floats(&start_s), columns::floats(&end_s));
    let [instance, lane, batch, steps] = whole.map(|w| w.as_array().to_vec());
    let n = start.len();
    errors::guard(|| {
        if [end.len(), instance.len(), lane.len(), batch.len(), steps.len(), kinds.len()].iter().any(|k| *k != n) {
            return Err(Error::spec("timeline", "columns differ in length", ""));
        }
        let kind = |k: &str| Role::named(k).map_or(SpanKind::Transfer, SpanKind::Steps);
        let spans: Vec<Span> = (0..n)
            .map(|i| Span {
                instance: instance[i] as u32,
                lane: lane[i] as u32,
                start_ps: to_ps(start[i]),
                end_ps: to_ps(end[i]).max(to_ps(start[i])),
                kind: kind(&kinds[i]),
                batch: batch[i] as u32,
                steps: steps[i] as u32,
            })
            .collect();
        Ok(chrome::to_json(&spans, &names))
    })
}

/// Fit a device to a server's log, by simulating the same requests.
///
/// Arithmetic rate, memory bandwidth and launch floor are moved until the simulated TTFT and TPOT are as near to
/// the measured ones as they get (mean soft-L1 of log errors; Nelder and Mead 1965). The kernels keep the shapes
/// of the measured tables of the cluster's system, so the rates are effective ones, not peaks of a data sheet.
///
/// Parameters
/// ----------
/// log
///     Columns ``arrival_s``, ``isl`` (whole prompt), ``osl`` and ``ttft_ms`` or ``tpot_ms`` or both, one row a
///     request: a Frame, a data frame, or a mapping of arrays. A latency that is not a number is not fitted: such
///     requests are load only.
///
/// Returns
/// -------
/// Device
///     ``source`` tells how well it fits; use it as ``Cluster(system, gpus=n, device=device)``. Where the plan was an
///     aggregated one, ``log_tpot_error`` and ``log_ttft_error`` are what the fit leaves over: intervals of aggregated
///     plans on the device are made of them, which narrows them.
///
/// Raises
/// ------
/// SpecError
///     If a column is missing or an input does not fit.
/// InfeasibleError
///     If the plan does not fit the GPUs.
///
/// Examples
/// --------
/// >>> import disagg as dg
/// >>> model, plan = dg.Model("Qwen/Qwen3-32B"), dg.Aggregated(parallel=dg.Parallel(), batch=16)
/// >>> cluster = dg.Cluster("h100_sxm", gpus=1)
/// >>> trace = dg.Trace.poisson(dg.Workload(isl=500, osl=20), rate=2, n=40)
/// >>> log = dg.simulate(model, cluster, plan, trace).requests
/// >>> device = dg.calibrate(log, model=model, cluster=cluster, plan=plan)
/// >>> bool(abs(device.hbm_bytes_per_s / 3.35e12 - 1) < 0.02)
/// True
#[pyfunction]
#[pyo3(signature = (case, plan, options, arrival_s, isl, osl, ttft_ms, tpot_ms, progress: "_Report" = None) -> "specs.Device")]
#[allow(clippy::too_many_arguments)]
pub fn calibrate<'py>(
    py: Python<'py>,
    case: &Case,
    plan: &Spec,
    options: &str,
    arrival_s: columns::Array<'_, f64>,
    isl: columns::Array<'_, i64>,
    osl: columns::Array<'_, i64>,
    ttft_ms: columns::Array<'_, f64>,
    tpot_ms: columns::Array<'_, f64>,
    progress: Option<&Bound<'_, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    let whole = |a: &columns::Array<'_, i64>| -> Vec<u32> {
        a.as_array().iter().map(|x| u32::try_from(*x).unwrap_or(0)).collect()
    };
    let log = Log {
        requests: Requests {
            arrival_ps: columns::floats(&arrival_s).into_iter().map(to_ps).collect(),
            isl: whole(&isl),
            osl: whole(&osl),
            ..Requests::default()
        },
        ttft_ms: columns::floats(&ttft_ms),
        tpot_ms: columns::floats(&tpot_ms),
    };
    let server = errors::guard(|| {
        // A log names no prompt blocks and meets no shared tier: bytes of KV do not matter.
        let settings = Options::from_json(options)?.settings(1.0)?;
        // Settled once: every device that is tried runs the same framework.
        let case = spec::Case { frameworks: Some(vec![framework_of(&case.inner)?]), ..spec::Case::clone(&case.inner) };
        Ok(Server { db: kernels::db()?, case, plan: plan_of(plan)?, settings })
    })?;
    let fit = run::run(py, progress, move |control| fitted::device(&server, &log, control))?;
    wrap(py, Data::Device(fit.device))
}
