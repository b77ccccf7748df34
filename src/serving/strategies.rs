//! How the steps of a plan are counted, cut into micro-batches and put in a pipeline: the assumptions' answers, chosen
//! once when a plan is compiled.
//!
//! Physical: steady states of mixed steps, even micro-batches, the schedule of `pipeline`, no factors on what was priced.
//! Published planners put formulas (`published`) and factors in their place. What prices asks these, never the
//! assumptions. Limit: how KV travels between slots and which memory books are kept are chosen in `pd` and `cost::memory`.

use super::published;
use super::stages::Stages;
use crate::spec::Assumptions;
use crate::spec::assumptions::{
    MicrobatchSplit, MixedSteps, PipelineFormula, PrefillSplit, PrefillSync, TtftQueue, WorkerCorrections,
};

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
    pub fn of(a: &Assumptions) -> StepStrategy {
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
    pub fn of(a: &Assumptions) -> PipelineStrategy {
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
