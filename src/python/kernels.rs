//! The measured kernels: opening the pack, listing, tables, look-ups, imports, the report.
//!
//! Limit: one database a process; a second pack takes the place of the first for every later question.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use super::give::{self, Facts, Payload};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};

use super::data::{Data, Spec};
use super::{columns, errors, run};
use crate::columns::{Column, Columns};
use crate::error::{Error, Result};
use crate::kernels::import::RawColumn;
use crate::kernels::lookup::{Query, lookup_all};
use crate::kernels::ops::Source;
use crate::kernels::table::{Provenance, TableKey, Value};
use crate::kernels::{KernelDb, Table, known, report};

/// Where the pack lies, and the database once somebody asked for it.
static PACK: Mutex<(Option<PathBuf>, Option<Arc<KernelDb>>)> = Mutex::new((None, None));

/// The database; opened at first use.
pub fn db() -> Result<Arc<KernelDb>> {
    let mut pack = PACK.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(db) = &pack.1 {
        return Ok(db.clone());
    }
    let dir = pack.0.clone().ok_or_else(|| Error::data("kernels", "nobody has said where the kernel pack lies"))?;
    let db = KernelDb::open(&dir)?;
    pack.1 = Some(db.clone());
    Ok(db)
}

/// Says where the kernel pack lies; nothing is read yet.
#[pyfunction]
pub fn kernels_at(path: PathBuf) {
    let mut pack = PACK.lock().unwrap_or_else(PoisonError::into_inner);
    *pack = (Some(path), None);
}

/// One line on where the pack's numbers come from.
#[pyfunction]
pub fn kernels_origin() -> PyResult<String> {
    errors::guard(|| Ok(db()?.origin().to_string()))
}

/// Digits that differ wherever a table does, shipped or imported.
#[pyfunction]
pub fn kernels_identity() -> PyResult<String> {
    errors::guard(|| Ok(db()?.identity()))
}

/// Shipped tables that cannot be read: file, and what is wrong.
#[pyfunction]
#[pyo3(signature = (progress=None))]
pub fn kernels_damaged(py: Python<'_>, progress: Option<&Bound<'_, PyAny>>) -> PyResult<Vec<(String, String)>> {
    run::run(py, progress, |control| db()?.damaged(control))
}

/// For each system the frameworks that measured a model's own kernels.
#[pyfunction]
pub fn kernels_known(model: &Spec) -> PyResult<Vec<(String, Vec<String>)>> {
    errors::guard(|| match model.data() {
        Data::Model(model) => known(&*db()?, model),
        _ => Err(Error::spec("model", "is not a Model", "")),
    })
}

/// List the systems whose kernels were measured.
///
/// Examples
/// --------
/// >>> import disagg as dg
/// >>> "b200_sxm" in dg.kernels.systems()
/// True
#[pyfunction]
pub fn kernels_systems() -> PyResult<Vec<String>> {
    errors::guard(|| Ok(db()?.systems()))
}

/// List the frameworks that serve on a system (``tables(system, "nccl")`` has the collectives beside them).
///
/// Examples
/// --------
/// >>> import disagg as dg
/// >>> "sglang" in dg.kernels.frameworks("b200_sxm")
/// True
#[pyfunction]
pub fn kernels_frameworks(system: &str) -> PyResult<Vec<String>> {
    errors::guard(|| Ok(db()?.frameworks(system)?.to_vec()))
}

/// Versions of a framework with tables on a system, the newest first.
#[pyfunction]
pub fn kernels_versions(system: &str, framework: &str) -> PyResult<Vec<String>> {
    errors::guard(|| {
        let db = db()?;
        db.tables(system, framework)?;
        Ok(db.versions(system, framework))
    })
}

/// List the tables of a framework on a system.
///
/// Returns
/// -------
/// Frame
///     table, version, rows, default (taken when no version is named), import, repeated (keys measured more
///     than once) and spread_median (of those, largest / least - 1).
///
/// Examples
/// --------
/// >>> import disagg as dg
/// >>> "gemm" in dg.kernels.tables("b200_sxm", "sglang")["table"]
/// True
#[pyfunction]
pub fn kernels_tables<'py>(py: Python<'py>, system: &str, framework: &str) -> PyResult<Payload<'py>> {
    let found = errors::guard(|| db()?.tables(system, framework))?;
    let mut out = Columns::new();
    out.push("table", Column::from_strings(found.iter().map(|t| t.name.as_str())));
    out.push("version", Column::from_strings(found.iter().map(|t| t.version.as_str())));
    out.push("rows", Column::I64(found.iter().map(|t| t.rows as i64).collect()));
    out.push("default", Column::Bool(found.iter().map(|t| t.default).collect()));
    out.push("import", Column::from_strings(found.iter().map(|t| t.provenance.import.as_str())));
    out.push("repeated", Column::I64(found.iter().map(|t| t.provenance.noise.repeated_keys as i64).collect()));
    out.push("spread_median", Column::F64(found.iter().map(|t| t.provenance.noise.spread_median).collect()));
    columns::to_python(py, out)
}

/// Give a whole table: key columns, then what was measured, in the units of the source.
///
/// Parameters
/// ----------
/// system, framework, name
///     Which table; the name is that of its parquet file without ``_perf``.
///
/// Raises
/// ------
/// SpecError
///     If there is no such table; near names are listed.
/// DataError
///     If the pack is damaged.
///
/// Examples
/// --------
/// >>> import disagg as dg
/// >>> len(dg.kernels.table("b200_sxm", "sglang", "gemm")) > 1000
/// True
#[pyfunction]
#[pyo3(signature = (system, framework, name, version=None))]
pub fn kernels_table<'py>(
    py: Python<'py>,
    system: &str,
    framework: &str,
    name: &str,
    version: Option<&str>,
) -> PyResult<Payload<'py>> {
    let out = py.detach(|| errors::guard(|| Ok(as_columns(&*db()?.table(system, framework, name, version)?))))?;
    columns::to_python(py, out)
}

fn as_columns(table: &Table) -> Columns {
    let mut out = Columns::new();
    for key in &table.keys {
        let column = match key {
            TableKey::Int { values, .. } => Column::I64(values.clone()),
            TableKey::Text { codes, labels, .. } => {
                Column::Cat { codes: codes.iter().map(|c| i32::from(*c)).collect(), labels: labels.clone() }
            }
        };
        out.push(key.name(), column);
    }
    for (name, values) in &table.measures {
        out.push(name, Column::F64(values.iter().map(|v| f64::from(*v)).collect()));
    }
    let text = |s: &str| serde_json::Value::from(s).to_string();
    out.attrs.insert("system".into(), text(&table.system));
    out.attrs.insert("framework".into(), text(&table.framework));
    out.attrs.insert("version".into(), text(&table.version));
    out.attrs.insert("table".into(), text(&table.name));
    out.attrs.insert("provenance".into(), serde_json::to_string(&table.provenance).unwrap_or_else(|_| "null".into()));
    out
}

/// Values of one key column as Python hands them over.
#[derive(FromPyObject)]
pub enum Values<'py> {
    #[pyo3(transparent)]
    Numbers(columns::Array<'py, f64>),
    #[pyo3(transparent)]
    Texts(Vec<String>),
}

/// Look up one measured time, or many at once.
///
/// Parameters
/// ----------
/// system, framework, table
///     Which table; the name is that of its parquet file without ``_perf``.
/// measure
///     A measured column, or several joined by ``+``; None: ``latency``.
/// **keys
///     The table's own key columns. Numbers may be arrays and broadcast. ``kernel_source`` may be left out:
///     the default lane.
///
/// Returns
/// -------
/// Latency
///     ``.ms``, ``.evidence`` and ``.source``: plain values, or arrays of the broadcast shape.
///
/// Raises
/// ------
/// SpecError
///     If a key is unknown, missing or ambiguous; says what to give.
///
/// Examples
/// --------
/// >>> import disagg as dg
/// >>> one = dg.kernels.lookup("b200_sxm", "sglang", "gemm", gemm_dtype="bfloat16", m=[1, 64], n=7168, k=2048)
/// >>> one.ms.shape, set(one.evidence.tolist()) <= {"measured", "interpolated"}
/// ((2,), True)
#[pyfunction]
pub fn kernels_lookup<'py>(
    py: Python<'py>,
    system: String,
    framework: String,
    table: String,
    version: Option<String>,
    measure: Option<String>,
    keys: Vec<(String, Values<'_>)>,
) -> PyResult<Payload<'py>> {
    let keys = keys
        .into_iter()
        .map(|(name, values)| {
            let values = match values {
                Values::Numbers(array) => columns::floats(&array).into_iter().map(Value::Number).collect(),
                Values::Texts(texts) => texts.into_iter().map(Value::Text).collect(),
            };
            (name, values)
        })
        .collect();
    let query = Query { system, framework, table, version, measure, keys };
    let found = py.detach(|| errors::guard(|| lookup_all(&*db()?, &query)))?;
    let mut out = Columns::new();
    out.push("ms", Column::F64(found.iter().map(|l| l.ms).collect()));
    out.push("evidence", Column::from_strings(found.iter().map(|l| l.evidence.name())));
    out.push("source", Column::from_strings(found.iter().map(|l| l.source.as_str())));
    columns::to_python(py, out)
}

/// Put the measurements of a directory in front of the shipped ones (needs pyarrow).
///
/// Number formats and shapes that the import lacks are answered by the rows that were there; of what it has, its own
/// rows alone. ``Estimate.explain()`` names the tables that answer.
///
/// Parameters
/// ----------
/// path
///     A directory ``<system>/<family>/<framework>/<version>/<table>_perf.parquet``, or an unpacked or installed
///     ``aiconfigurator-core``.
/// name
///     What the source is called wherever its numbers show up; also good as ``version=`` of a look-up.
///
/// Returns
/// -------
/// int
///     Tables imported.
///
/// Raises
/// ------
/// DataError
///     At the first file that cannot be read as a whole; nothing is imported then.
#[pyfunction]
pub fn kernels_import(name: &str, tables: Vec<Bound<'_, PyDict>>) -> PyResult<usize> {
    let mut made = Vec::with_capacity(tables.len());
    for table in &tables {
        let text = |field: &str| -> PyResult<String> {
            table.get_item(field)?.map_or_else(|| Ok(String::new()), |v| v.extract())
        };
        let found = table.get_item("columns")?;
        let raw = found.map_or_else(|| Ok(Vec::new()), |found| raw_columns(found.cast::<PyDict>()?))?;
        let provenance = Provenance {
            path: text("path")?,
            family: text("family")?,
            sha256: text("sha256")?,
            ..Provenance::default()
        };
        let (system, framework, version, table) =
            (text("system")?, text("framework")?, text("version")?, text("table")?);
        made.push(errors::guard(|| Table::from_columns(&system, &framework, &version, &table, raw, provenance))?);
    }
    let count = made.len();
    errors::guard(|| {
        let new = db()?.with_tables(name, made)?;
        PACK.lock().unwrap_or_else(PoisonError::into_inner).1 = Some(new);
        Ok(count)
    })
}

/// The content of a table's frame in a pack, from columns in the order of the source: bytes, rows, and what is known of
/// them (kernel sources, rows in the source, noise). `compressed` gives bytes made small.
#[pyfunction]
pub fn kernels_frame<'py>(
    py: Python<'py>,
    table: &str,
    columns: &Bound<'py, PyDict>,
    compressed: &Bound<'py, PyAny>,
) -> PyResult<(Bound<'py, PyBytes>, usize, Facts<'py>)> {
    let raw = raw_columns(columns)?;
    let (frame, made) = errors::guard(|| {
        let made = Table::from_columns("", "", "", table, raw, Provenance::default())?;
        let size = |bytes: &[u8]| -> PyResult<usize> { compressed.call1((PyBytes::new(py, bytes),))?.len() };
        let frame = made.frame(|bytes| size(bytes).map_err(|e| Error::data("pack", e.to_string())))?;
        Ok((frame, made))
    })?;
    Ok((PyBytes::new(py, &frame), made.rows(), give::facts(py, &made.provenance)?))
}

fn raw_columns(columns: &Bound<'_, PyDict>) -> PyResult<Vec<(String, RawColumn)>> {
    columns.iter().map(|(name, values)| Ok((name.extract()?, raw_column(&values)?))).collect()
}

fn raw_column(values: &Bound<'_, PyAny>) -> PyResult<RawColumn> {
    if let Ok(array) = values.extract::<columns::Array<'_, i64>>() {
        Ok(RawColumn::Int(array.as_array().to_vec()))
    } else if let Ok(array) = values.extract::<columns::Array<'_, f64>>() {
        Ok(RawColumn::Measure(array.as_array().to_vec()))
    } else {
        Ok(RawColumn::Text(values.extract::<Vec<String>>()?))
    }
}

/// Runs one report over every table of a framework that it knows, with progress by table.
fn by_table<T: Send + 'static>(
    py: Python<'_>,
    system: String,
    framework: String,
    device: &Spec,
    progress: Option<&Bound<'_, PyAny>>,
    each: impl Fn(&Source, &str) -> Result<Vec<T>> + Send + 'static,
) -> PyResult<Vec<T>> {
    let device = errors::guard(|| match device.data() {
        Data::Device(d) => Ok(d.clone()),
        other => Err(Error::spec("device", format!("is a {}, not a Device", other.kind()), "")),
    })?;
    run::run(py, progress, move |control| {
        let db = db()?;
        let source = Source {
            db: db.clone(),
            system: system.clone(),
            framework: framework.clone(),
            device,
            graph: false,
            by_rule: false,
        };
        let measured: Vec<String> = db.tables(&system, &framework)?.into_iter().map(|t| t.name).collect();
        let tables: Vec<&str> = report::TABLES.iter().copied().filter(|t| measured.iter().any(|m| m == t)).collect();
        control.set_total(tables.len() as u64);
        let mut rows = Vec::new();
        for table in tables {
            control.check()?;
            rows.extend(each(&source, table)?);
            control.advance(1);
        }
        Ok(rows)
    })
}

/// Say how good the predictor is: leave-one-out errors by table and hidden axis.
///
/// Parameters
/// ----------
/// system, framework
///     Whose tables.
/// samples
///     Rows drawn from each table.
///
/// Returns
/// -------
/// Frame
///     table, lane (its number format), axis (what was hidden; ``point``: the one row), edge (the hidden value was
///     the first or last), n, median_error and p90_error (relative), noise (median spread of repeats: no predictor
///     can do better; NaN where nothing was measured twice), jitter (median fall between neighbours that fall where
///     there is more to do: kernel changes and noise, which no smooth predictor follows), aim (median error aimed
///     at; 20 % for the 90th percentile), within (whether the lane keeps both).
#[pyfunction]
#[pyo3(signature = (system, framework, device, samples, seed, progress: "_Report" = None))]
pub fn kernels_report<'py>(
    py: Python<'py>,
    system: String,
    framework: String,
    device: &Spec,
    samples: usize,
    seed: u64,
    progress: Option<&Bound<'_, PyAny>>,
) -> PyResult<Payload<'py>> {
    let rows = by_table(py, system, framework, device, progress, move |source, table| {
        report::leave_one_out(source, table, samples, seed)
    })?;
    let mut out = Columns::new();
    out.push("table", Column::from_strings(rows.iter().map(|r| r.table.as_str())));
    out.push("lane", Column::from_strings(rows.iter().map(|r| r.lane.as_str())));
    out.push("axis", Column::from_strings(rows.iter().map(|r| r.axis.as_str())));
    out.push("edge", Column::from_strings(rows.iter().map(|r| r.edge)));
    out.push("n", Column::I64(rows.iter().map(|r| r.n as i64).collect()));
    out.push("median_error", Column::F64(rows.iter().map(|r| r.median).collect()));
    out.push("p90_error", Column::F64(rows.iter().map(|r| r.p90).collect()));
    out.push("noise", Column::F64(rows.iter().map(|r| r.noise).collect()));
    out.push("jitter", Column::F64(rows.iter().map(|r| r.jitter).collect()));
    out.push("aim", Column::F64(rows.iter().map(|r| r.aim).collect()));
    out.push("within", Column::Bool(rows.iter().map(report::LooRow::within).collect()));
    columns::to_python(py, out)
}

/// List the lanes whose rows look wrong by rule; each is used unless the reason says otherwise.
///
/// Parameters
/// ----------
/// system, framework
///     Whose tables.
///
/// Returns
/// -------
/// Frame
///     table, lane, reason (a row far off its neighbours, a launch floor far above the roofline, times that fall
///     where there is more to do, a balanced load slower than a skewed one).
#[pyfunction]
#[pyo3(signature = (system, framework, device, progress: "_Report" = None))]
pub fn kernels_suspects<'py>(
    py: Python<'py>,
    system: String,
    framework: String,
    device: &Spec,
    progress: Option<&Bound<'_, PyAny>>,
) -> PyResult<Payload<'py>> {
    let rows = by_table(py, system, framework, device, progress, report::suspects)?;
    let mut out = Columns::new();
    out.push("table", Column::from_strings(rows.iter().map(|r| r.table.as_str())));
    out.push("lane", Column::from_strings(rows.iter().map(|r| r.lane.as_str())));
    out.push("reason", Column::from_strings(rows.iter().map(|r| r.reason.as_str())));
    columns::to_python(py, out)
}
