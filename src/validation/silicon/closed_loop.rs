//! TTFT of a cleaned row, and TPOT where its users queue: the closed loop that its client ran, request by request.
//!
//! The client (SemiAnalysisAI/InferenceX, utils/bench_serving/benchmark_serving.py) keeps `concurrency` requests in
//! flight, all of the first ones sent at once after a warm-up, ten times as many in all; prompts and answers are
//! uniform in 80-100 % of their nominal lengths (`ignore_eos`), and its mean TTFT is over all of them, the first
//! burst included. Rows of another client have fixed lengths. Schedulers, chunk budgets and
//! formats are the servers' defaults (`serving::defaults`) where the row's recipe sets nothing else (`intake`); API server,
//! steps ahead and hand-over are those of `serving::path`. Limits: rows of SGLang and of P/D are still too early by half,
//! with 130 to 180 ms that no published term explains; rows of fixed lengths run in lockstep here, so that every wave meets
//! the API server at once, and come too late. Whether the sample's TTFT is the client's mean or its median is not said.

use std::sync::Arc;

use super::data::Raw;
use super::intake;
use super::labels::{Clean, Deployment as Layout};
use crate::control::Control;
use crate::cost::Library;
use crate::error::{Error, Result};
use crate::serving::choose::most_sequences;
use crate::serving::{Engine, StepEngine, defaults};
use crate::sim::metrics::Latencies;
use crate::sim::trace::draw;
use crate::sim::{Deployment, Scheduler, Settings, simulate};
use crate::spec::{Aggregated, Distribution, Framework, PdPlan, Plan, Slot, Workers, Workload};

/// Shortest prompt or answer over the nominal one.
const SHORTEST: f64 = 0.8;
/// Requests over users.
const WAVES: f64 = 10.0;
const SEED: u64 = 1;

fn workload(raw: &Raw) -> Workload {
    let fixed = Workload::fixed("silicon", 0.0, raw.isl, raw.osl);
    if raw.inferencex {
        let drawn = |nominal: f64| Distribution::Uniform { low: (SHORTEST * nominal).floor(), high: nominal };
        Workload { isl: drawn(raw.isl), osl: drawn(raw.osl), ..fixed }
    } else {
        fixed
    }
}

/// Seats of a rank: its share of the users, or what memory holds.
fn seats(s: &StepEngine, users: f64, tokens: f64) -> Option<u32> {
    let most = most_sequences(s, tokens).floor();
    (most >= 1.0).then(|| users.ceil().clamp(1.0, most) as u32)
}

fn plan(lib: &Arc<Library>, raw: &Raw, clean: &Clean, w: &Workload) -> Result<Option<Plan>> {
    let users = clean.concurrency;
    Ok(match &clean.deployment {
        Layout::Aggregated { parallel, replicas } => {
            let s = StepEngine::worker(lib, *parallel, w)?;
            let budget = intake::budget(raw, users).unwrap_or_else(|| defaults::budget(lib, parallel));
            let share = users / (s.ranks() * s.stages_in_flight() * f64::from(*replicas));
            let tokens = budget.min(raw.isl * share.max(1.0) + share);
            seats(&s, share, tokens).map(|batch| {
                Plan::Aggregated(Aggregated {
                    parallel: *parallel,
                    batch: Some(batch),
                    // A budget that decode alone would fill still lets prompts through, as for TPOT.
                    chunk_tokens: Some(budget.max(f64::from(batch) + 1024.0) as u32),
                    replicas: *replicas,
                    ..Default::default()
                })
            })
        }
        Layout::Pd { prefill, decode } => {
            let d = StepEngine::worker(lib, decode.0, w)?;
            let share = users / (d.ranks() * d.stages_in_flight() * f64::from(decode.1));
            let prompts = Workers {
                count: prefill.1,
                parallel: prefill.0,
                batch: Some(1),
                chunk_tokens: Some(defaults::budget(lib, &prefill.0) as u32),
                ..Default::default()
            };
            let share = share.min(clean.max_batch.unwrap_or(f64::INFINITY));
            seats(&d, share, share).map(|batch| {
                let answers = Workers {
                    count: decode.1,
                    parallel: decode.0,
                    batch: Some(batch),
                    chunk_tokens: None,
                    ..Default::default()
                };
                Plan::Pd(PdPlan { prefill: Slot::Workers(prompts), decode: Slot::Workers(answers) })
            })
        }
    })
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// Means of a simulated row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Means {
    pub ttft_ms: f64,
    pub tpot_ms: f64,
}

/// Share of a user's time before the first token from which on a row's users queue.
const WAITS: f64 = 0.2;

/// Whether users of a row queue, by its own TTFT and the predicted TPOT: the closed form lets nothing wait, and sees many
/// who stand before the server decoding in it. The share was set with the errors of the rows of SGLang in sight (0.15 to
/// 0.2: 16 % by the closed form, 27 simulated; 0.2 to 0.3: 32 and 21).
pub(crate) fn queues(raw: &Raw, tpot_ms: f64) -> bool {
    raw.ttft_ms >= WAITS * (raw.ttft_ms + raw.osl * tpot_ms)
}

/// Mean TTFT and TPOT; `None` where the row's requests do not fit its GPUs.
pub fn means(lib: &Arc<Library>, raw: &Raw, clean: &Clean, control: &Control) -> Result<Option<Means>> {
    let w = workload(raw);
    let users = clean.concurrency.round().max(1.0);
    let Some(plan) = plan(lib, raw, clean, &w)? else { return Ok(None) };
    let engine = match Engine::new(lib, &w, &plan) {
        Ok(e) => Arc::new(e),
        Err(Error::Infeasible { .. } | Error::Spec(_)) => return Ok(None),
        Err(e) => return Err(e),
    };
    let trace = draw::closed(&w, users as u32, (WAVES * users) as usize, 0.0, SEED)?;
    let first = defaults::prompts_first(raw.framework);
    let scheduler = if first { Scheduler::Sglang } else { Scheduler::ChunkedPrefill };
    let settings = Settings { scheduler, ..Settings::default() };
    let mut deployment = Deployment::of(&engine);
    if let (Framework::Vllm, Layout::Aggregated { parallel, replicas }) = (raw.framework, &clean.deployment) {
        // It keeps no room for answers: as many decode as their KV so far allows.
        let ranks = parallel.dp * replicas;
        deployment.pools[0].max_seqs = (users / f64::from(ranks)).ceil() as u32;
    }
    let outcome = simulate(&deployment, &trace.requests, &settings, &control.part())?;
    let all = Latencies::of(&trace.requests, &outcome);
    let found = Means { ttft_ms: mean(&all.ttft_ms), tpot_ms: mean(&all.tpot_ms) };
    Ok((found.ttft_ms.is_finite() && found.tpot_ms.is_finite()).then_some(found))
}
