//! The question of `explore`: searched here, or in units that can be searched elsewhere, of which only a number and
//! the bytes of their rows cross.
//!
//! Limit: units are of one question and one build; bytes of another version are refused, not read.

use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::PyBytes;

use super::case::{Case, check_framework, slo_of};
use super::data::Spec;
use super::serve::Study;
use super::{errors, kernels, run};
use crate::error::{Error, Result};
use crate::search::{self, explore, row_codec};
use crate::serving::framework::Compared;
use crate::serving::queueing::Arrivals;
use crate::spec;

/// The question of `explore`, searched whole or unit by unit.
#[pyclass(frozen, module = "disagg._core")]
#[derive(Clone)]
pub struct Exploration {
    question: Arc<search::Question>,
    left_out: Vec<String>,
}

#[pymethods]
impl Exploration {
    #[new]
    #[pyo3(signature = (case, slo, levels, objective="tokens_per_s", arrivals="closed", confirm=true, runnable=true, confidence=None))]
    #[allow(clippy::too_many_arguments)]
    fn new(
        py: Python<'_>,
        case: &Case,
        slo: &Spec,
        levels: Vec<String>,
        objective: &str,
        arrivals: &str,
        confirm: bool,
        runnable: bool,
        confidence: Option<f64>,
    ) -> PyResult<Exploration> {
        let (slo, arrivals) = errors::guard(|| {
            let slo = slo_of(slo, "slo")?;
            Ok((slo, Arrivals::named(arrivals)?.hold(&slo)?))
        })?;
        let (objective, case) = (objective.to_string(), spec::Case::clone(&case.inner));
        run::run(py, None, move |_| {
            let Compared { frameworks, left_out } = compared(&case)?;
            let case = spec::Case { frameworks: Some(frameworks), ..case };
            let asked = search::Question::new(case, slo);
            let question = search::Question {
                levels: spec::Level::parse(&levels)?,
                objective: search::Objective::parse(&objective)?,
                arrivals,
                confirm,
                runnable,
                confidence,
                ..asked
            };
            Ok(Exploration { question: Arc::new(question), left_out })
        })
    }

    /// Searches all of it here.
    #[pyo3(signature = (progress: "_Report" = None))]
    fn explore(&self, py: Python<'_>, progress: Option<&Bound<'_, PyAny>>) -> PyResult<Study> {
        let own = self.clone();
        run::run(py, progress, move |control| Ok(own.study(search::explore(&kernels::db()?, &own.question, control)?)))
    }

    /// Frameworks compared.
    #[getter]
    fn frameworks(&self) -> Vec<&'static str> {
        self.question.case.named().iter().map(|f| f.name()).collect()
    }

    /// Names of the units, in their order; every framework is checked and compiled first.
    fn units(&self, py: Python<'_>) -> PyResult<Vec<String>> {
        let question = self.question.clone();
        run::run(py, None, move |_| {
            question.libraries(&kernels::db()?)?;
            Ok(question.units()?.iter().map(|u| question.label(u)).collect())
        })
    }

    /// Searches a unit alone: its rows as bytes.
    #[pyo3(signature = (unit, progress: "_Report" = None))]
    fn search<'py>(
        &self,
        py: Python<'py>,
        unit: usize,
        progress: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let question = self.question.clone();
        let bytes = run::run(py, progress, move |control| {
            let units = question.units()?;
            let unit = units.get(unit).ok_or_else(|| {
                Error::spec("unit", format!("there is no unit {unit}"), format!("0 to {}", units.len().max(1) - 1))
            })?;
            row_codec::pack(&explore::search(&kernels::db()?, &question, unit, control)?)
        })?;
        Ok(PyBytes::new(py, &bytes))
    }

    /// The study of the rows of all units, in their order.
    fn join(&self, py: Python<'_>, parts: Vec<PyBackedBytes>) -> PyResult<Study> {
        let own = self.clone();
        run::run(py, None, move |control| {
            let read = |bytes: &PyBackedBytes| control.check().and_then(|()| row_codec::unpack(bytes));
            let parts = parts.iter().map(read).collect::<Result<_>>()?;
            Ok(own.study(explore::join(&kernels::db()?, &own.question, parts)?))
        })
    }
}

impl Exploration {
    fn study(&self, found: search::Study) -> Study {
        Study { inner: Arc::new(found), left_out: self.left_out.clone() }
    }
}

/// Frameworks to compare; none named: all that have kernels for the model.
fn compared(case: &spec::Case) -> Result<Compared> {
    let names = case.named();
    if case.frameworks.is_some() && names.is_empty() {
        let cure = "leave it out, or name trtllm, sglang or vllm";
        return Err(Error::spec("frameworks", "no framework to explore", cure));
    }
    for (i, n) in names.iter().enumerate() {
        check_framework(*n, &format!("frameworks[{i}]"), &case.cluster.system)?;
        if names[..i].contains(n) {
            return Err(Error::spec(format!("frameworks[{i}]"), format!("'{n}' stands twice"), "name it once"));
        }
    }
    case.compared(&kernels::db()?)
}
