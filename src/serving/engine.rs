//! A plan compiled for a model, a cluster and a workload: immutable, shared, priced in microseconds.

use std::sync::Arc;

use super::aggregated;
use super::pd::{self, DecodeSide, PrefillSide};
use super::point::{Binding, Load, Point};
use super::stepper::Stepper;
use crate::cost::Library;
use crate::error::{Error, Problems, Result};
use crate::spec::plan::Side;
use crate::spec::{AfdPlan, Plan, Serving, Slot, Workload};

/// What a plan compiles to.
pub enum Compiled {
    /// One stepper that serves prefill and decode, and how many of it.
    Mixed {
        stepper: Stepper,
        replicas: u32,
    },
    Pd {
        prefill: Stepper,
        prefill_count: u32,
        decode: Stepper,
        decode_count: u32,
    },
}

/// A compiled plan.
pub struct Engine {
    pub compiled: Compiled,
    pub load: Load,
    pub workload: Workload,
    /// The plan with every choice made.
    pub plan: Plan,
    pub point: Point,
}

impl Engine {
    /// Compiles and prices a plan; fields left open are chosen (largest feasible batch, best chunk).
    pub fn new(lib: &Arc<Library>, workload: &Workload, plan: &Plan) -> Result<Engine> {
        let mut problems = plan.check(&lib.model, &lib.cluster);
        unmodelled(&mut problems, plan, &lib.serving);
        problems.into_result()?;
        let load = Load::of(workload);
        match plan {
            Plan::Aggregated(a) => {
                let stepper = Stepper::worker(lib, a.parallel, workload, "worker")?;
                let (batch, chunk, point) = choose_mixed(&stepper, &load, a.batch, a.chunk_tokens, a.replicas);
                let mut a = a.clone();
                a.batch = Some(batch);
                a.chunk_tokens = Some(chunk);
                let compiled = Compiled::Mixed { stepper, replicas: a.replicas };
                Ok(Engine { compiled, load, workload: workload.clone(), plan: Plan::Aggregated(a), point })
            }
            Plan::Afd(a) => {
                let ms = choices(a.microbatches);
                let mut best: Option<(Stepper, AfdPlan, Point)> = None;
                for m in ms {
                    let mut tried = a.clone();
                    tried.microbatches = Some(m);
                    let stepper = Stepper::afd(lib, lib, &tried, workload)?;
                    let (batch, chunk, point) = choose_mixed(&stepper, &load, a.batch, a.chunk_tokens, a.units);
                    tried.batch = Some(batch);
                    tried.chunk_tokens = Some(chunk);
                    if best.as_ref().is_none_or(|(_, _, p)| better(&point, p)) {
                        best = Some((stepper, tried, point));
                    }
                }
                let (stepper, a, point) = best.ok_or_else(|| Error::spec("plan.microbatches", "no choice left", ""))?;
                let compiled = Compiled::Mixed { stepper, replicas: a.units };
                Ok(Engine { compiled, load, workload: workload.clone(), plan: Plan::Afd(a), point })
            }
            Plan::Pd(pd) => {
                let (prefill, prefill_slot, side, np) = choose_prefill(lib, workload, &load, &pd.prefill)?;
                let (decode, decode_slot, nd, d) = choose_decode(lib, workload, &load, &pd.decode)?;
                let point = pd::combine(&prefill, &side, np, &decode, &d, nd, &load);
                let plan = Plan::Pd(crate::spec::PdPlan { prefill: prefill_slot, decode: decode_slot });
                let compiled = Compiled::Pd { prefill, prefill_count: np, decode, decode_count: nd };
                Ok(Engine { compiled, load, workload: workload.clone(), plan, point })
            }
        }
    }

    pub fn library(&self) -> &Arc<Library> {
        match &self.compiled {
            Compiled::Mixed { stepper, .. } => stepper.library(),
            Compiled::Pd { decode, .. } => decode.library(),
        }
    }

    /// GPUs that the plan uses.
    pub fn gpus(&self) -> u32 {
        match &self.compiled {
            Compiled::Mixed { stepper, replicas } => stepper.gpus() * replicas,
            Compiled::Pd { prefill, prefill_count, decode, decode_count } => {
                prefill.gpus() * prefill_count + decode.gpus() * decode_count
            }
        }
    }

    /// Output tokens per second of the whole deployment.
    pub fn tokens_per_s(&self) -> f64 {
        self.point.requests_per_s * self.load.osl
    }
}

/// Options that specs can say and this version cannot price yet: refused rather than ignored.
pub fn unmodelled(problems: &mut Problems, plan: &Plan, serving: &Serving) {
    unmodelled_serving(problems, serving);
    let mut afd = |path: &str, a: &AfdPlan| {
        for (field, side) in [("router", a.router), ("dense", a.dense)] {
            if side == Side::Ffn {
                problems.push(format!("{path}.{field}"), "on the FFN side is not modelled yet", "use 'attention'");
            }
        }
        if a.placement.is_some() {
            problems.push(format!("{path}.placement"), "by hand is not modelled yet", "leave it out: pools are packed");
        }
        for (pool, p) in [("attention", &a.attention), ("ffn", &a.ffn)] {
            if p.device.is_some() {
                let hint = "leave it out, or change the cluster's device";
                problems.push(format!("{path}.{pool}.device"), "hardware of one pool is not modelled yet", hint);
            }
        }
    };
    match plan {
        Plan::Aggregated(_) => {}
        Plan::Afd(a) => afd("plan", a),
        Plan::Pd(pd) => {
            for (slot, s) in [("plan.prefill", &pd.prefill), ("plan.decode", &pd.decode)] {
                if let Slot::Afd(a) = s {
                    afd(slot, a);
                }
            }
        }
    }
}

/// The same for the way of serving.
pub fn unmodelled_serving(problems: &mut Problems, serving: &Serving) {
    for (field, on) in [
        ("eplb_slots", serving.eplb_slots > 0),
        ("two_batch_overlap", serving.two_batch_overlap),
        ("fused_dispatch", serving.fused_dispatch),
    ] {
        if on {
            problems.push(format!("serving.{field}"), "is not modelled yet", "leave it out");
        }
    }
}

fn better(a: &Point, b: &Point) -> bool {
    match (a.stands(), b.stands()) {
        (true, false) => true,
        (false, true) => false,
        _ => a.requests_per_s > b.requests_per_s,
    }
}

fn choices(m: Option<u32>) -> Vec<u32> {
    m.map_or_else(|| (1..=4).collect(), |m| vec![m])
}

/// Batches tried when the user leaves the batch open: dense at the small end, then by eighths.
pub fn batch_grid(most: f64) -> Vec<u32> {
    let mut grid = Vec::new();
    let mut b: u32 = 1;
    let most = most.min(4096.0);
    while f64::from(b) <= most {
        grid.push(b);
        b += match b {
            0..16 => 1,
            16..32 => 2,
            32..64 => 4,
            64..128 => 8,
            128..256 => 16,
            256..512 => 32,
            _ => 128,
        };
    }
    grid
}

/// Most sequences per rank that any pool of the stepper holds with `tokens` in flight.
pub fn most_sequences(s: &Stepper, tokens: f64) -> f64 {
    s.memory().iter().map(|m| m.sequences(tokens)).fold(f64::INFINITY, f64::min)
}

/// Chunk budgets worth trying for a batch: the prompt in 1, 2, 3, 4, 6, 8, 12, 16, 32 pieces beside the decode tokens.
pub fn chunk_grid(load: &Load, batch: u32, per_decode: f64) -> Vec<u32> {
    let mut grid: Vec<u32> = [1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 32.0]
        .iter()
        .map(|n| (load.isl / n).ceil().max(1.0))
        .filter(|piece| *piece >= 16.0 || *piece >= load.isl)
        .map(|piece| (piece + f64::from(batch) * per_decode).min(4e9) as u32)
        .collect();
    // Several prompts in one step: a budget above one prompt only matters when prompts come faster
    // than one an iteration, that is from OSL - 1 decoding sequences on.
    for n in [2.0, 4.0, 8.0] {
        if n * load.isl <= 32_768.0 && f64::from(batch) > 0.5 * n * (load.osl - 1.0) {
            grid.push((n * load.isl + f64::from(batch) * per_decode) as u32);
        }
    }
    grid.sort_unstable();
    grid.dedup();
    grid
}

fn choose_mixed(s: &Stepper, load: &Load, batch: Option<u32>, chunk: Option<u32>, replicas: u32) -> (u32, u32, Point) {
    let per_decode = 1.0 + f64::from(s.library().serving.mtp);
    let most = most_sequences(s, load.isl.min(8192.0)).max(1.0);
    let batches = batch.map_or_else(|| batch_grid(most), |b| vec![b]);
    let mut best: Option<(u32, u32, Point)> = None;
    for b in batches {
        let chunks = chunk.map_or_else(|| chunk_grid(load, b, per_decode), |c| vec![c]);
        for c in chunks {
            let p = aggregated::solve(s, load, f64::from(b), f64::from(c), replicas);
            if best.as_ref().is_none_or(|(_, _, q)| better(&p, q)) {
                best = Some((b, c, p));
            }
        }
    }
    best.unwrap_or((1, 1, Point::unplaced(Binding::Divisibility, 0.0)))
}

fn choose_prefill(
    lib: &Arc<Library>,
    w: &Workload,
    load: &Load,
    slot: &Slot,
) -> Result<(Stepper, Slot, PrefillSide, u32)> {
    match slot {
        Slot::Workers(k) => {
            let s = Stepper::worker(lib, k.parallel, w, "worker")?;
            let chunk = k.chunk_tokens.map_or(load.isl.min(16384.0).ceil(), f64::from);
            let side = pd::prefill_side(&s, load, f64::from(k.batch.unwrap_or(1)), chunk);
            let mut k = k.clone();
            k.batch = Some(k.batch.unwrap_or(1));
            k.chunk_tokens = Some(chunk as u32);
            let n = k.count;
            Ok((s, Slot::Workers(k), side, n))
        }
        Slot::Afd(a) => {
            let mut a = a.clone();
            let m = a.microbatches.unwrap_or(4);
            a.microbatches = Some(m);
            let sequences = f64::from(a.batch.unwrap_or(1));
            // Whole tokens: what the plan says is what is priced.
            let piece = (load.isl * sequences / f64::from(m)).min(load.isl).ceil().max(1.0);
            let chunk = a.chunk_tokens.map_or(piece, f64::from);
            a.batch = Some(sequences as u32);
            a.chunk_tokens = Some(chunk as u32);
            let s = Stepper::afd(lib, lib, &a, w)?;
            let side = pd::prefill_side(&s, load, sequences, chunk);
            let n = a.units;
            Ok((s, Slot::Afd(a), side, n))
        }
    }
}

fn choose_decode(
    lib: &Arc<Library>,
    w: &Workload,
    load: &Load,
    slot: &Slot,
) -> Result<(Stepper, Slot, u32, DecodeSide)> {
    let pick = |s: &Stepper, batch: Option<u32>| {
        let grid = batch.map_or_else(|| batch_grid(most_sequences(s, 1.0).max(1.0)), |b| vec![b]);
        let mut best: Option<DecodeSide> = None;
        for b in grid {
            let d = pd::decode_side(s, load, f64::from(b));
            let wins = best
                .as_ref()
                .is_none_or(|q| (q.short.is_some() && d.short.is_none()) || (d.short.is_none() && d.rate > q.rate));
            if wins {
                best = Some(d);
            }
        }
        best
    };
    let none = || Error::spec("plan.decode.batch", "no batch fits", "");
    match slot {
        Slot::Workers(k) => {
            let s = Stepper::worker(lib, k.parallel, w, "worker")?;
            let d = pick(&s, k.batch).ok_or_else(none)?;
            let mut k = k.clone();
            k.batch = Some(d.batch as u32);
            let n = k.count;
            Ok((s, Slot::Workers(k), n, d))
        }
        Slot::Afd(a) => {
            let mut best: Option<(Stepper, AfdPlan, DecodeSide)> = None;
            for m in choices(a.microbatches) {
                let mut tried = a.clone();
                tried.microbatches = Some(m);
                let s = Stepper::afd(lib, lib, &tried, w)?;
                if let Some(d) = pick(&s, a.batch) {
                    tried.batch = Some(d.batch as u32);
                    if best.as_ref().is_none_or(|(_, _, q)| d.short.is_none() && d.rate > q.rate) {
                        best = Some((s, tried, d));
                    }
                }
            }
            let (s, a, d) = best.ok_or_else(none)?;
            let n = a.units;
            Ok((s, Slot::Afd(a), n, d))
        }
    }
}
