//! What mixes the tokens of each layer: attention of one or two shapes, windows, running states.
//!
//! Limits: chunked attention (Llama-4) is taken for a window of a chunk, the most that a token of it sees (the mean is half).

use serde_json::Value;

use super::class::Rule;
use super::fields::{Fields, kind, off};
use super::order::Blocks;
use crate::spec::attention::{Attention, Indexer, OutputGate, Shape, SlidingWindow};
use crate::spec::layer_mixer::{LayerMixer, OtherAttention};
use crate::spec::mixers::{DeltaNet, Mamba2, OwnMixer, Reading};

const HEAD: u32 = 65_536;

/// Mixers of a model as its facts have them.
pub(crate) struct Mixing {
    pub attention: Attention,
    pub mixers: Vec<LayerMixer>,
    pub layer_mixers: Vec<Vec<u32>>,
}

/// What `layer_types` calls a layer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum LayerType {
    Full,
    Window,
    Linear,
}

/// None: a problem was noted.
pub(crate) fn read(
    f: &mut Fields,
    layers: Option<u32>,
    hidden: Option<u32>,
    mtp: u32,
    blocks: Option<&Blocks>,
) -> Option<Mixing> {
    let own = match layers {
        Some(layers) => OwnMixer::read(&mut Reading { f, layers, mtp })?,
        None => None,
    };
    if f.get("kv_lora_rank").is_some() {
        let attention = latent(f);
        // What a class says of heads that latent attention does not have.
        for derived in ["num_key_value_heads", "head_dim", "qk_head_dim", "index_topk_freq", "layer_types"] {
            f.seen(derived);
        }
        let attention = attention?;
        if let (true, Some(layers)) = (f.class.has(Rule::TwoBlocks), layers) {
            return Some(Mixing { attention, mixers: Vec::new(), layer_mixers: vec![vec![0, 0]; layers as usize] });
        }
        let (mixers, layer_mixers) = match (own, layers) {
            (Some(own), _) => (own.mixers.into_iter().map(LayerMixer::Own).collect(), own.layer_mixers),
            (None, Some(layers)) => shared_indexers(f, &attention, layers, mtp)?,
            (None, None) => Default::default(),
        };
        return Some(Mixing { attention, mixers, layer_mixers });
    }
    if let Some(own) = own {
        let attention = match own.attention {
            Some(kind) => Attention::Own(kind),
            None => grouped(f, hidden)?.0,
        };
        let mixers = own.mixers.into_iter().map(LayerMixer::Own).collect();
        return Some(Mixing { attention, mixers, layer_mixers: own.layer_mixers });
    }
    if f.get("index_topk").is_some() {
        f.wrong("index_topk", "a sparse-attention indexer without kv_lora_rank: not supported", "");
    }
    let (plain, shape) = grouped(f, hidden)?;
    let Attention::Gqa { heads, kv_heads, head_dim, .. } = plain else { return None };
    let global = global_shape(f, heads, kv_heads, head_dim, shape)?;
    let whole = |window| match &global {
        Some(attention) => attention.clone(),
        None => Attention::Gqa { heads, kv_heads, head_dim, window, shape },
    };
    if let Some(blocks) = blocks {
        let mamba = blocks.layer_mixers.iter().flatten().any(|m| *m == 1);
        let mixers = if mamba { vec![LayerMixer::Own(OwnMixer::Mamba2(Mamba2::sizes(f)?))] } else { Vec::new() };
        return Some(Mixing { attention: whole(None), mixers, layer_mixers: blocks.layer_mixers.clone() });
    }
    let layers = layers?;
    let kinds = kinds(f, layers, mtp)?;
    let linear = kinds.contains(&LayerType::Linear);
    let slides = kinds.contains(&LayerType::Window);
    let tokens = if slides { window_tokens(f)? } else { 0 };
    let other = match (&global, slides) {
        (Some(_), true) => Some(Attention::Gqa { heads, kv_heads, head_dim, window: None, shape }),
        (None, true) => other_shape(f, heads, kv_heads, head_dim, shape)?,
        (_, false) => None,
    };
    if !linear && other.is_none() {
        let window =
            slides.then(|| SlidingWindow { tokens, layers: kinds.iter().map(|k| *k == LayerType::Window).collect() });
        return Some(Mixing { attention: whole(window), mixers: Vec::new(), layer_mixers: Vec::new() });
    }
    let mut mixers = Vec::new();
    if linear {
        mixers.push(LayerMixer::Own(OwnMixer::GatedDelta(DeltaNet::sizes(f)?)));
    }
    if slides {
        let attention = other.unwrap_or_else(|| whole(None));
        mixers.push(LayerMixer::Attention(OtherAttention { attention, window: tokens }));
    }
    let number = |kind: &LayerType| match kind {
        LayerType::Full => 0,
        LayerType::Linear => 1,
        LayerType::Window => mixers.len() as u32,
    };
    let layer_mixers = kinds.iter().map(|k| vec![number(k)]).collect();
    Some(Mixing { attention: whole(None), mixers, layer_mixers })
}

fn latent(f: &mut Fields) -> Option<Attention> {
    let heads = f.need(&["num_attention_heads", "n_head"], HEAD);
    let kv_lora = f.need(&["kv_lora_rank"], HEAD);
    let q_lora = f.or(&["q_lora_rank"], 0, HEAD, 0);
    let nope = f.need(&["qk_nope_head_dim"], HEAD);
    let rope = f.or(&["qk_rope_head_dim"], 0, HEAD, 0);
    let v = f.need(&["v_head_dim"], HEAD);
    let indexer = match f.first(&["index_topk", "index_n_heads", "index_head_dim"]) {
        None => None,
        Some(_) => {
            let topk = f.need(&["index_topk"], 100_000_000);
            let n = f.need(&["index_n_heads"], HEAD);
            let d = f.need(&["index_head_dim"], HEAD);
            let pool = f.or(&["index_kpool"], 0, 1_000_000, 0);
            // One key of a pool of tokens, the last pool always among the picks.
            ["index_kpool_always_select_tail", "index_kpool_compress"].iter().for_each(|n| f.seen(n));
            Some(Indexer { heads: n?, head_dim: d?, topk: topk?, shared: false, pool: pool? })
        }
    };
    let gate = f.flag("mla_use_output_gate").unwrap_or(false);
    let (heads, q_lora, kv_lora) = (heads?, q_lora?, kv_lora?);
    Some(Attention::Mla { heads, q_lora, kv_lora, nope: nope?, rope: rope?, v: v?, indexer, gate })
}

/// Grouped-query attention, and what sets it apart.
fn grouped(f: &mut Fields, hidden: Option<u32>) -> Option<(Attention, Shape)> {
    let heads = f.need(&["num_attention_heads", "n_head"], HEAD);
    let kv_heads = match f.class.has(Rule::MultiQuery) {
        true => multi_query(f, heads),
        false => f.or(&["num_key_value_heads"], 1, HEAD, heads.unwrap_or(1)),
    };
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
    let v_dim = f.or(&["v_head_dim"], 1, HEAD, head_dim.unwrap_or(1));
    let q_rank = f.or(&["q_rank"], 0, 1_000_000, 0);
    let said = [f.flag("attn_output_gate"), f.flag("attention_output_gate"), f.flag("use_head_wise_attn_gate")];
    let gate = match said {
        [Some(true), ..] | [_, Some(true), _] => OutputGate::Element,
        [_, _, Some(true)] => OutputGate::Head,
        [Some(false), ..] | [_, Some(false), _] | [_, _, Some(false)] => OutputGate::None,
        _ if f.class.has(Rule::ElementGate) || f.class.has(Rule::GatedAttention) => OutputGate::Element,
        _ if f.class.has(Rule::HeadGate) => OutputGate::Head,
        _ => OutputGate::None,
    };
    let (head_dim, v_dim) = (head_dim?, v_dim?);
    let shape = Shape { v_dim: if v_dim == head_dim { 0 } else { v_dim }, q_rank: q_rank?, gate, shared_kv: false };
    let (heads, kv_heads) = (heads?, kv_heads?);
    Some((Attention::Gqa { heads, kv_heads, head_dim, window: None, shape }, shape))
}

/// Falcon and StarCoder: one KV head, unless the newer form of the class says how many.
fn multi_query(f: &mut Fields, heads: Option<u32>) -> Option<u32> {
    let newer = f.flag("new_decoder_architecture").unwrap_or(false);
    let one = f.flag("multi_query").unwrap_or(true);
    let said = f.or(&["num_key_value_heads"], 1, HEAD, heads.unwrap_or(1));
    if newer || !one { said } else { Some(1) }
}

/// The kind of each layer. None: a problem was noted.
fn kinds(f: &mut Fields, layers: u32, mtp: u32) -> Option<Vec<LayerType>> {
    let window = |slides: Vec<bool>| {
        Some(slides.into_iter().map(|s| if s { LayerType::Window } else { LayerType::Full }).collect::<Vec<_>>())
    };
    // Told in other words as well.
    for also in ["sliding_window_size", "use_sliding_window", "max_window_layers", "sliding_window_pattern"] {
        f.seen(also);
    }
    if f.get("layer_types").is_some() {
        let list = f.per_layer("layer_types", layers, mtp)?;
        let mut kinds = Vec::with_capacity(list.len());
        for value in list {
            kinds.push(match value.as_str() {
                Some("full_attention" | "attention" | "global_attention") => LayerType::Full,
                Some("sliding_attention" | "chunked_attention" | "sliding_window_attention") => LayerType::Window,
                Some("linear_attention") if f.get("linear_num_value_heads").is_some() => LayerType::Linear,
                _ => {
                    f.wrong("layer_types", format!("{}: not supported", kind(value)), "");
                    return None;
                }
            });
        }
        for derived in ["full_attention_interval", "hybrid_layer_pattern", "no_rope_layers", "attention_chunk_size"] {
            f.seen(derived);
        }
        return Some(kinds);
    }
    if f.get("linear_num_value_heads").is_some() {
        let every = f.or(&["full_attention_interval"], 1, 10_000, 4)?;
        return Some((1..=layers).map(|i| if i % every == 0 { LayerType::Full } else { LayerType::Linear }).collect());
    }
    if f.get("layer_window").is_some() {
        f.seen("attention_chunk_size");
        let list = f.per_layer("layer_window", layers, mtp)?;
        return window(list.iter().map(|v| v.as_u64() == Some(1)).collect());
    }
    if f.class.has(Rule::Chunked) {
        // Layers without RoPE see all tokens: a mark of 0, every fourth where there is no list.
        let full: Vec<bool> = match f.get("no_rope_layers") {
            Some(Value::Array(list)) if !list.is_empty() => {
                f.per_layer("no_rope_layers", layers, mtp)?.iter().map(|v| v.as_u64() == Some(0)).collect()
            }
            _ => (1..=layers).map(|i| i % 4 == 0).collect(),
        };
        let chunked = f.get("attention_chunk_size").is_some();
        return window(full.iter().map(|full| chunked && !full).collect());
    }
    if f.get("sliding_window").is_none() || f.flag("use_sliding_window") == Some(false) {
        return window(vec![false; layers as usize]);
    }
    let marks = match f.get("sliding_window_pattern") {
        Some(Value::String(text)) if !text.is_empty() && text.chars().all(|c| "LG".contains(c)) => {
            // Exaone-4: local and global layers, over and over; the last one is global.
            let pattern: Vec<bool> = text.chars().map(|c| c == 'L').collect();
            (0..layers as usize).map(|i| pattern[i % pattern.len()] && i + 1 < layers as usize).collect()
        }
        Some(pattern) => {
            let Some(n) = pattern.as_u64().filter(|n| *n > 0) else {
                f.wrong("sliding_window_pattern", format!("must be a whole number, is {}", kind(pattern)), "");
                return None;
            };
            let full = if f.class.has(Rule::FullFirst) { 1 } else { 0 };
            (1..=u64::from(layers)).map(|i| i % n != full % n).collect()
        }
        None => match f.get("max_window_layers") {
            Some(_) => {
                let full = f.or(&["max_window_layers"], 0, 10_000, 0)?;
                (0..layers).map(|i| i >= full).collect()
            }
            None => vec![true; layers as usize],
        },
    };
    window(marks)
}

fn window_tokens(f: &mut Fields) -> Option<u32> {
    let name = if f.class.has(Rule::Chunked) { "attention_chunk_size" } else { "sliding_window" };
    f.need(&[name, "sliding_window_size"], 1_000_000_000)
}

/// Layers with a window that have heads of their own: `Some(None)` where they have the model's.
fn other_shape(f: &mut Fields, heads: u32, kv_heads: u32, head_dim: u32, shape: Shape) -> Option<Option<Attention>> {
    let v_dim = if shape.v_dim == 0 { head_dim } else { shape.v_dim };
    let names = |own: &'static str, setting: &'static str| [own, setting];
    let number = |f: &mut Fields, names: [&'static str; 2], own: u32| f.or(&names, 1, HEAD, own);
    let other = "attention_other_setting";
    f.seen(other);
    let n = number(f, names("swa_num_attention_heads", "attention_other_setting.num_attention_heads"), heads);
    let n = match f.get("num_sliding_attention_heads") {
        Some(_) => f.need(&["num_sliding_attention_heads"], HEAD),
        None => n,
    };
    let kv = number(f, names("swa_num_key_value_heads", "attention_other_setting.num_attention_groups"), kv_heads);
    let d = number(f, names("swa_head_dim", "attention_other_setting.head_dim"), head_dim);
    let v = f.or(&["swa_v_head_dim"], 1, HEAD, if d == Some(head_dim) { v_dim } else { d.unwrap_or(v_dim) });
    let (n, kv, d, v) = (n?, kv?, d?, v?);
    if (n, kv, d, v) == (heads, kv_heads, head_dim, v_dim) {
        return Some(None);
    }
    let shape = Shape { v_dim: if v == d { 0 } else { v }, ..shape };
    Some(Some(Attention::Gqa { heads: n, kv_heads: kv, head_dim: d, window: None, shape }))
}

/// Gemma-4: layers without a window have heads of their own, and there values may be keys. `Some(None)`: the model's.
fn global_shape(f: &mut Fields, heads: u32, kv_heads: u32, head_dim: u32, shape: Shape) -> Option<Option<Attention>> {
    if f.get("global_head_dim").is_none() {
        return Some(None);
    }
    if f.get("hidden_size_per_layer_input").is_some_and(|v| !off(v)) {
        f.wrong("hidden_size_per_layer_input", "embeddings of each layer: not supported", "");
    }
    // Images are seen whole, texts as ever.
    if f.get("use_bidirectional_attention").and_then(Value::as_str) == Some("all") {
        f.wrong("use_bidirectional_attention", "attention to both sides: not supported", "");
    }
    let width = f.or(&["global_head_dim"], 1, HEAD, head_dim)?;
    let shared_kv = f.flag("attention_k_eq_v").unwrap_or(false);
    let kv = f.or(&["num_global_key_value_heads"], 1, HEAD, kv_heads)?;
    // Only layers whose values are keys have another number of heads.
    let kv = if shared_kv { kv } else { kv_heads };
    for unused in ["vocab_size_per_layer_input", "use_double_wide_mlp"] {
        if f.get("hidden_size_per_layer_input").is_none_or(off) {
            f.seen(unused);
        }
    }
    let shape = Shape { shared_kv, v_dim: 0, ..shape };
    Some(Some(Attention::Gqa { heads, kv_heads: kv, head_dim: width, window: None, shape }))
}

/// GLM-5.2: layers that take the picks of the indexer before them.
fn shared_indexers(
    f: &mut Fields,
    attention: &Attention,
    layers: u32,
    mtp: u32,
) -> Option<(Vec<LayerMixer>, Vec<Vec<u32>>)> {
    if f.get("indexer_types").is_none() {
        return Some(Default::default());
    }
    let list = f.per_layer("indexer_types", layers, mtp)?;
    let shared: Vec<bool> = list.iter().map(|v| v.as_str() == Some("shared")).collect();
    let mut other = attention.clone();
    match &mut other {
        Attention::Mla { indexer: Some(i), .. } if shared.contains(&true) => i.shared = true,
        _ => return Some(Default::default()),
    }
    let mixer = LayerMixer::Attention(OtherAttention { attention: other, window: 0 });
    Some((vec![mixer], shared.iter().map(|s| vec![u32::from(*s)]).collect()))
}
