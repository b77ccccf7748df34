//! How a latency is spread: a body of weighted values, and two waits that some have.
//!
//! A wait is 0 with odds 1 - p and exponential of mean m otherwise, as in M/M/c, whose tail is that of every queue close
//! to its limit (Kingman 1962). The tail of the sum is closed: P(Y + Z > t) of the two waits, averaged over the body.
//!
//! Limit: waits independent of the body and of one another, with exponential tails.

/// Odds of waiting, and the mean wait of those who do.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Wait {
    pub odds: f64,
    pub mean_s: f64,
}

impl Wait {
    /// Of a mean over all, those who do not wait included.
    pub(crate) fn of(odds: f64, mean_of_all_s: f64) -> Wait {
        let odds = odds.clamp(0.0, 1.0);
        if odds <= 0.0 { Wait::default() } else { Wait { odds, mean_s: mean_of_all_s / odds } }
    }

    fn mean(&self) -> f64 {
        self.odds * self.mean_s
    }

    fn above(&self, t: f64) -> f64 {
        if self.odds <= 0.0 { 0.0 } else { self.odds * (-t / self.mean_s.max(1e-12)).exp() }
    }
}

/// The law of a latency.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Spread {
    /// (seconds, weight).
    pub body: Vec<(f64, f64)>,
    /// For prefill, and for a seat.
    pub waits: [Wait; 2],
}

impl Spread {
    /// One value, no wait.
    pub(crate) fn sure(seconds: f64) -> Spread {
        Spread { body: vec![(seconds, 1.0)], waits: [Wait::default(); 2] }
    }

    pub(crate) fn shift(&mut self, seconds: f64) {
        self.body.iter_mut().for_each(|v| v.0 += seconds);
    }

    fn weight(&self) -> f64 {
        self.body.iter().map(|v| v.1).sum()
    }

    pub fn mean(&self) -> f64 {
        let body = self.body.iter().map(|v| v.0 * v.1).sum::<f64>() / self.weight();
        body + self.waits[0].mean() + self.waits[1].mean()
    }

    /// Odds that both waits together exceed `t` >= 0.
    fn waits_above(&self, t: f64) -> f64 {
        let [a, b] = self.waits;
        let alone = a.above(t) * (1.0 - b.odds) + b.above(t) * (1.0 - a.odds);
        let both = a.odds * b.odds;
        if both <= 0.0 {
            return alone;
        }
        let (x, y) = (a.mean_s.max(1e-12), b.mean_s.max(1e-12));
        let sum = if (x - y).abs() < 1e-6 * x {
            (1.0 + t / x) * (-t / x).exp()
        } else {
            (x * (-t / x).exp() - y * (-t / y).exp()) / (x - y)
        };
        alone + both * sum
    }

    /// Odds of more than `t`.
    pub(crate) fn above(&self, t: f64) -> f64 {
        let over = |v: f64| if v > t { 1.0 } else { self.waits_above(t - v) };
        self.body.iter().map(|v| v.1 * over(v.0)).sum::<f64>() / self.weight()
    }

    /// The value that `percentile` in a hundred do not exceed.
    pub(crate) fn percentile(&self, percentile: f64) -> f64 {
        let wanted = 1.0 - percentile / 100.0;
        let most = self.body.iter().map(|v| v.0).fold(0.0, f64::max);
        let tail = self.waits.iter().map(|w| w.mean_s).sum::<f64>();
        let (mut low, mut high) = (0.0, most + tail * 40.0 + 1e-9);
        for _ in 0..50 {
            let middle = 0.5 * (low + high);
            if self.above(middle) > wanted { low = middle } else { high = middle }
        }
        high
    }
}
