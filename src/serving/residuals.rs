//! How far a TPOT may be off: intervals from the residuals of measured servers by regime.
//!
//! `validation/residuals.json` (`tests/bench/residuals.py`): logarithms of measured over predicted TPOT of the silicon
//! sample, by framework, generation of the device, experts or not, and prompts on workers of their own or not; quantiles of
//! a regime with rows of three models or more, else of its framework. An interval for 80 % is
//! T exp(m + f (q10 - m)) to T exp(m + f (q90 - m)), m the median, f one factor for all regimes by which intervals made
//! without a model's rows hold 80 % of them (the mean over models; docs/design/physics.md 10). It need not hold T itself: a
//! regime that is predicted too fast says so. Limits: TPOT alone; rows of one sample, the load not told apart; AFD, other
//! devices and frameworks take the residuals of everything.

use std::sync::LazyLock;

use serde::Deserialize;

use crate::cost::Library;
use crate::spec::Plan;
use crate::spec::json;

const TEXT: &str = include_str!("../../python/disagg/data/validation/residuals.json");

#[derive(Debug, Deserialize)]
struct Residuals {
    levels: Vec<f64>,
    factor: f64,
    regimes: Vec<Regime>,
    everything: Vec<f64>,
}

#[derive(Debug, Deserialize)]
struct Regime {
    regime: [String; 4],
    models: u32,
    rows: u32,
    quantiles: Vec<f64>,
}

static RESIDUALS: LazyLock<Residuals> =
    LazyLock::new(|| json::parse(TEXT, "validation/residuals.json").expect("compiled in, and read by a test"));

/// An interval of TPOT that holds the measured one with a chance of 80 %, and what it rests on.
#[derive(Clone, Debug, PartialEq)]
pub struct TpotInterval {
    /// Of the predicted TPOT: the lower and the upper end.
    pub factors: [f64; 2],
    pub from: String,
}

impl Residuals {
    fn at(&self, quantiles: &[f64], level: f64) -> f64 {
        let found = self.levels.iter().position(|l| (l - level).abs() < 1e-9).and_then(|i| quantiles.get(i));
        found.copied().unwrap_or(0.0)
    }

    fn interval(&self, quantiles: &[f64], from: String) -> TpotInterval {
        let middle = self.at(quantiles, 0.5);
        let end = |level| (middle + self.factor * (self.at(quantiles, level) - middle)).exp();
        TpotInterval { factors: [end(0.1), end(0.9)], from }
    }
}

/// That of a plan on the kernels of a library.
pub fn tpot_interval(lib: &Library, plan: &Plan) -> TpotInterval {
    let all = &*RESIDUALS;
    let device = &lib.cluster.device;
    let (generation, layers) = (
        if device.is_blackwell() { "blackwell" } else { "hopper" },
        if lib.model.moe.is_some() { "experts" } else { "dense" },
    );
    let prompts = match plan {
        Plan::Aggregated(_) => Some("aggregated"),
        Plan::Pd(_) if plan.afd_units().is_empty() => Some("pd"),
        Plan::Pd(_) | Plan::Afd(_) => None,
    };
    let measured = lib.what_if().is_none() && (90..=103).contains(&device.sm);
    let asked = prompts.filter(|_| measured).map(|p| [lib.framework.name(), generation, layers, p]);
    let found = asked.and_then(|asked| all.regimes.iter().find(|r| r.regime == asked));
    match found {
        Some(r) => {
            let from = format!("{} measured servers ({})", r.rows, r.regime.join(", "));
            let few = if r.models < 3 { ", spread of the framework's rows: fewer than three models" } else { "" };
            all.interval(&r.quantiles, format!("{from}{few}"))
        }
        None => all.interval(&all.everything, "measured servers of every kind: none like this one".into()),
    }
}
