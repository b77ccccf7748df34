//! The pools of a plan: groups of GPUs that hold the same and do the same.
//!
//! A worker is one pool; an AFD unit has two. In a plan of prefill and decode each slot has pools of its own, so a
//! pool of a plan is named by its slot and by what it does there (`decode.ffn`).
//!
//! Limit: three pools of two slots; a pool of pools (stages of PP) has no name of its own.

use serde::{Deserialize, Serialize};

use super::level::Role;
use super::record::choices;

choices! {
    /// What a group of GPUs does of a step.
    #[derive(PartialOrd, Ord)]
    Pool {
        /// All of it.
        Worker = "worker",
        /// Of an AFD unit: all but the experts.
        Attention = "attention",
        /// Of an AFD unit: the experts.
        Ffn = "ffn",
    }
}

/// A pool of a plan: its slot, and what it does there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PlanPool {
    pub slot: Role,
    pub pool: Pool,
}

impl PlanPool {
    pub const ALL: [PlanPool; 9] = {
        const fn of(slot: Role) -> [PlanPool; 3] {
            [
                PlanPool { slot, pool: Pool::Worker },
                PlanPool { slot, pool: Pool::Attention },
                PlanPool { slot, pool: Pool::Ffn },
            ]
        }
        let ([a, b, c], [d, e, f], [g, h, i]) = (of(Role::Both), of(Role::Prompts), of(Role::Decode));
        [a, b, c, d, e, f, g, h, i]
    };

    /// As results call it: the slot's name, and the pool's where the slot has several.
    pub fn name(self) -> &'static str {
        match (self.slot, self.pool) {
            (Role::Both, pool) => pool.name(),
            (Role::Prompts, Pool::Worker) => "prefill",
            (Role::Prompts, Pool::Attention) => "prefill.attention",
            (Role::Prompts, Pool::Ffn) => "prefill.ffn",
            (Role::Decode, Pool::Worker) => "decode",
            (Role::Decode, Pool::Attention) => "decode.attention",
            (Role::Decode, Pool::Ffn) => "decode.ffn",
        }
    }
}
