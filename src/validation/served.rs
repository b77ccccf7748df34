//! Measured servers against the simulation of the same requests: vLLM 0.19 with Llama-3.1-8B on two GPUs
//! that no measured table covers.
//!
//! Each run has 300 requests with the lengths of ShareGPT conversations, ten a second. The device was
//! fitted to the first 150 by arrival (`calibrate::served`; the others were load without latencies), all
//! 300 are simulated, the last 150 are judged. Seats, token budget and KV blocks are what the server was
//! started with; blocks that its log does not state are what the memory holds (they never bind there). TTFT counts from
//! the client's arrival (`tests/bench/build_vllm.py`): the engine's own stamps begin between two of its steps, after the
//! wait for the one in flight.
//! Source: casys-kaist/LLMServingSim, bench/examples (MIT); that simulator's own errors over all 300, with a
//! profile of the GPU itself: TPOT +0.2 and -1.0 %, TTFT +0.6 and -4.0 %. Targets: design of this check.
//!
//! Limit: one dense model and one version of vLLM; what was fitted and what was judged are halves of the same run.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::row::{CheckedRow, Section};
use super::silicon::labels;
use crate::control::Control;
use crate::error::{Error, Result};
use crate::kernels::KernelDb;
use crate::network::params::Misfit;
use crate::sim::replay::{Log, Server, replay};
use crate::sim::trace::Trace;
use crate::sim::{Requests, Settings, to_ps};
use crate::spec::{Aggregated, Case, Cluster, Device, Framework, Parallel, Plan, Workload, catalog, json};

const LOGS: &str = include_str!("../../python/disagg/data/validation/vllm.tsv");
const DEVICES: &str = include_str!("../../python/disagg/data/validation/vllm_devices.json");
const PATH: &str = "validation/vllm.tsv";
const SOURCE: &str = "casys-kaist/LLMServingSim 5daddb2, bench/examples/*/vllm (MIT)";
const MODEL: &str = "meta-llama/Llama-3.1-8B-Instruct";
/// Requests whose latencies were fitted.
pub const FITTED: usize = 150;
/// Largest errors of the means.
const TTFT: f64 = 0.08;
const TPOT: f64 = 0.03;

/// A measured run as it was started, and the device that was fitted to it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Served {
    pub run: String,
    pub seats: u32,
    pub chunk_tokens: u32,
    pub kv_blocks: Option<u64>,
    pub device: Device,
}

/// The runs there are.
pub fn runs() -> Result<Vec<Served>> {
    json::parse(DEVICES, "validation/vllm_devices.json")
}

/// The log of a run, in order of arrival.
pub fn log(run: &str) -> Result<Log> {
    let mut log = Log::default();
    for (line, text) in LOGS.lines().enumerate().skip(1) {
        let mut cells = text.split('\t');
        if cells.next() != Some(run) {
            continue;
        }
        let mut number = || -> Result<f64> {
            let cell = cells.next().unwrap_or("");
            cell.parse().map_err(|_| Error::data(format!("{PATH}:{}", line + 1), format!("'{cell}' is no number")))
        };
        log.requests.arrival_ps.push(to_ps(number()?));
        log.requests.isl.push(number()? as u32);
        log.requests.osl.push(number()? as u32);
        log.ttft_ms.push(number()?);
        log.tpot_ms.push(number()?);
    }
    Ok(log)
}

/// The server of a run, with `device` in it.
pub fn server(db: &Arc<KernelDb>, run: &Served, device: &Device, requests: &Requests) -> Result<Server> {
    let parallel = Parallel { tp: 1, dp: 1, pp: 1, cp: 1, ep: None, moe_tp: 1 };
    let trace = Trace { requests: requests.clone(), ..Trace::default() };
    let cluster = Cluster { device: device.clone(), ..catalog::cluster("h100_sxm", 1)? };
    let workload = Workload { lengths: trace.lengths(4096), ..Workload::fixed(&run.run, 0.0, 1.0, 1.0) };
    Ok(Server {
        db: db.clone(),
        case: Case { ..Case::new(labels::resolve(MODEL)?, cluster, workload).on(Framework::Vllm) },
        plan: Plan::Aggregated(Aggregated {
            parallel,
            batch: Some(run.seats),
            chunk_tokens: Some(run.chunk_tokens),
            replicas: 1,
            ..Default::default()
        }),
        settings: Settings { kv_blocks: run.kv_blocks, ..Settings::default() },
    })
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// One row a run, set and metric: mean measured, mean simulated.
pub fn rows(db: &Arc<KernelDb>, control: &Control) -> Result<Vec<CheckedRow>> {
    let mut out = Vec::new();
    for run in runs()? {
        control.check()?;
        let log = log(&run.run)?;
        let server = server(db, &run, &run.device, &log.requests)?;
        let l = replay(&server, &run.device, &log.requests, &control.part())?;
        let n = log.requests.len();
        for (set, rows) in [("fit", 0..FITTED.min(n)), ("check", FITTED.min(n)..n)] {
            for (metric, simulated, measured, target) in
                [("mean ttft_ms", &l.ttft_ms, &log.ttft_ms, TTFT), ("mean tpot_ms", &l.tpot_ms, &log.tpot_ms, TPOT)]
            {
                let (s, m) = (&simulated[rows.clone()], &measured[rows.clone()]);
                let (predicted, measured) = (mean(s), mean(m));
                let met = (predicted / measured - 1.0).abs() <= target;
                out.push(CheckedRow {
                    section: Section::Served,
                    name: format!("{}, {} by arrival", run.run, if set == "fit" { "first 150" } else { "last 150" }),
                    system: run.device.name.clone(),
                    model: MODEL.into(),
                    framework: Framework::Vllm.name().into(),
                    metric,
                    target: measured,
                    predicted,
                    source: SOURCE.into(),
                    status: format!("{set}: {}", if met { "met" } else { "missed" }),
                    note: format!(
                        "aim within {:.0} %; n, median and p95 are of the requests one by one",
                        100.0 * target
                    ),
                    spread: Misfit::of(s.iter().copied().zip(m.iter().copied())),
                });
            }
        }
        control.advance(1);
    }
    Ok(out)
}
