//! Power and energy of measured servers: watts a GPU by the law of `serving/bill` at the measured batch, and joules an output
//! token of the plan as this package prices it.
//!
//! Each server keeps a fixed number of sequences in flight. The law was fitted to the power of three models (`fit`) and to
//! no other (`check`); joules hang on the predicted rate too, which was fitted to nothing. The layout is read as TP over all
//! GPUs, experts as EP over all; prompts, whose length is not published, as 200 tokens.
//! Source: ml-energy/leaderboard, public/data (Apache-2.0): ML.ENERGY benchmark 3.0, chat of the LM Arena, vLLM of late 2025.
//!
//! Limit: 59 of the leaderboard's configurations, read by hand; H100 and B200, one framework, decode mostly.

use std::sync::Arc;

use super::row::{CheckedRow, Section};
use crate::control::Control;
use crate::error::{Error, Result};
use crate::kernels::KernelDb;
use crate::serving::Engine;
use crate::serving::bill::running;
use crate::spec::{Aggregated, Case, Framework, Parallel, Plan, Workload, catalog};

const TEXT: &str = include_str!("../../python/disagg/data/validation/energy.tsv");
const PATH: &str = "validation/energy.tsv";
const SOURCE: &str = "ml-energy/leaderboard, public/data/tasks/lm-arena-chat.json (Apache-2.0)";
/// Prompt tokens, assumed.
const ISL: f64 = 200.0;
/// How near power of servers that were not fitted is to be.
const AIM: f64 = 0.15;

struct Measured<'a> {
    model: &'a str,
    system: &'a str,
    gpus: u32,
    experts: bool,
    preset: &'a str,
    set: &'a str,
    sequences: u32,
    watts: f64,
    tokens_per_s: f64,
    osl: f64,
}

fn measured() -> Result<Vec<Measured<'static>>> {
    let one = |(line, text): (usize, &'static str)| {
        let at = || format!("{PATH}:{}", line + 1);
        let cells: Vec<&str> = text.split('\t').collect();
        let [model, system, gpus, experts, preset, set, sequences, watts, tokens, osl] = cells[..] else {
            return Err(Error::data(at(), "has not ten cells"));
        };
        let number = |cell: &str| cell.parse::<f64>().map_err(|_| Error::data(at(), format!("'{cell}' is no number")));
        Ok(Measured {
            model,
            system,
            gpus: number(gpus)? as u32,
            experts: experts == "1",
            preset,
            set,
            sequences: number(sequences)? as u32,
            watts: number(watts)?,
            tokens_per_s: number(tokens)?,
            osl: number(osl)?,
        })
    };
    TEXT.lines().enumerate().skip(1).map(one).collect()
}

/// Joules an output token; not a number where the plan does not fit.
fn joules(db: &Arc<KernelDb>, m: &Measured<'_>) -> Result<f64> {
    let (model, cluster) = (catalog::model(m.preset)?, catalog::cluster(m.system, m.gpus)?);
    let workload = Workload::fixed("energy", 0.0, ISL, m.osl);
    let case = Case::new(model, cluster, workload).on(Framework::Vllm);
    let ep = m.experts.then_some(m.gpus);
    let plan = Plan::Aggregated(Aggregated {
        parallel: Parallel { tp: m.gpus, ep, ..Parallel::default() },
        batch: Some(m.sequences),
        chunk_tokens: Some(m.sequences + 8192),
        replicas: 1,
        ..Aggregated::default()
    });
    let engine = Engine::new(&case.library(db, Framework::Vllm)?, &case.workload, &plan)?;
    Ok(if engine.point.stands() { engine.joules_per_token() } else { f64::NAN })
}

/// Watts a GPU of every server, and joules a token of those whose model is a preset.
pub fn rows(db: &Arc<KernelDb>, control: &Control) -> Result<Vec<CheckedRow>> {
    let mut out = Vec::new();
    for m in measured()? {
        control.check()?;
        let row = |metric, target: f64, predicted: f64, status: String| CheckedRow {
            section: Section::Energy,
            name: format!("{} x{}, {} sequences", m.model, m.gpus, m.sequences),
            system: m.system.into(),
            model: m.model.into(),
            framework: Framework::Vllm.name().into(),
            metric,
            target,
            predicted,
            source: SOURCE.into(),
            status,
            note: String::new(),
            spread: None,
        };
        let board = catalog::cluster(m.system, 1)?.device.power_w;
        let sequences = f64::from(m.sequences);
        let watts = m.watts / f64::from(m.gpus);
        let predicted = board * running(m.experts, sequences * (1.0 + ISL / (m.osl - 1.0)));
        let met = (predicted / watts - 1.0).abs() <= AIM;
        out.push(row("watts/gpu", watts, predicted, format!("{}: {}", m.set, if met { "met" } else { "missed" })));
        if !m.preset.is_empty() {
            let joules = joules(db, &m)?;
            let status = if joules.is_nan() { "not-computable:memory" } else { "check: rate and power predicted" };
            out.push(row("joules/token", m.watts / m.tokens_per_s, joules, status.into()));
        }
    }
    Ok(out)
}
