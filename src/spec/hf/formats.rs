//! Number formats as quantisation tools name them: which of ours each is, or why none.
//!
//! A format without kernels that are known here is refused by name, never taken for the nearest one.
//!
//! Limit: formats with kernels here; any other is refused by name.

use serde_json::{Map, Value};

use crate::spec::dtype::Dtype;

/// A format and, for 4-bit integers, how many share a scale (0: a whole row).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Format {
    pub dtype: Dtype,
    pub group: u32,
}

impl From<Dtype> for Format {
    fn from(dtype: Dtype) -> Format {
        Format { dtype, group: 0 }
    }
}

/// Values of a row that share one scale where there is one a row: rows of published models are this long or longer.
pub(crate) const ROW: u32 = 4096;

/// ModelOpt's `quant_algo`. `Err`: what it is.
pub(crate) fn algorithm(name: &str, group: Option<u32>) -> Result<Format, String> {
    match name.to_ascii_uppercase().as_str() {
        "NVFP4" | "NVFP4_AWQ" => Ok(Dtype::Nvfp4.into()),
        "W4A16_NVFP4" => Ok(Dtype::W4a16Nvfp4.into()),
        "FP8" | "FP8_PER_CHANNEL_PER_TOKEN" => Ok(Dtype::Fp8.into()),
        "FP8_PB_WO" | "FP8_BLOCK_SCALES" | "FP8_PB_REAL" => Ok(Dtype::Fp8Block.into()),
        "W4A16_AWQ" | "INT4_AWQ" | "W4A16" => Ok(Format { dtype: Dtype::Int4Wo, group: group.unwrap_or(128) }),
        _ => Err(format!("{name:?}")),
    }
}

/// What a group of compressed-tensors says of its weights (and of what they are multiplied with).
pub(crate) fn weights(
    weights: &Map<String, Value>,
    inputs: Option<&Map<String, Value>>,
    packed: Option<&str>,
) -> Result<Format, String> {
    let number = |m: &Map<String, Value>, k: &str| m.get(k).and_then(Value::as_i64);
    let text = |m: &'_ Map<String, Value>, k: &str| m.get(k).and_then(Value::as_str).map(str::to_string);
    let bits = number(weights, "num_bits").unwrap_or(0);
    let kind = text(weights, "type").unwrap_or_else(|| "?".into());
    let strategy = text(weights, "strategy").unwrap_or_default();
    let group = number(weights, "group_size").and_then(|g| u32::try_from(g).ok()).filter(|g| *g > 0);
    let read = inputs.and_then(|i| number(i, "num_bits"));
    let name = match read {
        Some(read) => format!("{bits}-bit {kind} weights times {read}-bit inputs"),
        None => format!("{bits}-bit {kind} weights"),
    };
    match (bits, kind.as_str(), read) {
        (4, "int", None | Some(16)) => {
            let group = if strategy == "channel" { ROW } else { group.unwrap_or(ROW) };
            Ok(Format { dtype: Dtype::Int4Wo, group })
        }
        (4, "float", _) if packed.is_some_and(|p| p.starts_with("mxfp4")) || group == Some(32) => match read {
            Some(bits) if bits < 16 => Err(format!("MXFP4 weights times {bits}-bit inputs")),
            _ => Ok(Dtype::W4a16Mxfp4.into()),
        },
        (4, "float", Some(4)) => Ok(Dtype::Nvfp4.into()),
        (8, "float", Some(8)) if strategy == "block" => blocks(weights.get("block_structure")),
        (8, "float", Some(8)) => Ok(Dtype::Fp8.into()),
        (8, "float", None | Some(16)) if strategy == "block" => Err(format!("{name}, in blocks")),
        // Older files say nothing of the inputs.
        (8, "float", None) => Ok(Dtype::Fp8.into()),
        _ => Err(name),
    }
}

/// The blocks that share a scale: `[128, 128]`, or the text of it.
pub(crate) fn blocks(said: Option<&Value>) -> Result<Format, String> {
    let sizes: Vec<u64> = match said {
        None | Some(Value::Null) => vec![128, 128],
        Some(Value::Array(list)) => list.iter().filter_map(Value::as_u64).collect(),
        Some(Value::String(text)) => text.split('x').filter_map(|n| n.trim().parse().ok()).collect(),
        Some(_) => Vec::new(),
    };
    match (sizes.as_slice(), said) {
        ([128, 128], _) => Ok(Dtype::Fp8Block.into()),
        (_, Some(other)) => Err(other.to_string()),
        (_, None) => Err("no blocks".into()),
    }
}
