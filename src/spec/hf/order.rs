//! Layers that are not all of one kind: which mixers each has.
//!
//! Nemotron-H writes mixers and FFNs in one row (`M` Mamba-2, `*` attention, `E` experts, `-` a dense FFN). Here a layer
//! is one or more mixers and the FFN behind them, so `M*E` is one layer with two mixers.
//!
//! Limit: the four letters above, and one FFN at the end of a layer.

use serde_json::Value;

use super::fields::{Fields, kind};

/// A row of mixers and FFNs as layers.
pub(crate) struct Blocks {
    /// For each layer its mixers: 0 is attention, 1 Mamba-2.
    pub layer_mixers: Vec<Vec<u32>>,
    /// For each layer, whether its FFN is dense.
    pub dense: Vec<bool>,
    /// Where a layer's mixers stand in the row, and where its FFN does: checkpoints count so.
    pub mixers_at: Vec<Vec<u32>>,
    pub ffn_at: Vec<u32>,
}

/// None: a problem was noted.
pub(crate) fn blocks(f: &mut Fields) -> Option<Blocks> {
    let field = if f.says("hybrid_override_pattern") { "hybrid_override_pattern" } else { "layers_block_type" };
    let row: Vec<char> = match f.get(field) {
        Some(Value::String(pattern)) => pattern.chars().collect(),
        Some(Value::Array(list)) => {
            let letter = |v: &Value| match v.as_str() {
                Some("mamba") => 'M',
                Some("attention") => '*',
                Some("moe") => 'E',
                Some("mlp") => '-',
                _ => '?',
            };
            list.iter().map(letter).collect()
        }
        Some(other) => {
            f.wrong(field, format!("must be a text or a list, is {}", kind(other)), "");
            return None;
        }
        None => {
            f.wrong("hybrid_override_pattern", "is missing", "also read: layers_block_type");
            return None;
        }
    };
    f.seen("layers_block_type");
    if let Some(layers) = f.get("num_hidden_layers").and_then(Value::as_u64)
        && layers != row.len() as u64
    {
        f.wrong(field, format!("has {} entries for {layers} layers", row.len()), "");
        return None;
    }
    let mut all = Blocks { layer_mixers: Vec::new(), dense: Vec::new(), mixers_at: Vec::new(), ffn_at: Vec::new() };
    let (mut mixers, mut at) = (Vec::new(), Vec::new());
    for (number, letter) in (0..).zip(&row) {
        match letter {
            'M' | '*' => {
                mixers.push(u32::from(*letter == 'M'));
                at.push(number);
            }
            'E' | '-' if mixers.is_empty() => {
                f.wrong(field, "has two FFNs one after the other: not supported", "");
                return None;
            }
            'E' | '-' => {
                all.layer_mixers.push(std::mem::take(&mut mixers));
                all.dense.push(*letter == '-');
                all.mixers_at.push(std::mem::take(&mut at));
                all.ffn_at.push(number);
            }
            other => {
                f.wrong(field, format!("{other:?} is no kind of layer that is known"), "M, *, E or -");
                return None;
            }
        }
    }
    if !mixers.is_empty() || all.dense.is_empty() {
        f.wrong(field, "does not end with an FFN: not supported", "");
        return None;
    }
    Some(all)
}
