//! Modelling choices that published tools make differently, each a named switch with a source.
//!
//! Only the `physical` profile exists so far; the switches are those of physics.md section 7.

use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PrefillSync {
    /// Prefills of the attention ranks fall on different steps.
    Uncoordinated,
    /// All ranks prefill on the same steps.
    Aligned,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FirstToken {
    /// The first token leaves after the KV has arrived at the decode worker.
    Decode,
    /// The prefill worker sends the first token itself.
    Prefill,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KvTransfer {
    Bulk,
    LayerWise,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KvReserve {
    /// Every sequence is charged its final length.
    Full,
    /// Every sequence is charged the stationary mean load (theta).
    Mean,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Assumptions {
    pub profile: String,
    pub prefill_sync: PrefillSync,
    pub first_token_from: FirstToken,
    pub kv_transfer: KvTransfer,
    pub kv_reserve: KvReserve,
    /// Whether the shared expert runs beside the routed path in decode.
    pub shared_expert_overlap: bool,
    /// Scales every alpha of A2F and F2A, which no public measurement covers.
    pub afd_alpha_scale: f64,
}

impl Default for Assumptions {
    fn default() -> Self {
        Self::physical()
    }
}

impl Assumptions {
    pub fn physical() -> Self {
        Assumptions {
            profile: "physical".into(),
            prefill_sync: PrefillSync::Uncoordinated,
            first_token_from: FirstToken::Decode,
            kv_transfer: KvTransfer::LayerWise,
            kv_reserve: KvReserve::Full,
            shared_expert_overlap: true,
            afd_alpha_scale: 1.0,
        }
    }
}
