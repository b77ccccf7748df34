//! Speed of the request simulator, in one process a case so that the peak of memory is its own:
//! `cargo run --release --example sim -- short|mooncake|wide|million [file] [fixed]`.
//!
//! `short`: 20,000 requests of 1024 -> 200 on 4 workers, one every 20 ms. `mooncake FILE`: the
//! conversation trace (plain or JSON lines) on 16 instances. `wide`: 100,000 requests on 64.
//! `million`: 10^6 requests of 512 -> 64 on 64. Prices of the engine unless `fixed` is given.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use disagg::control::Control;
use disagg::cost::Library;
use disagg::kernels::KernelDb;
use disagg::serving::Engine;
use disagg::sim::{Deployment, Requests, Router, Settings, Timing, pricers, simulate_with};
use disagg::spec::{Aggregated, Assumptions, Framework, Parallel, Plan, Quant, Serving, Workload, catalog};

const MS: u64 = 1_000_000_000;

fn regular(n: usize, gap_ps: u64, isl: u32, osl: u32) -> Requests {
    let arrival_ps = (0..n as u64).map(|i| i * gap_ps).collect();
    Requests { arrival_ps, isl: vec![isl; n], osl: vec![osl; n], ..Requests::default() }
}

fn mooncake(path: &str) -> Requests {
    let mut r = Requests { block_tokens: 512, hash_offsets: vec![0], ..Requests::default() };
    for line in std::fs::read_to_string(path).unwrap().lines() {
        let v: serde_json::Value = serde_json::from_str(line).unwrap();
        let number = |k: &str| v[k].as_u64().unwrap();
        r.arrival_ps.push(number("timestamp") * MS);
        r.isl.push(number("input_length").max(1) as u32);
        r.osl.push(number("output_length").max(1) as u32);
        r.hashes.extend(v["hash_ids"].as_array().unwrap().iter().map(|h| h.as_u64().unwrap()));
        r.hash_offsets.push(r.hashes.len() as u32);
    }
    r
}

/// A small mixture of experts on one GPU an instance.
fn engine(instances: u32) -> Arc<Engine> {
    let db = KernelDb::open(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/python/disagg/data/kernels"))).unwrap();
    let model = catalog::model("Qwen/Qwen3-30B-A3B").unwrap();
    let cluster = catalog::cluster("b200_sxm", instances).unwrap();
    let (quant, serving, how) = (Quant::default(), Serving::default(), Assumptions::physical());
    let lib = Arc::new(Library::new(db, &model, &cluster, Framework::Trtllm, &quant, &serving, &how).unwrap());
    let plan = Plan::Aggregated(Aggregated {
        parallel: Parallel::default(),
        batch: Some(256),
        chunk_tokens: Some(8192),
        replicas: instances,
        ..Default::default()
    });
    Arc::new(Engine::new(&lib, &Workload::fixed("bench", 0.0, 1024.0, 200.0), &plan).unwrap())
}

fn peak_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|l| l.starts_with("VmHWM")).unwrap_or("VmHWM: 0 kB");
    line.split_whitespace().nth(1).and_then(|x| x.parse::<f64>().ok()).unwrap_or(0.0) / 1024.0
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let case = args.get(1).map_or("short", String::as_str);
    let fixed = args.iter().any(|a| a == "fixed");
    let (instances, requests) = match case {
        "short" => (4, regular(20_000, 20 * MS, 1024, 200)),
        "mooncake" => (16, mooncake(args.get(2).expect("the trace file"))),
        "wide" => (64, regular(100_000, 20 * MS / 16, 1024, 200)),
        "million" => (64, regular(1_000_000, MS / 2, 512, 64)),
        other => panic!("{other} is not a case: short, mooncake, wide, million"),
    };
    let deployment = if fixed {
        let timing = Timing::Fixed { prefill_ps: 20 * MS, decode_ps: 10 * MS };
        let mut d = Deployment::uniform(instances, 256, 8192, timing);
        d.pools[0].kv_tokens = 16_384 * 64;
        d
    } else {
        Deployment::of(&engine(instances))
    };
    let settings = Settings { router: Router::RoundRobin, kv_block_tokens: 64, ..Settings::default() };
    let prices = pricers(&deployment);
    for turn in ["first", "again"] {
        let start = Instant::now();
        let o = simulate_with(&prices, &deployment, &requests, &settings, &Control::new()).unwrap();
        let s = start.elapsed().as_secs_f64();
        let n = requests.len() as f64;
        let ttft: f64 = (0..requests.len())
            .filter(|i| o.finish_ps[*i] != u64::MAX)
            .map(|i| (o.first_token_ps[i] - o.arrival_ps[i]) as f64 / 1e9)
            .sum::<f64>()
            / n;
        println!(
            "{case} {turn}: {s:.3} s, {:.0} requests/s, {} events for {} steps, {:?} (finished, rejected, unfinished), mean TTFT {ttft:.2} ms, simulated {:.1} s, peak {:.0} MiB",
            n / s,
            o.events,
            o.steps,
            o.counts(),
            o.end_ps as f64 / 1e12,
            peak_mib()
        );
    }
}
