//! Prefill and decode on different step engines (workers or AFD units), whole numbers of each.
//!
//! rate = min(nP mu_P, nD mu_D); the decode batch is lowered to what the rate needs. TTFT = the
//! prompt's own chunks + the KV transfer that is not hidden: layer-wise
//! max(0, t_x - t_compute)(L-1) + t_x of the last layer, or the whole in bulk. The first token leaves after its KV
//! has arrived (SGLang, TensorRT-LLM), or the decode worker makes it again (vLLM): half a step in flight and its own
//! first step later, and one decode step more an answer; by switch, from the prefill worker. The ports of the
//! slots carry KV beside the steps' own traffic, which slows both (contention) and bounds the rate of
//! transfers. Source: physics.md section 5.
//!
//! Limit: prompts of mean length, one kind of worker a slot; imbalance between workers of a slot is the simulator's.

use super::contention::{self, Crowds, Shared, Ways};
use super::known::{ByPhase, Known};
use super::path::{self, Met};
use super::steady_state::{Binding, KvCost, Load, SteadyState};
use super::step_clock::{StepClock, StepWork};
use super::step_engine::{self, Prefill, StepEngine, StepTime};
use super::strategies::Correction;
use crate::cost::Library;
use crate::kernels::Evidence;
use crate::network::Link;
use crate::spec::assumptions::FirstToken;
use crate::spec::{PlanPool, Pool, Role, servers};

/// A prefill step engine at one batch and chunk: what it gives per worker.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PrefillSide {
    pub prefill: Prefill,
    /// Requests per second of one worker or unit.
    pub rate: f64,
    pub memory_bytes: f64,
    pub short: Option<Pool>,
    /// Prompts per rank and chunk of the round.
    pub sequences: f64,
    pub chunk: f64,
    /// Its ports, once they have been asked for.
    pub crowds: Option<Crowds>,
    /// Seconds that its KV keeps the first token waiting at least, once they have been asked for.
    pub waits_s: f64,
}

/// A decode step engine at its full batch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DecodeSide {
    pub batch: f64,
    pub step: StepTime,
    /// Requests per second of one worker or unit.
    pub rate: f64,
    pub memory_bytes: f64,
    pub short: Option<Pool>,
    pub crowds: Option<Crowds>,
}

/// Some equal workers or units of one slot: one of them with its clock, what it gives, and how many there are.
#[derive(Debug)]
pub struct Several<'a, S, Side> {
    pub one: &'a S,
    pub side: &'a Side,
    pub count: u32,
}

impl<'a, S, Side> Several<'a, S, Side> {
    pub fn of(one: &'a S, side: &'a Side, count: u32) -> Several<'a, S, Side> {
        Several { one, side, count }
    }
}

impl PrefillSide {
    /// With its ports worked out, so that pairing does not do it again.
    pub fn with_ports(self, s: &StepEngine, load: &Load) -> PrefillSide {
        PrefillSide { crowds: shares_ports(s).then(|| self.ports(s, load)), waits_s: self.least_wait(s, load), ..self }
    }

    /// What its own links take for the KV when nothing else is on them.
    fn least_wait(&self, s: &StepEngine, load: &Load) -> f64 {
        let wait = |near| Pair { p: s, np: 1, d: s, nd: 1, load, near }.transfer_wait(self, [1.0; 2]);
        f64::min(wait(true), wait(false))
    }

    fn ports(&self, s: &StepEngine, load: &Load) -> Crowds {
        let ways = [load.ship_to_prefill > 0.0, load.ship_to_decode > 0.0];
        let lengths = [load.isl, load.prefix];
        self.crowds.unwrap_or_else(|| contention::prefill(s, &self.prefill, self.sequences, lengths, self.chunk, ways))
    }
}

impl DecodeSide {
    /// With its ports worked out, so that pairing does not do it again.
    pub fn with_ports(self, s: &StepEngine, load: &Load) -> DecodeSide {
        DecodeSide { crowds: shares_ports(s).then(|| self.ports(s, load)), ..self }
    }

    fn ports(&self, s: &StepEngine, load: &Load) -> Crowds {
        let ways: Ways = [load.ship_to_decode > 0.0, load.ship_to_prefill > 0.0];
        let context = s.slowest_context(self.batch, load.context);
        self.crowds.unwrap_or_else(|| contention::decode(s, self.batch, context, self.step.seconds, ways))
    }
}

/// Whether KV and the steps share ports.
fn shares_ports(s: &StepEngine) -> bool {
    s.kv.shares_ports
}

/// Prices the prefill slot: `sequences` per rank and round, in chunks of `chunk` tokens.
pub fn prefill_side(s: &StepEngine, load: &Load, sequences: f64, chunk: f64) -> PrefillSide {
    prefill_side_by(s, load, sequences, chunk)
}

/// The same by any clock.
pub fn prefill_side_by<S: StepClock>(clock: &S, load: &Load, sequences: f64, chunk: f64) -> PrefillSide {
    let s = clock.engine();
    let in_flight = (s.room.prompts)(load, (sequences, chunk, 0.0));
    let (short, memory_bytes) = s.memory_check(sequences, in_flight);
    let mut prefill = clock.prefill(sequences, load.isl, load.prefix, chunk);
    // Passes that the host launches kernel by kernel take their time.
    let passes = (load.isl / chunk).ceil().max(1.0);
    let longer = passes * path::launch_s(s.library()) / prefill.latency_s;
    if longer > 1.0 {
        (prefill.latency_s, prefill.period_s) = (prefill.latency_s * longer, prefill.period_s * longer);
    }
    let Correction { time, share } = s.strategy.prefill;
    prefill.latency_s *= time;
    prefill.period_s *= time;
    let rate = share * prefill.requests / prefill.period_s;
    PrefillSide { rate, prefill, memory_bytes, short, sequences, chunk, crowds: None, waits_s: 0.0 }
}

/// A decode step.
fn decode_step<S: StepClock>(clock: &S, load: &Load, batch: f64) -> StepTime {
    let s = clock.engine();
    let StepTime { seconds, work } = clock.decode(batch, s.slowest_context(batch, load.context));
    StepTime { seconds: seconds * s.strategy.decode.time, work: work.total() }
}

/// Who sends the first token.
pub fn first_token(lib: &Library) -> FirstToken {
    servers::first_token(lib.framework, lib.assumptions.first_token_from)
}

/// Tokens of an answer that decode makes: all but the prompt's own, or that one too where it is made again.
pub(crate) fn decoded(lib: &Library, osl: f64) -> f64 {
    if first_token(lib) == FirstToken::DecodeStep { osl } else { osl - 1.0 }
}

fn decode_rate(s: &StepEngine, load: &Load, batch: f64, step_s: f64) -> f64 {
    let progress = s.library().serving.tokens_per_step();
    let steps = decoded(s.library(), load.osl) / progress;
    s.strategy.decode.share * s.ranks() * s.stages_in_flight() * batch / (steps.max(1e-9) * step_s)
}

/// Prices the decode slot at `batch` sequences per rank.
pub fn decode_side(s: &StepEngine, load: &Load, batch: f64) -> DecodeSide {
    decode_side_by(s, load, batch)
}

/// The same by any clock.
pub fn decode_side_by<S: StepClock>(clock: &S, load: &Load, batch: f64) -> DecodeSide {
    let s = clock.engine();
    let per_decode = 1.0 + f64::from(s.library().serving.mtp);
    let (short, memory_bytes) = s.memory_check(batch, batch * per_decode);
    let step = decode_step(clock, load, batch);
    DecodeSide { batch, step, rate: decode_rate(s, load, batch, step.seconds), memory_bytes, short, crowds: None }
}

/// KV between the slots: seconds a second that one request a second needs of each port.
struct Wire {
    /// (To prefill, to decode) at a port of prefill, and of decode.
    need: [[f64; 2]; 2],
}

impl Wire {
    /// Requests per second when KV gets these shares of the ports.
    fn rate(&self, shares: [[f64; 2]; 2]) -> f64 {
        let need = self.need.as_flattened().iter().zip(shares.as_flattened());
        1.0 / need.map(|(need, share)| need / share).fold(f64::MIN_POSITIVE, f64::max)
    }
}

/// Both slots with KV beside their steps.
struct Settled {
    rate: f64,
    supply: f64,
    demand: f64,
    wire: f64,
    /// A prefill round, and the full decode step.
    prefill: Shared,
    decode: Shared,
}

/// Rounds of the rate that KV contention and the rate itself agree on; each gains digits, as KV is a small
/// part of what the ports carry.
const ROUNDS: usize = 6;

/// Whole numbers of both slots, and what they are for.
#[derive(Clone, Copy)]
struct Pair<'a> {
    p: &'a StepEngine,
    np: u32,
    d: &'a StepEngine,
    nd: u32,
    load: &'a Load,
    /// Whether KV stays inside scale-up domains.
    near: bool,
}

impl<'a> Pair<'a> {
    fn new(p: &'a StepEngine, np: u32, d: &'a StepEngine, nd: u32, load: &'a Load) -> Pair<'a> {
        Pair { p, np, d, nd, load, near: same_domain(p, np, d, nd, p.library().cluster.fabric.domain_gpus) }
    }

    /// KV between the slots; none where it is ignored.
    fn wire(&self) -> Option<Wire> {
        let lib = self.p.library();
        if !self.p.kv.travels {
            return None;
        }
        let rate = lib.comm.kv_rate(self.near);
        let shipped = [self.load.ship_to_prefill, self.load.ship_to_decode];
        let seconds = shipped.map(|tokens| lib.kv_bytes(tokens) / rate);
        let ports = [self.np * self.p.kv_gpus(), self.nd * self.d.kv_gpus()];
        Some(Wire { need: ports.map(|n| seconds.map(|s| s / f64::from(n.max(1)))) })
    }

    /// Seconds of the first token's wait that KV transfer adds; `back`, `forth`: share of the ports that KV gets
    /// on its way to prefill and to decode.
    fn transfer_wait(&self, side: &PrefillSide, [back, forth]: [f64; 2]) -> f64 {
        let Pair { p, d, load, near: same_domain, .. } = *self;
        let lib = p.library();
        let kv = |tokens, share| step_engine::kv_seconds(p, d, tokens, side.prefill.together, lib, same_domain, share);
        let mut wait = 0.0;
        if !p.kv.travels {
            return wait;
        }
        if load.ship_to_prefill > 0.0 {
            wait += kv(load.ship_to_prefill, back).0.seconds;
        }
        if first_token(lib) != FirstToken::Prefill {
            let (whole, layer) = kv(load.ship_to_decode, forth);
            let layers = lib.kv_layers();
            wait += (p.kv.late)(whole.seconds, layer.seconds, side.prefill.latency_s / layers, layers);
        }
        wait
    }

    /// The rate at which both slots and KV between them agree, when no more than `asked` requests a second come.
    fn settle(&self, prefill: &PrefillSide, decode: &DecodeSide, asked: f64, tolerance: f64) -> Settled {
        let Pair { p, d, load, .. } = *self;
        let (latency, step) = (prefill.prefill.latency_s, decode.step.seconds);
        let (supply, demand) = (f64::from(self.np) * prefill.rate, f64::from(self.nd) * decode.rate);
        let alone = |seconds| Shared { seconds, share: [1.0; 2] };
        let wire = self.wire();
        let most = wire.as_ref().map_or(f64::INFINITY, |w| w.rate([[1.0; 2]; 2]));
        let mut now = Settled {
            rate: supply.min(demand).min(most).min(asked),
            supply,
            demand,
            wire: most,
            prefill: alone(latency),
            decode: alone(step),
        };
        let Some(wire) = wire.filter(|_| shares_ports(p)) else { return now };
        let tier = usize::from(!self.near);
        let (at_prefill, at_decode) = (prefill.ports(p, load)[tier], decode.ports(d, load)[tier]);
        for _ in 0..ROUNDS {
            let before = now.rate;
            let [[p_in, p_out], [d_out, d_in]] = wire.need.map(|w| w.map(|x| x * now.rate));
            now.prefill = at_prefill.shared(latency, [p_in, p_out], f64::from(p.kv_gpus()));
            now.decode = at_decode.shared(step, [d_in, d_out], f64::from(d.kv_gpus()));
            now.supply = supply * latency / now.prefill.seconds;
            now.demand = demand * step / now.decode.seconds;
            let [d_share_in, d_share_out] = now.decode.share;
            now.wire = wire.rate([now.prefill.share, [d_share_out, d_share_in]]);
            now.rate = now.supply.min(now.demand).min(now.wire).min(asked);
            if (now.rate - before).abs() <= tolerance * before {
                break;
            }
        }
        now
    }
}

/// Requests per second whose KV the ports of the smaller side carry when nothing else is on them.
pub fn wire_rate(p: &StepEngine, np: u32, d: &StepEngine, nd: u32, load: &Load) -> f64 {
    Pair::new(p, np, d, nd, load).wire().map_or(f64::INFINITY, |w| w.rate([[1.0; 2]; 2]))
}

/// Steady state of a prefill and a decode slot, with decode steps by any clock.
pub fn combine<S: StepClock>(
    prefill: Several<'_, StepEngine, PrefillSide>,
    decode: Several<'_, S, DecodeSide>,
    load: &Load,
) -> SteadyState {
    combine_at(prefill, decode, load, f64::INFINITY)
}

/// The same when no more than `asked` requests a second come.
pub(crate) fn combine_at<S: StepClock>(
    Several { one: p, side: prefill, count: np }: Several<'_, StepEngine, PrefillSide>,
    Several { one: clock, side: decode, count: nd }: Several<'_, S, DecodeSide>,
    load: &Load,
    asked: f64,
) -> SteadyState {
    let d = clock.engine();
    let memory = prefill.memory_bytes.max(decode.memory_bytes);
    if let Some(pool) = prefill.short {
        return SteadyState::unplaced(Binding::Memory(PlanPool { slot: Role::Prompts, pool }), memory);
    }
    if let Some(pool) = decode.short {
        return SteadyState::unplaced(Binding::Memory(PlanPool { slot: Role::Decode, pool }), memory);
    }
    let lib = p.library();
    let (np_f, nd_f) = (f64::from(np), f64::from(nd));
    let pair = Pair::new(p, np, d, nd, load);
    let at = pair.settle(prefill, decode, asked, S::TOLERANCE * 1e-3);
    let ([p_in, p_out], [d_in, d_out]) = (at.prefill.share, at.decode.share);
    let wait = pair.transfer_wait(prefill, [p_in * d_out, p_out * d_in]);
    let ttft = p.strategy.pair_wait * at.prefill.seconds + wait;
    let mut kv = KvCost {
        wait_s: wait,
        prefill_s: at.prefill.seconds - prefill.prefill.latency_s,
        decode_s: 0.0,
        same_domain: pair.near,
    };
    let supply = at.supply;
    let progress = lib.serving.tokens_per_step();
    if load.osl <= 1.0 {
        let path = path::pair(lib, load.prompt(), &Met::one(0.0, 0.0, 0.0));
        let rate = supply.min(asked);
        return SteadyState {
            ttft_s: ttft + path.total_s(),
            tpot_s: 0.0,
            itl_worst_s: 0.0,
            requests_per_s: rate,
            concurrency: np_f * prefill.prefill.requests * (asked / supply).min(1.0) + rate * path.total_s(),
            memory_bytes: memory,
            binding: Binding::PrefillRate,
            evidence: ByPhase { ttft: prompt_known(prefill, wait, 0.0, &decode.step), tpot: Known::default() },
            decode_batch: 0.0,
            kv,
            path,
        };
    }
    let Settled { rate, supply, demand, wire, .. } = at;
    // KV on its way costs a smaller batch as much less as it moves less.
    let slow = (at.decode.seconds - decode.step.seconds) / decode.batch.max(f64::MIN_POSITIVE);
    let (step, batch) = if rate < demand * (1.0 - 1e-9) {
        lowered(clock, load, decode, slow, rate / nd_f)
    } else {
        (decode.step, decode.batch)
    };
    kv.decode_s = slow * batch;
    let seconds = step.seconds + kv.decode_s;
    let binding = if rate == asked {
        Binding::None
    } else if wire < supply.min(demand) {
        Binding::Bandwidth(Link::of(pair.near))
    } else if supply < demand * (1.0 - 1e-9) {
        Binding::PrefillRate
    } else {
        Binding::None
    };
    let decode_share = step.work.times(decoded(lib, load.osl) / progress / (batch * d.ranks()).max(1e-12));
    let again = first_token(lib) == FirstToken::DecodeStep;
    // The rest of the step in flight; its own first step is among those that hold a seat.
    let (joins, first) = if again { (0.5 * seconds, seconds) } else { (0.0, 0.0) };
    let beside = d.ranks() * d.stages_in_flight() * batch;
    let path = path::pair(lib, load.prompt(), &Met::one(seconds, (beside - 1.0).clamp(0.0, 1.0), 0.0));
    let waits = joins + path.total_s();
    SteadyState {
        ttft_s: ttft + waits + first,
        tpot_s: seconds / progress,
        itl_worst_s: seconds,
        requests_per_s: rate,
        concurrency: nd_f * beside + rate * (ttft + waits),
        memory_bytes: memory,
        binding,
        evidence: ByPhase { ttft: prompt_known(prefill, wait, joins + first, &step), tpot: Known::of(&decode_share) },
        decode_batch: batch,
        kv,
        path,
    }
}

/// What is known of TTFT: the operators of a prefill round, the wait for KV, which no table holds, and those of the
/// decode steps that it waits for.
fn prompt_known(prefill: &PrefillSide, wait_s: f64, decode_s: f64, step: &StepTime) -> Known {
    let p = &prefill.prefill;
    let mut work = p.work;
    // On the scale of the operators: of pipelined rounds more is at work than time passes.
    let scale = work.seconds / p.latency_s.max(f64::MIN_POSITIVE);
    work.by_evidence[Evidence::Extrapolated as usize] += wait_s * scale;
    work = work.plus(&step.work.times(decode_s * scale / step.work.seconds.max(f64::MIN_POSITIVE)));
    Known::of(&work.times(1.0 / p.requests.max(1e-12)))
}

/// The batch at which one decode worker gives `rate`, found from above by false position (Illinois):
/// rate grows with the batch, less and less. `slow`: seconds that KV on its way adds to a step per sequence.
fn lowered<S: StepClock>(clock: &S, load: &Load, full: &DecodeSide, slow: f64, rate: f64) -> (StepTime, f64) {
    let d = clock.engine();
    let (mut low, mut low_gap) = (0.0, -rate);
    let full_s = full.step.seconds;
    let (mut high, mut high_gap) = (full.batch, full.rate * full_s / (full_s + slow * full.batch) - rate);
    let mut step = full.step;
    let mut kept = 0;
    for _ in 0..24 {
        let b = low + (high - low) * (-low_gap / (high_gap - low_gap)).clamp(0.02, 0.98);
        let s = decode_step(clock, load, b);
        let gap = decode_rate(d, load, b, s.seconds + slow * b) - rate;
        if gap >= 0.0 {
            (high, high_gap, step) = (b, gap, s);
            low_gap *= if kept > 0 { 0.5 } else { 1.0 };
            kept = 1;
        } else {
            (low, low_gap) = (b, gap);
            high_gap *= if kept < 0 { 0.5 } else { 1.0 };
            kept = -1;
        }
        if high_gap.abs() < 1e-3 * rate || high - low < 1e-3 * high {
            break;
        }
    }
    (step, high)
}

/// Whether KV stays inside scale-up domains: the whole deployment sits in one, or equal shares of both
/// sides fill several, each of which pairs its own.
pub(crate) fn same_domain(p: &StepEngine, np: u32, d: &StepEngine, nd: u32, domain: u32) -> bool {
    let total = u64::from(np) * u64::from(p.gpus()) + u64::from(nd) * u64::from(d.gpus());
    let racks = total.div_ceil(u64::from(domain.max(1))).max(1);
    u64::from(np).is_multiple_of(racks) && u64::from(nd).is_multiple_of(racks) && total <= racks * u64::from(domain)
}
