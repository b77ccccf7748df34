//! Published saturated servers, simulated as they were run: all requests queued at once, with the ramp and the tail.
//!
//! `validation/trtllm_saturated.csv`: output tokens/s and GPU of TensorRT-LLM's performance overview (about half of the
//! published figures). Prompts and answers have fixed lengths. As run: KV fraction 0.9, steps of 8,192 tokens, at most 2,048
//! sequences a rank (`trtllm-bench`), no request let in that memory does not hold to its end (GUARANTEED_NO_EVICT);
//! checkpoints of ModelOpt in FP8 (one scale a tensor) or NVFP4, gpt-oss in MXFP4; FP8 KV where the checkpoint asks for it
//! (Llama, Qwen3) and for gpt-oss on Blackwell; CUTLASS experts under attention DP. The closed form of the same plan stands beside
//! each. Source: nvidia.github.io/TensorRT-LLM/developer-guide/perf-overview. Limits: the host's own time between steps and
//! ranks that wait for one another by ADP balance are not modelled. Nothing is fitted here.

use std::sync::Arc;

use rayon::prelude::*;

use super::row::{CheckedRow, Section};
use crate::control::Control;
use crate::cost::Library;
use crate::error::{Error, Result};
use crate::kernels::KernelDb;
use crate::serving::choose::most_sequences;
use crate::serving::{Engine, Load, StepEngine, aggregated, defaults};
use crate::sim::trace::draw;
use crate::sim::{Deployment, Settings, simulate};
use crate::spec::assumptions::RequestPath;
use crate::spec::{Aggregated, Assumptions, Dtype, Framework, Parallel, Plan, Quant, Serving, Workload, catalog};

const ROWS: &str = include_str!("../../python/disagg/data/validation/trtllm_saturated.csv");
const PATH: &str = "validation/trtllm_saturated.csv";
const SOURCE: &str = "TensorRT-LLM performance overview, NVIDIA (Apache-2.0)";
/// `trtllm-bench throughput`: most sequences of a rank, and tokens of a step.
const SEATS: f64 = 2048.0;
const BUDGET: u32 = 8192;
const PS: f64 = 1e-12;

/// One published figure.
#[derive(Clone, Debug, PartialEq)]
pub struct Published {
    pub model: String,
    pub system: String,
    pub layout: String,
    pub precision: String,
    pub isl: f64,
    pub osl: f64,
    pub requests: u32,
    pub tokens_per_s_per_gpu: f64,
}

/// Every row, in the order of the file.
pub(crate) fn published() -> Result<Vec<Published>> {
    let row = |line: &str| {
        let cells: Vec<&str> = line.split(',').collect();
        let [model, system, layout, precision, isl, osl, requests, rate] = cells[..] else {
            return Err(Error::data(PATH, format!("a row of {} cells", cells.len())));
        };
        let number = |cell: &str| cell.parse::<f64>().map_err(|_| Error::data(PATH, format!("'{cell}' is no number")));
        Ok(Published {
            model: model.into(),
            system: system.into(),
            layout: layout.into(),
            precision: precision.into(),
            isl: number(isl)?,
            osl: number(osl)?,
            requests: number(requests)? as u32,
            tokens_per_s_per_gpu: number(rate)?,
        })
    };
    ROWS.lines().skip(1).map(row).collect()
}

/// TP4, or DEP4: attention DP and EP over four GPUs.
fn parallel(layout: &str) -> Result<Parallel> {
    let wide = layout.strip_prefix("DEP");
    let gpus = wide.or_else(|| layout.strip_prefix("TP")).and_then(|n| n.parse::<u32>().ok());
    let gpus = gpus.ok_or_else(|| Error::data(PATH, format!("'{layout}' is no layout")))?;
    let one = Parallel::default();
    Ok(if wide.is_some() { Parallel { dp: gpus, ep: Some(gpus), ..one } } else { Parallel { tp: gpus, ..one } })
}

fn library(db: &Arc<KernelDb>, p: &Published) -> Result<Arc<Library>> {
    let own = Quant::default();
    let format = if p.precision == "fp4" { Dtype::Nvfp4 } else { Dtype::Fp8 };
    let modelopt = Quant { gemm: Some(format), moe: Some(format), ..own };
    let blackwell = catalog::system(&p.system).is_ok_and(|(device, _)| device.is_blackwell());
    let (name, quant) = match p.model.as_str() {
        "openai/gpt-oss-120b" => (p.model.as_str(), Quant { kv: blackwell.then_some(Dtype::Fp8), ..own }),
        // The same architecture as 3.1, and checkpoints that ask for FP8 KV.
        "nvidia/Llama-3.3-70B-Instruct" => {
            ("meta-llama/Meta-Llama-3.1-70B", Quant { gemm: Some(format), kv: Some(Dtype::Fp8), ..own })
        }
        // As the published hf_quant_config.json of the NVFP4 checkpoint: FP8 KV.
        "nvidia/Qwen3-235B-A22B" => ("Qwen/Qwen3-235B-A22B", Quant { kv: Some(Dtype::Fp8), ..modelopt }),
        other => return Err(Error::data(PATH, format!("'{other}' is not known here"))),
    };
    let model = catalog::model(name)?;
    let cluster = catalog::cluster(&p.system, 8)?;
    // Its prompts are tokens already, and nobody sends them over HTTP.
    let assumptions = Assumptions { request_path: RequestPath::Service, ..Assumptions::physical() };
    defaults::library(db, &model, &cluster, Framework::Trtllm, &quant, &Serving::default(), &assumptions)
}

/// Output tokens/s and GPU, simulated and by the closed form, and the seats of a rank.
pub(crate) fn predict(db: &Arc<KernelDb>, p: &Published, control: &Control) -> Result<([f64; 2], f64)> {
    let lib = library(db, p)?;
    let parallel = parallel(&p.layout)?;
    let w = Workload::fixed("saturated", 0.0, p.isl, p.osl);
    let s = StepEngine::worker(&lib, parallel, &w)?;
    let share = (f64::from(p.requests) / s.ranks()).ceil();
    let seats = most_sequences(&s, f64::from(BUDGET)).floor().min(SEATS).min(share);
    if seats < 1.0 {
        return Ok(([f64::NAN; 2], 0.0));
    }
    let gpus = f64::from(parallel.gpus());
    let closed = aggregated::solve(&s, &Load::of(&w), seats, f64::from(BUDGET).max(seats + 1024.0), 1);
    let plan = Plan::Aggregated(Aggregated {
        parallel,
        batch: Some(seats as u32),
        chunk_tokens: Some(BUDGET),
        replicas: 1,
        ..Aggregated::default()
    });
    let engine = Arc::new(Engine::new(&lib, &w, &plan)?);
    let trace = draw::closed(&w, p.requests, p.requests as usize, 0.0, 1)?;
    let outcome = simulate(&Deployment::of(&engine), &trace.requests, &Settings::default(), &control.part())?;
    let simulated = f64::from(p.requests) * p.osl / (outcome.end_ps as f64 * PS) / gpus;
    Ok(([simulated, closed.requests_per_s * p.osl / gpus], seats))
}

/// Two rows a figure: simulated, and the closed form of the same plan.
pub fn rows(db: &Arc<KernelDb>, control: &Control) -> Result<Vec<CheckedRow>> {
    let all = published()?;
    let found: Vec<Result<[CheckedRow; 2]>> = crate::pool::install(|| {
        all.par_iter()
            .map(|p| {
                control.check()?;
                let ([simulated, closed], seats) = predict(db, p, control)?;
                control.advance(1);
                let row = |metric, predicted: f64| CheckedRow {
                    section: Section::Saturated,
                    name: format!("{} {} {} {:.0}/{:.0}", p.model, p.precision, p.layout, p.isl, p.osl),
                    system: p.system.clone(),
                    model: p.model.clone(),
                    framework: "trtllm".into(),
                    metric,
                    target: p.tokens_per_s_per_gpu,
                    predicted,
                    source: SOURCE.into(),
                    status: if predicted.is_finite() { "ok" } else { "not-computable:memory" }.into(),
                    note: format!("{seats:.0} seats a rank, {} requests", p.requests),
                    spread: None,
                };
                Ok([row("output tokens/s/gpu", simulated), row("output tokens/s/gpu, closed form", closed)])
            })
            .collect()
    })?;
    Ok(found.into_iter().collect::<Result<Vec<_>>>()?.into_iter().flatten().collect())
}
