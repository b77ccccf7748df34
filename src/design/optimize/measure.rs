//! What a simulated point can be asked for: goodput, rates, and latencies as means or percentiles of the requests.
//!
//! Means are those after the warm-up (`sim::statistics`), percentiles those of all requests, linear between neighbours.
//!
//! Limit: percentiles of one run, without an interval; goodput counts the time of arrivals and no more.

use crate::error::Problems;
use crate::error::near;
use crate::sim::metrics::{self, Latencies};
use crate::sim::{Outcome, Requests, Status};
use crate::spec::Slo;

/// Which latency of a request, by its place.
const LATENCIES: [&str; 3] = ["ttft", "tpot", "e2e"];
/// Every metric but percentiles, and two of these.
const KNOWN: [&str; 9] = [
    "goodput",
    "requests_per_s",
    "tokens_per_s",
    "tokens_per_s_per_gpu",
    "ttft_ms",
    "tpot_ms",
    "e2e_ms",
    "ttft_p99_ms",
    "tpot_p99_ms",
];

/// A metric of a simulation, by its name.
#[derive(Clone, Debug, PartialEq)]
pub struct Measure {
    pub name: String,
    what: What,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum What {
    Goodput,
    RequestsPerS,
    TokensPerS,
    TokensPerSPerGpu,
    /// Of a latency.
    Mean(usize),
    Percentile(usize, f64),
}

/// One plan that has served the requests.
pub(super) struct Served<'a> {
    pub requests: &'a Requests,
    pub outcome: &'a Outcome,
    pub gpus: u32,
}

impl Measure {
    /// The metric of a name; none: there is none.
    pub fn named(name: &str) -> Option<Measure> {
        let what = match name {
            "goodput" => What::Goodput,
            "requests_per_s" => What::RequestsPerS,
            "tokens_per_s" => What::TokensPerS,
            "tokens_per_s_per_gpu" => What::TokensPerSPerGpu,
            _ => {
                let (which, rest) =
                    name.strip_suffix("_ms")?.split_once('_').unwrap_or((name.strip_suffix("_ms")?, ""));
                let which = LATENCIES.iter().position(|l| *l == which)?;
                match rest.strip_prefix('p') {
                    None if rest.is_empty() => What::Mean(which),
                    Some(digits) if digits.chars().all(|c| c.is_ascii_digit() || c == '.') => {
                        What::Percentile(which, digits.parse().ok().filter(|p| (0.0..=100.0).contains(p))?)
                    }
                    _ => return None,
                }
            }
        };
        Some(Measure { name: name.to_string(), what })
    }

    /// The metric and the sense of an objective: `goodput`, `min e2e_ms`; what is wrong with it goes to `problems`.
    pub(super) fn objective(text: &str, problems: &mut Problems) -> (Option<Measure>, bool) {
        let (sense, name) = text.trim().rsplit_once(' ').unwrap_or(("", text.trim()));
        let known = Measure::named(name).filter(|_| ["", "max", "min"].contains(&sense));
        if known.is_none() {
            problems.push("objective", format!("'{name}' is not a metric of a simulation"), near(name, KNOWN));
        }
        let more = if sense.is_empty() { known.as_ref().is_some_and(Measure::is_rate) } else { sense == "max" };
        (known, more)
    }

    /// Whether it counts what finished, so that what did not is no flaw of it; more of it is better.
    pub(super) fn is_rate(&self) -> bool {
        !matches!(self.what, What::Mean(_) | What::Percentile(..))
    }

    /// Whether it is of requests inside limits.
    pub(super) fn wants_slo(&self) -> bool {
        self.what == What::Goodput
    }

    /// Its value; not a number where no request has it.
    pub(super) fn of(&self, served: &Served<'_>, slo: Option<&Slo>) -> f64 {
        let (r, o) = (served.requests, served.outcome);
        match self.what {
            What::Goodput => slo.map_or(f64::NAN, |slo| metrics::goodput(r, o, slo).requests_per_s),
            What::Percentile(which, p) => percentile(latency(&Latencies::of(r, o), which), p),
            _ => {
                let said = metrics::summary(r, o, served.gpus);
                let means = [said.ttft_ms, said.tpot_ms, said.e2e_ms];
                match self.what {
                    What::RequestsPerS => said.requests_per_s,
                    What::TokensPerS => said.tokens_per_s,
                    What::Mean(which) => means[which].map_or(f64::NAN, |m| m.mean),
                    _ => said.tokens_per_s_per_gpu,
                }
            }
        }
    }

    /// Whether it is a mean over requests.
    pub(super) fn is_mean(&self) -> bool {
        matches!(self.what, What::Goodput | What::Mean(_))
    }

    /// What each request adds to it; none where it is no mean over requests.
    pub(super) fn each(&self, served: &Served<'_>, slo: Option<&Slo>) -> Option<Vec<f64>> {
        let (r, o) = (served.requests, served.outcome);
        let latencies = Latencies::of(r, o);
        match (self.what, slo) {
            (What::Goodput, Some(slo)) => {
                let good = |i: usize| o.status[i] == Status::Finished && latencies.good(i, slo);
                Some((0..r.len()).map(|i| f64::from(u8::from(good(i)))).collect())
            }
            (What::Mean(which), _) => Some(latency(&latencies, which).to_vec()),
            _ => None,
        }
    }
}

fn latency(l: &Latencies, which: usize) -> &[f64] {
    [&l.ttft_ms, &l.tpot_ms, &l.e2e_ms][which]
}

/// The value below which `p` per cent of the known ones lie, to the last bit as `numpy.nanpercentile` has it.
fn percentile(values: &[f64], p: f64) -> f64 {
    let mut v: Vec<f64> = values.iter().copied().filter(|x| !x.is_nan()).collect();
    v.sort_by(f64::total_cmp);
    let Some(last) = v.len().checked_sub(1) else { return f64::NAN };
    let at = p / 100.0 * last as f64;
    let (low, part) = (at.floor() as usize, at.fract());
    let (a, b) = (v[low], v[(low + 1).min(last)]);
    if part >= 0.5 { b - (b - a) * (1.0 - part) } else { a + (b - a) * part }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_rates_means_and_percentiles() {
        for name in KNOWN.iter().chain(&["e2e_p99.9_ms", "tpot_p0_ms"]) {
            assert_eq!(Measure::named(name).map(|m| m.name).as_deref(), Some(*name));
        }
        for name in ["watts", "ttft", "ttft_p_ms", "ttft_p101_ms", "itl_ms", "ttft_p9e1_ms", "_ms", "ttft_q50_ms"] {
            assert_eq!(Measure::named(name), None, "{name}");
        }
        let mut problems = Problems::new();
        assert!(Measure::objective("tokens_per_s", &mut problems).1 && !Measure::objective("ttft_ms", &mut problems).1);
        assert!(Measure::objective("max e2e_p50_ms", &mut problems).1 && problems.is_empty());
        Measure::objective("best goodput", &mut problems);
        assert_eq!(problems.0.len(), 1);
    }

    #[test]
    fn a_percentile_lies_between_neighbours_and_passes_over_what_is_not_known() {
        assert_eq!(percentile(&[3.0, f64::NAN, 1.0, 2.0], 50.0), 2.0);
        assert_eq!(percentile(&[0.0, 10.0], 75.0), 7.5);
        assert!(percentile(&[f64::NAN], 50.0).is_nan());
    }
}
