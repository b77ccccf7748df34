//! A spec from its fields, and what is said of a field that does not fit.
//!
//! Limit: problems that Python's own classes raise on the way are passed on as they are.

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};
use serde_json::Value;

use super::convert;
use super::data::{Data, Spec};
use super::diagnose::{self, wrong_children};
use super::errors::guard;
use crate::error::{Error, Problems, Result};

/// Builds and checks a spec from its fields; specs may stand inside.
pub fn build(kind: &str, fields: &Bound<'_, PyDict>) -> PyResult<Spec> {
    guard(|| parse(kind, fields).map(Spec::new))
}

pub fn parse(kind: &str, fields: &Bound<'_, PyDict>) -> Result<Data> {
    let mut problems = Problems::new();
    let value = convert::to_json(fields.as_any(), "", &mut problems);
    wrong_children(kind, fields, &mut problems);
    if problems.is_empty() {
        return diagnose::parse(kind, &value);
    }
    // The fields that could not be said at all stand as null: only what else is wrong matters.
    let top = |path: &str| path.split('.').next().unwrap_or_default().to_string();
    let named: Vec<String> = problems.0.iter().map(|p| top(&p.path)).collect();
    if let Err(Error::Spec(more)) = diagnose::parse(kind, &value) {
        problems.0.extend(more.0.into_iter().filter(|p| !named.contains(&top(&p.path))));
    }
    Err(Error::Spec(problems))
}

/// Refuses an argument of the wrong class, in the words of the Python face.
pub fn misfit(name: &str, value: &Bound<'_, PyAny>, wanted: &str) -> Error {
    let found = value.get_type().name().map_or_else(|_| "object".to_string(), |n| n.to_string());
    Error::spec(name, format!("a {found} does not fit here"), format!("expected a {wanted}"))
}

/// The problems of a call that could not be made, if that is what went wrong.
pub fn problems_of(py: Python<'_>, error: &PyErr) -> Option<Problems> {
    let rows: Vec<(String, String, String)> = error.value(py).getattr("problems").ok()?.extract().ok()?;
    let mut problems = Problems::new();
    rows.into_iter().for_each(|(path, message, hint)| problems.push(path, message, hint));
    Some(problems)
}

/// A field of a JSON object as text, unless it is empty.
pub fn text_of<'a>(value: &'a Value, field: &str) -> Option<&'a str> {
    value.get(field).and_then(Value::as_str).filter(|t| !t.is_empty())
}

/// As text, for what only takes text.
pub fn text_argument(fields: &Bound<'_, PyDict>, name: &str) -> Result<String> {
    let value = fields.get_item(name).ok().flatten();
    match value.as_ref().map(|v| v.cast::<PyString>().map(|s| s.to_string_lossy().into_owned())) {
        Some(Ok(text)) => Ok(text),
        _ => Err(value.map_or_else(|| Error::spec(name, "is required", ""), |v| misfit(name, &v, "str"))),
    }
}
