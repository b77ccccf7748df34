//! Maps of which level wins where.
//!
//! Limit: tables cross, studies do not: a cell is asked again by `explore`.

use std::sync::Arc;

use super::give::Payload;
use pyo3::prelude::*;

use super::case::{Case, check_framework, cluster_of, slo_of, workload_of};
use super::data::Spec;
use super::{columns, errors, kernels, run};
use crate::error::{Problems, Result};
use crate::search;
use crate::serving::queueing::Arrivals;
use crate::spec;

/// The question of a map.
#[pyclass(frozen, module = "disagg._core")]
pub struct Regimes {
    map: Arc<search::Map>,
}

#[pymethods]
impl Regimes {
    #[new]
    #[pyo3(signature = (case, clusters, workloads, slos, levels, tolerance=0.01, batches_per_octave=2, arrivals="closed", runnable=true))]
    #[allow(clippy::too_many_arguments)]
    fn new(
        case: &Case,
        clusters: Vec<PyRef<'_, Spec>>,
        workloads: Vec<PyRef<'_, Spec>>,
        slos: Vec<PyRef<'_, Spec>>,
        levels: Vec<String>,
        tolerance: f64,
        batches_per_octave: u32,
        arrivals: &str,
        runnable: bool,
    ) -> PyResult<Regimes> {
        errors::guard(|| {
            let map = search::Map {
                case: spec::Case::clone(&case.inner),
                clusters: clusters.iter().map(|c| cluster_of(c, "cluster")).collect::<Result<_>>()?,
                workloads: workloads.iter().map(|w| workload_of(w, "workloads")).collect::<Result<_>>()?,
                slos: slos.iter().map(|s| slo_of(s, "slo")).collect::<Result<_>>()?,
                levels: spec::Level::parse(&levels)?,
                tolerance,
                batches_per_octave,
                runnable,
                arrivals: Arrivals::named(arrivals)?,
            };
            let mut problems = Problems::new();
            for c in &map.clusters {
                problems.nest("quant", map.case.quant.check_on(&map.case.model.quant, &c.device));
                for (i, f) in map.case.named().iter().enumerate() {
                    check_framework(*f, &format!("frameworks[{i}]"), &c.system)?;
                }
            }
            problems.into_result()?;
            Ok(Regimes { map: Arc::new(map) })
        })
    }

    /// Checks the map and tells whose kernels are compared on each of its clusters.
    fn frameworks(&self, py: Python<'_>) -> PyResult<Vec<Vec<&'static str>>> {
        let map = self.map.clone();
        let found = run::run(py, None, move |_| map.compared(&kernels::db()?))?;
        Ok(found.iter().map(|own| own.iter().map(|f| f.name()).collect()).collect())
    }

    /// What should be known beside the map, in words.
    fn warnings(&self, py: Python<'_>) -> PyResult<Vec<String>> {
        let map = self.map.clone();
        run::run(py, None, move |_| map.caveats(&kernels::db()?))
    }

    /// Which level wins where: columns, one row a cell.
    #[pyo3(signature = (partial=false, progress: "_Report" = None))]
    fn search<'py>(
        &self,
        py: Python<'py>,
        partial: bool,
        progress: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Payload<'py>> {
        let map = self.map.clone();
        let work = move |control: &_| search::regimes(&kernels::db()?, &map, control, partial);
        columns::to_python(py, run::run_kept(py, progress, partial, work)?)
    }
}
