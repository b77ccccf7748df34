//! Utilisation held where no row is: what another planner does beyond the rows of a table.
//!
//! The time at a point is the work there over a utilisation, T(x) = W(x) / u(x), W the longer of arithmetic and
//! traffic at the data sheet's rates. u is taken from the four nearest rows in the logarithms of all axes, the
//! shape (a number of heads) being one of them, with weights w = ((R - d) / (R d))^2, R the distance of the fifth:
//! a row comes into the choice with no weight, so the time is continuous. Source: aiconfigurator 0.12 (Apache-2.0),
//! its perf_interp_design.md and perf_database/perf_interp.rs. Limits: it asks so at every point, here the
//! nodes of the grid that no row reaches are filled so and the grid interpolates between them; rows near an eager
//! launch floor count as they were measured.

use super::points::Points;
use crate::kernels::roofline::Work;

/// Rows that take part.
const NEAREST: usize = 4;

struct HeldRow {
    /// Logarithms to base 2 of the shape and the axes.
    at: [f64; 4],
    utilisation: f64,
}

/// The rows of a kernel at all measured shapes, seen from one of them.
pub(crate) struct Held {
    rows: Vec<HeldRow>,
    shape: f64,
    work: Work,
    /// Added to each axis: what the coordinates leave out (the new token of a decode step).
    shift: [f64; 3],
}

/// Seconds of the longer of arithmetic and traffic.
fn least(work: &Work, x: &[f64; 3]) -> f64 {
    let (math, memory) = work.times(x);
    math.max(memory)
}

fn log(x: f64) -> f64 {
    x.max(1e-12).log2()
}

impl Held {
    /// `sites`: shape and points of every measured shape; `work`: that of a shape; `shape`: the one asked for.
    pub(crate) fn new(
        sites: impl Iterator<Item = (f64, Points)>,
        work: impl Fn(f64) -> Work,
        shape: f64,
        shift: [f64; 3],
    ) -> Held {
        let mut rows = Vec::new();
        for (s, points) in sites {
            let own = work(s);
            for (x, seconds, _) in points.iter() {
                let x = [0, 1, 2].map(|a| x[a] + shift[a]);
                let utilisation = least(&own, &x) / seconds;
                if utilisation > 0.0 && utilisation.is_finite() {
                    rows.push(HeldRow { at: [log(s), log(x[0]), log(x[1]), log(x[2])], utilisation });
                }
            }
        }
        Held { rows, shape: log(shape), work: work(shape), shift }
    }

    /// Time at a point of the asked shape; `None` without rows.
    pub(crate) fn seconds(&self, x: &[f64; 3]) -> Option<f64> {
        let x = [0, 1, 2].map(|a| x[a] + self.shift[a]);
        let at = [self.shape, log(x[0]), log(x[1]), log(x[2])];
        let mut near: Vec<(f64, f64)> = self
            .rows
            .iter()
            .map(|r| (r.at.iter().zip(at).map(|(a, b)| (a - b) * (a - b)).sum::<f64>().sqrt(), r.utilisation))
            .collect();
        near.sort_by(|a, b| a.0.total_cmp(&b.0));
        let support = near.get(NEAREST).map(|n| n.0);
        let weight = |d: f64| match support {
            Some(r) => (((r - d) / (r * d + 1e-12)).max(0.0)).powi(2),
            None => 1.0 / (d * d + 1e-12),
        };
        near.truncate(NEAREST);
        let (mut sum, mut weights) = (0.0, 0.0);
        for &(d, utilisation) in &near {
            sum += weight(d) * utilisation;
            weights += weight(d);
        }
        if weights <= 0.0 {
            // All as far away as the fifth.
            (sum, weights) = (near.iter().map(|n| n.1).sum(), near.len() as f64);
        }
        (sum > 0.0).then(|| least(&self.work, &x) * weights / sum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::evidence::Evidence;

    fn linear(shape: f64) -> Work {
        Work::Linear { math: 0.0, memory0: 2e-6, memory: 1e-8 * shape }
    }

    fn points(utilisation: impl Fn(f64) -> f64, shape: f64, n: u32) -> Points {
        let mut p = Points::default();
        for i in 0..n {
            let x = [f64::from(1 << i), 0.0, 0.0];
            p.insert(x, least(&linear(shape), &x) / utilisation(x[0]), Evidence::Measured);
        }
        p
    }

    #[test]
    fn one_utilisation_everywhere_is_held_at_every_shape_and_size() {
        let sites = [8.0, 32.0].map(|s| (s, points(|_| 0.4, s, 8)));
        let held = Held::new(sites.into_iter(), linear, 16.0, [0.0; 3]);
        for x in [1.0, 77.0, 1e5] {
            let x = [x, 0.0, 0.0];
            assert!((held.seconds(&x).unwrap_or(f64::NAN) * 0.4 / least(&linear(16.0), &x) - 1.0).abs() < 1e-12);
        }
    }

    /// Rows come and go without a jump, a row is met at its own place, and the answer lies among the rows'.
    #[test]
    fn utilisation_is_continuous_and_bounded() {
        let u = |x: f64| 0.2 + 0.05 * x.log2();
        let held = Held::new([(8.0, points(u, 8.0, 8))].into_iter(), linear, 8.0, [0.0; 3]);
        let at = |x: f64| least(&linear(8.0), &[x, 0.0, 0.0]) / held.seconds(&[x, 0.0, 0.0]).unwrap_or(f64::NAN);
        let mut before = at(1.0);
        for i in 1..=24_000 {
            let now = at((f64::from(i) * 5e-4).exp2());
            assert!((now - before).abs() < 1e-3 && (0.2..=0.5501).contains(&now), "{i}: {before} {now}");
            before = now;
        }
        assert!((at(32.0) - u(32.0)).abs() < 1e-6 && at(4096.0) > u(32.0));
        assert!(Held::new(std::iter::empty(), linear, 8.0, [0.0; 3]).seconds(&[1.0; 3]).is_none());
    }
}
