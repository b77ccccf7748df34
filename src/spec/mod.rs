//! Plain data: what the user says. Everything is serde, frozen once built, and checked as a whole.
//!
//! `dict | JSON | kwargs -> spec -> check -> plan -> compile`. Nothing here computes time.

pub mod assumptions;
pub mod catalog;
pub mod dtype;
pub mod hardware;
pub mod hf_config;
pub mod model;
pub mod plan;
pub mod serving;
pub mod slo;
pub mod workload;

pub use assumptions::Assumptions;
pub use dtype::{Dtype, Quant};
pub use hardware::{Cluster, Device, Fabric};
pub use model::{Attention, Indexer, Model, Moe, SlidingWindow};
pub use plan::{AfdPlan, Aggregated, Parallel, PdPlan, Placement, Plan, PoolPlan, Slot, Workers};
pub use serving::Serving;
pub use slo::Slo;
pub use workload::{Distribution, Workload};
