//! Sensitivity of an estimate: its inputs in, a row a parameter out.

use super::give::Payload;
use pyo3::prelude::*;

use super::case::{Case, plan_of};
use super::data::Spec;
use super::{columns, errors, kernels, run};
use crate::design::sensitivity::{Baseline, sensitivity as varied};
use crate::spec;

/// Columns, one row a parameter.
#[pyfunction]
#[pyo3(signature = (case, plan, load, parameters, step))]
pub fn sensitivity<'py>(
    py: Python<'py>,
    case: &Case,
    plan: &Spec,
    load: Option<f64>,
    parameters: Option<Vec<String>>,
    step: f64,
) -> PyResult<Payload<'py>> {
    let plan = errors::guard(|| plan_of(plan))?;
    let base = Baseline { case: spec::Case::clone(&case.inner), plan, load };
    let found =
        run::run(py, None, move |control| varied(&kernels::db()?, &base, parameters.as_deref(), step, control))?;
    columns::to_python(py, found)
}
