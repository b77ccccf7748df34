//! Number formats of a checkpoint, from `quantization_config` or ModelOpt's `hf_quant_config.json`.
//!
//! The rules, each as deployments do it:
//! - no quantisation entry: everything BF16.
//! - `fp8` with `weight_block_size`: GEMMs and experts `fp8_block`; without: `fp8`.
//! - ModelOpt `NVFP4` / `FP8`: GEMMs and experts that format; modules on the exclusion list stay BF16.
//! - `mxfp4` (gpt-oss): experts `w4a16_mxfp4`, the rest BF16.
//! - compressed-tensors 4-bit integers: experts `int4_wo`, the rest BF16.
//! - KV: as the checkpoint's KV scheme says; without one, FP8 for an FP8 checkpoint with MLA or DSA
//!   (the sparse kernels read FP8 rows), BF16 otherwise.
//! - attention arithmetic: BF16 over either cache, which is what the measured MLA and DSA rows are.
//! - payload of dispatch: what the experts read (`fp8_block`, `nvfp4`, ...), BF16 for weight-only formats.

use serde_json::{Map, Value};

use crate::error::Problems;

use super::dtype::{Dtype, Quant};
use super::model::Part;

pub(crate) struct Checkpoint {
    pub formats: Quant,
    pub bf16_parts: Vec<Part>,
}

pub(crate) fn read(
    top: &Map<String, Value>,
    text: &Map<String, Value>,
    layers: u32,
    dense_layers: u32,
    mla: bool,
    problems: &mut Problems,
) -> Option<Checkpoint> {
    let present = |m: &'_ Map<String, Value>, k: &str| m.get(k).filter(|v| !v.is_null()).cloned();
    let (path, value) = [
        ("quantization_config", present(top, "quantization_config")),
        ("text_config.quantization_config", present(text, "quantization_config")),
        ("quantization", present(top, "quantization")),
    ]
    .into_iter()
    .find_map(|(p, v)| v.map(|v| (p, v)))
    .unwrap_or(("", Value::Null));
    let q = match &value {
        Value::Null => {
            return Some(Checkpoint { formats: formats(Dtype::Bf16, Dtype::Bf16, Dtype::Bf16), bf16_parts: vec![] });
        }
        Value::Object(q) => q,
        _ => {
            problems.push(path, "must be an object", "");
            return None;
        }
    };
    let (gemm, moe) = weights(q, path, problems)?;
    let kv = match kv_scheme(q, path, problems)? {
        Some(kv) => kv,
        None if mla && matches!(gemm, Dtype::Fp8 | Dtype::Fp8Block) => Dtype::Fp8,
        None => Dtype::Bf16,
    };
    let bf16_parts = if gemm == Dtype::Bf16 { vec![] } else { excluded(q, layers, dense_layers) };
    Some(Checkpoint { formats: formats(gemm, moe, kv), bf16_parts })
}

fn formats(gemm: Dtype, moe: Dtype, kv: Dtype) -> Quant {
    Quant { gemm: Some(gemm), moe: Some(moe), attention: Some(Dtype::Bf16), kv: Some(kv), comm: Some(moe.payload()) }
}

/// Formats of the GEMMs and of the experts.
fn weights(q: &Map<String, Value>, path: &str, problems: &mut Problems) -> Option<(Dtype, Dtype)> {
    let text = |k: &str| q.get(k).and_then(Value::as_str).map(str::to_ascii_lowercase);
    if let Some(algo) = text("quant_algo") {
        return match algo.as_str() {
            "nvfp4" => Some((Dtype::Nvfp4, Dtype::Nvfp4)),
            "fp8" => Some((Dtype::Fp8, Dtype::Fp8)),
            "fp8_pb_wo" | "fp8_block_scales" => Some((Dtype::Fp8Block, Dtype::Fp8Block)),
            other => {
                let hint = "read: NVFP4, FP8, FP8_BLOCK_SCALES";
                problems.push(format!("{path}.quant_algo"), format!("{other:?}: not supported"), hint);
                None
            }
        };
    }
    let method = text("quant_method").unwrap_or_default();
    match method.as_str() {
        "fp8" => {
            let block = match q.get("weight_block_size") {
                None | Some(Value::Null) => false,
                Some(b) if *b == Value::from(vec![128, 128]) => true,
                Some(b) => {
                    problems.push(format!("{path}.weight_block_size"), format!("{b}: not supported"), "[128, 128]");
                    return None;
                }
            };
            let f = if block { Dtype::Fp8Block } else { Dtype::Fp8 };
            Some((f, f))
        }
        "mxfp4" => Some((Dtype::Bf16, Dtype::W4a16Mxfp4)),
        "compressed-tensors" => compressed(q, path, problems),
        other => {
            let hint = "read: fp8, modelopt, mxfp4, compressed-tensors";
            problems.push(format!("{path}.quant_method"), format!("{other:?}: not supported"), hint);
            None
        }
    }
}

fn compressed(q: &Map<String, Value>, path: &str, problems: &mut Problems) -> Option<(Dtype, Dtype)> {
    let group = q.get("config_groups").and_then(Value::as_object).and_then(|g| g.values().next());
    let weights = group.and_then(|g| g.get("weights"));
    let bits = weights.and_then(|w| w.get("num_bits")).and_then(Value::as_u64);
    let kind = weights.and_then(|w| w.get("type")).and_then(Value::as_str);
    match (bits, kind) {
        // Weight-only experts; the exclusion list of these checkpoints covers all other layers.
        (Some(4), Some("int")) => Some((Dtype::Bf16, Dtype::Int4Wo)),
        (Some(4), Some("float")) if q.get("format").and_then(Value::as_str) == Some("nvfp4-pack-quantized") => {
            Some((Dtype::Nvfp4, Dtype::Nvfp4))
        }
        (Some(8), Some("float")) => {
            let block = weights.and_then(|w| w.get("strategy")).and_then(Value::as_str) == Some("block");
            let f = if block { Dtype::Fp8Block } else { Dtype::Fp8 };
            Some((f, f))
        }
        _ => {
            let found = format!("{}-bit {}", bits.unwrap_or(0), kind.unwrap_or("?"));
            problems.push(format!("{path}.config_groups"), format!("{found} weights: not supported"), "");
            None
        }
    }
}

/// `Some(None)`: the checkpoint does not say. `None`: a problem was noted.
fn kv_scheme(q: &Map<String, Value>, path: &str, problems: &mut Problems) -> Option<Option<Dtype>> {
    let field = if q.contains_key("kv_cache_quant_algo") { "kv_cache_quant_algo" } else { "kv_cache_scheme" };
    let bits = match q.get(field) {
        None | Some(Value::Null) => return Some(None),
        Some(Value::String(s)) if s.eq_ignore_ascii_case("fp8") => 8,
        Some(Value::Object(o)) if o.get("type").and_then(Value::as_str) == Some("float") => {
            o.get("num_bits").and_then(Value::as_u64).unwrap_or(0)
        }
        _ => 0,
    };
    if bits == 8 {
        return Some(Some(Dtype::Fp8));
    }
    problems.push(format!("{path}.{field}"), "is not FP8: not supported", "");
    None
}

/// Where each part sits in a layer, as exclusion lists name it.
const MODULES: &[(Part, &[&str])] = &[
    (Part::Q, &["self_attn.q_proj"]),
    (Part::Kv, &["self_attn.k_proj"]),
    (Part::QA, &["self_attn.q_a_proj"]),
    (Part::QB, &["self_attn.q_b_proj"]),
    (Part::KvA, &["self_attn.kv_a_proj_with_mqa"]),
    (Part::KvB, &["self_attn.kv_b_proj"]),
    (Part::O, &["self_attn.o_proj"]),
    (Part::Indexer, &["self_attn.indexer"]),
    (Part::SharedExpert, &["mlp.shared_experts", "mlp.shared_expert", "block_sparse_moe.shared_experts"]),
    (Part::DenseFfn, &["mlp.gate_proj"]),
];

/// Parts that the exclusion list leaves in BF16 in at least half of the layers that have them.
fn excluded(q: &Map<String, Value>, layers: u32, dense_layers: u32) -> Vec<Part> {
    let list = ["exclude_modules", "ignore", "modules_to_not_convert"].iter().find_map(|k| q.get(*k)?.as_array());
    let patterns: Vec<Pattern> = list.into_iter().flatten().filter_map(|v| v.as_str().map(Pattern::parse)).collect();
    let mut parts = Vec::new();
    for (part, modules) in MODULES {
        let range = match part {
            Part::DenseFfn => 0..dense_layers,
            Part::SharedExpert => dense_layers..layers,
            _ => 0..layers,
        };
        let total = range.len();
        let hit = range.filter(|l| patterns.iter().any(|p| modules.iter().any(|m| p.covers(*l, m)))).count();
        if total > 0 && 2 * hit >= total {
            parts.push(*part);
        }
    }
    let norms = (0..layers).filter(|l| patterns.iter().any(|p| p.names(*l, &["self_attn", "kv_a_layernorm"]))).count();
    if layers > 0 && 2 * norms >= layers as usize {
        parts.push(Part::LatentNorms);
    }
    parts
}

/// One entry of an exclusion list: `model.layers.3.self_attn*`, `*.mlp.shared_expert.*`, `lm_head`.
struct Pattern {
    /// None: any layer.
    layer: Option<u32>,
    /// Module names below the layer; empty: the whole layer.
    path: Vec<String>,
    /// Whether the entry was about layers at all.
    whole_layer: bool,
    /// The last name may go on (`indexer*`).
    open: bool,
}

impl Pattern {
    fn parse(entry: &str) -> Pattern {
        // Regex entries are read by their plain names; that is how checkpoints use them.
        let entry = entry.trim_start_matches("re:").replace('\\', "").replace(".*", "*");
        let open = entry.ends_with('*');
        let (layer, rest, in_layers) = match entry.split_once("layers.") {
            Some((_, after)) => {
                let (number, rest) = after.split_once(['.', '*']).unwrap_or((after, ""));
                (number.parse().ok(), rest.to_string(), number.is_empty() || number.parse::<u32>().is_ok())
            }
            None => match entry.split_once("layers*") {
                Some((_, rest)) => (None, rest.to_string(), true),
                None => (None, entry.clone(), false),
            },
        };
        let path: Vec<String> = rest.split(['.', '*']).filter(|s| !s.is_empty()).map(str::to_string).collect();
        let whole_layer = in_layers && path.is_empty();
        Pattern { layer, path, whole_layer, open }
    }

    /// Whether the entry is of this very module.
    fn names(&self, layer: u32, module: &[&str]) -> bool {
        self.layer.is_none_or(|l| l == layer) && self.path == module
    }

    fn covers(&self, layer: u32, module: &str) -> bool {
        if self.layer.is_some_and(|l| l != layer) {
            return false;
        }
        if self.path.is_empty() {
            // `model.layers.61*` also globs 610..., which no model has.
            return self.whole_layer && self.layer.is_some();
        }
        let names: Vec<&str> = module.split('.').collect();
        let same = |have: &[&str]| {
            have.len() == self.path.len()
                && have.iter().zip(&self.path).enumerate().all(|(i, (h, p))| {
                    let last = i + 1 == self.path.len();
                    h == p || (last && self.open && h.starts_with(p.as_str()))
                })
        };
        // An entry names the module itself, or something that contains it.
        let n = self.path.len();
        (n <= names.len() && same(&names[..n])) || (n <= names.len() && same(&names[names.len() - n..]))
    }
}
