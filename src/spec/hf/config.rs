//! HF `config.json` of the families GQA-MoE, MLA-MoE, MLA+DSA-MoE and dense GQA.
//!
//! Families are told apart by their fields (`kv_lora_rank` is MLA, `index_topk` is DSA, an expert
//! count is MoE); `model_type` alone decides nothing. A field that would change the cost model in
//! a way the crate does not know is refused by name, never ignored.

use serde_json::{Map, Value};

use crate::error::{Error, Problems, Result};

use super::expert_load::ExpertLoad;
use super::fields::{Fields, kind};
use super::hf_quant;
use super::json;
use super::model::{Attention, Indexer, Model, Moe, SlidingWindow};

/// Fields whose presence (with a value that switches something on) is refused, and why.
const REFUSED: &[(&str, &str)] = &[
    ("linear_attn_config", "linear attention layers"),
    ("linear_num_key_heads", "linear attention layers"),
    ("hybrid_override_pattern", "mamba layers"),
    ("layers_block_type", "mamba layers"),
    ("mamba_num_heads", "mamba layers"),
    ("ssm_state_size", "state-space layers"),
    ("sparse_attention_config", "block-sparse attention"),
    ("compress_ratios", "compressed attention"),
    ("compress_ratio", "compressed attention"),
    ("moe_latent_size", "latent mixture of experts"),
    ("routed_expert_hidden_size", "latent mixture of experts"),
    ("block_configs", "layers that differ from each other"),
    ("attention_chunk_size", "chunked attention"),
    ("interleave_moe_layer_step", "interleaved dense and MoE layers"),
    ("global_head_dim", "two attention shapes in one model"),
    ("num_global_key_value_heads", "two attention shapes in one model"),
    ("swa_num_key_value_heads", "two attention shapes in one model"),
    ("swa_head_dim", "two attention shapes in one model"),
    ("attention_k_eq_v", "shared keys and values"),
    ("num_kv_shared_layers", "KV shared between layers"),
    ("mla_use_output_gate", "gated attention output"),
    ("attn_output_gate", "gated attention output"),
    ("attention_output_gate", "gated attention output"),
    ("enable_moe_block", "dense and expert branches in one layer"),
];

/// A value that switches nothing on: null, false, zero, an empty list or object, all zeros.
fn off(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(b) => !b,
        Value::Number(n) => n.as_f64() == Some(0.0),
        Value::Array(list) => list.iter().all(off),
        Value::Object(map) => map.is_empty() || map.get("use_sparse_attention") == Some(&Value::Bool(false)),
        Value::String(s) => s.is_empty(),
    }
}

impl Model {
    /// Reads a HF `config.json`. `quantization` (the content of `hf_quant_config.json`) is read
    /// from the same object when somebody merged the two files.
    pub fn from_hf(json: &Value, name: &str, source: &str) -> Result<Model> {
        let Value::Object(top) = json else {
            return Err(Error::spec("config", format!("must be a JSON object, is {}", kind(json)), ""));
        };
        let (text, prefix) = match top.get("text_config") {
            None | Some(Value::Null) => (top, ""),
            Some(Value::Object(t)) => (t, "text_config."),
            Some(other) => {
                return Err(Error::spec("text_config", format!("must be an object, is {}", kind(other)), ""));
            }
        };
        read(top, text, prefix, name, source)
    }

    /// Reads `config.json` beside the `hf_quant_config.json` that ModelOpt writes next to it.
    pub fn from_hf_with_quant(json: &Value, hf_quant: &Value, name: &str, source: &str) -> Result<Model> {
        let mut merged = json.clone();
        if let (Value::Object(m), Some(q)) = (&mut merged, hf_quant.get("quantization")) {
            m.insert("quantization".into(), q.clone());
        }
        Model::from_hf(&merged, name, source)
    }
}

fn read(top: &Map<String, Value>, text: &Map<String, Value>, prefix: &str, name: &str, source: &str) -> Result<Model> {
    let mut f = Fields::new(text, prefix);
    refuse(&mut f);
    let layers = f.need(&["num_hidden_layers", "n_layer"], 10_000);
    let hidden = f.need(&["hidden_size", "n_embd"], 1_000_000);
    let vocab = f.need(&["vocab_size"], 100_000_000);
    let max_context = f.need(&["max_position_embeddings"], 1_000_000_000);
    let attention = attention(&mut f, layers, hidden);
    let experts = experts(&mut f, matches!(attention, Some(Attention::Mla { .. })));
    let is_moe = f.first(EXPERTS).is_some();
    let (dense_layers, dense_intermediate) = dense(&mut f, layers, is_moe);
    let mtp_layers = if f.flag("use_mtp") == Some(false) {
        Some(0)
    } else {
        f.or(&["num_nextn_predict_layers", "num_mtp_modules", "mtp_num_hidden_layers"], 0, 1000, 0)
    };
    let tied = f.flag("tie_word_embeddings").or(match top.get("tie_word_embeddings") {
        Some(Value::Bool(b)) => Some(*b),
        _ => None,
    });
    let architecture = architecture(top, text);
    let mla = matches!(attention, Some(Attention::Mla { .. }));
    let quant = hf_quant::read(top, text, layers.unwrap_or(0), dense_layers.unwrap_or(0), mla, &mut f.problems);
    f.problems.into_result()?;
    let (
        Some(layers),
        Some(hidden),
        Some(vocab),
        Some(max_context),
        Some(attention),
        Some(dense_layers),
        Some(dense_intermediate),
        Some(mtp_layers),
        Some(quant),
    ) = (layers, hidden, vocab, max_context, attention, dense_layers, dense_intermediate, mtp_layers, quant)
    else {
        // Every `None` above has left a problem behind; this only keeps a slip from panicking.
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
        attention,
        dense_layers,
        dense_intermediate,
        moe: experts,
        tied_embeddings: tied.unwrap_or(false),
        mtp_layers,
        quant: quant.formats,
        bf16_parts: Vec::new(),
    };
    // An exclusion list like `self_attn*` also matches parts that this model does not have.
    let has: Vec<_> = quant.bf16_parts.into_iter().filter(|p| model.has(*p)).collect();
    model.bf16_parts = has;
    let mut problems = Problems::new();
    problems.nest("model", model.check());
    json::checked(model, problems)
}

fn refuse(f: &mut Fields) {
    for (field, what) in REFUSED {
        let Some(value) = f.get(field) else { continue };
        let harmless = off(value) || (*field == "interleave_moe_layer_step" && value.as_u64() == Some(1));
        if !harmless {
            f.wrong(field, format!("{what}: not supported"), "");
        }
    }
    // MiniMax-01/M1 mark lightning-attention layers with 0 in a list of ones.
    if let Some(Value::Array(list)) = f.get("attn_type_list")
        && list.iter().any(|v| v.as_u64() != Some(1))
    {
        f.wrong("attn_type_list", "linear attention layers: not supported", "");
    }
    if let Some(Value::Array(list)) = f.get("indexer_types")
        && list.iter().any(|v| v.as_str() != Some("full"))
    {
        f.wrong("indexer_types", "an indexer shared between layers: not supported", "");
    }
}

fn attention(f: &mut Fields, layers: Option<u32>, hidden: Option<u32>) -> Option<Attention> {
    const HEAD: u32 = 65_536;
    let heads = f.need(&["num_attention_heads", "n_head"], HEAD);
    if f.get("kv_lora_rank").is_some() {
        let kv_lora = f.need(&["kv_lora_rank"], HEAD);
        let q_lora = f.or(&["q_lora_rank"], 0, HEAD, 0);
        let nope = f.need(&["qk_nope_head_dim"], HEAD);
        let rope = f.need(&["qk_rope_head_dim"], HEAD);
        let v = f.need(&["v_head_dim"], HEAD);
        let indexer = match f.first(&["index_topk", "index_n_heads", "index_head_dim"]) {
            None => None,
            Some(_) => {
                let topk = f.need(&["index_topk"], 100_000_000);
                let n = f.need(&["index_n_heads"], HEAD);
                let d = f.need(&["index_head_dim"], HEAD);
                Some(Indexer { heads: n?, head_dim: d?, topk: topk? })
            }
        };
        return Some(Attention::Mla {
            heads: heads?,
            q_lora: q_lora?,
            kv_lora: kv_lora?,
            nope: nope?,
            rope: rope?,
            v: v?,
            indexer,
        });
    }
    if f.get("index_topk").is_some() {
        f.wrong("index_topk", "a sparse-attention indexer without kv_lora_rank: not supported", "");
    }
    let kv_heads = f.or(&["num_key_value_heads"], 1, HEAD, heads.unwrap_or(1));
    let head_dim = match f.first(&["head_dim"]) {
        Some(_) => f.need(&["head_dim"], HEAD),
        None => match (hidden, heads) {
            (Some(h), Some(n)) if h % n == 0 => Some(h / n),
            (Some(h), Some(n)) => {
                f.wrong("head_dim", format!("is missing, and {n} heads do not divide hidden_size {h}"), "");
                None
            }
            _ => None,
        },
    };
    if let (Some(v), Some(d)) = (f.get("v_head_dim").and_then(Value::as_u64), head_dim)
        && v != u64::from(d)
    {
        f.wrong("v_head_dim", format!("{v} differs from head_dim {d}: not supported"), "");
    }
    let window = window(f, layers?)?;
    Some(Attention::Gqa { heads: heads?, kv_heads: kv_heads?, head_dim: head_dim?, window })
}

/// `Some(None)`: full attention everywhere. `None`: a problem was noted.
fn window(f: &mut Fields, layers: u32) -> Option<Option<SlidingWindow>> {
    let off = f.flag("use_sliding_window") == Some(false);
    let slides: Vec<bool> = if f.get("layer_types").is_some() {
        let list = f.per_layer("layer_types", layers)?;
        let mut slides = Vec::with_capacity(list.len());
        for value in list {
            match value.as_str() {
                Some("full_attention") => slides.push(false),
                Some("sliding_attention") => slides.push(true),
                _ => {
                    f.wrong("layer_types", format!("{}: not supported", kind(value)), "");
                    return None;
                }
            }
        }
        slides
    } else if f.get("sliding_window").is_none() || off {
        return Some(None);
    } else if let Some(pattern) = f.get("sliding_window_pattern") {
        let Some(n) = pattern.as_u64().filter(|n| *n > 0) else {
            f.wrong("sliding_window_pattern", format!("must be a whole number, is {}", kind(pattern)), "");
            return None;
        };
        (1..=u64::from(layers)).map(|i| i % n != 0).collect()
    } else if f.flag("use_sliding_window") == Some(true) {
        let full = f.or(&["max_window_layers"], 0, 10_000, 0)?;
        (0..layers).map(|i| i >= full).collect()
    } else {
        vec![true; layers as usize]
    };
    if !slides.contains(&true) {
        return Some(None);
    }
    let tokens = f.need(&["sliding_window"], 1_000_000_000)?;
    Some(Some(SlidingWindow { tokens, layers: slides }))
}

/// Spellings of the number of routed experts.
const EXPERTS: &[&str] = &["n_routed_experts", "num_local_experts", "num_experts"];

fn experts(f: &mut Fields, mla: bool) -> Option<Moe> {
    const WIDE: u32 = 10_000_000;
    f.first(EXPERTS)?;
    let experts = f.need(EXPERTS, 65_536);
    let topk = f.need(&["num_experts_per_tok", "num_experts_per_token", "experts_per_token"], 65_536);
    // Mixtral, gpt-oss and MiniMax-M2 have no dense layers and call the expert size intermediate_size.
    let intermediate = f.need(&["moe_intermediate_size", "intermediate_size"], WIDE);
    let shared = match f.first(&["shared_expert_intermediate_size", "shared_intermediate_size", "share_expert_dim"]) {
        Some((name, _)) => f.or(&[name], 0, WIDE, 0),
        None => {
            let n = f.or(&["n_shared_experts", "num_shared_experts"], 0, 1000, 0);
            n.zip(intermediate).map(|(n, i)| n.saturating_mul(i))
        }
    };
    let groups = f.or(&["n_group"], 1, 65_536, 1);
    let topk_groups = f.or(&["topk_group"], 1, 65_536, 1);
    Some(Moe {
        experts: experts?,
        topk: topk?,
        intermediate: intermediate?,
        shared_intermediate: shared?,
        groups: groups?,
        topk_groups: topk_groups?,
        // The measured rows of the DeepSeek family (Kimi and GLM-5 are built like it) follow a
        // power law of exponent 1.01, those of the others 1.2.
        distribution: if mla { ExpertLoad::PowerLaw101 } else { ExpertLoad::PowerLaw12 },
    })
}

/// Number of leading dense layers and their intermediate size.
fn dense(f: &mut Fields, layers: Option<u32>, is_moe: bool) -> (Option<u32>, Option<u32>) {
    const WIDE: u32 = 10_000_000;
    let Some(layers) = layers else { return (None, None) };
    if !is_moe {
        return (Some(layers), f.need(&["intermediate_size"], WIDE));
    }
    let mut dense = f.or(&["first_k_dense_replace"], 0, 10_000, 0);
    if f.or(&["decoder_sparse_step"], 1, 10_000, 1).is_some_and(|step| step != 1) {
        f.wrong("decoder_sparse_step", "interleaved dense and MoE layers: not supported", "");
    }
    // Three spellings of "which layers are dense"; only a leading run can be told to the cost model.
    let marks: Option<(&str, Vec<bool>)> = if let Some(Value::Array(_)) = f.get("moe_layer_freq") {
        f.per_layer("moe_layer_freq", layers).map(|l| ("moe_layer_freq", l.iter().map(off).collect()))
    } else if f.get("mlp_layer_types").is_some() {
        f.per_layer("mlp_layer_types", layers)
            .map(|l| ("mlp_layer_types", l.iter().map(|v| v.as_str() == Some("dense")).collect()))
    } else if let Some(Value::Array(list)) = f.get("mlp_only_layers")
        && !list.is_empty()
    {
        let only: Vec<u64> = list.iter().filter_map(Value::as_u64).collect();
        Some(("mlp_only_layers", (0..u64::from(layers)).map(|i| only.contains(&i)).collect()))
    } else {
        if f.or(&["moe_layer_freq"], 1, 10_000, 1).is_some_and(|freq| freq != 1) {
            f.wrong("moe_layer_freq", "interleaved dense and MoE layers: not supported", "");
        }
        None
    };
    if let Some((field, marks)) = marks {
        let leading = marks.iter().take_while(|d| **d).count();
        if marks[leading..].contains(&true) {
            f.wrong(field, "dense layers after the first MoE layer: not supported", "");
        }
        dense = Some(leading as u32);
    }
    match dense {
        Some(0) => (Some(0), Some(0)),
        Some(n) => (Some(n), f.need(&["dense_intermediate_size", "intermediate_size"], WIDE)),
        None => (None, None),
    }
}

fn architecture(top: &Map<String, Value>, text: &Map<String, Value>) -> String {
    let of = |m: &Map<String, Value>| m.get("architectures")?.get(0)?.as_str().map(str::to_string);
    let kind = |m: &Map<String, Value>| m.get("model_type")?.as_str().map(str::to_string);
    of(text).or_else(|| of(top)).or_else(|| kind(text)).unwrap_or_else(|| "unknown".into())
}
