//! A plan compiled for a model, a cluster and a workload: immutable, shared, priced in microseconds.
//!
//! Limit: one steady state; warm-up, drain and changes of load are the simulator's.

use std::sync::Arc;

use super::aggregated;
use super::cadence;
use super::choose;
use super::defaults;
use super::pd::{self, DecodeSide, PrefillSide, Several};
use super::steady_state::{Binding, Load, SteadyState};
use super::step_engine::StepEngine;
use crate::cost::Library;
use crate::error::{Error, Problems, Result};
use crate::spec::assumptions::{Activations, OutOfMemory};
use crate::spec::{AfdPlan, Assumptions, Duplex, Imbalance, Model, Plan, Serving, Slot, Workload};
use crate::units::GIB;

/// What a plan compiles to.
pub enum Compiled {
    /// One step engine that serves prefill and decode, and how many of it.
    Mixed {
        engine: StepEngine,
        replicas: u32,
    },
    Pd {
        prefill: StepEngine,
        prefill_count: u32,
        decode: Box<StepEngine>,
        decode_count: u32,
    },
}

/// A compiled plan.
pub struct Engine {
    /// What was asked; a role on hardware of its own has another.
    lib: Arc<Library>,
    pub compiled: Compiled,
    pub load: Load,
    pub workload: Workload,
    /// The plan with every choice made.
    pub plan: Plan,
    pub point: SteadyState,
    /// Requests per second of an open loop, and the wait for prefill that they bring.
    pub open_loop: Option<(f64, f64)>,
    /// Requests per second that the prefill slots of P/D would take on their own.
    pub prefill_rate: Option<f64>,
}

impl Engine {
    /// Compiles and prices a plan; fields left open are chosen (largest feasible batch, best chunk).
    pub fn new(lib: &Arc<Library>, workload: &Workload, plan: &Plan) -> Result<Engine> {
        let engine = Engine::compile(lib, workload, plan)?;
        if let (Binding::Memory(pool), OutOfMemory::Error) = (engine.point.binding, lib.assumptions.out_of_memory) {
            let gib = |bytes: f64| format!("{:.1} GiB", bytes / GIB);
            let (needed, has) = (gib(engine.point.memory_bytes), gib(lib.cluster.device.hbm_bytes));
            return Err(Error::spec(
                "plan",
                format!("out of memory: {} needs {needed} of {has}", pool.name()),
                "more TP, EP or GPUs, a smaller batch, narrower formats, or out_of_memory='unplaced'",
            ));
        }
        Ok(engine)
    }

    fn compile(lib: &Arc<Library>, workload: &Workload, plan: &Plan) -> Result<Engine> {
        let mut problems = plan.check(&lib.model, &lib.cluster);
        contradictions(&mut problems, plan, lib);
        problems.into_result()?;
        let load = Load::of(workload);
        let done = |compiled, plan, point, prefill_rate| Engine {
            lib: lib.clone(),
            compiled,
            load,
            workload: workload.clone(),
            plan,
            point,
            open_loop: None,
            prefill_rate,
        };
        match plan {
            Plan::Aggregated(a) => {
                let engine = StepEngine::overlapping(lib, a.parallel, a.two_batch_overlap, workload)?;
                let found =
                    choose::mixed_paced(&[&engine], &load, a.batch, a.chunk_tokens, a.replicas, a.prefill_interval);
                let mut a = a.clone();
                a.batch = Some(found.batch);
                a.chunk_tokens = Some(found.chunk);
                let every = aggregated::interval(&engine, a.prefill_interval);
                a.prefill_interval = (every > 1 || a.prefill_interval.is_some()).then_some(every);
                let compiled = Compiled::Mixed { engine, replicas: a.replicas };
                Ok(done(compiled, Plan::Aggregated(a), found.point, None))
            }
            Plan::Afd(a) => {
                let mut a = a.clone();
                let open = choose::microbatches(a.microbatches);
                let mut engines = Vec::with_capacity(open.len());
                for m in &open {
                    a.microbatches = Some(*m);
                    engines.push(StepEngine::afd(lib, &a, workload)?);
                }
                let refs: Vec<&StepEngine> = engines.iter().collect();
                let found = choose::mixed_paced(&refs, &load, a.batch, a.chunk_tokens, a.units, a.prefill_interval);
                a.microbatches = Some(open[found.engine]);
                a.batch = Some(found.batch);
                a.chunk_tokens = Some(found.chunk);
                let engine = engines.swap_remove(found.engine);
                let every = aggregated::interval(&engine, a.prefill_interval);
                a.prefill_interval = (every > 1 || a.prefill_interval.is_some()).then_some(every);
                let compiled = Compiled::Mixed { engine, replicas: a.units };
                Ok(done(compiled, Plan::Afd(a), found.point, None))
            }
            Plan::Pd(pd) => {
                let (prefill, prefill_slot, side, np) = choose_prefill(lib, workload, &load, &pd.prefill)?;
                let (decode, decode_slot, nd, d) = choose_decode(lib, workload, &load, &pd.decode)?;
                let point = pd::combine(Several::of(&prefill, &side, np), Several::of(&decode, &d, nd), &load);
                let plan = Plan::Pd(crate::spec::PdPlan { prefill: prefill_slot, decode: decode_slot });
                let compiled = Compiled::Pd { prefill, prefill_count: np, decode: Box::new(decode), decode_count: nd };
                Ok(done(compiled, plan, point, Some(side.rate * f64::from(np))))
            }
        }
    }

    pub fn library(&self) -> &Arc<Library> {
        &self.lib
    }

    /// GPUs that the plan uses.
    pub fn gpus(&self) -> u32 {
        match &self.compiled {
            Compiled::Mixed { engine, replicas } => engine.gpus() * replicas,
            Compiled::Pd { prefill, prefill_count, decode, decode_count } => {
                prefill.gpus() * prefill_count + decode.gpus() * decode_count
            }
        }
    }

    /// Steps between two that let prompts in (1 in P/D, whose decode sees none).
    pub fn prefill_interval(&self) -> u32 {
        match &self.plan {
            Plan::Aggregated(a) => a.prefill_interval.unwrap_or(1),
            Plan::Afd(a) => a.prefill_interval.unwrap_or(1),
            Plan::Pd(_) => 1,
        }
    }

    /// Output tokens per second of the whole deployment.
    pub fn tokens_per_s(&self) -> f64 {
        self.point.requests_per_s * self.load.osl
    }
}

/// What a way of serving, its plan and its hardware cannot have together.
pub(crate) fn contradictions(problems: &mut Problems, plan: &Plan, lib: &Library) {
    for role in plan.hardware() {
        if let Some(device) = role.device {
            problems.nest(&role.path, lib.quant.check_on(&lib.model.quant, device));
        }
    }
    let mut afd = |path: &str, a: &AfdPlan| {
        published_units(problems, path, a, &lib.assumptions);
        if lib.serving.fused_dispatch && a.duplex == Duplex::Half {
            let message = "a fused dispatch sends while F2A receives, half duplex forbids it";
            problems.push(format!("{path}.duplex"), message, "duplex='full', or fused_dispatch=False");
        }
    };
    let units = match plan {
        Plan::Aggregated(_) => Vec::new(),
        Plan::Afd(a) => vec![("plan", a)],
        Plan::Pd(pd) => [("plan.prefill", &pd.prefill), ("plan.decode", &pd.decode)]
            .into_iter()
            .filter_map(|(path, s)| if let Slot::Afd(a) = s { Some((path, a)) } else { None })
            .collect(),
    };
    units.iter().for_each(|(path, a)| afd(path, a));
    cadence::check(problems, Some(plan), &lib.serving, lib.framework);
    problems.nest("", plan.check_blocks(&lib.model, &lib.formats));
    contradictions_of(problems, &lib.model, &lib.serving);
    if lib.serving.memory_fraction.is_some() && lib.assumptions.activations != Activations::AliveRows {
        let message = "published formulas fill the whole device";
        problems.push("serving.memory_fraction", message, "leave it out, or activations='alive-rows'");
    }
}

/// Published formulas know one attention pool and one stage a unit: the switches that stand for them, by name.
fn published_units(problems: &mut Problems, path: &str, a: &AfdPlan, assumptions: &Assumptions) {
    let groups = Assumptions::OF_ONE_GROUP;
    for (field, value, switches) in [("attention_groups", a.attention_groups, &groups[..]), ("pp", a.pp, &groups[..2])]
    {
        if value == 1 {
            continue;
        }
        let set = assumptions.diff(&Assumptions::physical());
        for (name, now, own) in set.iter().filter(|(name, ..)| switches.contains(name)) {
            let text = |v: &serde_json::Value| v.to_string().replace('"', "'");
            let message = format!("{name}={} has no formula for {value}", text(now));
            problems.push(format!("{path}.{field}"), message, format!("{field}=1, or {name}={}", text(own)));
        }
    }
}

/// The same for the way of serving alone.
pub(crate) fn contradictions_of(problems: &mut Problems, model: &Model, serving: &Serving) {
    if serving.eplb_slots > 0 && model.moe.is_none() {
        problems.push("serving.eplb_slots", format!("{} has no experts to copy", model.name), "leave it out");
    }
    if let Some(Imbalance::Histogram(loads)) = &serving.imbalance {
        let experts = model.moe.as_ref().map_or(0, |m| m.experts as usize);
        if loads.len() != experts {
            let message = format!("has {} loads, {} has {experts} experts", loads.len(), model.name);
            problems.push("serving.imbalance", message, "one number an expert");
        }
    }
}

pub(super) fn choose_prefill(
    lib: &Arc<Library>,
    w: &Workload,
    load: &Load,
    slot: &Slot,
) -> Result<(StepEngine, Slot, PrefillSide, u32)> {
    let w = &w.prefill_part();
    match slot {
        Slot::Workers(k) => {
            let lib = &lib.on(k.device.as_ref())?;
            let s = StepEngine::overlapping(lib, k.parallel, k.two_batch_overlap, w)?;
            let budget = defaults::budget(lib, &k.parallel);
            let chunk = k.chunk_tokens.map_or(load.isl.min(budget).ceil(), f64::from);
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
            let s = StepEngine::afd(lib, &a, w)?;
            let side = pd::prefill_side(&s, load, sequences, chunk);
            let n = a.units;
            Ok((s, Slot::Afd(a), side, n))
        }
    }
}

pub(super) fn choose_decode(
    lib: &Arc<Library>,
    w: &Workload,
    load: &Load,
    slot: &Slot,
) -> Result<(StepEngine, Slot, u32, DecodeSide)> {
    let pick = |s: &StepEngine, batch: Option<u32>| {
        let grid = batch.map_or_else(|| choose::batch_grid(choose::most_sequences(s, 1.0).max(1.0)), |b| vec![b]);
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
            let s = StepEngine::overlapping(&lib.on(k.device.as_ref())?, k.parallel, k.two_batch_overlap, w)?;
            let d = pick(&s, k.batch).ok_or_else(none)?;
            let mut k = k.clone();
            k.batch = Some(d.batch as u32);
            let n = k.count;
            Ok((s, Slot::Workers(k), n, d))
        }
        Slot::Afd(a) => {
            let mut best: Option<(StepEngine, AfdPlan, DecodeSide)> = None;
            for m in choose::microbatches(a.microbatches) {
                let mut tried = a.clone();
                tried.microbatches = Some(m);
                let s = StepEngine::afd(lib, &tried, w)?;
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
