//! A compiled plan as the simulator sees it: pools of equal instances, each with attention ranks.
//!
//! KV tokens of a rank = room that the server leaves / KV bytes per token, from the same memory model as the
//! engine (`cost::memory`). Limits: a prefix shared by
//! all requests is counted per request unless its blocks are named; pipeline stages and context
//! parallel ranks of a worker act as one; attention groups of an AFD unit, which take turns on its FFN pool, step
//! together at the price of the steady state.

use std::sync::Arc;

use crate::cost::{Batch, Library};
use crate::error::Result;
use crate::serving::engine::Compiled;
use crate::serving::path;
use crate::serving::pd;
use crate::serving::step_engine;
use crate::serving::{Engine, StepEngine};
use crate::spec::assumptions::FirstToken;
use crate::spec::{Plan, Role, Slot};

/// Stage times that are straight lines, as in arXiv 2601.21351 (Table 2): one micro-batch of n
/// sequences per attention rank with t KV tokens takes `alpha_a t + beta_a` in attention (the
/// slowest rank), `alpha_f (ranks n) + beta_f` in the FFN and `alpha_c n + beta_c` on the wire,
/// there and back. Picoseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Lines {
    pub alpha_a: f64,
    pub beta_a: f64,
    pub alpha_f: f64,
    pub beta_f: f64,
    pub alpha_c: f64,
    pub beta_c: f64,
}

/// What a step costs.
#[derive(Clone)]
pub enum Timing {
    /// The compiled engine.
    Engine(Arc<Engine>, Role),
    /// A step costs `prefill_ps` if it has new prompt tokens, plus `decode_ps` if it decodes: for oracles.
    Fixed { prefill_ps: u64, decode_ps: u64 },
    /// AFD decode by straight lines.
    Lines(Lines),
}

impl Timing {
    /// The step engine behind an engine's timing.
    pub(crate) fn step_engine(&self) -> Option<&StepEngine> {
        match self {
            Timing::Fixed { .. } | Timing::Lines(_) => None,
            Timing::Engine(engine, role) => Some(match (&engine.compiled, role) {
                (Compiled::Mixed { engine, .. }, _) => engine,
                (Compiled::Pd { prefill, .. }, Role::Prompts) => prefill,
                (Compiled::Pd { decode, .. }, _) => decode,
            }),
        }
    }
}

/// Growth of a sequence's context is counted in such parts of a token (draft tokens are accepted in fractions).
pub const PARTS: u64 = 256;

/// Equal instances.
#[derive(Clone)]
pub struct PoolSpec {
    pub role: Role,
    pub count: u32,
    pub gpus: u32,
    /// Attention-DP ranks in lockstep; each has its own KV and its own queue.
    pub ranks: u32,
    /// Micro-batches that a rank's sequences are dealt to.
    pub microbatches: u32,
    /// Pipeline stages that each keep a share of the batch in flight.
    pub stages: u32,
    /// Sequences per rank at a time.
    pub max_seqs: u32,
    /// Tokens of one step per rank, decode tokens included where they share the step.
    pub budget: u32,
    pub kv_tokens: u64,
    pub kv_bytes_per_token: f64,
    /// Tokens that one decode step feeds per sequence (1 + draft tokens).
    pub per_decode: u32,
    /// Context that one decode step adds to a sequence, in [`PARTS`] of a token.
    pub grow: u64,
    /// Steps between two that let new prompts in; 1: every step does.
    pub interval: u32,
    pub intake: Intake,
    pub timing: Timing,
}

/// How an instance takes in what has come; the default sees it at the end of the step under way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Intake {
    /// Whether the step after the one under way is scheduled already.
    pub ahead: bool,
    /// Decode steps between two looks (0: every one), and steps that requests are held back.
    pub polls: u32,
    pub holds: u32,
    /// Decode of P/D: whether it sees KV arrive between two steps alone, and how many more pass.
    pub notices: bool,
    pub late: u32,
}

impl Intake {
    /// Of a pool of an engine's plan.
    fn of(lib: &Library, role: Role) -> Intake {
        let ahead = path::steps_ahead(lib);
        match role {
            Role::Both => Intake {
                ahead: ahead >= 1.0,
                polls: path::polling_steps(lib).saturating_sub(1),
                holds: path::hold_steps(lib) + (ahead as u32).saturating_sub(1),
                ..Intake::default()
            },
            Role::Prompts => Intake::default(),
            Role::Decode => {
                // Half a step until it sees the KV: of the closed form's own where decode makes the first token again.
                let seen = if pd::first_token(lib) == FirstToken::DecodeStep { 0.0 } else { 0.5 };
                let steps = path::hand_over_steps(lib);
                Intake { notices: steps > 0.0, late: (steps - seen).max(0.0).round() as u32, ..Intake::default() }
            }
        }
    }

    /// Whether what comes during a step may have to wait for more than its end.
    pub(crate) fn waits(&self) -> bool {
        self.ahead || self.polls > 0 || self.holds > 0
    }
}

/// The API server before each rank: it takes requests in turn.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Front {
    pub request_ps: f64,
    pub token_ps: f64,
    /// On the way, for each at the same time.
    pub router_ps: f64,
}

impl Front {
    fn of(lib: &Library, routed: bool) -> Front {
        let [none, router] = path::front_s(lib, 0.0, routed);
        let [one, _] = path::front_s(lib, 1.0, routed);
        Front { request_ps: none * super::PS, token_ps: (one - none) * super::PS, router_ps: router * super::PS }
    }
}

/// How KV goes from prefill to decode.
#[derive(Clone)]
pub enum Transfer {
    /// At once.
    Free,
    /// Straight line per request on each link: for oracles and tests.
    Line { latency_ps: u64, ps_per_token: f64 },
    /// The fabric of the engine's cluster.
    Engine(Arc<Engine>),
}

/// Seconds that a request's KV takes on idle links.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Shipping {
    /// The links are busy so long.
    pub whole_s: f64,
    /// What is left after the last prompt token is computed, if no one else is on the links.
    pub after_s: f64,
}

/// Pools of instances, and what is between them.
#[derive(Clone)]
pub struct Deployment {
    pub pools: Vec<PoolSpec>,
    pub transfer: Transfer,
    /// P/D: what the first token waits for (`Server`: as `Decode`).
    pub first_token: FirstToken,
    pub front: Front,
}

fn kv_tokens(s: &StepEngine, in_flight: f64, length: f64) -> (u64, f64) {
    let (tokens, per_token) = s.kv_tokens(in_flight, length);
    (if tokens.is_finite() { tokens as u64 } else { u64::from(u32::MAX) }, per_token)
}

struct Sizes {
    count: u32,
    batch: u32,
    chunk: u32,
    microbatches: u32,
}

impl Sizes {
    fn of(slot: &Slot) -> Sizes {
        match slot {
            Slot::Workers(w) => Sizes {
                count: w.count,
                batch: w.batch.unwrap_or(1),
                chunk: w.chunk_tokens.unwrap_or(8192),
                microbatches: 1,
            },
            Slot::Afd(a) => Sizes {
                count: a.units,
                batch: a.batch.unwrap_or(1),
                chunk: a.chunk_tokens.unwrap_or(8192),
                microbatches: a.microbatches.unwrap_or(1).max(1),
            },
        }
    }
}

fn pool(engine: &Arc<Engine>, role: Role, sizes: &Sizes) -> PoolSpec {
    let timing = Timing::Engine(engine.clone(), role);
    let (ranks, stages, gpus, tokens, bytes) = match timing.step_engine() {
        Some(s) => {
            let stages = s.stages_in_flight() as u32;
            let in_flight = match role {
                Role::Decode => f64::from(sizes.batch),
                Role::Prompts => f64::from(sizes.batch) * f64::from(sizes.chunk),
                Role::Both => f64::from(sizes.chunk),
            };
            let length = engine.workload.mean_final_tokens();
            let (tokens, bytes) = kv_tokens(s, in_flight, length);
            (s.ranks() as u32, stages, s.gpus(), tokens, bytes)
        }
        None => (1, 1, 1, 0, 0.0),
    };
    let serving = &engine.library().serving;
    let prefill = role == Role::Prompts;
    // A prefill round of an AFD unit is one chunk per micro-batch; stages of a pipeline hold a chunk each.
    let rounds = if prefill { sizes.batch.max(1) * sizes.microbatches } else { 1 };
    PoolSpec {
        role,
        count: sizes.count,
        gpus,
        ranks: ranks.max(1),
        microbatches: if prefill { 1 } else { sizes.microbatches },
        stages,
        max_seqs: if prefill { 256 } else { sizes.batch.saturating_mul(stages) },
        budget: sizes.chunk.saturating_mul(rounds).saturating_mul(stages),
        kv_tokens: tokens,
        kv_bytes_per_token: bytes,
        per_decode: 1 + serving.mtp,
        grow: (serving.tokens_per_step() * PARTS as f64).round() as u64,
        interval: if role == Role::Both { engine.prefill_interval() } else { 1 },
        intake: Intake::of(engine.library(), role),
        timing,
    }
}

impl Deployment {
    /// The pools of a compiled plan.
    pub fn of(engine: &Arc<Engine>) -> Deployment {
        let first = pd::first_token(engine.library());
        match &engine.plan {
            Plan::Aggregated(a) => {
                let sizes = Sizes {
                    count: a.replicas,
                    batch: a.batch.unwrap_or(1),
                    chunk: a.chunk_tokens.unwrap_or(8192),
                    microbatches: 1,
                };
                let pools = vec![pool(engine, Role::Both, &sizes)];
                let front = Front::of(engine.library(), false);
                Deployment { pools, transfer: Transfer::Free, first_token: FirstToken::Prefill, front }
            }
            Plan::Afd(a) => {
                let pools = vec![pool(engine, Role::Both, &Sizes::of(&Slot::Afd(a.clone())))];
                let front = Front::of(engine.library(), false);
                Deployment { pools, transfer: Transfer::Free, first_token: FirstToken::Prefill, front }
            }
            Plan::Pd(pd) => Deployment {
                pools: vec![
                    pool(engine, Role::Prompts, &Sizes::of(&pd.prefill)),
                    pool(engine, Role::Decode, &Sizes::of(&pd.decode)),
                ],
                transfer: Transfer::Engine(engine.clone()),
                first_token: first,
                front: Front::of(engine.library(), true),
            },
        }
    }

    /// The same, where every pool has room beside its weights. A batch that fits in part is no error: a server runs
    /// fewer sequences at a time then.
    ///
    /// # Errors
    /// `Infeasible` if no request could ever be taken, with what is short.
    pub(crate) fn with_room(engine: &Arc<Engine>) -> Result<Deployment> {
        let found = Deployment::of(engine);
        let loads = |s: &StepEngine| s.memory().iter().all(|m| m.free(1.0) >= 0.0);
        if found.pools.iter().any(|p| p.kv_tokens == 0 || !p.timing.step_engine().is_none_or(loads)) {
            engine.must_stand()?;
        }
        Ok(found)
    }

    /// Equal mixed instances with fixed step times, for oracles: `kv_blocks` of the settings is the memory.
    pub fn uniform(count: u32, max_seqs: u32, budget: u32, timing: Timing) -> Deployment {
        let pool = PoolSpec {
            role: Role::Both,
            count,
            gpus: 1,
            ranks: 1,
            microbatches: 1,
            stages: 1,
            max_seqs,
            budget,
            kv_tokens: u64::from(u32::MAX),
            kv_bytes_per_token: 0.0,
            per_decode: 1,
            grow: PARTS,
            interval: 1,
            intake: Intake::default(),
            timing,
        };
        let pools = vec![pool];
        Deployment { pools, transfer: Transfer::Free, first_token: FirstToken::Prefill, front: Front::default() }
    }

    /// The same pools with fixed step times, KV that crosses at once, and nothing between client and scheduler.
    pub fn fixed(mut self, prefill_ps: u64, decode_ps: u64) -> Deployment {
        self.front = Front::default();
        for p in &mut self.pools {
            p.intake = Intake::default();
            p.timing = Timing::Fixed { prefill_ps, decode_ps };
        }
        self.transfer = Transfer::Free;
        self
    }

    /// The same pools with KV by a straight line.
    pub fn with_kv(self, latency_ps: u64, ps_per_token: f64) -> Deployment {
        Deployment { transfer: Transfer::Line { latency_ps, ps_per_token }, ..self }
    }

    /// GPUs of all instances.
    pub fn gpus(&self) -> u32 {
        self.pools.iter().map(|p| p.gpus * p.count).sum()
    }
}

impl Transfer {
    /// Time of `tokens` of KV on idle links, after a prefill that computed for `compute_s`.
    pub(crate) fn shipping(&self, tokens: f64, compute_s: f64) -> Shipping {
        match self {
            Transfer::Free => Shipping::default(),
            Transfer::Line { latency_ps, ps_per_token } => {
                let s = (*latency_ps as f64 + ps_per_token * tokens) / super::PS;
                Shipping { whole_s: s, after_s: s }
            }
            Transfer::Engine(engine) => {
                let Compiled::Pd { prefill, prefill_count, decode, decode_count } = &engine.compiled else {
                    return Shipping::default();
                };
                let lib = engine.library();
                if !prefill.kv.travels {
                    return Shipping::default();
                }
                let domain = lib.cluster.fabric.domain_gpus;
                let near = pd::same_domain(prefill, *prefill_count, decode, *decode_count, domain);
                let (whole, layer) = step_engine::kv_seconds(prefill, decode, tokens, 1.0, lib, near, 1.0);
                let layers = lib.kv_layers();
                let after_s = (prefill.kv.late)(whole.seconds, layer.seconds, compute_s / layers, layers);
                Shipping { whole_s: whole.seconds, after_s }
            }
        }
    }
}

/// Decode work of one rank as a [`Batch`]: `n` sequences with `context_parts` in KV between them.
pub(crate) fn decode_batch(n: f64, context_parts: f64, per_decode: u32) -> Batch {
    let context = if n > 0.0 { context_parts / (PARTS as f64) / n } else { 0.0 };
    Batch::decode(n, context, f64::from(per_decode))
}
