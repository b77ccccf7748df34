//! Module functions that belong to no floor: versions, threads, and two functions for the tests.
//!
//! Limit: what is set here holds for the whole process.

use std::time::{Duration, Instant};

use super::give::Payload;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::{columns, errors, run};
use crate::columns::{Column, Columns};
use crate::error::Error;

/// Version, build profile and threads of the native part.
#[pyfunction]
pub fn versions(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("version", env!("CARGO_PKG_VERSION"))?;
    dict.set_item("profile", if cfg!(debug_assertions) { "debug" } else { "release" })?;
    dict.set_item("threads", crate::pool::threads())?;
    Ok(dict)
}

/// Worker threads in use.
#[pyfunction]
pub fn num_threads() -> usize {
    crate::pool::threads()
}

/// Sets the number of worker threads; 0 means one per core.
#[pyfunction]
pub fn set_num_threads(n: i64) -> PyResult<()> {
    errors::guard(|| {
        let n = usize::try_from(n)
            .map_err(|_| Error::spec("n", format!("must be at least 0, got {n}"), "0 means one thread per core"))?;
        crate::pool::set_threads(n)
    })
}

/// Native work of `seconds` that does nothing, for the tests of the door; returns the milliseconds worked.
#[pyfunction]
#[pyo3(signature = (seconds, progress=None, panic=false, deaf=false))]
pub fn _spin(
    py: Python<'_>,
    seconds: f64,
    progress: Option<&Bound<'_, PyAny>>,
    panic: bool,
    deaf: bool,
) -> PyResult<u64> {
    run::run(py, progress, move |control| {
        assert!(!panic, "a panic, as asked");
        let start = Instant::now();
        let steps = (seconds.clamp(0.0, 3600.0) * 1e3) as u64;
        control.set_total(steps);
        for _ in 0..steps {
            if !deaf {
                control.check()?;
            }
            std::thread::sleep(Duration::from_millis(1));
            control.advance(1);
        }
        Ok(start.elapsed().as_millis() as u64)
    })
}

/// A small table through the column border, for the tests: `x`, its index, its sign and a label.
#[pyfunction]
pub fn _frame<'py>(py: Python<'py>, x: columns::Array<'_, f64>) -> PyResult<Payload<'py>> {
    let x = columns::floats(&x);
    let mut out = Columns::new();
    out.push("index", Column::I64((0..x.len() as i64).collect()));
    out.push("positive", Column::Bool(x.iter().map(|v| *v > 0.0).collect()));
    out.push("label", Column::from_strings(x.iter().map(|v| if *v > 0.0 { "up" } else { "down" })));
    out.push("x", Column::F64(x));
    out.attrs.insert("seed".into(), "1".into());
    columns::to_python(py, out)
}

/// What was probably meant by `name`, among the known names.
#[pyfunction]
pub fn near(name: &str, known: Vec<String>) -> String {
    crate::error::near(name, known)
}
