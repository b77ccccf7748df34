//! Columns become numpy arrays that own the very same memory: moved, never copied.

use numpy::{IntoPyArray, PyReadonlyArray1};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyTuple};

use crate::columns::{Column, Columns};

/// `(names -> array | (codes int32, labels), attrs)`, what `Frame._from_core` takes.
pub fn to_python(py: Python<'_>, columns: Columns) -> PyResult<Bound<'_, PyTuple>> {
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
    PyTuple::new(py, [data.into_any(), attrs.into_any()])
}

/// A column of numbers from a numpy array of doubles (the one copy on the way in).
pub fn floats(array: &PyReadonlyArray1<'_, f64>) -> Vec<f64> {
    array.as_array().to_vec()
}
