//! What is wanted of a point: one metric as high or as low as possible, and limits that it must keep.
//!
//! An objective is a metric, whose sense is known (rates up; times, memory, GPUs and money down), or
//! `max metric`, `min metric`. Constraints are those of a space, over metrics as well as axes; where both
//! have a name the metric is meant.
//!
//! Limit: one objective; several are weighed against one another by constraints, or by a frontier of what was priced.

use crate::design::{Expression, Interval, Metric, Priced, Space, name_of};
use crate::error::{Error, Problems, Result, near};

/// Metrics that every answer shows.
const SHOWN: [Metric; 3] = [Metric::TtftMs, Metric::TpotMs, Metric::TokensPerS];

#[derive(Clone, Debug)]
pub struct Goal {
    pub metric: Metric,
    pub maximise: bool,
    pub constraints: Vec<Expression>,
    /// Metrics that are priced, the objective first.
    pub metrics: Vec<Metric>,
    axes: usize,
}

impl Goal {
    pub(crate) fn new(space: &Space, objective: &str, constraints: &[String]) -> Result<Goal> {
        let mut problems = Problems::new();
        let words: Vec<&str> = objective.split_whitespace().collect();
        let (sense, name) = match words.as_slice() {
            [sense @ ("max" | "min"), metric] => (Some(*sense == "max"), *metric),
            [metric] => (None, *metric),
            _ => (None, objective),
        };
        let metric = Metric::named(name).unwrap_or_else(|| {
            problems.push("objective", format!("'{name}' is not a metric"), near(name, Metric::NAMES));
            Metric::TokensPerS
        });
        let axes = &space.description.axes;
        let named = |name: &str| {
            let paths = Metric::NAMES.iter().copied().chain(axes.iter().map(|a| a.path.as_str()));
            let i = name_of(paths, name, "a metric or an axis")?;
            Ok(if i < Metric::ALL.len() { axes.len() + i } else { i - Metric::ALL.len() })
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
        let used = read.iter().flat_map(|e| &e.axes).filter(|i| **i >= axes.len()).map(|i| Metric::ALL[i - axes.len()]);
        let mut metrics: Vec<Metric> = Vec::new();
        for m in [metric].into_iter().chain(SHOWN).chain(used) {
            if !metrics.contains(&m) {
                metrics.push(m);
            }
        }
        let maximise = sense.unwrap_or(!metric.less());
        Ok(Goal { metric, maximise, constraints: read, metrics, axes: axes.len() })
    }

    /// The objective, turned so that more is better.
    pub(crate) fn score(&self, value: f64) -> f64 {
        if self.maximise { value } else { -value }
    }

    /// The best score that an interval of the objective allows.
    pub(crate) fn hope(&self, (low, high): Interval) -> f64 {
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
            let at = self.metrics.iter().position(|m| *m == Metric::ALL[i - self.axes]);
            at.map_or(f64::NAN, |at| row.metrics[at])
        };
        self.constraints.iter().map(|c| c.holds(value)).collect()
    }

    /// The first constraint that no value within these intervals keeps.
    pub(super) fn broken(
        &self,
        space: &Space,
        choices: &[usize],
        metric: impl Fn(Metric) -> Interval,
    ) -> Option<usize> {
        let value = |i: usize| {
            if i < self.axes {
                let x = space.number(i, choices[i]);
                return (x, x);
            }
            metric(Metric::ALL[i - self.axes])
        };
        self.constraints.iter().position(|c| !c.may_hold(value))
    }
}
