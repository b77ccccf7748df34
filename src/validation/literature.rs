//! Formulas and facts of papers that this stage can express; most are exact.
//!
//! Limit: provisioning (arXiv 2601.21351) and the paper's own grid are not held here; measured AFD systems are in `split`.

use super::row::{CheckedRow, Section};
use crate::cost::Program;
use crate::error::Result;
use crate::serving::pipeline::{Rows, Stages, step_time};
use crate::spec::{Dtype, catalog};

const BAIDU: &str = "arXiv 2602.09721, dead-zone bound 2 BW M / FLOPS";
const MEGASCALE: &str = "arXiv 2504.02263, m >= 2 (1 + Tc/Tf)";
const INSIGHTS: &str = "arXiv 2505.09343, table 1";

fn row(
    name: &str,
    model: &str,
    metric: &'static str,
    [target, predicted]: [f64; 2],
    source: &str,
    note: &str,
) -> CheckedRow {
    CheckedRow {
        section: Section::Literature,
        name: name.into(),
        system: String::new(),
        model: model.into(),
        framework: String::new(),
        metric,
        target,
        predicted,
        source: source.into(),
        status: "ok".into(),
        note: note.into(),
        spread: None,
    }
}

/// Share of the peak that experts of width M can use when NVLink bounds their tokens: 6 H M FLOP and
/// 3 H bytes (FP8 out, BF16 back) a token and expert.
fn dead_zone(bytes_per_s: f64, width: f64, flops: f64) -> f64 {
    2.0 * bytes_per_s * width / flops
}

/// Smallest number of micro-batches at which a step of `layers` costs no more than its busiest stage.
fn micro_batches_to_hide(exchange: f64, layers: u32) -> f64 {
    let stage = Stages::new(1.0, exchange, 1.0, exchange);
    let hidden = |m: usize| {
        let stages = vec![stage; m];
        let rows = [Rows { layers, stages: &stages }];
        step_time(&rows, false, true) <= f64::from(layers) * m as f64 * (1.0 + 1e-9)
    };
    (1..=16).find(|m| hidden(*m)).unwrap_or(usize::MAX) as f64
}

/// Tokens per second of two micro-batches over those of one.
fn second_micro_batch(exchange: f64, layers: u32) -> f64 {
    let stage = Stages::new(1.0, exchange, 1.0, exchange);
    let step = |m: usize| {
        let stages = vec![stage; m];
        step_time(&[Rows { layers, stages: &stages }], false, true)
    };
    2.0 * step(1) / step(2)
}

/// Every figure of the section.
pub fn rows() -> Result<Vec<CheckedRow>> {
    let v3 = catalog::model("deepseek-ai/DeepSeek-V3")?;
    let width = v3.moe.as_ref().map_or(0.0, |m| f64::from(m.intermediate));
    let mut out = vec![
        row(
            "dead-zone-h800",
            &v3.name,
            "hfu",
            [0.331, dead_zone(160e9, width, 1979e12)],
            BAIDU,
            "H800: 160 GB/s, 1,979 TFLOP/s",
        ),
        row(
            "dead-zone-b200",
            &v3.name,
            "hfu",
            [0.364, dead_zone(400e9, width, 4.5e15)],
            BAIDU,
            "B200: 400 GB/s, 4,500 TFLOP/s",
        ),
    ];
    for (name, ratio, m) in
        [("megascale-m-quarter", 0.25, 3.0), ("megascale-m-half", 0.5, 3.0), ("megascale-m-three-quarters", 0.75, 4.0)]
    {
        let note = format!("Tc = {ratio} Tf on the schedule of the engine, 60 layers");
        out.push(row(name, "", "micro-batches", [m, micro_batches_to_hide(ratio, 60)], MEGASCALE, &note));
    }
    out.push(row(
        "megascale-second-micro-batch",
        "",
        "throughput ratio",
        [1.9, second_micro_batch(0.1, 60)],
        "arXiv 2504.02263, measured m = 1 to 2",
        "the schedule knows no fixed cost of a micro-batch, the measurement does",
    ));
    for (name, kb) in [("deepseek-ai/DeepSeek-V3", 70.272), ("meta-llama/Meta-Llama-3.1-405B", 516.096)] {
        let m = catalog::model(name)?;
        let bytes = Program::of(&m).state_bytes(1.0, Dtype::Bf16, 1);
        out.push(row(&format!("kv-per-token {name}"), name, "kB", [kb, bytes / 1e3], INSIGHTS, "BF16, all layers"));
    }
    let sizes = [
        ("deepseek-ai/DeepSeek-V3", 671.0, 37.0, "arXiv 2412.19437"),
        ("moonshotai/Kimi-K2-Instruct", 1040.0, 32.6, "arXiv 2507.20534"),
        ("Qwen/Qwen3-235B-A22B", 235.0, 22.0, "arXiv 2505.09388"),
        ("openai/gpt-oss-120b", 116.8, 5.1, "arXiv 2508.10925"),
    ];
    for (name, total, active, source) in sizes {
        let m = catalog::model(name)?;
        out.push(row(
            &format!("parameters {name}"),
            name,
            "billions",
            [total, m.parameters() / 1e9],
            source,
            "without MTP layers",
        ));
        let note = "the embedding table is counted; papers differ on that";
        out.push(row(&format!("active {name}"), name, "billions", [active, m.active_parameters() / 1e9], source, note));
    }
    Ok(out)
}
