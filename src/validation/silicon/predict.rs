//! TPOT of a cleaned row: the aggregated closed loop at its concurrency, or the P/D engine.
//!
//! Prompts are fixed at the mean of what the client drew: InferenceX draws uniformly from 80-100 %
//! of the nominal length. Chunk budgets and formats are the servers' defaults (`serving::defaults`).
//! Sequences that memory does not hold wait outside, as the frameworks make them.
//!
//! Limit: prompts all of the mean length, servers' default budgets.

use std::sync::Arc;

use super::data::Raw;
use super::labels::{Clean, Deployment};
use crate::cost::Library;
use crate::error::Result;
use crate::serving::choose::most_sequences;
use crate::serving::pd::Several;
use crate::serving::{Load, SteadyState, StepEngine, aggregated, defaults, pd};
use crate::spec::Workload;

/// Mean share of the nominal prompt length.
const MEAN_PROMPT: f64 = 0.9;

/// Prediction of a row, or why there is none.
pub struct Outcome {
    pub tpot_ms: f64,
    /// As the closed form has it.
    pub ttft_ms: f64,
    /// Mean batch of a decoding rank, and whether memory capped it.
    pub batch: f64,
    pub capped: bool,
}

fn workload(raw: &Raw) -> Workload {
    let isl = if raw.inferencex { MEAN_PROMPT * raw.isl } else { raw.isl };
    Workload::fixed("silicon", 0.0, isl, raw.osl)
}

fn outcome(p: &SteadyState, capped: bool) -> std::result::Result<Outcome, String> {
    if p.stands() && p.tpot_s.is_finite() && p.tpot_s > 0.0 {
        Ok(Outcome { tpot_ms: p.tpot_s * 1e3, ttft_ms: p.ttft_s * 1e3, batch: p.decode_batch, capped })
    } else {
        Err(format!("not-computable:{}", p.binding.label().split(':').next().unwrap_or("")))
    }
}

fn aggregated(
    s: &StepEngine,
    load: &Load,
    wanted: f64,
    budget: f64,
    replicas: u32,
) -> std::result::Result<Outcome, String> {
    let most = most_sequences(s, budget.min(load.isl.max(1.0) * wanted.max(1.0) + wanted)).floor();
    if most < 1.0 {
        return Err("not-computable:memory".into());
    }
    let batch = wanted.min(most);
    // A budget that decode alone would fill still lets one prompt token through in every framework.
    let budget = budget.max(batch + 1024.0);
    outcome(&aggregated::solve(s, load, batch, budget, replicas), batch < wanted)
}

struct Sides<'a> {
    prefill: (&'a StepEngine, u32, f64),
    decode: (&'a StepEngine, u32),
    /// Sequences that a decode rank takes at most.
    seats: f64,
}

fn disaggregated(sides: &Sides<'_>, load: &Load, concurrency: f64) -> std::result::Result<Outcome, String> {
    let (p, np, budget) = sides.prefill;
    let (d, nd) = sides.decode;
    let prompts = (budget / load.isl).floor().max(1.0).min((concurrency / (f64::from(np) * p.ranks())).ceil().max(1.0));
    let side = pd::prefill_side(p, load, prompts.min(most_sequences(p, budget).floor().max(1.0)), budget);
    let slots = f64::from(nd) * d.ranks() * d.stages_in_flight();
    let most = most_sequences(d, 1.0).floor().min(sides.seats);
    if most < 1.0 || side.short.is_some() {
        return Err("not-computable:memory".into());
    }
    let wanted = concurrency / slots;
    let mut batch = wanted.min(most);
    let mut point = SteadyState::unplaced(crate::serving::Binding::None, 0.0);
    // Requests that prefill or travel do not decode: a fixed point, a contraction since TTFT is a small share.
    for _ in 0..12 {
        point = pd::combine(Several::of(p, &side, np), Several::of(d, &pd::decode_side(d, load, batch), nd), load);
        if !point.stands() {
            break;
        }
        let next = ((concurrency - point.requests_per_s * point.ttft_s) / slots).clamp(wanted * 1e-3, most.min(wanted));
        if (next - batch).abs() < 1e-4 * wanted {
            break;
        }
        batch = 0.5 * (batch + next);
    }
    outcome(&point, most < wanted)
}

/// Predicts one row; `Err` in the inner result is the row's status.
pub(crate) fn predict(lib: &Arc<Library>, raw: &Raw, clean: &Clean) -> Result<std::result::Result<Outcome, String>> {
    let w = workload(raw);
    let load = Load::of(&w);
    Ok(match &clean.deployment {
        Deployment::Aggregated { parallel, replicas } => {
            let s = StepEngine::worker(lib, *parallel, &w)?;
            let wanted = clean.concurrency / (f64::from(parallel.dp) * f64::from(parallel.pp) * f64::from(*replicas));
            aggregated(&s, &load, wanted, defaults::budget(lib, parallel), *replicas)
        }
        Deployment::Pd { prefill, decode } => {
            let p = StepEngine::worker(lib, prefill.0, &w.prefill_part())?;
            let d = StepEngine::worker(lib, decode.0, &w)?;
            let sides = Sides {
                prefill: (&p, prefill.1, defaults::budget(lib, &prefill.0)),
                decode: (&d, decode.1),
                seats: clean.max_batch.unwrap_or(f64::INFINITY),
            };
            disaggregated(&sides, &load, clean.concurrency)
        }
    })
}
