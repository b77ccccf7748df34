//! The rate of a plan within its limits, in a closed loop or with Poisson arrivals.
//!
//! Limit: one rate for all hours; percentiles are those of the closed forms (`spread`), not of a trace.

use serde::{Deserialize, Serialize};

use super::Loaded;
use crate::error::{Error, Problems, Result};
use crate::serving::engine::Engine;
use crate::serving::steady_state::{SteadyState, excess};
use crate::spec::Slo;

/// How requests come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Arrivals {
    /// A new one for each that ends: the slots are always full.
    #[default]
    Closed,
    /// At a rate of their own.
    Poisson,
}

impl Arrivals {
    pub const NAMES: [&str; 2] = ["closed", "poisson"];

    /// # Errors
    /// A name that is not known.
    pub fn named(name: &str) -> Result<Arrivals> {
        match name {
            "closed" => Ok(Arrivals::Closed),
            "poisson" => Ok(Arrivals::Poisson),
            other => {
                Err(Error::spec("arrivals", format!("'{other}' is not known"), crate::error::near(other, Self::NAMES)))
            }
        }
    }

    /// Itself, if these limits can be held against it.
    ///
    /// # Errors
    /// A percentile in a closed loop.
    pub(crate) fn hold(self, slo: &Slo) -> Result<Arrivals> {
        let mut problems = Problems::new();
        self.check(slo, &mut problems);
        problems.into_result().map(|()| self)
    }

    /// What limits cannot be held against such arrivals.
    pub(crate) fn check(self, slo: &Slo, problems: &mut Problems) {
        if self == Arrivals::Closed && slo.percentile.is_some() {
            let message = "percentile needs arrivals='poisson': a closed loop has means alone";
            problems.push(
                "slo.percentile",
                message,
                "arrivals='poisson', or leave percentile out for limits on the means",
            );
        }
    }
}

/// The highest rate at which limits hold.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Held {
    /// Requests a second; 0: they hold at no rate.
    pub rate: f64,
    /// The point at that rate (at 0: in the closed loop).
    pub point: SteadyState,
    /// TTFT and TPOT as the limits count them: means, or their percentile.
    pub latencies: [f64; 2],
}

/// Loads tried: how near the most that a plan serves, and how near nothing.
const MOST: f64 = 0.995;
const LEAST: f64 = 0.01;
/// Relative width of the bisection's end.
const FINE: f64 = 2e-3;

impl Engine {
    /// The highest rate at which the limits hold: in a closed loop all or nothing, with Poisson arrivals by bisection over the
    /// load (both latencies rise with it).
    ///
    /// # Errors
    /// A percentile in a closed loop.
    pub fn rate_within(&self, slo: &Slo, arrivals: Arrivals) -> Result<Held> {
        arrivals.hold(slo)?;
        let none = Held { rate: 0.0, point: self.point, latencies: [self.point.ttft_s, self.point.tpot_s] };
        if !self.point.stands() {
            return Ok(none);
        }
        let most = self.point.requests_per_s;
        if arrivals == Arrivals::Closed {
            let rate = if self.point.excess(slo) <= 1.0 { most } else { 0.0 };
            return Ok(Held { rate, ..none });
        }
        let at = |share: f64| -> Option<(Loaded, [f64; 2], bool)> {
            let loaded = self.open(share * most).ok()?;
            let latencies = loaded.latencies(slo.percentile);
            let fits = latencies.iter().all(|x| x.is_finite()) && excess(latencies, slo) <= 1.0;
            Some((loaded, latencies, fits))
        };
        let held = |share: f64, found: &(Loaded, [f64; 2], bool)| Held {
            rate: share * most,
            point: found.0.point,
            latencies: found.1,
        };
        if let Some(found) = at(MOST).filter(|f| f.2) {
            return Ok(held(MOST, &found));
        }
        let Some(first) = at(LEAST).filter(|f| f.2) else { return Ok(none) };
        let (mut low, mut high) = (LEAST, MOST);
        let mut best = held(LEAST, &first);
        while high - low > FINE * high {
            let middle = 0.5 * (low + high);
            match at(middle).filter(|f| f.2) {
                Some(found) => {
                    best = held(middle, &found);
                    low = middle;
                }
                None => high = middle,
            }
        }
        Ok(best)
    }
}
