//! A model from a `config.json`: by its published class, with that class's spellings and defaults.
//!
//! A `model_type` or architecture that is not known is refused by name; with `trust_fields` it is read by the fields
//! that are known. A field that looks like structure and was not read is refused by name either way ([`super::unread`]).
//! All problems are named at once.
//!
//! Limit: language models of known classes; vision and audio towers are left out.

use serde_json::{Map, Value};

use super::class::{self, Class, Rule};
use super::fields::{Fields, kind};
use super::order::Blocks;
use super::quant;
use super::{attention, ffn, unread};
use crate::error::{Error, Problems, Result};
use crate::spec::attention::Attention;
use crate::spec::json;
use crate::spec::matrix::MatrixPart;
use crate::spec::model::{Model, Moe, USUAL_GROUP};

/// Where multimodal configs keep the language model.
const INSIDE: &[&[&str]] =
    &[&["text_config"], &["llm_config"], &["language_config"], &["thinker_config", "text_config"]];

impl Model {
    /// Reads a HF `config.json`. `quantization` (the content of `hf_quant_config.json`) is read
    /// from the same object when somebody merged the two files.
    pub fn from_hf(json: &Value, name: &str, source: &str) -> Result<Model> {
        Model::from_hf_fields(json, None, name, source, false)
    }

    /// Reads `config.json` beside the `hf_quant_config.json` that ModelOpt writes next to it.
    pub fn from_hf_with_quant(json: &Value, hf_quant: &Value, name: &str, source: &str) -> Result<Model> {
        Model::from_hf_fields(json, Some(hf_quant), name, source, false)
    }

    /// Reads a config; `trust`: by its fields where its class is not known.
    pub fn from_hf_fields(
        json: &Value,
        hf_quant: Option<&Value>,
        name: &str,
        source: &str,
        trust: bool,
    ) -> Result<Model> {
        let Value::Object(top) = json else {
            return Err(Error::spec("config", format!("must be a JSON object, is {}", kind(json)), ""));
        };
        let mut merged = top.clone();
        if let Some(q) = hf_quant.and_then(|q| q.get("quantization")) {
            merged.insert("quantization".into(), q.clone());
        }
        let (text, prefix) = language(&merged)?;
        read(&merged, text, &prefix, name, source, trust)
    }
}

/// The config of the language model, and what its fields are called from outside.
fn language(top: &Map<String, Value>) -> Result<(&Map<String, Value>, String)> {
    for path in INSIDE {
        let (mut at, mut prefix) = (top, String::new());
        let found = path.iter().all(|field| match at.get(*field) {
            Some(Value::Object(inner)) => {
                at = inner;
                prefix += &format!("{field}.");
                true
            }
            _ => false,
        });
        if found {
            return Ok((at, prefix));
        }
        if let Some(other) = top.get(path[0]).filter(|v| !v.is_null() && !v.is_object()) {
            return Err(Error::spec(path[0], format!("must be an object, is {}", kind(other)), ""));
        }
    }
    Ok((top, String::new()))
}

/// The class of a config, or what is wrong with its name.
fn class_of(top: &Map<String, Value>, text: &Map<String, Value>, trust: bool) -> Result<&'static Class> {
    let mut said: Vec<(&str, &Value)> = Vec::new();
    for config in [text, top] {
        said.extend(config.get("model_type").map(|v| ("model_type", v)));
        let listed = config.get("architectures").and_then(Value::as_array);
        said.extend(listed.into_iter().flatten().map(|v| ("architectures", v)));
    }
    if let Some(class) = class::named(&said) {
        return Ok(class);
    }
    if trust {
        return Ok(class::any());
    }
    let cure = "trust_fields=True reads it by the fields that are known";
    match said.iter().find_map(|(field, value)| Some((field, value.as_str()?))) {
        Some((field, name)) => {
            let near = class::nearest(name);
            let hint = if near.is_empty() { cure.to_string() } else { format!("{near} {cure}") };
            Err(Error::spec(*field, format!("{name:?} is no class that is known"), hint))
        }
        None => Err(Error::spec("model_type", "is missing, and architectures too: the class is not known", cure)),
    }
}

fn read(
    top: &Map<String, Value>,
    text: &Map<String, Value>,
    prefix: &str,
    name: &str,
    source: &str,
    trust: bool,
) -> Result<Model> {
    let mut problems = Problems::new();
    let class = match class_of(top, text, trust) {
        Ok(class) => class,
        // The rest is read all the same: all problems at once.
        Err(Error::Spec(found)) => {
            problems.0.extend(found.0);
            class::any()
        }
        Err(other) => return Err(other),
    };
    let mut f = Fields::new(text, prefix, class);
    if let Some(why) = &class.refused {
        f.wrong("model_type", format!("{why}: not supported"), "");
        unread::refuse(&mut f);
        unread::structure(&mut f, false);
        problems.0.extend(f.problems.0);
        return Err(Error::Spec(problems));
    }
    unread::refuse(&mut f);
    let mtp_layers = mtp(&mut f);
    let blocks = if class.has(Rule::Blocks) { super::order::blocks(&mut f) } else { None };
    let layers = match &blocks {
        Some(blocks) => Some(blocks.layer_mixers.len() as u32),
        None if class.has(Rule::Blocks) => None,
        None => f.need(&["num_hidden_layers", "n_layer"], 10_000),
    };
    let hidden = f.need(&["hidden_size", "n_embd"], 1_000_000);
    let vocab = f.need(&["vocab_size"], 100_000_000);
    let max_context = f.need(&["max_position_embeddings"], 1_000_000_000);
    let mixing = attention::read(&mut f, layers, hidden, mtp_layers.unwrap_or(0), blocks.as_ref());
    let gated = ffn::gated(&mut f);
    let own = |m: &attention::Mixing| matches!(m.attention, Attention::Own(_));
    let mla =
        mixing.as_ref().is_some_and(|m| m.attention.kv_shards(2) == 1 && (f.get("kv_lora_rank").is_some() || own(m)));
    let (streams, residual_block) = residual(&mut f);
    let moe = ffn::experts(&mut f, mla);
    let has_experts = ffn::has_experts(&f);
    let placed = ffn::placed(&mut f, layers, hidden, mtp_layers.unwrap_or(0), has_experts, blocks.as_ref());
    let tied = f.flag("tie_word_embeddings").filter(|_| f.says("tie_word_embeddings")).or(
        match top.get("tie_word_embeddings") {
            Some(Value::Bool(b)) => Some(*b),
            _ => f.class.usual("tie_word_embeddings").and_then(Value::as_bool),
        },
    );
    let architecture = architecture(top, text);
    let dense = placed.as_ref().map(|p| p.dense.as_slice()).unwrap_or_default();
    let parts = parts(mixing.as_ref(), moe.as_ref(), dense, blocks.as_ref());
    let experts = f.get("expert_dtype").and_then(Value::as_str).map(str::to_ascii_lowercase);
    let checkpoint = quant::read(top, text, &parts, mla, &mut f.problems);
    let checkpoint = checkpoint.map(|c| c.with_experts(experts.as_deref()));
    unread::structure(&mut f, true);
    problems.0.extend(f.problems.0);
    problems.into_result()?;
    let (Some(layers), Some(hidden), Some(vocab), Some(max_context), Some(mixing), Some(placed)) =
        (layers, hidden, vocab, max_context, mixing, placed)
    else {
        // Every `None` above has left a problem behind; this only keeps a slip from panicking.
        return Err(Error::spec("config", "could not be read", ""));
    };
    let (Some(mtp_layers), Some(gated), Some(checkpoint)) = (mtp_layers, gated, checkpoint) else {
        return Err(Error::spec("config", "could not be read", ""));
    };
    let mut model = Model {
        name: name.into(),
        source: source.into(),
        architecture,
        layers,
        hidden,
        vocab,
        max_context,
        attention: mixing.attention,
        dense_layers: placed.dense.iter().filter(|d| **d).count() as u32,
        dense_intermediate: placed.intermediate,
        moe,
        expert_layers: placed.expert_layers(),
        gated,
        mixers: mixing.mixers,
        layer_mixers: mixing.layer_mixers,
        streams: streams.unwrap_or(1),
        residual_block: residual_block.unwrap_or(0),
        tied_embeddings: tied.unwrap_or(false),
        mtp_layers,
        quant: checkpoint.formats,
        bf16_parts: Vec::new(),
        part_formats: Vec::new(),
        int4_group: checkpoint.int4_group.unwrap_or(USUAL_GROUP),
    };
    // Norms are listed as a part that only latent attention has.
    model.bf16_parts = checkpoint.bf16_parts.into_iter().filter(|p| model.has(*p)).collect();
    model.part_formats = checkpoint.part_formats;
    let mut problems = Problems::new();
    problems.nest("model", model.check());
    json::checked(model, problems)
}

/// Residual streams and blocks of classes that have them: in others nobody knows what the fields do.
fn residual(f: &mut Fields) -> (Option<u32>, Option<u32>) {
    let (mut streams, mut block) = (Some(1), Some(0));
    if f.class.usual("hc_mult").is_some() {
        streams = f.or(&["hc_mult"], 1, 64, 1);
        ["hc_sinkhorn_iters", "mhc"].iter().for_each(|n| f.seen(n));
    }
    if f.class.usual("attn_res_block_size").is_some() {
        block = f.or(&["attn_res_block_size"], 0, 10_000, 0);
    }
    (streams, block)
}

/// The parts of a model (None: its experts), and the layers that have each, as its checkpoint counts them.
fn parts(
    mixing: Option<&attention::Mixing>,
    moe: Option<&Moe>,
    dense: &[bool],
    blocks: Option<&Blocks>,
) -> Vec<(Option<MatrixPart>, Vec<u32>)> {
    let mut all: Vec<(Option<MatrixPart>, Vec<u32>)> = Vec::new();
    let mut has = |part: Option<MatrixPart>, layer: u32| match all.iter_mut().find(|p| p.0 == part) {
        Some(known) if known.1.contains(&layer) => {}
        Some(known) => known.1.push(layer),
        None => all.push((part, vec![layer])),
    };
    for (i, is_dense) in dense.iter().enumerate() {
        if let Some(m) = mixing {
            let own = m.layer_mixers.get(i).map_or(&[0][..], Vec::as_slice);
            for (place, number) in own.iter().enumerate() {
                let at = blocks.and_then(|b| b.mixers_at.get(i)?.get(place).copied()).unwrap_or(i as u32);
                let matrices = match number.checked_sub(1).and_then(|n| m.mixers.get(n as usize)) {
                    Some(other) => other.matrices(1),
                    None => m.attention.matrices(1),
                };
                matrices.iter().for_each(|matrix| has(Some(matrix.part), at));
            }
        }
        let at = blocks.and_then(|b| b.ffn_at.get(i).copied()).unwrap_or(i as u32);
        if moe.is_none() || *is_dense {
            has(Some(MatrixPart::DenseFfn), at);
        }
        if let Some(moe) = moe.filter(|_| !is_dense) {
            has(None, at);
            if moe.shared_intermediate > 0 {
                has(Some(MatrixPart::SharedExpert), at);
            }
        }
    }
    all
}

/// Layers of multi-token prediction.
fn mtp(f: &mut Fields) -> Option<u32> {
    const NAMES: &[&str] =
        &["num_nextn_predict_layers", "num_mtp_modules", "mtp_num_hidden_layers", "num_mtp_layers", "mtp_num_layers"];
    if f.flag("use_mtp") == Some(false) {
        NAMES.iter().for_each(|n| f.seen(n));
        return Some(0);
    }
    f.or(NAMES, 0, 1000, 0)
}

fn architecture(top: &Map<String, Value>, text: &Map<String, Value>) -> String {
    let of = |m: &Map<String, Value>| m.get("architectures")?.get(0)?.as_str().map(str::to_string);
    let kind = |m: &Map<String, Value>| m.get("model_type")?.as_str().map(str::to_string);
    of(text).or_else(|| of(top)).or_else(|| kind(text)).unwrap_or_else(|| "unknown".into())
}
