//! The Python face: PyO3 bindings and nothing else. No physics lives here.
//!
//! Every binding takes specs ([`spec::Spec`]) and plain numbers, calls the floors below, and gives
//! back a spec, a JSON string of scalars or [`crate::columns::Columns`] moved to numpy. Anything
//! that may take longer than a few milliseconds goes through [`run::run`].

mod columns;
mod convert;
mod door;
mod errors;
mod run;
mod spec;

use pyo3::prelude::*;

#[pymodule]
mod _core {
    #[pymodule_export]
    use super::door::{_frame, _spin, assumptions, near, num_threads, set_num_threads, versions};
    #[pymodule_export]
    use super::spec::Spec;
}
