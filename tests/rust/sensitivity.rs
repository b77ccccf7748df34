//! Sensitivities: against estimates made by hand, and the laws that elasticities keep.

use crate::lab::Server;
use disagg::columns::{Column, Columns};
use disagg::control::Control;
use disagg::design::sensitivity::{Baseline, sensitivity};
use disagg::serving::Engine;
use disagg::spec::ExpertLoad;
use disagg::spec::{Aggregated, Case, Imbalance, PdPlan, Plan, Workload};

use crate::lab::{self, afd_plan, gap, pool, split, workers};

const RATES: [&str; 4] = ["tflops", "hbm_gb_per_s", "nvlink_gb_per_s", "nic_gb_per_s"];

fn base(model: &str, system: &str, gpus: u32, framework: &str, plan: Plan) -> Baseline {
    let workload = Workload::fixed("w", 4096.0, 512.0, 256.0);
    let case = Case::new(lab::model(model), lab::cluster(system, gpus), workload).on(framework.of());
    let base = Baseline { case, plan, load: None };
    // As an estimate leaves it: every choice made.
    Baseline { plan: base.engine(lab::db()).unwrap().plan.clone(), ..base }
}

fn aggregated(parallel: disagg::spec::Parallel, batch: Option<u32>) -> Plan {
    Plan::Aggregated(Aggregated { parallel, batch, chunk_tokens: None, replicas: 1, ..Default::default() })
}

fn bases() -> Vec<(&'static str, Baseline)> {
    let v32 = "deepseek-ai/DeepSeek-V3.2";
    let pd = Plan::Pd(PdPlan {
        prefill: workers(3, split(1, 8, 1), None, None),
        decode: workers(1, split(1, 8, 1), Some(32), None),
    });
    let mut unit = afd_plan(pool(8, 1), pool(24, 1), 3);
    unit.batch = Some(64);
    vec![
        ("aggregated", base(v32, "b200_sxm", 8, "sglang", aggregated(split(1, 8, 1), None))),
        ("tensor", base("Qwen/Qwen3-30B-A3B", "h200_sxm", 16, "vllm", aggregated(split(4, 1, 2), Some(48)))),
        ("pd", base(v32, "b200_sxm", 32, "trtllm", pd)),
        ("afd", base(v32, "b200_sxm", 32, "sglang", Plan::Afd(unit))),
    ]
}

fn run(base: &Baseline, names: Option<&[&str]>, step: f64) -> Columns {
    let names: Option<Vec<String>> = names.map(|n| n.iter().map(|s| (*s).to_string()).collect());
    sensitivity(lab::db(), base, names.as_deref(), step, &Control::new()).unwrap()
}

fn numbers(found: &Columns, name: &str) -> Vec<f64> {
    match found.get(name) {
        Some(Column::F64(v)) => v.clone(),
        other => panic!("{name}: {other:?}"),
    }
}

fn texts(found: &Columns, name: &str) -> Vec<String> {
    match found.get(name) {
        Some(Column::Cat { codes, labels }) => codes.iter().map(|c| labels[*c as usize].clone()).collect(),
        other => panic!("{name}: {other:?}"),
    }
}

/// The slow twin: an engine compiled by hand for one end of one parameter.
#[test]
fn an_end_is_the_estimate_of_the_changed_question() {
    for (name, base) in bases() {
        let found = run(&base, Some(&["hbm_gb_per_s", "nvlink_gb_per_s", "isl"]), 0.2);
        for (row, by) in [("low", 0.8), ("high", 1.2)] {
            let mut cluster = base.case.cluster.clone();
            cluster.device.hbm_bytes_per_s *= by;
            let lib = lab::library(&base.case.model, &cluster, base.case.named()[0], &base.case.assumptions);
            let e = Engine::new(&lib, &base.case.workload, &base.plan).unwrap();
            let tpot = numbers(&found, &format!("tpot_ms_{row}"))[0];
            assert_eq!(tpot.to_bits(), (e.point.tpot_s * 1e3).to_bits(), "{name} {row}");
            let mut cluster = base.case.cluster.clone();
            cluster.fabric.nvlink_bytes_per_s *= by;
            let lib = lab::library(&base.case.model, &cluster, base.case.named()[0], &base.case.assumptions);
            let e = Engine::new(&lib, &base.case.workload, &base.plan).unwrap();
            let rate = e.tokens_per_s() / f64::from(cluster.gpus);
            assert_eq!(numbers(&found, &format!("tokens_per_s_per_gpu_{row}"))[1].to_bits(), rate.to_bits(), "{name}");
            let lib = lab::library(&base.case.model, &base.case.cluster, base.case.named()[0], &base.case.assumptions);
            let e = Engine::new(&lib, &Workload::fixed("w", 4096.0, 512.0 * by, 256.0), &base.plan).unwrap();
            assert_eq!(numbers(&found, &format!("ttft_ms_{row}"))[2].to_bits(), (e.point.ttft_s * 1e3).to_bits());
        }
        let (low, high) = (numbers(&found, "tpot_ms_low"), numbers(&found, "tpot_ms_high"));
        let by_hand = (high[0] / low[0]).ln() / (1.2_f64 / 0.8).ln();
        assert!(gap(numbers(&found, "tpot_ms_elasticity")[0], by_hand) < 1e-12);
    }
}

#[test]
fn more_of_a_rate_never_lowers_throughput() {
    for (name, base) in bases() {
        for step in [0.02, 0.1, 0.6] {
            let found = run(&base, Some(&RATES), step);
            let middle = base.engine(lab::db()).unwrap().tokens_per_s() / f64::from(base.case.cluster.gpus);
            let (low, high) =
                (numbers(&found, "tokens_per_s_per_gpu_low"), numbers(&found, "tokens_per_s_per_gpu_high"));
            for i in 0..RATES.len() {
                // 1e-3: the batch at which P/D slots agree is found to that.
                assert!(low[i] <= middle * 1.001 && middle <= high[i] * 1.001, "{name} {} {step}", RATES[i]);
            }
            if name != "pd" {
                for metric in ["ttft_ms", "tpot_ms"] {
                    let (low, high) =
                        (numbers(&found, &format!("{metric}_low")), numbers(&found, &format!("{metric}_high")));
                    assert!(
                        (0..RATES.len()).all(|i| high[i] <= low[i] * (1.0 + 1e-3)),
                        "{name} {metric} {low:?} {high:?}"
                    );
                }
            }
        }
    }
}

/// Without exchanges every time is homogeneous of degree -1 in the rates and log-convex in their logarithms:
/// any subgradient adds up to -1 (Euler) and lies between the slopes to either side, so those bracket it.
#[test]
fn elasticities_of_a_time_over_all_rates_add_up() {
    for (model, system, framework) in
        [("Qwen/Qwen3-30B-A3B", "h200_sxm", "trtllm"), ("Qwen/Qwen3-30B-A3B", "b200_sxm", "vllm")]
    {
        let base = base(model, system, 1, framework, aggregated(split(1, 1, 1), Some(32)));
        let middle = base.engine(lab::db()).unwrap();
        let mut faster = base.clone();
        let d = &mut faster.case.cluster.device;
        for rate in [&mut d.bf16_flops, &mut d.fp8_flops, &mut d.fp4_flops, &mut d.hbm_bytes_per_s] {
            *rate *= 1.7;
        }
        d.launch_s /= 1.7;
        let fast = faster.engine(lab::db()).unwrap();
        // Within what the fixed point of the batch is found to.
        assert!(
            gap(middle.point.tpot_s, fast.point.tpot_s * 1.7) < 1e-5
                && gap(middle.point.service_ttft_s(), fast.point.service_ttft_s() * 1.7) < 1e-5
        );
        for step in [0.02, 0.1] {
            let found = run(&base, Some(&["tflops", "hbm_gb_per_s", "launch_us"]), step);
            let tpot = middle.point.tpot_s * 1e3;
            let (low, high) = (numbers(&found, "tpot_ms_low"), numbers(&found, "tpot_ms_high"));
            let central = numbers(&found, "tpot_ms_elasticity");
            let down = |i: usize| (low[i] / tpot).ln() / (1.0_f64 - step).ln();
            let up = |i: usize| (high[i] / tpot).ln() / (1.0_f64 + step).ln();
            // The launch floor is a time: its rate is the inverse, whose steps are the other way round.
            let least = down(0) + down(1) - up(2);
            let most = up(0) + up(1) - down(2);
            let sum = central[0] + central[1] - central[2];
            assert!(least - 1e-4 <= -1.0 && -1.0 <= most + 1e-4, "{model} on {system}: {least} {most}");
            assert!(least - 1e-9 <= sum && sum <= most + 1e-9 && most - least < 2.0 * step, "{least} {sum} {most}");
        }
    }
    // Start-ups of exchanges take their share off.
    let (_, eight) = bases().swap_remove(0);
    let found = run(&eight, Some(&["tflops", "hbm_gb_per_s", "nvlink_gb_per_s", "launch_us"]), 0.01);
    let e = numbers(&found, "tpot_ms_elasticity");
    let sum = e[0] + e[1] + e[2] - e[3];
    assert!(-0.999 < sum && sum < -0.8, "{e:?}");
}

#[test]
fn what_a_plan_does_not_use_moves_nothing_and_price_is_proportional() {
    let (_, base) = bases().swap_remove(0);
    let found = run(&base, None, 0.3);
    let names = texts(&found, "parameter");
    let row = |name: &str| names.iter().position(|n| n == name).unwrap();
    for metric in disagg::design::sensitivity::METRICS {
        let e = numbers(&found, &format!("{metric}_elasticity"));
        assert_eq!(e[row("nic_gb_per_s")], 0.0, "{metric}");
        let unit = |on: &str| if metric == on { 1.0 } else { 0.0 };
        assert!((e[row("usd_per_hour")] - unit("usd_per_mtok")).abs() < 1e-12, "{metric}");
        assert!((e[row("power_w")] - unit("joules_per_token")).abs() < 1e-12, "{metric}");
    }
    assert!(!names.contains(&"afd_alpha_scale".to_string()) && !names.contains(&"load".to_string()));
}

/// A pool's own hardware is part of the deployment: its price and its rates count.
#[test]
fn pools_of_their_own_hardware_are_varied_too() {
    let mut unit = afd_plan(pool(8, 1), pool(8, 1), 2);
    unit.batch = Some(16);
    unit.ffn.device = Some(lab::cluster("h200_sxm", 8).device);
    let base = base("Qwen/Qwen3-235B-A22B", "b200_sxm", 16, "trtllm", Plan::Afd(unit));
    let found = run(&base, Some(&["usd_per_hour", "afd_alpha_scale"]), 0.1);
    assert!((numbers(&found, "usd_per_mtok_elasticity")[0] - 1.0).abs() < 1e-12);
    let alpha = numbers(&found, "tpot_ms_elasticity")[1];
    assert!(0.0 < alpha && alpha < 1.0, "{alpha}");
}

#[test]
fn an_end_that_does_not_stand_says_why() {
    let (_, mut base) = bases().swap_remove(0);
    base.case.serving.mtp = 1;
    base.case.serving.acceptance = Some(0.95);
    let Plan::Aggregated(a) = &mut base.plan else { panic!() };
    a.batch = Some(100);
    let found = run(&base, Some(&["hbm_gib", "acceptance"]), 0.5);
    let status = texts(&found, "status");
    assert_eq!(status[0], "low: memory:worker");
    assert!(status[1].starts_with("high: serving.acceptance: must be from 0 to mtp = 1"), "{status:?}");
    assert!(numbers(&found, "ttft_ms_low")[0].is_nan() && numbers(&found, "ttft_ms_high")[1].is_nan());
    assert_eq!(numbers(&found, "ttft_ms_elasticity")[0], 0.0);
    assert!(numbers(&found, "tpot_ms_elasticity")[1] < 0.0);
}

#[test]
fn wrong_questions_are_refused_by_name() {
    let (_, mut base) = bases().swap_remove(0);
    let ask = |base: &Baseline, names: &[&str], step: f64| {
        let names: Vec<String> = names.iter().map(|n| (*n).to_string()).collect();
        sensitivity(lab::db(), base, Some(&names), step, &Control::new()).unwrap_err().to_string()
    };
    assert!(ask(&base, &["hbm_gb_per"], 0.1).contains("did you mean 'hbm_gb_per_s'"));
    assert!(ask(&base, &["isl", "isl"], 0.1).contains("is there twice"));
    assert!(ask(&base, &["acceptance"], 0.1).contains("no draft tokens"));
    assert!(ask(&base, &["afd_alpha_scale"], 0.1).contains("no A2F"));
    for step in [0.0, 1.0, -0.1, f64::NAN] {
        assert!(ask(&base, &["isl"], step).starts_with("step: "), "{step}");
    }
    let Plan::Aggregated(a) = &mut base.plan else { panic!() };
    a.parallel = disagg::spec::Parallel { tp: 8, ep: Some(1), moe_tp: 8, ..split(1, 1, 1) };
    assert!(ask(&base, &["imbalance"], 0.1).contains("ranks are even"));
    let Plan::Aggregated(a) = &mut base.plan else { panic!() };
    a.parallel = split(1, 8, 1);
    base.case.serving.imbalance = Some(Imbalance::Name(ExpertLoad::Balanced));
    assert!(ask(&base, &["imbalance"], 0.1).contains("even"));
    base.case.cluster.device.hbm_bytes = 1e10;
    assert!(ask(&base, &["isl"], 0.1).contains("not feasible: memory:worker"));
    let control = Control::new();
    control.cancel();
    let (_, base) = bases().swap_remove(0);
    let stopped = sensitivity(lab::db(), &base, None, 0.1, &control);
    assert!(matches!(stopped, Err(disagg::Error::Cancelled)));
}

/// The exponent of a power law, as a number and as a histogram: nearly the same change of the same load.
#[test]
fn imbalance_of_a_histogram_is_that_of_its_law() {
    let (_, mut base) = bases().swap_remove(0);
    base.case.serving.imbalance = Some(Imbalance::Exponent(1.01));
    let law = numbers(&run(&base, Some(&["imbalance"]), 0.2), "tpot_ms_elasticity")[0];
    let loads = (1..=256).map(|i| f64::from(i).powf(-0.8)).collect();
    base.case.serving.imbalance = Some(Imbalance::Histogram(loads));
    let found = run(&base, Some(&["imbalance"]), 0.2);
    let own = numbers(&found, "tpot_ms_elasticity")[0];
    assert!(law > 0.0 && own > 0.0, "{law} {own}");
    assert_eq!(numbers(&found, "value")[0], 1.0);
}
