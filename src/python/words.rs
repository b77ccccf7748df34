//! Plans, estimates and studies in words.
//!
//! Limit: English only; words are for people, and nothing reads them back.

use super::give::{Facts, Rows};
use pyo3::prelude::*;
use serde::de::DeserializeOwned;

use super::convert;
use super::data::{Data, Spec};
use super::errors::guard;
use super::give;
use crate::error::{Error, Problems};
use crate::search::verdict::Asked;
use crate::serving::explain::Told;
use crate::spec::json;

/// Numbers that are none are left out.
fn read<T: DeserializeOwned>(facts: &Bound<'_, PyAny>, what: &str) -> PyResult<T> {
    let facts = convert::to_json(facts, "", &mut Problems::new());
    guard(|| json::from_value(facts, what))
}

/// A plan, or what fills a slot of one, in words.
#[pyfunction]
pub fn plan_words(plan: &Spec) -> PyResult<String> {
    guard(|| match plan.data() {
        Data::Workers(workers) => Ok(workers.words()),
        data => data.plan().map(|p| p.words()).ok_or_else(|| Error::spec("plan", "is not a plan", "")),
    })
}

/// An estimate as text; `facts`: its single values, its breakdown and its memory; `plan`: as it is written in Python.
#[pyfunction]
pub fn explain(facts: &Bound<'_, PyAny>, plan: &str) -> PyResult<String> {
    Ok(read::<Told>(facts, "estimate")?.explain(plan))
}

/// Two estimates side by side: a row a quantity.
#[pyfunction]
pub fn compare<'py>(py: Python<'py>, this: &Bound<'py, PyAny>, other: &Bound<'py, PyAny>) -> PyResult<Rows<'py>> {
    give::rows(py, &read::<Told>(this, "estimate")?.compare(&read(other, "other")?))
}

/// The verdict of a study in words.
#[pyfunction]
pub fn verdict<'py>(py: Python<'py>, study: &Bound<'py, PyAny>) -> PyResult<Facts<'py>> {
    give::facts(py, &read::<Asked>(study, "study")?.words())
}
