//! Distributions of token counts: moments in closed form, sampling by the inverse CDF; and how far two
//! of them can be correlated.
//!
//! Two lengths are most correlated when they rise together, least when one rises as the other falls
//! (Frechet 1951, Hoeffding 1940): with u uniform, (F^-1(u), G^-1(u)) and (F^-1(u), G^-1(1 - u)). What
//! lies beyond those two correlations no joint distribution has.
//!
//! Limit: five families of one variable; joint lengths come as samples or by one correlation.

use serde::{Deserialize, Deserializer, Serialize};

use crate::error::Problems;
use crate::math::normal;

use super::json::{self, json_methods};
use super::limits::{Check, LONG};

/// A distribution of token counts.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Distribution {
    Fixed {
        value: f64,
    },
    Uniform {
        low: f64,
        high: f64,
    },
    Lognormal {
        mean: f64,
        p90: f64,
    },
    /// Values at probabilities `at`, linear between; an empty `at` means evenly spaced: 0, 1/(n-1), ..., 1.
    Quantiles {
        values: Vec<f64>,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        at: Vec<f64>,
    },
    /// 1, 2, 3, ... with a constant chance to stop.
    Geometric {
        mean: f64,
    },
}

impl<'de> Deserialize<'de> for Distribution {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Fixed {
            value: f64,
        }
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Uniform {
            low: f64,
            high: f64,
        }
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Lognormal {
            mean: f64,
            p90: f64,
        }
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Quantiles {
            values: Vec<f64>,
            #[serde(default)]
            at: Vec<f64>,
        }
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Geometric {
            mean: f64,
        }
        let kinds = ["fixed", "uniform", "lognormal", "quantiles", "geometric"];
        let (kind, inside) = json::tagged(deserializer, &kinds)?;
        Ok(match kind.as_str() {
            "fixed" => {
                let Fixed { value } = json::inside(inside)?;
                Distribution::Fixed { value }
            }
            "uniform" => {
                let Uniform { low, high } = json::inside(inside)?;
                Distribution::Uniform { low, high }
            }
            "lognormal" => {
                let Lognormal { mean, p90 } = json::inside(inside)?;
                Distribution::Lognormal { mean, p90 }
            }
            "quantiles" => {
                let Quantiles { values, at } = json::inside(inside)?;
                Distribution::Quantiles { values, at }
            }
            _ => {
                let Geometric { mean } = json::inside(inside)?;
                Distribution::Geometric { mean }
            }
        })
    }
}

json_methods!(Distribution => "distribution");

/// The 90 % point of the standard normal.
const Z90: f64 = 1.281_551_565_544_600_4;

/// Above this share of the mean no lognormal has its 90 % point: exp(z90^2 / 2).
fn widest() -> f64 {
    (Z90 * Z90 / 2.0).exp()
}

/// Mu and sigma of the lognormal with this mean and 90 % point (the narrower of the two).
fn lognormal(mean: f64, p90: f64) -> (f64, f64) {
    let sigma = Z90 - (Z90 * Z90 - 2.0 * (p90 / mean).ln()).max(0.0).sqrt();
    (mean.ln() - sigma * sigma / 2.0, sigma)
}

/// E[X^a Y^b] of two lengths that rise together or, if not, of which one rises as the other falls.
/// Trapezoids over the normal scores of u on a step of 1/64; ends and kinks of tables cost about 1e-4.
pub(crate) fn extreme_moment(x: &Distribution, y: &Distribution, [a, b]: [i32; 2], together: bool) -> f64 {
    let (mut sum, mut weights) = (0.0, 0.0);
    for i in -512..=512 {
        let z = f64::from(i) / 64.0;
        let weight = (-0.5 * z * z).exp();
        let other = if together { z } else { -z };
        sum += weight * x.quantile(normal::cdf(z)).powi(a) * y.quantile(normal::cdf(other)).powi(b);
        weights += weight;
    }
    sum / weights
}

/// The least and the largest correlation of two lengths with these marginals; none if one of them does not vary.
pub fn correlation_range(x: &Distribution, y: &Distribution) -> Option<[f64; 2]> {
    let spread = (x.variance() * y.variance()).sqrt();
    if x.is_fixed() || y.is_fixed() || spread <= 0.0 {
        return None;
    }
    let of = |together| (extreme_moment(x, y, [1, 1], together) - x.mean() * y.mean()) / spread;
    Some([of(false).clamp(-1.0, 0.0), of(true).clamp(0.0, 1.0)])
}

impl Distribution {
    pub fn fixed(value: f64) -> Self {
        Distribution::Fixed { value }
    }

    /// The same shape with every length times `by` (a geometric one keeps its family: its mean is scaled).
    pub(crate) fn scaled(&self, by: f64) -> Self {
        match self {
            Distribution::Fixed { value } => Distribution::Fixed { value: value * by },
            Distribution::Uniform { low, high } => Distribution::Uniform { low: low * by, high: high * by },
            Distribution::Lognormal { mean, p90 } => Distribution::Lognormal { mean: mean * by, p90: p90 * by },
            Distribution::Quantiles { values, at } => {
                Distribution::Quantiles { values: values.iter().map(|v| v * by).collect(), at: at.clone() }
            }
            Distribution::Geometric { mean } => Distribution::Geometric { mean: mean * by },
        }
    }

    pub(crate) fn is_fixed(&self) -> bool {
        match self {
            Distribution::Fixed { .. } => true,
            Distribution::Uniform { low, high } => low == high,
            Distribution::Quantiles { values, .. } => values.first() == values.last(),
            Distribution::Lognormal { mean, p90 } => mean == p90,
            Distribution::Geometric { mean } => *mean == 1.0,
        }
    }

    pub fn mean(&self) -> f64 {
        self.moment(1)
    }

    pub fn variance(&self) -> f64 {
        (self.moment(2) - self.mean().powi(2)).max(0.0)
    }

    /// E[X^n] for n = 1, 2, 3, exact.
    pub fn moment(&self, n: u32) -> f64 {
        let power = |x: f64| x.powi(n as i32);
        match self {
            Distribution::Fixed { value } => power(*value),
            Distribution::Uniform { low, high } => line_moment(*low, *high, n),
            Distribution::Lognormal { mean, p90 } => {
                let (mu, sigma) = lognormal(*mean, *p90);
                let n = f64::from(n);
                (n * mu + n * n * sigma * sigma / 2.0).exp()
            }
            Distribution::Quantiles { values, at } => {
                let mut sum = 0.0;
                for i in 1..values.len() {
                    let width = at_of(at, i, values.len()) - at_of(at, i - 1, values.len());
                    sum += width * line_moment(values[i - 1], values[i], n);
                }
                if values.len() == 1 { power(values[0]) } else { sum }
            }
            Distribution::Geometric { mean } => {
                let p = 1.0 / mean;
                match n {
                    0 => 1.0,
                    1 => *mean,
                    2 => (2.0 - p) / (p * p),
                    _ => (6.0 - 6.0 * p + p * p) / (p * p * p),
                }
            }
        }
    }

    /// The value below which a share `q` of the draws falls; the inverse of the CDF.
    pub fn quantile(&self, q: f64) -> f64 {
        let q = q.clamp(0.0, 1.0);
        match self {
            Distribution::Fixed { value } => *value,
            Distribution::Uniform { low, high } => low + (high - low) * q,
            Distribution::Lognormal { mean, p90 } => {
                let (mu, sigma) = lognormal(*mean, *p90);
                if sigma == 0.0 { *mean } else { (mu + sigma * normal_quantile(q)).exp() }
            }
            Distribution::Quantiles { values, at } => table_quantile(values, at, q),
            Distribution::Geometric { mean } => {
                if *mean <= 1.0 {
                    return 1.0;
                }
                ((-q).ln_1p() / (-1.0 / mean).ln_1p()).ceil().max(1.0)
            }
        }
    }

    /// One draw from a uniform `u` in [0, 1).
    pub fn sample(&self, u: f64) -> f64 {
        self.quantile(u)
    }

    /// The largest value, or the 99.9 % point where there is no largest.
    pub(crate) fn peak(&self) -> f64 {
        match self {
            Distribution::Lognormal { .. } | Distribution::Geometric { .. } => self.quantile(0.999),
            _ => self.quantile(1.0),
        }
    }

    /// Everything that is wrong with a distribution of counts; paths are relative to it.
    pub fn check(&self) -> Problems {
        let mut c = Check::new();
        self.check_from(&mut c, "", 0.0);
        c.problems
    }

    /// What is wrong, for values from `low` up. `field` is what the user calls it (`isl`).
    pub(crate) fn check_from(&self, c: &mut Check, field: &str, low: f64) {
        let inner = |name: &str| if field.is_empty() { name.to_string() } else { format!("{field}.{name}") };
        match self {
            Distribution::Fixed { value } => {
                // A fixed length is written as a plain number, so it has no inner field.
                c.range(if field.is_empty() { "value" } else { field }, *value, low, LONG);
            }
            Distribution::Uniform { low: a, high: b } => {
                let good = c.range(&inner("low"), *a, low, LONG) & c.range(&inner("high"), *b, low, LONG);
                if good && a > b {
                    c.wrong(&inner("low"), format!("{a} is above high {b}"), "");
                }
            }
            Distribution::Lognormal { mean, p90 } => {
                // A lognormal reaches below any bound; draws are rounded up to it.
                let good = c.positive(&inner("mean"), *mean, LONG) & c.positive(&inner("p90"), *p90, LONG);
                if good && *mean < low {
                    c.wrong(&inner("mean"), format!("must be at least {low}, is {mean}"), "");
                } else if good && (*p90 < *mean || *p90 > mean * widest()) {
                    let hint = format!("from the mean to {:.2} times it: no lognormal has more", widest());
                    c.wrong(&inner("p90"), format!("{p90} does not go with mean {mean}"), hint);
                }
            }
            Distribution::Quantiles { values, at } => check_table(c, [inner("values"), inner("at")], values, at, low),
            Distribution::Geometric { mean } => {
                c.range(&inner("mean"), *mean, 1.0, LONG);
            }
        }
    }
}

fn check_table(c: &mut Check, [name, at_name]: [String; 2], values: &[f64], at: &[f64], low: f64) {
    if values.len() < 2 {
        c.wrong(&name, format!("needs at least 2 values, has {}", values.len()), "a fixed length is a number");
    }
    if let Some(i) = values.iter().position(|v| !(*v >= low && *v <= LONG)) {
        c.wrong(&name, format!("value {i} must be from {low} to {LONG:e}, is {}", values[i]), "");
    } else if let Some(i) = (1..values.len()).find(|i| values[*i] < values[i - 1]) {
        c.wrong(&name, format!("must not fall: {} after {}", values[i], values[i - 1]), "sort them");
    }
    let name = at_name;
    if at.is_empty() {
        return;
    }
    if at.len() != values.len() {
        c.wrong(&name, format!("has {} probabilities for {} values", at.len(), values.len()), "");
    } else if at.first() != Some(&0.0) || at.last() != Some(&1.0) {
        c.wrong(&name, "must start at 0 and end at 1", "");
    } else if (1..at.len()).any(|i| at[i].partial_cmp(&at[i - 1]) != Some(std::cmp::Ordering::Greater)) {
        c.wrong(&name, "must rise", "");
    }
}

/// Probability of entry `i` of a table of `n`.
fn at_of(at: &[f64], i: usize, n: usize) -> f64 {
    at.get(i).copied().unwrap_or(i as f64 / (n - 1) as f64)
}

fn table_quantile(values: &[f64], at: &[f64], q: f64) -> f64 {
    let n = values.len();
    if n < 2 {
        return values.first().copied().unwrap_or(f64::NAN);
    }
    let i = if at.len() == n {
        at.partition_point(|p| *p <= q).clamp(1, n - 1)
    } else {
        ((q * (n - 1) as f64) as usize + 1).min(n - 1)
    };
    let (a, b) = (at_of(at, i - 1, n), at_of(at, i, n));
    let share = if b > a { ((q - a) / (b - a)).clamp(0.0, 1.0) } else { 1.0 };
    values[i - 1] + (values[i] - values[i - 1]) * share
}

/// E[X^n] of a uniform draw between `a` and `b`.
fn line_moment(a: f64, b: f64, n: u32) -> f64 {
    (0..=n).map(|i| a.powi(i as i32) * b.powi((n - i) as i32)).sum::<f64>() / f64::from(n + 1)
}

/// Inverse of the standard normal CDF: Acklam's rational approximation, relative error 1.2e-9.
pub(crate) fn normal_quantile(p: f64) -> f64 {
    const A: [f64; 6] = [
        -3.969683028665376e+01,
        2.209460984245205e+02,
        -2.759285104469687e+02,
        1.38357751867269e+02,
        -3.066479806614716e+01,
        2.506628277459239e+00,
    ];
    const B: [f64; 5] = [
        -5.447609879822406e+01,
        1.615858368580409e+02,
        -1.556989798598866e+02,
        6.680131188771972e+01,
        -1.328068155288572e+01,
    ];
    const C: [f64; 6] = [
        -7.784894002430293e-03,
        -3.223964580411365e-01,
        -2.400758277161838e+00,
        -2.549732539343734e+00,
        4.374664141464968e+00,
        2.938163982698783e+00,
    ];
    const D: [f64; 4] = [7.784695709041462e-03, 3.224671290700398e-01, 2.445134137142996e+00, 3.754408661907416e+00];
    let poly = |c: &[f64], x: f64| c.iter().fold(0.0, |acc, k| acc * x + k);
    let tail = |q: f64| poly(&C, q) / (poly(&D, q) * q + 1.0);
    if p <= 0.0 {
        f64::NEG_INFINITY
    } else if p >= 1.0 {
        f64::INFINITY
    } else if p < 0.02425 {
        tail((-2.0 * p.ln()).sqrt())
    } else if p > 1.0 - 0.02425 {
        -tail((-2.0 * (-p).ln_1p()).sqrt())
    } else {
        let q = p - 0.5;
        let r = q * q;
        poly(&A, r) * q / (poly(&B, r) * r + 1.0)
    }
}
