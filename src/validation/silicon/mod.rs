//! 5,221 measured serving points against predictions of TPOT; every row ends with a status.
//!
//! The data's framework versions differ from the kernel tables'; MTP is not labelled, but in public recipes (`recipes`). The measured
//! TTFT includes closed-loop queueing: it is compared where each row is simulated (`closed_loop`), on demand.
//! Nothing is tuned.
//!
//! Limit: tables of other framework versions than the servers'; MTP is known from public recipes alone.

pub mod closed_loop;
pub mod data;
mod intake;
pub mod labels;
mod point;
mod predict;
pub mod recipes;
pub mod summary;
mod suspects;

use std::collections::BTreeMap;
use std::sync::Arc;

use rayon::prelude::*;

pub use self::point::Point;
use super::row::{CheckedRow, Section};
use crate::control::Control;
use crate::cost::Library;
use crate::error::{Error, Result};
use crate::kernels::KernelDb;
use crate::serving::defaults;
use crate::spec::{Assumptions, Framework, Quant, Serving, catalog};
use data::Raw;
use labels::{Clean, Deployment};

const SOURCE: &str = "InferenceX sample, aiconfigurator-core 0.12.0 systems/silicon_sample.csv";
/// Large enough for every deployment of the sample; the layout decides what is used.
const GPUS: u32 = 576;

/// What rows with one library share: model, formats, system, framework, and how they are served.
type MeasurementKey = (&'static str, String, String, Framework, String);

/// How every row is served and modelled.
#[derive(Clone, Debug, Default)]
pub struct Choices {
    pub serving: Serving,
    pub assumptions: Assumptions,
    /// Simulate the closed loop of every row for its TTFT (minutes).
    pub ttft: bool,
}

/// A row as it is asked.
struct Asked {
    key: MeasurementKey,
    quant: Quant,
    serving: Serving,
    clean: Clean,
    /// Rules on its formats.
    rules: Vec<&'static str>,
}

fn library(db: &Arc<KernelDb>, a: &Asked, serving: &Serving, choices: &Choices) -> Result<Arc<Library>> {
    let model = labels::resolve(a.key.0)?;
    let cluster = catalog::cluster(&a.key.2, GPUS)?;
    defaults::library(db, &model, &cluster, a.key.3, &a.quant, serving, &choices.assumptions)
}

/// A row as it is asked, or its status and whether its model has experts.
type Question = std::result::Result<Asked, (String, bool)>;

fn asked(raw: &Raw, choices: &Choices) -> Result<Question> {
    let Some((name, quant, rules)) = labels::model(raw) else { return Ok(Err(("unsupported-model".into(), true))) };
    let experts = labels::resolve(name)?.moe.map_or(0, |m| m.experts);
    let clean = match labels::clean(raw, experts) {
        Ok(c) => c,
        Err(reason) => return Ok(Err((format!("not-computable:{reason}"), experts > 0))),
    };
    let gpus = match &clean.deployment {
        Deployment::Aggregated { parallel, .. } => parallel.gpus(),
        Deployment::Pd { decode, .. } => decode.0.gpus(),
    };
    let serving = intake::serving(raw, clean.concurrency, gpus, clean.serving(&choices.serving));
    let key = (name, format!("{quant:?}"), raw.system.clone(), raw.framework, format!("{serving:?}"));
    Ok(Ok(Asked { key, quant, serving, clean, rules }))
}

/// Concurrency, layout and drafts in words.
fn describe(c: &Clean) -> String {
    let drafts = if c.mtp > 0 { format!(" mtp{}", c.mtp) } else { String::new() };
    let worker = |p: &crate::spec::Parallel| {
        let pp = if p.pp > 1 { format!(" pp{}", p.pp) } else { String::new() };
        format!("tp{} dp{} ep{} moe_tp{}{pp}", p.tp, p.dp, p.ep(), p.moe_tp)
    };
    match &c.deployment {
        Deployment::Aggregated { parallel, replicas } => {
            format!("c{} {} x{replicas}{drafts}", c.concurrency, worker(parallel))
        }
        Deployment::Pd { prefill, decode } => {
            format!(
                "c{} {}P {} / {}D {}{drafts}",
                c.concurrency,
                prefill.1,
                worker(&prefill.0),
                decode.1,
                worker(&decode.0)
            )
        }
    }
}

/// A row whose model the default fraction does not hold was measured all the same: its recipe set another.
const BY_HAND: f64 = 0.95;

type Roomier<'a> = &'a (dyn Fn(&Asked) -> Result<Arc<Library>> + Sync);

fn one(
    libraries: &BTreeMap<MeasurementKey, Arc<Library>>,
    roomier: Roomier<'_>,
    raw: &Raw,
    asked: &std::result::Result<Asked, (String, bool)>,
    ttft: bool,
    control: &Control,
) -> Result<Point> {
    let out = |status: String, note: String, tpot_ms: f64, experts: bool| Point {
        raw: raw.clone(),
        status,
        note,
        tpot_ms,
        ttft_ms: f64::NAN,
        steady_ttft_ms: f64::NAN,
        experts,
    };
    let asked = match asked {
        Ok(a) => a,
        Err((status, experts)) => return Ok(out(status.clone(), String::new(), f64::NAN, *experts)),
    };
    let Some(lib) = libraries.get(&asked.key) else {
        return Err(Error::data(raw.id.clone(), "a row without a library"));
    };
    let (clean, experts) = (&asked.clean, lib.model.moe.is_some());
    let mut rules = clean.rules.clone();
    rules.extend(&asked.rules);
    let note = describe(clean);
    let mut predicted = predict::predict(lib, raw, clean)?;
    let more;
    let mut lib = lib;
    if predicted.as_ref().err().is_some_and(|e| e == "not-computable:memory") {
        more = roomier(asked)?;
        (lib, predicted) = (&more, predict::predict(&more, raw, clean)?);
        rules.push("fraction-by-hand");
    }
    Ok(match predicted {
        Ok(o) => {
            let status = if rules.is_empty() { "ok".into() } else { format!("relabelled:{}", rules.join("+")) };
            let capped = if o.capped { ", capped by memory" } else { "" };
            let queues = closed_loop::queues(raw, o.tpot_ms);
            let simulated = if ttft || queues { closed_loop::means(lib, raw, clean, control)? } else { None };
            let tpot_ms = simulated.filter(|_| queues).map_or(o.tpot_ms, |s| s.tpot_ms);
            let how = if queues && simulated.is_some() { ", simulated" } else { "" };
            let note = format!("{note}, {:.1} decoding a rank{capped}{how}", o.batch);
            let ttft_ms = simulated.map_or(f64::NAN, |s| s.ttft_ms);
            Point { ttft_ms, steady_ttft_ms: o.ttft_ms, ..out(status, note, tpot_ms, experts) }
        }
        Err(status) => out(status, note, f64::NAN, experts),
    })
}

/// Every row of the sample with its prediction, in the order of the file: under the defaults.
pub fn points(db: &Arc<KernelDb>, control: &Control) -> Result<Vec<Point>> {
    points_with(db, &Choices::default(), control)
}

/// [`points`] under other choices (launch mode, load distribution, ...), to see what they are worth.
pub fn points_with(db: &Arc<KernelDb>, choices: &Choices, control: &Control) -> Result<Vec<Point>> {
    let raws = data::load()?;
    control.set_total(raws.len() as u64);
    let rows: Vec<(Raw, Question)> =
        raws.into_iter().map(|raw| asked(&raw, choices).map(|a| (raw, a))).collect::<Result<_>>()?;
    let mut wanted: BTreeMap<&MeasurementKey, &Asked> = BTreeMap::new();
    for a in rows.iter().filter_map(|(_, a)| a.as_ref().ok()) {
        wanted.entry(&a.key).or_insert(a);
    }
    let wanted: Vec<&Asked> = wanted.into_values().collect();
    let built: Vec<Result<(MeasurementKey, Arc<Library>)>> = crate::pool::install(|| {
        wanted
            .par_iter()
            .map(|a| {
                control.check()?;
                Ok((a.key.clone(), library(db, a, &a.serving, choices)?))
            })
            .collect()
    })?;
    let libraries: BTreeMap<MeasurementKey, Arc<Library>> = built.into_iter().collect::<Result<_>>()?;
    let roomier = |a: &Asked| {
        let serving = Serving { memory_fraction: Some(BY_HAND), ..a.serving.clone() };
        library(db, a, &serving, choices)
    };
    let found: Vec<Result<Point>> = crate::pool::install(|| {
        rows.par_iter()
            .map(|(raw, asked)| {
                control.check()?;
                let point = one(&libraries, &roomier, raw, asked, choices.ttft, control);
                control.advance(1);
                point
            })
            .collect()
    })?;
    let mut points: Vec<Point> = found.into_iter().collect::<Result<_>>()?;
    suspects::mark(&mut points);
    Ok(points)
}

/// One row a point: TPOT against the measured one; where TTFT was simulated, as many rows more.
pub fn rows(points: &[Point], ttft: bool) -> Vec<CheckedRow> {
    let row = |p: &Point, metric, target, predicted| CheckedRow {
        section: Section::Silicon,
        name: p.raw.id.clone(),
        system: p.raw.system.clone(),
        model: p.raw.model.clone(),
        framework: p.raw.framework.name().into(),
        metric,
        target,
        predicted,
        source: SOURCE.into(),
        status: p.status.clone(),
        note: p.note.clone(),
        spread: None,
    };
    let tpot = points.iter().map(|p| row(p, "tpot_ms", p.raw.tpot_ms, p.tpot_ms));
    let more = if ttft { points } else { &[] };
    tpot.chain(more.iter().map(|p| row(p, "ttft_ms", p.raw.ttft_ms, p.ttft_ms))).collect()
}
