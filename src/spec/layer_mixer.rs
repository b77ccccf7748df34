//! What mixes the tokens of a layer in place of the model's attention: attention of another shape, or a kind of its own.
//!
//! Limit: sizes and what they weigh; what a mixer takes in time is `cost::family`'s.

use serde::{Deserialize, Deserializer, Serialize};

use super::attention::Attention;
use super::dtype::Dtype;
use super::json;
use super::limits::Check;
use super::matrix::Matrix;
use super::mixers::{OwnMixer, Running};
use crate::error::Problems;

/// Attention of another shape.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OtherAttention {
    pub attention: Attention,
    /// Tokens that a layer sees; 0: all.
    pub window: u32,
}

/// What mixes the tokens of a layer in place of the model's attention.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum LayerMixer {
    Attention(OtherAttention),
    #[serde(untagged)]
    Own(OwnMixer),
}

impl<'de> Deserialize<'de> for LayerMixer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let known: Vec<&str> = ["attention"].iter().chain(OwnMixer::KINDS).copied().collect();
        let (kind, inside) = json::tagged(deserializer, &known)?;
        Ok(match kind.as_str() {
            "attention" => LayerMixer::Attention(json::inside(inside)?),
            own => LayerMixer::Own(OwnMixer::of(own, inside)?),
        })
    }
}

impl LayerMixer {
    /// What attention TP must divide, and what that is in words.
    pub(crate) fn heads(&self) -> (u32, &'static str) {
        match self {
            LayerMixer::Attention(a) => {
                (a.attention.heads(), "attention heads of the layers with a shape of their own")
            }
            LayerMixer::Own(own) => own.facts().heads(),
        }
    }

    /// Its sizes where it keeps a running state.
    pub fn running(&self) -> Option<Running> {
        match self {
            LayerMixer::Attention(_) => None,
            LayerMixer::Own(own) => own.facts().running(),
        }
    }

    pub(super) fn matrices(&self, hidden: u32) -> Vec<Matrix> {
        match self {
            LayerMixer::Attention(a) => a.attention.matrices(hidden),
            LayerMixer::Own(own) => own.facts().matrices(hidden),
        }
    }

    /// Parameters beside the matrices; in BF16 whatever the format.
    pub(super) fn small(&self, hidden: u32) -> f64 {
        match self {
            LayerMixer::Attention(a) => a.attention.small(hidden),
            LayerMixer::Own(own) => own.facts().small(hidden),
        }
    }

    /// Bytes that a token adds to what a layer keeps.
    pub(crate) fn kv_bytes_per_token(&self, kv: Dtype) -> f64 {
        match self {
            LayerMixer::Attention(a) => a.attention.kv_bytes_per_token(kv),
            LayerMixer::Own(own) => own.facts().kv_bytes_per_token(kv),
        }
    }

    /// Bytes that a layer keeps of a sequence whatever its length.
    pub(crate) fn state_bytes(&self, kv: Dtype) -> f64 {
        match self {
            LayerMixer::Attention(a) => a.attention.state_bytes(kv),
            LayerMixer::Own(own) => own.facts().state_bytes(kv),
        }
    }

    /// Over how many of `tp` ranks what it keeps is split; the others hold copies.
    pub(crate) fn shards(&self, tp: u32) -> u32 {
        match self {
            LayerMixer::Attention(a) => a.attention.kv_shards(tp),
            LayerMixer::Own(own) => own.facts().shards(tp),
        }
    }

    /// Everything that is wrong with these sizes; paths are relative to it.
    pub(super) fn check(&self) -> Problems {
        match self {
            LayerMixer::Attention(a) => {
                let mut c = Check::new();
                c.problems.nest("attention", a.attention.check());
                c.count("window", a.window, 0, 1_000_000_000);
                c.problems
            }
            LayerMixer::Own(own) => own.check(),
        }
    }
}
