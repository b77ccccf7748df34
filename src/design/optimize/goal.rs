//! What is wanted of a point: one metric as high or as low as possible, and limits that it must keep.
//!
//! An objective is a metric, whose sense is known (rates up; times, memory, GPUs and money down), or
//! `max metric`, `min metric`. Constraints are those of a space, over metrics as well as axes; where both
//! have a name the metric is meant.

use crate::design::{Expression, Interval, METRICS, Priced, Space, name_of};
use crate::error::{Error, Problems, Result, near};

/// Metrics of which less is better.
const LESS: [&str; 6] = ["ttft_ms", "tpot_ms", "itl_worst_ms", "gpus", "memory_gib", "usd_per_mtok"];

/// Metrics that every answer shows.
const SHOWN: [&str; 3] = ["ttft_ms", "tpot_ms", "tokens_per_s"];

#[derive(Clone, Debug)]
pub struct Goal {
    pub metric: String,
    pub maximise: bool,
    pub constraints: Vec<Expression>,
    /// Metrics that are priced, the objective first.
    pub metrics: Vec<String>,
    axes: usize,
}

impl Goal {
    pub fn new(space: &Space, objective: &str, constraints: &[String]) -> Result<Goal> {
        let mut problems = Problems::new();
        let words: Vec<&str> = objective.split_whitespace().collect();
        let (sense, metric) = match words.as_slice() {
            [sense @ ("max" | "min"), metric] => (Some(*sense == "max"), *metric),
            [metric] => (None, *metric),
            _ => (None, objective),
        };
        if !METRICS.contains(&metric) {
            problems.push("objective", format!("'{metric}' is not a metric"), near(metric, METRICS));
        }
        let axes = &space.description.axes;
        let named = |name: &str| {
            let paths = METRICS.iter().copied().chain(axes.iter().map(|a| a.path.as_str()));
            let i = name_of(paths, name, "a metric or an axis")?;
            Ok(if i < METRICS.len() { axes.len() + i } else { i - METRICS.len() })
        };
        let mut read = Vec::new();
        for (i, text) in constraints.iter().enumerate() {
            let path = format!("constraints[{i}]");
            match Expression::new(text, &path, &named) {
                Ok(e) => {
                    let words = |a: &&usize| (0..space.lengths()[**a]).any(|c| space.number(**a, c).is_nan());
                    for &a in e.axes.iter().filter(|a| **a < axes.len()).filter(words) {
                        problems.push(&path, format!("'{text}': values of {} are not numbers", axes[a].path), "");
                    }
                    read.push(e);
                }
                Err(Error::Spec(inner)) => problems.0.extend(inner.0),
                Err(other) => return Err(other),
            }
        }
        problems.into_result()?;
        let used = read.iter().flat_map(|e| &e.axes).filter(|i| **i >= axes.len()).map(|i| METRICS[i - axes.len()]);
        let mut metrics: Vec<String> = Vec::new();
        for name in [metric].into_iter().chain(SHOWN).chain(used) {
            if !metrics.iter().any(|m| m == name) {
                metrics.push(name.into());
            }
        }
        let maximise = sense.unwrap_or(!LESS.contains(&metric));
        Ok(Goal { metric: metric.into(), maximise, constraints: read, metrics, axes: axes.len() })
    }

    /// The objective, turned so that more is better.
    pub fn score(&self, value: f64) -> f64 {
        if self.maximise { value } else { -value }
    }

    /// The best score that an interval of the objective allows.
    pub fn hope(&self, (low, high): Interval) -> f64 {
        let hope = if self.maximise { high } else { -low };
        if hope.is_nan() { f64::INFINITY } else { hope }
    }

    /// Which constraints a priced point keeps.
    pub(super) fn keeps(&self, space: &Space, point: u64, row: &Priced) -> Vec<bool> {
        let choices = space.choices(point);
        let value = |i: usize| {
            if i < self.axes {
                return space.number(i, choices[i]);
            }
            let at = self.metrics.iter().position(|m| m == METRICS[i - self.axes]);
            at.map_or(f64::NAN, |at| row.metrics[at])
        };
        self.constraints.iter().map(|c| c.holds(value)).collect()
    }

    /// The first constraint that no value within these intervals keeps.
    pub(super) fn broken(&self, space: &Space, choices: &[usize], metric: impl Fn(&str) -> Interval) -> Option<usize> {
        let value = |i: usize| {
            if i < self.axes {
                let x = space.number(i, choices[i]);
                return (x, x);
            }
            metric(METRICS[i - self.axes])
        };
        self.constraints.iter().position(|c| !c.may_hold(value))
    }
}
