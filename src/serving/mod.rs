//! Plan -> compiled engine -> steady state: aggregated, prefill/decode and AFD deployments.
//!
//! Every level is a composition of *steppers* (a worker, or an AFD unit with its micro-batch
//! pipeline): aggregated serving mixes prefill chunks and decode on one stepper, P/D puts one in
//! each slot. Formulas: physics.md sections 5 and 6. Limits: identical requests (means).

pub mod aggregated;
pub mod bound;
pub mod cadence;
pub mod choose;
pub mod contention;
pub mod defaults;
pub mod engine;
pub mod estimate;
pub mod framework;
mod half_duplex;
pub mod known;
pub mod launch;
mod layer_sequence;
pub mod operators;
pub mod pd;
pub mod phase;
pub mod pipeline;
pub mod point;
pub mod provision;
pub mod published;
pub mod queueing;
mod recurrence;
pub mod room;
pub mod scan;
pub mod stages;
mod step_time;
pub mod stepper;
mod steps;
mod straddle;
pub mod timeline;
mod unit;

pub use engine::Engine;
pub use estimate::{Estimate, MemoryRow, StageRow};
pub use known::{ByPhase, Known};
pub use point::{Binding, Load, Point};
pub use scan::{Scan, Tables};
pub use stepper::{StepTime, Stepper};
pub use steps::Steps;
