//! Where time and memory of a plan go: the steps that it is told by, each with its operators and the stages and schedule
//! of its micro-batches, and what fills its GPUs.
//!
//! Limit: of a round of prompts the stages are those of the middle chunk; of a schedule a stretch is told.

use crate::cost::program::Ffn;
use crate::cost::{Batch, Item, Memory};
use crate::error::Result;
use crate::serving::aggregated;
use crate::serving::engine::{Compiled, Engine};
use crate::serving::operators::{BreakdownRow, kv_rows, path_rows, prefill_rows, step_rows};
use crate::serving::phase::StepKind;
use crate::serving::step_engine::{EngineKind, StepEngine, StepTime, Unit};
use crate::serving::timeline::{Bar, Stage};
use crate::spec::{PdPlan, Plan, PlanPool, Role, Slot};
use crate::units::GIB;

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

/// Where memory and time go.
#[derive(Clone, Debug, Default)]
pub struct Tables {
    pub memory: Vec<MemoryRow>,
    pub breakdown: Vec<BreakdownRow>,
    pub pipeline: Vec<StageRow>,
    pub timeline: Vec<BarRow>,
}

/// A step, or a round of prompts, that a plan is told by.
pub(super) struct ToldStep<'a> {
    pub kind: StepKind,
    pub engine: &'a StepEngine,
    pub batches: Vec<Batch>,
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
    let ffn = if u.program().has_experts() { Ffn::Experts } else { Ffn::Dense };
    let mixer = u.program().first_with(ffn);
    let layer = if ffn == Ffn::Experts { u.unit.stages(b, mixer) } else { u.unit.dense(b, mixer) };
    let times = layer.seconds(u.fused(&vec![*b; parts.max(1)]));
    let layers = u.program().layers_with(ffn);
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

    /// The steps that a plan is told by: of each its kind, its engine, and its batches (of a prefill round in order).
    pub(super) fn told(&self) -> Vec<ToldStep<'_>> {
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
    pub(in crate::serving) fn memory(&self) -> Vec<MemoryRow> {
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
    pub(crate) fn tables(&self) -> Tables {
        let mut out = Tables { memory: self.memory(), ..Tables::default() };
        out.breakdown.extend(path_rows(&self.point.path));
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
}
