//! Small robust fits that carry a measured curve beyond where it was measured.
//!
//! `t = alpha + x / rate`, least soft-L1 of the log residuals (so that a launch-bound and a
//! bandwidth-bound point count the same and a stray row counts little); alpha over ranks is a
//! straight line with the median of all pairwise slopes (Theil-Sen), never falling.
//! Source of the form and of the loss: reference/network.md 4.6.
//! Limit: one line per curve; the protocol switches inside a curve stay with its own points.

/// `seconds = alpha + x / rate`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Line {
    pub alpha: f64,
    pub rate: f64,
}

/// Fits `points` of (x, seconds), all positive; none for fewer than three.
pub fn line(points: &[(f64, f64)]) -> Option<Line> {
    if points.len() < 3 || points.iter().any(|(x, t)| *x <= 0.0 || *t <= 0.0) {
        return None;
    }
    let least = points.iter().map(|p| p.1).fold(f64::INFINITY, f64::min);
    let &(x_end, t_end) = points.iter().max_by(|a, b| a.0.total_cmp(&b.0))?;
    // Unknowns in logs keep both positive; the tail gives the first guess of the rate.
    let (mut a, mut b) = (least.ln(), ((t_end - least).max(0.05 * t_end) / x_end).ln());
    for _ in 0..60 {
        let (alpha, beta) = (a.exp(), b.exp());
        let (mut aa, mut ab, mut bb, mut ra, mut rb) = (0.0, 0.0, 0.0, 0.0, 0.0);
        for &(x, t) in points {
            let model = alpha + beta * x;
            let r = model.ln() - t.ln();
            // Soft-L1 with scale 0.1: weight 1 below 10 % residual, falling as 1/|r| above.
            let w = 1.0 / (1.0 + (r / 0.1).powi(2)).sqrt();
            let (ja, jb) = (alpha / model, beta * x / model);
            aa += w * ja * ja;
            ab += w * ja * jb;
            bb += w * jb * jb;
            ra += w * ja * r;
            rb += w * jb * r;
        }
        let damp = 1e-9 * (aa + bb);
        let (aa, bb) = (aa + damp, bb + damp);
        let det = aa * bb - ab * ab;
        let (da, db) = ((bb * ra - ab * rb) / det, (aa * rb - ab * ra) / det);
        if !da.is_finite() || !db.is_finite() {
            break;
        }
        a -= da.clamp(-1.0, 1.0);
        b -= db.clamp(-1.0, 1.0);
        if da.abs().max(db.abs()) < 1e-10 {
            break;
        }
    }
    let fit = Line { alpha: a.exp(), rate: (-b).exp() };
    (fit.alpha.is_finite() && fit.rate.is_finite() && fit.alpha > 0.0).then_some(fit)
}

/// Slope of y over x that most pairs agree on, not below zero; 0 for fewer than two points.
pub fn rising_slope(points: &[(f64, f64)]) -> f64 {
    let mut slopes: Vec<f64> = Vec::new();
    for (i, p) in points.iter().enumerate() {
        slopes.extend(points[i + 1..].iter().filter(|q| q.0 != p.0).map(|q| (q.1 - p.1) / (q.0 - p.0)));
    }
    slopes.sort_by(f64::total_cmp);
    let n = slopes.len();
    if n == 0 {
        return 0.0;
    }
    (0.5 * (slopes[(n - 1) / 2] + slopes[n / 2])).max(0.0)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn finds_a_line_through_one_bad_point() {
        let mut points: Vec<(f64, f64)> = (0..14).map(|i| 2f64.powi(i)).map(|x| (x, 12e-6 + x / 5e6)).collect();
        let clean = line(&points).unwrap();
        assert!((clean.alpha / 12e-6 - 1.0).abs() < 1e-6 && (clean.rate / 5e6 - 1.0).abs() < 1e-6, "{clean:?}");
        points[5].1 *= 4.0;
        let robust = line(&points).unwrap();
        assert!((robust.alpha / 12e-6 - 1.0).abs() < 0.05 && (robust.rate / 5e6 - 1.0).abs() < 0.05, "{robust:?}");
    }

    #[test]
    fn slopes() {
        assert_eq!(rising_slope(&[(1.0, 5.0)]), 0.0);
        assert_eq!(rising_slope(&[(1.0, 5.0), (3.0, 9.0), (7.0, 17.0)]), 2.0);
        assert_eq!(rising_slope(&[(1.0, 5.0), (3.0, 2.0)]), 0.0);
    }
}
