//! Published deployments priced as described: one worker step, or one aggregated closed loop.
//!
//! No constant is fitted here. A worker's tokens per second are those of one step of its kind,
//! without queueing, scheduling gaps or KV transfer; a deployment that reports sustained rates
//! includes those, so a sound prediction sits a little above its target.
//!
//! Limit: figures as told by their sources; what these leave out is assumed and said in the note.

use std::sync::Arc;

use super::figures::{FIGURES, Figure, Metric, Task};
use super::row::{CheckedRow, Section};
use crate::columns::Columns;
use crate::control::Control;
use crate::cost::{Batch, Detail, Library, Worker};
use crate::error::{Error, Result, near};
use crate::kernels::KernelDb;
use crate::serving::estimate::{BreakdownRow, breakdown_columns};
use crate::serving::phase::StepKind;
use crate::serving::{Load, SteadyState, StepEngine, aggregated, defaults, operators};
use crate::spec::assumptions::PrefillSync;
use crate::spec::{Assumptions, Serving, Workload, catalog};

fn library(db: &Arc<KernelDb>, f: &Figure) -> Result<Arc<Library>> {
    let model = catalog::model(f.model)?;
    let mut cluster = catalog::cluster(f.system, f.parallel.gpus().max(8))?;
    if let Some(speed) = f.nvlink_bytes_per_s {
        cluster.fabric.nvlink_bytes_per_s = speed;
    }
    let serving = Serving {
        mtp: f.mtp.0,
        acceptance: (f.mtp.0 > 0).then_some(f.mtp.1),
        imbalance: f.imbalance.map(crate::spec::Imbalance::Name),
        two_batch_overlap: Some(f.two_batch_overlap),
        ..Serving::default()
    };
    let prefill_sync = if f.lockstep { PrefillSync::Aligned } else { PrefillSync::Uncoordinated };
    let assumptions = Assumptions { prefill_sync, ..Assumptions::physical() };
    defaults::library(db, &model, &cluster, f.framework, &f.quant, &serving, &assumptions)
}

/// The step that a figure times; `None` for a closed loop.
fn step(f: &Figure) -> Option<Batch> {
    match f.task {
        Task::Prefill { sequences, new } => Some(Batch::prefill(sequences, new, 0.0)),
        Task::Decode { batch, context } | Task::Tpot { batch, context } => {
            Some(Batch::decode(batch, context, 1.0 + f64::from(f.mtp.0)))
        }
        Task::Closed { .. } => None,
    }
}

fn workload(f: &Figure) -> Workload {
    match f.task {
        Task::Prefill { new, .. } => Workload::fixed(f.name, 0.0, new, 1.0),
        Task::Decode { context, .. } | Task::Tpot { context, .. } => Workload::fixed(f.name, 0.0, context, 1.0),
        Task::Closed { isl, osl, .. } => Workload::fixed(f.name, 0.0, isl, osl),
    }
}

fn closed(s: &StepEngine, f: &Figure, concurrency: f64, chunk: f64) -> SteadyState {
    let batch = concurrency / f64::from(f.parallel.dp);
    aggregated::solve(s, &Load::of(&workload(f)), batch, chunk, 1)
}

/// (prediction, what it cost or lacked).
fn predict(db: &Arc<KernelDb>, f: &Figure) -> Result<(f64, String)> {
    let lib = library(db, f)?;
    let engine = StepEngine::worker(&lib, f.parallel, &workload(f))?;
    let gpus = f64::from(f.parallel.gpus());
    let worker = Worker::new(&lib, f.parallel)?;
    if let Some(batch) = step(f) {
        let time = engine.step(&batch);
        let seconds = time.seconds;
        let progress = 1.0 + f.mtp.1;
        let held = batch.decode + batch.sequences;
        let (short, bytes) = engine.memory_check(held, batch.tokens());
        let lane = worker.lane(&batch).map_or("", |l| l.name());
        let memory = bytes / crate::units::GIB;
        let over = if short.is_some() { ", more than there is" } else { "" };
        let overlap = if time.work.seconds > seconds * (1.0 + 1e-9) {
            format!(" ({:.1} of operators)", time.work.seconds * 1e3)
        } else {
            String::new()
        };
        let seen = format!("step {:.1} ms{overlap}, {lane}, {memory:.0} GiB{over}", seconds * 1e3);
        let value = match f.task {
            Task::Tpot { .. } => seconds / progress * 1e3,
            Task::Prefill { .. } => batch.tokens() * engine.ranks() / seconds / gpus * f.per_gpus,
            _ => batch.decode * progress * engine.ranks() / seconds / gpus * f.per_gpus,
        };
        return Ok((value, seen));
    }
    let Task::Closed { concurrency, osl, chunk, metric, .. } = f.task else {
        return Err(Error::data(f.name, "a figure is a step or a closed loop"));
    };
    let p = closed(&engine, f, concurrency, chunk);
    let value = match metric {
        Metric::TokensPerGpu => p.requests_per_s * osl / gpus,
        Metric::TpotMs => p.tpot_s * 1e3,
        Metric::TtftMs => p.ttft_s * 1e3,
    };
    Ok((value, format!("{:.0} decoding a rank, {}", p.decode_batch, p.binding.label())))
}

fn metric(f: &Figure) -> &'static str {
    match (f.task, f.per_gpus > 1.0) {
        (Task::Prefill { .. }, true) => "prefill tokens/s/node",
        (Task::Prefill { .. }, false) => "prefill tokens/s/gpu",
        (Task::Decode { .. }, true) => "decode tokens/s/node",
        (Task::Decode { .. }, false) => "decode tokens/s/gpu",
        (Task::Tpot { .. }, _) => "tpot_ms",
        (Task::Closed { metric, .. }, _) => match metric {
            Metric::TokensPerGpu => "output tokens/s/gpu",
            Metric::TpotMs => "tpot_ms",
            Metric::TtftMs => "ttft_ms",
        },
    }
}

fn status(f: &Figure) -> &'static str {
    match f.task {
        // What waits in a closed loop is the simulator's to say.
        Task::Closed { metric: Metric::TtftMs, .. } => "ok:without-queue",
        _ if !f.stated => "ok:layout-assumed",
        _ => "ok",
    }
}

/// One row a figure.
pub fn rows(db: &Arc<KernelDb>, control: &Control) -> Result<Vec<CheckedRow>> {
    let mut out = Vec::new();
    for f in FIGURES {
        control.check()?;
        let (predicted, status, seen) = match predict(db, f) {
            Ok((v, seen)) => (v, status(f).to_string(), seen),
            Err(Error::Cancelled) => return Err(Error::Cancelled),
            Err(e) => (f64::NAN, "not-computable:error".to_string(), e.to_string()),
        };
        let note = if f.note.is_empty() { seen } else { format!("{}; {seen}", f.note) };
        out.push(CheckedRow {
            section: Section::Deployed,
            name: f.name.into(),
            system: f.system.into(),
            model: f.model.into(),
            framework: f.framework.name().into(),
            metric: metric(f),
            target: f.target,
            predicted,
            source: f.source.into(),
            status,
            note,
            spread: None,
        });
        control.advance(1);
    }
    Ok(out)
}

fn operators(worker: &Worker, kind: StepKind, batch: &Batch) -> Vec<BreakdownRow> {
    let mut d = Detail::default();
    worker.price(batch, &mut d);
    operators::rows(kind, operators::WORKER, 1.0, &d)
}

/// Where the time of one figure's step goes, operator by operator.
pub fn breakdown(db: &Arc<KernelDb>, name: &str) -> Result<Columns> {
    let Some(f) = FIGURES.iter().find(|f| f.name == name) else {
        let hint = near(name, FIGURES.iter().map(|f| f.name));
        return Err(Error::spec("name", format!("no figure is called '{name}'"), hint));
    };
    let lib = library(db, f)?;
    let worker = Worker::new(&lib, f.parallel)?;
    let rows = match (step(f), f.task) {
        (Some(batch), _) => {
            operators(&worker, if batch.has_prefill() { StepKind::Prefill } else { StepKind::Decode }, &batch)
        }
        (None, Task::Closed { concurrency, chunk, isl, .. }) => {
            let engine = StepEngine::worker(&lib, f.parallel, &workload(f))?;
            let p = closed(&engine, f, concurrency, chunk);
            let load = Load::of(&workload(f));
            let decode = Batch::decode(p.decode_batch, load.context, 1.0 + f64::from(f.mtp.0));
            let new = isl.min((chunk - decode.tokens()).max(1.0));
            let mut mixed = Batch::prefill(1.0, new, (isl - new) / 2.0);
            (mixed.decode, mixed.context, mixed.per_decode) = (decode.decode, decode.context, decode.per_decode);
            let mut rows = operators(&worker, StepKind::Decode, &decode);
            rows.extend(operators(&worker, StepKind::Mixed, &mixed));
            rows
        }
        _ => Vec::new(),
    };
    let mut columns = breakdown_columns(&rows);
    columns.attrs.insert("name".into(), name.into());
    Ok(columns)
}
