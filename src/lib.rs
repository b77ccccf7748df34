//! `disagg`: how far can disaggregation go?
//!
//! A design-space explorer for serving mixture-of-experts language models: aggregated chunked
//! prefill, prefill/decode disaggregation, attention-FFN disaggregation (AFD) and their
//! combinations, priced from measured GPU kernels and an explicit interconnect.
//!
//! The crate is a house of eight floors; a module may use only the floors below its own
//! (`tests/rust/layers.rs` enforces it).

pub mod columns;
pub mod control;
pub mod error;
pub mod math;
pub mod pool;
pub mod units;

pub mod spec;

pub mod kernels;
pub mod network;

pub mod cost;

pub mod serving;

pub mod sim;

pub mod calibrate;
pub mod design;
pub mod search;
pub mod validation;

#[cfg(feature = "python")]
mod python;

pub use error::{Error, Problem, Problems, Result};
