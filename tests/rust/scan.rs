//! The scan held against the engine: what lines read, and what the engine prices.

use crate::lab::Server;
use disagg::spec::Framework;
use std::sync::Arc;

use disagg::cost::Library;
use disagg::search::{Layout, Row, layouts};
use disagg::serving::choose::{chunk_grid, most_sequences};
use disagg::serving::{Load, Scan, SteadyState, StepEngine, Tables, aggregated, pd, scan};
use disagg::spec::{Assumptions, Case, Distribution, Serving, Workload};
use rand_pcg::Pcg64;
use rand_pcg::rand_core::{Rng, SeedableRng};

use crate::lab;

/// Numbers below `n`, the same in every run.
struct Draw(Pcg64);

impl Draw {
    fn below(&mut self, n: usize) -> usize {
        (self.0.next_u64() % n.max(1) as u64) as usize
    }

    fn of<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}

fn engine(lib: &Arc<Library>, layout: &Layout, w: &Workload) -> Arc<StepEngine> {
    Arc::new(lab::layout(lib, layout, w))
}

fn fixed(prefix: f64, isl: f64, osl: f64) -> Workload {
    Workload::fixed("law", prefix, isl, osl)
}

fn spread() -> Workload {
    let mut w = fixed(1000.0, 1500.0, 300.0);
    w.osl = Distribution::Uniform { low: 20.0, high: 580.0 };
    w
}

/// Relative distances of what a scan says, in order.
#[derive(Default)]
struct Gaps(Vec<(f64, String)>);

impl Gaps {
    fn add(&mut self, exact: f64, scanned: f64, what: impl FnOnce() -> String) {
        self.0.push((lab::gap(exact, scanned), what()));
    }

    fn point(&mut self, exact: &SteadyState, scanned: &SteadyState, what: &str) {
        assert_eq!(exact.stands(), scanned.stands(), "{what}");
        assert_eq!(exact.memory_bytes, scanned.memory_bytes, "{what}");
        if exact.stands() {
            for (name, a, b) in [
                ("ttft", exact.ttft_s, scanned.ttft_s),
                ("tpot", exact.tpot_s, scanned.tpot_s),
                ("rate", exact.requests_per_s, scanned.requests_per_s),
                ("itl", exact.itl_worst_s, scanned.itl_worst_s),
            ] {
                self.add(a, b, || format!("{name} {a} {b} {what}"));
            }
        }
    }

    /// Holds 99 of 100 gaps under `bound`, and all of them under 1 %.
    #[track_caller]
    fn hold(mut self, name: &str, bound: f64) {
        self.0.sort_by(|a, b| a.0.total_cmp(&b.0));
        let at = |q: f64| self.0[((self.0.len() - 1) as f64 * q) as usize].clone();
        println!(
            "{name}: {} gaps, median {:.1e}, 90 % {:.1e}, 99 % {:.1e}, worst {:.1e} {}",
            self.0.len(),
            at(0.5).0,
            at(0.9).0,
            at(0.99).0,
            at(1.0).0,
            at(1.0).1
        );
        assert!(self.0.len() > 400, "{name}: only {} gaps", self.0.len());
        for (quantile, bound) in [(0.99, bound), (1.0, 0.01)] {
            let (gap, what) = at(quantile);
            assert!(gap < bound, "{name}: {gap} {what}");
        }
    }
}

fn compare(lib: &Arc<Library>, w: &Workload, layouts: &[Layout], draws: usize, seed: u64) -> [Gaps; 3] {
    let (load, lines) = (Load::of(w), Arc::default());
    let tables = Arc::new(Tables::new(lib, w, &lines).unwrap());
    let mut draw = Draw(Pcg64::seed_from_u64(seed));
    let mut gaps = [Gaps::default(), Gaps::default(), Gaps::default()];
    for _ in 0..draws {
        let layout = *draw.of(layouts);
        let s = engine(lib, &layout, w);
        let scan = Scan::new(&s, &tables).unwrap();
        let most = most_sequences(&s, load.isl.min(512.0)).min(2048.0);
        let least = f64::from(layout.microbatches());
        if most < least {
            continue;
        }
        // Even over octaves.
        let batch = (least * (most / least).powf(draw.below(1000) as f64 / 999.0)).floor();
        let chunks = chunk_grid(&load, batch as u32, 1.0 + f64::from(lib.serving.mtp), 1);
        let chunk = f64::from(*draw.of(&chunks));
        let name =
            |phase: &str| format!("{phase} {} {} {layout:?} b{batch} c{chunk} {load:?}", lib.model.name, lib.framework);
        let (exact, fast) =
            (aggregated::solve(&s, &load, batch, chunk, 2), aggregated::solve_by(&scan, &load, batch, chunk, 2));
        gaps[0].point(&exact, &fast, &name("mixed"));
        let (exact, fast) = (pd::decode_side(&s, &load, batch), pd::decode_side_by(&scan, &load, batch));
        gaps[1].add(exact.rate, fast.rate, || name("decode"));
        let sequences = f64::from(*draw.of(&[1u32, 2, 4, 8]));
        let piece = (load.isl / draw.of(&[1.0, 2.0, 4.0, 8.0, 16.0])).ceil();
        let (exact, fast) =
            (pd::prefill_side(&s, &load, sequences, piece), pd::prefill_side_by(&scan, &load, sequences, piece));
        gaps[2].add(exact.rate, fast.rate, || name("prefill rate"));
        gaps[2].add(exact.prefill.latency_s, fast.prefill.latency_s, || name("prefill latency"));
    }
    gaps
}

fn layouts(lib: &Library, gpus: u32) -> Vec<Layout> {
    let mut all = layouts::worker_layouts(lib, gpus, false);
    all.extend(layouts::unit_layouts(lib, gpus));
    all
}

#[test]
fn scans_agree_with_the_engine() {
    let mut all = [Gaps::default(), Gaps::default(), Gaps::default()];
    let workloads = [lab::chat(), fixed(2048.0, 4096.0, 1024.0), fixed(0.0, 4000.0, 1000.0), spread()];
    let cases: [(&'static str, &'static str, u32, &'static str); 6] = [
        ("deepseek-ai/DeepSeek-V3.2", "b200_sxm", 128, "sglang"),
        ("deepseek-ai/DeepSeek-V3.2", "gb200", 72, "trtllm"),
        ("Qwen/Qwen3-235B-A22B", "h200_sxm", 64, "trtllm"),
        ("Qwen/Qwen3-235B-A22B", "b200_sxm", 32, "sglang"),
        ("openai/gpt-oss-120b", "b200_sxm", 16, "trtllm"),
        ("Qwen/Qwen3-32B", "h200_sxm", 8, "vllm"),
    ];
    for (i, (model, system, gpus, framework)) in cases.into_iter().enumerate() {
        let lib = lab::lib(model, system, gpus, framework);
        for (j, w) in workloads.iter().enumerate() {
            let found = compare(&lib, w, &layouts(&lib, gpus), 60, (10 * i + j) as u64);
            for (sum, f) in all.iter_mut().zip(found) {
                sum.0.extend(f.0);
            }
        }
    }
    for (gaps, name) in all.into_iter().zip(["mixed", "decode", "prefill"]) {
        gaps.hold(name, 0.001);
    }
}

#[test]
fn scans_agree_under_other_switches_and_servings() {
    use disagg::spec::assumptions::{BeyondTables, Exchange, LaunchFloors, PrefillSync};
    let physical = Assumptions::physical();
    let assumptions = [
        Assumptions { exchange: Exchange::Gather, ..physical.clone() },
        Assumptions { launch_floors: LaunchFloors::Measured, prefill_sync: PrefillSync::Aligned, ..physical.clone() },
        Assumptions { shared_expert_overlap: false, attention_barrier: false, ..physical.clone() },
        Assumptions { afd_reductions: false, kv_contention: false, ..physical.clone() },
        Assumptions { beyond_tables: BeyondTables::Utilisation, ..physical.clone() },
        physical,
    ];
    let mtp = Serving { mtp: 2, acceptance: Some(1.2), ..Serving::default() };
    let halves = Serving { two_batch_overlap: Some(true), ..Serving::default() };
    let fused = Serving { fused_dispatch: true, ..Serving::default() };
    let both = Serving { two_batch_overlap: Some(true), ..Serving { fused_dispatch: true, ..mtp.clone() } };
    let mut all = [Gaps::default(), Gaps::default(), Gaps::default()];
    for (i, a) in assumptions.iter().enumerate() {
        for serving in [Serving::default(), mtp.clone(), halves.clone(), fused.clone(), both.clone()] {
            let (model, cluster) = (lab::model("deepseek-ai/DeepSeek-V3.2"), lab::cluster("b200_sxm", 64));
            // Few rows of sparse decode: much lies beyond them.
            let framework = if a.beyond_tables == BeyondTables::Utilisation { "sglang" } else { "trtllm" };
            let lib = lab::library_serving(&model, &cluster, framework, a, &serving);
            let found = compare(&lib, &lab::chat(), &layouts(&lib, 64), 60, 99 + i as u64);
            for (sum, f) in all.iter_mut().zip(found) {
                sum.0.extend(f.0);
            }
        }
    }
    for (gaps, name) in all.into_iter().zip(["mixed", "decode", "prefill"]) {
        gaps.hold(name, 0.001);
    }
}

/// Lines and operators are put together by the same walks: at numbers that are knots of every line, whose prices are
/// exact there, a scan and the engine differ by rounding alone.
#[test]
fn at_knots_a_scan_is_the_engine() {
    let with = |mtp: u32, halves: bool, fused_dispatch: bool| Serving {
        mtp,
        acceptance: (mtp > 0).then_some(0.8),
        two_batch_overlap: halves.then_some(true),
        fused_dispatch,
        ..Serving::default()
    };
    let servings = [with(0, false, false), with(3, true, false), with(1, false, true), with(3, true, true)];
    // Every batch sees the mean context: decode kernels have one line.
    let a = Assumptions { attention_barrier: false, ..Assumptions::physical() };
    let (w, gpus) = (fixed(0.0, 4096.0, 256.0), 16);
    let load = Load::of(&w);
    let (mut judged, mut apart) = ([0; 2], Vec::new());
    for (model, framework) in [
        ("deepseek-ai/DeepSeek-V3.2", "trtllm"),
        ("openai/gpt-oss-120b", "trtllm"),
        ("Qwen/Qwen3-235B-A22B", "sglang"),
        ("Qwen/Qwen3-32B", "vllm"),
    ] {
        let cluster = lab::cluster("b200_sxm", gpus);
        for serving in &servings {
            let lib = lab::library_serving(&lab::model(model), &cluster, framework, &a, serving);
            let tables = Arc::new(Tables::new(&lib, &w, &Arc::default()).unwrap());
            let mut layouts = layouts(&lib, gpus);
            layouts.retain(|l| match *l {
                Layout::Worker { parallel: p, .. } => [p.tp, p.cp, p.dp, p.pp].iter().all(|n| n.is_power_of_two()),
                Layout::Afd { attention_gpus, tp, ffn_gpus, ep, microbatches, .. } => {
                    [attention_gpus, tp, ffn_gpus, ep, microbatches].iter().all(|n| n.is_power_of_two())
                }
            });
            for layout in layouts.iter().step_by(3) {
                let s = engine(&lib, layout, &w);
                let scan = Scan::new(&s, &tables).unwrap();
                judged[usize::from(layout.is_afd())] += 1;
                // A unit of several stages chooses between a fused kernel and its hops once a wave, a scan once a pass.
                let waves = matches!(layout, Layout::Afd { pp, .. } if *pp > 1 && serving.fused_dispatch);
                for batch in [4.0, 16.0, 256.0] {
                    let mut compare = |exact: f64, scanned: f64, part: &str| {
                        if lab::gap(exact, scanned) > 1e-9 {
                            apart.push(format!("{part} {exact} {scanned} {model} {serving:?} {layout:?} {batch}"));
                        }
                    };
                    let (exact, fast) = (pd::decode_side(&s, &load, batch), pd::decode_side_by(&scan, &load, batch));
                    compare(exact.step.seconds, fast.step.seconds, "decode");
                    let (sequences, chunk) = (batch / 4.0, 16.0 * batch);
                    let exact = pd::prefill_side(&s, &load, sequences, chunk).prefill;
                    let fast = pd::prefill_side_by(&scan, &load, sequences, chunk).prefill;
                    if !waves {
                        compare(exact.latency_s, fast.latency_s, "latency");
                        compare(exact.period_s, fast.period_s, "period");
                    }
                }
            }
        }
    }
    assert!(apart.is_empty(), "{} apart: {:#?}", apart.len(), &apart[..apart.len().min(20)]);
    assert!(judged.iter().all(|n| *n > 30), "{judged:?}");
}

#[test]
fn what_does_not_add_up_is_asked_of_the_engine() {
    let (model, cluster) = (lab::model("deepseek-ai/DeepSeek-V3.2"), lab::cluster("b200_sxm", 8));
    let lib = |a: &Assumptions, s: &Serving| lab::library_serving(&model, &cluster, "trtllm", a, s);
    let (plain, physical) = (Serving::default(), Assumptions::physical());
    assert!(scan::tabulates(&lib(&physical, &plain)));
    for a in [Assumptions::paper(), Assumptions::aiconfigurator()] {
        assert!(!scan::tabulates(&lib(&a, &plain)), "{}", a.profile);
        assert!(Tables::new(&lib(&a, &plain), &lab::chat(), &Arc::default()).is_none());
    }
    for (name, value) in [("far_exchange", "one-node"), ("wide_ep_decode", "discounted")] {
        let a = physical.replace(name, serde_json::json!(value)).unwrap();
        assert!(!scan::tabulates(&lib(&a, &plain)), "{name}");
    }
    // And a search under them prices everything with the engine.
    let mut q = disagg::search::Question::new(
        Case::new(model.clone(), cluster.clone(), lab::chat()).on(Framework::Trtllm),
        disagg::spec::Slo { ttft_ms: Some(2000.0), tpot_ms: Some(50.0), percentile: None },
    );
    q.batches_per_octave = 1;
    let run = |q: &disagg::search::Question| {
        disagg::search::explore(lab::db(), q, &disagg::control::Control::new()).unwrap().rows
    };
    assert!(run(&q).iter().any(|r: &Row| r.scanned));
    q.case.assumptions = Assumptions::paper();
    assert!(!run(&q).iter().any(|r| r.scanned));
}

/// What a search that scans finds, against the search that asks the engine for every plan (its slow twin).
#[test]
fn scanning_finds_the_plans_that_pricing_finds() {
    let questions: [(&str, &str, u32, &str, Workload, f64, f64); 12] = [
        ("deepseek-ai/DeepSeek-V3.2", "b200_sxm", 16, "sglang", lab::chat(), 2000.0, 50.0),
        ("deepseek-ai/DeepSeek-V3.2", "b200_sxm", 16, "trtllm", lab::chat(), 500.0, 15.0),
        ("deepseek-ai/DeepSeek-V3.2", "gb200", 18, "trtllm", fixed(0.0, 4000.0, 1000.0), 2000.0, 20.0),
        ("deepseek-ai/DeepSeek-V3.2", "b200_sxm", 12, "sglang", fixed(2048.0, 4096.0, 1024.0), 1000.0, 30.0),
        ("nvidia/DeepSeek-V3.2-NVFP4", "b200_sxm", 8, "trtllm", lab::chat(), 500.0, 40.0),
        ("Qwen/Qwen3-235B-A22B", "h200_sxm", 16, "trtllm", lab::chat(), 300.0, 25.0),
        ("Qwen/Qwen3-235B-A22B", "b200_sxm", 8, "sglang", spread(), 1000.0, 20.0),
        ("Qwen/Qwen3-30B-A3B", "h200_sxm", 8, "vllm", fixed(0.0, 1000.0, 1.0), 500.0, 20.0),
        ("Qwen/Qwen3-30B-A3B", "b200_sxm", 8, "trtllm", fixed(0.0, 8000.0, 100.0), 10.0, 2.0),
        ("openai/gpt-oss-120b", "b200_sxm", 8, "trtllm", lab::chat(), 200.0, 10.0),
        ("Qwen/Qwen3-32B", "h200_sxm", 8, "vllm", lab::chat(), 1000.0, 30.0),
        ("moonshotai/Kimi-K2-Instruct", "b200_sxm", 16, "trtllm", lab::chat(), 1000.0, 50.0),
    ];
    let (mut levels, mut same, mut fewer) = (0, 0, 0.0_f64);
    for (model, system, gpus, framework, w, ttft, tpot) in questions {
        let slo = disagg::spec::Slo { ttft_ms: Some(ttft), tpot_ms: Some(tpot), percentile: None };
        let mut q = disagg::search::Question::new(
            Case::new(lab::model(model), lab::cluster(system, gpus), w).on(framework.of()),
            slo,
        );
        q.batches_per_octave = 2;
        let run = |scan| {
            let q = disagg::search::Question { scan, ..q.clone() };
            disagg::search::explore(lab::db(), &q, &disagg::control::Control::new()).unwrap()
        };
        let (scanned, priced) = (run(true), run(false));
        assert!(!priced.rows.iter().any(|r| r.scanned));
        for (a, b) in scanned.verdicts.iter().zip(&priced.verdicts) {
            let (x, y) = (a.row.map(|i| &scanned.rows[i]), b.row.map(|i| &priced.rows[i]));
            assert_eq!((a.level, a.feasible, a.binding), (b.level, b.feasible, b.binding), "{model} {x:?} {y:?}");
            let (Some(x), Some(y)) = (x, y) else { continue };
            levels += 1;
            same += usize::from(x.main == y.main && x.prefill == y.prefill);
            if a.feasible {
                fewer = fewer.max(1.0 - x.point.requests_per_s / y.point.requests_per_s);
            }
            lab::near(a.least_ttft_s, b.least_ttft_s, 1e-3, "least TTFT");
            lab::near(a.least_tpot_s, b.least_tpot_s, 1e-3, "least TPOT");
            println!(
                "{model} {}: {} against {} requests/s",
                a.level.name(),
                x.point.requests_per_s,
                y.point.requests_per_s
            );
        }
    }
    println!("{same} of {levels} plans are the same, the largest loss {fewer:.1e}");
    // Both climb to a batch and a chunk; where they end on two of one layout these lie as near as a scan sees.
    assert!(levels >= 30 && fewer < 2e-3 && same * 10 >= levels * 8, "{same} of {levels}, {fewer}");
}
