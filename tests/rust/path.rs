//! What a request waits for outside of the steps that serve it: by hand, at every level, and request by request.

use std::sync::Arc;

use disagg::control::Control;
use disagg::cost::Op;
use disagg::serving::{Engine, SteadyState};
use disagg::sim::{Deployment, Settings, simulate, trace::draw};
use disagg::spec::assumptions::RequestPath;
use disagg::spec::{Aggregated, Assumptions, Framework, Plan, Serving, Workload, servers};

use crate::lab::{self, gap, near, split};

fn engine(framework: Framework, plan: &Plan, w: &Workload, serving: &Serving, path: RequestPath) -> Arc<Engine> {
    let (model, cluster) = (lab::model("Qwen/Qwen3-30B-A3B"), lab::cluster("h200_sxm", 16));
    let a = Assumptions { request_path: path, ..Assumptions::physical() };
    let lib = lab::library_serving(&model, &cluster, framework, &a, serving);
    Arc::new(Engine::new(&lib, w, plan).unwrap())
}

fn mixed(batch: u32) -> Plan {
    let (parallel, chunk_tokens) = (split(2, 1, 1), Some(8192));
    Plan::Aggregated(Aggregated { parallel, batch: Some(batch), chunk_tokens, replicas: 1, ..Default::default() })
}

fn term(p: &SteadyState, op: Op) -> f64 {
    p.path.terms().into_iter().find(|t| t.0 == op).unwrap().1
}

#[test]
fn terms_are_those_of_the_framework_by_hand() {
    let w = Workload::fixed("w", 0.0, 1024.0, 512.0);
    let paths = &servers::servers().request_path;
    for &framework in Framework::ALL {
        let rule = servers::path_rule(framework, None).unwrap();
        let plain = Serving::default();
        let e = engine(framework, &mixed(16), &w, &plain, RequestPath::Client);
        let p = &e.point;
        let front = paths.front_ms.value * 1e-3 + 1024.0 * paths.tokenizer_us_per_token.value * 1e-6;
        near(term(p, Op::Front), front, 1e-6, "API server");
        near(term(p, Op::Ahead), rule.steps_ahead * p.tpot_s, 1e-6, "steps ahead");
        // Longer steps are met more often: more than half a mean step, less than half the longest.
        let rest = term(p, Op::InFlight);
        assert!(rest >= 0.5 * p.tpot_s * (1.0 - 1e-6) && rest < 0.5 * p.itl_worst_s, "{framework}: {rest}");
        assert_eq!([term(p, Op::Polling), term(p, Op::Held), term(p, Op::HandOver)], [0.0; 3]);
        // Alone, there is no step to wait for.
        let alone = engine(framework, &mixed(1), &w, &plain, RequestPath::Client).point;
        near(alone.path.total_s(), front, 1e-6, "alone");
        // Knobs.
        let with = |serving: Serving| engine(framework, &mixed(16), &w, &serving, RequestPath::Client).point;
        let none = with(Serving { steps_ahead: Some(0), ..Serving::default() });
        assert_eq!(term(&none, Op::Ahead), 0.0);
        let polls = with(Serving { polling_steps: 11, ..Serving::default() });
        let decode = term(&polls, Op::Polling) / 5.0;
        assert!(decode > 0.0 && decode <= p.tpot_s, "five decode steps: {decode} {}", p.tpot_s);
        let holds = term(&with(Serving { hold_steps: 8, ..Serving::default() }), Op::Held) / p.tpot_s;
        assert!((4.0..=8.0).contains(&holds), "half to all of eight steps: {holds}");
    }
}

/// TTFT is service and waits, at every level; the published profiles have service alone.
#[test]
fn every_level_has_them_and_nothing_else_changes() {
    let w = Workload::fixed("w", 0.0, 2048.0, 256.0);
    let mut judged = 0;
    for framework in [Framework::Vllm, Framework::Trtllm] {
        for plan in lab::every_level(split(2, 1, 1), 16) {
            let of = |path| engine(framework, &plan, &w, &Serving::default(), path).point;
            let (client, service) = (of(RequestPath::Client), of(RequestPath::Service));
            let total = client.path.total_s();
            assert!(total > 0.0 && term(&client, Op::Front) > 0.0, "{plan:?}");
            near(client.service_ttft_s(), service.ttft_s, 1e-6, "service");
            assert_eq!((client.tpot_s, client.requests_per_s), (service.tpot_s, service.requests_per_s));
            assert_eq!(service.path.total_s(), 0.0);
            let hands_over = term(&client, Op::HandOver);
            assert_eq!(hands_over > 0.0, matches!(plan, Plan::Pd(_)), "{plan:?}");
            judged += 1;
        }
    }
    assert_eq!(judged, 8);
    for (profile, path) in [
        ("physical", RequestPath::Client),
        ("paper", RequestPath::Service),
        ("aiconfigurator-0.12", RequestPath::Service),
    ] {
        assert_eq!(Assumptions::profile(profile).unwrap().request_path, path, "{profile}");
    }
}

/// Mean TTFT of the simulator, Poisson, the first quarter left out.
fn simulated(e: &Arc<Engine>, rate: f64) -> f64 {
    let n = 6_000;
    let r = draw::open(&e.workload, rate, 1.0, n, 7).unwrap().requests;
    let o = simulate(&Deployment::of(e), &r, &Settings::default(), &Control::new()).unwrap();
    let kept = n / 4..n * 95 / 100;
    let ttft = |i: usize| (o.first_token_ps[i] - o.arrival_ps[i]) as f64 / 1e12;
    kept.clone().map(ttft).sum::<f64>() / kept.len() as f64
}

/// The simulator walks the same terms request by request: at half load every knob moves its mean TTFT as it moves the closed form.
#[test]
fn the_simulator_walks_the_same_terms() {
    let w = Workload::fixed("w", 0.0, 1024.0, 512.0);
    let knobs = [
        ("ahead", Serving { steps_ahead: Some(1), ..Serving::default() }),
        ("polling", Serving { steps_ahead: Some(0), polling_steps: 21, ..Serving::default() }),
        ("held", Serving { steps_ahead: Some(0), hold_steps: 12, ..Serving::default() }),
    ];
    let plan = mixed(32);
    let plain = Serving { steps_ahead: Some(0), ..Serving::default() };
    let of = |serving: &Serving| engine(Framework::Trtllm, &plan, &w, serving, RequestPath::Client);
    let base = of(&plain);
    let rate = 0.5 * base.point.requests_per_s;
    let (closed, walked) = (base.open(rate).unwrap().point.ttft_s, simulated(&base, rate));
    assert!(gap(closed, walked) < 0.1, "{closed} {walked}");
    for (name, serving) in knobs {
        let e = of(&serving);
        let more = [e.open(rate).unwrap().point.ttft_s - closed, simulated(&e, rate) - walked];
        assert!(more[1] > 0.5 * base.point.tpot_s, "{name}: {more:?}");
        let most = if name == "polling" { 0.1 } else { 0.25 };
        assert!(gap(more[0], more[1]) < most, "{name}: {more:?}");
    }
}

/// A server looks every n-th step whether anybody came or not: many steps in one event, or one by one, are the same.
#[test]
fn looks_do_not_hang_on_events() {
    let w = Workload::fixed("w", 0.0, 1024.0, 512.0);
    for serving in [
        Serving { steps_ahead: Some(0), polling_steps: 21, ..Serving::default() },
        Serving { steps_ahead: Some(1), polling_steps: 5, hold_steps: 3, ..Serving::default() },
    ] {
        let e = engine(Framework::Trtllm, &mixed(32), &w, &serving, RequestPath::Client);
        let r = draw::open(&w, 3.0, 1.0, 200, 7).unwrap().requests;
        let run = |max_run| {
            let s = Settings { max_run, ..Settings::default() };
            simulate(&Deployment::of(&e), &r, &s, &Control::new()).unwrap()
        };
        let (fast, slow) = (run(u32::MAX), run(1));
        assert_eq!((fast.first_token_ps, fast.finish_ps), (slow.first_token_ps, slow.finish_ps), "{serving:?}");
    }
}
