//! JSON: errors with paths, exact round trips.

use disagg::spec::*;
use proptest::prelude::*;
use serde_json::json;

use super::{lines, model, problems};

fn plan_error(value: serde_json::Value) -> Vec<String> {
    lines(&problems(Plan::from_json(&value.to_string())))
}

#[test]
fn a_wrong_field_is_named_however_deep_it_sits() {
    let pd = |decode: serde_json::Value| json!({"kind": "pd", "prefill": {"kind": "workers", "count": 1, "parallel": {}}, "decode": decode});
    assert_eq!(
        plan_error(pd(json!({"kind": "workers", "count": 1, "parallel": {"tp": "8"}}))),
        ["plan.decode.parallel.tp: wrong type: string \"8\", expected a whole number"]
    );
    assert_eq!(
        plan_error(pd(json!({"kind": "workers", "count": 1, "parallel": {"tp": 8, "moetp": 2}}))),
        ["plan.decode.parallel.moetp: unknown field; did you mean 'moe_tp'?"]
    );
    assert_eq!(plan_error(pd(json!({"kind": "workers", "parallel": {}}))), ["plan.decode.count: is missing"]);
    assert_eq!(
        plan_error(pd(json!({"kind": "afd", "attention": {"gpus": 1}, "ffn": {"gpus": -1}}))),
        ["plan.decode.ffn.gpus: wrong value: integer `-1`, expected a whole number"]
    );
    assert_eq!(
        plan_error(pd(json!({"kind": "worker", "count": 1}))),
        ["plan.decode.kind: unknown value 'worker'; did you mean 'workers'?"]
    );
    assert_eq!(plan_error(json!({"parallel": {}})), ["plan.kind: is missing; one of aggregated, pd, afd"]);
    assert_eq!(
        plan_error(json!(3)),
        ["plan: wrong type: expected an object with a `kind`, one of aggregated, pd, afd"]
    );
    let said = lines(&problems(Workload::from_json(
        &json!({"name": "w", "source": "", "prefix": {"kind": "fixed", "value": 0}, "isl": {"kind": "uniform", "low": 1},
            "osl": {"kind": "fixed", "value": 1}})
        .to_string(),
    )));
    assert_eq!(said, ["workload.isl.high: is missing"]);
    let said = lines(&problems(Quant::from_json("{\"gemm\": \"fp8block\"}")));
    assert_eq!(said, ["quant.gemm: unknown value 'fp8block'; did you mean 'fp8_block' (or 'fp8')?"]);
    let said = lines(&problems(Slo::from_json("{\"ttft_ms\": NaN}")));
    assert!(said[0].starts_with("slo: is not valid JSON: expected value"), "{said:?}");
}

#[test]
fn plans_and_models_survive_the_round_trip() {
    let m = model("gpt-oss-120b");
    assert_eq!(Model::from_json(&m.to_json().unwrap()).unwrap(), m);
    let plan = json!({"kind": "pd",
        "prefill": {"kind": "afd", "attention": {"gpus": 4, "tp": 2}, "ffn": {"gpus": 4}, "duplex": "half",
            "placement": {"attention": [0, 1, 2, 3], "ffn": [4, 5, 6, 7]}},
        "decode": {"kind": "workers", "count": 3, "parallel": {"tp": 2, "dp": 4}, "batch": 32}});
    let plan = Plan::from_value(plan).unwrap();
    assert_eq!(Plan::from_json(&plan.to_json().unwrap()).unwrap(), plan);
    assert_eq!((plan.level().name(), plan.gpus()), ("pd+afd", 8 + 24));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
    /// Every finite float keeps its bits.
    #[test]
    fn floats_keep_their_bits(a in any::<f64>(), b in any::<f64>(), c in any::<f64>()) {
        prop_assume!(a.is_finite() && b.is_finite() && c.is_finite());
        let mut d = catalog::system("b200").unwrap().0;
        (d.hbm_bytes, d.launch_s, d.usd_per_hour) = (a, b, c);
        let back = Device::from_json(&d.to_json().unwrap()).unwrap();
        prop_assert_eq!(back.hbm_bytes.to_bits(), a.to_bits());
        prop_assert_eq!(back.launch_s.to_bits(), b.to_bits());
        prop_assert_eq!(back.usd_per_hour.to_bits(), c.to_bits());
        let q = Distribution::Quantiles { values: vec![a, b, c], at: vec![] };
        prop_assert_eq!(Distribution::from_json(&q.to_json().unwrap()).unwrap(), q);
    }

    /// No text makes the parser panic.
    #[test]
    fn no_text_panics(text in "[\\[\\]{}\",:a-z0-9_ -]{0,60}") {
        let _ = Plan::from_json(&text);
        let _ = Model::from_json(&text);
        let _ = Workload::from_json(&text);
    }
}
