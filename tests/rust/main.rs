//! The crate's integration tests: one binary, one module a subject.
#![allow(clippy::unwrap_used)]

mod breakdown;
mod kernels_lookup;
mod kernels_pack;
mod layers;
mod network;
mod pipeline;
mod specs;
mod surfaces;
