//! Columns become numpy arrays that own the very same memory: moved, never copied.
//!
//! Limit: one axis, and the kinds of number that a column has: 64-bit floats and integers, truth values, codes of 32
//! bits.

use std::ops::Deref;

use numpy::{Element, IntoPyArray, PyReadonlyArray1};
use pyo3::inspect::PyStaticExpr;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyTuple};

use super::errors::guard;
use super::give::Payload;

use crate::columns::{Column, Columns};
use crate::error::Problems;

/// `(names -> array | (codes int32, labels), attrs)`, what `Frame._from_core` takes.
pub fn to_python(py: Python<'_>, columns: Columns) -> PyResult<Payload<'_>> {
    let data = PyDict::new(py);
    for (name, column) in columns.names.into_iter().zip(columns.columns) {
        let value: Bound<'_, PyAny> = match column {
            Column::F64(v) => v.into_pyarray(py).into_any(),
            Column::I64(v) => v.into_pyarray(py).into_any(),
            Column::Bool(v) => v.into_pyarray(py).into_any(),
            Column::Cat { codes, labels } => {
                PyTuple::new(py, [codes.into_pyarray(py).into_any(), PyList::new(py, labels)?.into_any()])?.into_any()
            }
        };
        data.set_item(name, value)?;
    }
    let attrs = PyDict::new(py);
    for (key, value) in columns.attrs {
        attrs.set_item(key, value)?;
    }
    Ok(Payload(PyTuple::new(py, [data.into_any(), attrs.into_any()])?.into_any()))
}

/// A column as Python hands it over: a numpy array of one axis.
pub struct Array<'py, T: Element>(PyReadonlyArray1<'py, T>);

/// What the stub calls an array of it.
pub trait Said: Element {
    const ARRAY: &'static str;
}

impl Said for f64 {
    const ARRAY: &'static str = "_Floats";
}

impl Said for i64 {
    const ARRAY: &'static str = "_Ints";
}

impl Said for bool {
    const ARRAY: &'static str = "_Bools";
}

impl<'py, T: Element> Deref for Array<'py, T> {
    type Target = PyReadonlyArray1<'py, T>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl<'a, 'py, T: Said> FromPyObject<'a, 'py> for Array<'py, T> {
    type Error = PyErr;

    const INPUT_TYPE: PyStaticExpr = PyStaticExpr::Name { id: T::ARRAY };

    fn extract(value: Borrowed<'a, 'py, PyAny>) -> PyResult<Self> {
        value.extract().map(Array)
    }
}

/// A column of numbers from a numpy array of doubles (the one copy on the way in).
pub fn floats(array: &Array<'_, f64>) -> Vec<f64> {
    array.as_array().to_vec()
}

/// Rows of the Pareto frontier of two or three columns of costs, and whether each is a tie only.
#[pyfunction]
#[pyo3(signature = (costs, epsilon) -> "tuple[_Ints, _Bools]")]
pub fn frontier<'py>(py: Python<'py>, costs: Vec<Array<'py, f64>>, epsilon: f64) -> PyResult<Bound<'py, PyTuple>> {
    let columns: Vec<Vec<f64>> = costs.iter().map(floats).collect();
    guard(|| {
        let mut p = Problems::new();
        if !(2..=3).contains(&columns.len()) || columns.iter().any(|c| c.len() != columns[0].len()) {
            p.push("costs", "are not two or three columns of equal length", "");
        }
        if !(0.0..1.0).contains(&epsilon) {
            p.push("epsilon", format!("must be from 0 to below 1, is {epsilon}"), "0.01 reports ties within 1 %");
        }
        if columns.first().is_some_and(|c| c.len() > u32::MAX as usize) {
            p.push("costs", "have more rows than can be sorted at once", "");
        }
        p.into_result()
    })?;
    let found = py.detach(move || {
        let costs: Vec<&[f64]> = columns.iter().map(Vec::as_slice).collect();
        crate::math::pareto::frontier(&costs, epsilon)
    });
    let (rows, ties): (Vec<i64>, Vec<bool>) = found.into_iter().map(|(i, tie)| (i as i64, tie)).unzip();
    PyTuple::new(py, [rows.into_pyarray(py).into_any(), ties.into_pyarray(py).into_any()])
}
