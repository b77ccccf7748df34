//! The points of one lane of a table.
//!
//! Limit: three coordinates, not negative, and one time at each place: a later one replaces it, and a time that is not
//! above 0 is dropped.

use std::collections::BTreeMap;

use crate::kernels::evidence::Evidence;

/// Measured (or blended) points of one lane.
#[derive(Clone, Debug, Default)]
pub(crate) struct Points {
    /// Coordinates as bits (they are non-negative, so bit order is number order), seconds, evidence.
    map: BTreeMap<[u64; 3], (f64, Evidence)>,
}

impl Points {
    pub(crate) fn insert(&mut self, x: [f64; 3], seconds: f64, evidence: Evidence) {
        if seconds.is_finite() && seconds > 0.0 {
            self.map.insert(x.map(f64::to_bits), (seconds, evidence));
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = ([f64; 3], f64, Evidence)> + '_ {
        self.map.iter().map(|(k, v)| (k.map(f64::from_bits), v.0, v.1))
    }

    pub(crate) fn get(&self, x: &[f64; 3]) -> Option<f64> {
        self.map.get(&x.map(f64::to_bits)).map(|v| v.0)
    }

    pub(crate) fn remove(&mut self, x: &[f64; 3]) {
        self.map.remove(&x.map(f64::to_bits));
    }

    pub(crate) fn len(&self) -> usize {
        self.map.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    /// The points that satisfy a condition on their coordinates.
    pub(crate) fn filter(&self, keep: impl Fn(&[f64; 3]) -> bool) -> Points {
        Points { map: self.map.iter().filter(|(k, _)| keep(&k.map(f64::from_bits))).map(|(k, v)| (*k, *v)).collect() }
    }
}
