//! Maps of which level wins where.

use pyo3::prelude::*;
use pyo3::types::PyTuple;

use super::serve::{assumptions_of, check_framework, cluster_of, model_of, quant_of, serving_of, slo_of, workload_of};
use super::spec::Spec;
use super::{columns, errors, kernels, run};
use crate::error::{Problems, Result};
use crate::search;
use crate::spec::{Assumptions, Quant, Serving};

/// Which level wins where: columns, one row a cell.
#[pyfunction]
#[pyo3(signature = (model, clusters, workloads, slos, levels, framework=None, quant=None, serving=None, assumptions=None, tolerance=0.01, batches_per_octave=5, partial=false, progress=None))]
#[allow(clippy::too_many_arguments)]
pub fn regimes<'py>(
    py: Python<'py>,
    model: &Spec,
    clusters: Vec<PyRef<'py, Spec>>,
    workloads: Vec<PyRef<'py, Spec>>,
    slos: Vec<PyRef<'py, Spec>>,
    levels: Vec<String>,
    framework: Option<String>,
    quant: Option<&Spec>,
    serving: Option<&Spec>,
    assumptions: Option<&Spec>,
    tolerance: f64,
    batches_per_octave: u32,
    partial: bool,
    progress: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyTuple>> {
    let map = map_of(
        model,
        &clusters,
        &workloads,
        &slos,
        levels,
        framework,
        quant,
        serving,
        assumptions,
        tolerance,
        batches_per_octave,
    )?;
    let found =
        run::run_kept(py, progress, partial, move |control| search::regimes(&kernels::db()?, &map, control, partial))?;
    columns::to_python(py, found)
}

/// Checks a map and tells whose kernels each of its clusters is priced with.
#[pyfunction]
#[pyo3(signature = (model, clusters, workloads, slos, levels, framework=None, quant=None, serving=None, assumptions=None, tolerance=0.01, batches_per_octave=5))]
#[allow(clippy::too_many_arguments)]
pub fn regimes_frameworks(
    py: Python<'_>,
    model: &Spec,
    clusters: Vec<PyRef<'_, Spec>>,
    workloads: Vec<PyRef<'_, Spec>>,
    slos: Vec<PyRef<'_, Spec>>,
    levels: Vec<String>,
    framework: Option<String>,
    quant: Option<&Spec>,
    serving: Option<&Spec>,
    assumptions: Option<&Spec>,
    tolerance: f64,
    batches_per_octave: u32,
) -> PyResult<Vec<String>> {
    let map = map_of(
        model,
        &clusters,
        &workloads,
        &slos,
        levels,
        framework,
        quant,
        serving,
        assumptions,
        tolerance,
        batches_per_octave,
    )?;
    run::run(py, None, move |_| map.frameworks(&kernels::db()?))
}

#[allow(clippy::too_many_arguments)]
fn map_of(
    model: &Spec,
    clusters: &[PyRef<'_, Spec>],
    workloads: &[PyRef<'_, Spec>],
    slos: &[PyRef<'_, Spec>],
    levels: Vec<String>,
    framework: Option<String>,
    quant: Option<&Spec>,
    serving: Option<&Spec>,
    assumptions: Option<&Spec>,
    tolerance: f64,
    batches_per_octave: u32,
) -> PyResult<search::Map> {
    errors::guard(|| {
        let map = search::Map {
            model: model_of(model, "model")?,
            clusters: clusters.iter().map(|c| cluster_of(c, "cluster")).collect::<Result<_>>()?,
            workloads: workloads.iter().map(|w| workload_of(w, "workloads")).collect::<Result<_>>()?,
            slos: slos.iter().map(|s| slo_of(s, "slo")).collect::<Result<_>>()?,
            levels,
            framework,
            quant: quant.map_or(Ok(Quant::default()), |q| quant_of(q, "quant"))?,
            serving: serving.map_or(Ok(Serving::default()), |s| serving_of(s, "serving"))?,
            assumptions: assumptions.map_or(Ok(Assumptions::physical()), |a| assumptions_of(a, "assumptions"))?,
            tolerance,
            batches_per_octave,
        };
        let mut problems = Problems::new();
        for c in &map.clusters {
            problems.nest("quant", map.quant.check_on(&map.model.quant, &c.device));
            if let Some(f) = &map.framework {
                check_framework(f, "framework", &c.system)?;
            }
        }
        problems.into_result()?;
        Ok(map)
    })
}
