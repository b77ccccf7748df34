//! A compiled plan as the simulator sees it: pools of equal instances, each with attention ranks.

use std::sync::Arc;

use crate::serving::{Engine, Stepper};

/// Which phases an instance serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Mixed,
    Prefill,
    Decode,
}

/// What a step costs.
#[derive(Clone)]
pub enum Timing {
    /// The compiled engine.
    Engine(Arc<Engine>, Role),
    /// A step costs `prefill_ps` if it has new prompt tokens, plus `decode_ps`: for oracles.
    Fixed { prefill_ps: u64, decode_ps: u64 },
}

impl Timing {
    /// The stepper behind an engine's timing.
    pub fn stepper(&self) -> Option<&Stepper> {
        use crate::serving::engine::Compiled;
        match self {
            Timing::Fixed { .. } => None,
            Timing::Engine(engine, role) => Some(match (&engine.compiled, role) {
                (Compiled::Mixed { stepper, .. }, _) => stepper,
                (Compiled::Pd { prefill, .. }, Role::Prefill) => prefill,
                (Compiled::Pd { decode, .. }, _) => decode,
            }),
        }
    }
}
