//! What mixes the tokens of a layer in place of a model's attention: attention of another shape, and layers that keep a
//! running state whatever the length of the sequence.
//!
//! ```text
//! state bytes = heads x key width x value width x 4 (FP32) + convolved columns x (conv - 1) x 2 (BF16)
//! ```
//!
//! Sources: gated DeltaNet arXiv:2412.06464, Kimi delta attention arXiv:2510.26692, Mamba-2 arXiv:2405.21060; sizes as
//! `config.json` of Qwen3-Next, Kimi-Linear and Nemotron-H name them; the running state in FP32 (`mamba_ssm_dtype`, `mamba_ssm_cache_dtype`: float32), that of the convolution in
//! BF16, as SGLang and vLLM keep them. Limits: what steers decay (A, dt, biases) counts as parameters, not as a format.

use serde::{Deserialize, Deserializer, Serialize};

use super::attention::Attention;
use super::dtype::Dtype;
use super::json;
use super::limits::Check;
use crate::error::Problems;

/// A gated delta rule over heads of keys and values (gated DeltaNet).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeltaNet {
    pub key_heads: u32,
    pub value_heads: u32,
    pub key_dim: u32,
    pub value_dim: u32,
    /// Tokens that the convolution before it sees.
    pub conv: u32,
}

/// A Mamba-2 layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mamba2 {
    pub heads: u32,
    pub head_dim: u32,
    /// Groups of heads that share what goes into and out of the state.
    pub groups: u32,
    /// Width of the state.
    pub state: u32,
    pub conv: u32,
}

/// Kimi delta attention: a delta rule whose decay has a value for each of a head's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KimiDelta {
    pub heads: u32,
    /// Width of keys and of values.
    pub head_dim: u32,
    pub conv: u32,
    /// Whether the output gate is one whole projection; else it goes through as many columns as a head has.
    pub full_gate: bool,
}

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
    GatedDelta(DeltaNet),
    KimiDelta(KimiDelta),
    Mamba2(Mamba2),
}

impl<'de> Deserialize<'de> for LayerMixer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (kind, inside) = json::tagged(deserializer, &["attention", "gated-delta", "kimi-delta", "mamba2"])?;
        Ok(match kind.as_str() {
            "attention" => LayerMixer::Attention(json::inside(inside)?),
            "gated-delta" => LayerMixer::GatedDelta(json::inside(inside)?),
            "kimi-delta" => LayerMixer::KimiDelta(json::inside(inside)?),
            _ => LayerMixer::Mamba2(json::inside(inside)?),
        })
    }
}

/// Sizes that all layers with a running state have.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Running {
    /// Heads of the state, and in how many parts it can be cut.
    pub heads: u32,
    pub cuts: u32,
    /// Elements of the state of a head.
    pub head_state: f64,
    /// Columns of the projection in, of those that the convolution passes, and of the projection out.
    pub columns_in: f64,
    pub convolved: f64,
    pub columns_out: f64,
    pub conv: u32,
    /// Parameters beside the two projections.
    pub small: f64,
}

/// Bytes of an element of the running state, and of the convolution's.
const STATE: f64 = 4.0;
const CONV: f64 = 2.0;

impl Running {
    /// Bytes of a sequence in one layer.
    pub fn bytes(&self) -> f64 {
        f64::from(self.heads) * self.head_state * STATE + self.convolved * f64::from(self.conv.saturating_sub(1)) * CONV
    }
}

impl LayerMixer {
    /// Its sizes where it keeps a running state.
    pub fn running(&self) -> Option<Running> {
        match self {
            LayerMixer::Attention(_) => None,
            LayerMixer::GatedDelta(d) => {
                let keys = f64::from(d.key_heads) * f64::from(d.key_dim);
                let values = f64::from(d.value_heads) * f64::from(d.value_dim);
                let heads = f64::from(d.value_heads);
                let convolved = 2.0 * keys + values;
                Some(Running {
                    heads: d.value_heads,
                    cuts: d.key_heads,
                    head_state: f64::from(d.key_dim) * f64::from(d.value_dim),
                    // Queries, keys and values; the output gate; decay and step of each head.
                    columns_in: convolved + values + 2.0 * heads,
                    convolved,
                    columns_out: values,
                    conv: d.conv,
                    small: convolved * f64::from(d.conv) + 2.0 * heads + f64::from(d.value_dim),
                })
            }
            LayerMixer::KimiDelta(k) => {
                let (heads, side) = (f64::from(k.heads), f64::from(k.head_dim));
                let wide = heads * side;
                let gate = if k.full_gate { wide } else { side };
                // From the narrow columns of decay (and gate) to all heads.
                let widened = side * wide * if k.full_gate { 1.0 } else { 2.0 };
                Some(Running {
                    heads: k.heads,
                    cuts: k.heads,
                    head_state: side * side,
                    columns_in: 3.0 * wide + heads + side + gate,
                    convolved: 3.0 * wide,
                    columns_out: wide,
                    conv: k.conv,
                    small: 3.0 * wide * f64::from(k.conv) + widened + heads + wide + side,
                })
            }
            LayerMixer::Mamba2(m) => {
                let inner = f64::from(m.heads) * f64::from(m.head_dim);
                let heads = f64::from(m.heads);
                let convolved = inner + 2.0 * f64::from(m.groups) * f64::from(m.state);
                Some(Running {
                    heads: m.heads,
                    cuts: m.heads,
                    head_state: f64::from(m.head_dim) * f64::from(m.state),
                    columns_in: convolved + inner + heads,
                    convolved,
                    columns_out: inner,
                    conv: m.conv,
                    small: convolved * f64::from(m.conv + 1) + 3.0 * heads + inner,
                })
            }
        }
    }

    /// Bytes that a token adds to what a layer keeps.
    pub fn kv_bytes_per_token(&self, kv: Dtype) -> f64 {
        match self {
            LayerMixer::Attention(a) => a.attention.kv_bytes_per_token(kv),
            _ => 0.0,
        }
    }

    /// Bytes that a layer keeps of a sequence whatever its length.
    pub fn state_bytes(&self) -> f64 {
        self.running().map_or(0.0, |r| r.bytes())
    }

    /// Most tokens kept; infinite: all.
    pub fn window(&self) -> f64 {
        match self {
            LayerMixer::Attention(a) if a.window > 0 => f64::from(a.window),
            LayerMixer::Attention(_) => f64::INFINITY,
            _ => 0.0,
        }
    }

    /// Over how many of `tp` ranks the state is split; the others hold copies.
    pub fn shards(&self, tp: u32) -> u32 {
        match self {
            LayerMixer::Attention(a) => a.attention.kv_shards(tp),
            other => other.running().map_or(1, |r| tp.clamp(1, r.cuts.max(1))),
        }
    }

    /// Everything that is wrong with these sizes; paths are relative to it.
    pub(super) fn check(&self) -> Problems {
        const HEAD: u32 = 65_536;
        let mut c = Check::new();
        match self {
            LayerMixer::Attention(a) => {
                c.problems.nest("attention", a.attention.check());
                c.count("window", a.window, 0, 1_000_000_000);
            }
            LayerMixer::GatedDelta(d) => {
                let sizes = [("key_heads", d.key_heads), ("value_heads", d.value_heads)];
                for (field, n) in sizes.into_iter().chain([("key_dim", d.key_dim), ("value_dim", d.value_dim)]) {
                    c.count(field, n, 1, HEAD);
                }
                c.count("conv", d.conv, 1, 64);
                if d.key_heads > 0 && !d.value_heads.is_multiple_of(d.key_heads) {
                    let message = format!("{} key heads do not divide {} value heads", d.key_heads, d.value_heads);
                    c.wrong("key_heads", message, "");
                }
            }
            LayerMixer::KimiDelta(k) => {
                c.count("heads", k.heads, 1, HEAD);
                c.count("head_dim", k.head_dim, 1, HEAD);
                c.count("conv", k.conv, 1, 64);
            }
            LayerMixer::Mamba2(m) => {
                let sizes = [("heads", m.heads), ("head_dim", m.head_dim), ("groups", m.groups), ("state", m.state)];
                for (field, n) in sizes {
                    c.count(field, n, 1, HEAD);
                }
                c.count("conv", m.conv, 1, 64);
            }
        }
        c.problems
    }
}
