//! 5,221 measured serving points against predictions of TPOT; every row ends with a status.
//!
//! The data's framework versions differ from the kernel tables', and MTP is not labelled. The measured
//! TTFT includes closed-loop queueing: it is compared where each row is simulated (`closed_loop`), on demand.
//! Nothing is tuned.

pub mod closed_loop;
pub mod data;
pub mod labels;
mod point;
mod predict;
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

type MeasurementKey = (&'static str, String, String, Framework);

/// How every row is served and modelled.
#[derive(Clone, Debug, Default)]
pub struct Choices {
    pub serving: Serving,
    pub assumptions: Assumptions,
    /// Simulate the closed loop of every row for its TTFT (minutes).
    pub ttft: bool,
}

fn library(db: &Arc<KernelDb>, key: &MeasurementKey, quant: &Quant, choices: &Choices) -> Result<Arc<Library>> {
    let model = labels::resolve(key.0)?;
    let cluster = catalog::cluster(&key.2, GPUS)?;
    defaults::library(db, &model, &cluster, key.3, quant, &choices.serving, &choices.assumptions)
}

/// Concurrency and layout in words.
fn describe(c: &Clean) -> String {
    let worker = |p: &crate::spec::Parallel| {
        let pp = if p.pp > 1 { format!(" pp{}", p.pp) } else { String::new() };
        format!("tp{} dp{} ep{} moe_tp{}{pp}", p.tp, p.dp, p.ep(), p.moe_tp)
    };
    match &c.deployment {
        Deployment::Aggregated { parallel, replicas } => format!("c{} {} x{replicas}", c.concurrency, worker(parallel)),
        Deployment::Pd { prefill, decode } => {
            format!("c{} {}P {} / {}D {}", c.concurrency, prefill.1, worker(&prefill.0), decode.1, worker(&decode.0))
        }
    }
}

/// A row whose model the default fraction does not hold was measured all the same: its recipe set another.
const BY_HAND: f64 = 0.95;

type Roomier<'a> = &'a (dyn Fn(&MeasurementKey) -> Result<Arc<Library>> + Sync);

fn one(
    libraries: &BTreeMap<MeasurementKey, Arc<Library>>,
    roomier: Roomier<'_>,
    raw: &Raw,
    ttft: bool,
    control: &Control,
) -> Result<Point> {
    let out = |status: String, note: String, tpot_ms: f64, experts: bool| Point {
        raw: raw.clone(),
        status,
        note,
        tpot_ms,
        ttft_ms: f64::NAN,
        experts,
    };
    let Some((key, quantity_rules)) = key(raw) else {
        return Ok(out("unsupported-model".into(), String::new(), f64::NAN, true));
    };
    let Some(lib) = libraries.get(&key) else {
        return Err(Error::data(raw.id.clone(), "a row without a library"));
    };
    let experts = lib.model.moe.is_some();
    let clean = match labels::clean(raw, !experts) {
        Ok(c) => c,
        Err(reason) => return Ok(out(format!("not-computable:{reason}"), String::new(), f64::NAN, experts)),
    };
    let mut rules = clean.rules.clone();
    rules.extend(quantity_rules);
    let note = describe(&clean);
    let mut predicted = predict::predict(lib, raw, &clean)?;
    let more;
    let mut lib = lib;
    if predicted.as_ref().err().is_some_and(|e| e == "not-computable:memory") {
        more = roomier(&key)?;
        (lib, predicted) = (&more, predict::predict(&more, raw, &clean)?);
        rules.push("fraction-by-hand");
    }
    Ok(match predicted {
        Ok(o) => {
            let status = if rules.is_empty() { "ok".into() } else { format!("relabelled:{}", rules.join("+")) };
            let capped = if o.capped { ", capped by memory" } else { "" };
            let point = out(status, format!("{note}, {:.1} decoding a rank{capped}", o.batch), o.tpot_ms, experts);
            let simulated = if ttft { closed_loop::ttft(lib, raw, &clean, control)? } else { None };
            Point { ttft_ms: simulated.unwrap_or(f64::NAN), ..point }
        }
        Err(status) => out(status, note, f64::NAN, experts),
    })
}

fn key(raw: &Raw) -> Option<(MeasurementKey, Vec<&'static str>)> {
    let (name, quant, rules) = labels::model(raw)?;
    Some(((name, format!("{quant:?}"), raw.system.clone(), raw.framework), rules))
}

/// Every row of the sample with its prediction, in the order of the file, as the defaults have it.
pub fn points(db: &Arc<KernelDb>, control: &Control) -> Result<Vec<Point>> {
    points_with(db, &Choices::default(), control)
}

/// [`points`] under other choices (launch mode, load distribution, ...), to see what they are worth.
pub fn points_with(db: &Arc<KernelDb>, choices: &Choices, control: &Control) -> Result<Vec<Point>> {
    let raws = data::load()?;
    control.set_total(raws.len() as u64);
    let mut wanted: BTreeMap<MeasurementKey, Quant> = BTreeMap::new();
    for raw in &raws {
        if let (Some((k, _)), Some((_, quant, _))) = (key(raw), labels::model(raw)) {
            wanted.entry(k).or_insert(quant);
        }
    }
    let wanted: Vec<(MeasurementKey, Quant)> = wanted.into_iter().collect();
    let built: Vec<Result<(MeasurementKey, Arc<Library>)>> = crate::pool::install(|| {
        wanted
            .par_iter()
            .map(|(k, quant)| {
                control.check()?;
                Ok((k.clone(), library(db, k, quant, choices)?))
            })
            .collect()
    })?;
    let libraries: BTreeMap<MeasurementKey, Arc<Library>> = built.into_iter().collect::<Result<_>>()?;
    let roomier = |key: &MeasurementKey| {
        let quant = wanted.iter().find(|(k, _)| k == key).map_or_else(Quant::default, |(_, q)| *q);
        let serving = Serving { memory_fraction: Some(BY_HAND), ..choices.serving.clone() };
        library(db, key, &quant, &Choices { serving, ..choices.clone() })
    };
    let found: Vec<Result<Point>> = crate::pool::install(|| {
        raws.par_iter()
            .map(|raw| {
                control.check()?;
                let point = one(&libraries, &roomier, raw, choices.ttft, control);
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
