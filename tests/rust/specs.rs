//! Specs: catalogue totals against published ones, the HF reader, checks, workload statistics, JSON.

mod catalogue;
mod checks;
mod hf;
mod json;
mod published;
mod workloads;

use disagg::error::{Error, Problems};
use disagg::spec::{Model, Quant, catalog};

/// Problems as "path: message; hint" lines.
fn lines(problems: &Problems) -> Vec<String> {
    problems.0.iter().map(|p| p.to_string()).collect()
}

fn problems<T: std::fmt::Debug>(result: Result<T, Error>) -> Problems {
    match result.unwrap_err() {
        Error::Spec(p) => p,
        other => panic!("not a spec error: {other}"),
    }
}

fn near(value: f64, wanted: f64, share: f64) {
    assert!((value / wanted - 1.0).abs() <= share, "{value} is not within {share} of {wanted}");
}

fn model(name: &str) -> Model {
    catalog::model(name).unwrap()
}

const AS_SHIPPED: Quant = Quant { gemm: None, moe: None, attention: None, kv: None, comm: None };
