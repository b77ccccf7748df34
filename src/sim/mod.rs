//! Requests over time: a deterministic discrete-event simulator priced by the compiled engine.
//!
//! Columns in ([`Requests`]), columns out ([`Outcome`]); time is integer picoseconds, ties are
//! first in first out, and the same input gives the same bits whatever the number of threads.
//!
//! Limits: A prompt's KV is reserved whole when it is let in, or taken chunk by chunk (`KvAdmission`: a choice), and a
//! head of the queue that did not fit is looked at again when something has ended. Only whole named blocks are
//! reused; answers take their turn in the cache, and are named by the trace when they come back in a prompt. KV on the wire waits in line at
//! the links of both ranks (no fair sharing). All micro-batches of an AFD unit, and all stages of a
//! pipeline, advance together, one token a period. With draft tokens a sequence's room is taken whole.
//! Gaps inside a run of decode steps are kept as their mean. A preempted sequence of a decode pool is
//! computed again there.
//!
//! `Deployment::of(&engine)` (`.fixed(prefill_ps, decode_ps)` for oracles), then
//! `simulate(&deployment, &requests, &settings, &control) -> Result<Outcome>`.

mod admit;
pub mod deployment;
pub mod fixed;
pub mod goodput;
pub mod itl;
pub mod kv;
pub mod metrics;
pub mod outcome;
pub mod perfetto;
pub mod policy;
pub mod price;
pub mod replay;
pub mod replicas;
pub mod request;
mod route;
pub mod run;
pub mod settings;
mod state;
pub mod statistics;
pub mod steady;
mod step;
pub mod trace;
mod wake;
mod world;

pub use deployment::{Deployment, Lines, PoolSpec, Timing, Transfer};
pub use outcome::{NEVER, Outcome, Span, SpanKind, Status, Usage};
pub use request::{Closed, Requests};
pub use run::{pricers, simulate, simulate_with};
pub use settings::{KvAdmission, Preemption, Router, Scheduler, Settings, SharedTier};

/// Picoseconds in a second: the simulator's clock (2^64 ps are 213 days).
pub const PS: f64 = 1e12;

/// Seconds as picoseconds, to the nearest.
pub(crate) fn to_ps(seconds: f64) -> u64 {
    (seconds * PS).round() as u64
}

/// Picoseconds as seconds.
pub fn to_s(ps: u64) -> f64 {
    ps as f64 / PS
}
