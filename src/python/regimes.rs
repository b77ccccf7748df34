//! Maps of which level wins where.

use pyo3::prelude::*;
use pyo3::types::PyTuple;

use super::serve::{assumptions_of, check_framework, cluster_of, model_of, quant_of, serving_of, slo_of, workload_of};
use super::spec::Spec;
use super::{columns, errors, kernels, run};
use crate::error::{Problems, Result};
use crate::search;
use crate::serving::queueing::Arrivals;
use crate::spec::{Assumptions, Quant, Serving};

/// The question of a map.
#[pyclass(frozen, module = "disagg._core")]
pub struct Regimes {
    map: search::Map,
}

#[pymethods]
impl Regimes {
    #[new]
    #[pyo3(signature = (model, clusters, workloads, slos, levels, framework=None, quant=None, serving=None, assumptions=None, tolerance=0.01, batches_per_octave=5, arrivals="closed"))]
    #[allow(clippy::too_many_arguments)]
    fn new(
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
        arrivals: &str,
    ) -> PyResult<Regimes> {
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
                runnable: true,
                arrivals: Arrivals::named(arrivals)?,
            };
            let mut problems = Problems::new();
            for c in &map.clusters {
                problems.nest("quant", map.quant.check_on(&map.model.quant, &c.device));
                if let Some(f) = &map.framework {
                    check_framework(f, "framework", &c.system)?;
                }
            }
            problems.into_result()?;
            Ok(Regimes { map })
        })
    }

    /// Checks the map and tells whose kernels each of its clusters is priced with.
    fn frameworks(&self, py: Python<'_>) -> PyResult<Vec<String>> {
        run::run(py, None, |_| self.map.frameworks(&kernels::db()?))
    }

    /// Which level wins where: columns, one row a cell.
    #[pyo3(signature = (partial=false, progress=None))]
    fn search<'py>(
        &self,
        py: Python<'py>,
        partial: bool,
        progress: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyTuple>> {
        let work = |control: &_| search::regimes(&kernels::db()?, &self.map, control, partial);
        columns::to_python(py, run::run_kept(py, progress, partial, work)?)
    }
}
