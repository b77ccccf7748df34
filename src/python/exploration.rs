//! An exploration in units that can be searched elsewhere: what crosses is a number and an array of words.

use std::sync::Arc;

use numpy::{IntoPyArray, PyArray1, PyReadonlyArray1};
use pyo3::prelude::*;

use super::serve::{Asked, Study};
use super::spec::Spec;
use super::{kernels, run};
use crate::error::{Error, Result};
use crate::search::{self, explore, wire};

/// The question of `explore`, searched unit by unit.
#[pyclass(frozen, module = "disagg._core")]
pub struct Exploration {
    question: search::Question,
}

#[pymethods]
impl Exploration {
    #[new]
    #[pyo3(signature = (model, cluster, workload, slo, levels, frameworks=None, quant=None, serving=None, assumptions=None, objective="tokens_per_s"))]
    #[allow(clippy::too_many_arguments)]
    fn new(
        py: Python<'_>,
        model: &Spec,
        cluster: &Spec,
        workload: &Spec,
        slo: &Spec,
        levels: Vec<String>,
        frameworks: Option<Vec<String>>,
        quant: Option<&Spec>,
        serving: Option<&Spec>,
        assumptions: Option<&Spec>,
        objective: &str,
    ) -> PyResult<Exploration> {
        let asked =
            Asked::new(model, cluster, workload, slo, levels, frameworks, quant, serving, assumptions, objective)?;
        run::run(py, None, move |_| Ok(Exploration { question: asked.question()? }))
    }

    /// Frameworks compared.
    #[getter]
    fn frameworks(&self) -> Vec<String> {
        self.question.frameworks.clone()
    }

    /// Names of the units, in their order; every framework is checked and compiled first.
    fn units(&self, py: Python<'_>) -> PyResult<Vec<String>> {
        run::run(py, None, |_| {
            self.question.libraries(&kernels::db()?)?;
            Ok(self.question.units()?.iter().map(|u| self.question.label(u)).collect())
        })
    }

    /// Searches a unit alone: its rows as words of 32 bits.
    #[pyo3(signature = (unit, progress=None))]
    fn search<'py>(
        &self,
        py: Python<'py>,
        unit: usize,
        progress: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Bound<'py, PyArray1<u32>>> {
        let words = run::run(py, progress, |control| {
            let units = self.question.units()?;
            let unit = units.get(unit).ok_or_else(|| {
                Error::spec("unit", format!("there is no unit {unit}"), format!("0 to {}", units.len().max(1) - 1))
            })?;
            wire::pack(&explore::search(&kernels::db()?, &self.question, unit, control)?)
        })?;
        Ok(words.into_pyarray(py))
    }

    /// The study of the rows of all units, in their order.
    fn join(&self, py: Python<'_>, parts: Vec<PyReadonlyArray1<'_, u32>>) -> PyResult<Study> {
        let parts: Vec<Vec<u32>> = parts.iter().map(|p| p.as_array().to_vec()).collect();
        run::run(py, None, move |control| {
            let read = |words: Vec<u32>| control.check().and_then(|()| wire::unpack(&words));
            let parts = parts.into_iter().map(read).collect::<Result<_>>()?;
            Ok(Study { inner: Arc::new(explore::join(&kernels::db()?, &self.question, parts)?) })
        })
    }
}
