//! Number formats, and which format each part of a model runs in.
//!
//! Limit: formats that kernel tables name; accumulation and scales in other formats are not told apart.

use serde::Serialize;

use crate::error::Problems;

use super::hardware::Device;
use super::json::json_methods;
use super::limits::Check;
use super::record::{choices, record};

choices! {
    /// A number format as the kernel tables name it.
    #[derive(PartialOrd, Ord)]
    Dtype {
        Bf16 = "bfloat16",
        /// Per-tensor or per-channel FP8.
        Fp8 = "fp8",
        /// FP8 with 128x128 weight blocks and 1x128 activation groups (DeepSeek checkpoints).
        Fp8Block = "fp8_block",
        /// FP4 with a scale per 16 values (Blackwell).
        Nvfp4 = "nvfp4",
        Int4Wo = "int4_wo",
        /// MXFP4 weights, BF16 activations (gpt-oss on Hopper, and the checkpoint's own format).
        W4a16Mxfp4 = "w4a16_mxfp4",
        /// MXFP4 weights, MXFP8 activations (gpt-oss on Blackwell).
        W4a8Mxfp4Mxfp8 = "w4a8_mxfp4_mxfp8",
        /// NVFP4 weights, BF16 activations (ModelOpt's W4A16_NVFP4; Marlin kernels, on any device).
        W4a16Nvfp4 = "w4a16_nvfp4",
    }
}

impl Dtype {
    /// Bytes a weight takes, scales included.
    pub fn weight_bytes(self) -> f64 {
        match self {
            Dtype::Bf16 => 2.0,
            Dtype::Fp8 => 1.0,
            Dtype::Fp8Block => 1.0 + 4.0 / (128.0 * 128.0),
            Dtype::Nvfp4 | Dtype::W4a16Nvfp4 => 0.5 + 1.0 / 16.0,
            Dtype::Int4Wo => 0.5 + 2.0 / 32.0,
            Dtype::W4a16Mxfp4 | Dtype::W4a8Mxfp4Mxfp8 => 0.5 + 1.0 / 32.0,
        }
    }

    /// Bytes of one cached key or value element, scales left to the cache's own layout.
    pub(crate) fn kv_bytes(self) -> f64 {
        match self {
            Dtype::Fp8 | Dtype::Fp8Block => 1.0,
            other => other.activation_bytes(),
        }
    }

    /// What dispatch carries when the experts run in this format: the activations they read.
    pub(crate) fn payload(self) -> Dtype {
        match self {
            Dtype::Int4Wo | Dtype::W4a16Mxfp4 | Dtype::W4a16Nvfp4 => Dtype::Bf16,
            other => other,
        }
    }

    /// Bytes one activation element takes on the wire or in memory, scales included.
    pub(crate) fn activation_bytes(self) -> f64 {
        match self {
            Dtype::Bf16 | Dtype::Int4Wo | Dtype::W4a16Mxfp4 | Dtype::W4a16Nvfp4 => 2.0,
            Dtype::Fp8 => 1.0,
            Dtype::Fp8Block => 1.0 + 4.0 / 128.0,
            Dtype::W4a8Mxfp4Mxfp8 => 1.0 + 1.0 / 32.0,
            Dtype::Nvfp4 => 0.5 + 1.0 / 16.0,
        }
    }
}

record! {
    /// Number formats; None means as the checkpoint says.
    #[derive(Copy, Eq, Hash)]
    pub struct Quant as quant {
        /// Format of dense weights.
        pub gemm: Option<Dtype> = None,
        /// Format of expert weights.
        pub moe: Option<Dtype> = None,
        /// Format of the attention arithmetic.
        pub attention: Option<Dtype> = None,
        /// Format of the KV cache.
        pub kv: Option<Dtype> = None,
        /// Payload of dispatch and A2F (combine and F2A go back in BF16).
        pub comm: Option<Dtype> = None,
    }
}

json_methods!(Quant => "quant");

/// Which format each part really runs in: a checkpoint's formats with the user's choices on top.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Formats {
    /// GEMMs of dense layers and of whatever the checkpoint does not single out.
    pub gemm: Dtype,
    /// Projections of the attention block (the format that most of its weights have).
    pub attention_gemm: Dtype,
    pub shared_gemm: Dtype,
    pub dense_gemm: Dtype,
    pub moe: Dtype,
    /// Attention arithmetic.
    pub attention: Dtype,
    pub kv: Dtype,
    pub comm: Dtype,
}

impl Quant {
    /// This choice on top of a checkpoint's formats. A changed expert format changes the payload
    /// of dispatch with it, unless that is chosen too.
    pub fn resolve(&self, checkpoint: &Quant) -> Quant {
        let comm = match (self.comm, self.moe) {
            (Some(comm), _) => Some(comm),
            (None, Some(moe)) if Some(moe) != checkpoint.moe => Some(moe.payload()),
            _ => checkpoint.comm,
        };
        Quant {
            gemm: self.gemm.or(checkpoint.gemm),
            moe: self.moe.or(checkpoint.moe),
            attention: self.attention.or(checkpoint.attention),
            kv: self.kv.or(checkpoint.kv),
            comm,
        }
    }
}

fn list(formats: &[Dtype]) -> String {
    let names: Vec<&str> = formats.iter().map(|d| d.name()).collect();
    format!("one of {}", names.join(", "))
}

impl Quant {
    /// Formats that a part can never have, whatever the device; paths are relative to it.
    pub fn check(&self) -> Problems {
        use Dtype::*;
        let mut c = Check::new();
        let parts: [(&str, Option<Dtype>, &[Dtype]); 5] = [
            ("gemm", self.gemm, &[Bf16, Fp8, Fp8Block, Nvfp4, Int4Wo, W4a16Nvfp4]),
            ("moe", self.moe, Dtype::ALL),
            ("attention", self.attention, &[Bf16, Fp8]),
            ("kv", self.kv, &[Bf16, Fp8]),
            ("comm", self.comm, &[Bf16, Fp8, Fp8Block, Nvfp4, W4a8Mxfp4Mxfp8]),
        ];
        for (part, format, possible) in parts {
            if let Some(f) = format
                && !possible.contains(&f)
            {
                c.wrong(part, format!("{} is no format of {part}", f.name()), list(possible));
            }
        }
        c.problems
    }

    /// Whether these formats, on top of the checkpoint's, run on a device; paths are relative to it.
    pub fn check_on(&self, checkpoint: &Quant, device: &Device) -> Problems {
        let mut problems = self.check();
        let mut c = Check::new();
        let q = self.resolve(checkpoint);
        for (part, format, chosen) in
            [("gemm", q.gemm, self.gemm), ("moe", q.moe, self.moe), ("attention", q.attention, self.attention)]
        {
            let Some(f) = format else { continue };
            let (flops, units, instead) = match f {
                Dtype::Nvfp4 => (device.fp4_flops, "FP4", "fp8_block"),
                Dtype::W4a8Mxfp4Mxfp8 => (device.fp4_flops, "FP4", "w4a16_mxfp4"),
                Dtype::Fp8 | Dtype::Fp8Block => (device.fp8_flops, "FP8", "bfloat16"),
                Dtype::Bf16 | Dtype::Int4Wo | Dtype::W4a16Mxfp4 | Dtype::W4a16Nvfp4 => continue,
            };
            if flops <= 0.0 {
                let whose = if chosen.is_some() { "" } else { " (the checkpoint's format)" };
                let message = format!("{}{whose} needs {units} units, {} has none", f.name(), device.name);
                c.wrong(part, message, format!("{part}='{instead}' runs there"));
            }
        }
        problems.0.extend(c.problems.0);
        problems
    }
}
