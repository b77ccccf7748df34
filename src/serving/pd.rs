//! Prefill and decode on different steppers (workers or AFD units), whole numbers of each.
//!
//! rate = min(nP mu_P, nD mu_D); the decode batch is lowered to what the rate needs. TTFT = the
//! prompt's own chunks + the KV transfer that is not hidden: layer-wise
//! max(0, t_x - t_compute)(L-1) + t_x of the last layer, or the whole in bulk. The first token
//! leaves after its KV has arrived (or, by switch, from the prefill worker). The NICs of the
//! smaller side bound the rate of transfers. Source: physics.md section 5.

use super::point::{Binding, Load, Point};
use super::published;
use super::stepper::{self, Prefill, StepTime, Stepper};
use crate::spec::assumptions::{Activations, FirstToken, KvTransfer, TtftQueue, WorkerCorrections};

/// A prefill stepper at one batch and chunk: what it gives per worker.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PrefillSide {
    pub prefill: Prefill,
    /// Requests per second of one worker or unit.
    pub rate: f64,
    pub memory_bytes: f64,
    pub short: Option<&'static str>,
}

/// A decode stepper at its full batch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DecodeSide {
    pub batch: f64,
    pub step: StepTime,
    /// Requests per second of one worker or unit.
    pub rate: f64,
    pub memory_bytes: f64,
    pub short: Option<&'static str>,
}

/// Prices the prefill slot: `sequences` per rank and round, in chunks of `chunk` tokens.
pub fn prefill_side(s: &Stepper, load: &Load, sequences: f64, chunk: f64) -> PrefillSide {
    let in_flight = match s.library().assumptions.activations {
        Activations::AliveRows => sequences * chunk.min(load.isl),
        Activations::Coefficients => sequences * (load.isl + load.prefix),
    };
    let (short, memory_bytes) = s.memory_check(sequences, in_flight);
    let mut prefill = s.prefill(sequences, load.isl, load.prefix, chunk);
    let mut share = 1.0;
    if corrected(s) {
        prefill.latency_s *= published::PREFILL_CORRECTION;
        prefill.period_s *= published::PREFILL_CORRECTION;
        share = published::PREFILL_SHARE;
    }
    PrefillSide { rate: share * prefill.requests / prefill.period_s, prefill, memory_bytes, short }
}

fn corrected(s: &Stepper) -> bool {
    s.library().assumptions.worker_corrections == WorkerCorrections::Fixed
}

/// A decode step, corrected where the assumptions say so.
fn decode_step(s: &Stepper, load: &Load, batch: f64) -> StepTime {
    let mut step = s.decode(batch, s.slowest_context(batch, load.context));
    if corrected(s) {
        step.seconds *= published::DECODE_CORRECTION;
    }
    step
}

fn decode_rate(s: &Stepper, load: &Load, batch: f64, step_s: f64) -> f64 {
    let progress = 1.0 + s.library().serving.acceptance.unwrap_or(0.0);
    let steps = (load.osl - 1.0) / progress;
    let share = if corrected(s) { published::DECODE_SHARE } else { 1.0 };
    share * s.ranks() * s.stages_in_flight() * batch / (steps.max(1e-9) * step_s)
}

/// Prices the decode slot at `batch` sequences per rank.
pub fn decode_side(s: &Stepper, load: &Load, batch: f64) -> DecodeSide {
    let per_decode = 1.0 + f64::from(s.library().serving.mtp);
    let (short, memory_bytes) = s.memory_check(batch, batch * per_decode);
    let step = decode_step(s, load, batch);
    DecodeSide { batch, step, rate: decode_rate(s, load, batch, step.seconds), memory_bytes, short }
}

/// Seconds of the first token's wait that KV transfer adds.
fn transfer_wait(p: &Stepper, d: &Stepper, load: &Load, side: &PrefillSide, same_domain: bool) -> f64 {
    let lib = p.library();
    let together = side.prefill.together;
    let mut wait = 0.0;
    if lib.assumptions.kv_transfer == KvTransfer::Ignored {
        return wait;
    }
    if load.ship_to_prefill > 0.0 {
        wait += stepper::kv_seconds(p, d, load.ship_to_prefill, together, lib, same_domain).0.seconds;
    }
    if lib.assumptions.first_token_from == FirstToken::Decode {
        let (whole, layer) = stepper::kv_seconds(p, d, load.ship_to_decode, together, lib, same_domain);
        wait += match lib.assumptions.kv_transfer {
            KvTransfer::Bulk | KvTransfer::Ignored => whole.seconds,
            KvTransfer::LayerWise => {
                let layers = f64::from(lib.model.layers);
                let compute = side.prefill.latency_s / layers;
                let streamed = (layer.seconds - compute).max(0.0) * (layers - 1.0) + layer.seconds;
                // A sender may always ship in bulk instead.
                streamed.min(whole.seconds)
            }
        };
    }
    wait
}

/// Requests per second whose KV the NICs (or NVLink) of the smaller side carry.
pub fn wire_rate(p: &Stepper, np: u32, d: &Stepper, nd: u32, load: &Load) -> f64 {
    let lib = p.library();
    if lib.assumptions.kv_transfer == KvTransfer::Ignored {
        return f64::INFINITY;
    }
    let fabric = &lib.cluster.fabric;
    let shipped = lib.model.kv_bytes(load.ship_to_decode + load.ship_to_prefill, lib.formats.kv);
    let near = same_domain(p, np, d, nd, fabric.domain_gpus);
    let speed = if near { fabric.nvlink_bytes_per_s } else { fabric.nic_bytes_per_s };
    let ports = f64::from((np * p.kv_gpus()).min(nd * d.kv_gpus()));
    ports * speed / shipped.max(1.0)
}

/// Steady state of `np` prefill and `nd` decode workers or units.
pub fn combine(
    p: &Stepper,
    prefill: &PrefillSide,
    np: u32,
    d: &Stepper,
    decode: &DecodeSide,
    nd: u32,
    load: &Load,
) -> Point {
    combine_at(p, prefill, np, d, decode, nd, load, f64::INFINITY)
}

/// The same when no more than `asked` requests a second come.
#[allow(clippy::too_many_arguments)]
pub fn combine_at(
    p: &Stepper,
    prefill: &PrefillSide,
    np: u32,
    d: &Stepper,
    decode: &DecodeSide,
    nd: u32,
    load: &Load,
    asked: f64,
) -> Point {
    let memory = prefill.memory_bytes.max(decode.memory_bytes);
    if let Some(pool) = prefill.short {
        return Point::unplaced(Binding::Memory(slot_pool("prefill", pool)), memory);
    }
    if let Some(pool) = decode.short {
        return Point::unplaced(Binding::Memory(slot_pool("decode", pool)), memory);
    }
    let lib = p.library();
    let (np_f, nd_f) = (f64::from(np), f64::from(nd));
    let same_domain = same_domain(p, np, d, nd, lib.cluster.fabric.domain_gpus);
    let queue = match lib.assumptions.ttft_queue {
        TtftQueue::None => 1.0,
        TtftQueue::Factors => published::PD_TTFT_FACTOR,
    };
    let ttft = queue * prefill.prefill.latency_s + transfer_wait(p, d, load, prefill, same_domain);
    let supply = np_f * prefill.rate;
    let progress = 1.0 + lib.serving.acceptance.unwrap_or(0.0);
    if load.osl <= 1.0 {
        return Point {
            ttft_s: ttft,
            tpot_s: 0.0,
            itl_worst_s: 0.0,
            requests_per_s: supply.min(asked),
            concurrency: np_f * prefill.prefill.requests * (asked / supply).min(1.0),
            memory_bytes: memory,
            binding: Binding::PrefillRate,
            evidence: prefill.prefill.work,
            decode_batch: 0.0,
        };
    }
    let wire = wire_rate(p, np, d, nd, load);
    let demand = nd_f * decode.rate;
    let rate = supply.min(demand).min(wire).min(asked);
    let (step, batch) =
        if rate < demand * (1.0 - 1e-9) { lowered(d, load, decode, rate / nd_f) } else { (decode.step, decode.batch) };
    let binding = if rate == asked {
        Binding::None
    } else if wire < supply.min(demand) {
        Binding::Bandwidth(if same_domain { "nvlink" } else { "nic" })
    } else if supply < demand * (1.0 - 1e-9) {
        Binding::PrefillRate
    } else {
        Binding::None
    };
    let prefill_share = prefill.prefill.work.times(1.0 / (prefill.prefill.requests.max(1e-12)));
    let decode_share = step.work.times((load.osl - 1.0) / progress / (batch * d.ranks()).max(1e-12));
    Point {
        ttft_s: ttft,
        tpot_s: step.seconds / progress,
        itl_worst_s: step.seconds,
        requests_per_s: rate,
        concurrency: nd_f * d.ranks() * d.stages_in_flight() * batch + rate * ttft,
        memory_bytes: memory,
        binding,
        evidence: prefill_share.plus(&decode_share),
        decode_batch: batch,
    }
}

/// The batch at which one decode worker gives `rate`, found from above by false position (Illinois):
/// rate grows with the batch, less and less.
fn lowered(d: &Stepper, load: &Load, full: &DecodeSide, rate: f64) -> (StepTime, f64) {
    let (mut low, mut low_gap) = (0.0, -rate);
    let (mut high, mut high_gap) = (full.batch, full.rate - rate);
    let mut step = full.step;
    let mut kept = 0;
    for _ in 0..24 {
        let b = low + (high - low) * (-low_gap / (high_gap - low_gap)).clamp(0.02, 0.98);
        let s = decode_step(d, load, b);
        let gap = decode_rate(d, load, b, s.seconds) - rate;
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
fn same_domain(p: &Stepper, np: u32, d: &Stepper, nd: u32, domain: u32) -> bool {
    let total = u64::from(np) * u64::from(p.gpus()) + u64::from(nd) * u64::from(d.gpus());
    let racks = total.div_ceil(u64::from(domain.max(1))).max(1);
    u64::from(np).is_multiple_of(racks) && u64::from(nd).is_multiple_of(racks) && total <= racks * u64::from(domain)
}

/// Name of a pool inside a slot, for `memory:<pool>`.
fn slot_pool(slot: &'static str, pool: &'static str) -> &'static str {
    match (slot, pool) {
        ("prefill", "attention") => "prefill.attention",
        ("prefill", "ffn") => "prefill.ffn",
        ("prefill", _) => "prefill",
        (_, "attention") => "decode.attention",
        (_, "ffn") => "decode.ffn",
        _ => "decode",
    }
}
