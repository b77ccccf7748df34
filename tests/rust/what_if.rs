//! What-if hardware: more of any figure never costs time, at any size of the change, and less never saves any.

use disagg::control::Control;
use disagg::network::{A2aKind, A2aShape, AfdShape, Comm};
use disagg::search::{Question, explore};
use disagg::serving::residuals::SCALED;
use disagg::serving::{Engine, StepEngine};
use disagg::spec::{Aggregated, Assumptions, Case, Cluster, Dtype, Level, Parallel, Plan, Slo, Workload};

use crate::lab;

/// Factors on one figure, rising; 1 is the preset itself.
const FACTORS: [f64; 9] = [0.25, 0.5, 0.8, 0.99, 1.0, 1.01, 1.1, 1.5, 3.0];

fn varied(system: &str, gpus: u32, vary: impl Fn(&mut Cluster, f64), by: f64) -> Cluster {
    let mut c = lab::cluster(system, gpus);
    vary(&mut c, by);
    c
}

fn falls(times: &[f64], what: &str) {
    assert!(times.windows(2).all(|w| w[1] <= w[0] * (1.0 + 1e-9)), "{what}: {times:?}");
}

#[test]
fn wires_of_ones_own_count_where_rows_were_measured_too() {
    for (system, gpus) in [("b200_sxm", 8), ("h100_sxm", 32), ("gb200", 72)] {
        let ep = gpus.min(32);
        let shape = A2aShape {
            hidden: 7168,
            topk: 8,
            experts: 256,
            groups: 8,
            topk_groups: 4,
            ep,
            dispatch_dtype: Dtype::Fp8Block,
        };
        type Phase<'a> = (&'a str, Box<dyn Fn(&Comm, f64) -> f64>);
        let mut phases: Vec<Phase<'_>> = vec![
            ("all-reduce", Box::new(|c, by| c.all_reduce(by * 1e8, 8, true).seconds)),
            ("all-gather", Box::new(|c, by| c.all_gather(by * 1e8, 4).seconds)),
        ];
        for kind in lab_kinds(system) {
            phases.push(("dispatch", Box::new(move |c, by| c.dispatch(&shape, by * 1000.0, kind).seconds)));
            phases.push(("combine", Box::new(move |c, by| c.combine(&shape, by * 1000.0, kind).seconds)));
        }
        let comm = |by: f64, nic: bool| {
            let vary = |c: &mut Cluster, by: f64| {
                *(if nic { &mut c.fabric.nic_bytes_per_s } else { &mut c.fabric.nvlink_bytes_per_s }) *= by;
            };
            Comm::new(lab::db().clone(), &varied(system, gpus, vary, by), "sglang", 1.0).unwrap()
        };
        for (name, phase) in &phases {
            let what = format!("{name} on {system}");
            let nvlink: Vec<f64> = FACTORS.iter().map(|f| phase(&comm(*f, false), 1.0)).collect();
            falls(&nvlink, &what);
            falls(&FACTORS.map(|f| phase(&comm(f, true), 1.0)), &what);
            // Inside one domain large messages go with the wire, the start does not.
            if gpus <= lab::cluster(system, gpus).fabric.domain_gpus {
                assert!(nvlink[1] > 1.4 * nvlink[4], "{what}: half the wire, {nvlink:?}");
                let small = |f: f64| phase(&comm(f, false), 1e-6);
                assert!((small(0.5) / small(1.0) - 1.0).abs() < 0.05, "{what}: {} {}", small(0.5), small(1.0));
            }
        }
        // Not measured on those links, and said so.
        let evidence = |f: f64| comm(f, false).all_gather(1e8, 4).evidence;
        assert!(evidence(0.99) == disagg::kernels::Evidence::Extrapolated && evidence(1.0) < evidence(0.99));
    }
}

fn lab_kinds(system: &str) -> Vec<A2aKind> {
    Comm::new(lab::db().clone(), &lab::cluster(system, 72), "sglang", 1.0).unwrap().kinds().to_vec()
}

#[test]
fn hops_of_afd_go_with_the_wire() {
    let shape = AfdShape {
        hidden: 7168,
        topk: 8,
        experts: 256,
        groups: 0,
        topk_groups: 0,
        attention_gpus: 16,
        attention_tp: 1,
        ffn_gpus: 48,
        ep: 48,
        moe_tp: 1,
        dispatch_dtype: Dtype::Fp8Block,
        prereduce: false,
        shared_copy: true,
        half_duplex: false,
        spread: None,
    };
    let at = |f: f64| {
        let c = varied("gb200", 72, |c, by| c.fabric.nvlink_bytes_per_s *= by, f);
        Comm::new(lab::db().clone(), &c, "trtllm", 1.0).unwrap().a2f(&shape, 512.0).seconds
    };
    falls(&FACTORS.map(at), "A2F");
    assert!(at(0.5) > 1.5 * at(1.0));
}

/// A variation of a known device reads that device's tables, however large it is: no jump to another machine's.
#[test]
fn more_of_a_device_is_never_slower() {
    type Vary = fn(&mut Cluster, f64);
    let figures: [(&str, Vary); 4] = [
        ("arithmetic", |c, by| {
            for rate in [&mut c.device.bf16_flops, &mut c.device.fp8_flops, &mut c.device.fp4_flops] {
                *rate *= by;
            }
        }),
        ("HBM", |c, by| c.device.hbm_bytes_per_s *= by),
        ("launches", |c, by| c.device.launch_s /= by),
        ("NVLink", |c, by| c.fabric.nvlink_bytes_per_s *= by),
    ];
    for (name, system, framework) in [
        ("deepseek-ai/DeepSeek-V3.2", "b200_sxm", "sglang"),
        ("Qwen/Qwen3-235B-A22B", "h200_sxm", "vllm"),
        ("deepseek-ai/DeepSeek-V3.2", "gb200", "trtllm"),
    ] {
        for (figure, vary) in figures {
            let times = FACTORS.map(|f| {
                let lib =
                    lab::library(&lab::model(name), &varied(system, 8, vary, f), framework, &Assumptions::physical());
                let w = Workload::fixed("w", 0.0, 2000.0, 200.0);
                let s: StepEngine = lab::worker(&lib, lab::split(1, 8, 1), &w);
                [s.decode(64.0, 2000.0).seconds, s.prefill(1.0, 2000.0, 0.0, 2000.0).latency_s]
            });
            for phase in [0, 1] {
                falls(&times.map(|t| t[phase]), &format!("{figure} of {name} on {system}, phase {phase}"));
            }
            // The preset is where it was: a hair beside it is a hair apart.
            assert!((times[3][0] / times[5][0] - 1.0).abs() < 0.03, "{figure} of {name}: {times:?}");
        }
    }
    // As a user asks: a plan, whole.
    let tpot = |f: f64| {
        let c = varied("b200_sxm", 8, figures[0].1, f);
        let lib = lab::library(&lab::model("deepseek-ai/DeepSeek-V3.2"), &c, "sglang", &Assumptions::physical());
        let plan = Plan::Aggregated(Aggregated {
            parallel: lab::split(1, 8, 1),
            batch: Some(64),
            chunk_tokens: Some(2048),
            replicas: 1,
            ..Default::default()
        });
        Engine::new(&lib, &lab::chat(), &plan).unwrap().point.tpot_s
    };
    falls(&FACTORS.map(tpot), "TPOT over arithmetic");
}

type Vary = fn(&mut Cluster, f64);

/// Every figure of a device and its links that a user may vary.
const FIGURES: [(&str, Vary); 9] = [
    ("BF16", |c, by| c.device.bf16_flops *= by),
    ("FP8", |c, by| c.device.fp8_flops *= by),
    ("FP4", |c, by| c.device.fp4_flops *= by),
    ("HBM bandwidth", |c, by| c.device.hbm_bytes_per_s *= by),
    ("HBM capacity", |c, by| c.device.hbm_bytes *= by),
    ("launches", |c, by| c.device.launch_s *= by),
    ("NVLink", |c, by| c.fabric.nvlink_bytes_per_s *= by),
    ("NIC", |c, by| c.fabric.nic_bytes_per_s *= by),
    ("name", |c, by| {
        if by != 1.0 {
            c.device.name = "of my own".into();
        }
    }),
];

fn near(a: f64, b: f64, what: &str) {
    assert!((a / b - 1.0).abs() < 1e-4, "{what}: {a} against {b}");
}

/// One part in a million of any figure moves latencies and rates by about as much, and no choice of framework.
#[test]
fn a_hair_of_any_figure_is_a_hair_of_the_answer() {
    let prefill = lab::workers(1, lab::split(1, 8, 1), Some(4), Some(512));
    let decode = lab::workers(1, lab::split(1, 8, 1), Some(64), None);
    let pd = Plan::Pd(disagg::spec::PdPlan { prefill, decode });
    for (name, system, framework) in [
        ("deepseek-ai/DeepSeek-V3.2", "gb200", "sglang"),
        ("deepseek-ai/DeepSeek-V3.2", "gb200", "trtllm"),
        ("Qwen/Qwen3-235B-A22B-FP8", "h200_sxm", "vllm"),
        ("openai/gpt-oss-120b", "b200_sxm", "trtllm"),
    ] {
        let model = lab::model(name);
        let chosen = |c: &Cluster| Case::new(model.clone(), c.clone(), lab::chat()).framework(lab::db()).unwrap();
        let preset = lab::cluster(system, 16);
        let point = |c: &Cluster| {
            let lib = lab::library(&model, c, framework, &Assumptions::physical());
            Engine::new(&lib, &lab::chat(), &pd).unwrap().point
        };
        let at = point(&preset);
        for (figure, vary) in FIGURES {
            for by in [1.0 - 1e-6, 1.0 + 1e-6] {
                let c = varied(system, 16, vary, by);
                let what = format!("{figure} of {name} on {system} with {framework}, x {by}");
                assert_eq!(chosen(&c), chosen(&preset), "{what}");
                let p = point(&c);
                near(p.ttft_s, at.ttft_s, &what);
                near(p.tpot_s, at.tpot_s, &what);
                near(p.requests_per_s, at.requests_per_s, &what);
            }
            // Nor do large changes move the choice of kernels.
            for by in [0.5, 2.0] {
                assert_eq!(chosen(&varied(system, 16, vary, by)), chosen(&preset), "{figure} x {by}");
            }
        }
    }
}

/// The best of a search moves no more than its plans do.
#[test]
fn a_hair_of_any_figure_is_a_hair_of_the_best() {
    let model = lab::model("deepseek-ai/DeepSeek-V3.2");
    let slo = Slo { ttft_ms: Some(1000.0), tpot_ms: Some(30.0), percentile: None };
    let best = |c: &Cluster| {
        let mut case = Case::new(model.clone(), c.clone(), lab::chat());
        case.frameworks = Some(case.compared(lab::db()).unwrap().frameworks);
        let mut q = Question::new(case, slo);
        q.levels = vec![Level::Aggregated, Level::Pd];
        let study = explore(lab::db(), &q, &Control::new()).unwrap();
        let of = |v: &disagg::search::study::Verdict| study.rows[v.row.unwrap()].point.requests_per_s;
        study.verdicts.iter().map(of).collect::<Vec<f64>>()
    };
    let preset = best(&lab::cluster("gb200", 8));
    for (figure, vary) in FIGURES {
        for (a, b) in best(&varied("gb200", 8, vary, 1.0 + 1e-6)).into_iter().zip(&preset) {
            near(a, *b, figure);
        }
    }
}

/// A device of the user's own on a system reads that system's tables, and says so; a preset's name reads its own.
#[test]
fn tables_are_those_of_the_system_a_device_stands_on() {
    let model = lab::model("Qwen/Qwen3-30B-A3B");
    let tpot = |c: &Cluster| {
        let lib = lab::library(&model, c, "vllm", &Assumptions::physical());
        let plan = Plan::Aggregated(Aggregated {
            parallel: lab::split(1, 1, 1),
            batch: Some(16),
            chunk_tokens: Some(1024),
            replicas: 1,
            ..Default::default()
        });
        let e = Engine::new(&lib, &lab::chat(), &plan).unwrap().estimate().unwrap().scalars;
        (e.tpot_ms, e.warnings, e.evidence_tpot)
    };
    let mut seen = Vec::new();
    for system in ["h100_sxm", "h200_sxm", "b200_sxm", "gb200"] {
        let mut c = lab::cluster(system, 1);
        c.device = disagg::spec::Device {
            name: "own".into(),
            bf16_flops: 148e12,
            fp8_flops: 296e12,
            fp4_flops: 0.0,
            hbm_bytes_per_s: 4.0e12,
            hbm_bytes: 96e9,
            ..c.device
        };
        let (ms, warnings, evidence) = tpot(&c);
        assert!(
            warnings.iter().any(|w| w.contains("'own'") && w.contains(system) && w.contains("HBM bytes/s x ")),
            "{warnings:?}"
        );
        assert!(evidence["scaled"] > 0.5 && evidence["measured"] + evidence["interpolated"] < 0.1, "{evidence:?}");
        seen.push(ms);
    }
    assert!(seen.windows(2).all(|w| w[0] != w[1]), "utilisations differ by system: {seen:?}");
    // A device with a preset's figures and another name is that preset.
    let preset = lab::cluster("b200_sxm", 1);
    let mut renamed = preset.clone();
    renamed.device.name = "mine".into();
    let (own, same) = (tpot(&preset), tpot(&renamed));
    assert_eq!(own, same);
    assert!(own.1.is_empty(), "{:?}", own.1);
    // A preset's device in another system's cluster keeps its own tables.
    let guest = Cluster { device: lab::cluster("h200_sxm", 1).device, ..preset };
    let (ms, warnings, _) = tpot(&guest);
    assert_eq!(ms, tpot(&lab::cluster("h200_sxm", 1)).0);
    assert!(warnings[0].contains("'h200_sxm' in a cluster of b200_sxm"), "{warnings:?}");
    // A device known by its data sheet reads those of its nearest relative, alone or in another system's cluster.
    let h20 = lab::cluster("h20", 1);
    assert_eq!((h20.system.as_str(), h20.device.name.as_str()), ("h200_sxm", "h20"));
    let guest = Cluster { device: h20.device.clone(), ..lab::cluster("b200_sxm", 1) };
    let (alone, beside) = (tpot(&h20), tpot(&guest));
    assert_eq!(alone.0, beside.0);
    for (_, warnings, evidence) in [alone, beside] {
        assert!(
            warnings[0].contains("'h20'") && warnings[0].contains("h200_sxm") && evidence["scaled"] > 0.5,
            "{warnings:?}"
        );
    }
}

/// The error bar widens with the distance from the device that was measured, and by nothing for a change of nothing.
#[test]
fn what_is_told_from_afar_is_known_less() {
    use disagg::serving::residuals::{CHANCE, Quantity, Served, interval};
    let model = lab::model("Qwen/Qwen3-32B");
    let width = |by: f64| {
        let c = varied("b200_sxm", 8, |c, by| c.device.hbm_bytes_per_s *= by, by);
        let lib = lab::library(&model, &c, "sglang", &Assumptions::physical());
        let [low, high] = interval(&Served::of(&lib, Level::AggregatedAfd), Quantity::Tpot, CHANCE).factors;
        (high / low).ln()
    };
    let widths = [1.0, 1.0 + 1e-6, 1.2, 1.6, 2.5, 5.0].map(width);
    assert!((widths[1] / widths[0] - 1.0).abs() < 1e-5 && widths.windows(2).all(|w| w[0] <= w[1]), "{widths:?}");
    assert!(widths[4] > 1.02 * widths[0] && widths[4] == widths[5], "{widths:?}");
}

/// Steps of one generation from the tables of the other: ln(scaled / measured) of decode and prefill steps.
fn across(from: &str, to: &str) -> Vec<f64> {
    let mut out = Vec::new();
    for (model, tp, experts) in [
        ("Qwen/Qwen3-32B", 2, false),
        ("meta-llama/Meta-Llama-3.1-70B", 4, false),
        ("Qwen/Qwen3-235B-A22B-FP8", 8, true),
        ("deepseek-ai/DeepSeek-V3", 8, true),
        ("MiniMaxAI/MiniMax-M2.5", 4, true),
    ] {
        for framework in ["trtllm", "sglang", "vllm"] {
            let target = lab::cluster(to, 8);
            let mut scaled = Cluster { system: from.into(), ..target.clone() };
            scaled.device.name = "unseen".into();
            let lib = |c: &Cluster| lab::library(&lab::model(model), c, framework, &Assumptions::physical());
            let (own, stood) = (lib(&target), lib(&scaled));
            if own.formats != stood.formats {
                continue;
            }
            let parallel = Parallel { tp, ep: experts.then_some(tp), ..Parallel::default() };
            let w = lab::chat();
            let (own, stood) = (lab::worker(&own, parallel, &w), lab::worker(&stood, parallel, &w));
            for batch in [1.0, 8.0, 64.0, 256.0] {
                let time = |s: &StepEngine| s.decode(batch, 4096.0).seconds;
                out.push((time(&stood) / time(&own)).ln());
            }
            for tokens in [512.0, 4096.0, 16384.0] {
                let time = |s: &StepEngine| s.prefill(1.0, tokens, 0.0, tokens).latency_s;
                out.push((time(&stood) / time(&own)).ln());
            }
        }
    }
    out
}

/// The law for devices without tables, held against a generation that it has not seen.
#[test]
fn a_generation_is_told_from_the_other() {
    for (from, to) in [("h200_sxm", "b200_sxm"), ("b200_sxm", "h200_sxm")] {
        let mut logs = across(from, to);
        let n = logs.len() as f64;
        let (bias, spread) = (logs.iter().sum::<f64>() / n, (logs.iter().map(|l| l * l).sum::<f64>() / n).sqrt());
        logs.sort_by(|a, b| a.abs().total_cmp(&b.abs()));
        println!(
            "{to} from {from}: {n} steps, median {:.3}, mean {bias:+.3}, spread {spread:.3}",
            logs[logs.len() / 2].abs()
        );
        assert!(n >= 50.0 && spread < SCALED && spread > 0.9 * SCALED, "{n} {spread}");
    }
}
