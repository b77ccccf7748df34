//! Laws of steady states (physics.md section 5), and a slow obvious twin of the aggregated fixed point.

use std::sync::Arc;

use disagg::cost::{Batch, Library};
use disagg::network::Link;
use disagg::serving::engine::Compiled;
use disagg::serving::pd;
use disagg::serving::pd::Several;
use disagg::serving::step_engine::EngineKind;
use disagg::serving::{Binding, Engine, Load, SteadyState, StepEngine, aggregated};
use disagg::spec::assumptions::{FirstToken, KvTransfer, PrefillSync};
use disagg::spec::plan::{Duplex, PipelineMode};
use disagg::spec::workload::PrefixHome;
use disagg::spec::{
    AfdPlan, Aggregated, Assumptions, Framework, Level, Parallel, PdPlan, Plan, Serving, Slot, Workload,
};
use proptest::prelude::*;

use crate::lab::{self, afd_plan, gap, near, pool, split, unit, worker, workers};

fn aggregate(parallel: Parallel, batch: Option<u32>, chunk: Option<u32>, replicas: u32) -> Plan {
    Plan::Aggregated(Aggregated { parallel, batch, chunk_tokens: chunk, replicas, ..Default::default() })
}

fn engine(lib: &Arc<Library>, w: &Workload, plan: &Plan) -> Engine {
    Engine::new(lib, w, plan).unwrap_or_else(|e| panic!("{plan:?}: {e}"))
}

/// Engines that serve prefill and decode on the same GPUs.
fn mixed_steppers(w: &Workload) -> Vec<StepEngine> {
    let (v32, small) = (lab::v32(), lab::small());
    vec![
        worker(&v32, split(1, 8, 1), w),
        worker(&v32, split(8, 1, 1), w),
        worker(&v32, split(4, 2, 2), w),
        worker(&small, split(1, 1, 1), w),
        worker(&small, split(2, 2, 1), w),
        unit(&v32, &afd_plan(pool(4, 1), pool(12, 1), 3), w),
        unit(&v32, &afd_plan(pool(8, 4), pool(8, 1), 2), w),
    ]
}

fn workload(prefix: u32, isl: u32, osl: u32) -> Workload {
    Workload::fixed("law", f64::from(prefix), f64::from(isl), f64::from(osl))
}

/// A budget of fewer tokens than slots: the slots that it leaves out wait, and the law holds of them too.
#[test]
fn a_budget_below_the_slots_makes_the_others_wait() {
    let w = workload(0, 1, 82);
    let s = mixed_steppers(&w).swap_remove(0);
    let p = aggregated::solve(&s, &Load::of(&w), 82.0, 16.0, 2);
    let held = s.ranks() * s.stages_in_flight() * 2.0 * 82.0;
    assert!(p.decode_batch <= 15.0 && p.binding == Binding::PrefillRate);
    near(little(&p, 82.0), held, 1e-3, "Little");
}

/// Sequences in the system, by Little: rate times the time a request is in it.
fn little(p: &SteadyState, osl: f64) -> f64 {
    p.requests_per_s * (p.ttft_s + (osl - 1.0) * p.tpot_s)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn littles_law_aggregated(
        which in 0usize..7, prefix in 0u32..8192, isl in 1u32..4096, osl in 2u32..2048,
        batch in 1u32..200, chunk in 16u32..8192,
    ) {
        let w = workload(prefix, isl, osl);
        let s = mixed_steppers(&w).swap_remove(which);
        let load = Load::of(&w);
        let p = aggregated::solve(&s, &load, f64::from(batch), f64::from(chunk), 2);
        prop_assert!(p.stands() || p.ttft_s.is_nan() && p.requests_per_s == 0.0);
        prop_assume!(p.stands());
        let held = s.ranks() * s.stages_in_flight() * 2.0 * f64::from(batch);
        // Those on their way to the server and back hold no slot.
        let outside = p.requests_per_s * p.path.total_s();
        prop_assert!(gap(p.concurrency, held + outside) < 1e-9, "{} slots, {} in use", held, p.concurrency - outside);
        let little = little(&p, load.osl);
        prop_assert!(gap(little, held + outside) < 1e-3, "{:?}: Little gives {} of {}", p, little, held + outside);
        // Prompt tokens prefilled per second = rate x ISL: no more than every step's room.
        let prompts = p.requests_per_s / (s.ranks() * s.stages_in_flight() * 2.0) * load.isl * p.tpot_s;
        prop_assert!(prompts <= (f64::from(chunk) - p.decode_batch) * (1.0 + 1e-6), "{prompts} in a room of {}", f64::from(chunk) - p.decode_batch);
        prop_assert!(p.itl_worst_s >= p.tpot_s * (1.0 - 1e-9));
        prop_assert!(p.service_ttft_s() >= p.itl_worst_s * (1.0 - 1e-9));
        prop_assert!(p.decode_batch > 0.0 && p.decode_batch <= f64::from(batch));
    }

    #[test]
    fn littles_law_pd(
        prefix in 0u32..8192, isl in 16u32..4096, osl in 2u32..2048, batch in 1u32..128,
        np in 1u32..4, nd in 1u32..4, half in any::<bool>(),
    ) {
        let w = workload(prefix, isl, osl);
        let lib = if half { lab::v32() } else { lab::small() };
        let parallel = if half { split(1, 8, 1) } else { split(1, 2, 1) };
        let (p, d) = (worker(&lib, parallel, &w), worker(&lib, parallel, &w));
        let load = Load::of(&w);
        let side = pd::prefill_side(&p, &load, 1.0, f64::from(isl));
        let decode = pd::decode_side(&d, &load, f64::from(batch));
        let point = pd::combine(Several::of(&p, &side, np), Several::of(&d, &decode, nd), &load);
        prop_assume!(point.stands());
        // The batch that gives the rate is found to a thousandth.
        prop_assert!(gap(little(&point, load.osl), point.concurrency) < 3e-3, "{point:?}: {}", little(&point, load.osl));
        prop_assert!(point.requests_per_s <= f64::from(np) * side.rate * (1.0 + 1e-12));
        prop_assert!(point.requests_per_s <= f64::from(nd) * decode.rate * (1.0 + 1e-12));
        prop_assert!(point.decode_batch <= decode.batch && point.tpot_s <= decode.step.seconds * (1.0 + 1e-3));
        prop_assert!(point.ttft_s >= side.prefill.latency_s);
    }

    #[test]
    fn replicas_and_units_scale_linearly(n in 2u32..5, batch in 2u32..64, isl in 16u32..2048) {
        let w = workload(512, isl, 200);
        let load = Load::of(&w);
        let mut stood = 0;
        for s in mixed_steppers(&w) {
            let one = aggregated::solve(&s, &load, f64::from(batch), 1024.0, 1);
            let many = aggregated::solve(&s, &load, f64::from(batch), 1024.0, n);
            prop_assert_eq!(one.binding, many.binding);
            if one.stands() {
                prop_assert!(gap(one.requests_per_s * f64::from(n), many.requests_per_s) < 1e-12);
                prop_assert!(gap(one.concurrency * f64::from(n), many.concurrency) < 1e-12);
                prop_assert_eq!((one.ttft_s, one.tpot_s), (many.ttft_s, many.tpot_s));
                stood += 1;
            }
        }
        prop_assume!(stood > 3);
    }

    #[test]
    fn aligned_prefills_are_never_slower(batch in 1u32..128, isl in 16u32..2048, osl in 8u32..512) {
        let w = workload(1024, isl, osl);
        let load = Load::of(&w);
        let apart = lab::v32();
        let mut a = Assumptions::physical();
        a.prefill_sync = PrefillSync::Aligned;
        let together = aligned();
        prop_assert_eq!(&together.assumptions, &a);
        let solve = |lib: &Arc<Library>| {
            aggregated::solve(&worker(lib, split(1, 8, 1), &w), &load, f64::from(batch), 2048.0, 1)
        };
        let (t, u) = (solve(&together), solve(&apart));
        prop_assume!(t.stands() && u.stands());
        // A mixed step of few ranks is a little cheaper than one of all, so TTFT may be longer when aligned.
        prop_assert!(t.tpot_s <= u.tpot_s * 1.001, "aligned {t:?}, uncoordinated {u:?}");
        prop_assert!(t.requests_per_s >= u.requests_per_s * 0.999, "aligned {t:?}, uncoordinated {u:?}");
        // One rank has nobody to wait for.
        let one = |lib: &Arc<Library>| {
            aggregated::solve(&worker(lib, split(8, 1, 1), &w), &load, f64::from(batch), 2048.0, 1)
        };
        let (t, u) = (one(&together), one(&apart));
        prop_assume!(t.stands());
        prop_assert!(gap(t.requests_per_s, u.requests_per_s) < 1e-9 && gap(t.ttft_s, u.ttft_s) < 1e-9);
    }

    /// More bandwidth for KV never raises TTFT; layer by layer is never slower than in bulk; a first
    /// token from the prefill side is never later.
    #[test]
    fn faster_wires_and_streams(prefix in 0u32..65_536, isl in 16u32..8192, faster in 0usize..2, home in 0usize..3) {
        let mut w = workload(prefix, isl, 64);
        w.prefix_home = [PrefixHome::Both, PrefixHome::Prefill, PrefixHome::Decode][home];
        let load = Load::of(&w);
        let ttft = |lib: &Arc<Library>| {
            let (p, d) = (worker(lib, split(8, 1, 1), &w), worker(lib, split(1, 8, 1), &w));
            let side = pd::prefill_side(&p, &load, 1.0, 2048.0);
            let point = pd::combine(Several::of(&p, &side, 1), Several::of(&d, &pd::decode_side(&d, &load, 2.0), 1), &load);
            (point.service_ttft_s(), side.prefill.latency_s)
        };
        let base = lab::v32();
        let (streamed, alone) = ttft(&base);
        prop_assume!(!streamed.is_nan());
        let [twice, ten_fold, bulk, early] = wires();
        let quick = [twice, ten_fold][faster];
        let kept = pd::prefill_side(&worker(&base, split(8, 1, 1), &w), &load, 1.0, 2048.0).prefill.latency_s;
        let (q, q_alone) = ttft(quick);
        prop_assert!(q - q_alone <= streamed - kept + 1e-12, "the wait rose from {} to {}", streamed - kept, q - q_alone);
        prop_assert!(streamed <= ttft(bulk).0);
        let early = ttft(early).0;
        prop_assert!(early <= streamed);
        if w.prefix_home != PrefixHome::Decode {
            prop_assert!(gap(early, alone) < 1e-12, "nothing but prefill before the first token");
        }
    }

    /// An AFD unit of one micro-batch is the sequence of its stages; more are bound by the slowest.
    #[test]
    fn afd_steps_obey_their_stages(batch in 4u32..256, context in 64u32..32_768, m in 2u32..6, a in 1u32..16) {
        let w = workload(1024, 256, 256);
        let lib = lab::v32();
        let batch = f64::from(batch - batch % m + m);
        let stages = |m: u32, mode| {
            let mut plan = afd_plan(pool(a, 1), pool(16, 1), m);
            plan.pipeline = mode;
            unit(&lib, &plan, &w)
        };
        let b = Batch::decode(batch, f64::from(context), 1.0);
        let one = stages(1, PipelineMode::Overlapped);
        let t = one.step(&b);
        prop_assert!(gap(t.seconds, t.work.seconds) < 1e-9, "one micro-batch: {} against {}", t.seconds, t.work.seconds);
        let many = stages(m, PipelineMode::Overlapped);
        let EngineKind::Afd(u) = &many.kind else { panic!("a unit") };
        let parts = u.parts(&b);
        prop_assert_eq!(parts.len(), m as usize);
        let s = u.unit.stages(&parts[0], 0);
        let taus = [s.attention.seconds, s.a2f.seconds, s.ffn.seconds, s.f2a.seconds];
        let slowest = taus.iter().fold(0.0_f64, |x, y| x.max(*y));
        let layers = u.unit.library().program.layers_with(disagg::cost::program::Ffn::Experts);
        let t = many.step(&b);
        prop_assert!(t.seconds >= layers * f64::from(m) * slowest * (1.0 - 1e-9), "faster than its slowest stage");
        prop_assert!(t.seconds >= t.work.seconds / f64::from(m) * (1.0 - 1e-9), "faster than one micro-batch's own way");
        prop_assert!(t.seconds <= t.work.seconds * (1.0 + 1e-9), "slower than all one after another");
        let alone = stages(m, PipelineMode::Alone).step(&b);
        prop_assert!(t.seconds <= alone.seconds * (1.0 + 1e-9));
        prop_assert!(gap(t.work.seconds, alone.work.seconds) < 1e-12);
        // Sharing one direction of the links helps nobody.
        let mut half = afd_plan(pool(a, 1), pool(16, 1), m);
        half.duplex = Duplex::Half;
        prop_assert!(unit(&lib, &half, &w).step(&b).seconds >= t.seconds * (1.0 - 1e-9));
    }
}

/// The paper's model with links twice and ten times as fast, KV in bulk, first tokens from prefill.
fn wires() -> &'static [Arc<Library>; 4] {
    static MADE: std::sync::OnceLock<[Arc<Library>; 4]> = std::sync::OnceLock::new();
    MADE.get_or_init(|| {
        let base = lab::v32();
        let quick = |factor: f64| {
            let mut cluster = base.cluster.clone();
            cluster.fabric.nic_bytes_per_s *= factor;
            cluster.fabric.nvlink_bytes_per_s *= factor;
            lab::library(&base.model, &cluster, "trtllm", &base.assumptions)
        };
        let with = |kv, first| {
            let mut a = Assumptions::physical();
            (a.kv_transfer, a.first_token_from) = (kv, first);
            lab::library(&base.model, &base.cluster, "trtllm", &a)
        };
        [
            quick(2.0),
            quick(10.0),
            with(KvTransfer::Bulk, FirstToken::Decode),
            with(KvTransfer::LayerWise, FirstToken::Prefill),
        ]
    })
}

fn aligned() -> Arc<Library> {
    static MADE: std::sync::OnceLock<Arc<Library>> = std::sync::OnceLock::new();
    MADE.get_or_init(|| {
        let base = lab::v32();
        let mut a = Assumptions::physical();
        a.prefill_sync = PrefillSync::Aligned;
        lab::library(&base.model, &base.cluster, "trtllm", &a)
    })
    .clone()
}

#[test]
fn without_prompts_the_step_is_pure_decode() {
    // One new token over a long prefix, a very long answer: prefill vanishes.
    let mut judged = 0;
    for osl in [2_000u32, 20_000] {
        let w = workload(2048, 1, osl);
        let load = Load::of(&w);
        for s in mixed_steppers(&w) {
            let p = aggregated::solve(&s, &load, 4.0, 64.0, 1);
            if !p.stands() {
                continue;
            }
            let pure = s.decode(p.decode_batch, s.slowest_context(p.decode_batch, load.context)).seconds;
            let worst = 60.0 / f64::from(osl);
            assert!(p.tpot_s >= pure * (1.0 - 1e-9) && p.tpot_s <= pure * (1.0 + worst), "{} against {pure}", p.tpot_s);
            assert!(p.decode_batch > 4.0 * (1.0 - worst));
            judged += 1;
        }
    }
    assert!(judged >= 10, "{judged}");
}

#[test]
fn one_output_token_is_prefill_only() {
    for (isl, batch, chunk) in [(512u32, 1u32, 512u32), (512, 1, 8192), (512, 16, 4096), (3000, 4, 1024)] {
        let w = workload(256, isl, 1);
        let load = Load::of(&w);
        for s in mixed_steppers(&w) {
            let p = aggregated::solve(&s, &load, f64::from(batch), f64::from(chunk), 3);
            assert!(p.stands(), "{p:?}");
            assert_eq!((p.tpot_s, p.decode_batch), (0.0, 0.0));
            let slots = 3.0 * s.ranks() * s.stages_in_flight() * f64::from(batch);
            // A prompt that does not divide into chunks shares its last step with the next one.
            let whole = f64::from(isl.div_ceil(chunk) * chunk) / f64::from(isl);
            let held = p.concurrency - p.requests_per_s * p.path.total_s();
            assert!(
                held <= slots * whole.max(1.0) * (1.0 + 1e-9),
                "isl {isl} b{batch} c{chunk}: {held} in {slots} slots"
            );
            near(little(&p, 1.0), p.concurrency, 1e-3, "Little");
        }
        let lib = lab::small();
        let one = PdPlan {
            prefill: workers(1, split(1, 1, 1), None, None),
            decode: workers(1, split(1, 1, 1), Some(1), None),
        };
        let p = engine(&lib, &w, &Plan::Pd(one)).point;
        assert!(p.stands() && p.tpot_s == 0.0 && p.requests_per_s > 0.0);
        near(little(&p, 1.0), p.concurrency, 0.05, "Little, up to the wire");
    }
}

#[test]
fn small_budgets_never_give_nonsense() {
    for (isl, osl) in [(1u32, 2u32), (7, 3), (512, 256), (4096, 2), (10, 4096)] {
        let w = workload(128, isl, osl);
        let load = Load::of(&w);
        for s in mixed_steppers(&w) {
            for batch in [1.0, 2.0, 5.0, 64.0, 512.0] {
                for chunk in [1.0, 2.0, 3.0, 17.0, 64.0, 65.0, 1000.0, 20_000.0] {
                    let p = aggregated::solve(&s, &load, batch, chunk, 1);
                    if p.stands() {
                        let all = [p.ttft_s, p.tpot_s, p.itl_worst_s, p.requests_per_s, p.concurrency];
                        assert!(
                            all.iter().all(|x| x.is_finite() && *x > 0.0),
                            "isl {isl} osl {osl} b{batch} c{chunk}: {p:?}"
                        );
                        assert!(p.decode_batch < chunk);
                    } else {
                        assert_ne!(p.binding, Binding::None);
                    }
                }
            }
        }
    }
}

#[test]
fn speculation_counts_accepted_tokens() {
    let w = workload(512, 256, 512);
    let base = lab::small();
    let of = |mtp, acceptance| {
        let serving = Serving { mtp, acceptance, ..Serving::default() };
        let lib = lab::library_serving(&base.model, &base.cluster, "trtllm", &Assumptions::physical(), &serving);
        engine(&lib, &w, &aggregate(split(1, 1, 1), Some(8), Some(512), 1)).point
    };
    let (none, useless, good) = (of(0, None), of(1, Some(0.0)), of(1, Some(0.9)));
    assert!(useless.tpot_s >= none.tpot_s && useless.requests_per_s <= none.requests_per_s, "drafts that fail cost");
    assert!(good.tpot_s < useless.tpot_s / 1.7 && good.requests_per_s > 1.5 * useless.requests_per_s);
    for p in [none, useless, good] {
        near(little(&p, 512.0), p.concurrency, 1e-3, "Little");
    }
}

#[test]
fn pipelines_keep_a_batch_a_stage() {
    let w = workload(1024, 512, 256);
    let load = Load::of(&w);
    let lib = lab::v32();
    let (one, two) = (worker(&lib, split(8, 1, 1), &w), worker(&lib, split(8, 1, 2), &w));
    let (a, b) = (one.decode(16.0, 4096.0), two.decode(16.0, 4096.0));
    // A token passes all layers and the hops: a little longer, never shorter.
    assert!(b.seconds > a.seconds && b.seconds < a.seconds * 1.15, "{} and {}", a.seconds, b.seconds);
    let (p, q) = (pd::decode_side(&one, &load, 16.0), pd::decode_side(&two, &load, 16.0));
    assert!(q.rate > 1.7 * p.rate && q.rate < 2.0 * p.rate, "two stages decode two batches");
    let (p, q) = (one.prefill(1.0, 8192.0, 0.0, 1024.0), two.prefill(1.0, 8192.0, 0.0, 1024.0));
    assert!(q.latency_s < p.latency_s && q.latency_s > p.latency_s / 2.0, "chunks stream through the stages");
    assert!(q.period_s > p.period_s / 2.0 && q.period_s < p.period_s / 1.7);
    // One chunk has nothing to stream.
    let (p, q) = (one.prefill(1.0, 1024.0, 0.0, 1024.0), two.prefill(1.0, 1024.0, 0.0, 1024.0));
    assert!(q.latency_s > p.latency_s);
    let half = two.memory()[0].weights / one.memory()[0].weights;
    assert!((0.5..0.56).contains(&half), "{half}");
}

#[test]
fn slots_are_bound_by_the_slower_side() {
    let w = workload(0, 4096, 24);
    let load = Load::of(&w);
    let lib = lab::small();
    let s = worker(&lib, split(1, 1, 1), &w);
    let side = pd::prefill_side(&s, &load, 1.0, load.isl);
    let decode = pd::decode_side(&s, &load, 32.0);
    let combine = |np, nd| pd::combine(Several::of(&s, &side, np), Several::of(&s, &decode, nd), &load);
    let mut seen = [false; 2];
    for np in 1..6 {
        for nd in 1..6 {
            let p = combine(np, nd);
            let (supply, demand) = (f64::from(np) * side.rate, f64::from(nd) * decode.rate);
            near(p.requests_per_s, supply.min(demand), 1e-12, "the slower side");
            let prefill_bound = supply < demand * (1.0 - 1e-9);
            assert_eq!(p.binding == Binding::PrefillRate, prefill_bound);
            seen[usize::from(prefill_bound)] = true;
            // More of the side that binds gives more; more of the other lowers its batch or idles.
            let more = if prefill_bound { combine(np + 1, nd) } else { combine(np, nd + 1) };
            assert!(more.requests_per_s > p.requests_per_s);
            let other = if prefill_bound { combine(np, nd + 1) } else { combine(np + 1, nd) };
            near(other.requests_per_s, p.requests_per_s, 1e-12, "the other side");
            assert!(other.tpot_s <= p.tpot_s * 1.002);
        }
    }
    assert_eq!(seen, [true, true]);
}

#[test]
fn a_slow_wire_binds_and_says_so() {
    let w = workload(0, 8192, 8);
    let load = Load::of(&w);
    let base = lab::v32();
    let of = |rate: f64| {
        let mut cluster = base.cluster.clone();
        cluster.fabric.nic_bytes_per_s = rate;
        let lib = lab::library(&base.model, &cluster, "trtllm", &base.assumptions);
        let s = worker(&lib, split(1, 8, 1), &w);
        let (p, d) = (pd::prefill_side(&s, &load, 4.0, load.isl), pd::decode_side(&s, &load, 8.0));
        pd::combine(Several::of(&s, &p, 2), Several::of(&s, &d, 2), &load)
    };
    let (slow, fast) = (of(1e8), of(5e10));
    assert_eq!(slow.binding, Binding::Bandwidth(Link::Nic));
    assert_ne!(fast.binding, Binding::Bandwidth(Link::Nic));
    assert!(fast.requests_per_s > slow.requests_per_s && fast.ttft_s < slow.ttft_s);
}

// --- what an engine says about itself ------------------------------------------------------------------

fn plans() -> Vec<Plan> {
    let afd = |units: u32, m: Option<u32>| {
        let mut a: AfdPlan = afd_plan(pool(4, 1), pool(12, 1), 1);
        a.microbatches = m;
        a.units = units;
        a
    };
    let pd = |prefill, decode| Plan::Pd(PdPlan { prefill, decode });
    vec![
        aggregate(split(1, 8, 1), None, None, 2),
        aggregate(split(8, 1, 1), None, Some(1024), 1),
        aggregate(split(4, 2, 2), Some(8), None, 1),
        aggregate(split(1, 8, 1), Some(200), Some(8192), 1),
        Plan::Afd(afd(2, None)),
        Plan::Afd(afd(1, Some(3))),
        pd(workers(1, split(8, 1, 1), None, None), workers(1, split(1, 8, 1), None, None)),
        pd(workers(2, split(2, 4, 1), Some(4), Some(200)), workers(1, split(1, 16, 1), Some(64), None)),
        pd(workers(1, split(8, 1, 1), None, None), Slot::Afd(afd(1, None))),
        pd(Slot::Afd(afd(1, Some(4))), workers(1, split(1, 8, 1), None, None)),
        pd(Slot::Afd(afd(1, Some(2))), Slot::Afd(afd(1, None))),
    ]
}

/// A plan with every choice made compiles to the same point, and its tables add up.
#[test]
fn engines_agree_with_themselves() {
    let lib = lab::v32();
    for w in [
        lab::chat(),
        workload(0, 513, 2),
        Workload { lengths: vec![[0.0, 100.0, 30.0], [64.0, 401.0, 9.0]], ..lab::chat() },
    ] {
        for plan in plans() {
            let e = engine(&lib, &w, &plan);
            assert_eq!(e.gpus(), plan.gpus());
            assert_eq!(e.plan.level(), plan.level());
            let again = Engine::new(&lib, &w, &e.plan).unwrap_or_else(|err| panic!("{:?}: {err}", e.plan));
            assert_eq!(again.plan, e.plan);
            assert!(again.point == e.point, "{:?}:\n{:?}\n{:?}", e.plan, e.point, again.point);
            let x = e.estimate().unwrap();
            assert!(x.scalars.feasible, "{plan:?}");
            // The fullest GPU is the largest pool of the memory table.
            let mut pools: Vec<_> = x.tables.memory.iter().map(|r| r.pool).collect();
            pools.dedup();
            let fullest = pools
                .iter()
                .map(|p| x.tables.memory.iter().filter(|r| r.pool == *p && r.item.is_use()).map(|r| r.gib).sum::<f64>())
                .fold(0.0, f64::max);
            near(fullest, x.scalars.memory_gib, 1e-9, &format!("memory of {:?}", e.plan));
            let shares: f64 = x.scalars.evidence.values().sum();
            near(shares, 1.0, 1e-9, "evidence");
            near(x.scalars.tokens_per_s, e.point.requests_per_s * e.load.osl, 1e-12, "tokens");
        }
    }
}

/// The breakdown lists the operators of the very steps that the point is made of.
#[test]
fn breakdowns_are_of_the_steps_priced() {
    let lib = lab::v32();
    for w in [lab::chat(), workload(0, 2000, 16)] {
        for plan in plans() {
            let e = engine(&lib, &w, &plan);
            let x = e.estimate().unwrap();
            let ms =
                |phase: &str| x.tables.breakdown.iter().filter(|r| r.phase.name() == phase).map(|r| r.ms).sum::<f64>();
            match &e.plan {
                Plan::Aggregated(a) if a.parallel.pp == 1 => {
                    near(ms("mixed"), e.point.itl_worst_s * 1e3, 1e-9, &format!("mixed step of {:?}", e.plan));
                }
                Plan::Pd(pd) => {
                    if let Slot::Workers(_) = pd.decode {
                        near(ms("decode"), e.point.itl_worst_s * 1e3, 1e-9, &format!("decode step of {:?}", e.plan));
                    }
                    let (prefill, batch, chunk) = match (&e.compiled, &pd.prefill) {
                        (Compiled::Pd { prefill, .. }, Slot::Workers(w)) => (prefill, w.batch, w.chunk_tokens),
                        (Compiled::Pd { prefill, .. }, Slot::Afd(a)) => (prefill, a.batch, a.chunk_tokens),
                        _ => panic!("a P/D plan"),
                    };
                    let (batch, chunk) = (f64::from(batch.unwrap()), f64::from(chunk.unwrap()));
                    let round = prefill.prefill(batch, e.load.isl, e.load.prefix, chunk);
                    let own = ms("prefill") - e.point.kv.prefill_s * 1e3;
                    near(own, round.work.seconds * 1e3, 1e-9, &format!("prefill of {:?}", e.plan));
                }
                _ => {}
            }
        }
    }
}

#[test]
fn longer_than_the_model_warns_or_refuses() {
    let lib = lab::small();
    let mut w = workload(100_000, 512, 64);
    let plan = aggregate(split(1, 4, 1), None, None, 1);
    let x = engine(&lib, &w, &plan).estimate().unwrap();
    assert!(x.scalars.context_exceeded && x.scalars.warnings.iter().any(|t| t.starts_with("context_exceeded")));
    w.strict_context = true;
    let err = engine(&lib, &w, &plan).estimate().err().unwrap().to_string();
    assert!(err.starts_with("workload: context_exceeded"), "{err}");
    let short = engine(&lib, &lab::chat(), &plan).estimate().unwrap();
    assert!(!short.scalars.context_exceeded && short.scalars.warnings.is_empty());
}

// --- the slow, obvious twin of aggregated::solve --------------------------------------------------------

/// One attention rank, step by step: slots hold requests that prefill first come, first served within
/// the budget that decode leaves, then decode a token a step; a finished request is replaced at once.
struct Simulation<'a> {
    engine: &'a StepEngine,
    load: Load,
    chunk: f64,
    clock: f64,
    /// Decoding: tokens already produced, time of the first one.
    decoding: Vec<(u32, f64)>,
    /// Waiting or part of the way through prefill: arrival, tokens done.
    queue: std::collections::VecDeque<(f64, f64)>,
}

#[derive(Debug, Default)]
struct Seen {
    finished: f64,
    ttft: f64,
    tpot: f64,
    firsts: f64,
    time: f64,
}

impl Simulation<'_> {
    fn step(&mut self, seen: &mut Seen) {
        let osl = self.load.osl as u32;
        let busy = self.decoding.len() as f64;
        let mut room = (self.chunk - busy).max(0.0);
        let (mut sequences, mut new, mut past, mut ending) = (0.0, 0.0, 0.0, 0usize);
        for (_, done) in &mut self.queue {
            if room <= 0.0 {
                break;
            }
            let take = room.min(self.load.isl - *done);
            (sequences, new, past) = (sequences + 1.0, new + take, past + self.load.prefix + *done);
            *done += take;
            room -= take;
            ending += usize::from(*done >= self.load.isl);
        }
        let n = f64::max(sequences, 1.0);
        let context = self.load.prefix
            + self.load.isl
            + self.decoding.iter().map(|d| f64::from(d.0)).sum::<f64>() / busy.max(1.0);
        let batch = Batch {
            decode: busy,
            context,
            per_decode: 1.0,
            sequences,
            new: new / n,
            past: past / n,
            busy: 1.0,
            ending: ending as f64,
            slack: 0.0,
        };
        let seconds = self.engine.step(&batch).seconds;
        self.clock += seconds;
        seen.time += seconds;
        let mut left = 0;
        let clock = self.clock;
        self.decoding.retain_mut(|(tokens, first)| {
            *tokens += 1;
            let stays = *tokens < osl;
            if !stays {
                seen.finished += 1.0;
                seen.tpot += (clock - *first) / f64::from(osl - 1);
                left += 1;
            }
            stays
        });
        for _ in 0..ending {
            let (arrival, _) = self.queue.pop_front().unwrap();
            seen.ttft += clock - arrival;
            seen.firsts += 1.0;
            self.decoding.push((1, clock));
        }
        self.queue.extend((0..left).map(|_| (clock, 0.0)));
    }
}

/// (rate, TTFT, TPOT) of the closed loop, uniform ages at the start, after a warm-up.
fn simulate(engine: &StepEngine, load: &Load, batch: u32, chunk: f64) -> (f64, f64, f64) {
    let osl = load.osl as u32;
    let mut s = Simulation {
        engine,
        load: *load,
        chunk,
        clock: 0.0,
        decoding: (0..batch).map(|i| (1 + i * (osl - 1) / batch, 0.0)).collect(),
        queue: std::collections::VecDeque::new(),
    };
    // Those that start in the middle have no first token to count from.
    let rounds = 3 * osl as usize + 20 * (f64::from(batch) * load.isl / chunk) as usize;
    let mut warm = Seen::default();
    (0..rounds).for_each(|_| s.step(&mut warm));
    let mut seen = Seen::default();
    (0..2 * rounds).for_each(|_| s.step(&mut seen));
    (seen.finished / seen.time, seen.ttft / seen.firsts, seen.tpot / seen.finished)
}

#[test]
fn the_fixed_point_agrees_with_a_simulation() {
    // (prefix, isl, osl, batch, chunk): below and above prefill-bound, prompts of one step and of many.
    let cases: [(u32, u32, u32, u32, f64); 10] = [
        (4096, 512, 256, 16, 1024.0),
        (4096, 512, 256, 64, 1024.0),
        (0, 1024, 128, 32, 288.0),
        (0, 2048, 512, 48, 560.0),
        (1024, 256, 64, 8, 512.0),
        (0, 4096, 64, 8, 1024.0),
        (0, 1000, 100, 128, 512.0),
        (0, 2048, 16, 32, 1024.0),
        (512, 128, 16, 64, 512.0),
        (0, 512, 512, 4, 2048.0),
    ];
    let mut worst = [0.0_f64; 3];
    for (prefix, isl, osl, batch, chunk) in cases {
        let w = workload(prefix, isl, osl);
        let load = Load::of(&w);
        for s in [worker(&lab::small(), split(1, 1, 1), &w), worker(&lab::v32(), split(8, 1, 1), &w)] {
            let p = aggregated::solve(&s, &load, f64::from(batch), chunk, 1);
            let (rate, ttft, tpot) = simulate(&s, &load, batch, chunk);
            let signed = |a: f64, b: f64| a / b - 1.0;
            let off = [signed(p.requests_per_s, rate), signed(p.service_ttft_s(), ttft), signed(p.tpot_s, tpot)];
            println!(
                "{} {prefix}/{isl}/{osl} b{batch} c{chunk} {:?}: rate {:+.3} ttft {:+.3} tpot {:+.3} (B_dec {:.2})",
                s.library().model.name,
                p.binding,
                off[0],
                off[1],
                off[2],
                p.decode_batch
            );
            for (w, o) in worst.iter_mut().zip(off) {
                *w = w.max(o.abs());
            }
        }
    }
    println!("worst gaps: rate {:.3}, ttft {:.3}, tpot {:.3}", worst[0], worst[1], worst[2]);
    assert!(worst[0] < 0.05 && worst[2] < 0.08 && worst[1] < 0.6, "{worst:?}");
}

/// Intervals: there for every figure and kind of plan, ordered, wider with a higher chance, and told from what they rest on.
#[test]
fn intervals_come_from_servers_of_the_kind() {
    use disagg::serving::residuals::{Interval, Quantity, Served, interval};
    let of = |system: &str, framework: Framework, model: &str, level: Level| {
        let (model, cluster) = (lab::model(model), lab::cluster(system, 8));
        Served::of(&lab::library(&model, &cluster, framework, &Assumptions::physical()), level)
    };
    let width = |i: &Interval| i.factors[1] / i.factors[0];
    for system in ["b200_sxm", "h100_sxm"] {
        for framework in Framework::ALL.iter().copied() {
            for model in ["deepseek-ai/DeepSeek-V3", "Qwen/Qwen3-32B"] {
                for level in Level::ALL {
                    let served = of(system, framework, model, *level);
                    for quantity in [Quantity::Ttft, Quantity::Tpot, Quantity::Rate, Quantity::Kv] {
                        let name = format!("{system} {framework} {model} {} {}", level.name(), quantity.name());
                        let found = [0.5, 0.8, 0.95, 0.999].map(|c| interval(&served, quantity, c));
                        let [low, high] = found[1].factors;
                        assert!(0.1 < low && low < high && high < 40.0, "{name}: {found:?}");
                        assert!(found.windows(2).all(|w| width(&w[0]) <= width(&w[1])), "{name}: {found:?}");
                    }
                    let from = interval(&served, Quantity::Tpot, 0.8).from;
                    let kind = if model.contains("V3") { "experts" } else { "dense" };
                    assert!(from.contains(kind) || from.contains("none like this one"), "{from}");
                    assert_eq!(level.has_afd(), from.contains("none like this one") && level.has_afd());
                }
            }
        }
    }
    let known = interval(&of("h100_sxm", Framework::Trtllm, "Qwen/Qwen3-32B", Level::Aggregated), Quantity::Tpot, 0.8);
    assert!(known.from.contains("measured servers (trtllm, hopper, dense, aggregated)"), "{}", known.from);
    assert!(width(&known) < 1.5, "{known:?}");
}

/// Errors that two plans share cancel: servers of one kind are told apart better than each is known; AFD is not.
#[test]
fn ratios_are_known_better_than_rates() {
    use disagg::serving::residuals::{Quantity, Served, interval, ratio};
    let (model, cluster) = (lab::model("deepseek-ai/DeepSeek-V3"), lab::cluster("b200_sxm", 8));
    let of = |framework: Framework, level: Level| {
        Served::of(&lab::library(&model, &cluster, framework, &Assumptions::physical()), level)
    };
    let (plain, pd) = (of(Framework::Trtllm, Level::Aggregated), of(Framework::Trtllm, Level::Pd));
    let (other, afd) = (of(Framework::Sglang, Level::Aggregated), of(Framework::Trtllm, Level::PdAfd));
    let wide = |a: &Served, b: &Served| ratio(a, b, Quantity::Rate, 0.8)[1];
    let [low, high] = ratio(&plain, &plain, Quantity::Rate, 0.8);
    assert!((low * high - 1.0).abs() < 1e-12 && high > 1.01, "{low} {high}");
    let (alike, apart, unlike) = (wide(&plain, &plain), wide(&plain, &other), wide(&plain, &afd));
    println!("ratio of rates within {alike:.3} alike, {apart:.3} apart, {unlike:.3} with AFD");
    assert!(alike <= apart && alike <= unlike, "{alike} {apart} {unlike}");
    let alone = interval(&plain, Quantity::Rate, 0.8).factors;
    // Independent, a ratio would be off by both.
    assert!(wide(&plain, &plain) < alone[1] / alone[0], "{} {alone:?}", wide(&plain, &plain));
    assert!(ratio(&plain, &pd, Quantity::Rate, 0.95)[1] > wide(&plain, &pd));
}

/// A chance tightens limits, the more the higher it is, and two limits more than one.
#[test]
fn a_chance_tightens_limits() {
    use disagg::serving::residuals::{Served, tightened};
    use disagg::spec::Slo;
    let (model, cluster) = (lab::model("deepseek-ai/DeepSeek-V3"), lab::cluster("b200_sxm", 8));
    let lib = lab::library(&model, &cluster, Framework::Trtllm, &Assumptions::physical());
    for level in Level::ALL {
        let served = Served::of(&lib, *level);
        let both = Slo { ttft_ms: Some(1000.0), tpot_ms: Some(50.0), percentile: None };
        let one = Slo { ttft_ms: None, ..both };
        let [low, high] = [0.5, 0.9].map(|c| tightened(&served, &both, c));
        assert!(high.tpot_ms.unwrap() < low.tpot_ms.unwrap() && low.tpot_ms.unwrap() <= 50.0, "{low:?} {high:?}");
        assert!(high.ttft_ms.unwrap() < low.ttft_ms.unwrap() && low.ttft_ms.unwrap() <= 1000.0);
        let alone = tightened(&served, &one, 0.9);
        assert!(alone.ttft_ms.is_none() && alone.tpot_ms.unwrap() >= high.tpot_ms.unwrap());
    }
}
