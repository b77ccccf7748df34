//! Modelling choices that published tools make differently, each a named switch with a source.
//!
//! Only the `physical` profile exists so far; the switches are those of physics.md section 7.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::{Error, Problems, Result, near};

use super::json;
use super::limits::Check;

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
    /// Whether a decode step waits for the attention rank with the longest contexts.
    pub attention_barrier: bool,
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
            attention_barrier: true,
            afd_alpha_scale: 1.0,
        }
    }
}

/// One modelling choice: what it is set to, what it may be, what it means and who says so.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Switch {
    pub name: &'static str,
    pub value: Value,
    pub allowed: &'static str,
    pub meaning: &'static str,
    pub source: &'static str,
}

/// Name, allowed values, meaning, source; in the order of the fields.
const SWITCHES: [(&str, &str, &str, &str); 7] = [
    (
        "prefill_sync",
        "uncoordinated | aligned",
        "whether the attention ranks prefill on the same steps",
        "engines schedule each rank by its own queue",
    ),
    (
        "first_token_from",
        "decode | prefill",
        "which side sends the first token of a P/D deployment",
        "vLLM and SGLang routers answer from the decode worker",
    ),
    ("kv_transfer", "layer-wise | bulk", "KV shipped layer by layer beside prefill, or after it", "Mooncake (FAST25)"),
    (
        "kv_reserve",
        "full | mean",
        "KV charged a sequence: its final length, or the stationary mean theta",
        "full never evicts; theta is arXiv 2601.21351",
    ),
    (
        "shared_expert_overlap",
        "true | false",
        "the shared expert runs beside the routed path in decode",
        "TensorRT-LLM and SGLang use a second stream",
    ),
    (
        "attention_barrier",
        "true | false",
        "a decode step waits for the attention rank with the longest contexts: E[max] from the slots' variance",
        "arXiv 2601.21351 section 4; published tools use the mean",
    ),
    (
        "afd_alpha_scale",
        "a number from 0 to 100",
        "scales every start-up time of A2F and F2A, which no public measurement covers",
        "assumption: 1 is the one-sided dispatch of the same fabric",
    ),
];

impl Assumptions {
    fn fields(&self) -> Map<String, Value> {
        match json::to_value(self, "assumptions") {
            Ok(Value::Object(map)) => map,
            // Plain enums, a bool and a number always make an object.
            _ => Map::new(),
        }
    }

    /// All switches with their values, meanings and sources.
    pub fn switches(&self) -> Vec<Switch> {
        let mut fields = self.fields();
        SWITCHES
            .iter()
            .map(|&(name, allowed, meaning, source)| Switch {
                name,
                value: fields.remove(name).unwrap_or(Value::Null),
                allowed,
                meaning,
                source,
            })
            .collect()
    }

    /// A copy with one switch set, by name.
    pub fn replace(&self, name: &str, value: Value) -> Result<Self> {
        if !SWITCHES.iter().any(|s| s.0 == name) {
            let hint = near(name, SWITCHES.iter().map(|s| s.0));
            return Err(Error::spec(format!("assumptions.{name}"), "unknown switch", hint));
        }
        let mut fields = self.fields();
        let changed = fields.insert(name.into(), value.clone()) != Some(value);
        if changed && !self.profile.ends_with('*') {
            // The profile's name stays, marked as no longer the profile itself.
            fields.insert("profile".into(), Value::String(format!("{}*", self.profile)));
        }
        let new = Assumptions::from_value(Value::Object(fields))?;
        let mut problems = Problems::new();
        problems.nest("assumptions", new.check());
        json::checked(new, problems)
    }

    /// Switches on which two sets differ: name, this value, the other's.
    pub fn diff(&self, other: &Self) -> Vec<(&'static str, Value, Value)> {
        let pairs = self.switches().into_iter().zip(other.switches());
        pairs.filter(|(a, b)| a.value != b.value).map(|(a, b)| (a.name, a.value, b.value)).collect()
    }

    /// Everything that is wrong; paths are relative to it.
    pub fn check(&self) -> Problems {
        let mut c = Check::new();
        c.range("afd_alpha_scale", self.afd_alpha_scale, 0.0, 100.0);
        c.problems
    }
}
