//! What an engine says about its plan: scalars, memory, where the time goes, how well it is known.

mod tables;

pub use self::tables::breakdown_columns;
use super::aggregated;
use super::defaults;
use super::domain_fit;
use super::engine::{Compiled, Engine};
use super::operators::{kv_rows, prefill_rows, step_rows};
use super::phase::StepKind;
use super::queueing;
use super::residuals::tpot_interval;
use super::steady_state::Binding;
use super::step_engine::{EngineKind, StepEngine, StepTime, Unit};
use super::timeline::{Bar, Stage};
use crate::cost::program::Ffn;
use crate::cost::{Batch, Item, Memory};
use crate::error::{Error, Result};
use crate::kernels::{CLASSES, Evidence};
use crate::spec::{Framework, PdPlan, Plan, PlanPool, Role, Rules, Slot};
use crate::units::GIB;

pub use super::operators::BreakdownRow;

/// One line of the memory table.
#[derive(Clone, Debug)]
pub struct MemoryRow {
    pub pool: PlanPool,
    pub item: Item,
    pub gib: f64,
}

/// Stage times of one micro-batch at one MoE layer.
#[derive(Clone, Debug)]
pub struct StageRow {
    pub phase: StepKind,
    pub stage: Stage,
    pub ms: f64,
    /// Share of the step during which the stage's resource is busy.
    pub utilization: f64,
}

/// One stage at work: of one micro-batch at one layer, over a stretch of the schedule.
#[derive(Clone, Debug)]
pub struct BarRow {
    pub phase: StepKind,
    pub bar: Bar,
}

/// Scalars of an estimate; frames beside them.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Scalars {
    pub level: String,
    pub model: String,
    pub system: String,
    pub framework: Framework,
    pub workload: String,
    pub feasible: bool,
    pub binding: String,
    pub ttft_ms: f64,
    /// Of which: the wait for prefill under an open load; 0 in a closed loop.
    pub wait_ms: f64,
    /// The queueing formula behind it; none in a closed loop.
    pub queueing: Option<&'static str>,
    pub tpot_ms: f64,
    /// Lower and upper end of the interval that holds a measured TPOT with a chance of 80 %, and what it rests on.
    pub tpot_interval_ms: [f64; 2],
    pub tpot_interval_from: String,
    pub itl_worst_ms: f64,
    pub requests_per_s: f64,
    pub tokens_per_s: f64,
    pub tokens_per_s_per_gpu: f64,
    pub tokens_per_s_per_user: f64,
    pub concurrency: f64,
    pub gpus: u32,
    pub gpus_used: u32,
    pub usd_per_mtok: f64,
    pub watts: f64,
    /// Energy per output token at full board power.
    pub joules_per_token: f64,
    pub context_exceeded: bool,
    /// Whether a released server starts the plan, which one, and the rules that it breaks.
    #[serde(flatten)]
    pub verdict: crate::spec::Verdict,
    pub memory_gib: f64,
    /// KV tokens that fit one attention rank as its server is set up, whatever the plan's batch.
    pub kv_tokens: f64,
    /// Requests of the workload's lengths that fit the deployment.
    pub max_sequences: f64,
    pub decode_batch: f64,
    /// Shares of operator time behind TTFT and behind TPOT (empty where nothing is decoded).
    pub evidence_ttft: Shares,
    pub evidence_tpot: Shares,
    /// Both together: a request's prefill and its decode steps, or the mean step of a mixed plan.
    pub evidence: Shares,
    /// As `evidence`, of computing alone.
    pub compute_evidence: Shares,
    /// Measured or interpolated share of the less known of the two latencies, and the same of computing alone.
    pub measured_share: f64,
    pub compute_measured_share: f64,
    pub lanes: Vec<String>,
    /// Number formats in force, and where each comes from.
    pub formats: std::collections::BTreeMap<&'static str, String>,
    pub warnings: Vec<String>,
}

/// An estimate: single values and tables. What it is of, the engine says: its plan with every choice made, and its
/// library with the assumptions.
pub struct Estimate {
    pub scalars: Scalars,
    pub tables: Tables,
}

/// Where memory and time go.
#[derive(Clone, Debug, Default)]
pub struct Tables {
    pub memory: Vec<MemoryRow>,
    pub breakdown: Vec<BreakdownRow>,
    pub pipeline: Vec<StageRow>,
    pub timeline: Vec<BarRow>,
}

/// Shares by the name of the class.
pub type Shares = std::collections::BTreeMap<&'static str, f64>;

/// A step, or a round of prompts, that a plan is told by.
struct ToldStep<'a> {
    kind: StepKind,
    engine: &'a StepEngine,
    batches: Vec<Batch>,
}

const KINDS: [Evidence; CLASSES] =
    [Evidence::Measured, Evidence::Interpolated, Evidence::Scaled, Evidence::Extrapolated, Evidence::Roofline];

/// Shares of each evidence class, `scaled` only where there is any; empty where there is no time at all.
pub fn shares(seconds: &[f32; CLASSES]) -> Shares {
    let all: f64 = seconds.iter().copied().map(f64::from).sum();
    let share = |e: Evidence| (e.name(), f64::from(seconds[e as usize]) / all);
    let told = |e: &Evidence| *e != Evidence::Scaled || seconds[*e as usize] > 0.0;
    if all > 0.0 { KINDS.into_iter().filter(told).map(share).collect() } else { Shares::new() }
}

fn stage_rows(s: &StepEngine, phase: StepKind, batch: &Batch) -> Vec<StageRow> {
    let EngineKind::Afd(u) = &s.kind else { return Vec::new() };
    let parts = u.parts(batch);
    parts
        .first()
        .map_or_else(Vec::new, |first| stages_of(u, phase, first, parts.len(), u.step(batch, u.overlapped).seconds))
}

/// A stretch of the schedule of these micro-batches.
fn bar_rows(s: &StepEngine, phase: StepKind, parts: &[Batch]) -> Vec<BarRow> {
    let EngineKind::Afd(u) = &s.kind else { return Vec::new() };
    let bars = u.with_rows(parts, |rows, _| u.sequence.stretch(rows));
    bars.into_iter().map(|bar| BarRow { phase, bar }).collect()
}

/// The micro-batches of a step; none without a pipeline.
fn parts_of(s: &StepEngine, batch: &Batch) -> Vec<Batch> {
    if let EngineKind::Afd(u) = &s.kind { u.parts(batch) } else { Vec::new() }
}

/// Stages of the middle chunk of a prefill round.
fn prefill_stages(s: &StepEngine, parts: &[Batch]) -> Vec<StageRow> {
    let EngineKind::Afd(u) = &s.kind else { return Vec::new() };
    let middle = parts.get(parts.len() / 2);
    middle.map_or_else(Vec::new, |b| {
        stages_of(u, StepKind::Prefill, b, parts.len(), u.schedule(parts, u.overlapped).seconds)
    })
}

/// Stage times of micro-batch `b`, one of `parts` like it in a pass of `step` seconds.
fn stages_of(u: &Unit, phase: StepKind, b: &Batch, parts: usize, step: f64) -> Vec<StageRow> {
    let mixer = u.program().first_with(Ffn::Experts);
    let times = u.unit.stages(b, mixer).seconds(u.fused(&vec![*b; parts.max(1)]));
    let layers = u.program().layers_with(Ffn::Experts);
    Stage::ALL
        .iter()
        .zip(times)
        .map(|(&stage, seconds)| {
            // A group's own resources serve its micro-batches, the FFN pool those of all groups.
            let groups = if stage == Stage::Ffn { f64::from(u.unit.groups) } else { 1.0 };
            let utilization = (seconds * layers * groups * parts as f64 / step).min(1.0);
            StageRow { phase, stage, ms: seconds * 1e3, utilization }
        })
        .collect()
}

fn memory_rows(slot: Role, s: &StepEngine, sequences: f64, tokens: f64) -> Vec<MemoryRow> {
    let rows = |m: &Memory| {
        let pool = PlanPool { slot, pool: m.pool };
        let items = m.items(sequences, tokens).into_iter();
        items.map(move |i| MemoryRow { pool, item: i.item, gib: i.bytes / GIB })
    };
    s.memory().iter().flat_map(rows).collect()
}

impl Engine {
    fn decode_batch(&self) -> Batch {
        let lib = self.library();
        let n = self.point.decode_batch;
        let context = self.step_engine(StepKind::Decode).slowest_context(n, self.load.context);
        Batch::decode(n, context, 1.0 + f64::from(lib.serving.mtp))
    }

    /// The step engine that a step of this kind runs on.
    fn step_engine(&self, kind: StepKind) -> &StepEngine {
        match (&self.compiled, kind) {
            (Compiled::Mixed { engine, .. }, _) => engine,
            (Compiled::Pd { prefill, .. }, StepKind::Prefill) => prefill,
            (Compiled::Pd { decode, .. }, _) => decode,
        }
    }

    /// One step of the plan's engine with its operators.
    ///
    /// `batch` decoding sequences per rank at `context`; `new` prompt tokens over `past` (per rank).
    pub fn step(
        &self,
        kind: StepKind,
        batch: f64,
        context: f64,
        new: f64,
        past: f64,
    ) -> Result<(StepTime, Vec<BreakdownRow>)> {
        let mut problems = crate::Problems::new();
        for (name, value) in [("batch", batch), ("context", context), ("new", new), ("past", past)] {
            if !value.is_finite() || value < 0.0 {
                problems.push(
                    name,
                    format!("{value} is not a number of sequences or tokens"),
                    "give a finite number >= 0",
                );
            }
        }
        let need = |p: &mut crate::Problems, name: &str, value: f64| {
            if value <= 0.0 {
                p.push(name, "must be positive for this kind of step", "");
            }
        };
        if kind != StepKind::Prefill {
            need(&mut problems, "batch", batch);
        }
        if kind != StepKind::Decode {
            need(&mut problems, "new", new);
        }
        problems.into_result()?;
        let mtp = f64::from(self.library().serving.mtp);
        let b = match kind {
            StepKind::Decode => Batch::decode(batch, context, 1.0 + mtp),
            StepKind::Prefill => Batch::prefill(batch.max(1.0), new, past),
            StepKind::Mixed => {
                Batch { per_decode: 1.0 + mtp, decode: batch, context, ..Batch::prefill(1.0, new, past) }
            }
        };
        let s = self.step_engine(kind);
        Ok((s.step(&b), step_rows(s, kind, &b)))
    }

    /// Everything there is to say about the plan.
    ///
    /// # Errors
    /// If the workload is longer than the model's context and asks for an error then.
    pub fn estimate(&self) -> Result<Estimate> {
        Ok(Estimate { scalars: self.scalars()?, tables: self.tables() })
    }

    /// Whether requests of this length may be priced, and how far they go beyond the model's context, in words.
    ///
    /// # Errors
    /// If they go beyond it and the workload asks for an error then.
    pub fn context_exceeded(&self) -> Result<Option<String>> {
        let (peak, most) = (self.workload.peak_tokens(), self.library().model.max_context);
        if peak <= f64::from(most) {
            return Ok(None);
        }
        let text = format!(
            "context_exceeded: {peak:.0} tokens on a model trained for {most}; times beyond the tables are extrapolated"
        );
        if self.workload.strict_context {
            return Err(Error::spec("workload", text, "leave strict_context off to price it all the same"));
        }
        Ok(Some(text))
    }

    /// The steps that a plan is told by: of each its kind, its engine, and its batches (of a prefill round in order).
    fn told(&self) -> Vec<ToldStep<'_>> {
        let mut out = Vec::new();
        if !self.point.stands() {
            return out;
        }
        if self.point.decode_batch > 0.0 {
            let engine = self.step_engine(StepKind::Decode);
            out.push(ToldStep { kind: StepKind::Decode, engine, batches: vec![self.decode_batch()] });
        }
        match &self.compiled {
            Compiled::Mixed { engine, .. } => {
                let (slots, chunk) = self.sizes();
                let chunk = if self.load.osl > 1.0 { chunk } else { chunk.min(slots * self.load.isl) };
                let mixed = aggregated::mixed_batch(engine, &self.load, self.point.decode_batch, chunk);
                out.extend(mixed.map(|m| ToldStep { kind: StepKind::Mixed, engine, batches: vec![m] }));
            }
            Compiled::Pd { prefill: engine, .. } => {
                let (sequences, chunk) = self.sizes();
                let batches = engine.prefill_parts(sequences, self.load.isl, self.load.prefix, chunk);
                out.push(ToldStep { kind: StepKind::Prefill, engine, batches });
            }
        }
        out
    }

    /// Sequences and token budget of a rank where prompts are served.
    fn sizes(&self) -> (f64, f64) {
        let of = |b: Option<u32>| f64::from(b.unwrap_or(1));
        match &self.plan {
            Plan::Aggregated(a) => (of(a.batch), of(a.chunk_tokens)),
            Plan::Afd(a) => (of(a.batch), of(a.chunk_tokens)),
            Plan::Pd(pd) => match &pd.prefill {
                Slot::Workers(w) => (of(w.batch), of(w.chunk_tokens)),
                Slot::Afd(a) => (of(a.batch), of(a.chunk_tokens)),
            },
        }
    }

    /// What fills the memory of the plan's GPUs.
    pub(super) fn memory(&self) -> Vec<MemoryRow> {
        let (sequences, chunk) = self.sizes();
        match &self.compiled {
            Compiled::Mixed { engine, .. } => {
                let in_flight = aggregated::tokens_in_flight(engine, &self.load, sequences, chunk);
                memory_rows(Role::Both, engine, sequences, in_flight)
            }
            Compiled::Pd { prefill, decode, .. } => {
                let batch = match &self.plan {
                    Plan::Pd(PdPlan { decode: Slot::Workers(w), .. }) => w.batch,
                    Plan::Pd(PdPlan { decode: Slot::Afd(a), .. }) => a.batch,
                    Plan::Aggregated(_) | Plan::Afd(_) => None,
                };
                let (batch, drafts) = (f64::from(batch.unwrap_or(1)), f64::from(self.library().serving.mtp));
                let mut rows = memory_rows(Role::Prompts, prefill, sequences, sequences * chunk.min(self.load.isl));
                rows.extend(memory_rows(Role::Decode, decode, batch, batch * (1.0 + drafts)));
                rows
            }
        }
    }

    /// Where memory and time go.
    pub fn tables(&self) -> Tables {
        let mut out = Tables { memory: self.memory(), ..Tables::default() };
        for ToldStep { kind, engine, batches } in self.told() {
            let (parts, own);
            match (kind, &batches[..]) {
                (StepKind::Prefill, round) => {
                    out.breakdown.extend(prefill_rows(engine, round));
                    out.breakdown.extend(kv_rows(&self.point.kv));
                    out.pipeline.extend(prefill_stages(engine, round));
                    parts = round;
                }
                (_, [batch]) => {
                    out.breakdown.extend(step_rows(engine, kind, batch));
                    out.pipeline.extend(stage_rows(engine, kind, batch));
                    own = parts_of(engine, batch);
                    parts = &own;
                }
                _ => continue,
            }
            out.timeline.extend(bar_rows(engine, kind, parts));
        }
        out
    }

    /// What is said of the plan in single values.
    ///
    /// # Errors
    /// As [`Engine::estimate`].
    pub fn scalars(&self) -> Result<Scalars> {
        let lib = self.library();
        let mut warnings = Vec::new();
        let exceeded = self.context_exceeded()?;
        let context_exceeded = exceeded.is_some();
        warnings.extend(exceeded);
        warnings.extend(domain_fit::warning(&self.plan, &lib.cluster));
        warnings.extend(self.what_if()?);
        // Of a round of prompts the middle chunk.
        let lane_of = |s: ToldStep<'_>| lane(s.kind, s.engine, s.batches.get(s.batches.len() / 2)?);
        let lanes = self.told().into_iter().filter_map(lane_of).collect();
        let gpus = lib.cluster.gpus;
        let tokens = self.tokens_per_s();
        let (_, watts) = self.bill();
        let user = if self.point.tpot_s > 0.0 { 1.0 / self.point.tpot_s } else { f64::NAN };
        let known = &self.point.evidence;
        let pooled = match &self.compiled {
            Compiled::Pd { .. } => known.pooled(),
            Compiled::Mixed { .. } if self.point.decode_batch > 0.0 => known.tpot,
            Compiled::Mixed { .. } => known.ttft,
        };
        let interval = tpot_interval(lib, &self.plan);
        Ok(Scalars {
            level: self.plan.level().name().to_string(),
            model: lib.model.name.clone(),
            system: lib.cluster.system.clone(),
            framework: lib.framework,
            workload: self.workload.name.clone(),
            feasible: self.point.stands(),
            binding: if self.point.binding == Binding::None { String::new() } else { self.point.binding.label() },
            ttft_ms: self.point.ttft_s * 1e3,
            wait_ms: self.open_loop.map_or(0.0, |(_, wait)| wait * 1e3),
            queueing: self.open_loop.map(|_| queueing::FORMULA),
            tpot_ms: self.point.tpot_s * 1e3,
            tpot_interval_ms: interval.factors.map(|f| f * self.point.tpot_s * 1e3),
            tpot_interval_from: interval.from,
            itl_worst_ms: self.point.itl_worst_s * 1e3,
            requests_per_s: self.point.requests_per_s,
            tokens_per_s: tokens,
            tokens_per_s_per_gpu: tokens / f64::from(gpus),
            tokens_per_s_per_user: user,
            concurrency: self.point.concurrency,
            gpus,
            gpus_used: self.gpus(),
            usd_per_mtok: self.usd_per_mtok(),
            watts,
            joules_per_token: self.joules_per_token(),
            context_exceeded,
            verdict: self.verdict()?,
            memory_gib: self.point.memory_bytes / GIB,
            kv_tokens: self.kv_tokens(),
            max_sequences: self.max_sequences(),
            decode_batch: self.point.decode_batch,
            evidence_ttft: shares(&known.ttft.all),
            evidence_tpot: shares(&known.tpot.all),
            evidence: shares(&pooled.all),
            compute_evidence: shares(&pooled.compute),
            measured_share: known.share(),
            compute_measured_share: known.compute_share(),
            lanes,
            formats: defaults::provenance(lib),
            warnings,
        })
    }
}

impl Engine {
    /// What stands in for measurements of the plan's devices, each in words.
    fn what_if(&self) -> Result<Vec<String>> {
        let lib = self.library();
        let units = self.plan.afd_units();
        let pools = units.iter().flat_map(|a| [a.attention.device.as_ref(), a.ffn.device.as_ref()]);
        let mut out: Vec<String> = Vec::new();
        for device in std::iter::once(None).chain(pools) {
            out.extend(lib.on(device)?.what_if().filter(|w| !out.contains(w)));
        }
        Ok(out)
    }

    /// Whether a released server of the framework whose kernels price starts the plan.
    pub fn verdict(&self) -> Result<crate::spec::Verdict> {
        let lib = self.library();
        Ok(Rules::new(lib.framework, None, &lib.model, &lib.cluster)?.verdict(&self.plan))
    }
}

fn lane(phase: StepKind, s: &StepEngine, batch: &Batch) -> Option<String> {
    match &s.kind {
        EngineKind::Worker(w, _) => w.lane(batch).map(|l| format!("{}: {}", phase.name(), l.name())),
        EngineKind::Afd(u) => {
            let also = |n: u32, what: &str| if n > 1 { format!(", {n} {what}") } else { String::new() };
            let (groups, stages) = (also(u.unit.groups, "attention groups"), also(u.sequence.pp, "pipeline stages"));
            Some(format!("{}: AFD, {} micro-batches{groups}{stages}", phase.name(), u.microbatches))
        }
    }
}
