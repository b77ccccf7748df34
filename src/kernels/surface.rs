//! A compiled kernel time: straight-line evaluation over at most three axes, with evidence.

use serde::{Deserialize, Serialize};

/// How well a time is known, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Evidence {
    Measured = 0,
    Interpolated = 1,
    Extrapolated = 2,
    Roofline = 3,
}

/// A time and how well it is known.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reading {
    pub seconds: f64,
    pub evidence: Evidence,
}

/// A kernel time over up to three axes; built once by `kernels::ops`, evaluated without allocation.
#[derive(Clone, Debug)]
pub struct Surface {
    _private: (),
}

impl Surface {
    /// Time at `x` (one value per axis, in the order the constructor in `ops` documents).
    pub fn at(&self, x: &[f64]) -> Reading {
        let _ = x;
        todo!()
    }

    /// Lane the numbers come from: framework, version, table, kernel source (for explain()).
    pub fn source(&self) -> &str {
        todo!()
    }
}
