//! Least soft-L1 of log errors by a damped Gauss-Newton method inside bounds.
//!
//! Minimises `sum 2 s^2 (sqrt(1 + (r/s)^2) - 1)`, r = ln model - ln measured: squares below 10 % of error,
//! absolute values above, so that a stray row counts little and a launch-bound row as much as a
//! bandwidth-bound one. Source of the loss: network.md 4.6. Limit: finds a local minimum; the
//! caller tries several starts.

/// Where the loss turns from squares to absolute values.
const SCALE: f64 = 0.1;
const STEP: f64 = 1e-6;
const ROUNDS: usize = 300;

/// Range of one parameter. Logarithmic ones are positive; linear ones move in multiples of `unit`.
#[derive(Clone, Copy, Debug)]
pub enum Range {
    Log { least: f64, most: f64 },
    Linear { most: f64, unit: f64 },
}

impl Range {
    fn inward(self, x: f64) -> f64 {
        match self {
            Range::Log { least, most } => x.clamp(least, most).ln(),
            Range::Linear { most, unit } => x.clamp(0.0, most) / unit,
        }
    }

    fn outward(self, u: f64) -> f64 {
        match self {
            Range::Log { least, most } => u.exp().clamp(least, most),
            Range::Linear { most, unit } => (u * unit).clamp(0.0, most),
        }
    }

    fn bounds(self) -> (f64, f64) {
        match self {
            Range::Log { least, most } => (least.ln(), most.ln()),
            Range::Linear { most, unit } => (0.0, most / unit),
        }
    }
}

/// Parameters and what they cost.
#[derive(Clone, Debug)]
pub struct Found {
    pub parameters: Vec<f64>,
    pub cost: f64,
}

struct Problem<'a, M> {
    ranges: &'a [Range],
    model: M,
    /// Logarithms of what was measured.
    measured: &'a [f64],
}

impl<M: Fn(&[f64], &mut [f64])> Problem<'_, M> {
    fn residuals(&self, u: &[f64], out: &mut [f64]) {
        let x: Vec<f64> = u.iter().zip(self.ranges).map(|(u, r)| r.outward(*u)).collect();
        (self.model)(&x, out);
        for (r, t) in out.iter_mut().zip(self.measured) {
            *r = r.ln() - t;
        }
    }
}

fn cost(residuals: &[f64]) -> f64 {
    residuals.iter().map(|r| 2.0 * SCALE * SCALE * ((r / SCALE).hypot(1.0) - 1.0)).sum()
}

/// From one start; `model` writes seconds for every row.
pub(crate) fn minimise(ranges: &[Range], start: &[f64], measured: &[f64], model: impl Fn(&[f64], &mut [f64])) -> Found {
    let problem = Problem { ranges, model, measured };
    let (n, rows) = (ranges.len(), measured.len());
    let mut u: Vec<f64> = start.iter().zip(ranges).map(|(x, r)| r.inward(*x)).collect();
    let mut r = vec![0.0; rows];
    problem.residuals(&u, &mut r);
    let (mut least, mut damping) = (cost(&r), 1e-3);
    let mut jacobian = vec![vec![0.0; rows]; n];
    let mut tried = vec![0.0; rows];
    for _ in 0..ROUNDS {
        for (i, column) in jacobian.iter_mut().enumerate() {
            let h = if u[i] + STEP > ranges[i].bounds().1 { -STEP } else { STEP };
            let kept = u[i];
            u[i] += h;
            problem.residuals(&u, column);
            u[i] = kept;
            for (d, r) in column.iter_mut().zip(&r) {
                *d = (*d - r) / h;
            }
        }
        let weights: Vec<f64> = r.iter().map(|r| 1.0 / (r / SCALE).hypot(1.0)).collect();
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).zip(&weights).map(|((a, b), w)| a * b * w).sum::<f64>();
        let gradient: Vec<f64> = jacobian.iter().map(|j| dot(j, &r)).collect();
        // A parameter on its bound that wants to leave the range stays.
        let free: Vec<usize> = (0..n)
            .filter(|&i| {
                let (lo, hi) = ranges[i].bounds();
                !(u[i] <= lo && gradient[i] > 0.0 || u[i] >= hi && gradient[i] < 0.0)
            })
            .collect();
        let normal: Vec<Vec<f64>> =
            free.iter().map(|&i| free.iter().map(|&j| dot(&jacobian[i], &jacobian[j])).collect()).collect();
        let mut moved = false;
        while damping < 1e8 {
            let mut a = normal.clone();
            for (k, row) in a.iter_mut().enumerate() {
                row[k] += damping * row[k] + 1e-9;
            }
            let step = solve(a, free.iter().map(|&i| -gradient[i]).collect());
            let mut next = u.clone();
            for (k, &i) in free.iter().enumerate() {
                let (lo, hi) = ranges[i].bounds();
                next[i] = (u[i] + step[k].clamp(-2.0, 2.0)).clamp(lo, hi);
            }
            problem.residuals(&next, &mut tried);
            let c = cost(&tried);
            if c < least {
                moved = least - c > 1e-10 * least;
                (u, least) = (next, c);
                std::mem::swap(&mut r, &mut tried);
                damping = (damping / 5.0).max(1e-9);
                break;
            }
            damping *= 4.0;
        }
        if !moved {
            break;
        }
    }
    Found { parameters: u.iter().zip(ranges).map(|(u, r)| r.outward(*u)).collect(), cost: least }
}

/// Gaussian elimination with the largest pivot; a singular direction is left alone.
fn solve(mut a: Vec<Vec<f64>>, mut b: Vec<f64>) -> Vec<f64> {
    let n = b.len();
    for k in 0..n {
        let pivot = (k..n).max_by(|&i, &j| a[i][k].abs().total_cmp(&a[j][k].abs())).unwrap_or(k);
        a.swap(k, pivot);
        b.swap(k, pivot);
        if a[k][k].abs() < f64::MIN_POSITIVE {
            continue;
        }
        for i in k + 1..n {
            let factor = a[i][k] / a[k][k];
            let (above, below) = a.split_at_mut(i);
            for (x, y) in below[0][k..].iter_mut().zip(&above[k][k..]) {
                *x -= factor * y;
            }
            b[i] -= factor * b[k];
        }
    }
    for k in (0..n).rev() {
        let known: f64 = (k + 1..n).map(|j| a[k][j] * b[j]).sum();
        b[k] = if a[k][k].abs() < f64::MIN_POSITIVE { 0.0 } else { (b[k] - known) / a[k][k] };
    }
    b
}

/// The best of several starts; the first of equals.
pub(crate) fn best(found: impl IntoIterator<Item = Found>) -> Option<Found> {
    found.into_iter().filter(|f| f.cost.is_finite()).reduce(|a, b| if b.cost < a.cost { b } else { a })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn finds_a_line_through_one_bad_row_and_stops_at_a_bound() {
        let x: Vec<f64> = (0..14).map(|i| 2f64.powi(i)).collect();
        let mut t: Vec<f64> = x.iter().map(|x| (12e-6 + x / 5e6).ln()).collect();
        let ranges = [Range::Log { least: 1e-7, most: 1e-3 }, Range::Log { least: 1e5, most: 1e9 }];
        let model = |p: &[f64], out: &mut [f64]| {
            for (o, x) in out.iter_mut().zip(&x) {
                *o = p[0] + x / p[1];
            }
        };
        let clean = minimise(&ranges, &[1e-6, 1e8], &t, model).parameters;
        assert!((clean[0] / 12e-6 - 1.0).abs() < 1e-5 && (clean[1] / 5e6 - 1.0).abs() < 1e-5, "{clean:?}");
        t[5] += 4f64.ln();
        let robust = minimise(&ranges, &[1e-6, 1e8], &t, model).parameters;
        assert!((robust[0] / 12e-6 - 1.0).abs() < 0.05 && (robust[1] / 5e6 - 1.0).abs() < 0.05, "{robust:?}");
        let tight = [Range::Log { least: 1e-7, most: 6e-6 }, ranges[1]];
        assert!((minimise(&tight, &[1e-6, 1e8], &t, model).parameters[0] / 6e-6 - 1.0).abs() < 1e-12);
    }

    #[test]
    fn solves() {
        let x = solve(vec![vec![0.0, 2.0], vec![3.0, 1.0]], vec![4.0, 5.0]);
        assert!((x[0] - 1.0).abs() < 1e-12 && (x[1] - 2.0).abs() < 1e-12);
    }
}
