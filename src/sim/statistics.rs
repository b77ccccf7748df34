//! Means of correlated and skewed series with honest intervals.
//!
//! ```text
//! m_1 .. m_20   means of batches of equal length, s^2 their variance (Law, Simulation Modeling and Analysis, ch. 9)
//! f^2           (1 + r) / (1 - r): r is the correlation of neighbouring batches, its bias (1 + 3 r) / 20 put back
//!               (Tafazzoli and Wilson, IIE Transactions 43, 2011: as if batch means were of first order)
//! G(t)          ((1 + 6 b (t - b))^(1/3) - 1) / (2 b), b = skewness of m / (6 sqrt(20)): Student's t of a skewed mean
//!               (Johnson 1978; Willink, Communications in Statistics 34, 2005)
//! interval      mean - G(t) s f / sqrt(20)  to  mean - G(-t) s f / sqrt(20), 19 degrees of freedom
//! ```
//!
//! Waits of a loaded server come in bursts: their means are skewed, and an even interval ends below the truth. The half
//! width is the wider side. How often intervals cover is tested (`tests/rust/coverage.rs`). Limits: fewer than 40
//! values give none; a run that holds less than some 50 independent values misses more often than it says
//! ([`Interval::independent`]): nothing that the run has not seen can widen it.

use serde::Serialize;

pub const BATCHES: usize = 20;
/// Two-sided 95 % and 99 % points of Student's t with 19 degrees of freedom.
const T95: f64 = 2.093_024_054;
const T99: f64 = 2.860_934_606;
/// Most that neighbouring batches are taken to hang together.
const MOST_CORRELATED: f64 = 0.9;

#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Interval {
    pub mean: f64,
    /// Half widths, the wider side; none if there are too few values.
    pub half_95: Option<f64>,
    pub half_99: Option<f64>,
    /// The 95 % interval itself, wider where the series has its bursts.
    pub low_95: Option<f64>,
    pub high_95: Option<f64>,
    /// Values left out at the start, while the system filled, and at the end, while it emptied.
    pub warm_up: usize,
    pub cool_down: usize,
    pub values: usize,
    /// Independent values that would say as much about the mean.
    pub independent: Option<f64>,
}

impl Interval {
    /// The mean alone.
    pub(crate) fn bare(self) -> Interval {
        Interval { half_95: None, half_99: None, low_95: None, high_95: None, independent: None, ..self }
    }
}

/// Mean of a series in order of time.
pub fn interval(values: &[f64]) -> Interval {
    let n = values.len();
    let mean = values.iter().sum::<f64>() / n as f64;
    let mut found = Interval {
        mean,
        half_95: None,
        half_99: None,
        low_95: None,
        high_95: None,
        warm_up: 0,
        cool_down: 0,
        values: n,
        independent: None,
    };
    let size = n / BATCHES;
    if size < 2 {
        return found;
    }
    let of_batch = |c: &[f64]| c.iter().sum::<f64>() / c.len() as f64;
    let means: Vec<f64> = values[n - size * BATCHES..].chunks_exact(size).map(of_batch).collect();
    let b = BATCHES as f64;
    let centre = means.iter().sum::<f64>() / b;
    let power = |k: i32| means.iter().map(|m| (m - centre).powi(k)).sum::<f64>();
    let spread = (power(2) / (b - 1.0)).sqrt();
    if spread <= 1e-12 * centre.abs() {
        let none = Some(0.0);
        return Interval { half_95: none, half_99: none, low_95: Some(mean), high_95: Some(mean), ..found };
    }
    let together = means.windows(2).map(|w| (w[0] - centre) * (w[1] - centre)).sum::<f64>() / power(2);
    let r = (together + (1.0 + 3.0 * together) / b).clamp(0.0, MOST_CORRELATED);
    let error = spread / b.sqrt() * ((1.0 + r) / (1.0 - r)).sqrt();
    let skewness = power(3) * b / ((b - 1.0) * (b - 2.0)) / spread.powi(3);
    let skew = skewness / (6.0 * b.sqrt());
    let side = |t: f64| {
        let g = if skew.abs() < 1e-6 { t } else { ((1.0 + 6.0 * skew * (t - skew)).cbrt() - 1.0) / (2.0 * skew) };
        (g * error).abs()
    };
    let half = |t: f64| Some(side(t).max(side(-t)));
    let variance = values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n as f64;
    (found.half_95, found.half_99) = (half(T95), half(T99));
    (found.low_95, found.high_95) = (Some(mean - side(T95)), Some(mean + side(-T95)));
    found.independent = Some((variance / (error * error)).min(n as f64));
    found
}

/// The value below which a share `q` of sorted values lies, linear between neighbours.
pub fn quantile(sorted: &[f64], q: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return f64::NAN };
    let at = q.clamp(0.0, 1.0) * last as f64;
    let (low, part) = (at.floor() as usize, at.fract());
    sorted[low] + (sorted[(low + 1).min(last)] - sorted[low]) * part
}
