//! Number formats of a checkpoint, from `quantization_config` or ModelOpt's `hf_quant_config.json`.
//!
//! The rules, each as deployments do it:
//! - no quantisation entry: everything BF16.
//! - `fp8` with `weight_block_size`: `fp8_block`; without: `fp8`. ModelOpt, compressed-tensors, AWQ and GPTQ: the format of
//!   each group of modules, BF16 for what their lists leave out; several groups may give parts formats of their own.
//! - `mxfp4` (gpt-oss): experts `w4a16_mxfp4`, the rest BF16.
//! - 4-bit integers are weight-only: products read BF16 rows scaled by roofline, tagged as such.
//! - KV: as the checkpoint's KV scheme says; without one, FP8 for an FP8 checkpoint with MLA or DSA
//!   (the sparse kernels read FP8 rows), BF16 otherwise.
//! - attention arithmetic: BF16 over either cache, which is what the measured MLA and DSA rows are.
//! - payload of dispatch: what the experts read (`fp8_block`, `nvfp4`, ...), BF16 for weight-only formats.
//!
//! A part has the format that most of the layers that have it do (BF16 from half of them on).
//!
//! Limit: one format a part of the model: lists that give layers of one part several formats are read by what most
//! layers have.

use serde_json::{Map, Value};

use super::formats::{self, Format, ROW};
use super::patterns::Pattern;
use crate::error::Problems;
use crate::spec::dtype::{Dtype, Quant};
use crate::spec::matrix::MatrixPart;
use crate::spec::model::PartFormat;

pub(crate) struct Checkpoint {
    pub formats: Quant,
    pub bf16_parts: Vec<MatrixPart>,
    pub part_formats: Vec<PartFormat>,
    pub int4_group: Option<u32>,
}

impl Checkpoint {
    /// With the format that `expert_dtype` gives experts (DeepSeek-V4: MXFP4 weights, FP8 inputs) where the lists have
    /// them in the format of all others.
    pub(crate) fn with_experts(mut self, said: Option<&str>) -> Checkpoint {
        if said == Some("fp4") && self.formats.moe == self.formats.gemm {
            let format = Dtype::W4a8Mxfp4Mxfp8;
            self.formats.moe = Some(format);
            self.formats.comm = Some(format.payload());
        }
        self
    }
}

type Json = Map<String, Value>;

/// Where each part sits in a layer, as lists name it; the last entry is of the experts.
const MODULES: &[(Option<MatrixPart>, &[&str])] = &[
    (Some(MatrixPart::Q), &["self_attn.q_proj", "self_attn.qkv_proj", "mixer.q_proj", "attention.query_key_value"]),
    (Some(MatrixPart::Kv), &["self_attn.k_proj", "self_attn.qkv_proj", "mixer.k_proj", "attention.query_key_value"]),
    (Some(MatrixPart::QA), &["self_attn.q_a_proj", "self_attn.fused_qkv_a_proj"]),
    (Some(MatrixPart::QB), &["self_attn.q_b_proj"]),
    (Some(MatrixPart::KvA), &["self_attn.kv_a_proj_with_mqa", "self_attn.fused_qkv_a_proj"]),
    (Some(MatrixPart::KvB), &["self_attn.kv_b_proj"]),
    (Some(MatrixPart::O), &["self_attn.o_proj", "mixer.o_proj", "attention.dense"]),
    (Some(MatrixPart::Indexer), &["self_attn.indexer"]),
    (
        Some(MatrixPart::Linear),
        &["linear_attn.in_proj_qkv", "linear_attn.in_proj_qkvz", "mixer.in_proj", "self_attn.fused_qkvbfg_a_proj"],
    ),
    (
        Some(MatrixPart::SharedExpert),
        &["mlp.shared_experts", "mlp.shared_expert", "block_sparse_moe.shared_experts", "mixer.shared_experts"],
    ),
    (
        Some(MatrixPart::DenseFfn),
        &["mlp.gate_proj", "mlp.up_proj", "mlp.gate_up_proj", "feed_forward.gate_proj", "mixer.up_proj"],
    ),
    (None, &["mlp.experts", "block_sparse_moe.experts", "feed_forward.experts", "mixer.experts", "ffn.experts"]),
];

/// Formats by module.
struct Scheme {
    /// What is in a format and no list says otherwise.
    plain: Option<Format>,
    /// Modules with a format of their own.
    groups: Vec<(Vec<Pattern>, Format)>,
    ignored: Vec<Pattern>,
}

/// `has`: parts of the model (None: its experts), and the layers that have each.
pub(crate) fn read(
    top: &Json,
    text: &Json,
    has: &[(Option<MatrixPart>, Vec<u32>)],
    mla: bool,
    problems: &mut Problems,
) -> Option<Checkpoint> {
    let present = |m: &'_ Json, k: &str| m.get(k).filter(|v| !v.is_null()).cloned();
    let said: Vec<(&str, Value)> = [
        ("quantization_config", present(top, "quantization_config")),
        ("text_config.quantization_config", present(text, "quantization_config")),
        ("quantization", present(top, "quantization")),
        ("compression_config", present(top, "compression_config")),
    ]
    .into_iter()
    .filter_map(|(p, v)| v.map(|v| (p, v)))
    .collect();
    let (path, value) = said.first().cloned().unwrap_or(("", Value::Null));
    let q = match &value {
        Value::Null => {
            let formats = quant(Dtype::Bf16, Dtype::Bf16, Dtype::Bf16);
            return Some(Checkpoint { formats, bf16_parts: vec![], part_formats: vec![], int4_group: None });
        }
        Value::Object(q) => q,
        _ => {
            problems.push(path, "must be an object", "");
            return None;
        }
    };
    if q.get("quant_method").and_then(Value::as_str) == Some("mxfp4") {
        if !has.iter().any(|h| h.0.is_none()) {
            let message = "\"mxfp4\" without experts: no kernels of dense layers are known: not supported";
            problems.push(format!("{path}.quant_method"), message, "");
            return None;
        }
        let kv = kv_of(&said, problems)?.unwrap_or(Dtype::Bf16);
        let formats = quant(Dtype::Bf16, Dtype::W4a16Mxfp4, kv);
        return Some(Checkpoint { formats, bf16_parts: vec![], part_formats: vec![], int4_group: None });
    }
    let scheme = scheme(q, path, problems)?;
    let found = resolve(&scheme, has, path, problems)?;
    let kv = match kv_of(&said, problems)? {
        Some(kv) => kv,
        None if mla && matches!(found.gemm, Dtype::Fp8 | Dtype::Fp8Block) => Dtype::Fp8,
        None => Dtype::Bf16,
    };
    Some(Checkpoint {
        formats: quant(found.gemm, found.moe, kv),
        bf16_parts: found.bf16_parts,
        part_formats: found.part_formats,
        int4_group: found.int4_group,
    })
}

fn quant(gemm: Dtype, moe: Dtype, kv: Dtype) -> Quant {
    Quant { gemm: Some(gemm), moe: Some(moe), attention: Some(Dtype::Bf16), kv: Some(kv), comm: Some(moe.payload()) }
}

/// Formats of modules as the config says them. None: a problem was noted.
fn scheme(q: &Json, path: &str, problems: &mut Problems) -> Option<Scheme> {
    let text = |k: &str| q.get(k).and_then(Value::as_str).map(str::to_ascii_lowercase);
    let number = |k: &str| q.get(k).and_then(Value::as_i64);
    let group = number("group_size").and_then(|g| u32::try_from(g).ok()).filter(|g| *g > 0);
    let mut ignored = Vec::new();
    for list in ["exclude_modules", "ignore", "ignored_layers", "modules_to_not_convert"] {
        ignored.extend(patterns(q.get(list), &format!("{path}.{list}"), problems)?);
    }
    if let (Some("fp8"), Some(algo)) = (text("quant_method").as_deref(), text("moe_quant_algo")) {
        return experts_apart(q, &algo, path, problems);
    }
    let mut groups = Vec::new();
    let mut refuse = |field: &str, what: String| {
        let hint = "read: fp8, fbgemm_fp8, modelopt, mxfp4, compressed-tensors, awq, gptq";
        problems.push(format!("{path}.{field}"), format!("{what}: not supported"), hint);
        None
    };
    let plain = if let Some(algo) = text("quant_algo") {
        if algo == "mixed_precision" {
            if let Some(layers) = q.get("quantized_layers").and_then(Value::as_object) {
                return by_layer(layers, ignored, path, problems);
            }
            return compressed(q, ignored, path, problems);
        }
        match formats::algorithm(&algo, group) {
            Ok(format) => format,
            Err(what) => {
                let hint = "read: NVFP4, W4A16_NVFP4, FP8, FP8_BLOCK_SCALES, FP8_PB_WO, W4A16_AWQ, MIXED_PRECISION";
                problems.push(format!("{path}.quant_algo"), format!("{what}: not supported"), hint);
                return None;
            }
        }
    } else {
        let method = text("quant_method").unwrap_or_default();
        match method.as_str() {
            "fp8" if q.get("weight_block_size").is_some_and(|b| !b.is_null()) => {
                match formats::blocks(q.get("weight_block_size")) {
                    Ok(format) => format,
                    Err(what) => {
                        problems.push(
                            format!("{path}.weight_block_size"),
                            format!("{what}: not supported"),
                            "[128, 128]",
                        );
                        return None;
                    }
                }
            }
            "fp8" | "fbgemm_fp8" => Dtype::Fp8.into(),
            "awq" | "awq_marlin" | "gptq" | "gptq_marlin" => {
                let bits = number("bits").or(number("w_bit")).unwrap_or(4);
                if bits != 4 {
                    return refuse("bits", format!("{bits}-bit {method} weights"));
                }
                if method.starts_with("gptq") {
                    for (rule, own) in q.get("dynamic").and_then(Value::as_object).into_iter().flatten() {
                        match rule.strip_prefix("-:") {
                            Some(expression) => ignored.extend(Pattern::parse(&format!("re:.*{expression}"))),
                            None => return refuse("dynamic", format!("{rule:?} with {own}")),
                        }
                    }
                }
                let group = group.or(number("q_group_size").and_then(|g| u32::try_from(g).ok()).filter(|g| *g > 0));
                Format { dtype: Dtype::Int4Wo, group: group.unwrap_or(ROW) }
            }
            "compressed-tensors" | "modelopt" => return compressed(q, ignored, path, problems),
            other => return refuse("quant_method", format!("{other:?}")),
        }
    };
    // Tools that quantise some blocks only list them.
    if let Some(Value::Array(blocks)) = q.get("modules_in_block_to_quantize") {
        let flat: Vec<Value> = blocks.iter().flat_map(|b| b.as_array().cloned().unwrap_or(vec![b.clone()])).collect();
        let path = format!("{path}.modules_in_block_to_quantize");
        groups.push((patterns(Some(&Value::Array(flat)), &path, problems)?, plain));
        return Some(Scheme { plain: None, groups, ignored });
    }
    Some(Scheme { plain: Some(plain), groups, ignored })
}

/// An FP8 checkpoint whose experts were put into another format (`moe_quant_algo`): what its lists leave out stays as it was.
/// None: a problem was noted.
fn experts_apart(q: &Json, algo: &str, path: &str, problems: &mut Problems) -> Option<Scheme> {
    let base = match q.get("weight_block_size").filter(|b| !b.is_null()) {
        None => Ok(Dtype::Fp8.into()),
        sizes => formats::blocks(sizes).map_err(|what| ("weight_block_size", what)),
    };
    let group = q.get("group_size").and_then(Value::as_u64).and_then(|g| u32::try_from(g).ok());
    let experts = formats::algorithm(algo, group).map_err(|what| ("moe_quant_algo", what));
    match (base, experts) {
        (Ok(base), Ok(experts)) => {
            let names = MODULES.iter().filter(|m| m.0.is_none()).flat_map(|m| m.1);
            let names = names.filter_map(|name| Pattern::parse(&format!("layers*.{name}"))).collect();
            Some(Scheme { plain: Some(base), groups: vec![(names, experts)], ignored: Vec::new() })
        }
        (Err((field, what)), _) | (_, Err((field, what))) => {
            problems.push(format!("{path}.{field}"), format!("{what}: not supported"), "");
            None
        }
    }
}

/// None: a problem was noted.
fn patterns(list: Option<&Value>, path: &str, problems: &mut Problems) -> Option<Vec<Pattern>> {
    let entries = list.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    let mut all = Vec::new();
    for entry in entries {
        match Pattern::parse(entry) {
            Some(pattern) => all.push(pattern),
            None => {
                problems.push(path, format!("{entry:?} is no expression that can be read"), "");
                return None;
            }
        }
    }
    Some(all)
}

/// Every group of a compressed-tensors config.
fn compressed(q: &Json, ignored: Vec<Pattern>, path: &str, problems: &mut Problems) -> Option<Scheme> {
    let mut scheme = Scheme { plain: None, groups: Vec::new(), ignored };
    let Some(groups) = q.get("config_groups").and_then(Value::as_object).filter(|g| !g.is_empty()) else {
        problems.push(format!("{path}.config_groups"), "is missing: no format is known without", "");
        return None;
    };
    for (name, group) in groups {
        let at = format!("{path}.config_groups.{name}");
        let object = |k: &str| group.get(k).and_then(Value::as_object);
        let packed = group.get("format").or(q.get("format")).and_then(Value::as_str);
        let Some(weights) = object("weights") else { continue };
        let format = match formats::weights(weights, object("input_activations"), packed) {
            Ok(format) => format,
            Err(what) => {
                problems.push(format!("{path}.config_groups"), format!("{what}: not supported"), format!("in {name}"));
                return None;
            }
        };
        let targets = group.get("targets").and_then(Value::as_array);
        // Classes of modules: every linear layer.
        let classes = |t: &Value| t.as_str().is_some_and(|t| ["Linear", "LinearBase", "FusedMoE"].contains(&t));
        if targets.is_none_or(|t| t.iter().any(classes)) {
            scheme.plain.get_or_insert(format);
        } else {
            scheme.groups.push((patterns(group.get("targets"), &at, problems)?, format));
        }
    }
    Some(scheme)
}

/// ModelOpt's list of modules, each with its format; those of single experts count as the experts.
fn by_layer(layers: &Json, ignored: Vec<Pattern>, path: &str, problems: &mut Problems) -> Option<Scheme> {
    let mut scheme = Scheme { plain: None, groups: Vec::new(), ignored };
    let mut seen: Vec<(String, String)> = Vec::new();
    for (module, how) in layers {
        let Some((_, tail)) = module.split_once("layers.") else { continue };
        let tail = match tail.split_once(".experts.") {
            Some((before, _)) => format!("{before}.experts"),
            None => tail.to_string(),
        };
        let algo = how.get("quant_algo").and_then(Value::as_str).unwrap_or("?").to_string();
        let tail = if algo == "W4A16_NVFP4" { of_any_layer(&tail) } else { tail };
        if !seen.contains(&(tail.clone(), algo.clone())) {
            seen.push((tail, algo));
        }
    }
    let mut algorithms: Vec<String> = seen.iter().map(|(_, a)| a.clone()).collect();
    algorithms.sort();
    algorithms.dedup();
    for algo in algorithms {
        match formats::algorithm(&algo, None) {
            Ok(format) => {
                let mine = seen.iter().filter(|(_, a)| *a == algo);
                let name = |tail: &String| {
                    if tail.starts_with('*') { format!("layers{tail}") } else { format!("layers.{tail}") }
                };
                let names = mine.filter_map(|(tail, _)| Pattern::parse(&name(tail))).collect();
                scheme.groups.push((names, format));
            }
            Err(what) => {
                problems.push(format!("{path}.quantized_layers"), format!("{what}: not supported"), "");
                return None;
            }
        }
    }
    Some(scheme)
}

/// `3.mlp.shared_expert.up_proj` as `*.mlp.shared_expert`: ModelOpt gives weight-only NVFP4 to all modules of a kind, and
/// Nemotron-H counts mixers and FFNs apart.
fn of_any_layer(tail: &str) -> String {
    let inside = tail.split_once('.').map_or(tail, |(_, inside)| inside);
    let shared = inside.find(".shared_expert").and_then(|at| Some(at + 1 + inside[at + 1..].find('.')?));
    format!("*.{}", &inside[..shared.unwrap_or(inside.len())])
}

struct Resolved {
    gemm: Dtype,
    moe: Dtype,
    bf16_parts: Vec<MatrixPart>,
    part_formats: Vec<PartFormat>,
    int4_group: Option<u32>,
}

impl Scheme {
    /// The format of a module, tried under each of its names; None: left as it is.
    fn of(&self, layer: u32, modules: &[&str]) -> Option<Format> {
        let any = |patterns: &[Pattern]| patterns.iter().any(|p| modules.iter().any(|m| p.covers(layer, m)));
        if any(&self.ignored) {
            return None;
        }
        self.groups.iter().find(|(targets, _)| any(targets)).map(|g| g.1).or(self.plain)
    }

    /// The format that most of these layers have; None from half of them on that have none.
    fn most(&self, layers: &[u32], modules: &[&str]) -> Option<Format> {
        let mut found: Vec<(Format, usize)> = Vec::new();
        for format in layers.iter().filter_map(|l| self.of(*l, modules)) {
            match found.iter_mut().find(|f| f.0 == format) {
                Some(known) => known.1 += 1,
                None => found.push((format, 1)),
            }
        }
        let with: usize = found.iter().map(|f| f.1).sum();
        let plain = layers.len() - with;
        if !layers.is_empty() && 2 * plain >= layers.len() {
            return None;
        }
        found.into_iter().max_by_key(|f| f.1).map(|f| f.0)
    }
}

/// From formats of modules to formats of parts.
fn resolve(
    scheme: &Scheme,
    has: &[(Option<MatrixPart>, Vec<u32>)],
    path: &str,
    problems: &mut Problems,
) -> Option<Resolved> {
    let layers = |part: Option<MatrixPart>| has.iter().find(|h| h.0 == part).map(|h| h.1.as_slice());
    let with = |(part, modules): &(Option<MatrixPart>, &[&str])| Some((*part, scheme.most(layers(*part)?, modules)));
    let parts: Vec<(Option<MatrixPart>, Option<Format>)> = MODULES.iter().filter_map(with).collect();
    let of_experts = parts.iter().find(|p| p.0.is_none()).and_then(|p| p.1);
    let gemms: Vec<(MatrixPart, Option<Format>)> = parts.iter().filter_map(|(p, f)| p.map(|p| (p, *f))).collect();
    // What most parts have; a format of weights alone counts only where a part has it.
    let count = |f: Format| gemms.iter().filter(|g| g.1 == Some(f)).count();
    let known = scheme.groups.iter().map(|g| g.1).chain(scheme.plain);
    let weight_only = |f: &Format| matches!(f.dtype, Dtype::Int4Wo | Dtype::W4a16Mxfp4 | Dtype::W4a16Nvfp4);
    let usable: Vec<Format> =
        known.clone().filter(|f| count(*f) > 0 || (!weight_only(f) && Some(*f) == scheme.plain)).collect();
    let gemm = usable.into_iter().max_by_key(|f| count(*f)).map_or(Dtype::Bf16, |f| f.dtype);
    if gemm == Dtype::W4a16Mxfp4 {
        problems.push(path, "MXFP4 outside experts: no kernels are known: not supported", "");
        return None;
    }
    let moe = match (layers(None), of_experts) {
        (None, _) => gemm,
        (Some(_), found) => found.map_or(Dtype::Bf16, |f| f.dtype),
    };
    let (mut bf16_parts, mut part_formats) = (Vec::new(), Vec::new());
    if gemm != Dtype::Bf16 {
        for (part, format) in &gemms {
            match format {
                None => bf16_parts.push(*part),
                Some(f) if f.dtype != gemm => part_formats.push(PartFormat { part: *part, format: f.dtype }),
                Some(_) => {}
            }
        }
        let norms = |l: &&u32| scheme.ignored.iter().any(|p| p.names(**l, &["self_attn", "kv_a_layernorm"]));
        let latent = layers(Some(MatrixPart::KvA)).unwrap_or_default();
        if !latent.is_empty() && 2 * latent.iter().filter(norms).count() >= latent.len() {
            bf16_parts.push(MatrixPart::LatentNorms);
        }
    }
    let int4_group = known.filter(|f| f.dtype == Dtype::Int4Wo).map(|f| f.group.clamp(1, ROW)).next();
    Some(Resolved { gemm, moe, bf16_parts, part_formats, int4_group })
}

/// The KV format by the first entry that says one: `hf_quant_config.json` may, where `config.json` has formats of its own and
/// is silent on the cache. As `kv_scheme`.
fn kv_of(said: &[(&str, Value)], problems: &mut Problems) -> Option<Option<Dtype>> {
    for (path, value) in said {
        let Value::Object(q) = value else { continue };
        if let Some(kv) = kv_scheme(q, path, problems)? {
            return Some(Some(kv));
        }
    }
    Some(None)
}

/// `Some(None)`: the checkpoint does not say. `None`: a problem was noted.
fn kv_scheme(q: &Json, path: &str, problems: &mut Problems) -> Option<Option<Dtype>> {
    let field = if q.contains_key("kv_cache_quant_algo") { "kv_cache_quant_algo" } else { "kv_cache_scheme" };
    let bits = match q.get(field) {
        None | Some(Value::Null) => return Some(None),
        Some(Value::String(s)) => match s.to_ascii_lowercase().as_str() {
            // The scales stand in the checkpoint, or are found on the way; the cache is FP8 either way.
            "fp8" | "fp8_e4m3" | "static" | "dynamic" => 8,
            "none" | "auto" => return Some(None),
            _ => 0,
        },
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
