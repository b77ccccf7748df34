//! Devices fitted to logs: found again from a simulated one; those shipped are least; measured servers are met.

use disagg::calibrate::served::{device, distance};
use disagg::control::Control;
use disagg::sim::replay::{Log, Server, replay};
use disagg::sim::trace::draw;
use disagg::sim::{Requests, Settings};
use disagg::spec::Framework;
use disagg::spec::{Aggregated, Case, Device, Distribution, Parallel, Plan, Workload, catalog};
use disagg::validation::served::{FITTED, log, rows, runs, server};

use crate::lab::db;

fn lab(workload: Workload) -> Server {
    Server {
        db: db().clone(),
        case: Case::new(catalog::model("Qwen/Qwen3-32B").unwrap(), catalog::cluster("h200_sxm", 1).unwrap(), workload)
            .on(Framework::Vllm),
        plan: Plan::Aggregated(Aggregated {
            parallel: Parallel { tp: 1, dp: 1, pp: 1, cp: 1, ep: None, moe_tp: 1 },
            batch: Some(32),
            chunk_tokens: Some(2048),
            replicas: 1,
            ..Default::default()
        }),
        settings: Settings::default(),
    }
}

fn off(d: &Device, by: [f64; 3]) -> Device {
    Device {
        bf16_flops: d.bf16_flops * by[0],
        fp8_flops: d.fp8_flops * by[0],
        fp4_flops: d.fp4_flops * by[0],
        hbm_bytes_per_s: d.hbm_bytes_per_s * by[1],
        launch_s: d.launch_s * by[2],
        ..d.clone()
    }
}

#[test]
fn a_device_is_found_again_from_its_own_log() {
    let isl = Distribution::Uniform { low: 100.0, high: 3000.0 };
    let workload = Workload { isl, ..Workload::fixed("log", 0.0, 1.0, 24.0) };
    let requests = draw::open(&workload, 4.0, 1.0, 60, 7).unwrap().requests;
    let s = lab(workload);
    let truth = off(&s.case.cluster.device, [0.6, 0.8, 1.5]);
    let l = replay(&s, &truth, &requests, &Control::new()).unwrap();
    let log = Log { requests, ttft_ms: l.ttft_ms, tpot_ms: l.tpot_ms };
    assert_eq!(distance(&s, &truth, &log, &Control::new()).unwrap(), 0.0);
    let fit = device(&s, &log, &Control::new()).unwrap();
    let near = |a: f64, b: f64| (a / b - 1.0).abs() < 0.03;
    assert!(near(fit.device.bf16_flops, truth.bf16_flops), "{fit:?}");
    assert!(near(fit.device.hbm_bytes_per_s, truth.hbm_bytes_per_s), "{fit:?}");
    assert!(fit.ttft.unwrap().mape < 0.01 && fit.tpot.unwrap().mape < 0.005, "{fit:?}");
    let stopped = Control::new();
    stopped.cancel();
    assert!(device(&s, &log, &stopped).is_err());
}

#[test]
fn a_log_without_latencies_or_with_bad_ones_is_refused() {
    let s = lab(Workload::fixed("log", 0.0, 100.0, 10.0));
    let requests = Requests { arrival_ps: vec![0, 1], isl: vec![9, 9], osl: vec![5, 5], ..Requests::default() };
    let refused = |ttft_ms: Vec<f64>, tpot_ms: Vec<f64>| {
        device(&s, &Log { requests: requests.clone(), ttft_ms, tpot_ms }, &Control::new()).unwrap_err().to_string()
    };
    assert!(refused(vec![f64::NAN; 2], vec![f64::NAN; 2]).contains("no latency"));
    assert!(refused(vec![-1.0, 2.0], vec![f64::NAN; 2]).contains("ttft_ms[0]"));
    assert!(refused(vec![1.0], vec![f64::NAN; 2]).contains("ttft_ms"));
}

#[test]
fn the_devices_that_are_shipped_are_least_on_the_first_half() {
    for run in runs().unwrap() {
        let mut l = log(&run.run).unwrap();
        assert_eq!(l.requests.len(), 300);
        l.ttft_ms[FITTED..].fill(f64::NAN);
        l.tpot_ms[FITTED..].fill(f64::NAN);
        let s = server(db(), &run, &run.device, &l.requests).unwrap();
        let least = distance(&s, &run.device, &l, &Control::new()).unwrap();
        for by in [[1.1, 1.0, 1.0], [0.9, 1.0, 1.0], [1.0, 1.1, 1.0], [1.0, 0.9, 1.0], [1.0, 1.0, 2.0]] {
            let other = distance(&s, &off(&run.device, by), &l, &Control::new()).unwrap();
            // Arithmetic that never binds may be as good; nothing is better.
            assert!(other >= least * (1.0 - 1e-9), "{}: {other} {by:?} below {least}", run.run);
        }
    }
}

#[test]
fn measured_servers_are_met_on_the_half_that_was_kept_out() {
    let rows = rows(db(), &Control::new()).unwrap();
    assert_eq!(rows.len(), 8);
    for r in rows.iter().filter(|r| r.status.starts_with("check")) {
        assert_eq!(r.status, "check: met", "{} {}: {:+.3}", r.name, r.metric, r.error());
        assert_eq!(r.spread.unwrap().rows, 300 - FITTED);
    }
}
