//! Design spaces: built from JSON, counted, sampled, priced by point numbers, searched for their optimum.

use std::sync::Arc;

use numpy::{IntoPyArray, PyArray1, PyReadonlyArray1};
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use super::{columns, errors, kernels, run};
use crate::design::{self, Description, Metric, optimize};
use crate::error::{Error, Result};

/// A design space, checked and counted.
#[pyclass(frozen, module = "disagg._core")]
pub struct DesignSpace {
    inner: Arc<design::Space>,
}

fn numbers(points: &PyReadonlyArray1<'_, i64>) -> Result<Vec<u64>> {
    points
        .as_array()
        .iter()
        .map(|p| u64::try_from(*p).map_err(|_| Error::spec("points", format!("{p} is not a point"), "")))
        .collect()
}

#[pymethods]
impl DesignSpace {
    /// Reads a space from its JSON.
    #[new]
    fn new(py: Python<'_>, text: &str) -> PyResult<DesignSpace> {
        let text = text.to_string();
        let built = py.detach(move || {
            let description: Description = crate::spec::json::parse(&text, "space")?;
            design::Space::new(description)
        });
        errors::guard(|| built.map(|s| DesignSpace { inner: Arc::new(s) }))
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
    fn sample<'py>(&self, py: Python<'py>, n: u64, method: &str, seed: u64) -> PyResult<Bound<'py, PyArray1<i64>>> {
        let drawn = errors::guard(|| design::sample(&self.inner, n, method, seed))?;
        Ok(drawn.into_iter().map(|p| p as i64).collect::<Vec<_>>().into_pyarray(py))
    }

    /// Prices points: their axis values, the metrics, and what became of each.
    #[pyo3(signature = (points, metrics, runnable, progress=None))]
    fn price<'py>(
        &self,
        py: Python<'py>,
        points: PyReadonlyArray1<'py, i64>,
        metrics: Vec<String>,
        runnable: bool,
        progress: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Bound<'py, PyTuple>> {
        let points = errors::guard(|| numbers(&points))?;
        let inner = self.inner.clone();
        let found = run::run(py, progress, move |control| {
            design::price(&kernels::db()?, &inner, &points, &metrics, runnable, control)
        })?;
        columns::to_python(py, found)
    }

    /// Why no server starts a point (`not runnable: RULE`); none: one does, or the point is wrong in itself.
    fn broken(&self, point: u64) -> PyResult<Option<String>> {
        errors::guard(|| {
            self.inner.check_points(&[point])?;
            Ok(design::Reader::new(&kernels::db()?, &self.inner).broken(point).unwrap_or_default())
        })
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
    fn values<'py>(&self, py: Python<'py>, points: PyReadonlyArray1<'py, i64>) -> PyResult<Bound<'py, PyTuple>> {
        let found = errors::guard(|| self.inner.values(&numbers(&points)?))?;
        columns::to_python(py, found)
    }
}

/// The search for the optimum of a space; one that was stopped keeps what it has.
#[pyclass(frozen, module = "disagg._core")]
pub struct Search {
    inner: optimize::Search,
}

#[pymethods]
impl Search {
    #[new]
    #[pyo3(signature = (space, points, objective, constraints, runnable))]
    fn new(
        space: &DesignSpace,
        points: Option<PyReadonlyArray1<'_, i64>>,
        objective: &str,
        constraints: Vec<String>,
        runnable: bool,
    ) -> PyResult<Search> {
        errors::guard(|| {
            let points = points.as_ref().map(numbers).transpose()?;
            let inner = optimize::Search::new(space.inner.clone(), points, objective, &constraints)?.runnable(runnable);
            Ok(Search { inner })
        })
    }

    #[pyo3(signature = (progress=None))]
    fn run(&self, py: Python<'_>, progress: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        run::run(py, progress, |control| self.inner.run(&kernels::db()?, control))
    }

    /// Prices some points and keeps them.
    fn take<'py>(&self, py: Python<'py>, points: PyReadonlyArray1<'py, i64>) -> PyResult<Bound<'py, PyTuple>> {
        let points = errors::guard(|| numbers(&points))?;
        let found = run::run(py, None, |control| self.inner.take(&kernels::db()?, &points, control))?;
        columns::to_python(py, found)
    }

    /// The metric that is made as good as possible, and whether more is better.
    #[getter]
    fn objective(&self) -> (String, bool) {
        (self.inner.goal.metric.name().to_string(), self.inner.goal.maximise)
    }

    #[getter]
    fn complete(&self) -> bool {
        self.inner.complete()
    }

    /// The number of the best point, and of all that tie with it.
    fn best(&self) -> PyResult<(u64, Vec<u64>)> {
        errors::guard(|| self.inner.best())
    }

    fn points<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        columns::to_python(py, self.inner.points())
    }

    fn certificate<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        columns::to_python(py, self.inner.certificate())
    }
}

/// Whether a constraint holds for named values; a name is a whole path or the end of it.
#[pyfunction]
pub fn holds(text: &str, path: &str, names: Vec<String>, values: Vec<f64>) -> PyResult<bool> {
    errors::guard(|| {
        let named = |name: &str| design::name_of(names.iter().map(String::as_str), name, "a metric or an axis");
        let e = design::Expression::new(text, path, &named)?;
        Ok(e.holds(|i| values.get(i).copied().unwrap_or(f64::NAN)))
    })
}

/// Numbers that a point can be asked for.
#[pyfunction]
pub fn design_metrics() -> Vec<&'static str> {
    Metric::NAMES.to_vec()
}
