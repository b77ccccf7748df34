//! The optimum of a space against the slow twin that prices every point, and what leaves points out.

use std::sync::Arc;

use disagg::columns::{Column, Columns};
use disagg::control::Control;
use disagg::design::optimize::{Search, TIE};
use disagg::design::{Axis, Description, Expression, Metric, Space, price};
use rand_pcg::Pcg64;
use rand_pcg::rand_core::{Rng, SeedableRng};
use serde_json::{Map, Value, json};

use super::lab;

fn numbers(found: &Columns, name: &str) -> Vec<f64> {
    match found.get(name) {
        Some(Column::F64(v)) => v.clone(),
        Some(Column::I64(v)) => v.iter().map(|x| *x as f64).collect(),
        Some(Column::Bool(v)) => v.iter().map(|x| f64::from(u8::from(*x))).collect(),
        other => panic!("{name}: {other:?}"),
    }
}

fn texts(found: &Columns, name: &str) -> Vec<String> {
    match found.get(name) {
        Some(Column::Cat { codes, labels }) => codes.iter().map(|c| labels[*c as usize].clone()).collect(),
        other => panic!("{name}: {other:?}"),
    }
}

/// How many points a certificate tells of, by what became of them.
fn told(found: &Columns, what: &str) -> f64 {
    let at = texts(found, "what").iter().position(|w| w == what);
    at.map_or(0.0, |at| numbers(found, "points")[at])
}

fn question(plan: Value, gpus: u32) -> Map<String, Value> {
    let parts = json!({
        "model": lab::model("Qwen/Qwen3-30B-A3B"),
        "cluster": lab::cluster("b200_sxm", gpus),
        "workload": lab::chat(),
        "framework": "trtllm",
        "plan": plan,
    });
    let Value::Object(map) = parts else { unreachable!() };
    map
}

fn workers(batch: Value) -> Value {
    json!({"kind": "workers", "count": 1, "parallel": {"tp": 1, "dp": 2}, "batch": batch, "chunk_tokens": null})
}

fn pool(gpus: u32) -> Value {
    json!({"gpus": gpus, "tp": 1})
}

fn plans() -> [Value; 4] {
    let unit = json!({"kind": "afd", "attention": pool(2), "ffn": pool(2), "microbatches": 2, "batch": 16, "chunk_tokens": 600, "units": 1});
    [
        json!({"kind": "aggregated", "parallel": {"tp": 1, "dp": 2}, "batch": 16, "chunk_tokens": 1024, "replicas": 1}),
        unit.clone(),
        json!({"kind": "pd", "prefill": workers(Value::Null), "decode": workers(json!(16))}),
        json!({"kind": "pd", "prefill": workers(json!(2)), "decode": unit}),
    ]
}

/// Axes that lead into each of the plans, with more values than a space takes.
fn axes(plan: usize) -> Vec<(&'static str, Vec<Value>)> {
    let list = |v: Value| v.as_array().unwrap().clone();
    let mut out = vec![
        ("workload.isl", list(json!([128, 512, 3000]))),
        ("workload.osl", list(json!([1, 64, 700]))),
        ("cluster.gpus", list(json!([8, 12, 16]))),
        ("cluster.device.usd_per_hour", list(json!([1.0, 3.0]))),
    ];
    out.extend(match plan {
        0 => vec![
            ("plan.parallel.tp", list(json!([1, 2, 3, 4]))),
            ("plan.parallel.dp", list(json!([1, 2, 4]))),
            ("plan.batch", list(json!([4, 64, 300, 2000, 9000]))),
            ("plan.chunk_tokens", list(json!([16, 600, 2048, 400_000]))),
            ("plan.replicas", list(json!([1, 2, 3, 4]))),
        ],
        1 => vec![
            ("plan.attention.gpus", list(json!([1, 2, 3, 4]))),
            ("plan.ffn.gpus", list(json!([2, 4]))),
            ("plan.batch", list(json!([1, 17, 256, 4000]))),
            ("plan.units", list(json!([1, 2, 3]))),
            ("plan.microbatches", list(json!([1, 3]))),
        ],
        2 => vec![
            ("plan.prefill.count", list(json!([1, 2, 3, 5]))),
            ("plan.decode.count", list(json!([1, 2, 4]))),
            ("plan.prefill.parallel.dp", list(json!([1, 2, 4]))),
            ("plan.prefill.batch", list(json!([1, 4, 5000]))),
            ("plan.decode.parallel.tp", list(json!([1, 2, 3]))),
            ("plan.decode.batch", list(json!([null, 8, 100, 700, 20_000]))),
        ],
        _ => vec![
            ("plan.prefill.count", list(json!([1, 2, 3]))),
            ("plan.prefill.chunk_tokens", list(json!([64, 512]))),
            ("plan.decode.units", list(json!([1, 2]))),
            ("plan.decode.attention.gpus", list(json!([1, 2, 4]))),
            ("plan.decode.ffn.gpus", list(json!([2, 3, 4]))),
            ("plan.decode.batch", list(json!([1, 32, 500]))),
        ],
    });
    out
}

struct Dice(Pcg64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        (self.0.next_u64() % n as u64) as usize
    }

    /// Some of the values, in order.
    fn some(&mut self, values: &[Value], most: usize) -> Vec<Value> {
        let mut left = values.to_vec();
        while left.len() > most.max(1) {
            let at = self.below(left.len());
            left.remove(at);
        }
        left
    }
}

const OBJECTIVES: [&str; 11] = [
    "max memory_gib",
    "tokens_per_s",
    "tokens_per_s_per_gpu",
    "ttft_ms",
    "tpot_ms",
    "usd_per_mtok",
    "min gpus",
    "max concurrency",
    "memory_gib",
    "requests_per_s",
    "min tokens_per_s",
];

/// 200 spaces drawn at random: the same best value, the same ties, and a certificate that adds up.
#[test]
fn the_optimum_is_that_of_the_exhaustive_twin() {
    let mut dice = Dice(Pcg64::seed_from_u64(11));
    let (mut spared, mut all, mut none) = (0.0, 0.0, 0);
    let mut reasons = std::collections::BTreeSet::new();
    let mut round = 0;
    while round < 200 {
        let which = round % 4;
        let drawn: Vec<Axis> = axes(which)
            .into_iter()
            .filter_map(|(path, values)| {
                let most = dice.below(4);
                (most > 0).then(|| Axis { path: path.into(), values: dice.some(&values, most) })
            })
            .collect();
        let mut question = question(plans()[which].clone(), 8);
        if dice.below(4) == 0 {
            // Published factors on times and rates, other memory.
            question.insert("assumptions".into(), json!(disagg::spec::Assumptions::paper()));
        }
        let description = Description { question, axes: drawn, constraints: Vec::new() };
        let space = Arc::new(Space::new(description).unwrap());
        if space.size() > 300 {
            continue;
        }
        round += 1;
        let limits = [
            format!("ttft_ms <= {}", [5, 30, 200, 3000][dice.below(4)]),
            format!("tpot_ms < {}", [4, 15, 60][dice.below(3)]),
            format!("gpus <= {} or tokens_per_s / gpus > 2000", 2 + dice.below(10)),
            format!("memory_gib < {}", [70, 100, 150][dice.below(3)]),
            format!("memory_gib > {}", [45, 60, 100][dice.below(3)]),
            "usd_per_mtok < 0.3 and not ttft_ms > 400".to_string(),
        ];
        let constraints: Vec<String> = limits.into_iter().filter(|_| dice.below(3) == 0).collect();
        let objective = OBJECTIVES[dice.below(OBJECTIVES.len())];
        let search = Search::new(space.clone(), None, objective, &constraints).unwrap();
        // Mostly in pieces as small as the spaces, for bounds to leave something out.
        let search = if round % 3 == 0 { search } else { search.in_pieces(37, 1 + round % 5) };
        search.run(lab::db(), &Control::new()).unwrap();
        // The twin: every point, every metric.
        let metrics: Vec<String> = Metric::NAMES.iter().map(|m| (*m).to_string()).collect();
        let points: Vec<u64> = (0..space.size()).collect();
        let priced = price(lab::db(), &space, &points, &metrics, true, &Control::new()).unwrap();
        let columns: Vec<Vec<f64>> = Metric::NAMES.iter().map(|m| numbers(&priced, m)).collect();
        let name = |n: &str| Metric::NAMES.iter().position(|m| *m == n).ok_or_else(|| format!("'{n}'"));
        let read: Vec<Expression> = constraints.iter().map(|c| Expression::new(c, "c", &name).unwrap()).collect();
        let feasible = numbers(&priced, "feasible");
        let metric = objective.split_whitespace().last().unwrap();
        let values = &columns[name(metric).unwrap()];
        let score = |i: usize| if search.goal.maximise { values[i] } else { -values[i] };
        let good: Vec<usize> = (0..points.len())
            .filter(|i| feasible[*i] > 0.0 && !values[*i].is_nan() && read.iter().all(|c| c.holds(|m| columns[m][*i])))
            .collect();
        let best = good.iter().map(|i| score(*i)).fold(f64::NEG_INFINITY, f64::max);
        let what = format!("space {round}: {objective} {constraints:?} {:?}", space.description.axes);
        match search.best() {
            Ok((first, ties)) => {
                let twin: Vec<u64> =
                    good.iter().filter(|i| score(**i) >= best - TIE * best.abs()).map(|i| *i as u64).collect();
                assert_eq!(ties, twin, "{what}");
                assert_eq!(score(first as usize).to_bits(), best.to_bits(), "{what}");
            }
            Err(e) => {
                none += 1;
                assert!(good.is_empty(), "{what}: {e}");
                let text = e.to_string();
                assert!(
                    text.starts_with("constraints: no point keeps") || text.contains(&format!("has a {metric}")),
                    "{text}"
                );
            }
        }
        let certificate = search.certificate();
        let counted = numbers(&certificate, "points");
        assert_eq!(counted[0], space.size() as f64);
        assert_eq!(counted[1..].iter().sum::<f64>(), counted[0], "{what}");
        spared += counted[0] - counted[1];
        all += counted[0];
        reasons.extend(texts(&certificate, "what").into_iter().map(|w| w.split(' ').next().unwrap_or("").to_string()));
    }
    assert!(spared > 0.15 * all && none > 5, "{spared} of {all}, {none} without an answer");
    for reason in ["memory", "slot", "replica", "gpus", "objective", "constraint"] {
        assert!(reasons.contains(reason), "{reason} never left anything out: {reasons:?}");
    }
}

fn space(plan: Value, gpus: u32, axes: &[(&str, Value)]) -> Arc<Space> {
    let axes = axes
        .iter()
        .map(|(path, values)| Axis { path: (*path).into(), values: values.as_array().unwrap().clone() })
        .collect();
    Arc::new(Space::new(Description { question: question(plan, gpus), axes, constraints: Vec::new() }).unwrap())
}

/// A product of slots: a few hundred slots bound ten thousand pairs.
#[test]
fn pairs_are_bounded_by_their_slots() {
    let pd = plans()[2].clone();
    let s = space(
        pd,
        64,
        &[
            ("plan.prefill.parallel.dp", json!([1, 2, 4])),
            ("plan.prefill.chunk_tokens", json!([128, 256, 512])),
            ("plan.prefill.count", json!((1..=8).collect::<Vec<_>>())),
            ("plan.decode.parallel.dp", json!([1, 2, 4])),
            ("plan.decode.batch", json!([8, 32, 128, 512])),
            ("plan.decode.count", json!((1..=8).collect::<Vec<_>>())),
        ],
    );
    let run = |limits: &[String]| {
        let search = Search::new(s.clone(), None, "tokens_per_s_per_gpu", limits).unwrap();
        search.run(lab::db(), &Control::new()).unwrap();
        search
    };
    let search = run(&["ttft_ms < 60".into()]);
    let certificate = search.certificate();
    assert!(told(&certificate, "priced") < 0.1 * s.size() as f64, "{certificate:?}");
    // The same on one thread, to the last row.
    let points = search.points();
    disagg::pool::set_threads(1).unwrap();
    let alone = run(&["ttft_ms < 60".into()]);
    disagg::pool::set_threads(0).unwrap();
    assert_eq!(points, alone.points());
    assert_eq!(certificate, alone.certificate());
}

/// Where memory ends is a staircase over batch and chunk: the fullest plan that fits stands right at its edge.
#[test]
fn what_is_larger_than_what_does_not_fit_is_left_out_and_nothing_else() {
    let batches: Vec<u32> = (0..40).map(|i| 100 + 60 * i).collect();
    let chunks: Vec<u32> = (0..40).map(|i| 4000 + 40_000 * i).collect();
    let falling = |values: &[u32]| json!(values.iter().rev().collect::<Vec<_>>());
    let (batch, chunk, tp) = ("plan.batch", "plan.chunk_tokens", ("plan.parallel.tp", json!([1, 2])));
    // The largest first as well, so that what fits comes long after what does not.
    for (order, axes) in [
        ("rising", [(batch, json!(batches)), (chunk, json!(chunks)), tp.clone()]),
        ("batch falls", [(batch, falling(&batches)), (chunk, json!(chunks)), tp.clone()]),
        ("chunk falls", [(chunk, falling(&chunks)), (batch, json!(batches)), tp.clone()]),
    ] {
        let mut plan = plans()[0].clone();
        plan["parallel"]["dp"] = json!(1);
        let s = space(plan, 8, &axes);
        let search = Search::new(s.clone(), None, "max memory_gib", &[]).unwrap();
        search.run(lab::db(), &Control::new()).unwrap();
        let points: Vec<u64> = (0..s.size()).collect();
        let twin = price(lab::db(), &s, &points, &["memory_gib".to_string()], true, &Control::new()).unwrap();
        let (full, stands) = (numbers(&twin, "memory_gib"), numbers(&twin, "feasible"));
        let best = (0..full.len()).filter(|i| stands[*i] > 0.0).map(|i| full[i]).fold(0.0, f64::max);
        let (first, _) = search.best().unwrap();
        assert_eq!(full[first as usize], best, "{order}");
        let certificate = search.certificate();
        let fits = stands.iter().sum::<f64>();
        assert!(0.1 * full.len() as f64 <= fits && fits <= 0.9 * full.len() as f64, "{fits}");
        // All that fits is priced.
        assert_eq!(numbers(&search.points(), "feasible").iter().sum::<f64>(), fits, "{order}: {certificate:?}");
        let spared = told(&certificate, "memory");
        assert_eq!(told(&certificate, "priced") + spared, full.len() as f64);
        assert!(order != "rising" || spared > 0.3 * (full.len() as f64 - fits), "{certificate:?} {fits}");
    }
}

#[test]
fn what_cannot_be_is_said_by_name() {
    let s = space(plans()[0].clone(), 8, &[("plan.batch", json!([4, 16])), ("plan.parallel.tp", json!([1, 2]))]);
    let wrong = |objective: &str, limits: &[&str]| {
        let limits: Vec<String> = limits.iter().map(|l| (*l).to_string()).collect();
        let search = Search::new(s.clone(), None, objective, &limits);
        search
            .map(|s| s.run(lab::db(), &Control::new()).and_then(|()| s.best()))
            .and_then(|x| x)
            .unwrap_err()
            .to_string()
    };
    for (objective, limits, parts) in [
        ("token_per_s", vec![], vec!["objective: 'token_per_s' is not a metric", "did you mean 'tokens_per_s'"]),
        ("most tokens_per_s", vec![], vec!["'most tokens_per_s' is not a metric"]),
        (
            "tpot_ms",
            vec!["tfft_ms < 3"],
            vec!["constraints[0]", "is not a metric or an axis", "did you mean 'ttft_ms'"],
        ),
        ("tpot_ms", vec!["ttft_ms = 3"], vec!["constraints[0]", "did you mean '=='"]),
        ("tpot_ms", vec!["ttft_ms < 1"], vec!["constraints: no point keeps 'ttft_ms < 1'", "ttft_ms was"]),
        (
            "tpot_ms",
            vec!["tokens_per_s > 1", "batch > 10", "batch < 10"],
            vec!["no point keeps 'batch > 10' and 'batch < 10' together"],
        ),
    ] {
        let text = wrong(objective, &limits);
        assert!(parts.iter().all(|p| text.contains(p)), "{text}");
    }
    let full = space(plans()[0].clone(), 8, &[("plan.batch", json!([50_000, 80_000]))]);
    let search = Search::new(full, None, "tokens_per_s", &[]).unwrap();
    search.run(lab::db(), &Control::new()).unwrap();
    let text = search.best().unwrap_err().to_string();
    assert!(text.contains("no point of the space has a tokens_per_s") && text.contains("memory"), "{text}");
    let control = Control::new();
    control.cancel();
    let search = Search::new(s.clone(), None, "tokens_per_s", &[]).unwrap();
    assert!(matches!(search.run(lab::db(), &control), Err(disagg::Error::Cancelled)));
    assert!(!search.complete() && told(&search.certificate(), "not looked at") == 4.0);
}
