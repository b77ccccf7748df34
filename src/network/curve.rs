//! A measured curve `size -> seconds`, and lanes that reach sizes of groups nobody measured.
//!
//! Between points: linear in the logs of both. Below the first point: that point (a launch). Above
//! the last: its time plus the marginal cost of the last two octaves. Rows that cost more than a
//! larger message are launch jitter and are lowered to it, so that a curve never falls; those
//! points no longer count as measured.
//!
//! Limit: one size and one number of ranks; a change of protocol between two points is read as a line in the logs.

use crate::kernels::Evidence;

/// Seconds and how well they are known.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CommTime {
    pub seconds: f64,
    pub evidence: Evidence,
}

impl CommTime {
    pub const ZERO: CommTime = CommTime { seconds: 0.0, evidence: Evidence::Measured };

    /// One after the other: times add, the worse evidence stays.
    pub(crate) fn then(self, next: CommTime) -> CommTime {
        CommTime { seconds: self.seconds + next.seconds, evidence: self.evidence.max(next.evidence) }
    }

    /// The faster of two ways.
    pub(crate) fn or(self, other: CommTime) -> CommTime {
        if other.seconds < self.seconds { other } else { self }
    }

    /// At most as well known as `floor`.
    pub(crate) fn at_best(self, floor: Evidence) -> CommTime {
        CommTime { evidence: self.evidence.max(floor), ..self }
    }
}

#[derive(Clone, Copy, Debug)]
struct Knot {
    x: f64,
    t: f64,
    ln_x: f64,
    ln_t: f64,
    /// The row itself, not lowered.
    verbatim: bool,
}

/// Time over size; never falling, positive.
#[derive(Clone, Debug)]
pub struct Curve {
    knots: Box<[Knot]>,
    /// Seconds per unit beyond the last point.
    slope: f64,
    /// The best this curve may claim (a borrowed or invented curve is never measured).
    floor: Evidence,
}

impl Curve {
    /// From rows of (size, seconds) in any order; several rows of one size: the fastest way counts.
    pub(crate) fn new(rows: &[(f64, f64)], floor: Evidence) -> Option<Curve> {
        let mut rows: Vec<(f64, f64)> =
            rows.iter().copied().filter(|(x, t)| *x > 0.0 && *t > 0.0 && t.is_finite()).collect();
        rows.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
        rows.dedup_by(|next, first| next.0 == first.0);
        let mut knots: Vec<Knot> = Vec::with_capacity(rows.len());
        let mut least = f64::INFINITY;
        for &(x, t) in rows.iter().rev() {
            least = least.min(t);
            knots.push(Knot { x, t: least, ln_x: x.ln(), ln_t: least.ln(), verbatim: t <= least });
        }
        knots.reverse();
        let last = *knots.last()?;
        let from = knots.iter().find(|k| k.x >= 0.25 * last.x && k.x < last.x);
        // A flat end still moves bytes: at least a tenth of the mean cost per unit.
        let mean = 0.1 * last.t / last.x;
        let slope = from.map_or(last.t / last.x, |k| ((last.t - k.t) / (last.x - k.x)).max(mean));
        Some(Curve { knots: knots.into(), slope, floor })
    }

    /// The same curve, at most as well known as `floor`.
    pub(crate) fn at_best(self, floor: Evidence) -> Curve {
        Curve { floor: self.floor.max(floor), ..self }
    }

    /// `alpha + x / rate` where there is no table: a roofline.
    pub(crate) fn line(alpha: f64, rate: f64, from: f64, to: f64) -> Option<Curve> {
        let points: Vec<(f64, f64)> = std::iter::successors(Some(from), |x| (*x < to).then_some(x * 2.0))
            .map(|x| (x, alpha + x / rate))
            .collect();
        Curve::new(&points, Evidence::Roofline)
    }

    pub(crate) fn at(&self, x: f64) -> CommTime {
        let i = self.knots.partition_point(|k| k.x < x * (1.0 - 1e-9));
        let (seconds, evidence) = match (i.checked_sub(1).map(|j| &self.knots[j]), self.knots.get(i)) {
            (_, Some(k)) if (k.x - x).abs() <= 1e-9 * x => {
                (k.t, if k.verbatim { Evidence::Measured } else { Evidence::Interpolated })
            }
            // Two octaves below the first point is still that launch.
            (None, Some(first)) => {
                (first.t, if x >= 0.25 * first.x { Evidence::Interpolated } else { Evidence::Extrapolated })
            }
            (Some(a), Some(b)) => {
                let w = (x.ln() - a.ln_x) / (b.ln_x - a.ln_x);
                ((a.ln_t + w * (b.ln_t - a.ln_t)).exp().clamp(a.t, b.t), Evidence::Interpolated)
            }
            (Some(last), None) => (last.t + self.slope * (x - last.x), Evidence::Extrapolated),
            (None, None) => (f64::INFINITY, Evidence::Roofline),
        };
        CommTime { seconds, evidence: evidence.max(self.floor) }
    }
}

/// How a group of n ranks is priced from the groups that were measured: between two of them
/// (geometric mean, weight by log n), or from one with its bytes stretched and its alpha shifted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CurveLane {
    pub lo: usize,
    pub hi: usize,
    /// Weight of `hi`.
    pub w: f64,
    /// Bytes of this group per byte of the measured one.
    pub stretch: f64,
    /// Alpha of this group less that of the measured one, seconds.
    pub shift: f64,
    pub evidence: Evidence,
}

impl CurveLane {
    /// Places `n` among rising `measured` ranks; stretch and shift are left neutral.
    pub(crate) fn place(measured: &[u32], n: u32) -> CurveLane {
        let one = |i, evidence| CurveLane { lo: i, hi: i, w: 0.0, stretch: 1.0, shift: 0.0, evidence };
        let i = measured.partition_point(|m| *m < n);
        match (i.checked_sub(1), measured.get(i)) {
            (_, Some(m)) if *m == n => one(i, Evidence::Measured),
            (None, _) => one(0, Evidence::Extrapolated),
            (Some(j), None) => one(j, Evidence::Extrapolated),
            (Some(j), Some(above)) => {
                let (below, above, n) = (f64::from(measured[j]), f64::from(*above), f64::from(n));
                CurveLane { w: (n / below).ln() / (above / below).ln(), hi: i, ..one(j, Evidence::Interpolated) }
            }
        }
    }

    /// Time of this lane, given how the measured group `i` prices a size multiplied by `stretch`.
    pub(crate) fn eval(&self, at: impl Fn(usize, f64) -> CommTime) -> CommTime {
        let lo = at(self.lo, self.stretch);
        let t = if self.hi == self.lo {
            lo
        } else {
            let hi = at(self.hi, self.stretch);
            CommTime {
                seconds: lo.seconds * ((hi.seconds / lo.seconds).ln() * self.w).exp(),
                evidence: lo.evidence.max(hi.evidence),
            }
        };
        CommTime { seconds: t.seconds + self.shift, evidence: t.evidence.max(self.evidence) }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn curve_keeps_points_and_never_falls() {
        let c = Curve::new(&[(4.0, 3.0), (1.0, 2.0), (2.0, 9.0), (8.0, 5.0)], Evidence::Measured).unwrap();
        assert_eq!(c.at(4.0), CommTime { seconds: 3.0, evidence: Evidence::Measured });
        assert_eq!(c.at(2.0), CommTime { seconds: 3.0, evidence: Evidence::Interpolated });
        assert_eq!(c.at(0.1).seconds, 2.0);
        assert_eq!(c.at(16.0), CommTime { seconds: 5.0 + 8.0 / 3.0, evidence: Evidence::Extrapolated });
        let mut last = 0.0;
        for i in 0..400 {
            let t = c.at(0.05 * f64::from(i)).seconds;
            assert!(t >= last);
            last = t;
        }
    }

    #[test]
    fn lanes() {
        assert_eq!(CurveLane::place(&[2, 4, 8], 4).evidence, Evidence::Measured);
        let six = CurveLane::place(&[2, 4, 8], 6);
        assert_eq!((six.lo, six.hi), (1, 2));
        assert_eq!(CurveLane::place(&[2, 4, 8], 72).lo, 2);
        let t = six.eval(|i, _| CommTime { seconds: [1.0, 2.0, 4.0][i], evidence: Evidence::Measured });
        assert!((t.seconds - 3.0).abs() < 1e-12, "powers of two in n and t meet at 3: {t:?}");
    }
}
