//! Published figures against predictions.

use super::give::Payload;
use pyo3::prelude::*;

use super::{columns, kernels, run};
use crate::validation;

/// The sections there are.
#[pyfunction]
pub fn validation_sections() -> Vec<&'static str> {
    validation::Section::NAMES.to_vec()
}

/// Figures against predictions of the named sections (none named: all).
#[pyfunction]
#[pyo3(signature = (sections, ttft, progress: "_Report" = None))]
pub fn validation_run<'py>(
    py: Python<'py>,
    sections: Vec<String>,
    ttft: bool,
    progress: Option<&Bound<'_, PyAny>>,
) -> PyResult<Payload<'py>> {
    let found = run::run(py, progress, move |control| {
        validation::run(&kernels::db()?, &validation::Section::parse(&sections)?, ttft, control)
    })?;
    columns::to_python(py, found)
}

/// The named sections as markdown tables.
#[pyfunction]
#[pyo3(signature = (sections, ttft, progress: "_Report" = None))]
pub fn validation_report(
    py: Python<'_>,
    sections: Vec<String>,
    ttft: bool,
    progress: Option<&Bound<'_, PyAny>>,
) -> PyResult<String> {
    run::run(py, progress, move |control| {
        validation::report(&kernels::db()?, &validation::Section::parse(&sections)?, ttft, control)
    })
}
