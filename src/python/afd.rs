//! The AFD pipeline and its provisioning rule, usable alone.

use pyo3::prelude::*;

use super::errors;
use crate::error::{Error, Result};
use crate::serving::pipeline;
use crate::serving::provision::Stations;

/// A result that numbers of the size given can have.
fn finite(x: f64, path: &str) -> Result<f64> {
    let hint = "give all of them in the same unit";
    if x.is_finite() {
        Ok(x)
    } else {
        Err(Error::spec(path, "times are too large or too far apart to be added up", hint))
    }
}

/// Milliseconds per step of a pipeline given as a flat array and its shape.
#[pyfunction]
#[pyo3(signature = (stage_ms, shape, layers, microbatches, attention_groups, half_duplex, overlapped))]
// PyO3 hands over lists by value.
#[allow(clippy::needless_pass_by_value)]
pub fn afd_schedule(
    stage_ms: Vec<f64>,
    shape: Vec<usize>,
    layers: u32,
    microbatches: u32,
    attention_groups: u32,
    half_duplex: bool,
    overlapped: bool,
) -> PyResult<f64> {
    errors::guard(|| {
        let ms = pipeline::schedule_flat(
            &stage_ms,
            &shape,
            layers,
            microbatches,
            attention_groups,
            half_duplex,
            overlapped,
        )?;
        finite(ms, "stage_ms")
    })
}

/// (ratio, throughput, bottleneck) of the best number of attention instances per FFN instance.
#[pyfunction]
#[pyo3(signature = (alpha_a, beta_a, alpha_f, beta_f, alpha_c, beta_c, batch, mu_p, mu_d, requests=None, barrier=false))]
#[allow(clippy::too_many_arguments)]
pub fn afd_provision(
    alpha_a: f64,
    beta_a: f64,
    alpha_f: f64,
    beta_f: f64,
    alpha_c: f64,
    beta_c: f64,
    batch: f64,
    mu_p: f64,
    mu_d: f64,
    requests: Option<f64>,
    barrier: bool,
) -> PyResult<(f64, f64, &'static str)> {
    let s = Stations { alpha_a, beta_a, alpha_f, beta_f, alpha_c, beta_c, batch, mu_p, mu_d, requests, barrier };
    let best = errors::guard(|| {
        let best = s.best()?;
        // Zero stands for what has run over on the way.
        let sound = best.ratio.is_normal() && best.throughput.is_normal();
        finite(if sound { 1.0 } else { f64::NAN }, "provision")?;
        Ok(best)
    })?;
    Ok((best.ratio, best.throughput, best.bottleneck))
}
