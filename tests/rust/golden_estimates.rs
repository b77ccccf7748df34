//! The `aiconfigurator-0.12` switches against end-to-end results of that tool, row by row.
//!
//! The switches set the formulas (operators, steps, waiting, cycles, memory) and what is held beyond the rows;
//! between rows kernels are looked up our way, so rows differ where the lookup does. All of it is printed by
//! `cargo test --test rust golden_estimates -- --nocapture`, the counts within 3 % are pinned, and every
//! number further off stands in `EXPLAINED` with its cause.

use crate::lab::Server;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use disagg::Error;
use disagg::cost::Library;
use disagg::serving::{Engine, Load, StepEngine, aggregated, published};
use disagg::spec::{Aggregated, Assumptions, Dtype, Parallel, PdPlan, Plan, Quant, Serving, Workload, catalog};
use disagg::units::GIB;

use crate::lab;

/// Cells of one line, quotes taken off.
fn cells(line: &str) -> Vec<String> {
    let (mut out, mut cell, mut quoted) = (Vec::new(), String::new(), false);
    for c in line.chars() {
        match c {
            '"' => quoted = !quoted,
            ',' if !quoted => out.push(std::mem::take(&mut cell)),
            _ => cell.push(c),
        }
    }
    out.push(cell);
    out
}

struct Row {
    id: String,
    inputs: BTreeMap<String, String>,
    theirs: BTreeMap<String, String>,
}

/// `{a: b, c: d}`, the quotes already gone.
fn flat(text: &str) -> BTreeMap<String, String> {
    let inner = text.trim().trim_start_matches('{').trim_end_matches('}');
    inner.split(", ").filter_map(|kv| kv.split_once(": ")).map(|(k, v)| (k.to_string(), v.to_string())).collect()
}

fn rows() -> Vec<Row> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/golden_estimates.csv");
    let text = std::fs::read_to_string(path).unwrap();
    let mut lines = text.lines();
    let names = cells(lines.next().unwrap());
    lines
        .map(|l| {
            let c: BTreeMap<String, String> = names.iter().cloned().zip(cells(l)).collect();
            Row { id: c["idx"].clone(), inputs: flat(&c["inputs"]), theirs: c }
        })
        .collect()
}

impl Row {
    fn int(&self, name: &str) -> u32 {
        self.inputs.get(name).map_or(0, |v| v.parse().unwrap())
    }

    fn parallel(&self, slot: &str) -> Parallel {
        let n = |name: &str| self.int(&format!("{slot}{name}")).max(1);
        Parallel {
            tp: n("tp_size"),
            dp: n("attention_dp_size"),
            ep: Some(n("moe_ep_size")),
            moe_tp: n("moe_tp_size"),
            ..Parallel::default()
        }
    }

    fn library(&self) -> Arc<Library> {
        self.made().unwrap()
    }

    fn made(&self) -> disagg::Result<Arc<Library>> {
        let formats = flat(&self.theirs["quant"]);
        let format = |name: &str| {
            let text = formats.get(name).or_else(|| formats.get(&format!("(p){name}")))?;
            Dtype::named(text)
        };
        let quant = Quant {
            gemm: format("gemm"),
            moe: format("moe"),
            // AFD rows state no formats; that tool takes FP8 KV for these checkpoints.
            kv: format("kvcache").or(Some(Dtype::Fp8)),
            attention: format("fmha").or(self.attention()),
            comm: None,
        };
        let model = catalog::model(&self.inputs["model_path"]).unwrap();
        let cluster = catalog::cluster(&self.inputs["system_name"], 64).unwrap();
        Library::new(
            lab::db().clone(),
            &model,
            &cluster,
            self.inputs["backend_name"].as_str().of(),
            &quant,
            &Serving::default(),
            &Assumptions::aiconfigurator(),
        )
        .map(Arc::new)
    }

    /// Attention format of rows that state none: what they ask for, else what that tool takes for the checkpoint.
    fn attention(&self) -> Option<Dtype> {
        match self.inputs.get("fmha_quant_mode") {
            Some(_) => Some(Dtype::Bf16),
            None => Some(Dtype::Fp8),
        }
    }

    fn number(&self, name: &str) -> Option<f64> {
        self.theirs[name].parse().ok().filter(|x: &f64| *x > 0.0)
    }
}

/// Mean decode step over the output, every 32nd token: that tool's integration.
fn generation(s: &StepEngine, batch: f64, isl: f64, osl: f64) -> f64 {
    let (mut i, mut sum) = (0.0, 0.0);
    while i < osl - 1.0 {
        sum += s.decode(batch, isl + i + 1.0).seconds * (osl - 1.0 - i).min(32.0);
        i += 32.0;
    }
    sum / (osl - 1.0)
}

/// One compared number: row, what, theirs, ours.
#[derive(Clone, Debug)]
struct Pair {
    row: String,
    what: &'static str,
    theirs: f64,
    ours: f64,
}

impl Pair {
    fn error(&self) -> f64 {
        self.ours / self.theirs - 1.0
    }
}

fn price(row: &Row, out: &mut Vec<Pair>) {
    let lib = row.library();
    let (isl, osl) = (f64::from(row.int("isl")), f64::from(row.int("osl")));
    let prefix = f64::from(row.int("prefix"));
    let w = Workload::fixed("golden", prefix, isl - prefix, osl);
    let load = Load::of(&w);
    let mode = row.inputs["mode"].as_str();
    let name = row.inputs["model_path"].rsplit('/').next().unwrap();
    let label = format!("{:>2} {mode} {name} {} {}", row.id, row.inputs["system_name"], row.inputs["backend_name"]);
    let mut push = |what, theirs: Option<f64>, ours: f64| {
        if let Some(theirs) = theirs {
            out.push(Pair { row: label.clone(), what, theirs, ours });
        }
    };
    let bytes = |s: &StepEngine, sequences: f64, tokens: f64| s.memory()[0].bytes(sequences, tokens) / GIB;
    match mode {
        "static_ctx" => {
            let b = f64::from(row.int("batch_size"));
            let s = lab::worker(&lib, row.parallel(""), &w.prefill_part());
            let t = s.prefill(b, isl - prefix, prefix, b * isl).latency_s;
            push("ttft", row.number("ttft_ms"), t * 1e3);
            push("tokens/s/gpu", row.number("tokens_s_gpu"), b * s.ranks() / t / f64::from(s.gpus()));
            push("memory", row.number("memory_gib"), bytes(&s, b, b * (isl - prefix)));
        }
        "static_gen" => {
            let b = f64::from(row.int("batch_size"));
            let s = lab::worker(&lib, row.parallel(""), &w);
            let t = generation(&s, b, isl, osl);
            push("tpot", row.number("tpot_ms"), t * 1e3);
            let rate = b * s.ranks() / t / f64::from(s.gpus());
            push("tokens/s/gpu", row.number("tokens_s_gpu"), rate);
            push("memory", row.number("memory_gib"), bytes(&s, b, b));
        }
        "agg" => {
            let b = f64::from(row.int("batch_size"));
            let s = lab::worker(&lib, row.parallel(""), &w);
            let p = aggregated::solve(&s, &load, b, f64::from(row.int("ctx_tokens")) + b, 1);
            push("ttft", row.number("ttft_ms"), p.ttft_s * 1e3);
            push("tpot", row.number("tpot_ms"), p.tpot_s * 1e3);
            let rate = p.requests_per_s * (osl - 1.0) / f64::from(s.gpus());
            push("tokens/s/gpu", row.number("tokens_s_gpu"), rate);
            let flight = aggregated::tokens_in_flight(&s, &load, b, f64::from(row.int("ctx_tokens")) + b - 1.0);
            push("memory", row.number("memory_gib"), bytes(&s, b, flight));
        }
        "disagg" => {
            let (np, nd) = (f64::from(row.int("prefill_num_workers")), f64::from(row.int("decode_num_workers")));
            let b = f64::from(row.int("decode_batch_size"));
            let p = lab::worker(&lib, row.parallel("prefill_"), &w.prefill_part());
            let d = lab::worker(&lib, row.parallel("decode_"), &w);
            let t = p.prefill(1.0, isl, 0.0, isl).latency_s * published::PREFILL_CORRECTION;
            let tpot = generation(&d, b, isl, osl) * published::DECODE_CORRECTION;
            let supply = np * p.ranks() / t * published::PREFILL_SHARE;
            let demand = nd * d.ranks() * b / (tpot * (osl - 1.0)) * published::DECODE_SHARE;
            let gpus = np * f64::from(p.gpus()) + nd * f64::from(d.gpus());
            push("ttft", row.number("ttft_ms"), t * 1e3 * published::PD_TTFT_FACTOR);
            push("tpot", row.number("tpot_ms"), tpot * 1e3);
            push("tokens/s/gpu", row.number("tokens_s_gpu"), supply.min(demand) * osl / gpus);
            push("memory p", row.number("p_memory"), bytes(&p, 1.0, isl));
            push("memory d", row.number("d_memory"), bytes(&d, b, b));
        }
        _ => {
            let node = lib.cluster.fabric.node_gpus;
            let (a, f) = (row.int("n_a_nodes") * node, row.int("n_f_nodes") * node);
            let tp = row.int("a_tp_size");
            let mut plan = lab::afd_plan(lab::pool(a, tp), lab::pool(f, 1), row.int("num_microbatches"));
            plan.ffn.ep = Some(row.int("f_moe_ep_size"));
            let b = f64::from(row.int("a_batch_size"));
            // One micro-batch is in flight at a time; in decode the KV of all is held.
            let micro = (b / f64::from(row.int("num_microbatches"))).ceil();
            let (s, held, tokens) = if row.inputs["afd_phase"] == "decode" {
                let s = lab::unit(&lib, &plan, &w);
                let t = generation(&s, b, isl, osl);
                push("tpot", row.number("tpot_ms"), t * 1e3);
                push("tokens/s/gpu", row.number("tokens_s_gpu"), b * f64::from(a / tp) / t / f64::from(a + f));
                (s, b, micro)
            } else {
                let s = lab::unit(&lib, &plan, &w.prefill_part());
                push("ttft", row.number("ttft_ms"), s.prefill(b, isl, 0.0, isl).latency_s * 1e3);
                (s, micro, micro * isl)
            };
            push("memory a", row.number("a_memory"), bytes(&s, held, tokens));
            push("memory f", row.number("f_memory"), s.memory()[1].bytes(held, tokens) / GIB);
        }
    }
}

fn pairs() -> &'static Vec<Pair> {
    static MADE: OnceLock<Vec<Pair>> = OnceLock::new();
    MADE.get_or_init(|| {
        let mut out = Vec::new();
        for row in rows().iter().filter(|r| r.theirs["err"].is_empty()) {
            price(row, &mut out);
        }
        out
    })
}

fn worst(what: &str) -> Vec<f64> {
    let mut e: Vec<f64> = pairs().iter().filter(|p| p.what.starts_with(what)).map(|p| p.error().abs()).collect();
    e.sort_by(f64::total_cmp);
    e
}

/// Numbers apart by more than 3 %, each with its cause. None are.
const EXPLAINED: [(&str, &str, &str); 0] = [];

/// Least counts within 3 %: what stands.
const WITHIN: [(&str, usize); 4] = [("ttft", 19), ("tpot", 15), ("tokens", 24), ("memory", 35)];

#[test]
fn the_profile_gives_what_that_tool_gives() {
    for p in pairs() {
        println!("{:<62} {:<13} {:>10.3} {:>10.3} {:>+7.1}%", p.row, p.what, p.theirs, p.ours, 100.0 * p.error());
    }
    let all: Vec<Row> = rows();
    assert_eq!((all.len(), all.iter().filter(|r| r.theirs["err"].is_empty()).count()), (29, 26));
    assert!(pairs().iter().all(|p| p.ours.is_finite() && p.ours > 0.0));
    for (what, least) in WITHIN {
        let e = worst(what);
        let within = e.iter().filter(|e| **e <= 0.03).count();
        println!("{what}: {within} of {} within 3 %, median {:.1} %", e.len(), 100.0 * e[e.len() / 2]);
        assert!(within >= least, "{what}: {within}");
        assert!(e[e.len() / 2] < 0.01, "{what}");
    }
    for p in pairs().iter().filter(|p| p.error().abs() > 0.03) {
        let id = p.row.trim().split(' ').next().unwrap();
        let known = EXPLAINED.iter().find(|(row, what, _)| *row == id && p.what.starts_with(what));
        println!("{} {}: {}", id, p.what, known.map_or("?", |k| k.2));
        assert!(known.is_some(), "{p:?}");
    }
}

/// Decode steps asked of that tool once every switch stood: nothing was fitted to them. What is apart by more than
/// 3 % has a cause that no switch names.
#[test]
fn steps_that_no_switch_was_made_for() {
    const APART: [(&str, f64, &str); 3] = [
        ("DeepSeek-V3.2 gb200 trtllm ep16", 0.05, "experts of FP8: 206 us a layer there, 181 here"),
        (
            "DeepSeek-V3.2 gb200 vllm ep8",
            0.25,
            "experts 302 and 245 us; the shared expert (617 us) hides behind nothing there",
        ),
        (
            "DeepSeek-V3.2 h200_sxm vllm ep16",
            0.35,
            "experts 440 and 240 us; the shared expert (171 us) hides behind nothing there",
        ),
    ];
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/golden_decode.csv");
    let text = std::fs::read_to_string(path).unwrap();
    let mut within = 0;
    for line in text.lines().skip(1) {
        let c = cells(line);
        let number = |i: usize| c[i].parse::<f64>().unwrap();
        let (model, ep) = (catalog::model(&c[0]).unwrap(), number(3) as u32);
        let cluster = catalog::cluster(&c[1], 64).unwrap();
        let quant = Quant { kv: Dtype::named(&c[6]), ..Quant::default() };
        let (serving, a) = (Serving::default(), Assumptions::aiconfigurator());
        let lib = Library::new(lab::db().clone(), &model, &cluster, c[2].as_str().of(), &quant, &serving, &a).unwrap();
        let w = Workload::fixed("golden", 0.0, number(5) - 1.0, 2.0);
        let s = lab::worker(&Arc::new(lib), lab::split(1, ep, 1), &w);
        let (theirs, ours) = (number(7), s.decode(number(4), number(5)).seconds * 1e3);
        let (error, label) =
            (ours / theirs - 1.0, format!("{} {} {} ep{ep}", model.name.rsplit('/').next().unwrap(), c[1], c[2]));
        println!("{label:<40} {:>4} x {:<6} {theirs:>8.3} {ours:>8.3} {:>+6.1}%", c[4], c[5], 100.0 * error);
        if error.abs() <= 0.03 {
            within += 1;
        } else {
            let known = APART.iter().find(|k| label == k.0);
            println!("{label}: {}", known.map_or("?", |k| k.2));
            assert!(known.is_some_and(|k| error.abs() <= k.1), "{label}: {error}");
        }
    }
    assert_eq!(within, 11);
}

/// Rows that end in an error there end in one here, with the field that is to blame.
#[test]
fn error_rows_raise() {
    for row in rows().iter().filter(|r| !r.theirs["err"].is_empty()) {
        let (isl, osl) = (f64::from(row.int("isl")), f64::from(row.int("osl")));
        let w = Workload::fixed("golden", 0.0, isl, osl);
        let raised = row.made().and_then(|lib| {
            let plan = match row.inputs["mode"].as_str() {
                "agg" => Plan::Aggregated(Aggregated {
                    parallel: row.parallel(""),
                    batch: Some(row.int("batch_size")),
                    chunk_tokens: Some(row.int("ctx_tokens") + row.int("batch_size")),
                    replicas: 1,
                    ..Default::default()
                }),
                _ => Plan::Pd(PdPlan {
                    prefill: lab::workers(row.int("prefill_num_workers"), row.parallel("prefill_"), Some(1), None),
                    decode: lab::workers(
                        row.int("decode_num_workers"),
                        row.parallel("decode_"),
                        Some(row.int("decode_batch_size")),
                        None,
                    ),
                }),
            };
            Engine::new(&lib, &w, &plan).map(|_| ())
        });
        let (field, cause) =
            if row.theirs["err"].contains("OOM") { ("plan", "out of memory") } else { ("quant.attention", "no fp8") };
        match raised {
            Err(Error::Spec(p)) => {
                let first = &p.0[0];
                assert!(first.path == field && first.message.contains(cause), "{}: {first}", row.id);
            }
            other => panic!("{}: {other:?}", row.id),
        }
    }
}
