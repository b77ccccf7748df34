//! Goodput against arrival rate, and the highest rate that holds an SLO.
//!
//! The same requests at every rate (common random numbers), rates in parallel. The highest rate is
//! bisected between the last rate that holds and the first that fails, to 1 %; it supposes that
//! what fails at one rate fails at every higher one. A run that is too short to say anything of a rate, or that
//! is offered more than it serves, says so in its row.
//!
//! Limit: one trace and seed; a rate is good to 1 % of itself and to what so many requests can tell.

use rayon::prelude::*;

use super::metrics::{self, Goodput};
use super::trace::Trace;
use super::{Deployment, Settings, pricers, simulate_with, steady};
use crate::columns::{Column, Columns};
use crate::control::Control;
use crate::error::{Error, Result};
use crate::pool;
use crate::spec::Slo;

const FINE: f64 = 0.01;

/// One row a rate, in rising order; the highest rate that holds is the attribute `highest_rate`.
pub fn curve(
    deployment: &Deployment,
    trace: &Trace,
    slo: &Slo,
    rates: &[f64],
    settings: &Settings,
    control: &Control,
) -> Result<Columns> {
    if rates.is_empty() {
        return Err(Error::spec("rates", "is empty", "e.g. [1, 2, 4]"));
    }
    slo.check().into_result()?;
    let mut rates = rates.to_vec();
    rates.sort_by(f64::total_cmp);
    let prices = pool::install(|| pricers(deployment))?;
    control.set_total(rates.len() as u64);
    let one = |rate: f64| -> Result<(Goodput, String)> {
        control.check()?;
        let scaled = trace.scale(rate)?;
        let out = simulate_with(&prices, deployment, &scaled.requests, settings, &control.part())?;
        control.advance(1);
        let note = steady::said(steady::steady(&scaled.requests, &out), scaled.requests.len());
        Ok((metrics::goodput(&scaled.requests, &out, slo), note.unwrap_or_default()))
    };
    let found: Vec<(Goodput, String)> =
        pool::install(|| rates.par_iter().map(|r| one(*r)).collect::<Result<Vec<_>>>())??;
    let fails = found.iter().position(|(g, _)| !g.holds);
    let highest = match fails {
        Some(0) => None,
        None => rates.last().copied(),
        Some(i) => {
            let (mut low, mut high) = (rates[i - 1], rates[i]);
            let halvings = ((high / low).ln() / (1.0 + FINE).ln()).log2().ceil().max(0.0);
            control.set_total(rates.len() as u64 + halvings as u64);
            while high / low > 1.0 + FINE {
                let middle = (low * high).sqrt();
                if one(middle)?.0.holds { low = middle } else { high = middle }
            }
            Some(low)
        }
    };
    let mut c = Columns::new();
    let column = |f: fn(&Goodput) -> f64| Column::F64(found.iter().map(|(g, _)| f(g)).collect());
    c.push("rate", Column::F64(rates));
    c.push("goodput_requests_per_s", column(|g| g.requests_per_s));
    c.push("goodput_share", column(|g| g.share));
    c.push("ttft_ms", column(|g| g.ttft_ms));
    c.push("tpot_ms", column(|g| g.tpot_ms));
    c.push("holds", Column::Bool(found.iter().map(|(g, _)| g.holds).collect()));
    c.push("note", Column::from_strings(found.iter().map(|(_, note)| note.as_str())));
    c.attrs.insert("highest_rate".into(), highest.map_or("null".into(), |r| r.to_string()));
    Ok(c)
}
