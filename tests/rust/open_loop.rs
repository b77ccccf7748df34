//! Open-loop queueing and the drawn schedule, each against something slower and plainer.

use std::sync::Arc;

use disagg::control::Control;
use disagg::cost::Library;
use disagg::serving::pipeline::{self, Rows, Stages};
use disagg::serving::queueing::{Arrivals, Crowd, erlang_c};
use disagg::serving::steady_state::excess;
use disagg::serving::timeline::Stage;
use disagg::serving::{Engine, timeline};
use disagg::sim::{Deployment, Settings, pricers, simulate_with, trace::draw};
use disagg::spec::plan::Duplex;
use disagg::spec::{Aggregated, PdPlan, Plan, Slo, Slot, Workload};
use proptest::prelude::*;

use crate::lab::{self, afd_plan, gap, pool, split, workers};

/// Delay probability of M/M/m from its sum of Poisson terms.
fn delay(m: u32, a: f64) -> f64 {
    let term = |k: u32| (1..=k).fold(1.0, |t, i| t * a / f64::from(i));
    let last = term(m) * f64::from(m) / (f64::from(m) - a);
    last / ((0..m).map(term).sum::<f64>() + last)
}

#[test]
fn known_queues() {
    for (m, a) in [(1, 0.3), (2, 1.5), (8, 7.2), (64, 60.0)] {
        assert!(gap(erlang_c(f64::from(m), a), delay(m, a)) < 1e-12, "{m} {a}");
    }
    // M/M/1: W = rho / (mu - lambda); M/D/1: half of it (Pollaczek-Khinchine).
    let wait = |cs2: f64| Crowd::new(0.8, 1, cs2, |_| 1.0).unwrap().wait_s;
    assert!(gap(wait(1.0), 4.0) < 1e-12);
    assert!(gap(wait(0.0), 2.0) < 1e-12);
    assert!(Crowd::new(2.0, 2, 0.0, |n| n).is_none());
    // M/M/m by Erlang's formula.
    for (m, a) in [(2, 1.5), (8, 7.2), (64, 60.0)] {
        let c = Crowd::new(a, m, 1.0, |n| n).unwrap();
        let servers = m as f64;
        assert!(gap(c.delay, erlang_c(servers, a)) < 1e-9, "{m} {a}");
        assert!(gap(c.wait_s, erlang_c(servers, a) / (servers - a)) < 1e-9);
        assert!(gap(c.inside, a) < 1e-9, "Little: {} {a}", c.inside);
        assert!(gap(c.law().map(|x| x.1).sum(), 1.0) < 1e-9);
    }
}

fn plans() -> Vec<Plan> {
    let mut unit = afd_plan(pool(8, 1), pool(16, 1), 2);
    unit.batch = Some(64);
    let parallel = split(1, 8, 1);
    vec![
        Plan::Aggregated(Aggregated {
            parallel,
            batch: Some(64),
            chunk_tokens: Some(2048),
            replicas: 2,
            ..Default::default()
        }),
        Plan::Pd(PdPlan { prefill: workers(2, parallel, None, None), decode: workers(1, parallel, Some(64), None) }),
        Plan::Afd(unit),
    ]
}

#[test]
fn less_load_is_faster_and_the_rate_is_what_was_asked() {
    let lib = lab::v32();
    let w = Workload::fixed("w", 2048.0, 1024.0, 512.0);
    for plan in plans() {
        let closed = Engine::new(&lib, &w, &plan).unwrap();
        let most = closed.point.requests_per_s;
        let mut last = (0.0, 0.0);
        for share in [0.05, 0.3, 0.6, 0.9, 0.98] {
            let (p, waited) = closed.at_load(share * most).unwrap();
            assert!(gap(p.requests_per_s, share * most) < 1e-9, "{plan:?}");
            assert!(waited >= last.0 && p.tpot_s >= last.1 * 0.98, "{plan:?} at {share}: {waited} {}", p.tpot_s);
            assert!(p.tpot_s <= closed.point.tpot_s * 1.02 && p.ttft_s > waited);
            let held = p.requests_per_s * (p.ttft_s + 511.0 * p.tpot_s);
            assert!(gap(p.concurrency, held) < 5e-3, "Little: {} {held}", p.concurrency);
            last = (waited, p.tpot_s);
        }
        let text = closed.at_load(most * 1.01).unwrap_err().to_string();
        assert!(text.contains("requests/s") && text.contains("load"), "{text}");
        for bad in [0.0, -1.0, f64::NAN] {
            assert!(closed.at_load(bad).is_err());
        }
        let e = closed.loaded(0.9 * most).unwrap().estimate().unwrap().scalars;
        assert!(e.queueing.is_some() && e.wait_ms > 0.0 && gap(e.requests_per_s, 0.9 * most) < 1e-9);
    }
}

/// TTFT of the simulator at a rate: mean over seeds and its standard error, the first quarter of each run left out; and TPOT.
fn simulated(e: &Arc<Engine>, rate: f64, seeds: u64) -> [f64; 3] {
    let d = Deployment::of(e);
    let prices = pricers(&d);
    let n = (e.point.concurrency * 20.0).clamp(8_000.0, 40_000.0) as usize;
    let runs: Vec<[f64; 2]> = (0..seeds)
        .map(|seed| {
            let r = draw::open(&e.workload, rate, 1.0, n, seed).unwrap().requests;
            let o = simulate_with(&prices, &d, &r, &Settings::default(), &Control::new()).unwrap();
            let kept = n / 4..n * 95 / 100;
            let mean = |f: &dyn Fn(usize) -> f64| kept.clone().map(f).sum::<f64>() / kept.len() as f64;
            let tpot = |i: usize| (o.finish_ps[i] - o.first_token_ps[i]) as f64 / 1e12 / f64::from(r.osl[i] - 1);
            [mean(&|i| (o.first_token_ps[i] - o.arrival_ps[i]) as f64 / 1e12), mean(&tpot)]
        })
        .collect();
    let k = seeds as f64;
    let mean = runs.iter().map(|r| r[0]).sum::<f64>() / k;
    let error = (runs.iter().map(|r| (r[0] - mean).powi(2)).sum::<f64>() / (k - 1.0) / k).sqrt();
    [mean, error, runs.iter().map(|r| r[1]).sum::<f64>() / k]
}

/// Levels with their plans: aggregated by TP and by DP and EP, P/D of either, AFD on its own and as decode.
fn deployments() -> Vec<(&'static str, Arc<Library>, Plan)> {
    let (v32, small) = (lab::v32(), lab::small());
    let mixed = |tp, dp, replicas, batch, chunk| {
        let (batch, chunk_tokens) = (Some(batch), Some(chunk));
        Plan::Aggregated(Aggregated { parallel: split(tp, dp, 1), batch, chunk_tokens, replicas, ..Default::default() })
    };
    let pair = |prefill, decode| Plan::Pd(PdPlan { prefill, decode });
    let mut unit = afd_plan(pool(8, 1), pool(16, 1), 2);
    (unit.batch, unit.chunk_tokens) = (Some(64), Some(2048));
    let wide = workers(2, split(1, 8, 1), None, None);
    vec![
        ("aggregated tp", small.clone(), mixed(4, 1, 2, 128, 2048)),
        ("aggregated tp", small.clone(), mixed(2, 1, 1, 64, 8192)),
        ("aggregated dp ep", v32.clone(), mixed(1, 8, 1, 64, 2048)),
        ("aggregated dp ep", v32.clone(), mixed(1, 16, 1, 32, 1024)),
        ("pd tp", small, pair(workers(2, split(2, 1, 1), None, None), workers(1, split(2, 1, 1), Some(128), None))),
        (
            "pd vllm",
            lab::lib("Qwen/Qwen3-30B-A3B", "b200_sxm", 16, "vllm"),
            pair(workers(2, split(2, 1, 1), None, None), workers(1, split(2, 1, 1), Some(128), None)),
        ),
        (
            "pd tp",
            v32.clone(),
            pair(workers(3, split(8, 1, 1), Some(1), Some(4096)), workers(1, split(1, 8, 1), Some(32), None)),
        ),
        ("pd ep", v32.clone(), pair(wide, workers(1, split(1, 8, 1), Some(64), None))),
        ("pd+afd", v32.clone(), pair(workers(1, split(1, 8, 1), None, None), Slot::Afd(unit.clone()))),
        ("aggregated+afd", v32, Plan::Afd(unit)),
    ]
}

/// `estimate(load=)` against the simulator: TTFT within 10 % (and the simulator's own error) up to 90 % load.
#[test]
fn ttft_is_what_the_simulator_serves_at_every_level() {
    let loads = [
        Workload::fixed("short", 0.0, 512.0, 256.0),
        Workload::fixed("chat", 4096.0, 1024.0, 512.0),
        Workload::fixed("long", 0.0, 8192.0, 512.0),
    ];
    let mut found: std::collections::BTreeMap<&str, Vec<f64>> = Default::default();
    for (level, lib, plan) in deployments() {
        for w in &loads {
            let e = Arc::new(Engine::new(&lib, w, &plan).unwrap());
            for share in [0.3, 0.5, 0.7, 0.8, 0.9] {
                let rate = share * e.point.requests_per_s;
                let [mean, error, tpot] = simulated(&e, rate, 4);
                let open = e.open(rate).unwrap();
                let p = open.point;
                let off = p.ttft_s / mean - 1.0;
                let text = format!(
                    "{level} {} at {share}: {:.2} simulated {:.2} +- {:.2} ms",
                    w.name,
                    p.ttft_s * 1e3,
                    mean * 1e3,
                    error * 1e3
                );
                // Two standard errors: at 90 % of slots that bind, waits for a seat are rare and long.
                assert!(off.abs() <= 0.10 + 2.0 * error / mean, "{text}");
                assert!(gap(p.tpot_s, tpot) < 0.07, "{text}: TPOT {} {tpot}", p.tpot_s);
                assert!(gap(open.ttft.mean(), p.ttft_s) < 0.03, "{text}: the law's mean {}", open.ttft.mean());
                if error < 0.03 * mean {
                    found.entry(level).or_default().push(off.abs());
                }
            }
        }
    }
    for (level, all) in found {
        let mean = all.iter().sum::<f64>() / all.len() as f64;
        println!(
            "{level}: {} judged, mean {:.1} %, most {:.1} %",
            all.len(),
            mean * 1e2,
            all.iter().fold(0.0, |a, b| f64::max(a, *b)) * 1e2
        );
        assert!(all.len() >= 10 && mean < 0.06, "{level}: {mean}");
    }
}

#[test]
fn the_rate_within_limits_is_the_highest() {
    let lib = lab::v32();
    let w = Workload::fixed("w", 2048.0, 1024.0, 512.0);
    for plan in plans() {
        let e = Engine::new(&lib, &w, &plan).unwrap();
        let half = e.open(0.6 * e.point.requests_per_s).unwrap();
        let slo = Slo {
            ttft_ms: Some(half.point.ttft_s * 1e3),
            tpot_ms: Some(half.point.tpot_s * 1e3 * 1.3),
            percentile: None,
        };
        let held = e.rate_within(&slo, Arrivals::Poisson).unwrap();
        assert!(
            gap(held.rate, 0.6 * e.point.requests_per_s) < 0.03,
            "{plan:?}: {} {}",
            held.rate,
            e.point.requests_per_s
        );
        assert!(excess(held.latencies, &slo) <= 1.0);
        let above = e.open((held.rate * 1.02).min(e.point.requests_per_s * 0.999)).unwrap();
        assert!(excess(above.latencies(None), &slo) > 1.0, "{plan:?}");
        // A tail asks for a lower load than a mean.
        let tail = Slo { percentile: Some(99.0), ..slo };
        let strict = e.rate_within(&tail, Arrivals::Poisson).unwrap();
        let within = strict.rate == 0.0 || excess(strict.latencies, &slo) <= 1.0;
        assert!(strict.rate < held.rate && within, "{plan:?}");
        let text = e.rate_within(&tail, Arrivals::Closed).unwrap_err().to_string();
        assert!(text.contains("slo.percentile") && text.contains("percentile needs arrivals='poisson'"), "{text}");
        let none = Slo { ttft_ms: Some(1e-3), ..slo };
        assert_eq!(e.rate_within(&none, Arrivals::Poisson).unwrap().rate, 0.0);
        let closed = e.rate_within(&Slo::default(), Arrivals::Closed).unwrap();
        assert_eq!(closed.rate, e.point.requests_per_s);
    }
}

fn stages() -> impl Strategy<Value = Stages> {
    (0.1..5.0f64, 0.1..5.0f64, 0.1..5.0f64, 0.1..5.0f64).prop_map(|(a, x, f, y)| Stages::new(a, x, f, y))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    /// The last bar ends when the schedule does; no resource does two things at once; stages follow.
    #[test]
    fn bars_are_the_schedule(
        a in proptest::collection::vec(stages(), 1..5), layers in 1u32..7, dense in 0.0..3.0f64, half: bool,
    ) {
        let front: Vec<Stages> =
            a.iter().map(|_| Stages::new(dense, 0.0, 0.0, 0.0)).collect();
        let rows = [Rows { layers: 2, stages: &front }, Rows { layers, stages: &a }];
        let bars = timeline::bars(&rows, 1, half, 100);
        let end = bars.iter().map(|b| b.end).fold(0.0, f64::max);
        let step = pipeline::step_time(&rows, half, false);
        prop_assert!(gap(end, step) < 1e-9, "{end} against {step}");
        let server = |s: Stage| if half && s == Stage::F2a { Stage::A2f } else { s };
        for (i, b) in bars.iter().enumerate() {
            for c in &bars[i + 1..] {
                let apart = b.end <= c.start + 1e-9 || c.end <= b.start + 1e-9;
                prop_assert!(server(b.stage) != server(c.stage) || apart, "{b:?} {c:?}");
                if b.microbatch == c.microbatch {
                    prop_assert!(apart, "{b:?} {c:?}");
                }
            }
        }
    }
}

#[test]
fn an_estimate_shows_four_layers_of_every_micro_batch() {
    let lib = lab::v32();
    let w = lab::chat();
    for duplex in [Duplex::Full, Duplex::Half] {
        let mut plan = afd_plan(pool(8, 1), pool(24, 1), 3);
        plan.duplex = duplex;
        plan.batch = Some(32);
        let e = Engine::new(&lib, &w, &Plan::Afd(plan)).unwrap().estimate().unwrap();
        let decode: Vec<_> = e.tables.timeline.iter().filter(|r| r.phase.name() == "decode").collect();
        assert_eq!(decode.len(), 3 * 4 * 4);
        assert!(decode.iter().all(|r| r.bar.start >= 0.0 && r.bar.end > r.bar.start));
        let stage = |i: Stage| decode.iter().filter(|r| r.bar.stage == i).map(|r| r.bar.end - r.bar.start).sum::<f64>();
        // The same times as the table of stages.
        let ms = |name: &str| {
            e.tables.pipeline.iter().find(|r| r.phase.name() == "decode" && r.stage.name() == name).unwrap().ms
        };
        assert!(gap(stage(Stage::Attention) / 12.0 * 1e3, ms("attention")) < 0.1);
    }
}
