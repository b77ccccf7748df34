//! A device fitted to a server's log: which arithmetic rate, bandwidth and launch floor make the
//! simulation of the same requests answer when the server did.
//!
//! Minimises, over the requests whose latencies are given, the mean soft-L1 of ln(simulated / measured)
//! of TTFT plus that of TPOT (`least` has the loss), by a simplex over the logarithms of the three rates, from the
//! three best of the cluster's own device and a coarse grid around it.
//! The kernels' shapes stay those of the measured tables (`cost::library`: scaled by the ratio of the
//! rooflines), so the rates are effective ones: with the tables' utilisation in them they are not peaks of
//! a data sheet. Requests without latencies are load only: what is judged later can be kept out of the fit.
//!
//! What is left over is the error bar of the device (`log_tpot_error`, `log_ttft_error`): the fitted requests by arrival in
//! `PARTS` parts, each with its mean measured and simulated,
//!
//! ```text
//! s = sqrt(mean over parts of ln(measured / simulated)^2) x sqrt(PARTS / (PARTS - FREE))
//! ```
//!
//! FREE: the rates that were fitted. Limits: a local minimum near one of those; a log that never fills the arithmetic units
//! says little about their rate. Network rates are not fitted: one device's log does not show them.

use rayon::prelude::*;

use super::digits::rounded;
use crate::control::Control;
use crate::error::{Error, Result};
use crate::math::nelder_mead;
use crate::network::params::Misfit;
use crate::pool;
use crate::sim::replay::{Log, Server, replay};
use crate::spec::{Device, Plan};

/// Where the loss turns from squares to absolute values, as in `least`.
const SCALE: f64 = 0.1;
/// ln(simulated / measured) of a request that was not served at all.
const LOST: f64 = 3.0;
/// The coarse grid: factors of arithmetic, bandwidth and launch floor.
const GRID: [&[f64]; 3] = [&[4.0, 1.5, 0.5, 0.2, 0.07], &[2.0, 0.8, 0.3, 0.1], &[0.7, 2.0]];
const STARTS: usize = 3;
/// First step of the simplex, and where it stops: 0.1 % of a rate.
const STEP: f64 = 0.3;
const FINE: f64 = 1e-3;
const CALLS: usize = 150;
/// Times that a simplex is opened again, and what that must gain.
const RESTARTS: usize = 4;
const GAIN: f64 = 0.01;
/// Rates may move so far from the start, either way.
const REACH: f64 = 50.0;

/// Parts of a log that its error is taken from, and rates that are fitted.
const PARTS: usize = 10;
const FREE: usize = 3;

/// The device, and how far the simulation with it is from the requests that it was fitted to.
#[derive(Clone, Debug)]
pub struct Fit {
    pub device: Device,
    pub loss: f64,
    pub runs: usize,
    pub ttft: Option<Misfit>,
    pub tpot: Option<Misfit>,
}

fn soft(r: f64) -> f64 {
    2.0 * SCALE * SCALE * ((r / SCALE).hypot(1.0) - 1.0)
}

/// Mean loss of the pairs that are known.
fn loss(simulated: &[f64], measured: &[f64]) -> f64 {
    let known = simulated.iter().zip(measured).filter(|(_, m)| !m.is_nan());
    let (sum, n) = known.fold((0.0, 0.0), |(sum, n), (s, m)| {
        let r = if *s > 0.0 { (s / m).ln() } else { LOST };
        (sum + soft(r), n + 1.0)
    });
    if n > 0.0 { sum / n } else { 0.0 }
}

/// How far the served of `simulated` are from what is known of `measured`.
fn misfit(simulated: &[f64], measured: &[f64]) -> Option<Misfit> {
    Misfit::of(simulated.iter().zip(measured).filter(|(s, m)| !m.is_nan() && !s.is_nan()).map(|(s, m)| (*s, *m)))
}

/// The parts of a log with a known latency: mean measured and mean simulated of each.
pub fn parts(simulated: &[f64], measured: &[f64]) -> Vec<[f64; 2]> {
    let known: Vec<[f64; 2]> =
        measured.iter().zip(simulated).filter(|(m, s)| !m.is_nan() && !s.is_nan()).map(|(m, s)| [*m, *s]).collect();
    let part = known.len().div_ceil(PARTS).max(1);
    let mean = |rows: &[[f64; 2]], i: usize| rows.iter().map(|r| r[i]).sum::<f64>() / rows.len() as f64;
    known.chunks(part).map(|rows| [mean(rows, 0), mean(rows, 1)]).collect()
}

/// Standard deviation of ln(measured / simulated) of the means of a log's parts about 0; 0 where it says nothing.
fn error_bar(simulated: &[f64], measured: &[f64]) -> f64 {
    let logs: Vec<f64> =
        parts(simulated, measured).iter().map(|[m, s]| (m / s).ln()).filter(|l| l.is_finite()).collect();
    if logs.len() <= FREE {
        return 0.0;
    }
    let n = logs.len() as f64;
    rounded((logs.iter().map(|l| l * l).sum::<f64>() / (n - FREE as f64)).sqrt())
}

/// What [`device`] minimises.
///
/// # Errors
/// As [`replay`].
pub fn distance(server: &Server, device: &Device, log: &Log, control: &Control) -> Result<f64> {
    let l = replay(server, device, &log.requests, &control.part())?;
    Ok(loss(&l.ttft_ms, &log.ttft_ms) + loss(&l.tpot_ms, &log.tpot_ms))
}

/// `start` with other rates: arithmetic (all formats alike), bandwidth, launch floor.
fn scaled(start: &Device, u: &[f64]) -> Device {
    let by = |i: usize| u[i].clamp(-REACH.ln(), REACH.ln()).exp();
    Device {
        bf16_flops: rounded(start.bf16_flops * by(0)),
        fp8_flops: rounded(start.fp8_flops * by(0)),
        fp4_flops: rounded(start.fp4_flops * by(0)),
        hbm_bytes_per_s: rounded(start.hbm_bytes_per_s * by(1)),
        launch_s: rounded(start.launch_s * by(2)),
        ..start.clone()
    }
}

/// A simplex that shrank on a kink of the event simulation is opened again where it stopped, until that gains nothing.
fn settled(u: &[f64], run: &impl Fn(&[f64]) -> Result<f64>) -> Result<nelder_mead::Least> {
    let mut found = nelder_mead::least(u, STEP, FINE, CALLS, run)?;
    for _ in 0..RESTARTS {
        let again = nelder_mead::least(&found.at, STEP, FINE, CALLS, run)?;
        let calls = found.calls + again.calls;
        let gained = again.value < found.value * (1.0 - GAIN);
        let best = if again.value < found.value { again } else { found };
        found = nelder_mead::Least { calls, ..best };
        if !gained {
            break;
        }
    }
    Ok(found)
}

/// Fits the device of `server` to `log`.
///
/// # Errors
/// What is wrong with the log or the server, or `Cancelled`.
pub fn device(server: &Server, log: &Log, control: &Control) -> Result<Fit> {
    log.check()?;
    let server = &server.settled()?;
    let start = &server.case.cluster.device;
    if start.launch_s <= 0.0 {
        return Err(Error::spec("cluster.device.launch_s", "is 0: there is nothing to scale", "start from 2.5e-6"));
    }
    let run = |u: &[f64]| -> Result<f64> {
        control.check()?;
        let d = distance(server, &scaled(start, u), log, control)?;
        control.advance(1);
        Ok(d)
    };
    let [math, memory, launch] = GRID;
    // The cluster's own device, and coarse steps around it.
    let around =
        math.iter().flat_map(|a| memory.iter().flat_map(move |b| launch.iter().map(move |c| [a.ln(), b.ln(), c.ln()])));
    let grid: Vec<[f64; 3]> = std::iter::once([0.0; 3]).chain(around).collect();
    control.set_total((grid.len() + STARTS * CALLS * (1 + RESTARTS)) as u64);
    let found = pool::install(|| -> Result<Vec<nelder_mead::Least>> {
        let coarse = grid.par_iter().map(|u| Ok((run(u)?, *u))).collect::<Result<Vec<_>>>();
        let mut coarse = coarse?;
        coarse.sort_by(|a, b| a.0.total_cmp(&b.0));
        coarse[..STARTS].par_iter().map(|(_, u)| settled(u, &run)).collect()
    })??;
    let runs = grid.len() + found.iter().map(|f| f.calls).sum::<usize>();
    let found = found.into_iter().reduce(|a, b| if b.value < a.value { b } else { a });
    let Some(found) = found else { return Err(Error::data("log", "no start")) };
    let mut device = scaled(start, &found.at);
    let l = replay(server, &device, &log.requests, &control.part())?;
    let (ttft, tpot) = (misfit(&l.ttft_ms, &log.ttft_ms), misfit(&l.tpot_ms, &log.tpot_ms));
    if matches!(server.plan, Plan::Aggregated(_)) {
        device.log_ttft_error = error_bar(&l.ttft_ms, &log.ttft_ms);
        device.log_tpot_error = error_bar(&l.tpot_ms, &log.tpot_ms);
    }
    let share = |m: &Option<Misfit>| m.map_or("none".into(), |m| format!("{:.1} % of {}", 100.0 * m.mape, m.rows));
    device.source = format!(
        "effective rates fitted to a log of {}: mean error of TTFT {}, of TPOT {}",
        log.requests.len(),
        share(&ttft),
        share(&tpot)
    );
    Ok(Fit { device, loss: found.value, runs, ttft, tpot })
}
