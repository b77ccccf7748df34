//! Chunked prefill and decode on the same GPUs (a worker, or an AFD unit that serves both).
//!
//! D attention ranks in lockstep, chunk budget C per rank, B slots per rank of which `B_dec` decode.
//! Room for prefill r = C - B_dec; chunks n = ceil(ISL/r); prompt tokens needed per iteration
//! p = B_dec ISL/(OSL-1). A mixed step carries s = min(r, max(ISL, p)) prompt tokens (one prompt's
//! chunk, or more when prompts come faster than one per iteration), so f = p/s of a rank's
//! iterations are mixed. Uncoordinated ranks share the MoE barrier: f_sys = 1 - (1-f)^D, and a
//! mixed system step finds f/f_sys of the ranks prefilling. Mean iteration
//! t = f_sys t_mix + (1-f_sys) t_dec; TPOT = t; worst ITL = t_mix.
//! TTFT = (n-1) t_mix + t_last: the last chunk carries what is left of the prompt, beside the head of the
//! next one if that waits already (odds f); with a cadence t_mix is the mean over chunks, so that t_last = t_mix.
//! Limit: the worst ITL is then that of such a mean. B = B_dec + rate TTFT closes the loop. Source: physics.md
//! section 5 (which charges n whole steps, and a mixed step the whole budget r; a budget above the
//! prompt is a cap, not a load).
//! D counts the ranks of all attention groups of an AFD unit: groups take turns on the FFN pool, so one that
//! carries a prompt holds up a layer of the others.
//! A cadence above 1 lets prompts in every n-th step only (`cadence`, which holds these shares for any n); TTFT then
//! has the wait for that step.
//! f >= 1 is prefill-bound: every step is mixed and B_dec = s (OSL-1)/ISL.

use super::cadence;
use super::known::{ByPhase, Known};
use super::path::{self, Met, PathS};
use super::published;
use super::steady_state::{Binding, KvCost, Load, SteadyState};
use super::step_clock::{Carried, StepClock, StepWork};
use super::step_engine::{StepEngine, StepTime};
use crate::cost::Batch;
use crate::spec::{PlanPool, Role};

/// The steps a deployment alternates between.
#[derive(Clone, Copy)]
struct Mix<W> {
    decode: StepTime<W>,
    mixed: StepTime<W>,
    f_sys: f64,
    /// First token's wait without queue, the wait for the step that lets the prompt in included.
    ttft_s: f64,
    prefill_bound: bool,
    mean_s: f64,
    batch: Batch,
}

/// What a mixed step carries on a rank that prefills, at `decoding` sequences under a chunk budget.
pub(crate) fn mixed_batch(s: &StepEngine, load: &Load, decoding: f64, chunk: f64) -> Option<Batch> {
    mix(s, load, decoding, chunk, progress(s), interval(s, None)).map(|m| m.batch)
}

/// Tokens of a rank's step whose activations are kept room for.
pub fn tokens_in_flight(s: &StepEngine, load: &Load, batch: f64, chunk: f64) -> f64 {
    (s.room.mixed)(load, (batch, chunk, per_decode(s)))
}

fn per_decode(s: &StepEngine) -> f64 {
    1.0 + f64::from(s.library().serving.mtp)
}

/// Tokens that a decode step adds to a sequence.
fn progress(s: &StepEngine) -> f64 {
    s.library().serving.tokens_per_step()
}

/// Steps between two that let prompts in, of a plan that says `asked`.
pub(crate) fn interval(s: &StepEngine, asked: Option<u32>) -> u32 {
    let lib = s.library();
    cadence::interval(asked, &lib.serving, lib.framework, s.ranks())
}

/// Iterations at `decoding` sequences per rank under a chunk budget.
fn mix<S: StepClock>(
    steps: &S,
    load: &Load,
    decoding: f64,
    chunk: f64,
    progress: f64,
    interval: u32,
) -> Option<Mix<S::StepWork>> {
    let s = steps.engine();
    let per_decode = per_decode(s);
    let room = chunk - decoding * per_decode;
    if room < 1.0 {
        return None;
    }
    let chunks = (load.isl / room).ceil().max(1.0);
    let tokens = ((load.osl - 1.0) / progress).max(1e-9);
    let needed = if load.osl > 1.0 { decoding * load.isl / tokens } else { room };
    // Nothing is held back for if nothing decodes.
    let interval = if load.osl > 1.0 { interval } else { 1 };
    let pace = cadence::pace(interval, needed, load.isl, room, s.ranks(), s.strategy.aligned);
    let cadence::Pace { f, f_sys, carried, .. } = pace;
    // One prompt's chunk, at the mean past of the prompt's chunks; several prompts when p > ISL.
    let per_prompt = load.isl.min(carried);
    let sequences = (carried / per_prompt).max(1.0);
    let batch = Batch {
        decode: decoding,
        context: s.slowest_context(decoding, load.context),
        per_decode,
        sequences,
        new: per_prompt,
        past: load.prefix + (load.isl - per_prompt) / 2.0,
        busy: pace.busy,
        ending: carried / load.isl,
        slack: 0.0,
    };
    let launch_s = path::launch_s(s.library());
    let mixed = longer(steps.mixed(&batch, Carried::Chunk), launch_s);
    let rest = load.isl - (chunks - 1.0) * room;
    // With a cadence a mixed step stands for the mean of a prompt's chunks, the last among them.
    let last_s = if interval == 1 && chunks > 1.0 && rest < room * (1.0 - 1e-9) {
        let past = load.prefix + load.isl - rest;
        let alone = steps.mixed(&Batch { sequences: 1.0, new: rest, past, ending: 1.0, ..batch }, Carried::Rest);
        f * mixed.seconds + (1.0 - f) * alone.seconds.max(launch_s)
    } else {
        mixed.seconds
    };
    let decode = if decoding > 0.0 { steps.decode(decoding, batch.context) } else { StepTime::default() };
    let mean_s = f_sys * mixed.seconds + (1.0 - f_sys) * decode.seconds;
    let ttft_s = pace.held * mean_s + (pace.behind + chunks - 1.0) * mixed.seconds + last_s;
    let most = if interval > 1 { room } else { carried };
    Some(Mix { decode, mixed, f_sys, ttft_s, prefill_bound: needed >= most * (1.0 - 1e-12), mean_s, batch })
}

/// A step that its host takes at least `seconds` to launch.
fn longer<W>(step: StepTime<W>, seconds: f64) -> StepTime<W> {
    StepTime { seconds: step.seconds.max(seconds), ..step }
}

/// Requests a second of one deployment with `decoding` sequences per rank in the closed loop, and their TTFT in it.
pub(super) fn closed(s: &StepEngine, load: &Load, decoding: f64, chunk: f64, interval: u32) -> Option<(f64, f64)> {
    let progress = progress(s);
    // More than the budget feeds would wait for prefill.
    let fed = decoding.min(all_mixed(s, load, chunk, (load.osl - 1.0) / progress));
    let m = mix(s, load, fed, chunk, progress, interval)?;
    let rate = s.ranks() * s.stages_in_flight() * fed * progress / ((load.osl - 1.0) * m.mean_s);
    Some((rate, m.ttft_s))
}

/// Factor on TTFT for waiting: `chunks` steps a prompt, `batch` prompts.
fn queue(s: &StepEngine, chunks: f64, batch: f64) -> f64 {
    (s.strategy.mixed_wait)((chunks * batch).ceil())
}

/// The step-counting formula: one full batch whose prompts start together. A budget that holds whole
/// prompts leaves their cached tokens alone; one that cuts a prompt computes them again. Limit:
/// the attention of a cut prompt is priced at its mean past, not as its whole divided by the cuts.
fn counted(s: &StepEngine, load: &Load, batch: f64, chunk: f64, replicas: u32, memory: f64) -> SteadyState {
    let room = chunk - batch * per_decode(s);
    if room < 1.0 {
        return SteadyState::unplaced(Binding::Divisibility, memory);
    }
    let prompt = load.prefix + load.isl;
    let whole = (room / load.isl).floor().min(batch);
    let budget = if whole >= 1.0 { whole * prompt } else { room };
    let count = published::count_steps(batch, prompt, budget, load.osl);
    let pieces = (prompt / budget).ceil().max(1.0);
    let (sequences, new, past) =
        if whole >= 1.0 { (whole, load.isl, load.prefix) } else { (1.0, room, ((prompt - room) / 2.0).max(0.0)) };
    let middle = prompt + (load.osl / 2.0).floor();
    let mixed = s.step(&Batch {
        decode: count.decoding,
        context: middle,
        per_decode: per_decode(s),
        sequences,
        new,
        past,
        busy: 1.0,
        ending: sequences / pieces,
        slack: 0.0,
    });
    let decode = s.decode(batch, middle);
    let (tpot, whole_s) = count.times(mixed.seconds, decode.seconds);
    let deployments = s.ranks() * s.stages_in_flight() * f64::from(replicas);
    let steps = count.mixed + count.decode;
    SteadyState {
        ttft_s: mixed.seconds * pieces * queue(s, prompt / budget, batch),
        tpot_s: tpot / progress(s),
        itl_worst_s: mixed.seconds,
        requests_per_s: deployments * batch / whole_s,
        concurrency: deployments * batch,
        memory_bytes: memory,
        binding: Binding::None,
        evidence: ByPhase {
            ttft: Known::of(&mixed.work),
            tpot: Known::of(&mixed.work.times(count.mixed / steps).plus(&decode.work.times(count.decode / steps))),
        },
        decode_batch: batch,
        kv: KvCost::default(),
        path: PathS::default(),
    }
}

/// Decoding sequences per rank whose prompts take all of the budget.
fn all_mixed(s: &StepEngine, load: &Load, chunk: f64, steps: f64) -> f64 {
    chunk * steps / (load.isl + steps * per_decode(s))
}

/// A mixed step by the mean one, where nothing is known yet.
const LONGER: f64 = 1.3;

/// Fixed point B = B_dec (1 + TTFT / (steps t)), at most `cap` and 24 rounds; a contraction, since TTFT is a few
/// steps of many, so two rounds tell where the third should start. A start whose prompts overflow the budget is
/// first held against the batch whose prompts just fill it: if the slots want more even there, prefill binds.
fn settle<S: StepClock>(
    clock: &S,
    load: &Load,
    batch: f64,
    chunk: f64,
    cap: f64,
    progress: f64,
    interval: u32,
) -> Option<(f64, Mix<S::StepWork>)> {
    let s = clock.engine();
    let steps = (load.osl - 1.0) / progress;
    let wanted = |m: &Mix<S::StepWork>| (batch / (1.0 + m.ttft_s / (steps * m.mean_s))).min(cap);
    // A prompt's chunks at a mixed step that takes somewhat more than the mean one.
    let chunks = (load.isl / (chunk - batch * per_decode(s)).max(1.0)).ceil().max(1.0);
    let waits = LONGER * chunks + 0.5 * f64::from(interval - 1);
    let mut decoding = (batch / (1.0 + waits / steps)).min(cap);
    let full = all_mixed(s, load, chunk, steps);
    // With fewer output tokens than that, steps are all mixed before the budget is full.
    let calm = full.min(steps);
    if decoding > full && full <= steps {
        let m = mix(clock, load, full, chunk, progress, interval)?;
        let next = wanted(&m);
        if next >= full {
            return Some((full, Mix { prefill_bound: true, ..m }));
        }
        decoding = next;
    }
    let mut before: Option<(f64, f64)> = None;
    for _ in 0..24 {
        let m = mix(clock, load, decoding, chunk, progress, interval)?;
        let next = wanted(&m);
        if (next - decoding).abs() <= S::TOLERANCE * batch || m.prefill_bound && next > decoding {
            return Some((decoding, m));
        }
        let here = (decoding, next);
        decoding = match before {
            _ if m.prefill_bound => 0.5 * (next.min(decoding) + decoding),
            Some((x, y)) if x != decoding => {
                // Where the chord through the last two meets the diagonal, while it slopes gently.
                let slope = (next - y) / (decoding - x);
                let met = decoding + (next - decoding) / (1.0 - slope);
                if slope.abs() < 0.7 && met > 0.0 && met < calm { met.min(cap) } else { next }
            }
            _ => next,
        };
        before = Some(here);
    }
    // A step of the chunk count lies on the fixed point; where the rounds ended is as good as any of them.
    mix(clock, load, decoding, chunk, progress, interval).map(|m| (decoding, m))
}

/// Steady state of `replicas` equal deployments with `batch` slots per attention rank.
pub fn solve(s: &StepEngine, load: &Load, batch: f64, chunk: f64, replicas: u32) -> SteadyState {
    solve_by(s, load, batch, chunk, replicas)
}

/// The same by any clock, at the cadence that the server has when the plan does not say.
pub fn solve_by<S: StepClock>(clock: &S, load: &Load, batch: f64, chunk: f64, replicas: u32) -> SteadyState {
    solve_paced(clock, load, batch, chunk, replicas, interval(clock.engine(), None))
}

/// The same when prompts are let in every `interval`-th step. Published step counting, which knows no cadence, is
/// asked of the exact engine whatever the clock.
pub fn solve_paced<S: StepClock>(
    clock: &S,
    load: &Load,
    batch: f64,
    chunk: f64,
    replicas: u32,
    interval: u32,
) -> SteadyState {
    let s = clock.engine();
    let (short, memory) = s.memory_check(batch, tokens_in_flight(s, load, batch, chunk));
    if let Some(pool) = short {
        return SteadyState::unplaced(Binding::Memory(PlanPool { slot: Role::Both, pool }), memory);
    }
    if s.strategy.counted && load.osl > 1.0 {
        return counted(s, load, batch, chunk, replicas, memory);
    }
    let progress = progress(s);
    let steps = (load.osl - 1.0) / progress;
    let deployments = s.ranks() * s.stages_in_flight() * f64::from(replicas);
    if load.osl <= 1.0 {
        // Nothing to decode: prompts stream through, one after another, no more at a time than slots.
        let budget = chunk.min(batch * load.isl);
        let Some(m) = mix(clock, load, 0.0, budget, progress, 1) else {
            return SteadyState::unplaced(Binding::Divisibility, memory);
        };
        let path = path::mixed(s.library(), load.prompt(), &Met::one(0.0, 0.0, 0.0));
        let ttft = m.ttft_s + path.total_s();
        let rate = budget / load.isl / m.mixed.seconds;
        return SteadyState {
            ttft_s: ttft,
            tpot_s: 0.0,
            itl_worst_s: m.mixed.seconds,
            requests_per_s: deployments * rate,
            // The last chunk of a prompt shares its step with the first of the next.
            concurrency: deployments * rate * ttft,
            memory_bytes: memory,
            binding: Binding::PrefillRate,
            evidence: ByPhase { ttft: Known::of(&m.mixed.work.total()), tpot: Known::default() },
            decode_batch: 0.0,
            kv: KvCost::default(),
            path,
        };
    }
    // Fixed point B = B_dec (1 + TTFT / (steps t)); a contraction, since TTFT is a few steps of many.
    let cap = (chunk - 1.0) / per_decode(s);
    if cap < 1.0 {
        // Not even one sequence can decode beside one prompt token.
        return SteadyState::unplaced(Binding::Divisibility, memory);
    }
    let Some((mut decoding, mut m)) = settle(clock, load, batch, chunk, cap, progress, interval) else {
        return SteadyState::unplaced(Binding::Divisibility, memory);
    };
    let mut binding = Binding::None;
    let mut ttft = m.ttft_s;
    if m.prefill_bound {
        // Every step is mixed; decode holds what prefill can feed, the other slots wait for prefill.
        let fed = all_mixed(s, load, chunk, steps).min(batch);
        if decoding > fed {
            decoding = fed;
            if let Some(again) = mix(clock, load, decoding, chunk, progress, interval) {
                m = again;
            }
        }
        let rate = decoding / (steps * m.mean_s);
        ttft = (m.ttft_s).max((batch - decoding) / rate);
        binding = Binding::PrefillRate;
    }
    let rate = decoding / (steps * m.mean_s);
    if !m.prefill_bound && decoding >= cap * (1.0 - 1e-9) {
        // A budget below the slots: no more sequences decode than it has tokens for, the others wait.
        ttft = ttft.max((batch - decoding) / rate);
        binding = Binding::PrefillRate;
    }
    let chunks = (load.isl / (chunk - decoding * per_decode(s)).max(1.0)).ceil().max(1.0);
    let one = s.ranks() * s.stages_in_flight();
    let (dec, mix_s, mean) = (m.decode.seconds, m.mixed.seconds, m.mean_s);
    let met = Met {
        step_s: mean,
        next_s: if interval > 1 { dec } else { mean },
        rest_s: 0.5 * (m.f_sys * mix_s * mix_s + (1.0 - m.f_sys) * dec * dec) / mean,
        decode_s: dec,
        // Where prompts bind, the queue before the server hides the step in flight.
        busy: if binding == Binding::None { (one * batch - 1.0).clamp(0.0, 1.0) } else { 0.0 },
        arrivals: one * rate * mean,
    };
    let path = path::mixed(s.library(), load.prompt(), &met);
    SteadyState {
        ttft_s: ttft * queue(s, chunks, batch) + path.total_s(),
        tpot_s: m.mean_s / progress,
        itl_worst_s: m.mixed.seconds,
        requests_per_s: deployments * rate,
        // Those who wait outside hold no seat.
        concurrency: deployments * (batch + rate * path.total_s()),
        memory_bytes: memory,
        binding,
        evidence: ByPhase {
            ttft: Known::of(&m.mixed.work.total()),
            tpot: Known::of(&m.mixed.work.times(m.f_sys).plus(&m.decode.work.times(1.0 - m.f_sys)).total()),
        },
        decode_batch: decoding,
        kv: KvCost::default(),
        path,
    }
}
