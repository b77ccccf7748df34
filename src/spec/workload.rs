//! What is asked of the system: lengths of prefix (cached), prompt (new) and answer.

use serde::{Deserialize, Serialize};

/// A distribution of token counts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Distribution {
    Fixed { value: f64 },
    Uniform { low: f64, high: f64 },
    Lognormal { mean: f64, p90: f64 },
    /// Values at evenly spaced probabilities 0, 1/(n-1), ..., 1; linear between.
    Quantiles { values: Vec<f64> },
    Geometric { mean: f64 },
}

/// Where a prefix lives (memory) and how it is shared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PrefixScope {
    /// Private KV per sequence (an agent's session).
    #[default]
    Request,
    /// One copy per attention rank (a system prompt).
    Shared,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PrefixHome {
    #[default]
    Both,
    Prefill,
    Decode,
}

/// Lengths in tokens. `isl` counts NEW tokens, `prefix` cached ones.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Workload {
    pub name: String,
    pub source: String,
    pub prefix: Distribution,
    pub isl: Distribution,
    pub osl: Distribution,
    /// Joint samples (prefix, isl, osl); when not empty they replace the three marginals.
    #[serde(default)]
    pub lengths: Vec<[f64; 3]>,
    #[serde(default)]
    pub prefix_scope: PrefixScope,
    #[serde(default)]
    pub prefix_home: PrefixHome,
    #[serde(default)]
    pub strict_context: bool,
}
