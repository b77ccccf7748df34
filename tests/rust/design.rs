//! Spaces of the user's own: numbering, constraints, samples, prices.

use std::slice;
use std::sync::Arc;

use disagg::Error;
use disagg::columns::Column;
use disagg::control::Control;
use disagg::cost::Library;
use disagg::design::{Axis, Description, Method, Space, price, sample};
use disagg::serving::Engine;
use disagg::spec::{Aggregated, Assumptions, Case, Parallel, Plan, Quant, Serving, catalog};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::lab;

fn question() -> Map<String, Value> {
    let plan = Plan::Aggregated(Aggregated {
        parallel: Parallel::default(),
        batch: Some(8),
        chunk_tokens: Some(1024),
        replicas: 1,
        ..Default::default()
    });
    let parts = json!({
        "model": catalog::model("Qwen/Qwen3-30B-A3B").unwrap(),
        "cluster": catalog::cluster("h200_sxm", 8).unwrap(),
        "workload": catalog::workload("paper-chat").unwrap(),
        "plan": plan,
    });
    let Value::Object(map) = parts else { unreachable!() };
    map
}

fn space(axes: &[(&str, Value)], constraints: &[&str]) -> disagg::Result<Space> {
    let axes = axes
        .iter()
        .map(|(path, values)| Axis { path: (*path).into(), values: values.as_array().unwrap().clone() })
        .collect();
    Space::new(Description {
        question: question(),
        axes,
        constraints: constraints.iter().map(|c| (*c).into()).collect(),
    })
}

fn said(result: disagg::Result<Space>) -> String {
    result.unwrap_err().to_string()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// The slow twin lists every combination and tests every constraint on it.
    #[test]
    fn numbering_is_that_of_the_filtered_product(
        n in prop::collection::vec(1usize..6, 1..5),
        limit in 1u32..40,
        modulo in 1u32..4,
        which in 0usize..16,
    ) {
        let paths = ["plan.parallel.tp", "plan.parallel.dp", "plan.batch", "plan.chunk_tokens"];
        let axes: Vec<(&str, Value)> = n.iter().zip(paths).map(|(n, p)| (p, json!((1..=*n).collect::<Vec<_>>()))).collect();
        let names = ["tp", "dp", "batch", "chunk_tokens"];
        let (a, b) = (which % n.len(), (which / 4) % n.len());
        let constraints = [format!("{} * {} <= {limit}", names[a], names[b]), format!("{} % {modulo} == 0 or {} > 1", names[b], names[a])];
        let mut twin = Vec::new();
        let mut choice = vec![0usize; n.len()];
        loop {
            let (x, y) = (choice[a] as u32 + 1, choice[b] as u32 + 1);
            if x * y <= limit && (y % modulo == 0 || x > 1) {
                twin.push(choice.clone());
            }
            let Some(last) = (0..n.len()).rev().find(|i| choice[*i] + 1 < n[*i]) else { break };
            choice[last] += 1;
            choice[last + 1..].fill(0);
        }
        let texts: Vec<&str> = constraints.iter().map(String::as_str).collect();
        match space(&axes, &texts) {
            Err(e) => prop_assert!(twin.is_empty() && e.to_string().contains("no point keeps"), "{e}"),
            Ok(s) => {
                prop_assert_eq!(s.size(), twin.len() as u64);
                for (i, t) in twin.iter().enumerate() {
                    prop_assert_eq!(&s.choices(i as u64), t);
                    prop_assert_eq!(s.index_of(t), Some(i as u64));
                }
                for &method in Method::NAMES {
                    for wanted in [1, 3, 7, 1000] {
                        let drawn = sample(&s, wanted, method, 5).unwrap();
                        prop_assert_eq!(drawn.len() as u64, wanted.min(s.size()));
                        prop_assert!(drawn.windows(2).all(|w| w[0] < w[1]) && drawn.iter().all(|i| *i < s.size()));
                        prop_assert_eq!(&drawn, &sample(&s, wanted, method, 5).unwrap());
                    }
                }
            }
        }
    }
}

#[test]
fn a_large_space_is_counted_without_being_listed() {
    let many = json!((1..=1000).collect::<Vec<_>>());
    let s = space(
        &[
            ("plan.parallel.tp", json!([1, 2, 4, 8])),
            ("plan.parallel.dp", json!([1, 2, 4, 8])),
            ("plan.batch", many.clone()),
            ("plan.chunk_tokens", many.clone()),
            ("workload.isl", many),
        ],
        &["tp * dp <= 8"],
    )
    .unwrap();
    assert_eq!(s.size(), 10 * 1_000_000_000);
    assert_eq!(s.choices(s.size() - 1), vec![3, 0, 999, 999, 999]);
    assert_eq!(sample(&s, 100, "lhs", 1).unwrap().len(), 100);
}

/// Constraints over all axes of 10^12 points and more, between which nothing is listed.
#[test]
fn constraints_over_many_points_are_counted_without_listing_them() {
    let hundred: Vec<u64> = (1..=100).collect();
    let paths =
        ["plan.parallel.tp", "plan.parallel.dp", "plan.batch", "plan.chunk_tokens", "workload.isl", "workload.osl"];
    let axes: Vec<(&str, Value)> = paths.iter().map(|p| (*p, json!(hundred))).collect();
    let sums = |n: usize| {
        let mut ways = vec![1u64];
        for _ in 0..n {
            let mut next = vec![0; ways.len() + 100];
            for (s, w) in ways.iter().enumerate() {
                hundred.iter().for_each(|v| next[s + *v as usize] += w);
            }
            ways = next;
        }
        ways
    };
    let s = space(&axes, &["tp + dp + batch + chunk_tokens + isl + osl <= 200"]).unwrap();
    assert_eq!(s.size(), sums(6)[..=200].iter().sum::<u64>());
    for i in [0, 1, s.size() / 3, s.size() - 1] {
        assert_eq!(s.index_of(&s.choices(i)), Some(i));
        assert!(s.choices(i).iter().map(|c| c + 1).sum::<usize>() <= 200);
    }
    // The first axis and the last: what lies between costs nothing.
    let s = space(&axes, &["tp * osl == 100"]).unwrap();
    assert_eq!(s.size(), 9 * 100u64.pow(4));
    assert_eq!(s.choices(s.size() - 1), vec![99, 99, 99, 99, 99, 0]);
    // A remainder, by the twin: ways by remainders of both products.
    let mut by_rest = [0u64; 7];
    hundred.iter().for_each(|a| hundred.iter().for_each(|b| by_rest[(a * b % 7) as usize] += 1));
    let twin: u64 = (0..7).map(|r| by_rest[r] * by_rest[(10 - r) % 7]).sum();
    assert_eq!(space(&axes[..4], &["(tp * dp + batch * chunk_tokens) % 7 == 3"]).unwrap().size(), twin);
    let stopped = disagg::control::Control::new();
    stopped.cancel();
    let description = Description {
        question: question(),
        axes: axes.iter().map(|(p, v)| Axis { path: (*p).into(), values: v.as_array().unwrap().clone() }).collect(),
        constraints: vec!["(tp * dp + batch * chunk_tokens) % 7 == 3".into()],
    };
    assert!(matches!(Space::counted(description, &stopped), Err(disagg::Error::Cancelled)));
}

#[test]
fn hypercubes_and_sequences_cover_every_axis_evenly() {
    let axes = [
        ("plan.batch", json!((1..=64).collect::<Vec<_>>())),
        ("plan.chunk_tokens", json!((1..=64).collect::<Vec<_>>())),
    ];
    let s = space(&axes, &[]).unwrap();
    for method in ["lhs", "sobol"] {
        let drawn = sample(&s, 64, method, 3).unwrap();
        for axis in 0..2 {
            let mut quarter = [0; 4];
            for i in &drawn {
                quarter[s.choices(*i)[axis] / 16] += 1;
            }
            assert!(quarter.iter().all(|n| (14..=18).contains(n)), "{method} {axis} {quarter:?}");
        }
    }
    assert_ne!(sample(&s, 64, "lhs", 3).unwrap(), sample(&s, 64, "lhs", 4).unwrap());
}

#[test]
fn wrong_spaces_are_refused_by_name() {
    let tp = ("plan.parallel.tp", json!([1, 2, 4]));
    for (result, parts) in [
        (space(&[("plan.parallel.tpp", json!([1]))], &[]), vec!["axes.plan.parallel.tpp", "did you mean 'tp'"]),
        (space(&[("plans.tp", json!([1]))], &[]), vec!["'plans' is not a part of a question"]),
        (space(&[("plan.batch.x", json!([1]))], &[]), vec!["axes.plan.batch.x"]),
        (space(&[tp.clone(), tp.clone()], &[]), vec!["is there twice"]),
        (space(&[("plan.batch", json!([]))], &[]), vec!["has no values"]),
        (space(&[("plan.batch", json!([1, 2, 1]))], &[]), vec!["same value twice"]),
        (space(slice::from_ref(&tp), &["tp > 4"]), vec!["where", "no point keeps 'tp > 4'"]),
        (
            space(slice::from_ref(&tp), &["tp >= 1", "tp > 2", "tp < 4"]),
            vec!["no point keeps 'tp > 2' and 'tp < 4' together"],
        ),
        (space(slice::from_ref(&tp), &["dp > 1"]), vec!["where[0]", "'dp' is not an axis"]),
        (space(&[("cluster.system", json!(["h100_sxm", "h200_sxm"]))], &["system > 1"]), vec!["are not numbers"]),
    ] {
        let text = said(result);
        assert!(parts.iter().all(|p| text.contains(p)), "{text}");
    }
}

/// A part that cannot be read leaves nothing behind of what was compiled before it.
#[test]
fn a_point_costs_the_same_after_one_that_fails() {
    let models = json!(["Qwen/Qwen3-30B-A3B", "Qwen/Qwen3-32B"]);
    let s = space(&[("model", models), ("workload.isl", json!(["none", 512]))], &[]).unwrap();
    let rates = |points: &[u64]| {
        let found = price(lab::db(), &s, points, &["tokens_per_s".into()], false, &Control::new()).unwrap();
        let Some(Column::F64(rates)) = found.get("tokens_per_s") else { panic!("no rates") };
        rates.iter().map(|r| r.to_bits()).collect::<Vec<u64>>()
    };
    let together = rates(&[0, 1, 2, 3]);
    let alone: Vec<u64> = (0..4).flat_map(|i| rates(&[i])).collect();
    assert_eq!(together, alone);
    assert!(f64::from_bits(alone[0]).is_nan() && alone[1] != alone[3]);
}

#[test]
fn points_cost_what_an_estimate_says_and_failures_are_rows() {
    let s = space(
        &[
            ("workload.isl", json!([512, 4096])),
            ("cluster.nic_gb_per_s", json!([50, 100])),
            ("plan.parallel.dp", json!([1, 2, 3])),
            ("plan.parallel.tp", json!([1, 2, 3])),
            ("plan.batch", json!([1, 16])),
        ],
        &["tp * dp <= 8"],
    )
    .unwrap();
    let all: Vec<u64> = (0..s.size()).collect();
    let metrics: Vec<String> = ["ttft_ms", "tokens_per_s", "measured_share"].iter().map(|m| (*m).to_string()).collect();
    let found = price(lab::db(), &s, &all, &metrics, false, &Control::new()).unwrap();
    assert_eq!(found.rows() as u64, s.size());
    let numbers = |name: &str| match found.get(name) {
        Some(Column::F64(v)) => v.clone(),
        other => panic!("{name}: {other:?}"),
    };
    let (ttft, rate) = (numbers("ttft_ms"), numbers("tokens_per_s"));
    let (model, lib) = {
        let model = catalog::model("Qwen/Qwen3-30B-A3B").unwrap();
        let cluster = catalog::cluster("h200_sxm", 8).unwrap();
        let name = Case::new(model.clone(), cluster.clone(), lab::chat()).framework(lab::db()).unwrap();
        let (quant, serving, how) = (Quant::default(), Serving::default(), Assumptions::physical());
        let lib = Library::new(lab::db().clone(), &model, &cluster, name, &quant, &serving, &how);
        (model, Arc::new(lib.unwrap()))
    };
    assert!(model.attention.heads() % 3 != 0);
    let mut checked = 0;
    for i in 0..s.size() {
        let c = s.choices(i);
        if c[1] == 1 {
            continue;
        }
        let mut w = catalog::workload("paper-chat").unwrap();
        w.isl = disagg::spec::Distribution::fixed([512.0, 4096.0][c[0]]);
        let parallel = Parallel { dp: c[2] as u32 + 1, tp: c[3] as u32 + 1, ..Parallel::default() };
        let plan = Plan::Aggregated(Aggregated {
            parallel,
            batch: Some([1, 16][c[4]]),
            chunk_tokens: Some(1024),
            replicas: 1,
            ..Default::default()
        });
        match Engine::new(&lib, &w, &plan) {
            Ok(e) if e.point.stands() => {
                assert_eq!(ttft[i as usize].to_bits(), (e.point.ttft_s * 1e3).to_bits());
                assert_eq!(rate[i as usize].to_bits(), e.tokens_per_s().to_bits());
                checked += 1;
            }
            Ok(_) => assert!(ttft[i as usize].is_nan()),
            Err(Error::Spec(_)) => assert!(ttft[i as usize].is_nan()),
            Err(e) => panic!("{e}"),
        }
    }
    assert!(checked > 10, "{checked}");
    let Some(Column::Cat { codes, labels }) = found.get("status") else { panic!() };
    assert!(codes.iter().any(|c| labels[*c as usize].contains("does not divide")), "{labels:?}");
    // Any slice, in any order of work, gives the same rows.
    let slice: Vec<u64> = (5..17).collect();
    let part = price(lab::db(), &s, &slice, &metrics, false, &Control::new()).unwrap();
    let Some(Column::F64(v)) = part.get("ttft_ms") else { panic!() };
    for (a, b) in v.iter().zip(&ttft[5..17]) {
        assert_eq!(a.to_bits(), b.to_bits());
    }
}
