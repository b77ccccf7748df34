//! Means of correlated series with honest intervals.
//!
//! Warm-up by MSER-5 (White, Simulation 1997): cut where the standard error of what stays is least,
//! at most half. Interval by batch means (Law, Simulation Modeling and Analysis, ch. 9): twenty
//! batches, Student's t with 19 degrees of freedom. Limit: fewer than 40 values give no interval.

use serde::Serialize;

pub const BATCHES: usize = 20;
/// Two-sided 95 % and 99 % points of Student's t with 19 degrees of freedom.
const T95: f64 = 2.093_024_054;
const T99: f64 = 2.860_934_606;

#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Interval {
    pub mean: f64,
    /// Half widths; none if there are too few values.
    pub half_95: Option<f64>,
    pub half_99: Option<f64>,
    /// Values left out at the start.
    pub warm_up: usize,
    pub values: usize,
}

/// Values to leave out at the start, by MSER-5.
pub fn warm_up(values: &[f64]) -> usize {
    let fives: Vec<f64> = values.chunks_exact(5).map(|c| c.iter().sum::<f64>() / 5.0).collect();
    let n = fives.len();
    if n < 10 {
        return 0;
    }
    let shift = fives.iter().sum::<f64>() / n as f64;
    let (mut sum, mut square, mut best) = (0.0, 0.0, (f64::INFINITY, 0));
    for d in (0..n).rev() {
        let x = fives[d] - shift;
        sum += x;
        square += x * x;
        let k = (n - d) as f64;
        let spread = (square - sum * sum / k).max(0.0) / (k * k);
        // On ties the earliest cut, which keeps the most.
        if d <= n / 2 && spread <= best.0 {
            best = (spread, d);
        }
    }
    best.1 * 5
}

/// Mean of a series in order of time, after its warm-up (if `cut`).
pub fn interval(values: &[f64], cut: bool) -> Interval {
    let start = if cut { warm_up(values) } else { 0 };
    let kept = &values[start..];
    let mean = kept.iter().sum::<f64>() / kept.len() as f64;
    let size = kept.len() / BATCHES;
    if size < 2 {
        return Interval { mean, half_95: None, half_99: None, warm_up: start, values: kept.len() };
    }
    let of_batch = |c: &[f64]| c.iter().sum::<f64>() / c.len() as f64;
    let means: Vec<f64> = kept[kept.len() - size * BATCHES..].chunks_exact(size).map(of_batch).collect();
    let centre = means.iter().sum::<f64>() / BATCHES as f64;
    let variance = means.iter().map(|m| (m - centre).powi(2)).sum::<f64>() / (BATCHES - 1) as f64;
    let error = (variance / BATCHES as f64).sqrt();
    Interval { mean, half_95: Some(T95 * error), half_99: Some(T99 * error), warm_up: start, values: kept.len() }
}

/// The value below which a share `q` of sorted values lies, linear between neighbours.
pub fn quantile(sorted: &[f64], q: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return f64::NAN };
    let at = q.clamp(0.0, 1.0) * last as f64;
    let (low, part) = (at.floor() as usize, at.fract());
    sorted[low] + (sorted[(low + 1).min(last)] - sorted[low]) * part
}
