//! Plain data: what the user says. Everything is serde, frozen once built, and checked as a whole.
//!
//! `dict | JSON | kwargs -> spec -> check -> plan -> compile`. Nothing here computes time.
//!
//! Limit: what the user says and no more: nothing here computes time.

pub mod assumptions;
pub mod attention;
mod blocks;
mod case;
pub mod catalog;
pub mod distribution;
pub mod dtype;
mod expert_load;
mod framework;
pub mod hardware;
mod hf;
pub mod json;
mod layer_mixer;
mod level;
mod limits;
mod matrices;
mod matrix;
mod memory;
pub mod mixers;
pub mod model;
pub mod plan;
mod plan_check;
mod plan_words;
mod pool;
mod profiles;
mod record;
pub mod rules;
pub mod servers;
pub mod serving;
pub mod slo;
mod switches;
pub mod workload;

pub use assumptions::{Assumptions, Switch};
pub use attention::{Attention, Indexer, OutputGate, Shape, SlidingWindow};
pub use case::Case;
pub use distribution::Distribution;
pub use dtype::{Dtype, Formats, Quant};
pub use expert_load::ExpertLoad;
pub use framework::Framework;
pub use hardware::{Cluster, Device, Fabric};
pub use layer_mixer::{LayerMixer, OtherAttention};
pub use level::{Level, Role};
pub use matrix::MatrixPart;
pub use mixers::{DeltaNet, KimiDelta, Mamba2, OwnMixer, Running};
pub use model::{Model, Moe, PartFormat};
pub use plan::{
    AfdPlan, Aggregated, Duplex, Parallel, PdPlan, PipelineMode, Placement, Plan, PoolPlan, Side, Slot, Workers,
};
pub use pool::{PlanPool, Pool};
pub use profiles::PROFILES;
pub(crate) use record::choices;
pub use rules::{Rules, Verdict, Violation};
pub use serving::{Imbalance, Launch, Serving};
pub use slo::Slo;
pub use workload::{PrefixHome, PrefixScope, Workload};
