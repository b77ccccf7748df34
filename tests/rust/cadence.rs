//! Prefill cadence: the shares against enumeration, the steady state against the simulator, and published runs.

use disagg::spec::Framework;
use std::sync::Arc;

use disagg::control::Control;
use disagg::cost::Library;
use disagg::search::{Layout, Question, explore};
use disagg::serving::cadence::{self, pace};
use disagg::serving::{Engine, Load, aggregated};
use disagg::sim::{Closed, Deployment, Settings, pricers, simulate_with, trace::draw};
use disagg::spec::{
    Aggregated, Assumptions, Case, Dtype, Level, Parallel, Plan, Quant, Serving, Slo, Workload, servers,
};
use rand_pcg::Pcg64;

use crate::lab::{self, gap, near, split};

#[test]
fn every_step_is_the_steady_state_and_what_comes_goes() {
    for (needed, isl, room, ranks) in
        [(100.0, 1024.0, 2000.0, 8.0), (900.0, 8192.0, 2000.0, 4.0), (3000.0, 512.0, 4000.0, 16.0)]
    {
        let carried = f64::min(room, f64::max(isl, needed));
        let f: f64 = needed / carried;
        let one = pace(1, needed, isl, room, ranks, false);
        assert!(gap(one.f_sys, 1.0 - (1.0 - f).powf(ranks)) < 1e-12 && one.carried == carried);
        for n in [1, 2, 3, 4, 8, 16] {
            for aligned in [false, true] {
                let p = pace(n, needed, isl, room, ranks, aligned);
                assert!(p.f_sys <= 1.0 + 1e-12 && p.carried <= room * (1.0 + 1e-12) && p.busy <= 1.0, "{n} {p:?}");
                // Every rank gets what it needs: share of mixed steps x tokens of the fullest x mean by fullest.
                near(p.f_sys * p.carried * p.busy, needed, 0.02, "tokens a step");
                if n > 1 && !aligned {
                    assert!(p.f_sys <= one.f_sys * (1.0 + 1e-9), "{n}: {} {}", p.f_sys, one.f_sys);
                }
            }
        }
    }
}

/// Parcels drawn step by step and dealt to the steps of the next cycle: the shares counted.
#[test]
fn shares_are_those_of_parcels_drawn_one_by_one() {
    let (isl, room, ranks, rounds) = (1024.0, 3000.0, 8_usize, 40_000);
    for (n, f) in [(2_usize, 0.2), (4, 0.1), (8, 0.05), (4, 0.3)] {
        let mut rng = Pcg64::new(7, n as u128);
        let (mut mixed, mut fullest) = (0, 0.0);
        for _ in 0..rounds {
            let loads: Vec<f64> =
                (0..ranks).map(|_| (0..n).filter(|_| draw::uniform(&mut rng) < f).count() as f64 * isl).collect();
            for j in 0..n {
                // A rank with any work has the first slot; later ones while tokens are left, in parts of a slot.
                let in_slot = |load: &f64| (load - j as f64 * room).clamp(0.0, room);
                let most = loads.iter().map(in_slot).fold(0.0, f64::max);
                if most > 0.0 {
                    mixed += 1;
                    fullest += most;
                }
            }
        }
        let p = pace(n as u32, f * isl, isl, room, ranks as f64, false);
        let share = f64::from(mixed) / (rounds * n) as f64;
        near(p.f_sys, share, 0.06, &format!("mixed steps at n = {n}, f = {f}"));
        near(p.carried, fullest / f64::from(mixed), 0.08, &format!("tokens of the fullest at n = {n}, f = {f}"));
    }
}

/// A budget a few tokens short of a prompt cuts it in two, and saves nobody half of it.
#[test]
fn a_budget_just_short_of_a_prompt_serves_it_no_sooner() {
    let w = Workload::fixed("long", 4096.0, 17592.0, 160.0);
    let lib = lab::lib("deepseek-ai/DeepSeek-V3.2", "b200_sxm", 8, "sglang");
    let load = Load::of(&w);
    let s = lab::layout(
        &lib,
        &Layout::Worker { parallel: Parallel { ep: Some(1), moe_tp: 4, ..split(2, 2, 2) }, overlap: false },
        &w,
    );
    for interval in [1, 2, 4, 8] {
        let ttft = |chunk| aggregated::solve_paced(&s, &load, 1.0, chunk, 1, interval).service_ttft_s();
        let whole = ttft(17593.0);
        for short in [17592.0, 17500.0, 16000.0, 12000.0] {
            assert!(ttft(short) >= 0.99 * whole, "every {interval}th step, {short}: {} after {whole}", ttft(short));
        }
    }
}

fn closed_loop(engine: &Arc<Engine>, w: &Workload) -> (f64, f64, f64) {
    let d = Deployment::of(engine);
    let users = engine.point.concurrency.round() as u32;
    let n = users as usize * 12;
    let mut r = draw::closed(w, users, n, 0.0, 3).unwrap().requests;
    // Users start spread over one stay, so that they do not march in step.
    let stay = engine.point.ttft_s + engine.load.osl * engine.point.tpot_s;
    let mut rng = Pcg64::new(1, 9);
    let mut starts: Vec<u64> = (0..users).map(|_| (draw::uniform(&mut rng) * stay * 1e12) as u64).collect();
    starts.sort_unstable();
    r.arrival_ps[..users as usize].copy_from_slice(&starts);
    assert!(matches!(r.closed, Some(Closed { .. })));
    let o = simulate_with(&pricers(&d), &d, &r, &Settings::default(), &Default::default()).unwrap();
    let kept = n / 3..n * 5 / 6;
    let (mut ttft, mut tpot) = (0.0, 0.0);
    let mut ends: Vec<u64> = kept.clone().map(|i| o.finish_ps[i]).collect();
    ends.sort_unstable();
    for i in kept.clone() {
        ttft += (o.first_token_ps[i] - o.arrival_ps[i]) as f64 / 1e12;
        tpot += (o.finish_ps[i] - o.first_token_ps[i]) as f64 / 1e12 / f64::from(r.osl[i] - 1);
    }
    let k = kept.len() as f64;
    (k / ((ends[ends.len() - 1] - ends[0]) as f64 / 1e12), ttft / k, tpot / k)
}

/// What a cadence gains on a worker in a closed loop, within 12 % of the request simulator. The rates themselves are 10 to
/// 15 % below it at every cadence, n = 1 included (an AFD unit's 22 % at n = 4): ranks are taken to be independent, while in a
/// closed loop of equal answers requests that end together are followed by prompts that come together.
#[test]
fn the_steady_state_is_what_the_simulator_serves() {
    let lib = lab::v32();
    let w = Workload::fixed("w", 0.0, 2048.0, 256.0);
    let mut at_one: [Option<(f64, f64)>; 1] = [None];
    for n in [1_u32, 2, 4] {
        let worker = Aggregated {
            parallel: split(1, 8, 1),
            batch: Some(32),
            chunk_tokens: Some(4096),
            prefill_interval: Some(n),
            ..Default::default()
        };
        for (k, plan) in [Plan::Aggregated(worker)].into_iter().enumerate() {
            let e = Arc::new(Engine::new(&lib, &w, &plan).unwrap());
            let (rate, ttft, tpot) = closed_loop(&e, &w);
            let p = &e.point;
            println!(
                "n {n}: rate {:.2} sim {rate:.2}, tpot {:.2} sim {:.2} ms, ttft {:.0} sim {:.0} ms",
                p.requests_per_s,
                p.tpot_s * 1e3,
                tpot * 1e3,
                p.ttft_s * 1e3,
                ttft * 1e3
            );
            near(p.requests_per_s, rate, 0.20, &format!("rate at n = {n}"));
            near(p.tpot_s, tpot, 0.20, &format!("TPOT at n = {n}"));
            let first = *at_one[k].get_or_insert((p.requests_per_s, rate));
            near(p.requests_per_s / first.0, rate / first.1, 0.12, &format!("gain at n = {n}"));
        }
    }
}

#[test]
fn gathered_prompts_cost_ttft_and_give_tpot() {
    let lib = lab::v32();
    let w = Workload::fixed("w", 0.0, 2048.0, 256.0);
    let s = lab::worker(&lib, split(1, 8, 1), &w);
    let at = |n| aggregated::solve_paced(&s, &Load::of(&w), 32.0, 4096.0, 1, n);
    let mut last = at(1);
    assert_eq!(last, aggregated::solve(&s, &Load::of(&w), 32.0, 4096.0, 1));
    for n in [2, 4, 8] {
        let p = at(n);
        // Of the server's own time: who gathers has a short step scheduled ahead, which a client gets back.
        assert!(p.tpot_s < last.tpot_s && p.service_ttft_s() > last.service_ttft_s() * 0.98, "{n}");
        last = p;
    }
}

#[test]
fn a_plan_has_the_last_word_and_nobody_else_an_interval() {
    let w = Workload::fixed("w", 0.0, 1024.0, 256.0);
    let serving = Serving { prefill_interval: Some(4), ..Serving::default() };
    let (model, cluster) = (lab::model("Qwen/Qwen3-30B-A3B"), lab::cluster("b200_sxm", 8));
    let lib = lab::library_serving(&model, &cluster, "vllm", &Assumptions::physical(), &serving);
    let plan = |dp, tp, n| {
        let parallel = split(tp, dp, 1);
        let (batch, chunk_tokens) = (Some(32), Some(4096));
        Plan::Aggregated(Aggregated { parallel, batch, chunk_tokens, prefill_interval: n, ..Default::default() })
    };
    let interval = |p: &Plan| Engine::new(&lib, &w, p).unwrap().prefill_interval();
    assert_eq!(interval(&plan(8, 1, None)), 4);
    assert_eq!(interval(&plan(8, 1, Some(2))), 2);
    // The knob does nothing where there is one rank.
    assert_eq!(interval(&plan(1, 8, None)), 1);
    let text = Engine::new(&lib, &w, &plan(1, 8, Some(2))).err().unwrap().to_string();
    assert!(text.contains("plan.prefill_interval") && text.contains("dp above 1"), "{text}");
    for &framework in Framework::ALL {
        let mut problems = disagg::error::Problems::new();
        cadence::check(&mut problems, Some(&plan(8, 1, Some(2))), &serving, framework);
        let known = servers::cadence(framework).is_some();
        assert_eq!(problems.into_result().is_ok(), known, "{framework}: a setting that it lacks is refused");
    }
}

/// A cadence that no search tries by itself is searched where `Serving` says it.
#[test]
fn a_search_keeps_the_cadence_that_serving_says() {
    let (model, cluster) = (lab::model("Qwen/Qwen3-30B-A3B"), lab::cluster("b200_sxm", 4));
    let w = Workload::fixed("w", 0.0, 1024.0, 256.0);
    let slo = Slo { ttft_ms: Some(2000.0), tpot_ms: Some(50.0), percentile: None };
    let mut q = Question::new(Case::new(model, cluster, w).on(Framework::Vllm), slo);
    (q.case.serving.prefill_interval, q.levels) = (Some(3), vec![Level::Aggregated]);
    let study = explore(lab::db(), &q, &Control::new()).unwrap();
    let ranks = |l: &Layout| l.shape().dp > 1;
    let mixed: Vec<_> = study.rows.iter().filter(|r| r.prefill.is_none() && r.point.stands()).collect();
    assert!(mixed.iter().filter(|r| ranks(&r.main.layout)).count() > 100);
    assert!(mixed.iter().all(|r| r.main.interval == if ranks(&r.main.layout) { 3 } else { 1 }));
}

fn quantised(name: &str, system: &str, quant: Quant, framework: Framework) -> Arc<Library> {
    let (model, cluster) = (lab::model(name), lab::cluster(system, 8));
    let (serving, assumptions) = (Serving::default(), Assumptions::physical());
    Arc::new(Library::new(lab::db().clone(), &model, &cluster, framework, &quant, &serving, &assumptions).unwrap())
}

/// Kimi-K2.5-NVFP4, 8192/1024, B200, DP8 EP8: TPOT by concurrency, measured 89.5 and 143.2 ms.
#[test]
fn kimi_runs_between_every_second_and_every_fourth_step() {
    let quant = Quant { kv: Some(Dtype::Fp8), ..Quant::default() };
    let w = Workload::fixed("w", 0.0, 8192.0, 1024.0);
    for framework in [Framework::Vllm, Framework::Trtllm] {
        let lib = quantised("nvidia/Kimi-K2.5-NVFP4", "b200_sxm", quant, framework);
        let s = lab::worker(&lib, split(1, 8, 1), &w);
        for (users, measured) in [(512.0, 89.5), (1024.0, 143.2)] {
            let at = |n| {
                let p = aggregated::solve_paced(&s, &Load::of(&w), users / 8.0, 8192.0 + users / 8.0, 1, n);
                println!("kimi {framework} {users} n {n}: {:.1} measured {measured}", p.tpot_s * 1e3);
                p.tpot_s * 1e3
            };
            assert!(at(1) > 1.15 * measured && at(8) < measured, "{framework} {users}");
            let best = [2, 3, 4].map(at).into_iter().map(|x| gap(x, measured)).fold(1.0, f64::min);
            assert!(best < 0.06, "{framework} {users}: {best}");
        }
    }
}

/// TensorRT-LLM's performance overview, Qwen3-235B-A22B with attention DP on 4 GPUs, all requests queued at once.
#[test]
fn saturated_runs_of_trtllm() {
    let rows = [
        ("b200_sxm", 1024.0, 1024.0, 5756.0),
        ("b200_sxm", 1024.0, 8192.0, 3389.0),
        ("b200_sxm", 8192.0, 1024.0, 1410.0),
        ("b200_sxm", 32768.0, 1024.0, 319.0),
        ("h200_sxm", 1024.0, 1024.0, 3268.0),
        ("h200_sxm", 1024.0, 8192.0, 1417.0),
        ("h200_sxm", 8192.0, 1024.0, 627.0),
        ("h200_sxm", 32768.0, 1024.0, 134.0),
    ];
    for (system, isl, osl, given) in rows {
        let name = if system == "b200_sxm" { "nvidia/Qwen3-235B-A22B-NVFP4" } else { "Qwen/Qwen3-235B-A22B-FP8" };
        let quant = Quant { kv: Some(Dtype::Fp8), ..Quant::default() };
        let lib = quantised(name, system, quant, Framework::Trtllm);
        let w = Workload::fixed("w", 0.0, isl, osl);
        let s = lab::worker(&lib, split(1, 4, 1), &w);
        let load = Load::of(&w);
        let most = disagg::serving::choose::most_sequences(&s, 8192.0).floor().min(1024.0);
        let mut line = String::new();
        let mut shares = Vec::new();
        for n in [1, 2, 4, 8, 16] {
            let p = aggregated::solve_paced(&s, &load, most, 8192.0f64.max(most + 1024.0), 1, n);
            shares.push(p.requests_per_s * osl / 4.0 / given);
            line += &format!(" n{n} {:.2}", p.requests_per_s * osl / 4.0 / given);
        }
        if isl > osl {
            // Long prompts, which every step would spread over all of them: gathering explains part of the gap.
            assert!(shares[4] > shares[0] * 1.1 && shares[4] < 1.1, "{line}");
        }
        println!("saturated {system} {isl}/{osl} b {most}:{line}");
    }
}
