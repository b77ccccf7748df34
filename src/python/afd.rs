//! The AFD pipeline and its provisioning rule, usable alone.
//!
//! Limit: no names or shapes are made sense of here: times come flat with their shape, in the caller's unit.

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

/// Time one step of the AFD pipeline.
///
/// Micro-batches walk attention, A2F, FFN and F2A once a layer; each of the four serves one at a time, first in
/// first out. With ``duplex="half"`` A2F and F2A share one resource.
///
/// Parameters
/// ----------
/// stage_ms
///     (attention, a2f, ffn, f2a) in milliseconds of one micro-batch and layer; or one such row a layer, shape
///     (layers, 4); or one a layer and micro-batch, shape (layers, microbatches, 4).
///
/// Returns
/// -------
/// float
///     Milliseconds per step.
///
/// Raises
/// ------
/// SpecError
///     If the shape does not go with ``layers`` and ``microbatches``, or a time is negative or not finite.
///
/// Notes
/// -----
/// Equal layers, full duplex, S the sum and tau the largest of the stages: (L-1) max(M tau, S) + (M-1) tau + S alone,
/// L max(M tau, S) overlapped. G groups on one pool, with tau_S the largest of the stages but attention:
/// L max(M max(attention, G tau_S), S) overlapped.
///
/// Examples
/// --------
/// >>> import disagg as dg
/// >>> dg.afd.schedule((20, 10, 5, 5), layers=1, microbatches=1, overlapped=False)
/// 40.0
/// >>> dg.afd.schedule((20, 10, 5, 5), layers=61, microbatches=2)
/// 2440.0
/// >>> dg.afd.schedule((20, 10, 5, 5), layers=61, microbatches=1, attention_groups=3)
/// 2440.0
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

/// Find how many attention instances one FFN instance should serve.
///
/// Stage times are linear: attention ``alpha_a * T + beta_a`` of the T tokens in an instance's KV, FFN
/// ``alpha_f * r * batch + beta_f`` of the sequences of all r instances, the exchange ``alpha_c * batch + beta_c``.
/// Times in any one unit.
///
/// Returns
/// -------
/// Provision
///     ratio, throughput and bottleneck.
///
/// Raises
/// ------
/// SpecError
///     If a number is out of range; all of them at once.
///
/// References
/// ----------
/// arXiv 2601.21351, "Analytical Provisioning for AFD under Stochastic Workloads".
///
/// Examples
/// --------
/// >>> import disagg as dg
/// >>> best = dg.afd.provision(
/// ...     alpha_a=0.00165, beta_a=50, alpha_f=0.083, beta_f=100, alpha_c=0.022, beta_c=20,
/// ...     batch=256, mu_p=100, mu_d=500, requests=10_000,
/// ... )
/// >>> round(best.ratio, 1), best.bottleneck
/// (9.3, 'attention')
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
