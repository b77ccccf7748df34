//! How much each figure of hardware, way of serving and workload moves an estimate of one plan.
//!
//! Every parameter is scaled by 1 - s and 1 + s with all others and the plan fixed (what the plan
//! left open stays as it was settled), and the plan is priced again by the same engine: a varied
//! device keeps its own kernel tables, scaled by rooflines, a varied fabric its measured exchanges
//! beyond their start-up. Elasticity = ln(m_high / m_low) / ln((1 + s) / (1 - s)): the central
//! difference of ln m over ln p, exactly the exponent where m is a power of p.
//! Law: a step without exchanges is a sum of terms, each homogeneous of degree -1 in the rates
//! (FLOP/s, bandwidth, 1 / launch floor) and log-convex in their logarithms, so the elasticities of
//! such a time over those rates add up to -1 between their one-sided slopes; start-ups of exchanges,
//! which no rate scales, take their share off that sum.
//! Limits: one parameter at a time; a device of no preset's name may read other tables when varied;
//! more of one slot's rate may raise TPOT where it feeds the other a larger batch.

mod baseline;
mod parameters;

use std::sync::Arc;

use rayon::prelude::*;
use serde_json::json;

use self::baseline::Numbers;
pub use self::baseline::{Baseline, METRICS};
use self::parameters::{PARAMETERS, Parameter};
use crate::columns::{Column, Columns};
use crate::control::Control;
use crate::error::{Error, Problems, Result, near};
use crate::kernels::KernelDb;

/// The parameters asked for; none: all that the base has.
fn chosen(base: &Baseline, names: Option<&[String]>) -> Result<Vec<(&'static Parameter, f64)>> {
    let Some(names) = names else {
        return Ok(PARAMETERS.iter().filter_map(|p| Some((p, (p.value)(base).ok()?))).collect());
    };
    let mut problems = Problems::new();
    let mut out = Vec::new();
    for (i, name) in names.iter().enumerate() {
        let path = format!("parameters[{i}]");
        match PARAMETERS.iter().find(|p| p.name == name) {
            None => {
                let hint = near(name, PARAMETERS.iter().map(|p| p.name));
                problems.push(path, format!("'{name}' is not a parameter"), hint);
            }
            Some(_) if names[..i].contains(name) => problems.push(path, format!("'{name}' is there twice"), ""),
            Some(p) => match (p.value)(base) {
                Ok(value) => out.push((p, value)),
                Err(why) => problems.push(path, format!("'{name}' cannot be varied: {why}"), ""),
            },
        }
    }
    problems.into_result()?;
    Ok(out)
}

/// Change of ln m over the change of ln p; from the middle where one end is missing.
fn elasticity(low: f64, middle: f64, high: f64, step: f64) -> f64 {
    let (down, up) = ((1.0 - step).ln(), (1.0 + step).ln());
    match (low.is_nan(), high.is_nan()) {
        (false, false) => (high / low).ln() / (up - down),
        (true, false) => (high / middle).ln() / up,
        (false, true) => (low / middle).ln() / down,
        (true, true) => f64::NAN,
    }
}

/// One row a parameter: its values and the metrics at both ends, elasticities, and what went wrong.
pub fn sensitivity(
    db: &Arc<KernelDb>,
    base: &Baseline,
    names: Option<&[String]>,
    step: f64,
    control: &Control,
) -> Result<Columns> {
    if !(step > 0.0 && step < 1.0) {
        return Err(Error::spec("step", format!("{step} is not a relative step"), "between 0 and 1, e.g. 0.1"));
    }
    let chosen = chosen(base, names)?;
    control.set_total(2 * chosen.len() as u64);
    let middle = base.numbers(db)?.map_err(|why| {
        Error::spec("estimate", format!("cannot be varied, it is not feasible: {why}"), "give a plan that fits")
    })?;
    let factors = [1.0 - step, 1.0 + step];
    let ends: Vec<Result<std::result::Result<Numbers, String>>> = crate::pool::install(|| {
        (0..2 * chosen.len())
            .into_par_iter()
            .map(|i| {
                control.check()?;
                let mut varied = base.clone();
                (chosen[i / 2].0.scale)(&mut varied, factors[i % 2]);
                let found = varied.numbers(db);
                control.advance(1);
                found
            })
            .collect()
    })?;
    let ends: Vec<std::result::Result<Numbers, String>> = ends.into_iter().collect::<Result<_>>()?;
    Ok(columns(&chosen, &middle, &ends, step))
}

fn columns(
    chosen: &[(&'static Parameter, f64)],
    base: &Numbers,
    ends: &[std::result::Result<Numbers, String>],
    step: f64,
) -> Columns {
    let mut out = Columns::new();
    let floats = |f: &dyn Fn(usize) -> f64| Column::F64((0..chosen.len()).map(f).collect());
    out.push("parameter", Column::from_strings(chosen.iter().map(|c| c.0.name)));
    out.push("of", Column::from_strings(chosen.iter().map(|c| c.0.of)));
    out.push("unit", Column::from_strings(chosen.iter().map(|c| c.0.unit)));
    out.push("value", floats(&|i| chosen[i].1));
    out.push("low", floats(&|i| chosen[i].1 * (1.0 - step)));
    out.push("high", floats(&|i| chosen[i].1 * (1.0 + step)));
    for (m, name) in METRICS.iter().enumerate() {
        let at = |k: usize| ends[k].as_ref().map_or(f64::NAN, |n| n[m]);
        out.push(format!("{name}_low"), floats(&|i| at(2 * i)));
        out.push(format!("{name}_high"), floats(&|i| at(2 * i + 1)));
        out.push(format!("{name}_elasticity"), floats(&|i| elasticity(at(2 * i), base[m], at(2 * i + 1), step)));
    }
    let status = |i: usize| {
        let said = |end: &str, k: usize| ends[k].as_ref().err().map(|why| format!("{end}: {why}"));
        let told: Vec<String> = said("low", 2 * i).into_iter().chain(said("high", 2 * i + 1)).collect();
        if told.is_empty() { "ok".to_string() } else { told.join("; ") }
    };
    out.push("status", Column::from_strings((0..chosen.len()).map(status)));
    out.attrs.insert("step".into(), step.to_string());
    for (name, value) in METRICS.iter().zip(base) {
        out.attrs.insert((*name).into(), json!(value).to_string());
    }
    out
}
