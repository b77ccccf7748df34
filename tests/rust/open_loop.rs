//! Open-loop queueing and the drawn schedule, each against something slower and plainer.

use disagg::serving::pipeline::{self, Rows, Stages};
use disagg::serving::queueing::{Crowd, erlang_c};
use disagg::serving::{Engine, timeline};
use disagg::spec::plan::Duplex;
use disagg::spec::{Aggregated, PdPlan, Plan, Workload};
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
        let server = |s: usize| if half && s == 3 { 1 } else { s };
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
        let decode: Vec<_> = e.timeline.iter().filter(|r| r.phase == "decode").collect();
        assert_eq!(decode.len(), 3 * 4 * 4);
        assert!(decode.iter().all(|r| r.bar.start >= 0.0 && r.bar.end > r.bar.start));
        let stage = |i: usize| decode.iter().filter(|r| r.bar.stage == i).map(|r| r.bar.end - r.bar.start).sum::<f64>();
        // The same times as the table of stages.
        let ms = |name: &str| e.pipeline.iter().find(|r| r.phase == "decode" && r.stage == name).unwrap().ms;
        assert!(gap(stage(0) / 12.0 * 1e3, ms("attention")) < 0.1);
    }
}
