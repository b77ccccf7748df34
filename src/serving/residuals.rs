//! How far a figure may be off: intervals from the residuals of measured servers by regime.
//!
//! `validation/residuals.json` (`tests/bench/residuals.py`): logarithms of measured over predicted TTFT, TPOT and rate of the
//! silicon sample, by framework, generation of the device, experts or not, and prompts on workers of their own or not;
//! KV room from what servers print. Quantiles of a regime with rows of three models or more, else of its framework. With a
//! chance c the interval is x exp(m + f (q(p) - m)) at p = (1 - c)/2 and 1 - p, m the median, f one factor of the figure for all
//! regimes by which intervals of 80 % that were made without a model's rows hold 80 % of them (the mean over models;
//! docs/design/physics.md 10). It need not hold x itself: a regime that is predicted too fast says so.
//!
//! **Ratios.** Two plans of one question share model, system and load, and errors with them: the interval of the ratio of two
//! rates is that of differences of residuals between rows of one model and system, served alike (framework, and prompts
//! beside decode or apart) or not; with AFD, of which no server was measured, between rows of any models.
//!
//! **Devices without tables.** Where kernel times are another device's, scaled by rooflines (`cost/what_if`), the spread of that
//! law between Hopper and Blackwell is added in squares, less for a device that is nearer (the cluster's; a pool's own device
//! widens nothing).
//!
//! **Logs.** A device that was fitted to the log of an aggregated server (`calibrate/served`) brings its own error s: intervals of
//! TPOT, TTFT and rate of aggregated plans on it are x exp(z s), z of the normal distribution, in place of other servers'.
//!
//! **Chances.** A plan keeps its limits with a chance c if each of its k limited latencies keeps its own with 1 - (1 - c)/k, so
//! that both do (Bonferroni); a bound is never below the figure itself. Limits: rows of one sample, the load not told apart;
//! AFD, other devices and frameworks take the residuals of everything; beyond 98 % the tail is taken to be normal.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde::Deserialize;

use crate::cost::Library;
use crate::math::normal;
use crate::spec::assumptions::RequestPath;
use crate::spec::{Framework, Level, Slo, choices, json};

const TEXT: &str = include_str!("../../python/disagg/data/validation/residuals.json");

choices! {
    /// What intervals are known of.
    Quantity {
        Ttft = "ttft",
        Tpot = "tpot",
        /// Output tokens a second.
        Rate = "rate",
        /// KV tokens that fit.
        Kv = "kv",
    }
}

#[derive(Debug, Deserialize)]
struct Residuals {
    levels: Vec<f64>,
    quantities: BTreeMap<String, Known>,
}

#[derive(Debug, Deserialize)]
struct Known {
    factor: f64,
    regimes: Vec<Regime>,
    everything: Vec<f64>,
    rows: u32,
    models: u32,
    /// Differences of residuals: served alike, apart, and of any models.
    ratios: Option<Ratios>,
}

#[derive(Debug, Deserialize)]
struct Regime {
    regime: [String; 4],
    models: u32,
    rows: u32,
    quantiles: Vec<f64>,
}

#[derive(Debug, Deserialize)]
struct Ratios {
    factor: f64,
    alike: Vec<f64>,
    apart: Vec<f64>,
    unlike: Vec<f64>,
}

static RESIDUALS: LazyLock<Residuals> =
    LazyLock::new(|| json::parse(TEXT, "validation/residuals.json").expect("compiled in, and read by a test"));

/// The chance of the intervals that every estimate carries.
pub const CHANCE: f64 = 0.8;

/// An interval that holds the measured figure with some chance, and what it rests on.
#[derive(Clone, Debug, PartialEq)]
pub struct Interval {
    /// Of the predicted figure: the lower and the upper end.
    pub factors: [f64; 2],
    pub from: String,
}

/// What servers are told apart by.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Served {
    framework: Framework,
    blackwell: bool,
    experts: bool,
    /// None: nothing of the kind was measured.
    prompts: Option<&'static str>,
    /// Whether its TTFT is a client's, as those that were measured are.
    client: bool,
    /// Spread of ln(measured / predicted) that comes with kernel times of another device, scaled; 0: its own.
    scaled: f64,
    /// Errors of TTFT and TPOT on the log that the device was fitted to; 0: none, or not served alike.
    log: [f64; 2],
}

impl Served {
    pub fn of(lib: &Library, level: Level) -> Served {
        let device = &lib.cluster.device;
        let measured = lib.what_if().is_none() && (90..=103).contains(&device.sm);
        let prompts = match level {
            Level::Aggregated => Some("aggregated"),
            Level::Pd => Some("pd"),
            Level::AggregatedAfd | Level::PdAfd => None,
        };
        Served {
            framework: lib.framework,
            blackwell: device.is_blackwell(),
            experts: lib.model.moe.is_some(),
            prompts: prompts.filter(|_| measured),
            client: lib.assumptions.request_path == RequestPath::Client,
            scaled: SCALED * (lib.told_from() / GENERATION).min(1.0),
            log: if level == Level::Aggregated { [device.log_ttft_error, device.log_tpot_error] } else { [0.0; 2] },
        }
    }

    /// A measured server, its TTFT a client's.
    pub(crate) fn measured(framework: Framework, blackwell: bool, experts: bool, pd: bool) -> Served {
        Served {
            framework,
            blackwell,
            experts,
            prompts: Some(if pd { "pd" } else { "aggregated" }),
            client: true,
            scaled: 0.0,
            log: [0.0; 2],
        }
    }

    /// ln(measured / predicted) that a log of the server itself leaves over, one standard deviation. A rate is mostly TPOT.
    fn own(&self, quantity: Quantity) -> Option<f64> {
        let found = match quantity {
            Quantity::Ttft => self.log[0],
            Quantity::Tpot | Quantity::Rate => self.log[1],
            Quantity::Kv => 0.0,
        };
        Some(found).filter(|s| *s > 0.0)
    }

    /// What scaled kernel times add to the spread of a figure; room for KV is no time.
    fn spread(&self, quantity: Quantity) -> f64 {
        if quantity == Quantity::Kv { 0.0 } else { self.scaled }
    }

    fn regime(&self) -> Option<[&'static str; 4]> {
        let (generation, layers) =
            (if self.blackwell { "blackwell" } else { "hopper" }, if self.experts { "experts" } else { "dense" });
        self.prompts.map(|p| [self.framework.name(), generation, layers, p])
    }
}

fn known(quantity: Quantity) -> &'static Known {
    RESIDUALS.quantities.get(quantity.name()).expect("compiled in, and read by a test")
}

/// Normal scores of the quantiles that are kept.
static SCORES: LazyLock<Vec<f64>> = LazyLock::new(|| RESIDUALS.levels.iter().map(|l| normal::quantile(*l)).collect());

/// A quantile between and beyond those that are kept, straight in the normal score.
fn quantile(values: &[f64], chance: f64) -> f64 {
    let (z, last) = (normal::quantile(chance), SCORES.len() - 1);
    let (first, end) = (SCORES[0], SCORES[last]);
    if z <= first || z >= end {
        // The tail is as far from the median as the last quantile, in normal scores.
        let (k, score) = if z <= first { (0, first) } else { (last, end) };
        return values[last / 2] + (values[k] - values[last / 2]) * z / score;
    }
    let b = SCORES.partition_point(|s| *s < z).clamp(1, last);
    let a = b - 1;
    values[a] + (values[b] - values[a]) * (z - SCORES[a]) / (SCORES[b] - SCORES[a])
}

/// exp of a quantile, stretched about the median.
fn stretched(values: &[f64], factor: f64, chance: f64) -> f64 {
    let middle = quantile(values, 0.5);
    (middle + factor * (quantile(values, chance) - middle)).exp()
}

impl Known {
    fn values(&self, served: &Served) -> (&[f64], String) {
        let found = served.regime().and_then(|asked| self.regimes.iter().find(|r| r.regime == asked));
        match found {
            Some(r) => {
                let few = if r.models < 3 { ", spread of the framework's rows: fewer than three models" } else { "" };
                (&r.quantiles, format!("{} measured servers ({}){few}", r.rows, r.regime.join(", ")))
            }
            None if self.regimes.is_empty() => {
                (&self.everything, format!("{} servers of {} models that print it", self.rows, self.models))
            }
            None => (&self.everything, "measured servers of every kind: none like this one".into()),
        }
    }
}

/// Spread of ln(scaled / measured) of steps of one generation told from the tables of the other: Blackwell from Hopper and
/// back, 105 steps each of five models and three frameworks (tests/rust/what_if.rs).
pub const SCALED: f64 = 0.155;
/// The largest |ln| of a ratio of their peaks: what is nearer is known better, and a device changed by nothing as before.
const GENERATION: f64 = 0.81;

/// A quantile of measured over predicted: of the server's own log, else of its regime, wider where kernel times are another
/// device's (independent errors add in squares).
fn end(served: &Served, quantity: Quantity, p: f64) -> f64 {
    if let Some(own) = served.own(quantity) {
        return (own * normal::quantile(p)).exp();
    }
    let known = known(quantity);
    let (values, _) = known.values(served);
    let (factor, spread) = (stretched(values, known.factor, p), served.spread(quantity));
    if spread <= 0.0 {
        return factor;
    }
    let middle = stretched(values, known.factor, 0.5);
    let beside = (factor / middle).ln().hypot(spread * normal::quantile(p));
    middle * beside.copysign(p - 0.5).exp()
}

/// The interval of a figure that holds with `chance`, strictly between 0 and 1.
pub fn interval(served: &Served, quantity: Quantity, chance: f64) -> Interval {
    if quantity == Quantity::Ttft && !served.client {
        return Interval { factors: [f64::NAN; 2], from: String::new() };
    }
    let end = |p| end(served, quantity, p);
    let factors = [end(0.5 * (1.0 - chance)), end(0.5 * (1.0 + chance))];
    if served.own(quantity).is_some() {
        return Interval { factors, from: "a log of the server that the device was fitted to".into() };
    }
    let (_, mut from) = known(quantity).values(served);
    if served.spread(quantity) > 0.0 {
        from.push_str("; wider, since kernel times are another device's, scaled");
    }
    Interval { factors, from }
}

/// Limits that a plan's own figures must keep, so that what is measured keeps `slo` with `chance`.
pub fn tightened(served: &Served, slo: &Slo, chance: f64) -> Slo {
    let limits = [slo.ttft_ms, slo.tpot_ms].iter().flatten().count().max(1);
    let each = 1.0 - (1.0 - chance) / limits as f64;
    let upper = |quantity| end(served, quantity, each).max(1.0);
    Slo {
        ttft_ms: slo.ttft_ms.map(|l| l / upper(Quantity::Ttft)),
        tpot_ms: slo.tpot_ms.map(|l| l / upper(Quantity::Tpot)),
        ..*slo
    }
}

/// Interval of the measured ratio of two plans of one question, of the predicted one; symmetric in logarithms, as neither
/// is the first.
pub fn ratio(a: &Served, b: &Served, quantity: Quantity, chance: f64) -> [f64; 2] {
    let known = known(quantity);
    let Some(r) = &known.ratios else { return [1.0; 2] };
    let values = match (a.prompts, b.prompts) {
        (Some(x), Some(y)) if x == y && a.framework == b.framework => &r.alike,
        (Some(_), Some(_)) => &r.apart,
        _ => &r.unlike,
    };
    let wide = (r.factor * quantile(values, 0.5 * (1.0 + chance))).exp();
    [1.0 / wide, wide]
}
