//! Decode steps of attention and FFN pools, and of the wide-EP servers measured beside them.
//!
//! `validation/afd_and_wide_ep.csv`: FastAFD's sweep of A attention GPUs on one FFN node of four GB200, two micro-batches,
//! and vLLM 0.19 with attention DP and EP over 4 to 64 GPUs, each at the batch that its memory held (source: the file's last
//! column; about half of what was published). Every row's step; KV tokens a GPU where they were printed; of each context the
//! ratio A:F with the most tokens a GPU among the measured ones; and the lead of the best split over the best wide EP.
//!
//! As run: BF16 KV, 0.94 of the device (the capacities say both), kernels of vLLM, dispatch, experts and combine of an FFN
//! pool as one kernel (MegaMoE), the load of the experts that the model's preset has, and micro-batches of the attention pool
//! on streams of their own. That last is inferred: at 64K the measured steps are the KV of both micro-batches at 8 TB/s, and
//! nothing beside it. Limits: a step is the decode step
//! alone; the coordinator's own time, which its median interval includes, is not modelled. Nothing is fitted here.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::row::{CheckedRow, Section};
use crate::control::Control;
use crate::cost::{Batch, Library};
use crate::error::{Error, Result};
use crate::kernels::KernelDb;
use crate::serving::{StepEngine, defaults};
use crate::spec::{AfdPlan, Assumptions, Dtype, Framework, Parallel, Quant, Serving, Workload, catalog};

const ROWS: &str = include_str!("../../python/disagg/data/validation/afd_and_wide_ep.csv");
const PATH: &str = "validation/afd_and_wide_ep.csv";
const FRAMEWORK: Framework = Framework::Vllm;
const FRACTION: f64 = 0.94;

/// One measured row.
#[derive(Clone, Debug, PartialEq)]
pub struct Measured {
    pub model: String,
    pub system: String,
    pub context: f64,
    pub attention: u32,
    /// 0: every GPU does both.
    pub ffn: u32,
    pub microbatches: u32,
    /// Sequences of an attention GPU.
    pub batch: f64,
    pub step_ms: f64,
    pub tokens_per_s_per_gpu: f64,
    pub kv_tokens: Option<f64>,
    pub timing: String,
    pub source: String,
}

impl Measured {
    fn gpus(&self) -> f64 {
        f64::from(self.attention + self.ffn)
    }

    /// Tokens/s and GPU of a step.
    fn rate(&self, step_s: f64) -> f64 {
        self.batch * f64::from(self.attention) / self.gpus() / step_s
    }

    fn name(&self) -> String {
        let model = self.model.rsplit('/').next().unwrap_or(&self.model);
        let layout =
            if self.ffn > 0 { format!("{}A{}F", self.attention, self.ffn) } else { format!("EP{}", self.attention) };
        format!("{model} {:.0}K {layout} b{:.0}", self.context / 1024.0, self.batch)
    }
}

/// Every row, in the order of the file.
pub(crate) fn measured() -> Result<Vec<Measured>> {
    let mut lines = ROWS.lines();
    let names: Vec<&str> = lines.next().unwrap_or("").split(',').collect();
    lines
        .map(|line| {
            // The two last columns are the only ones with commas, inside quotes.
            let mut cells: Vec<String> = vec![String::new()];
            let mut quoted = false;
            for c in line.chars() {
                match c {
                    '"' => quoted = !quoted,
                    ',' if !quoted => cells.push(String::new()),
                    c => cells.last_mut().into_iter().for_each(|cell| cell.push(c)),
                }
            }
            let text = |name: &str| {
                let at = names.iter().position(|n| *n == name);
                at.and_then(|i| cells.get(i)).cloned().unwrap_or_default()
            };
            let number = |name: &str| {
                let cell = text(name);
                cell.parse::<f64>().map_err(|_| Error::data(PATH, format!("'{cell}' is no number ({name})")))
            };
            Ok(Measured {
                model: text("model"),
                system: text("system"),
                context: number("context_tokens")?,
                attention: number("attention_gpus")? as u32,
                ffn: number("ffn_gpus")? as u32,
                microbatches: number("microbatches")? as u32,
                batch: number("batch_per_gpu")?,
                step_ms: number("step_ms")?,
                tokens_per_s_per_gpu: number("tokens_per_s_per_gpu")?,
                kv_tokens: number("kv_capacity_tokens_per_gpu").ok(),
                timing: text("timing"),
                source: text("source"),
            })
        })
        .collect()
}

fn library(db: &Arc<KernelDb>, m: &Measured) -> Result<Arc<Library>> {
    let model = catalog::model(&m.model)?;
    let cluster = catalog::cluster(&m.system, m.attention + m.ffn.max(4))?;
    let serving = Serving {
        memory_fraction: Some(FRACTION),
        fused_dispatch: m.ffn > 0,
        attention_streams: m.ffn > 0,
        ..Serving::default()
    };
    let quant = Quant { kv: Some(Dtype::Bf16), ..Quant::default() };
    defaults::library(db, &model, &cluster, FRAMEWORK, &quant, &serving, &Assumptions::physical())
}

/// The engine that runs a row.
pub(crate) fn engine(db: &Arc<KernelDb>, m: &Measured) -> Result<StepEngine> {
    let lib = library(db, m)?;
    let w = Workload::fixed("afd", 0.0, m.context, 1.0);
    if m.ffn == 0 {
        return StepEngine::worker(&lib, Parallel { dp: m.attention, ..Parallel::default() }, &w);
    }
    // What is not said has the defaults of JSON.
    let plan = serde_json::json!({
        "attention": {"gpus": m.attention}, "ffn": {"gpus": m.ffn}, "microbatches": m.microbatches
    });
    let plan: AfdPlan = serde_json::from_value(plan).map_err(|e| Error::data(PATH, e.to_string()))?;
    StepEngine::afd(&lib, &plan, &w)
}

struct Priced {
    row: Measured,
    step_s: f64,
    kv_tokens: f64,
}

fn checked(
    m: &Measured,
    name: String,
    metric: &'static str,
    [target, predicted]: [f64; 2],
    note: String,
) -> CheckedRow {
    CheckedRow {
        section: Section::Afd,
        name,
        system: m.system.clone(),
        model: m.model.clone(),
        framework: FRAMEWORK.to_string(),
        metric,
        target,
        predicted,
        source: m.source.clone(),
        status: "ok".into(),
        note,
        spread: None,
    }
}

/// The one with the most tokens a GPU, as measured and as predicted.
fn best<'a>(rows: &[&'a Priced]) -> Option<[&'a Priced; 2]> {
    let most = |of: fn(&Priced) -> f64| rows.iter().copied().max_by(|a, b| of(a).total_cmp(&of(b)));
    Some([most(|p| p.row.tokens_per_s_per_gpu)?, most(|p| p.row.rate(p.step_s))?])
}

/// Steps, capacities, best ratios and leads.
pub fn rows(db: &Arc<KernelDb>, control: &Control) -> Result<Vec<CheckedRow>> {
    let mut all = Vec::new();
    let mut out = Vec::new();
    for m in measured()? {
        control.check()?;
        let s = engine(db, &m)?;
        let time = s.step(&Batch::decode(m.batch, m.context, 1.0));
        let kv_tokens = s.kv_tokens(0.0, m.context).0;
        let note = format!("{}; {:.1} ms of operators", m.timing, time.work.seconds * 1e3);
        out.push(checked(&m, m.name(), "step_ms", [m.step_ms, time.seconds * 1e3], note));
        all.push(Priced { step_s: time.seconds, kv_tokens, row: m });
        control.advance(1);
    }
    let mut seen: Vec<(String, u32, u32, f64)> = Vec::new();
    let mut by_question: BTreeMap<(String, u64), Vec<&Priced>> = BTreeMap::new();
    for p in &all {
        let m = &p.row;
        by_question.entry((m.model.clone(), m.context as u64)).or_default().push(p);
        let Some(printed) = m.kv_tokens else { continue };
        // One deployment prints it once, whatever it then runs.
        let one = (m.model.clone(), m.attention.min(if m.ffn > 0 { 1 } else { u32::MAX }), m.ffn, printed);
        if !seen.contains(&one) {
            seen.push(one);
            let name = if m.ffn > 0 { "attention GPU".into() } else { format!("EP{}", m.attention) };
            let name = format!("{} KV of {name}", m.model.rsplit('/').next().unwrap_or(""));
            out.push(checked(m, name, "kv tokens/gpu", [printed, p.kv_tokens], "as printed at start".into()));
        }
    }
    for ((model, context), priced) in &by_question {
        let short = format!("{} {}K", model.rsplit('/').next().unwrap_or(""), context / 1024);
        let split: Vec<&Priced> = priced.iter().copied().filter(|p| p.row.ffn > 0).collect();
        let wide: Vec<&Priced> = priced.iter().copied().filter(|p| p.row.ffn == 0).collect();
        let Some([measured, predicted]) = best(&split) else { continue };
        if split.len() > 2 {
            let ratio = |p: &Priced| f64::from(p.row.attention) / f64::from(p.row.ffn);
            let note = format!("of {} ratios measured", split.len());
            let values = [ratio(measured), ratio(predicted)];
            out.push(checked(&measured.row, format!("{short} best A:F"), "attention GPUs an FFN GPU", values, note));
        }
        if let Some([wide_measured, wide_predicted]) = best(&wide) {
            let lead = [
                measured.row.tokens_per_s_per_gpu / wide_measured.row.tokens_per_s_per_gpu,
                predicted.row.rate(predicted.step_s) / wide_predicted.row.rate(wide_predicted.step_s),
            ];
            let note = format!("{} against {}", predicted.row.name(), wide_predicted.row.name());
            out.push(checked(&measured.row, format!("{short} lead over the best wide EP"), "ratio", lead, note));
        }
    }
    Ok(out)
}
