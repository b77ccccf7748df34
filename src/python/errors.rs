//! Errors cross the border as the classes of `disagg.errors`: written in Python, so that they
//! pickle with their fields and can be documented and caught without a binary.
//!
//! Limit: the first panic of a call is told, without its backtrace.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use pyo3::prelude::*;

use crate::error::{Error, Result};

pyo3::import_exception!(disagg.errors, SpecError);
pyo3::import_exception!(disagg.errors, InfeasibleError);
pyo3::import_exception!(disagg.errors, DataError);
pyo3::import_exception!(disagg.errors, CancelledError);
pyo3::import_exception!(disagg.errors, InternalError);

impl From<Error> for PyErr {
    fn from(error: Error) -> PyErr {
        match error {
            Error::Spec(problems) => {
                let rows: Vec<(String, String, String)> =
                    problems.0.into_iter().map(|p| (p.path, p.message, p.hint)).collect();
                SpecError::new_err((rows,))
            }
            Error::Infeasible { reason, need, have } => InfeasibleError::new_err((reason, need, have)),
            Error::Data { path, message } => DataError::new_err((path, message)),
            Error::Cancelled => CancelledError::new_err(("cancelled",)),
        }
    }
}

/// What a panic said, as an `InternalError`.
pub fn from_panic(payload: &(dyn Any + Send)) -> PyErr {
    let said = payload
        .downcast_ref::<&str>()
        .map(|s| (*s).to_string())
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_string());
    InternalError::new_err((said,))
}

/// Runs short native work on the caller's thread; a panic becomes an `InternalError`.
pub fn guard<T>(work: impl FnOnce() -> Result<T>) -> PyResult<T> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(done) => done.map_err(PyErr::from),
        Err(payload) => Err(from_panic(payload.as_ref())),
    }
}
