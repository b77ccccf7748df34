//! Number formats, and which format each part of a model runs in.

use serde::{Deserialize, Serialize};

/// A number format as the kernel tables name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Dtype {
    #[serde(rename = "bfloat16")]
    Bf16,
    /// Per-tensor or per-channel FP8.
    Fp8,
    /// FP8 with 128x128 weight blocks and 1x128 activation groups (DeepSeek checkpoints).
    Fp8Block,
    /// FP4 with a scale per 16 values (Blackwell).
    Nvfp4,
    #[serde(rename = "int4_wo")]
    Int4Wo,
    /// MXFP4 weights, BF16 activations (gpt-oss on Hopper, and the checkpoint's own format).
    #[serde(rename = "w4a16_mxfp4")]
    W4a16Mxfp4,
    /// MXFP4 weights, MXFP8 activations (gpt-oss on Blackwell).
    #[serde(rename = "w4a8_mxfp4_mxfp8")]
    W4a8Mxfp4Mxfp8,
}

impl Dtype {
    pub const ALL: [Dtype; 7] = [
        Dtype::Bf16,
        Dtype::Fp8,
        Dtype::Fp8Block,
        Dtype::Nvfp4,
        Dtype::Int4Wo,
        Dtype::W4a16Mxfp4,
        Dtype::W4a8Mxfp4Mxfp8,
    ];

    /// The name used in kernel tables, JSON and Python.
    pub fn name(self) -> &'static str {
        match self {
            Dtype::Bf16 => "bfloat16",
            Dtype::Fp8 => "fp8",
            Dtype::Fp8Block => "fp8_block",
            Dtype::Nvfp4 => "nvfp4",
            Dtype::Int4Wo => "int4_wo",
            Dtype::W4a16Mxfp4 => "w4a16_mxfp4",
            Dtype::W4a8Mxfp4Mxfp8 => "w4a8_mxfp4_mxfp8",
        }
    }

    /// Bytes a weight takes, scales included.
    pub fn weight_bytes(self) -> f64 {
        match self {
            Dtype::Bf16 => 2.0,
            Dtype::Fp8 => 1.0,
            Dtype::Fp8Block => 1.0 + 4.0 / (128.0 * 128.0),
            Dtype::Nvfp4 => 0.5 + 1.0 / 16.0,
            Dtype::Int4Wo => 0.5 + 2.0 / 32.0,
            Dtype::W4a16Mxfp4 | Dtype::W4a8Mxfp4Mxfp8 => 0.5 + 1.0 / 32.0,
        }
    }

    /// Bytes one activation element takes on the wire or in memory, scales included.
    pub fn activation_bytes(self) -> f64 {
        match self {
            Dtype::Bf16 | Dtype::Int4Wo | Dtype::W4a16Mxfp4 => 2.0,
            Dtype::Fp8 => 1.0,
            Dtype::Fp8Block => 1.0 + 4.0 / 128.0,
            Dtype::W4a8Mxfp4Mxfp8 => 1.0 + 1.0 / 32.0,
            Dtype::Nvfp4 => 0.5 + 1.0 / 16.0,
        }
    }
}

/// Which format each part runs in. `None` means "as the checkpoint says".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Quant {
    pub gemm: Option<Dtype>,
    pub moe: Option<Dtype>,
    /// Format of the attention arithmetic.
    pub attention: Option<Dtype>,
    pub kv: Option<Dtype>,
    /// Payload of dispatch and A2F (combine and F2A go back in BF16).
    pub comm: Option<Dtype>,
}
