//! Which class in Python stands for a kind of spec: the native one, or one of `disagg.specs` derived from it, which says
//! so itself when Python makes it.
//!
//! Limit: one derived class a kind, the first one that says so, for the life of the process.

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyType;

use super::data::{Data, Spec};
use super::errors::InternalError;

const KINDS: usize = Data::KINDS.len();
/// By the place of the kind in `Data::KINDS`.
static NATIVE: [PyOnceLock<Py<PyType>>; KINDS] = [const { PyOnceLock::new() }; KINDS];
static DERIVED: [PyOnceLock<Py<PyType>>; KINDS] = [const { PyOnceLock::new() }; KINDS];

fn place(kind: &str) -> Option<usize> {
    Data::KINDS.iter().position(|k| *k == kind)
}

/// Notes the native class of a kind.
pub fn declare(kind: &str, class: &Bound<'_, PyType>) {
    if let Some(i) = place(kind) {
        NATIVE[i].get_or_init(class.py(), || class.clone().unbind());
    }
}

/// Notes the class that stands for a kind in place of the native one; the first stays.
pub fn derive(kind: &str, class: &Bound<'_, PyType>) {
    if let Some(i) = place(kind) {
        DERIVED[i].get_or_init(class.py(), || class.clone().unbind());
    }
}

/// A spec as an object of the class that users know.
pub fn wrap(py: Python<'_>, data: Data) -> PyResult<Bound<'_, PyAny>> {
    let i = place(data.kind()).unwrap_or_default();
    match DERIVED[i].get(py).or_else(|| NATIVE[i].get(py)) {
        Some(class) => adopt(class.bind(py), Spec::new(data)),
        None => Err(InternalError::new_err((format!("{} has no class", data.kind()),))),
    }
}

/// A spec as an object of a class, whatever the constructor of that takes.
pub fn adopt<'py>(class: &Bound<'py, PyType>, spec: Spec) -> PyResult<Bound<'py, PyAny>> {
    let py = class.py();
    let native = place(spec.data().kind()).and_then(|i| NATIVE[i].get(py));
    let native = native.map_or(class, |n| n.bind(py));
    native.getattr(pyo3::intern!(py, "__new__"))?.call1((class, spec))
}
