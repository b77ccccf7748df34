//! Normal order statistics: what the slowest of several independent ranks is expected to take.
//!
//! ```text
//! E[max(c, m + s Z_1, .., m + s Z_r)] = c + s int_z^inf (1 - Phi(x)^r) dx,   z = (c - m)/s
//! ```
//!
//! Source: arXiv 2601.21351 (barrier over r attention instances). Integrals by Simpson's rule on a
//! step of 1/64, good to 1e-9; r need not be whole.
//!
//! Limit: independent ranks with normal loads; ends at ten standard deviations, beyond which nothing is counted.

use std::f64::consts::FRAC_1_SQRT_2;
use std::sync::OnceLock;

/// Standard normal distribution function.
pub(crate) fn cdf(x: f64) -> f64 {
    0.5 * libm::erfc(-x * FRAC_1_SQRT_2)
}

/// Its inverse for 0 < p < 1, by bisection: good to 1e-12.
pub(crate) fn quantile(p: f64) -> f64 {
    let (mut low, mut high) = (-END, END);
    for _ in 0..60 {
        let middle = 0.5 * (low + high);
        if cdf(middle) < p { low = middle } else { high = middle }
    }
    0.5 * (low + high)
}

/// Where the normal distribution has ended, for any number of ranks up to some millions.
const END: f64 = 10.0;
const STEPS_PER_UNIT: f64 = 64.0;

/// `int_z^inf (1 - Phi(x)^r) dx`.
pub fn excess(z: f64, r: f64) -> f64 {
    if z >= END {
        return 0.0;
    }
    // Below -END the integrand is 1.
    let from = z.max(-END);
    let n = (((END - from) * STEPS_PER_UNIT).ceil() as u32).max(1);
    let h = (END - from) / f64::from(2 * n);
    // 1 - Phi^r without cancellation: -expm1(r ln(1 - Q)).
    let f = |i: u32| -(r * (-cdf(-(from + f64::from(i) * h))).ln_1p()).exp_m1();
    let inner: f64 = (1..2 * n).map(|i| if i % 2 == 1 { 4.0 } else { 2.0 } * f(i)).sum();
    (from - z) + (f(0) + inner + f(2 * n)) * h / 3.0
}

/// Whole numbers of ranks whose expectation is kept: an integral costs more than all else of a layout.
static KEPT: [OnceLock<f64>; 513] = [const { OnceLock::new() }; 513];

/// Expected largest of `r` standard normals; 0 for one.
pub(crate) fn expected_max(r: f64) -> f64 {
    if r <= 1.0 {
        return 0.0;
    }
    let integral = || excess(-END, r) - END;
    match KEPT.get(r as usize) {
        Some(kept) if r.fract() == 0.0 => *kept.get_or_init(integral),
        _ => integral(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_order_statistics() {
        let pi = std::f64::consts::PI;
        assert!((expected_max(2.0) - 1.0 / pi.sqrt()).abs() < 1e-9);
        assert!((expected_max(3.0) - 1.5 / pi.sqrt()).abs() < 1e-9);
        // Tables of normal order statistics: n = 10 and n = 100.
        assert!((expected_max(10.0) - 1.538_752_73).abs() < 1e-7);
        assert!((expected_max(100.0) - 2.507_593_64).abs() < 1e-7);
        assert_eq!(expected_max(1.0), 0.0);
    }

    #[test]
    fn excess_of_one_is_the_normal_loss() {
        // r = 1: phi(z) - z (1 - Phi(z)).
        for z in [-12.0_f64, -3.0, -0.5, 0.0, 0.7, 4.0] {
            let phi = (-0.5 * z * z).exp() / (2.0 * std::f64::consts::PI).sqrt();
            let exact = phi - z * (1.0 - cdf(z));
            assert!((excess(z, 1.0) - exact).abs() < 1e-9, "{z}: {} {exact}", excess(z, 1.0));
        }
        assert_eq!(excess(11.0, 4.0), 0.0);
    }
}
