//! The map of regimes held against one search a cell.

use disagg::control::Control;
use disagg::search::regimes::{Cell, cells};
use disagg::search::{LEVELS, Map, Question, explore, regimes};
use disagg::serving::Binding;
use disagg::spec::{Assumptions, Quant, Serving, Slo, Workload};
use disagg::{Error, pool};

use crate::lab;

fn map(model: &str, system: &str, gpus: u32, lengths: &[(f64, f64, f64)], limits: &[(f64, f64)]) -> Map {
    Map {
        model: lab::model(model),
        clusters: vec![lab::cluster(system, gpus)],
        workloads: lengths.iter().map(|(p, i, o)| Workload::fixed(&format!("{p}/{i}/{o}"), *p, *i, *o)).collect(),
        slos: limits.iter().map(|(a, b)| Slo { ttft_ms: Some(*a), tpot_ms: Some(*b), percentile: None }).collect(),
        levels: LEVELS.iter().map(|l| (*l).to_string()).collect(),
        framework: Some("trtllm".into()),
        quant: Quant::default(),
        serving: Serving::default(),
        assumptions: Assumptions::physical(),
        tolerance: 0.01,
        batches_per_octave: 5,
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

fn rate(cell: &Cell, level: usize) -> f64 {
    let r = &cell.reached[level];
    r.row.filter(|_| r.binding == Binding::None).map_or(0.0, |r| r.point.requests_per_s)
}

#[test]
fn cells_are_what_a_search_of_each_finds() {
    let maps = [
        map("nvidia/DeepSeek-V3.2-NVFP4", "b200_sxm", 8, &[(4096.0, 512.0, 256.0), (0.0, 4000.0, 1000.0)], &LIMITS),
        map("Qwen/Qwen3-30B-A3B", "h200_sxm", 4, &[(0.0, 1000.0, 100.0)], &LIMITS),
    ];
    let (mut all, mut same, mut worst, mut winners, mut found) = (0, 0, 0.0_f64, 0, 0);
    for map in &maps {
        for cell in cells(lab::db(), map, &Control::new()).unwrap() {
            let (w, slo) = (&map.workloads[cell.workload], map.slos[cell.slo]);
            let q = Question::new(map.model.clone(), map.clusters[0].clone(), w.clone(), slo, "trtllm");
            let study = explore(lab::db(), &q, &Control::new()).unwrap();
            let rates: Vec<f64> = study
                .verdicts
                .iter()
                .map(|v| v.row.filter(|_| v.feasible).map_or(0.0, |i| study.rows[i].point.requests_per_s))
                .collect();
            let first = |r: &dyn Fn(usize) -> f64| (0..4).fold(0, |b, i| if r(i) > r(b) { i } else { b });
            let (here, there) = (first(&|l| rate(&cell, l)), first(&|l| rates[l]));
            found += 1;
            // The same winner, or one tied with it.
            winners += usize::from(here == there || rate(&cell, here) >= rates[there] * 0.99);
            for (level, own) in rates.iter().enumerate() {
                let r = rate(&cell, level);
                assert_eq!(r > 0.0, *own > 0.0, "{} {slo:?} {}: {r} {own}", w.name, LEVELS[level]);
                if *own > 0.0 {
                    all += 1;
                    same += usize::from(r == *own);
                    if r < 0.995 * own {
                        println!("{} {slo:?} {}: {r:.4} against {own:.4}", w.name, LEVELS[level]);
                    }
                    worst = worst.max(1.0 - r / own);
                    let row = cell.reached[level].row.unwrap();
                    assert!(!row.scanned && row.point.binding_under(&slo) == Binding::None);
                }
            }
        }
    }
    println!("{found} cells, {winners} winners; {same} of {all} rates to the bit, the worst {worst:.1e} short");
    assert_eq!(winners, found);
    assert!(worst < 0.02, "{worst}");
}

#[test]
fn a_map_is_one_row_a_cell_and_the_same_for_any_threads() {
    let mut m = map("Qwen/Qwen3-30B-A3B", "b200_sxm", 2, &[(0.0, 1000.0, 100.0), (500.0, 300.0, 50.0)], &LIMITS[2..5]);
    m.clusters.push(lab::cluster("h200_sxm", 4));
    m.batches_per_octave = 2;
    m.slos.push(Slo { ttft_ms: Some(0.01), tpot_ms: None, percentile: None });
    let run = |threads| {
        pool::set_threads(threads);
        let c = regimes(lab::db(), &m, &Control::new()).unwrap();
        pool::set_threads(0);
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
    m.levels = vec!["pdd".into()];
    m.framework = Some("sglong".into());
    let text = match regimes(lab::db(), &m, &Control::new()) {
        Err(e @ Error::Spec(_)) => e.to_string(),
        other => panic!("{other:?}"),
    };
    for part in ["levels[0]: 'pdd'", "workloads: is empty", "slo: is empty", "framework: 'sglong'"] {
        assert!(text.contains(part), "{part} in {text}");
    }
}

#[test]
fn a_map_can_be_stopped() {
    let m = map("Qwen/Qwen3-30B-A3B", "b200_sxm", 8, &[(0.0, 1000.0, 100.0)], &LIMITS);
    let control = Control::new();
    control.cancel();
    assert!(matches!(regimes(lab::db(), &m, &control), Err(Error::Cancelled)));
}
