//! Design spaces: built from JSON, counted, sampled, priced by point numbers, searched for their optimum.
//!
//! Limit: points cross as numbers and come back as columns; an axis takes lists, never a function.

use std::sync::Arc;

use super::give::Payload;
use numpy::{IntoPyArray, PyArray1};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PySequence, PyString};
use serde_json::{Map, Value};

use super::case::slo_of;
use super::data::Spec;
use super::sim::{self, Trace};
use super::{columns, convert, errors, kernels, run};
use crate::design::{self, Axis, Description, Metric, optimize};
use crate::error::{Error, Problems, Result};
use crate::sim::settings::Options;

/// A design space, checked and counted.
#[pyclass(frozen, module = "disagg._core")]
pub struct DesignSpace {
    inner: Arc<design::Space>,
}

fn numbers(points: &columns::Array<'_, i64>) -> Result<Vec<u64>> {
    points
        .as_array()
        .iter()
        .map(|p| u64::try_from(*p).map_err(|_| Error::spec("points", format!("{p} is not a point"), "")))
        .collect()
}

/// One axis: a list, range or array of numbers, text, None and specs.
fn axis(path: String, values: &Bound<'_, PyAny>, problems: &mut Problems) -> PyResult<Axis> {
    let field = format!("axes.{path}");
    let text = values.is_instance_of::<PyString>() || values.is_instance_of::<PyBytes>();
    if text || !(values.cast::<PySequence>().is_ok() || values.hasattr("tolist")?) {
        problems.push(field, format!("{} is not a list of values", values.repr()?), "e.g. [1, 2, 4]");
        return Ok(Axis { path, values: Vec::new() });
    }
    let mut said = Vec::new();
    for value in values.try_iter()? {
        let (value, mut wrong) = (value?, Problems::new());
        let json = convert::to_json(&value, &field, &mut wrong);
        let nested = value.cast::<Spec>().is_err() && (json.is_object() || json.is_array());
        if nested || !wrong.is_empty() {
            let plain = value.call_method0("item").unwrap_or_else(|_| value.clone());
            let text = format!("{} cannot be a value", plain.repr()?);
            problems.push(&field, text, "a finite number, text, None or a spec");
        }
        said.push(json);
    }
    Ok(Axis { path, values: said })
}

#[pymethods]
impl DesignSpace {
    /// Reads a space from its JSON.
    #[new]
    fn new(py: Python<'_>, text: &str) -> PyResult<DesignSpace> {
        let text = text.to_string();
        let built = run::run(py, None, move |control| {
            let description: Description = crate::spec::json::parse(&text, "space")?;
            design::Space::counted(description, control)
        })?;
        Ok(DesignSpace { inner: Arc::new(built) })
    }

    /// A space around a question: its parts as specs, and what each axis takes.
    #[staticmethod]
    #[pyo3(signature = (question: "dict[str, Any]", axes: "dict[str, Any]", constraints))]
    fn of(
        py: Python<'_>,
        question: &Bound<'_, PyDict>,
        axes: &Bound<'_, PyDict>,
        constraints: Vec<String>,
    ) -> PyResult<DesignSpace> {
        let mut problems = Problems::new();
        let listed = axes.iter().map(|(path, values)| axis(path.extract()?, &values, &mut problems));
        let axes = listed.collect::<PyResult<Vec<_>>>()?;
        let question = match convert::to_json(question.as_any(), "", &mut problems) {
            Value::Object(parts) => parts.into_iter().filter(|(_, part)| !part.is_null()).collect(),
            _ => Map::new(),
        };
        errors::guard(|| problems.into_result())?;
        let description = Description { question, axes, constraints };
        let built = run::run(py, None, move |control| design::Space::counted(description, control))?;
        Ok(DesignSpace { inner: Arc::new(built) })
    }

    /// Points in all.
    #[getter]
    fn size(&self) -> u64 {
        self.inner.size()
    }

    /// JSON text; reading it back gives the same space.
    fn to_json(&self) -> PyResult<String> {
        errors::guard(|| crate::spec::json::to_json(&self.inner.description, "space"))
    }

    /// Numbers of `n` points.
    #[pyo3(signature = (n, method, seed) -> "_Ints")]
    fn sample<'py>(&self, py: Python<'py>, n: u64, method: &str, seed: u64) -> PyResult<Bound<'py, PyArray1<i64>>> {
        let drawn = errors::guard(|| design::sample(&self.inner, n, method, seed))?;
        Ok(drawn.into_iter().map(|p| p as i64).collect::<Vec<_>>().into_pyarray(py))
    }

    /// Prices points: their axis values, the metrics, and what became of each.
    #[pyo3(signature = (points, metrics, runnable, progress: "_Report" = None))]
    fn price<'py>(
        &self,
        py: Python<'py>,
        points: columns::Array<'py, i64>,
        metrics: Vec<String>,
        runnable: bool,
        progress: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Payload<'py>> {
        let points = errors::guard(|| numbers(&points))?;
        let inner = self.inner.clone();
        let found = run::run(py, progress, move |control| {
            design::price(&kernels::db()?, &inner, &points, &metrics, runnable, control)
        })?;
        columns::to_python(py, found)
    }

    /// The whole question of a point, as JSON.
    fn question(&self, point: u64) -> PyResult<String> {
        errors::guard(|| {
            self.inner.check_points(&[point])?;
            crate::spec::json::to_json(&self.inner.question(point)?, "question")
        })
    }

    /// Number of the point with these choices, one an axis; none if it breaks a constraint.
    fn index_of(&self, choices: Vec<usize>) -> PyResult<Option<u64>> {
        errors::guard(|| {
            let lengths = self.inner.lengths();
            if choices.len() != lengths.len() || choices.iter().zip(&lengths).any(|(c, n)| c >= n) {
                return Err(Error::spec("choices", format!("{choices:?} does not fit axes of {lengths:?} values"), ""));
            }
            Ok(self.inner.index_of(&choices))
        })
    }

    /// Axis values of points.
    fn values<'py>(&self, py: Python<'py>, points: columns::Array<'py, i64>) -> PyResult<Payload<'py>> {
        let found = errors::guard(|| self.inner.values(&numbers(&points)?))?;
        columns::to_python(py, found)
    }
}

/// The search for the optimum of a space, by prices or by simulations; one that was stopped keeps what it has.
#[pyclass(frozen, module = "disagg._core")]
pub struct Search {
    inner: Arc<Judge>,
}

enum Judge {
    Priced(Box<optimize::Search>),
    Simulated(Box<optimize::Simulated>),
}

/// What every candidate serves: a trace, limits, fixed times, options as JSON and a seed.
type Served<'py> = (PyRef<'py, Trace>, Option<PyRef<'py, Spec>>, Option<sim::Times>, String, u64);

/// The same of either judge.
macro_rules! of {
    ($search:expr, $judge:ident => $what:expr) => {
        match &*$search {
            Judge::Priced($judge) => $what,
            Judge::Simulated($judge) => $what,
        }
    };
}

#[pymethods]
impl Search {
    /// `served`: None where steady states are judged.
    #[new]
    #[pyo3(signature = (space, points, objective, constraints, runnable, served=None))]
    fn new(
        space: &DesignSpace,
        points: Option<columns::Array<'_, i64>>,
        objective: &str,
        constraints: Vec<String>,
        runnable: bool,
        served: Option<Served<'_>>,
    ) -> PyResult<Search> {
        errors::guard(|| {
            let points = points.as_ref().map(numbers).transpose()?;
            let space = space.inner.clone();
            let Some((trace, slo, fixed, options, seed)) = served else {
                let inner = optimize::Search::new(space, points, objective, &constraints)?.runnable(runnable);
                return Ok(Search { inner: Arc::new(Judge::Priced(Box::new(inner))) });
            };
            let requests = optimize::Requests {
                trace: trace.inner.clone(),
                slo: slo.map(|s| slo_of(&s, "simulate.slo")).transpose()?,
                fixed: fixed.map(sim::fixed),
                options: Options::from_json(&options)?,
                seed,
            };
            let inner = optimize::Simulated::new(space, points, objective, &constraints, runnable, requests)?;
            Ok(Search { inner: Arc::new(Judge::Simulated(Box::new(inner))) })
        })
    }

    #[pyo3(signature = (progress: "_Report" = None))]
    fn run(&self, py: Python<'_>, progress: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        let inner = self.inner.clone();
        // Waited for: what it has found so far is read next, and must not change meanwhile.
        run::run_kept(py, progress, true, move |control| of!(inner, judge => judge.run(&kernels::db()?, control)))
    }

    /// Judges some points and keeps them.
    fn take<'py>(&self, py: Python<'py>, points: columns::Array<'py, i64>) -> PyResult<Payload<'py>> {
        let points = errors::guard(|| numbers(&points))?;
        let inner = self.inner.clone();
        let found =
            run::run(py, None, move |control| of!(inner, judge => judge.take(&kernels::db()?, &points, control)))?;
        columns::to_python(py, found)
    }

    /// The metric that is made as good as possible, and whether more is better.
    #[getter]
    fn objective(&self) -> (String, bool) {
        of!(self.inner, judge => judge.objective())
    }

    #[getter]
    fn complete(&self) -> bool {
        of!(self.inner, judge => judge.complete())
    }

    /// The number of the best point, and of all that tie with it.
    fn best(&self) -> PyResult<(u64, Vec<u64>)> {
        errors::guard(|| of!(self.inner, judge => judge.best()))
    }

    fn points<'py>(&self, py: Python<'py>) -> PyResult<Payload<'py>> {
        columns::to_python(py, of!(self.inner, judge => judge.points()))
    }

    fn certificate<'py>(&self, py: Python<'py>) -> PyResult<Payload<'py>> {
        columns::to_python(py, of!(self.inner, judge => judge.certificate()))
    }
}

/// Numbers that a point can be asked for.
#[pyfunction]
pub fn design_metrics() -> Vec<&'static str> {
    Metric::NAMES.to_vec()
}
