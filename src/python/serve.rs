//! Engines and studies: compile, estimate, step, explore.
//!
//! Limit: an engine keeps its library alive; a search itself does not cross a pickle, only what it found.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::give::{Facts, Payload};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use super::case::{Case, assumptions_of, framework_of, plan_of};
use super::data::Spec;
use super::{columns, errors, give, kernels, run};
use crate::error::{Error, near};
use crate::search;
use crate::serving;
use crate::serving::estimate::{Scalars, breakdown_columns};
use crate::serving::phase::StepKind;

/// A plan compiled for a model, a cluster and a workload.
#[pyclass(frozen, module = "disagg._core")]
pub struct Engine {
    pub(super) inner: Arc<serving::Engine>,
}

#[pymethods]
impl Engine {
    #[new]
    #[pyo3(signature = (case, plan, load=None))]
    fn new(py: Python<'_>, case: &Case, plan: &Spec, load: Option<f64>) -> PyResult<Engine> {
        errors::guard(|| {
            let (case, plan) = (case.inner.clone(), plan_of(plan)?);
            py.detach(move || {
                let lib = case.library(&kernels::db()?, framework_of(&case)?)?;
                let closed = serving::Engine::new(&lib, &case.workload, &plan)?;
                let engine = match load {
                    Some(rate) => closed.loaded(rate)?,
                    None => closed,
                };
                Ok(Engine { inner: Arc::new(engine) })
            })
        })
    }

    /// The estimate of a plan that stands.
    fn estimate(&self) -> PyResult<Priced> {
        errors::guard(|| {
            self.inner.must_stand()?;
            self.inner.context_exceeded()?;
            Ok(Priced { inner: self.inner.clone(), judged: None })
        })
    }

    /// One step: (milliseconds, operator columns).
    #[pyo3(signature = (kind, batch, context, new, past))]
    fn step<'py>(
        &self,
        py: Python<'py>,
        kind: &str,
        batch: f64,
        context: f64,
        new: f64,
        past: f64,
    ) -> PyResult<Bound<'py, PyTuple>> {
        let (time, rows) = errors::guard(|| {
            let known = StepKind::named(kind).ok_or_else(|| {
                Error::spec("kind", format!("'{kind}' is not a kind of step"), near(kind, StepKind::NAMES))
            })?;
            self.inner.step(known, batch, context, new, past)
        })?;
        let frame = columns::to_python(py, breakdown_columns(&rows))?;
        PyTuple::new(py, [(time.seconds * 1e3).into_pyobject(py)?.into_any(), frame.0])
    }
}

/// A priced plan; what there is to say of it is worked out and told to Python when somebody asks.
#[pyclass(frozen, module = "disagg._core")]
pub struct Priced {
    inner: Arc<serving::Engine>,
    /// How a study judges it: whether it keeps the limits, and what binds.
    judged: Option<(bool, String)>,
}

#[pymethods]
impl Priced {
    /// Named values, as JSON has them.
    fn scalars<'py>(&self, py: Python<'py>) -> PyResult<Facts<'py>> {
        errors::guard(|| {
            let mut scalars = self.inner.scalars()?;
            if let Some((feasible, binding)) = &self.judged {
                (scalars.feasible, scalars.binding) = (*feasible, binding.clone());
            }
            Ok(scalars)
        })
        .and_then(|scalars| give::facts(py, &scalars))
    }

    /// The plan with every choice made and the assumptions, as JSON has them.
    fn asked<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let asked = PyDict::new(py);
        asked.set_item("plan", give::to_python(py, &self.inner.plan)?)?;
        asked.set_item("assumptions", give::to_python(py, &self.inner.library().assumptions)?)?;
        Ok(asked)
    }

    /// Columns by name.
    #[pyo3(signature = () -> "dict[str, _Payload]")]
    fn frames<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let (e, frames) = (self.inner.tables(), PyDict::new(py));
        frames.set_item("memory", columns::to_python(py, e.memory_columns())?)?;
        frames.set_item("breakdown", columns::to_python(py, e.breakdown_columns())?)?;
        frames.set_item("pipeline", columns::to_python(py, e.pipeline_columns())?)?;
        frames.set_item("timeline", columns::to_python(py, e.timeline_columns())?)?;
        Ok(frames)
    }
}

/// What the single values of an estimate are, by name.
#[pyfunction]
pub fn _told() -> BTreeMap<&'static str, String> {
    let text = |lines: &[&str]| lines.iter().map(|l| l.trim()).collect::<Vec<_>>().join("\n");
    Scalars::FIELDS.iter().map(|(name, lines)| (*name, text(lines))).collect()
}

/// The outcome of a search.
#[pyclass(frozen, module = "disagg._core")]
pub struct Study {
    pub(super) inner: Arc<search::Study>,
    /// Frameworks that are not compared, each with its reason in words.
    pub(super) left_out: Vec<String>,
}

#[pymethods]
impl Study {
    fn table<'py>(&self, py: Python<'py>) -> PyResult<Payload<'py>> {
        columns::to_python(py, self.inner.table())
    }

    /// One row a level and framework.
    fn frameworks<'py>(&self, py: Python<'py>) -> PyResult<Payload<'py>> {
        columns::to_python(py, self.inner.frameworks())
    }

    /// What other limits and budgets give, of the plans looked at.
    fn flips<'py>(&self, py: Python<'py>) -> PyResult<Payload<'py>> {
        let inner = self.inner.clone();
        let c = py.detach(move || inner.flip_columns());
        columns::to_python(py, c)
    }

    /// What should be known beside the answer, in words.
    #[getter]
    fn warnings(&self) -> Vec<String> {
        self.inner.caveats().into_iter().chain(self.left_out.clone()).collect()
    }

    /// What lifting the rules of servers would gain: columns, one row a level.
    #[pyo3(signature = (progress: "_Report" = None))]
    fn lifted<'py>(&self, py: Python<'py>, progress: Option<&Bound<'_, PyAny>>) -> PyResult<Payload<'py>> {
        let inner = self.inner.clone();
        let c = run::run(py, progress, move |control| search::lifted::lifted(&kernels::db()?, &inner, control))?;
        columns::to_python(py, c)
    }

    fn points<'py>(&self, py: Python<'py>) -> PyResult<Payload<'py>> {
        let inner = self.inner.clone();
        let c = py.detach(move || inner.points());
        columns::to_python(py, c)
    }

    /// The best plan of a level, or its nearest miss.
    fn best(&self, level: &str) -> PyResult<Priced> {
        errors::guard(|| {
            let (engine, v) = self.inner.best_engine(level)?;
            engine.context_exceeded()?;
            Ok(Priced { inner: Arc::new(engine), judged: Some((v.feasible, v.binding.label())) })
        })
    }

    /// The walk from the study's assumptions to others: columns, one row a step and level.
    #[pyo3(signature = (to, method, order, orders, seed, batches_per_octave=None, progress: "_Report" = None))]
    #[allow(clippy::too_many_arguments)]
    fn audit<'py>(
        &self,
        py: Python<'py>,
        to: &Spec,
        method: &str,
        order: Vec<String>,
        orders: Option<u32>,
        seed: u64,
        batches_per_octave: Option<u32>,
        progress: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Payload<'py>> {
        let (to, method) = errors::guard(|| {
            let method = match method {
                "order" => search::Method::Order(order),
                "shapley" => search::Method::Shapley { orders, seed },
                _ => {
                    let text = format!("'{method}' is not a method");
                    return Err(Error::spec("method", text, near(method, ["order", "shapley"])));
                }
            };
            Ok((assumptions_of(to, "to")?, method))
        })?;
        let mut question = self.inner.question.clone();
        question.batches_per_octave = batches_per_octave.unwrap_or(question.batches_per_octave).max(1);
        let found =
            run::run(py, progress, move |control| search::audit(&kernels::db()?, &question, &to, &method, control))?;
        columns::to_python(py, found)
    }

    fn __len__(&self) -> usize {
        self.inner.rows.len()
    }
}
