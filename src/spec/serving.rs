//! How the engine serves: speculation, balance, overlap, launch mode.

use serde::{Deserialize, Serialize};

use crate::error::{Problems, near};

use super::limits::Check;
use super::model::DISTRIBUTIONS;

/// Whether kernel times keep the launch floors they were measured with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Launch {
    /// CUDA graphs: an eager-mode floor in a lane is replaced by roofline + slope and tagged.
    Graph,
    /// As measured.
    Measured,
}

/// How uneven the experts' load is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Imbalance {
    /// A distribution that expert rows were measured under.
    Name(String),
    /// Exponent of a power law between experts; 0: even between its ends.
    Exponent(f64),
    /// Load of every expert, in any unit.
    Histogram(Vec<f64>),
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Serving {
    /// Draft tokens per step.
    pub mtp: u32,
    /// Mean accepted draft tokens per step (0..=mtp); required when `mtp > 0`.
    pub acceptance: Option<f64>,
    /// Load distribution of the expert rows; none: the model's.
    pub imbalance: Option<Imbalance>,
    /// Redundant expert slots that EPLB fills with copies of the busiest experts.
    pub eplb_slots: u32,
    /// Whether two half-batches may overlap compute and communication: true: wherever that is faster; false: nowhere;
    /// none: in a plan that says so, and in a search where the framework has it.
    pub two_batch_overlap: Option<bool>,
    /// Whether a dispatch may be fused into the experts' kernel, wherever that is faster.
    pub fused_dispatch: bool,
    /// Of both phases; none: as the server does (graph for decode, measured for prefill).
    pub launch: Option<Launch>,
    /// More memory to keep free on every GPU; none: 3.5 GiB in the published profiles, whose reserve it is, nothing
    /// in `physical`, whose servers have their fraction.
    pub framework_reserve_gib: Option<f64>,
    /// Share of a device's capacity that the server may fill, as its framework counts it; none: the framework's own.
    pub memory_fraction: Option<f64>,
    /// Prompt tokens join every n-th step at most; none: the framework's own.
    pub prefill_interval: Option<u32>,
}

impl Serving {
    /// Tokens that one decode step adds to a sequence: 1 and the accepted draft tokens.
    pub fn tokens_per_step(&self) -> f64 {
        if self.mtp == 0 { 1.0 } else { 1.0 + self.acceptance.unwrap_or(0.0) }
    }

    /// Everything that is wrong; paths are relative to it.
    pub fn check(&self) -> Problems {
        let mut c = Check::new();
        c.count("mtp", self.mtp, 0, 16);
        let most = f64::from(self.mtp);
        match self.acceptance {
            None if self.mtp > 0 => {
                let hint = format!("mean accepted draft tokens per step, from 0 to {}", self.mtp);
                c.wrong("acceptance", "is required when mtp is above 0", hint);
            }
            Some(a) if !(a >= 0.0 && a <= most) => {
                let hint =
                    if self.mtp == 0 { "set mtp as well" } else { "it counts tokens per step, all drafts together" };
                c.wrong("acceptance", format!("must be from 0 to mtp = {}, is {a}", self.mtp), hint);
            }
            _ => {}
        }
        match &self.imbalance {
            Some(Imbalance::Name(d)) if !DISTRIBUTIONS.contains(&d.as_str()) => {
                c.wrong("imbalance", format!("unknown load distribution '{d}'"), near(d, DISTRIBUTIONS));
            }
            Some(Imbalance::Exponent(a)) => {
                c.range("imbalance", *a, 0.0, 10.0);
            }
            Some(Imbalance::Histogram(loads)) => {
                if let Some(i) = loads.iter().position(|l| !(l.is_finite() && *l >= 0.0)) {
                    c.wrong("imbalance", format!("load {i} is {}", loads[i]), "loads are finite numbers >= 0");
                } else if loads.iter().sum::<f64>() <= 0.0 {
                    c.wrong("imbalance", "no expert has any load", "");
                }
            }
            _ => {}
        }
        c.count("eplb_slots", self.eplb_slots, 0, 65_536);
        c.range("framework_reserve_gib", self.framework_reserve_gib.unwrap_or(0.0), 0.0, 1e4);
        if let Some(f) = self.memory_fraction
            && !(f > 0.0 && f <= 1.0)
        {
            let hint = if f > 1.0 && f <= 100.0 { format!("did you mean {}?", f / 100.0) } else { String::new() };
            c.wrong("memory_fraction", format!("must be above 0 and at most 1, is {f}"), hint);
        }
        c.count_if("prefill_interval", self.prefill_interval, 1, 1000);
        c.problems
    }
}
