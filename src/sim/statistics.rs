//! Means of correlated and skewed series with honest intervals.
//!
//! ```text
//! m_1 .. m_B   means of batches of equal length, s^2 their variance (Law, Simulation Modeling and Analysis, ch. 9)
//! f^2          (1 + r) / (1 - r): r is the correlation of neighbouring batches, its bias (1 + 3 r) / B put back
//!              (Tafazzoli and Wilson, IIE Transactions 43, 2011: as if batch means were of first order)
//! e^2          square of the error of the mean: s^2 f^2 / B, in the mean of B = 10, 20 and 40
//! v, g         variance and skewness of the means of up to 400 short stretches; as good as N = v / e^2 independent ones
//! b            k g / (6 sqrt(N)): a sixth of the skewness of the mean; on the side of the bursts
//!              k = 1 + 10 (1 - N / stretches)^2, on the other k = 1
//! interval     mean - t e / (1 + b t)  to  mean + t e / (1 - b t), t of Student with 60 degrees of freedom
//! ```
//!
//! Waits of a loaded server come in bursts, and a run that saw few of them has its mean and its error too low together.
//! Near saturation a queue is a reflected Brownian motion of mean variance / (2 drift) (Harrison, Brownian Motion and
//! Stochastic Flow Systems, 1985), and what a run measures with a normal error is the drift: 1 / mean, hence the shape
//! of the interval. It **has no end** on the side of the bursts where the series holds fewer than [`FEW`] independent
//! stretches, or 1 - b t is not above 0: more than was seen may follow. 10 and [`FEW`] are such that of these motions,
//! started empty and 1 to 1,000 times variance / drift^2 long, 93 to 98 in 100 intervals cover the mean.
//!
//! How often intervals cover is tested (`tests/rust/coverage.rs`). Limits: fewer than 40 values give none; of bursts
//! that a run has not met at all no interval of it knows.

use serde::Serialize;

/// Numbers of batches.
const BATCHES: [usize; 3] = [10, 20, 40];
const FEWEST_VALUES: usize = 40;
/// Short stretches whose means say how skewed a series is.
const STRETCHES: usize = 400;
/// How much more skewed the mean of a series is that hangs together.
const BURSTS: f64 = 10.0;
/// Independent stretches below which an interval has no end on the side of the bursts.
pub const FEW: f64 = 25.0;
/// Share of the mean below which an error is not that of bursts.
const SLIGHT: f64 = 0.03;
/// Two-sided 95 % and 99 % points of Student's t with 60 degrees of freedom.
const T95: f64 = 2.000_297_822;
const T99: f64 = 2.660_283_029;
/// Most that neighbouring batches are taken to hang together.
const MOST_CORRELATED: f64 = 0.9;
/// Share of the error of a sum from which a part without an end leaves the sum without one.
const WEIGHTY: f64 = 1.0 / 3.0;

#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Interval {
    pub mean: f64,
    /// Half widths, the wider side; none if there are too few values or a side has no end.
    pub half_95: Option<f64>,
    pub half_99: Option<f64>,
    /// The 95 % interval itself, wider where the series has its bursts; none: no end on that side.
    pub low_95: Option<f64>,
    pub high_95: Option<f64>,
    /// Standard error of the mean, as far as the series shows it; none if there are too few values.
    pub error: Option<f64>,
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
        Interval { half_95: None, half_99: None, low_95: None, high_95: None, error: None, independent: None, ..self }
    }

    /// The ends of the 95 % interval, infinite where there is none; nothing where there were too few values.
    pub fn ends_95(&self) -> Option<(f64, f64)> {
        self.error.map(|_| (self.low_95.unwrap_or(f64::NEG_INFINITY), self.high_95.unwrap_or(f64::INFINITY)))
    }

    /// This mean is that of a sum with `part` in it: what the part may lack, the sum lacks. Beside larger summands the
    /// bursts of a part are hardly seen.
    pub(crate) fn with_part(self, part: &Interval) -> Interval {
        let (Some(mine), Some(its)) = (self.error, part.error) else { return self };
        let reach = |mine_end: Option<f64>, its_end: Option<f64>| match its_end {
            Some(end) => mine_end.map(|e| e.max(end)),
            None => mine_end.filter(|_| its < WEIGHTY * mine),
        };
        let up = reach(self.high_95.map(|h| h - self.mean), part.high_95.map(|h| h - part.mean));
        Interval {
            half_95: reach(self.half_95, part.half_95),
            half_99: reach(self.half_99, part.half_99),
            high_95: up.map(|u| self.mean + u),
            ..self
        }
    }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// Means of `count` stretches of equal length; what is over stands at the start and is left out.
fn stretches(values: &[f64], count: usize) -> Vec<f64> {
    let size = values.len() / count;
    values[values.len() - size * count..].chunks_exact(size).map(mean).collect()
}

/// Sum of the powers of the distances from the mean.
fn power(values: &[f64], k: i32) -> f64 {
    let centre = mean(values);
    values.iter().map(|x| (x - centre).powi(k)).sum()
}

/// Square of the error of the mean, by batches whose neighbours hang together.
fn squared_error(values: &[f64], batches: usize) -> f64 {
    let means = stretches(values, batches);
    let (centre, b, all) = (mean(&means), batches as f64, power(&means, 2));
    let together = means.windows(2).map(|w| (w[0] - centre) * (w[1] - centre)).sum::<f64>() / all;
    // Nothing hangs together where all are equal.
    let together = if all > 0.0 { together } else { 0.0 };
    let r = (together + (1.0 + 3.0 * together) / b).clamp(0.0, MOST_CORRELATED);
    all / (b - 1.0) / b * (1.0 + r) / (1.0 - r)
}

/// Mean of a series in order of time.
pub fn interval(values: &[f64]) -> Interval {
    let n = values.len();
    let found = Interval {
        mean: mean(values),
        half_95: None,
        half_99: None,
        low_95: None,
        high_95: None,
        error: None,
        warm_up: 0,
        cool_down: 0,
        values: n,
        independent: None,
    };
    if n < FEWEST_VALUES {
        return found;
    }
    let means = stretches(values, n.min(STRETCHES));
    let k = means.len() as f64;
    let variance = power(&means, 2) / k;
    if variance.sqrt() <= 1e-12 * found.mean.abs() {
        let (zero, at) = (Some(0.0), Some(found.mean));
        return Interval { half_95: zero, half_99: zero, low_95: at, high_95: at, error: zero, ..found };
    }
    // Two values a batch at least.
    let squares: Vec<f64> = BATCHES.iter().filter(|b| n / **b >= 2).map(|b| squared_error(values, *b)).collect();
    let error = mean(&squares).sqrt();
    let independent = (variance / (error * error)).min(k);
    let skew = power(&means, 3) / k / variance.powf(1.5) / (6.0 * independent.sqrt());
    let bursts = skew * (1.0 + BURSTS * (1.0 - independent / k).powi(2));
    let enough = independent >= FEW || error <= SLIGHT * found.mean.abs();
    // How far it is to the end on the side of the bursts, and on the other.
    let far = |t: f64| (enough && bursts.abs() * t < 1.0).then(|| t * error / (1.0 - bursts.abs() * t));
    let near = |t: f64| t * error / (1.0 + skew.abs() * t);
    let half = |t: f64| far(t).map(|f| f.max(near(t)));
    let (below, above) = if skew < 0.0 { (far(T95), Some(near(T95))) } else { (Some(near(T95)), far(T95)) };
    Interval {
        half_95: half(T95),
        half_99: half(T99),
        low_95: below.map(|x| found.mean - x),
        high_95: above.map(|x| found.mean + x),
        error: Some(error),
        independent: Some((power(values, 2) / n as f64 / (error * error)).min(n as f64)),
        ..found
    }
}

/// The value below which a share `q` of sorted values lies, linear between neighbours.
pub fn quantile(sorted: &[f64], q: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return f64::NAN };
    let at = q.clamp(0.0, 1.0) * last as f64;
    let (low, part) = (at.floor() as usize, at.fract());
    sorted[low] + (sorted[(low + 1).min(last)] - sorted[low]) * part
}
