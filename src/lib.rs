//! `disagg`: how far can disaggregation go?
//!
//! A design-space explorer for serving mixture-of-experts language models: aggregated chunked
//! prefill, prefill/decode disaggregation, attention-FFN disaggregation (AFD) and their
//! combinations, priced from measured GPU kernels and an explicit interconnect.
//!
//! One plan, priced:
//!
//! ```
//! use disagg::prelude::*;
//!
//! # fn main() -> Result<()> {
//! let db = KernelDb::open(KERNELS.as_ref())?;
//! let (model, cluster) = (catalog::model("Qwen/Qwen3-30B-A3B")?, catalog::cluster("h200_sxm", 4)?);
//! let (quant, serving, how) = (Quant::default(), Serving::default(), Assumptions::physical());
//! let lib = library(&db, &model, &cluster, Framework::Sglang, &quant, &serving, &how)?;
//! let plan = Plan::Aggregated(Aggregated { replicas: 4, ..Aggregated::default() });
//! let engine = Engine::new(&lib, &catalog::workload("paper-chat")?, &plan)?;
//! assert!(engine.point.stands() && engine.point.tpot_s > 0.001);
//! assert!(engine.estimate()?.scalars.tokens_per_s > 1000.0);
//! # Ok(())
//! # }
//! ```
//!
//! The programs in `examples/` go on from here: a plan taken apart, a study of all levels, a trace replayed.
//!
//! The crate is a house of eight floors; a module may use only the floors below its own
//! (`tests/rust/layers.rs` enforces it).
//!
//! Limits: decoder-only language models, one model a cluster, steady states or request-level simulation; no training,
//! no failures, and power is that of the boards alone.

pub mod columns;
pub mod control;
pub mod error;
pub mod limits;
pub mod math;
pub mod pool;
pub mod recent;
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

/// What most programs need: `use disagg::prelude::*`.
pub mod prelude {
    pub use crate::control::Control;
    pub use crate::cost::Library;
    pub use crate::error::{Error, Result};
    pub use crate::kernels::KernelDb;
    pub use crate::search::{Question, Study, explore};
    pub use crate::serving::defaults::library;
    pub use crate::serving::{Engine, Estimate};
    pub use crate::sim::trace::{draw, read};
    pub use crate::sim::{Deployment, Requests, Settings, metrics, simulate};
    pub use crate::spec::{
        AfdPlan, Aggregated, Assumptions, Case, Cluster, Device, Framework, Level, Model, Parallel, PdPlan, Plan,
        PoolPlan, Quant, Serving, Slo, Slot, Workers, Workload, catalog,
    };

    /// Where a checkout of the repository keeps the shipped kernel tables; an installed program names its own place.
    pub const KERNELS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/python/disagg/data/kernels");
}
