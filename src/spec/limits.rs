//! Range checks shared by all specs. A value that is far beyond any machine is refused here, so
//! that nothing downstream has to fear overflow.
//!
//! Limit: ranges of single values; whether values go together is each spec's own check.

use crate::error::Problems;

/// Most GPUs, ranks or copies of anything.
pub(crate) const MANY: u32 = 1_000_000;
/// Longest sequence.
pub(crate) const LONG: f64 = 1e8;

/// Collects the problems of one spec; paths are built only for what is wrong.
#[derive(Default)]
pub(crate) struct Check {
    at: Vec<&'static str>,
    pub problems: Problems,
}

impl Check {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Starts under a root (`plan`).
    pub(crate) fn under(root: &'static str) -> Self {
        Check { at: vec![root], problems: Problems::new() }
    }

    /// Checks a part, whose fields are named below `field`.
    pub(crate) fn within<T>(&mut self, field: &'static str, part: impl FnOnce(&mut Self) -> T) -> T {
        self.at.push(field);
        let result = part(self);
        self.at.pop();
        result
    }

    pub(crate) fn path(&self, field: &str) -> String {
        let mut parts = self.at.clone();
        if !field.is_empty() {
            parts.push(field);
        }
        parts.join(".")
    }

    pub(crate) fn wrong(&mut self, field: &str, message: impl Into<String>, hint: impl Into<String>) {
        let path = self.path(field);
        self.problems.push(path, message, hint);
    }

    /// A whole number from `low` to `high`.
    pub(crate) fn count(&mut self, field: &str, value: u32, low: u32, high: u32) -> bool {
        let good = (low..=high).contains(&value);
        if !good {
            self.wrong(field, format!("must be from {low} to {high}, is {value}"), "");
        }
        good
    }

    pub(crate) fn count_if(&mut self, field: &str, value: Option<u32>, low: u32, high: u32) -> bool {
        value.is_none_or(|v| self.count(field, v, low, high))
    }

    /// A finite number from `low` to `high`.
    pub(crate) fn range(&mut self, field: &str, value: f64, low: f64, high: f64) -> bool {
        // Written so that NaN fails.
        let good = value >= low && value <= high;
        if !good {
            self.wrong(field, format!("must be from {low} to {high:e}, is {value}"), "");
        }
        good
    }

    /// A finite number above zero.
    pub(crate) fn positive(&mut self, field: &str, value: f64, high: f64) -> bool {
        let good = value > 0.0 && value <= high;
        if !good {
            self.wrong(field, format!("must be above 0 and at most {high:e}, is {value}"), "");
        }
        good
    }
}

/// `did you mean 4?`: the divisor of `whole` nearest to `value`, the larger one on ties.
pub(crate) fn nearest_divisors(value: u32, whole: u32) -> String {
    let root = f64::from(whole).sqrt() as u32 + 1;
    let divisors = (1..=root).filter(|d| whole.is_multiple_of(*d)).flat_map(|d| [d, whole / d]);
    let best = divisors.min_by_key(|d| (d.abs_diff(value), u32::MAX - d));
    best.map_or(String::new(), |d| format!("did you mean {d}?"))
}
