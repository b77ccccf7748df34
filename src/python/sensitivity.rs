//! Sensitivity of an estimate: its inputs in, a row a parameter out.

use pyo3::prelude::*;
use pyo3::types::PyTuple;

use super::serve::{common, plan_of};
use super::spec::Spec;
use super::{columns, errors, kernels, run};
use crate::design::sensitivity::{Case, sensitivity as varied};

/// Columns, one row a parameter.
#[pyfunction]
#[pyo3(signature = (model, cluster, workload, plan, framework, quant, serving, assumptions, load, parameters, step))]
#[allow(clippy::too_many_arguments)]
pub fn sensitivity<'py>(
    py: Python<'py>,
    model: &Spec,
    cluster: &Spec,
    workload: &Spec,
    plan: &Spec,
    framework: String,
    quant: Option<&Spec>,
    serving: Option<&Spec>,
    assumptions: &Spec,
    load: Option<f64>,
    parameters: Option<Vec<String>>,
    step: f64,
) -> PyResult<Bound<'py, PyTuple>> {
    let case = errors::guard(|| {
        let c = common(model, cluster, workload, quant, serving, Some(assumptions))?;
        let plan = plan_of(plan)?;
        Ok(Case {
            model: c.model,
            cluster: c.cluster,
            workload: c.workload,
            plan,
            framework,
            quant: c.quant,
            serving: c.serving,
            assumptions: c.assumptions,
            load,
        })
    })?;
    let found =
        run::run(py, None, move |control| varied(&kernels::db()?, &case, parameters.as_deref(), step, control))?;
    columns::to_python(py, found)
}
