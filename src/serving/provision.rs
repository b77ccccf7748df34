//! How many attention instances one FFN instance can feed: closed forms of arXiv 2601.21351.
//!
//! r attention instances of B sequences share one FFN instance; per layer and in one unit of time
//!
//! ```text
//! t_A = alpha_A T + beta_A        T: KV tokens resident in an instance
//! t_F = alpha_F r B + beta_F      t_C = alpha_C B + beta_C
//! throughput per instance = r B / ((r + 1) max(t_A, t_F, t_C))
//! r* = max{ (t_A - beta_F)/(alpha_F B), (t_C - beta_F)/(alpha_F B), sqrt(beta_F/(alpha_F B)) }
//! ```
//!
//! Prompts have mean mu_P and answers are geometric with mean mu_D, p = 1/(mu_D + 1): in the long
//! run T = B (mu_P + mu_D). Over a finite horizon of N requests an instance, K = N/(B p) steps,
//! T = B [mu_P + mu_D (1 - (1-(1-p)^K)/(p K))]: contexts start short.
//!
//! Barrier: the r instances wait for the slowest. With Y the stationary KV of a slot,
//! sigma = alpha_A sqrt(B Var Y) and `E[tau]` = c + sigma int_z^inf (1 - Phi(x)^r) dx,
//! c = max(t_F, t_C), z = (c - t_A)/sigma; r* is then found by search. Var Y = (1-p)/p^2 (age of a
//! geometric answer; prompts of one length). Limits: one FFN instance, equal instances, one layer.

use crate::error::{Problems, Result};
use crate::math::normal;

/// Linear stage times and the load.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stations {
    /// Per resident KV token, and fixed.
    pub alpha_a: f64,
    pub beta_a: f64,
    /// Per sequence of all instances, and fixed.
    pub alpha_f: f64,
    pub beta_f: f64,
    /// Per sequence of one instance, and fixed.
    pub alpha_c: f64,
    pub beta_c: f64,
    /// Sequences per attention instance.
    pub batch: f64,
    /// Mean prompt and mean answer, tokens.
    pub mu_p: f64,
    pub mu_d: f64,
    /// Requests per instance of a finite horizon; none: the long run.
    pub requests: Option<f64>,
    /// Whether instances wait for the slowest.
    pub barrier: bool,
}

/// The best ratio.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Provision {
    /// Attention instances per FFN instance.
    pub ratio: f64,
    /// Tokens per unit of time and instance (attention and FFN counted alike).
    pub throughput: f64,
    /// `attention`, `communication` or `ffn`: what sets the pace at the best ratio.
    pub bottleneck: &'static str,
}

impl Stations {
    fn check(&self) -> Result<()> {
        let mut p = Problems::new();
        let mut need = |name: &str, value: f64, low: f64, open: bool| {
            if !(value.is_finite() && (value > low || (!open && value == low))) {
                let word = if open { "above" } else { "at least" };
                p.push(name, format!("must be {word} {low}, is {value}"), "");
            }
        };
        for (name, value) in [("alpha_a", self.alpha_a), ("beta_a", self.beta_a), ("beta_f", self.beta_f)] {
            need(name, value, 0.0, false);
        }
        need("alpha_f", self.alpha_f, 0.0, true);
        need("alpha_c", self.alpha_c, 0.0, false);
        need("beta_c", self.beta_c, 0.0, false);
        need("batch", self.batch, 0.0, true);
        need("mu_p", self.mu_p, 0.0, false);
        need("mu_d", self.mu_d, 0.0, false);
        if let Some(n) = self.requests {
            need("requests", n, 0.0, true);
        }
        p.into_result()
    }

    /// KV tokens of an instance.
    pub(crate) fn tokens(&self) -> f64 {
        let p = 1.0 / (self.mu_d + 1.0);
        let grown = self.requests.map_or(1.0, |n| {
            let k = n / (self.batch * p);
            // 1 - (1-p)^K, which for small p K loses its digits in the plain form.
            let done = -(k * (-p).ln_1p()).exp_m1();
            1.0 - done / (p * k)
        });
        self.batch * (self.mu_p + self.mu_d * grown)
    }

    fn times(&self, r: f64) -> (f64, f64, f64) {
        (
            self.alpha_a * self.tokens() + self.beta_a,
            self.alpha_c * self.batch + self.beta_c,
            self.alpha_f * r * self.batch + self.beta_f,
        )
    }

    /// Expected time of one pass at ratio `r`.
    pub fn pace(&self, r: f64) -> f64 {
        let (a, c, f) = self.times(r);
        if !self.barrier {
            return a.max(c).max(f);
        }
        let p = 1.0 / (self.mu_d + 1.0);
        let sigma = self.alpha_a * (self.batch * (1.0 - p)).sqrt() / p;
        let other = c.max(f);
        if sigma <= 0.0 { a.max(other) } else { other + sigma * normal::excess((other - a) / sigma, r) }
    }

    /// Tokens per unit of time and instance at ratio `r`.
    pub fn throughput(&self, r: f64) -> f64 {
        r * self.batch / ((r + 1.0) * self.pace(r))
    }

    /// The ratio of the highest throughput.
    pub fn best(&self) -> Result<Provision> {
        self.check()?;
        let (a, c, _) = self.times(1.0);
        let per_ratio = self.alpha_f * self.batch;
        let balance = |t: f64| (t - self.beta_f) / per_ratio;
        let mut ratio = balance(a).max(balance(c)).max((self.beta_f / per_ratio).sqrt());
        if self.barrier {
            // One peak: rising while attention or the wire sets the pace, falling once experts do.
            ratio = peak(|log_r| self.throughput(log_r.exp()), 1e-3_f64.ln(), (1e3 * ratio.max(1.0)).ln()).exp();
        }
        let f = self.times(ratio).2;
        let bottleneck = if a >= c && a >= f * (1.0 - 1e-12) {
            "attention"
        } else if c >= f * (1.0 - 1e-12) {
            "communication"
        } else {
            "ffn"
        };
        Ok(Provision { ratio, throughput: self.throughput(ratio), bottleneck })
    }
}

/// Where a function of one peak has it, by golden sections.
fn peak(f: impl Fn(f64) -> f64, low: f64, high: f64) -> f64 {
    let golden = (5.0_f64.sqrt() - 1.0) / 2.0;
    let (mut a, mut b) = (low, high);
    let (mut x, mut y) = (b - golden * (b - a), a + golden * (b - a));
    let (mut fx, mut fy) = (f(x), f(y));
    while b - a > 1e-7 {
        if fx < fy {
            a = x;
            (x, fx) = (y, fy);
            y = a + golden * (b - a);
            fy = f(y);
        } else {
            b = y;
            (y, fy) = (x, fx);
            x = b - golden * (b - a);
            fx = f(x);
        }
    }
    0.5 * (a + b)
}
