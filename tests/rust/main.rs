//! The crate's integration tests: one binary, one module a subject.
#![allow(clippy::unwrap_used)]
mod kernels_pack;
mod surfaces;
