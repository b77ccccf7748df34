//! Laws of the audit: both ends fixed, steps that add up, orders that differ but not in the sum.

use disagg::spec::Framework;
use std::sync::OnceLock;

use disagg::Error;
use disagg::columns::{Column, Columns};
use disagg::control::Control;
use disagg::search::{Method, Question, audit, explore};
use disagg::spec::{Assumptions, Case, Slo, Workload};
use serde_json::json;

use crate::lab::{self, near};

fn question() -> Question {
    let slo = Slo { ttft_ms: Some(200.0), tpot_ms: Some(15.0), percentile: None };
    let w = Workload::fixed("chat", 2048.0, 512.0, 128.0);
    let mut q = Question::new(
        Case::new(lab::model("Qwen/Qwen3-30B-A3B"), lab::cluster("b200_sxm", 4), w).on(Framework::Trtllm),
        slo,
    );
    q.batches_per_octave = 1;
    q
}

/// Three switches away from the default.
fn target() -> Assumptions {
    let mut a = Assumptions::physical();
    for (name, value) in
        [("kv_transfer", json!("ignored")), ("ttft_queue", json!("factors")), ("worker_corrections", json!("fixed"))]
    {
        a = a.replace(name, value).unwrap();
    }
    a
}

fn walk(method: &Method) -> Columns {
    audit(lab::db(), &question(), &target(), method, &Control::new()).unwrap()
}

fn numbers(c: &Columns, name: &str) -> Vec<f64> {
    match c.get(name) {
        Some(Column::F64(v)) => v.clone(),
        other => panic!("{name}: {other:?}"),
    }
}

fn words(c: &Columns, name: &str) -> Vec<String> {
    match c.get(name) {
        Some(Column::Cat { codes, labels }) => codes.iter().map(|i| labels[*i as usize].clone()).collect(),
        other => panic!("{name}: {other:?}"),
    }
}

/// Values of every level at the first and the last step.
fn ends(c: &Columns) -> (Vec<f64>, Vec<f64>) {
    let v = numbers(c, "tokens_per_s");
    (v[..4].to_vec(), v[v.len() - 4..].to_vec())
}

fn ordered() -> &'static Columns {
    static MADE: OnceLock<Columns> = OnceLock::new();
    MADE.get_or_init(|| walk(&Method::Order(Vec::new())))
}

#[test]
fn both_ends_are_the_studies_themselves() {
    let (first, last) = ends(ordered());
    for (end, assumptions) in [(first, Assumptions::physical()), (last, target())] {
        let mut q = question();
        q.case.assumptions = assumptions;
        let study = explore(lab::db(), &q, &Control::new()).unwrap();
        let own = study
            .verdicts
            .iter()
            .map(|v| if v.feasible { study.rows[v.row.unwrap()].point.requests_per_s * 128.0 } else { 0.0 });
        for (a, b) in end.into_iter().zip(own) {
            near(a, b, 1e-9, "end of the audit");
        }
    }
}

#[test]
fn steps_add_up_and_say_what_they_did() {
    let c = ordered();
    let switches: Vec<String> = words(c, "switch").into_iter().step_by(4).collect();
    assert_eq!(switches, ["from", "kv_transfer", "ttft_queue", "worker_corrections", "to"]);
    assert_eq!(words(c, "value")[4], "ignored");
    assert_eq!(c.attrs["order"], "\"kv_transfer, ttft_queue, worker_corrections\"");
    let (effect, value) = (numbers(c, "effect"), numbers(c, "tokens_per_s"));
    for i in 4..effect.len() {
        near(value[i], value[i - 4] + effect[i], 1e-9, "running total");
    }
    // Rates of P/D are cut by its corrections; aggregated serving knows none of them.
    let at = |step: usize, level: usize| effect[4 * step + level];
    assert!(at(3, 1) < 0.0, "{effect:?}");
    assert_eq!((at(1, 0), at(3, 0)), (0.0, 0.0));
}

#[test]
fn any_order_and_shapley_reach_the_same_end() {
    let (start, end) = ends(ordered());
    let other = walk(&Method::Order(["worker_corrections", "ttft_queue", "kv_transfer"].map(String::from).to_vec()));
    assert_eq!(ends(&other), (start.clone(), end.clone()));
    for method in [Method::Shapley { orders: None, seed: 0 }, Method::Shapley { orders: Some(2), seed: 7 }] {
        let c = walk(&method);
        let effect = numbers(&c, "effect");
        for l in 0..4 {
            let sum: f64 = effect.iter().skip(l).step_by(4).sum();
            near(start[l] + sum, end[l], 1e-9, "Shapley values add up");
        }
        // A constant of P/D workers never moves aggregated serving, in any order.
        assert_eq!(effect[4 * 3], 0.0);
        // In words: NaN is not itself.
        assert_eq!(format!("{c:?}"), format!("{:?}", walk(&method)), "same seed, same bits");
    }
}

#[test]
fn what_cannot_be_walked_is_refused() {
    let refused = |method: &Method, to: &Assumptions| match audit(lab::db(), &question(), to, method, &Control::new()) {
        Err(Error::Spec(p)) => p.0.iter().map(|p| p.to_string()).collect::<Vec<_>>().join("\n"),
        other => panic!("{other:?}"),
    };
    let order = |names: &[&str]| Method::Order(names.iter().map(|n| (*n).to_string()).collect());
    assert!(refused(&order(&["kv_transfr"]), &target()).contains("kv_transfer"));
    assert!(refused(&order(&["kv_transfer", "kv_transfer"]), &target()).contains("twice"));
    assert!(refused(&order(&["kv_transfer"]), &target()).contains("missing"));
    let exact = Method::Shapley { orders: None, seed: 0 };
    assert!(refused(&exact, &Assumptions::paper()).contains("orders"));
    assert!(
        refused(&Method::Shapley { orders: Some(0), seed: 0 }, &target()).contains("orders: must be at least 1, got 0")
    );
    let control = Control::new();
    control.cancel();
    assert!(matches!(audit(lab::db(), &question(), &target(), &order(&[]), &control), Err(Error::Cancelled)));
}
