//! What must hold of any run: the same bits step by step, memory that is given back, steady states
//! that agree with the analytic ones.

use std::sync::Arc;

use disagg::serving::Engine;
use disagg::sim::{
    Closed, Deployment, KvAdmission, Preemption, Requests, Router, Scheduler, Settings, SharedTier, Timing, to_s,
};
use disagg::spec::assumptions::FirstToken;
use disagg::spec::{AfdPlan, Aggregated, PdPlan, Plan, Workload};
use proptest::prelude::*;

use super::*;
use crate::lab;

const SCHEDULERS: [Scheduler; 4] =
    [Scheduler::ChunkedPrefill, Scheduler::PrefillFirst, Scheduler::Sglang, Scheduler::Static];
const ROUTERS: [Router; 5] =
    [Router::RoundRobin, Router::LeastLoaded, Router::PrefixAware, Router::PowerOfTwo, Router::SessionSticky];

fn engine(plan: Plan, w: &Workload) -> Arc<Engine> {
    Arc::new(Engine::new(&lab::small(), w, &plan).unwrap())
}

fn aggregated(batch: u32, chunk: u32, replicas: u32, tp: u32, dp: u32) -> Plan {
    Plan::Aggregated(Aggregated {
        parallel: lab::split(tp, dp, 1),
        batch: Some(batch),
        chunk_tokens: Some(chunk),
        replicas,
        ..Default::default()
    })
}

/// Random requests with named blocks, sessions and priorities.
fn requests() -> impl Strategy<Value = Requests> {
    prop::collection::vec((0_u64..120, 1_u32..300, 1_u32..60, 0_u64..6, 0_u8..2), 1..60).prop_map(|rows| {
        let mut r = Requests { block_tokens: 32, hash_offsets: vec![0], ..Requests::default() };
        let mut t = 0;
        for (i, (gap, isl, osl, topic, priority)) in rows.into_iter().enumerate() {
            t += gap * MS / 7;
            r.arrival_ps.push(t);
            r.isl.push(isl);
            r.osl.push(osl);
            r.session.push(topic as u32);
            r.priority.push(priority);
            // Four blocks of the topic, then its own.
            let own = |b: u64| if b < 4 { topic * 100 + b } else { 1_000_000 + i as u64 * 100 + b };
            r.hashes.extend((0..u64::from(isl.div_ceil(32))).map(own));
            r.hash_offsets.push(r.hashes.len() as u32);
        }
        r
    })
}

fn settings() -> impl Strategy<Value = Settings> {
    let flags = (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>());
    (0_usize..4, 0_usize..5, flags, 24_u64..60).prop_map(|(s, r, (swap, cache, ttl, tier, pieces), blocks)| Settings {
        kv_admission: if pieces { KvAdmission::Chunk } else { KvAdmission::Prompt },
        scheduler: SCHEDULERS[s],
        router: ROUTERS[r],
        preemption: if swap { Preemption::Swap } else { Preemption::Recompute },
        prefix_cache: cache,
        kv_blocks: Some(blocks),
        ttl_ps: ttl.then_some(200 * MS),
        shared_tier: tier.then_some(SharedTier { tokens: 512, tokens_per_s: 1e5 }),
        seed: 3,
        ..Settings::default()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    /// Many steps in one event, or one by one: every time of every request is the same.
    #[test]
    fn runs_are_the_sum_of_their_steps(r in requests(), s in settings(), workers in 1_u32..4) {
        let timing = Timing::Fixed { prefill_ps: 20 * MS + 13, decode_ps: 10 * MS + 7 };
        let d = Deployment::uniform(workers, 6, 128, timing);
        let fast = run(&d, &r, &s);
        let slow = run(&d, &r, &Settings { max_run: 1, ..s.clone() });
        prop_assert_eq!(&fast.first_token_ps, &slow.first_token_ps);
        prop_assert_eq!(&fast.finish_ps, &slow.finish_ps);
        prop_assert_eq!(&fast.itl_p99_ps, &slow.itl_p99_ps);
        prop_assert_eq!(&fast.preemptions, &slow.preemptions);
        prop_assert_eq!(&fast.prefix_hit_tokens, &slow.prefix_hit_tokens);
        prop_assert_eq!(&fast.status, &slow.status);
        prop_assert_eq!(fast.steps, slow.steps);
        prop_assert!(fast.events <= slow.events);
        // Nothing is lost: what can be held is served, what cannot is turned away.
        for i in 0..r.len() {
            let held = u64::from(r.isl[i] + r.osl[i]).div_ceil(16) <= s.kv_blocks.unwrap();
            prop_assert_eq!(fast.status[i] == Status::Finished, held);
        }
        prop_assert!(fast.usage.iter().all(|u| u.busy_ps <= fast.end_ps));
    }

    /// The same through prefill, wires and decode.
    #[test]
    fn runs_are_the_sum_of_their_steps_across_pools(r in requests(), s in settings()) {
        let d = split_pools(2, 2);
        let fast = run(&d, &r, &s);
        let slow = run(&d, &r, &Settings { max_run: 1, ..s.clone() });
        prop_assert_eq!(&fast.first_token_ps, &slow.first_token_ps);
        prop_assert_eq!(&fast.finish_ps, &slow.finish_ps);
        prop_assert_eq!(&fast.preemptions, &slow.preemptions);
    }
}

fn split_pools(prefill: u32, decode: u32) -> Deployment {
    use disagg::sim::Transfer;
    use disagg::spec::Role;
    let timing = Timing::Fixed { prefill_ps: 20 * MS + 13, decode_ps: 10 * MS + 7 };
    let mut d = Deployment::uniform(prefill, 6, 128, timing);
    let mut second = d.pools[0].clone();
    d.pools[0].role = Role::Prompts;
    (second.role, second.count) = (Role::Decode, decode);
    d.pools.push(second);
    d.transfer = Transfer::Line { latency_ps: MS, ps_per_token: 1e7 };
    d.first_token = FirstToken::Decode;
    d
}

/// The engine's prices too: fixed point adds up to the same bits.
#[test]
fn engine_steps_add_up() {
    let w = Workload::fixed("w", 0.0, 700.0, 90.0);
    let d = Deployment::of(&engine(aggregated(24, 1024, 2, 1, 1), &w));
    let mut r = regular(300, 1_234_567_891, 700, 90);
    for i in 0..r.len() {
        r.isl[i] = 100 + (i as u32 * 7919) % 1500;
        r.osl[i] = 1 + (i as u32 * 104_729) % 200;
    }
    let s = Settings::default();
    let (fast, slow) = (run(&d, &r, &s), run(&d, &r, &Settings { max_run: 1, ..s.clone() }));
    assert_eq!(fast.finish_ps, slow.finish_ps);
    assert_eq!(fast.first_token_ps, slow.first_token_ps);
    assert!(fast.events < slow.events, "{} events for {} steps", fast.events, slow.events);
}

/// Rate in the second half of a closed loop of equal requests that starts with uniform ages.
fn closed_loop(d: &Deployment, users: u32, isl: u32, osl: u32, rounds: usize) -> f64 {
    let n = users as usize * (rounds + 1);
    let mut r = regular(n, 0, isl, osl);
    r.prefix = vec![0; n];
    for k in 0..users as usize {
        let age = (k as u64 * u64::from(osl - 1) / u64::from(users)) as u32;
        r.isl[k] = isl + age;
        r.prefix[k] = isl + age - 1;
        r.osl[k] = osl - age;
    }
    r.closed = Some(Closed { users, think_ps: 0 });
    let o = run(d, &r, &Settings::default());
    assert_eq!(o.counts().0, n);
    let mut ends = o.finish_ps.clone();
    ends.sort_unstable();
    let (a, b) = (n / 2, n - users as usize);
    (b - a) as f64 / to_s(ends[b] - ends[a])
}

#[test]
fn closed_loops_agree_with_the_steady_state() {
    let (isl, osl) = (1000, 250);
    let w = Workload::fixed("w", 0.0, f64::from(isl), f64::from(osl));
    let mut text = Vec::new();
    let mut check = |name: &str, e: &Arc<Engine>, users: u32| {
        let sim = closed_loop(&Deployment::of(e), users, isl, osl, 12);
        let gap = sim / e.point.requests_per_s - 1.0;
        text.push(format!("{name}: {sim:.4} against {:.4} requests/s, {:+.2} %", e.point.requests_per_s, gap * 100.0));
        gap
    };
    let mut gaps = vec![check("aggregated", &engine(aggregated(32, 2048, 1, 1, 1), &w), 32)];
    let mut afd = lab::afd_plan(lab::pool(1, 1), lab::pool(1, 1), 3);
    (afd.batch, afd.chunk_tokens) = (Some(48), Some(2048));
    gaps.push(check("aggregated+afd", &engine(Plan::Afd(afd.clone()), &w), 48));
    // Two attention groups take turns on the FFN pool; two pipeline stages hold a batch each.
    let groups = AfdPlan { attention: lab::pool(2, 1), attention_groups: 2, ..afd.clone() };
    // Prompts of the two ranks are independent in the one, in the other as they fall.
    let two = check("two groups", &engine(Plan::Afd(groups), &w), 96);
    assert!(two.abs() < 0.04, "{two}");
    gaps.push(check("two stages", &engine(Plan::Afd(AfdPlan { pp: 2, ..afd }), &w), 96));
    let pd = PdPlan {
        prefill: lab::workers(4, lab::split(1, 1, 1), Some(1), Some(1000)),
        decode: lab::workers(1, lab::split(1, 1, 1), Some(64), None),
    };
    let e = engine(Plan::Pd(pd), &w);
    gaps.push(check("pd", &e, e.point.concurrency.round() as u32));
    println!("{}", text.join("\n"));
    assert!(gaps.iter().all(|g| g.abs() < 0.01), "{}", text.join("\n"));
}

#[test]
fn too_long_is_turned_away_and_a_stop_leaves_the_rest() {
    let mut r = regular(50, 5 * MS, 100, 20);
    r.isl[7] = 10_000;
    let s = Settings { kv_blocks: Some(64), stop_ps: Some(400 * MS), ..Settings::default() };
    let o = run(&fixed(1, 4, 20, 10), &r, &s);
    let (finished, rejected, unfinished) = o.counts();
    assert!(finished > 0 && rejected == 1 && unfinished > 0);
    assert_eq!(o.status[7], Status::Rejected);
}

#[test]
fn bad_columns_are_named() {
    let mut r = regular(3, MS, 10, 10);
    r.arrival_ps = vec![2, 1, 3];
    r.osl[2] = 0;
    let text = simulate(&fixed(1, 1, 1, 1), &r, &Settings::default(), &Control::new()).unwrap_err().to_string();
    assert!(text.contains("trace.arrival[1]") && text.contains("trace.osl[2]"), "{text}");
    let text = simulate(&fixed(1, 1, 1, 1), &Requests::default(), &Settings::default(), &Control::new()).unwrap_err();
    assert!(text.to_string().contains("empty"));
    let control = Control::new();
    control.cancel();
    assert!(simulate(&fixed(1, 1, 1, 1), &regular(9, 1, 1, 1), &Settings::default(), &control).is_err());
}

/// A conversation that comes back finds its blocks where it was, and nowhere else.
#[test]
fn sessions_find_their_prefix() {
    let turns = 6;
    let mut r = Requests { block_tokens: 64, hash_offsets: vec![0], ..Requests::default() };
    for turn in 0..turns {
        for session in 0..4_u64 {
            r.arrival_ps.push((turn * 4 + session) * 1000 * MS);
            r.isl.push(640 * (turn as u32 + 1));
            r.osl.push(5);
            r.session.push(session as u32);
            r.hashes.extend((0..10 * (turn + 1)).map(|b| session * 1000 + b));
            r.hash_offsets.push(r.hashes.len() as u32);
        }
    }
    let hits = |router: Router, cache: bool, ttl: Option<u64>| {
        let s = Settings { router, prefix_cache: cache, ttl_ps: ttl, ..Settings::default() };
        let o = run(&fixed(3, 8, 20, 10), &r, &s);
        o.prefix_hit_tokens.iter().map(|h| u64::from(*h)).sum::<u64>()
    };
    // All but the first turn find all of the turn before.
    let all: u64 = 4 * (1..turns).map(|t| 640 * t).sum::<u64>();
    assert_eq!(hits(Router::SessionSticky, true, None), all);
    assert_eq!(hits(Router::PrefixAware, true, None), all);
    assert_eq!(hits(Router::SessionSticky, true, Some(1000 * MS)), 0);
    assert_eq!(hits(Router::SessionSticky, false, None), 0);
    assert!(hits(Router::RoundRobin, true, None) < all);
}

/// When decode is full, prompts keep their KV on the prefill side, and prefill stops in the end.
#[test]
fn a_full_decode_pushes_back() {
    let r = regular(40, MS, 100, 50);
    let mut d = split_pools(1, 1);
    d.pools[1].max_seqs = 1;
    let s = Settings { kv_blocks: Some(30), ..Settings::default() };
    let o = run(&d, &r, &s);
    assert_eq!(o.counts().0, 40);
    // Four prompts of seven blocks fill the prefill side: the fifth to come is computed only when one has gone.
    let serial = o.first_token_ps.windows(2).all(|w| w[0] + 49 * 10 * MS <= w[1]);
    assert!(serial, "one at a time decodes");
    assert!(o.usage[0].kv_peak_blocks <= 30 && o.usage[0].kv_peak_blocks >= 28);
}

/// Who goes first, by scheduler: a long prompt beside a running answer.
#[test]
fn schedulers_differ_where_they_should() {
    let mut r = regular(2, 95 * MS, 100, 40);
    r.isl[1] = 1000;
    let d = Deployment::uniform(1, 8, 256, Timing::Fixed { prefill_ps: 20 * MS, decode_ps: 10 * MS });
    let with = |scheduler| run(&d, &r, &Settings { scheduler, ..Settings::default() });
    let (mixed, whole, chunks, fixed) = (
        with(Scheduler::ChunkedPrefill),
        with(Scheduler::PrefillFirst),
        with(Scheduler::Sglang),
        with(Scheduler::Static),
    );
    // The first alone 20 ms, then steps of 10: boundary at 100 ms. Chunks of 255 beside one token: 4 steps of 30 ms; gaps of 30 ms.
    assert_eq!(mixed.first_token_ps[1], 220 * MS);
    assert_eq!(mixed.itl_max_ps[0], 30 * MS);
    // The whole prompt in one step that decode waits for.
    assert_eq!(whole.first_token_ps[1], 120 * MS);
    assert_eq!(whole.itl_max_ps[0], 30 * MS);
    // Chunks of 256, decode waits for all four.
    assert_eq!(chunks.first_token_ps[1], 180 * MS);
    assert_eq!(chunks.itl_max_ps[0], 90 * MS);
    // The second comes when the first has gone (20 + 39 steps of 10 ms), four chunks alone.
    assert_eq!(fixed.finish_ps[0], 410 * MS);
    assert_eq!(fixed.first_token_ps[1], 490 * MS);
}

/// Attention ranks in lockstep: the rank with the longest context holds up the others.
#[test]
fn the_fullest_rank_sets_the_pace() {
    let w = Workload::fixed("w", 0.0, 2000.0, 100.0);
    // The API server takes long prompts longer: not what is looked at.
    let d = Deployment {
        front: disagg::sim::deployment::Front::default(),
        ..Deployment::of(&engine(aggregated(8, 4096, 1, 1, 4), &w))
    };
    let mut even = regular(4, 0, 20_000, 100);
    let mut uneven = even.clone();
    even.prefix = vec![19_999; 4];
    uneven.isl = vec![77_000, 1000, 1000, 1000];
    uneven.prefix = uneven.isl.iter().map(|i| i - 1).collect();
    let (a, b) = (run(&d, &even, &Settings::default()), run(&d, &uneven, &Settings::default()));
    assert!(b.end_ps > a.end_ps, "same tokens in all, but one rank has them: {} and {}", a.end_ps, b.end_ps);
    // All ranks end together: they were held up alike.
    assert!(b.finish_ps.iter().all(|f| *f == b.finish_ps[0]));
}

/// The rank with the most sequences holds up the others, and experts see the tokens of all.
#[test]
fn the_rank_with_most_sequences_sets_the_pace() {
    let w = Workload::fixed("w", 0.0, 1000.0, 100.0);
    let d = Deployment::of(&engine(aggregated(512, 8192, 1, 1, 4), &w));
    let pricer = &disagg::sim::pricers(&d)[0];
    let part = |n: u32, all: u32| {
        let context = u64::from(n) * 1000 * disagg::sim::deployment::PARTS;
        let one = disagg::sim::price::PassPart { n, all, context, grow: 0 };
        pricer.decode(&[one], 1).first
    };
    // 256 sequences: 64 on each rank, or all on one. That is slower, and not as slow as 256 on each.
    let (even, uneven, full) = (part(64, 256), part(256, 256), part(256, 1024));
    assert!(even < uneven && uneven < full, "{even} {uneven} {full}");
    // The more the others have, the longer it takes.
    let between = part(256, 640);
    assert!(uneven < between && between < full, "{uneven} {between} {full}");
}

#[test]
fn priorities_overtake_in_the_queue() {
    let mut r = regular(6, MS, 100, 20);
    r.priority = vec![1, 1, 1, 1, 0, 1];
    let o = run(&fixed(1, 1, 20, 10), &r, &Settings::default());
    let mut order: Vec<usize> = (0..6).collect();
    order.sort_by_key(|i| o.finish_ps[*i]);
    assert_eq!(order, [0, 4, 1, 2, 3, 5]);
}

/// Users whose first requests are refused send their next ones, and nobody's first request is passed over.
#[test]
fn a_closed_loop_that_is_refused_goes_on() {
    let n = 6;
    let requests = Requests {
        arrival_ps: vec![0; n],
        isl: vec![1000; n],
        osl: vec![2; n],
        closed: Some(Closed { users: 5, think_ps: MS }),
        ..Requests::default()
    };
    let d = Deployment::uniform(1, 4, 64, Timing::Fixed { prefill_ps: MS, decode_ps: MS });
    let out = run(&d, &requests, &Settings { kv_blocks: Some(10), ..Settings::default() });
    assert!(out.status.iter().all(|s| *s == disagg::sim::Status::Rejected));
    assert_eq!(out.arrival_ps, [0, 0, 0, 0, 0, MS]);
}
