//! What a step carries, and the phases of a breakdown.
//!
//! Limit: names only; a step is one of three kinds, whatever shares of it are prompt tokens.

use crate::spec::choices;

choices! {
    /// What a step carries.
    StepKind {
        Decode = "decode",
        Prefill = "prefill",
        /// Prompt tokens beside decode tokens.
        Mixed = "mixed",
    }
}

/// What the time of a breakdown goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Steps of one kind.
    StepClock(StepKind),
    /// KV on its way between the slots of P/D.
    Transfer,
    /// Between a request's client and the steps that serve it.
    Path,
}

impl Phase {
    pub fn name(self) -> &'static str {
        match self {
            Phase::StepClock(kind) => kind.name(),
            Phase::Transfer => "transfer",
            Phase::Path => "path",
        }
    }
}

/// Where an operator runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Site {
    Gpus(crate::spec::Pool),
    /// Between pools or stages.
    Network,
    /// API servers and schedulers.
    Host,
}

impl Site {
    pub fn name(self) -> &'static str {
        match self {
            Site::Gpus(pool) => pool.name(),
            Site::Network => "network",
            Site::Host => "host",
        }
    }
}
