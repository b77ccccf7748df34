//! How the engine serves: speculation, balance, overlap, launch mode.

use serde::{Deserialize, Serialize};

/// Whether kernel times keep the launch floors they were measured with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Launch {
    /// CUDA graphs: an eager-mode floor in a lane is replaced by roofline + slope and tagged.
    Graph,
    /// As measured.
    Measured,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Serving {
    /// Draft tokens per step.
    pub mtp: u32,
    /// Mean accepted draft tokens per step (0..=mtp); required when `mtp > 0`.
    pub acceptance: Option<f64>,
    /// Load distribution of the expert rows; none: the model's.
    pub imbalance: Option<String>,
    pub eplb_slots: u32,
    pub two_batch_overlap: bool,
    pub fused_dispatch: bool,
    /// None: graph for decode, measured for prefill.
    pub launch: Option<Launch>,
    pub framework_reserve_gib: f64,
}

impl Default for Serving {
    fn default() -> Self {
        Serving {
            mtp: 0,
            acceptance: None,
            imbalance: None,
            eplb_slots: 0,
            two_batch_overlap: false,
            fused_dispatch: false,
            launch: None,
            framework_reserve_gib: 3.5,
        }
    }
}
