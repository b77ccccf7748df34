//! Design spaces: built from JSON, counted, sampled, priced by point numbers.

use std::sync::Arc;

use numpy::{IntoPyArray, PyArray1, PyReadonlyArray1};
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use super::{columns, errors, kernels, run};
use crate::error::{Error, Result};
use crate::search::design::{self, Description, METRICS};

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
    #[pyo3(signature = (points, metrics, progress=None))]
    fn price<'py>(
        &self,
        py: Python<'py>,
        points: PyReadonlyArray1<'py, i64>,
        metrics: Vec<String>,
        progress: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Bound<'py, PyTuple>> {
        let points = errors::guard(|| numbers(&points))?;
        let inner = self.inner.clone();
        let found =
            run::run(py, progress, move |control| design::price(&kernels::db()?, &inner, &points, &metrics, control))?;
        columns::to_python(py, found)
    }

    /// Axis values of points.
    fn values<'py>(&self, py: Python<'py>, points: PyReadonlyArray1<'py, i64>) -> PyResult<Bound<'py, PyTuple>> {
        let found = errors::guard(|| self.inner.values(&numbers(&points)?))?;
        columns::to_python(py, found)
    }
}

/// Numbers that a point can be asked for.
#[pyfunction]
pub fn design_metrics() -> Vec<&'static str> {
    METRICS.to_vec()
}
