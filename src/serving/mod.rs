//! Plan -> compiled engine -> steady state: aggregated, prefill/decode and AFD deployments.
//!
//! Every level is a composition of *step engines* (a worker, or an AFD unit with its micro-batch
//! pipeline): aggregated serving mixes prefill chunks and decode on one engine, P/D puts one in
//! each slot. Formulas: physics.md sections 5 and 6. Limits: identical requests (means).

pub mod aggregated;
pub mod bill;
pub mod bound;
pub mod cadence;
pub mod choose;
pub mod contention;
pub mod defaults;
mod domain_fit;
pub mod engine;
pub mod estimate;
pub mod explain;
pub mod framework;
mod half_duplex;
pub mod known;
pub mod launch;
mod layer_sequence;
mod max_plus;
pub mod operators;
pub mod path;
pub mod pd;
pub mod phase;
pub mod pipeline;
pub mod provision;
pub mod published;
pub mod queueing;
pub mod residuals;
pub mod room;
pub mod scan;
pub mod stages;
pub mod steady_state;
mod step_clock;
pub mod step_engine;
mod step_time;
mod strategies;
pub mod timeline;
mod unit;

pub use engine::Engine;
pub use estimate::{Estimate, MemoryRow, StageRow};
pub use known::{ByPhase, Known};
pub use scan::{Scan, Tables};
pub use steady_state::{Binding, Load, SteadyState};
pub use step_clock::StepClock;
pub use step_engine::{StepEngine, StepTime};
