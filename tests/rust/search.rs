//! Laws of the search: determinism, rows that compile to what they say, nothing lost by thinning,
//! verdicts with reasons.

use disagg::spec::Framework;
use std::collections::BTreeSet;
use std::sync::Arc;

use disagg::control::Control;
use disagg::cost::Library;
use disagg::search::aim::Aim;
use disagg::search::leaders::Tiers;
use disagg::search::sides::{Candidate, Priced};
use disagg::search::{Objective, Question, Row, Study, Task, explore, layouts};
use disagg::serving::pd::{DecodeSide, PrefillSide};
use disagg::serving::{Binding, Engine};
use disagg::spec::workload::PrefixHome;
use disagg::spec::{Assumptions, Case, Imbalance, Level, Plan, Serving, Slo, Slot, Workload};
use disagg::{Error, pool};

use crate::lab;

fn slo(ttft_ms: f64, tpot_ms: f64) -> Slo {
    Slo { ttft_ms: Some(ttft_ms), tpot_ms: Some(tpot_ms), percentile: None }
}

fn question(model: &str, system: &str, gpus: u32, w: Workload, slo: Slo) -> Question {
    let mut q = Question::new(Case::new(lab::model(model), lab::cluster(system, gpus), w).on(Framework::Trtllm), slo);
    q.batches_per_octave = 2;
    q
}

fn small_question() -> Question {
    question("Qwen/Qwen3-30B-A3B", "b200_sxm", 8, lab::chat(), slo(200.0, 15.0))
}

fn run(q: &Question) -> Study {
    explore(lab::db(), q, &Control::new()).unwrap()
}

/// One study for the tests that only look at it.
fn small_study() -> &'static Study {
    static MADE: std::sync::OnceLock<Study> = std::sync::OnceLock::new();
    MADE.get_or_init(|| run(&small_question()))
}

fn v32_study() -> &'static Study {
    static MADE: std::sync::OnceLock<Study> = std::sync::OnceLock::new();
    MADE.get_or_init(|| run(&question("nvidia/DeepSeek-V3.2-NVFP4", "b200_sxm", 8, lab::chat(), slo(500.0, 40.0))))
}

fn said(study: &Study) -> String {
    let verdicts: Vec<String> = study.verdicts.iter().map(|v| format!("{v:?}")).collect();
    format!("{:?} {verdicts:?}", study.rows)
}

#[test]
fn any_number_of_threads_gives_the_same_study() {
    let mut seen: Option<String> = None;
    for threads in [1, 2, 3] {
        pool::set_threads(threads).unwrap();
        // The debug form of a float is exact.
        let all = said(&run(&small_question()));
        assert!(all.len() > 100_000);
        match &seen {
            None => seen = Some(all),
            Some(first) => assert!(*first == all, "{threads} threads answer differently"),
        }
    }
    pool::set_threads(0).unwrap();
    assert!(seen.unwrap() == said(small_study()));
}

#[test]
fn no_plan_is_priced_twice() {
    for study in [small_study(), v32_study()] {
        let mut seen = BTreeSet::new();
        for r in &study.rows {
            let key = format!("{:?} {} {:?} {:?}", r.level, r.framework, r.main, r.prefill);
            assert!(seen.insert(key), "twice: {r:?}");
            assert!(r.gpus() <= study.question.case.cluster.gpus);
            assert_eq!(r.level, r.plan().level(), "{r:?}");
        }
        assert_eq!(study.points().rows(), study.rows.len());
    }
}

/// Bits, since what does not stand has no numbers.
fn same(a: &disagg::serving::SteadyState, b: &disagg::serving::SteadyState) -> bool {
    format!("{a:?}") == format!("{b:?}")
}

#[test]
fn rows_compile_to_their_points() {
    for study in [small_study(), v32_study()] {
        for level in Level::ALL.iter().copied() {
            let name = level.name();
            let rows: Vec<&Row> = study.rows.iter().filter(|r| r.level == level && !r.scanned).collect();
            assert!(!rows.is_empty(), "{name}: nothing is exact");
            let stride = rows.len() / 100 + 1;
            for r in rows.iter().step_by(stride) {
                let lib = &study.libraries[usize::from(r.framework)];
                let e = Engine::new(lib, &study.question.case.workload, &r.plan())
                    .unwrap_or_else(|err| panic!("{name} {:?}: {err}", r.plan()));
                assert!(same(&e.point, &r.point), "{:?}\nengine {:?}\nrow    {:?}", r.plan(), e.point, r.point);
                assert_eq!(e.plan, r.plan(), "nothing left to choose");
            }
        }
    }
}

#[test]
fn verdicts_are_the_best_rows() {
    for study in [small_study(), v32_study()] {
        let limits = &study.question.slo;
        let mut gains = Vec::new();
        for v in &study.verdicts {
            let rows: Vec<&Row> = study.rows.iter().filter(|r| r.level == v.level).collect();
            assert_eq!(v.points, rows.len());
            let met = |r: &&&Row| r.point.stands() && r.point.binding_under(limits) == Binding::None;
            // The best of all, scanned or not: nothing that a scan says is more than the exact best.
            let best = rows.iter().filter(met).map(|r| r.point.requests_per_s).fold(f64::NAN, f64::max);
            assert_eq!(v.feasible, best.is_finite());
            let chosen = &study.rows[v.row.unwrap()];
            assert!(!chosen.scanned);
            if v.feasible {
                assert_eq!(chosen.point.requests_per_s, best);
                gains.push((best, v.binding));
                let e = study.best(v.level.name()).unwrap();
                assert_eq!(e.scalars.requests_per_s, best);
                assert_eq!(e.scalars.binding, v.binding.label());
                assert_eq!(e.scalars.gpus, study.question.case.cluster.gpus, "idle GPUs are paid for");
                let per_gpu = best * e.scalars.tokens_per_s / e.scalars.requests_per_s / f64::from(e.scalars.gpus);
                lab::near(e.scalars.tokens_per_s_per_gpu, per_gpu, 1e-12, "per GPU");
            }
            // Neither does anything on the frontier rest on a scan.
            let mut feasible: Vec<&&Row> = rows.iter().filter(met).collect();
            feasible.sort_by(|a, b| a.point.tpot_s.total_cmp(&b.point.tpot_s));
            let mut top = 0.0;
            for r in feasible {
                assert!(!r.scanned || r.point.requests_per_s <= top, "{r:?}");
                top = f64::max(top, r.point.requests_per_s);
            }
            for r in rows.iter().filter(|r| r.point.stands()) {
                assert!(r.point.ttft_s >= v.least_ttft_s && r.point.tpot_s >= v.least_tpot_s, "{r:?}");
            }
        }
        let top = gains.iter().map(|g| g.0).fold(0.0, f64::max);
        for (gain, binding) in gains {
            assert_eq!(binding == Binding::None, gain == top);
        }
        // The better of the two AFD levels.
        let afd = study.verdict_of("afd").unwrap();
        let of = |l: &str| study.verdict_of(l).unwrap();
        let gain = |l: &str| of(l).row.filter(|_| of(l).feasible).map_or(0.0, |i| study.rows[i].point.requests_per_s);
        if afd.feasible {
            assert_eq!(study.rows[afd.row.unwrap()].point.requests_per_s, gain("aggregated+afd").max(gain("pd+afd")));
        }
        assert!(study.best("afd").unwrap().scalars.level.ends_with("afd"));
    }
}

// --- thinning --------------------------------------------------------------------------------------------

fn all_prefill(found: &Priced<(u32, u32, PrefillSide)>) -> Vec<Candidate<PrefillSide>> {
    let one = |layout, clock: &Arc<_>, (batch, chunk, side): &(u32, u32, PrefillSide)| Candidate {
        layout,
        clock: Arc::clone(clock),
        batch: *batch,
        chunk: *chunk,
        side: *side,
    };
    found.iter().flat_map(|(l, s, sides)| sides.iter().map(move |x| one(*l, s, x))).collect()
}

fn all_decode(found: &Priced<DecodeSide>) -> Vec<Candidate<DecodeSide>> {
    let one = |layout, clock: &Arc<_>, side: &DecodeSide| Candidate {
        layout,
        clock: Arc::clone(clock),
        batch: side.batch as u32,
        chunk: 0,
        side: *side,
    };
    found.iter().flat_map(|(l, s, sides)| sides.iter().map(move |x| one(*l, s, x))).collect()
}

/// Requests per second of the best pair within limits, and the limits' own least latencies.
fn best(rows: &[Row], limits: &Slo) -> f64 {
    rows.iter()
        .filter(|r| r.point.stands() && r.point.binding_under(limits) == Binding::None)
        .map(|r| r.point.requests_per_s)
        .fold(0.0, f64::max)
}

/// Best rate over all pairs against all pairs of the thinned frontiers, under several limits: the
/// largest loss.
fn thinning_loss(lib: &Arc<Library>, w: &Workload, units: bool, per_octave: u32, worst_of: &[(f64, f64)]) -> f64 {
    let control = Control::new();
    let budget = lib.cluster.gpus;
    let task = Task::new(lib, w, budget, 0, &control, true);
    let prefill = task.prefill(&layouts::worker_layouts(lib, budget, true)).unwrap();
    let layouts = if units { layouts::unit_layouts(lib, budget) } else { layouts::worker_layouts(lib, budget, false) };
    let decode = task.decode(&layouts, per_octave).unwrap();
    let level = if units { Level::PdAfd } else { Level::Pd };
    let every = task.pair(level, &all_prefill(&prefill), &all_decode(&decode)).unwrap();
    let prompts = task.prefill_frontier(&prefill).unwrap();
    let thin = task.pair(level, &prompts, &task.decode_frontier(&decode).unwrap()).unwrap();
    let least = |rows: &[Row], f: &dyn Fn(&Row) -> f64| rows.iter().map(f).fold(f64::INFINITY, f64::min);
    let (ttft, tpot) = (least(&every, &|r| r.point.ttft_s), least(&every, &|r| r.point.tpot_s));
    println!("{} on {budget}: {} pairs, {} after thinning", lib.model.name, every.len(), thin.len());
    let mut loss = 0.0_f64;
    for (a, b) in worst_of {
        let limits = slo(ttft * 1e3 * a, tpot * 1e3 * b);
        let (all, kept) = (best(&every, &limits), best(&thin, &limits));
        println!("  ttft x{a} tpot x{b}: {all:.3} against {kept:.3} requests/s");
        if all > 0.0 {
            loss = loss.max(1.0 - kept / all);
        }
    }
    loss
}

/// Limits as multiples of the least latency that any pair reaches.
const LIMITS: [(f64, f64); 6] = [(1.05, 20.0), (1.3, 1.5), (2.0, 2.0), (4.0, 1.2), (10.0, 4.0), (1e3, 1e3)];

#[test]
fn thinning_loses_next_to_nothing() {
    let mut long = lab::chat();
    long.prefix_home = PrefixHome::Prefill;
    long.prefix = disagg::spec::Distribution::fixed(16_384.0);
    let mut worst = 0.0_f64;
    for (gpus, w, units, per_octave) in [(8, lab::chat(), false, 8), (4, long.clone(), true, 4)] {
        let mut cluster = lab::cluster("h200_sxm", gpus);
        // KV crosses slow NICs: how many ports send and receive it decides TTFT.
        cluster.fabric.nic_bytes_per_s = 5e9;
        let lib = lab::library(&lab::model("Qwen/Qwen3-30B-A3B"), &cluster, "trtllm", &Assumptions::physical());
        worst = worst.max(thinning_loss(&lib, &w, units, per_octave, &LIMITS));
    }
    // Seen: 3.3 %, from the granularity of batches between which one is lowered (7.7 % at four an octave).
    assert!(worst <= 0.05, "{worst}");
}

/// The KV of a long prefix crosses NICs: a decode slot that receives over eight of them is kept although
/// another of its size is faster at decoding. Close to the least TTFT it serves as few as the prompts bear beside its KV.
#[test]
fn ways_for_kv_survive_thinning() {
    let mut w = Workload::fixed("long", 100_000.0, 512.0, 256.0);
    w.prefix_home = PrefixHome::Prefill;
    for units in [false, true] {
        let lib = lab::lib("nvidia/DeepSeek-V3.2-NVFP4", "b200_sxm", 24, "trtllm");
        let control = Control::new();
        let task = Task::new(&lib, &w, 24, 0, &control, true);
        let prompts = std::sync::Arc::new(task.prompts(&layouts::worker_layouts(&lib, 24, true)).unwrap());
        let layouts = if units { layouts::unit_layouts(&lib, 24) } else { layouts::worker_layouts(&lib, 24, false) };
        let decode = task.decode(&layouts, 3).unwrap();
        let every = task.pair(Level::Pd, &prompts.front, &all_decode(&decode)).unwrap();
        let sides = task.sides(prompts.clone(), &layouts, 3).unwrap();
        let thin = task.pair(Level::Pd, &prompts.front, &sides.front).unwrap();
        let ttft = every.iter().map(|r| r.point.ttft_s).fold(f64::INFINITY, f64::min);
        for over in [1.01, 1.05, 1.3, 2.0, 10.0] {
            let limits = slo(ttft * 1e3 * over, 30.0);
            let aim = Aim { slo: limits, objective: Objective::TokensPerS };
            let fine = task.fine_decode(&sides, &aim).unwrap();
            let found = task.best_pairs(Level::Pd, &prompts, &fine, &aim, Tiers::of(&thin, &aim)).unwrap();
            let (all, kept) = (best(&every, &limits), best(&thin, &limits).max(best(&found, &limits)));
            assert!(all > 0.0 && kept >= 0.95 * all, "units {units}, ttft x{over}: {all} against {kept}");
        }
    }
}

// --- bad and hard questions --------------------------------------------------------------------------------

fn refused(q: &Question) -> String {
    match explore(lab::db(), q, &Control::new()) {
        Err(e @ Error::Spec(_)) => e.to_string(),
        Err(e) => panic!("{e}"),
        Ok(_) => panic!("answered"),
    }
}

#[test]
fn bad_questions_are_refused_whole() {
    let mut q = small_question();
    q.case.cluster.gpus = 0;
    q.slo.ttft_ms = Some(-1.0);
    let text = refused(&q);
    for part in ["cluster.gpus", "slo.ttft_ms"] {
        assert!(text.contains(part), "{part} in: {text}");
    }
    let unknown = Objective::parse("speed").unwrap_err().to_string();
    assert!(unknown.contains("objective: 'speed' is not an objective; known: tokens_per_s, "), "{unknown}");
    let unknown = Level::parse(&["pd", "aggregatd"]).unwrap_err().to_string();
    assert!(unknown.contains("levels[1]: 'aggregatd' is not a level; did you mean 'aggregated'"), "{unknown}");
    let mut q = small_question();
    q.levels.clear();
    assert!(refused(&q).contains("levels: no level to explore"));
    let mut q = small_question();
    q.case.frameworks = None;
    assert!(refused(&q).contains("frameworks"));
    let mut q = small_question();
    q.case.serving = Serving { imbalance: Some(Imbalance::Histogram(vec![1.0; 7])), ..Serving::default() };
    assert!(refused(&q).contains("serving.imbalance"), "what is not priced is not searched as if it were");
    assert!(small_study().verdict_of("pdd").is_err() && small_study().best("nothing").is_err());
    let mut q = small_question();
    q.levels = vec![Level::Pd];
    q.case.cluster.gpus = 4;
    let s = run(&q);
    assert!(s.verdict_of("afd").unwrap_err().to_string().contains("no AFD level was explored"));
    assert_eq!(s.verdicts.len(), 1);
}

#[test]
fn progress_ends_at_its_total() {
    let control = Control::new();
    let mut q = small_question();
    q.case.cluster.gpus = 2;
    explore(lab::db(), &q, &control).unwrap();
    let (done, total) = control.progress();
    assert!(done == total && total > 20, "{done} of {total}");
}

#[test]
fn a_cancelled_search_stops() {
    let control = Control::new();
    control.cancel();
    assert!(matches!(explore(lab::db(), &small_question(), &control), Err(Error::Cancelled)));
}

#[test]
fn longer_than_the_model_is_searched_unless_strict() {
    let mut q = small_question();
    q.case.cluster.gpus = 2;
    q.levels = vec![Level::Aggregated];
    q.case.workload = Workload::fixed("long", 60_000.0, 512.0, 64.0);
    let e = run(&q).best("aggregated").unwrap();
    assert!(e.scalars.context_exceeded);
    q.case.workload.strict_context = true;
    assert!(refused(&q).contains("context_exceeded"));
}

/// An FFN pool of a dense model holds its FFNs; a unit takes two GPUs, P/D with one three.
#[test]
fn dense_models_are_split_too_where_there_are_gpus() {
    let of = |gpus| run(&question("Qwen/Qwen3-32B", "h200_sxm", gpus, lab::chat(), slo(2000.0, 50.0)));
    let s = of(4);
    assert_eq!(s.table().rows(), 4);
    for level in ["aggregated", "pd", "aggregated+afd", "pd+afd"] {
        let v = s.verdict_of(level).unwrap();
        assert!(v.feasible && v.points > 0, "{level}: {v:?}");
    }
    let best = |level| s.best(level).unwrap().scalars.tokens_per_s;
    // Hops cost something and nothing is saved: a tie at best.
    assert!(best("aggregated+afd") < 1.02 * best("aggregated"), "{} {}", best("aggregated+afd"), best("aggregated"));
    let one = of(1);
    for level in ["aggregated+afd", "pd+afd", "afd"] {
        let v = one.verdict_of(level).unwrap();
        assert!(!v.feasible && v.row.is_none() && v.points == 0);
        assert_eq!(v.binding.label(), "divisibility");
        assert!(matches!(one.best(level), Err(Error::Infeasible { .. })));
    }
}

/// 671 billion parameters on two GPUs: every level says which memory is short, on its nearest miss.
#[test]
fn a_model_bigger_than_the_cluster_binds_on_memory() {
    for gpus in [2, 4] {
        let s = run(&question("deepseek-ai/DeepSeek-V3", "h200_sxm", gpus, lab::chat(), slo(1e4, 1e3)));
        for v in &s.verdicts {
            let what = format!("{} on {gpus}: {v:?}", v.level.name());
            // Two pools and a prefill worker need three GPUs.
            if v.level == Level::PdAfd && gpus == 2 {
                assert!(v.row.is_none() && v.binding == Binding::Divisibility, "{what}");
                continue;
            }
            assert!(!v.feasible, "{what}");
            assert!(v.binding.label().starts_with("memory:"), "{what}");
            let r = &s.rows[v.row.unwrap()];
            assert!(r.point.memory_bytes > 0.7 * s.question.case.cluster.device.hbm_bytes, "{what}");
            let e = s.best(v.level.name()).unwrap_or_else(|e| panic!("{what}: {e}"));
            assert!(!e.scalars.feasible && e.scalars.binding == v.binding.label(), "{what}");
            assert!(e.scalars.memory_gib > 0.7 * 141.0, "{what}");
        }
        s.points();
        s.table();
    }
}

#[test]
fn one_gpu_has_no_pairs() {
    let mut q = small_question();
    q.case.cluster.gpus = 1;
    let s = run(&q);
    assert!(s.verdict_of("aggregated").unwrap().feasible);
    for level in ["pd", "aggregated+afd", "pd+afd"] {
        let v = s.verdict_of(level).unwrap();
        assert!(v.row.is_none() && v.binding == Binding::Divisibility, "{level}: {v:?}");
    }
}

#[test]
fn idle_gpus_are_counted() {
    // Seven GPUs: most layouts leave some over.
    let mut q = small_question();
    q.case.cluster.gpus = 7;
    q.levels = vec![Level::Aggregated, Level::Pd];
    let s = run(&q);
    let c = s.points();
    let column = |name: &str| c.names.iter().position(|n| n == name).map(|i| &c.columns[i]).unwrap();
    let disagg::columns::Column::F64(per_gpu) = column("tokens_per_s_per_gpu") else { panic!("numbers") };
    let mut idle = 0;
    for (r, x) in s.rows.iter().zip(per_gpu) {
        let tokens = r.point.requests_per_s * s.question.case.workload.means().osl;
        lab::near(*x * 7.0, tokens, 1e-12, "all seven count");
        idle += usize::from(r.gpus() < 7);
        if let (Plan::Pd(pd), true) = (r.plan(), r.prefill.is_some())
            && let Slot::Workers(w) = &pd.decode
        {
            assert!(r.gpus() + w.parallel.gpus() > 7, "room for one more decode worker: {r:?}");
        }
    }
    assert!(idle > 0);
}
