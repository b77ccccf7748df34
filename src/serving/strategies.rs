//! How the steps of a plan are counted, cut into micro-batches and put in a pipeline: the assumptions' answers, chosen
//! once when a plan is compiled.
//!
//! Physical: steady states of mixed steps, even micro-batches, the schedule of `pipeline`, no factors on what was priced.
//! Published planners put formulas (`published`) and factors in their place. What prices asks these, never the
//! assumptions. Limit: which
//! memory books are kept is chosen in `cost::memory`.

use super::published;
use super::stages::Stages;
use super::steady_state::Load;
use crate::spec::assumptions::{
    Activations, KvTransfer, MicrobatchSplit, MixedSteps, PipelineFormula, PrefillSplit, PrefillSync, TtftQueue,
    WorkerCorrections,
};
use crate::spec::{Assumptions, Framework};

/// Factors on a priced step: its time, and the share of the rate that it leaves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Correction {
    pub time: f64,
    pub share: f64,
}

/// How steps are counted, and what is added to them.
#[derive(Clone, Copy, Debug)]
pub struct StepStrategy {
    /// Whether mixed steps are counted by the published formula, not solved for.
    pub counted: bool,
    /// Whether all ranks take their prompts in the same steps.
    pub aligned: bool,
    /// Of a prefill slot and of a decode slot.
    pub prefill: Correction,
    pub decode: Correction,
    /// Factor on the TTFT of a pair of slots.
    pub pair_wait: f64,
    /// Factor on the TTFT of a mixed plan, of the steps until a batch of prompts is through.
    pub mixed_wait: fn(f64) -> f64,
}

impl StepStrategy {
    pub(crate) fn of(a: &Assumptions) -> StepStrategy {
        const NONE: Correction = Correction { time: 1.0, share: 1.0 };
        let (prefill, decode) = match a.worker_corrections {
            WorkerCorrections::None => (NONE, NONE),
            WorkerCorrections::Fixed => (
                Correction { time: published::PREFILL_CORRECTION, share: published::PREFILL_SHARE },
                Correction { time: published::DECODE_CORRECTION, share: published::DECODE_SHARE },
            ),
        };
        let (pair_wait, mixed_wait): (_, fn(f64) -> f64) = match a.ttft_queue {
            TtftQueue::None => (1.0, |_| 1.0),
            TtftQueue::Factors => (published::PD_TTFT_FACTOR, published::ttft_factor),
        };
        StepStrategy {
            counted: a.mixed_steps == MixedSteps::Counted,
            aligned: a.prefill_sync == PrefillSync::Aligned,
            prefill,
            decode,
            pair_wait,
            mixed_wait,
        }
    }
}

/// How KV gets from slot to slot.
#[derive(Clone, Copy, Debug)]
pub struct KvStrategy {
    /// Whether it takes time and links at all.
    pub travels: bool,
    /// Whether it shares the ports with the steps of both slots.
    pub shares_ports: bool,
    /// Seconds from the end of prefill to the arrival of the last byte, of the seconds that the whole and one layer take
    /// on the wire, those that a layer computes, and the layers.
    pub late: fn(f64, f64, f64, f64) -> f64,
}

impl KvStrategy {
    pub(crate) fn of(a: &Assumptions) -> KvStrategy {
        let travels = a.kv_transfer != KvTransfer::Ignored;
        KvStrategy {
            travels,
            shares_ports: a.kv_contention && travels,
            late: match a.kv_transfer {
                KvTransfer::Ignored => |_, _, _, _| 0.0,
                KvTransfer::Bulk => |whole, _, _, _| whole,
                KvTransfer::LayerWise => |whole, layer, compute, layers| {
                    let streamed = (layer - compute).max(0.0) * (layers - 1.0) + layer;
                    // A sender may always ship in bulk instead.
                    streamed.min(whole)
                },
            },
        }
    }
}

/// Sequences of a rank, its token budget, and tokens that a decode step feeds of each.
type Carries = (f64, f64, f64);

/// Tokens whose activations a rank keeps room for.
#[derive(Clone, Copy, Debug)]
pub struct RoomStrategy {
    /// Of a slot that serves prompts alone.
    pub prompts: fn(&Load, Carries) -> f64,
    /// Where prompts and decode share steps.
    pub mixed: fn(&Load, Carries) -> f64,
}

impl RoomStrategy {
    /// `afd`: of an AFD unit.
    pub(crate) fn of(a: &Assumptions, framework: Framework, afd: bool) -> RoomStrategy {
        RoomStrategy {
            prompts: match a.activations {
                Activations::AliveRows | Activations::Framework => {
                    |load, (sequences, chunk, _)| sequences * chunk.min(load.isl)
                }
                Activations::Coefficients => |load, (sequences, _, _)| sequences * (load.isl + load.prefix),
            },
            mixed: match a.activations {
                // Most tokens that a step can carry: the budget, or all that its slots have.
                Activations::AliveRows => |load, (sequences, chunk, per_decode)| {
                    chunk.min(sequences * per_decode + load.isl.max(1.0) * sequences)
                },
                Activations::Framework if afd || framework != Framework::Trtllm => |_, (_, chunk, _)| chunk,
                Activations::Coefficients if afd => |load, (_, chunk, _)| load.prefix + chunk,
                // trtllm is charged its budget of tokens a step.
                Activations::Coefficients | Activations::Framework => |_, _| crate::cost::published::WORKER_TOKENS,
            },
        }
    }
}

/// Seconds of one pass by a published formula: stage sums over all layers of a micro-batch, micro-batches, layers, and
/// whether they are prompts alone.
type PassFormula = fn(&Stages, u32, u32, bool) -> f64;

/// How micro-batches are cut and put in a pipeline.
#[derive(Clone, Copy, Debug)]
pub struct PipelineStrategy {
    /// Sequences of part `i` of a batch in so many parts.
    pub size: fn(u32, u32, u32) -> u32,
    /// Whether prompts are cut as one sequence, whole rounds at once.
    pub one_sequence: bool,
    /// None: the schedule.
    pub formula: Option<PassFormula>,
}

impl PipelineStrategy {
    pub(crate) fn of(a: &Assumptions) -> PipelineStrategy {
        PipelineStrategy {
            size: match a.microbatch_split {
                MicrobatchSplit::Even => |batch, parts, i| batch / parts + u32::from(i < batch % parts),
                MicrobatchSplit::Floor => |batch, parts, _| (batch / parts).max(1),
                MicrobatchSplit::Ceil => |batch, parts, _| batch.div_ceil(parts),
            },
            one_sequence: a.prefill_split == PrefillSplit::OneSequence,
            formula: match a.pipeline_formula {
                PipelineFormula::Schedule => None,
                PipelineFormula::SlowestStage => {
                    Some(|s, m, layers, _| published::pipeline_v2([s.attention, s.a2f, s.ffn, s.f2a], m, layers))
                }
                PipelineFormula::Cycle => Some(cycle),
            },
        }
    }
}

fn cycle(s: &Stages, m: u32, layers: u32, prompts: bool) -> f64 {
    let n = f64::from(layers);
    let layer = Stages::new(s.attention / n, s.a2f / n, s.ffn / n, s.f2a / n);
    if prompts { published::cycle_prefill(&layer, m, layers) } else { published::cycle_step(&layer, m, layers) }
}
