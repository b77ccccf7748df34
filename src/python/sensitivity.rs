//! Sensitivity of an estimate: its inputs in, a row a parameter out.
//!
//! Limit: estimates only; a simulation is not varied.

use super::give::Payload;
use pyo3::prelude::*;

use super::case::{Case, plan_of};
use super::data::Spec;
use super::{columns, errors, kernels, run};
use crate::design::sensitivity::{Baseline, sensitivity as varied};
use crate::spec;

/// Vary one figure at a time around an estimate and price the same plan again.
///
/// What the plan left open (batch, chunks, micro-batches) stays as the estimate settled it. A varied
/// device keeps its own kernel tables, scaled by rooflines; varied links keep the measured start-up
/// of every exchange.
///
/// Parameters
/// ----------
/// estimate
///     What ``dg.estimate(...)`` or ``Study.best(...)`` gave.
///
/// Returns
/// -------
/// Frame
///     One row a parameter: ``parameter``, ``of`` (what it is a property of), ``unit``, ``value``, ``low``, ``high``;
///     for ``ttft_ms``, ``tpot_ms``, ``tokens_per_s_per_gpu``, ``usd_per_mtok`` and ``joules_per_token`` the
///     metric at both ends (``..._low``, ``..._high``) and its elasticity d ln(metric) / d ln(parameter)
///     (``..._elasticity``: -1 means that 1 % more takes 1 % off); and ``status``: ``"ok"``, or why an end has
///     no price (its numbers are not-a-number then, and the elasticity is that of the other end). ``attrs``
///     holds the metrics in the middle and the step.
///
/// Raises
/// ------
/// SpecError
///     If a parameter is unknown or the estimate has none of it, the step does not fit, or the estimate
///     itself is not feasible.
///
/// Notes
/// -----
/// Elasticities of a time over ``tflops``, ``hbm_gb_per_s``, ``nvlink_gb_per_s``, ``nic_gb_per_s`` and minus
/// ``launch_us`` add up to about -1; what is missing is the share of start-ups of exchanges, which no
/// rate scales. More of a rate never lowers the throughput, but it may raise TPOT where a faster
/// prefill feeds decode a larger batch. A chunk budget that was settled at one whole prompt cuts a longer
/// prompt in two: TTFT then jumps with ``isl``, as it would on a server that keeps its budget.
///
/// Examples
/// --------
/// >>> import disagg as dg
/// >>> plan = dg.Aggregated(parallel=dg.Parallel(dp=8), batch=64)
/// >>> est = dg.estimate(dg.Model("deepseek-ai/DeepSeek-V3.2"), dg.Cluster("b200_sxm", gpus=8),
/// ...                   dg.Workload.preset("paper-chat"), plan)
/// >>> found = dg.sensitivity(est, parameters=["hbm_gb_per_s", "nic_gb_per_s"])
/// >>> found["parameter"].tolist(), float(found["tpot_ms_elasticity"][1])
/// (['hbm_gb_per_s', 'nic_gb_per_s'], 0.0)
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
