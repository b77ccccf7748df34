//! The map of regimes held against one search a cell.

use disagg::control::Control;
use disagg::search::key::key;
use disagg::search::regimes::cells;
use disagg::search::study::describe;
use disagg::search::{Map, Question, Row, explore, regimes};
use disagg::serving::Binding;
use disagg::spec::Framework;
use disagg::spec::{Case, Level, Slo, Workload};
use disagg::{Error, pool};
use rand_pcg::Pcg64;
use rand_pcg::rand_core::{Rng, SeedableRng};

use crate::lab;

fn map(model: &str, system: &str, gpus: u32, lengths: &[(f64, f64, f64)], limits: &[(f64, f64)]) -> Map {
    let cluster = lab::cluster(system, gpus);
    let fixed = |(p, i, o): &(f64, f64, f64)| Workload::fixed(&format!("{p}/{i}/{o}"), *p, *i, *o);
    Map {
        case: Case::new(lab::model(model), cluster.clone(), lab::chat()).on(Framework::Trtllm),
        clusters: vec![cluster],
        workloads: lengths.iter().map(fixed).collect(),
        slos: limits.iter().map(|(a, b)| Slo { ttft_ms: Some(*a), tpot_ms: Some(*b), percentile: None }).collect(),
        levels: Level::ALL.to_vec(),
        runnable: true,
        tolerance: 0.01,
        batches_per_octave: 2,
        arrivals: Default::default(),
    }
}

const LIMITS: [(f64, f64); 8] = [
    (100.0, 8.0),
    (300.0, 12.0),
    (300.0, 30.0),
    (1000.0, 15.0),
    (1000.0, 60.0),
    (3000.0, 10.0),
    (3000.0, 25.0),
    (10_000.0, 100.0),
];

/// Random maps: model, system, GPUs, prompts with two lengths of answers, four pairs of limits.
fn random(n: usize, most: u32, seed: u64) -> Vec<Map> {
    const ON: [(&str, &str); 6] = [
        ("nvidia/DeepSeek-V3.2-NVFP4", "b200_sxm"),
        ("deepseek-ai/DeepSeek-V3.2", "gb200"),
        ("Qwen/Qwen3-235B-A22B", "h200_sxm"),
        ("Qwen/Qwen3-30B-A3B", "h200_sxm"),
        ("Qwen/Qwen3-30B-A3B", "b200_sxm"),
        ("openai/gpt-oss-120b", "b200_sxm"),
    ];
    let mut rng = Pcg64::seed_from_u64(seed);
    (0..n)
        .map(|i| {
            let (model, system) = ON[i % ON.len()];
            let mut between = |low: f64, high: f64| {
                let share = (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
                low * (high / low).powf(share)
            };
            let gpus = between(2.0, f64::from(most) + 0.9) as u32;
            let prefix = (between(1.0, 16_384.0) - 64.0).max(0.0).round();
            let (isl, osl) = (between(64.0, 16_384.0).round(), between(16.0, 2048.0).round());
            // From limits that little keeps to ones that bind nothing.
            let limits: Vec<(f64, f64)> = (0..4).map(|_| (between(20.0, 20_000.0), between(4.0, 150.0))).collect();
            map(model, system, gpus, &[(prefix, isl, osl), (prefix, isl, osl * 3.0)], &limits)
        })
        .collect()
}

/// A hundred cells of small clusters; others by hand: `DISAGG_SEED=1 DISAGG_MAPS=13 DISAGG_GPUS=36 cargo test
/// --release --test rust cells_are -- --nocapture`.
#[test]
fn cells_are_what_a_search_of_each_finds() {
    let set = |name: &str, d: u32| std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(d);
    let maps = random(set("DISAGG_MAPS", 13) as usize, set("DISAGG_GPUS", 6), u64::from(set("DISAGG_SEED", 8)));
    let (mut all, mut kept, mut found, mut won) = (0, 0, 0, [0; 5]);
    let mut off: Vec<String> = Vec::new();
    for map in &maps {
        for ((_, workload, slo), cell) in cells(lab::db(), map, &Control::new(), false).unwrap().indexed_iter() {
            let (w, slo, cell) = (&map.workloads[workload], map.slos[slo], cell.as_ref().unwrap());
            let q = Question::new(Case { workload: w.clone(), ..map.case.clone() }, slo);
            let study = explore(lab::db(), &q, &Control::new()).unwrap();
            found += 1;
            let mut best = (0.0, 4);
            for (level, (v, here)) in study.verdicts.iter().zip(&cell.reached).enumerate() {
                all += 1;
                let there = v.row.map(|i| study.rows[i]);
                let binding = there.map_or(Binding::Divisibility, |r| r.point.binding_under(&slo));
                // The words for it, and within the limits the plan and its numbers bit by bit. Of misses as near to
                // the limits as a scan can tell, either may be the one that the engine was asked about.
                let told = |r: &Option<Row>| r.map(|r| (key(&r), format!("{:?}", r.point)));
                let within = here.binding == Binding::None || binding == Binding::None;
                if here.binding != binding || within && told(&here.row) != told(&there) {
                    let name = &map.case.model.name;
                    let rate = |r: Option<Row>| r.map_or(0.0, |r| r.point.requests_per_s);
                    let reach_row = here.row;
                    let (a, b, gpus) = (rate(here.row), rate(there), map.clusters[0].gpus);
                    let (here, level) = (here.binding, Level::ALL[level].name());
                    let plans = [reach_row, there].map(|r| r.map_or(String::new(), |r| describe(&r)));
                    off.push(format!(
                        "{name} {gpus} {} {slo:?} {level}: {a} {here:?} {} is not {b} {binding:?} {}",
                        w.name, plans[0], plans[1]
                    ));
                }
                kept += usize::from(binding == Binding::None);
                let rate = there.filter(|_| binding == Binding::None).map_or(0.0, |r| r.point.requests_per_s);
                best = if rate > best.0 { (rate, level) } else { best };
            }
            won[best.1] += 1;
        }
    }
    println!("{found} cells, {all} levels, {kept} within their limits, won by {won:?}");
    off.iter().for_each(|o| println!("{o}"));
    assert!(off.is_empty(), "{} of {all} differ", off.len());
    assert!(kept * 4 > all && won[4] * 2 < found, "the limits bind too much to tell");
}

#[test]
fn a_map_is_one_row_a_cell_and_the_same_for_any_threads() {
    let mut m = map("Qwen/Qwen3-30B-A3B", "b200_sxm", 2, &[(0.0, 1000.0, 100.0), (500.0, 300.0, 50.0)], &LIMITS[2..5]);
    m.clusters.push(lab::cluster("h200_sxm", 4));
    m.batches_per_octave = 2;
    m.slos.push(Slo { ttft_ms: Some(0.01), tpot_ms: None, percentile: None });
    let run = |threads| {
        pool::set_threads(threads).unwrap();
        let c = regimes(lab::db(), &m, &Control::new(), false).unwrap();
        pool::set_threads(0).unwrap();
        c
    };
    let c = run(1);
    assert_eq!(c.rows(), 2 * 2 * 4);
    assert_eq!(format!("{c:?}"), format!("{:?}", run(2)));
    let labels = |name: &str| -> Vec<String> {
        let i = c.names.iter().position(|n| n == name).unwrap();
        match &c.columns[i] {
            disagg::columns::Column::Cat { codes, labels } => {
                codes.iter().map(|k| labels[*k as usize].clone()).collect()
            }
            _ => panic!("{name}"),
        }
    };
    let (winner, binding) = (labels("winner"), labels("binding_aggregated"));
    for i in (3..16).step_by(4) {
        // Ten microseconds to the first token: nobody wins, and the limit is named.
        assert_eq!((winner[i].as_str(), binding[i].as_str()), ("", "ttft"));
    }
    assert!(winner.iter().filter(|w| !w.is_empty()).count() >= 8);
}

#[test]
fn an_empty_or_wrong_map_is_refused_whole() {
    let mut m = map("Qwen/Qwen3-30B-A3B", "b200_sxm", 2, &[], &[]);
    m.levels.clear();
    m.case.frameworks = Some(Vec::new());
    let text = match regimes(lab::db(), &m, &Control::new(), false) {
        Err(e @ Error::Spec(_)) => e.to_string(),
        other => panic!("{other:?}"),
    };
    for part in ["levels: is empty", "workloads: is empty", "slo: is empty", "frameworks: is empty"] {
        assert!(text.contains(part), "{part} in {text}");
    }
}

#[test]
fn a_map_can_be_stopped() {
    let m = map("Qwen/Qwen3-30B-A3B", "b200_sxm", 8, &[(0.0, 1000.0, 100.0)], &LIMITS);
    let control = Control::new();
    control.cancel();
    assert!(matches!(regimes(lab::db(), &m, &control, false), Err(Error::Cancelled)));
}
