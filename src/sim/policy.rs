//! Scheduling policies: who is let in, and what a step carries.
//!
//! Limit: policies see one rank; what a server knows of all its ranks (balance of prompts, say) is the router's.

use super::settings::Scheduler;

/// What a policy sees of one attention rank at the boundary between two steps.
#[derive(Clone, Copy, Debug)]
pub struct View {
    pub decoding: u32,
    /// Tokens that one decode step feeds per sequence.
    pub per_decode: u32,
    /// Sequences let in whose prompts are not done.
    pub prefilling: u32,
    /// Sequences anywhere on the instance (all ranks).
    pub on_instance: u32,
    /// Tokens of one step.
    pub budget: u32,
}

/// One small trait behind all schedulers. `lets_in` and `prompt_tokens` are asked once per rank and boundary.
pub trait Policy: Send + Sync {
    /// Whether waiting sequences may be let in now.
    fn lets_in(&self, _view: &View) -> bool {
        true
    }
    /// Tokens of KV to keep free beyond a new prompt, `remaining` tokens still to be written by
    /// those inside and `osl` by the new one.
    fn headroom(&self, _remaining: u64, _osl: u32) -> u64 {
        0
    }
    /// Prompt tokens that a step may carry.
    fn prompt_tokens(&self, view: &View) -> u32;
    /// Whether a prompt may be cut where the budget ends.
    fn cuts(&self) -> bool;
    /// Whether decode runs in steps that carry prompt tokens.
    fn decodes_beside(&self) -> bool;
}

struct ChunkedPrefill;
struct PrefillFirst;
struct Sglang;
struct Static;

impl Policy for ChunkedPrefill {
    fn prompt_tokens(&self, v: &View) -> u32 {
        v.budget.saturating_sub(v.decoding.saturating_mul(v.per_decode))
    }
    fn cuts(&self) -> bool {
        true
    }
    fn decodes_beside(&self) -> bool {
        true
    }
}

impl Policy for PrefillFirst {
    fn prompt_tokens(&self, v: &View) -> u32 {
        v.budget
    }
    fn cuts(&self) -> bool {
        false
    }
    fn decodes_beside(&self) -> bool {
        false
    }
}

/// Share of the answers' remaining tokens that admission keeps free (SGLang's `init_new_token_ratio`).
const NEW_TOKEN_RATIO: f64 = 0.7;

impl Policy for Sglang {
    fn headroom(&self, remaining: u64, osl: u32) -> u64 {
        (NEW_TOKEN_RATIO * remaining as f64).ceil() as u64 + u64::from(osl)
    }
    fn prompt_tokens(&self, v: &View) -> u32 {
        v.budget
    }
    fn cuts(&self) -> bool {
        true
    }
    fn decodes_beside(&self) -> bool {
        false
    }
}

impl Policy for Static {
    fn lets_in(&self, v: &View) -> bool {
        v.on_instance == 0
    }
    fn headroom(&self, remaining: u64, osl: u32) -> u64 {
        remaining + u64::from(osl)
    }
    fn prompt_tokens(&self, v: &View) -> u32 {
        v.budget
    }
    fn cuts(&self) -> bool {
        true
    }
    fn decodes_beside(&self) -> bool {
        false
    }
}

/// The policy of a name.
pub(crate) fn of(scheduler: Scheduler) -> &'static dyn Policy {
    match scheduler {
        Scheduler::ChunkedPrefill => &ChunkedPrefill,
        Scheduler::PrefillFirst => &PrefillFirst,
        Scheduler::Sglang => &Sglang,
        Scheduler::Static => &Static,
    }
}
