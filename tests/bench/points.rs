//! Points a second of a search, level by level, counted after compile; compile itself; the size of what is kept:
//! `cargo run --release --example points [model] [system] [gpus] [framework] [workload] [scan|exact] [regimes] [n]`.
//! One line a phase: name, points, seconds, points a second. `exact`: priced by the engine, as before there was a
//! scan; `regimes`: a map of 100 cells for each of `n` workloads as well (100, so 10,000 cells); `map`: nothing else;
//! `explore`: that alone, three times. Threads by `DISAGG_NUM_THREADS`.
#![allow(clippy::unwrap_used)]

use disagg::spec::Framework;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use disagg::control::Control;
use disagg::cost::Library;
use disagg::kernels::KernelDb;
use disagg::search::Objective;
use disagg::search::aim::Aim;
use disagg::search::group::Group;
use disagg::search::sides::Priced;
use disagg::search::slots::Slots;
use disagg::search::{Map, Question, Task, explore, layouts, regimes};
use disagg::spec::{Assumptions, Case, Level, Quant, Serving, Slo, Workload, catalog};

fn timed<T>(name: &str, work: impl FnOnce() -> T, points: impl FnOnce(&T) -> usize) -> T {
    let t = Instant::now();
    let out = work();
    let (s, n) = (t.elapsed().as_secs_f64(), points(&out));
    println!("{name:<16} {n:>9} points {s:>8.3} s {:>10.0}/s", n as f64 / s);
    out
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let arg = |i: usize, d: &str| args.get(i).cloned().unwrap_or_else(|| d.to_string());
    let db = KernelDb::open(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/python/disagg/data/kernels"))).unwrap();
    let model = catalog::model(&arg(1, "deepseek-ai/DeepSeek-V3.2")).unwrap();
    let cluster = catalog::cluster(&arg(2, "b200_sxm"), arg(3, "128").parse().unwrap()).unwrap();
    let framework = Framework::asked(&arg(4, "sglang"), "framework").unwrap();
    let workload = catalog::workload(&arg(5, "paper-chat")).unwrap();
    let (quant, serving) = (Quant::default(), Serving::default());
    let slo = Slo { ttft_ms: Some(2000.0), tpot_ms: Some(50.0), percentile: None };
    let aim = Aim { slo, objective: Objective::TokensPerS };
    let lib = timed(
        "library",
        || Library::shared(&db, &model, &cluster, framework, &quant, &serving, &Assumptions::physical()).unwrap(),
        |_| 1,
    );
    let control = Control::new();
    let task = Task::new(&lib, &workload, cluster.gpus, 0, &control, arg(6, "scan") == "scan");
    let workers = layouts::worker_layouts(&lib, cluster.gpus, false);
    let units = layouts::unit_layouts(&lib, cluster.gpus);
    let prefill_workers = layouts::worker_layouts(&lib, cluster.gpus, true);
    let prefill_units = layouts::prefill_unit_layouts(&lib, cluster.gpus);
    let only = ["map", "explore"].contains(&&*arg(7, ""));
    if !only {
        timed("compile workers", || task.compile(&workers).unwrap(), |n| *n);
        timed("compile units", || task.compile(&units).unwrap(), |n| *n);
    }
    println!("{} bytes a point, as many MB a million", size_of::<disagg::search::Row>());
    println!("{:?} lines and bytes", task.tables.as_ref().map(|t| t.size()));
    // The first round fills what is left of the lines.
    for round in ["cold", "warm"].iter().filter(|_| !only) {
        println!("-- {round}");
        let rows = |groups: &Vec<Group>| groups.iter().map(|g| g.rows.len()).sum();
        let refine = |level: Level, groups: &[Group]| {
            let judged: Vec<_> = groups.iter().map(|g| g.marks.judge(&aim)).collect();
            let mut rows = 0;
            let around = |groups: &[&Group]| {
                let found = task.around_layouts(groups, 2, &aim)?;
                rows += found.iter().map(Vec::len).sum::<usize>();
                Ok(found
                    .iter()
                    .map(|f| f.iter().map(|r| aim.score(&r.point)).max_by(|a, b| a.partial_cmp(b).unwrap()))
                    .collect())
            };
            task.finer_mixed(level, groups, &judged, 2, &aim, around).unwrap();
            rows
        };
        let a = timed("aggregated", || task.mixed_groups(Level::Aggregated, &workers, 2).unwrap(), rows);
        timed("its refinement", || refine(Level::Aggregated, &a), |n| *n);
        let u = timed("aggregated+afd", || task.mixed_groups(Level::AggregatedAfd, &units, 2).unwrap(), rows);
        timed("its refinement", || refine(Level::AggregatedAfd, &u), |n| *n);
        let count = |p: &Priced<_>| p.iter().map(|x| x.2.len()).sum();
        timed("prefill", || task.prefill(&prefill_workers).unwrap(), count);
        timed("prefill afd", || task.prefill(&prefill_units).unwrap(), count);
        let p = timed("its finer cuts", || task.prompts(&prefill_workers).unwrap(), |p| p.every.len());
        let pu = timed("of afd", || task.prompts(&prefill_units).unwrap(), |p| p.every.len());
        let count = |p: &Priced<_>| p.iter().map(|x| x.2.len()).sum();
        let sides = |s: &disagg::search::sides::Sides| count(&s.decode);
        let d = timed("decode", || task.sides(Arc::new(p), &workers, 4).unwrap(), sides);
        let du = timed("decode afd", || task.sides(Arc::new(pu), &units, 4).unwrap(), sides);
        let slots = [
            (&d, &d, "pd", Level::Pd),
            (&d, &du, "pd+afd decode", Level::PdAfd),
            (&du, &d, "pd+afd prefill", Level::PdAfd),
            (&du, &du, "pd+afd both", Level::PdAfd),
        ];
        for (p, d, name, level) in slots {
            let f = timed(name, || task.pair(level, &p.prompts.front, &d.front).unwrap(), Vec::len);
            let fine = timed("its batches", || task.fine_decode(d, &aim).unwrap(), Slots::len);
            let tiers = disagg::search::leaders::Tiers::of(&f, &aim);
            timed("near the best", || task.best_pairs(level, &p.prompts, &fine, &aim, tiers).unwrap(), Vec::len);
        }
    }
    let q = Question {
        scan: arg(6, "scan") == "scan",
        ..Question::new(Case::new(model.clone(), cluster.clone(), workload.clone()).on(framework), slo)
    };
    let explored = match arg(7, "").as_str() {
        "map" => 0,
        "explore" => 3,
        _ => 1,
    };
    for _ in 0..explored {
        timed("explore", || explore(&db, &q, &control).unwrap(), |s| s.rows.len());
    }
    if !["regimes", "map"].contains(&&*arg(7, "")) {
        return;
    }
    // A map: lengths of prefixes, prompts and answers, limits on both latencies, every level in every cell.
    let each = |n: i32, low: f64, step: f64| (0..n).map(move |k| (low * step.powi(k)).round());
    let lengths = each(10, 256.0, 1.6).flat_map(|i| each(5, 64.0, 2.5).map(move |o| (i, o)));
    let every = lengths.flat_map(|(i, o)| [0.0, 4096.0].map(|p| Workload::fixed(&format!("{p}/{i}/{o}"), p, i, o)));
    // Fewer of them lie spread over all.
    let some: usize = arg(8, "100").parse().unwrap();
    let workloads: Vec<Workload> = every.step_by((100 / some).max(1)).collect();
    let slos: Vec<Slo> = each(10, 100.0, 1.6)
        .flat_map(|ttft| each(10, 6.0, 1.35).map(move |tpot| (ttft, tpot)))
        .map(|(ttft, tpot)| Slo { ttft_ms: Some(ttft), tpot_ms: Some(tpot), percentile: None })
        .collect();
    let map = Map {
        case: Case { quant, serving, ..Case::new(model, cluster.clone(), workload).on(framework) },
        clusters: vec![cluster],
        workloads,
        slos,
        levels: Level::ALL.to_vec(),
        runnable: true,
        tolerance: 0.01,
        batches_per_octave: 2,
        arrivals: Default::default(),
    };
    timed("regimes (cells)", || regimes(&db, &map, &control, false).unwrap(), disagg::columns::Columns::rows);
}
