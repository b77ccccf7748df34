//! How many digits of a fit are kept.
//!
//! Limit: six digits for every parameter alike, whatever the data would bear (two or three).

use crate::network::params::Misfit;

/// Digits of a parameter that are kept; the fits are known to two or three.
const DIGITS: i32 = 6;

/// To the digits that are kept.
pub(super) fn rounded(x: f64) -> f64 {
    if x == 0.0 || !x.is_finite() {
        return x;
    }
    format!("{x:.*e}", (DIGITS - 1).unsigned_abs() as usize).parse().unwrap_or(x)
}

/// A misfit to the digits that are kept.
pub(super) fn rounded_misfit(m: Misfit) -> Misfit {
    Misfit { rows: m.rows, mape: rounded(m.mape), median: rounded(m.median), p95: rounded(m.p95) }
}
