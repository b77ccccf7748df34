//! The FFN of each layer: experts, which layers have them, dense FFNs, and whether they have a gate.
//!
//! Limit: one width of experts and one of dense FFNs a model.

use serde_json::Value;

use super::class::Rule;
use super::fields::{Fields, off};
use super::order::Blocks;
use crate::spec::ExpertLoad;
use crate::spec::model::Moe;

const WIDE: u32 = 10_000_000;

/// Spellings of the number of routed experts.
const EXPERTS: &[&str] = &["n_routed_experts", "num_local_experts", "num_experts"];

/// Spellings of the width of latent experts.
const LATENT: &[&str] = &["moe_latent_size", "routed_expert_hidden_size"];

/// Activations of FFNs that have a gate, and of those that have none.
const WITH_GATE: &[&str] = &["silu", "swish", "swiglu", "swigluoai", "geglu", "situ"];

/// Whether FFNs have a gate: the class says so; without one, the activation. None: a problem was noted.
pub(crate) fn gated(f: &mut Fields) -> Option<bool> {
    const NAMES: &[&str] = &["hidden_act", "hidden_activation", "activation_function", "mlp_hidden_act", "activation"];
    let said = f.first(NAMES);
    NAMES.iter().for_each(|n| f.seen(n));
    if let Some(gate) = f.class.gate {
        return Some(gate);
    }
    match said {
        // Published classes with a gate have it whatever they put into it.
        _ if !std::ptr::eq(f.class, super::class::any()) => Some(true),
        None => Some(true),
        Some((_, Value::String(act))) if WITH_GATE.contains(&act.as_str()) => Some(true),
        Some((name, value)) => {
            let message = format!("{value}: whether the FFN has a gate is not known: not supported");
            f.wrong(name, message, "read as with a gate: silu, swiglu");
            None
        }
    }
}

pub(crate) fn has_experts(f: &Fields) -> bool {
    // One expert that every token goes to is a dense FFN.
    let several = |v: &Value| v.as_u64() != Some(1) || f.says("num_experts_per_tok");
    // Gemma-4: experts beside the dense FFN of every layer.
    let on = f.get("enable_moe_block").is_none_or(|v| !off(v));
    on && f.first(EXPERTS).is_some_and(|(_, v)| !off(v) && several(v))
}

pub(crate) fn experts(f: &mut Fields, mla: bool) -> Option<Moe> {
    const SHARED: &[&str] = &["shared_expert_intermediate_size", "shared_intermediate_size", "share_expert_dim"];
    const COUNT: &[&str] = &["n_shared_experts", "num_shared_experts"];
    if !has_experts(f) {
        // Sizes that a class names for the experts it may have.
        let none = [EXPERTS, SHARED, COUNT].into_iter().flatten();
        none.for_each(|n| f.seen(n));
        for unused in ["num_experts_per_tok", "moe_intermediate_size", "n_group", "topk_group", LATENT[0], LATENT[1]] {
            f.seen(unused);
        }
        return None;
    }
    let experts = f.need(EXPERTS, 65_536);
    let topk = f.need(&["num_experts_per_tok", "num_experts_per_token", "experts_per_token"], 65_536);
    // Mixtral, gpt-oss and MiniMax-M2 have no dense layers and call the expert size intermediate_size.
    let intermediate = f.need(&["moe_intermediate_size", "intermediate_size"], WIDE);
    let shared = match f.first(SHARED) {
        // Every token passes both dense FFNs of a layer beside its experts.
        _ if f.class.has(Rule::TwoBlocks) => f.need(&["intermediate_size"], WIDE).map(|w| w.saturating_mul(2)),
        Some((name, _)) => f.or(&[name], 0, WIDE, 0),
        None => {
            let n = f.or(COUNT, 0, 1000, 0);
            n.zip(intermediate).map(|(n, i)| n.saturating_mul(i))
        }
    };
    // Some say both: how many, and how wide they are together.
    COUNT.iter().for_each(|n| f.seen(n));
    let groups = f.or(&["n_group"], 1, 65_536, 1);
    let topk_groups = f.or(&["topk_group"], 1, 65_536, 1);
    // LongCat: choices that no expert computes; a token goes to those that do at their share.
    let idle = f.or(&["zero_expert_num"], 0, 65_536, 0);
    let topk = topk.zip(idle).zip(experts).map(|((k, idle), n)| match idle {
        0 => k,
        idle => (f64::from(k) * f64::from(n) / f64::from(n + idle)).round().max(1.0) as u32,
    });
    let latent = f.or(LATENT, 0, 1_000_000, 0);
    Some(Moe {
        experts: experts?,
        topk: topk?,
        intermediate: intermediate?,
        shared_intermediate: shared?,
        groups: groups?,
        topk_groups: topk_groups?,
        latent: latent?,
        // The measured rows of the DeepSeek family (Kimi and GLM-5 are built like it) follow a
        // power law of exponent 1.01, those of the others 1.2.
        distribution: if mla { ExpertLoad::PowerLaw101 } else { ExpertLoad::PowerLaw12 },
    })
}

/// Which layers have a dense FFN, and how wide it is.
pub(crate) struct Placed {
    pub dense: Vec<bool>,
    pub intermediate: u32,
}

impl Placed {
    /// For each layer whether it has experts; empty where the dense ones come first.
    pub(crate) fn expert_layers(&self) -> Vec<bool> {
        let leading = self.dense.iter().take_while(|d| **d).count();
        if self.dense[leading..].contains(&true) { self.dense.iter().map(|d| !d).collect() } else { Vec::new() }
    }
}

/// None: a problem was noted.
pub(crate) fn placed(
    f: &mut Fields,
    layers: Option<u32>,
    hidden: Option<u32>,
    mtp: u32,
    experts: bool,
    blocks: Option<&Blocks>,
) -> Option<Placed> {
    let dense = match blocks {
        Some(blocks) => blocks.dense.clone(),
        None if !experts => {
            PLACES.iter().for_each(|n| f.seen(n));
            vec![true; layers? as usize]
        }
        None => marks(f, layers?, mtp)?,
    };
    let intermediate = if !dense.contains(&true) {
        ["dense_intermediate_size", "intermediate_size"].iter().for_each(|n| f.seen(n));
        0
    } else if f.class.has(Rule::FourHidden) && f.first(&["intermediate_size"]).is_none() {
        hidden?.saturating_mul(4)
    } else {
        let wide = f.need(&["dense_intermediate_size", "intermediate_size"], WIDE)?;
        f.seen("intermediate_size");
        wide
    };
    if blocks.is_some_and(|b| b.dense.contains(&false)) && !experts {
        f.wrong("hybrid_override_pattern", "has layers with experts, the config has none", "");
        return None;
    }
    Some(Placed { dense, intermediate })
}

/// Every way to say which layers have experts.
const PLACES: &[&str] = &[
    "moe_layer_freq",
    "mlp_layer_types",
    "moe_layers_enum",
    "moe_layers",
    "moe_layer_start_index",
    "moe_layer_end_index",
    "moe_layer_interval",
    "interleave_moe_layer_step",
    "decoder_sparse_step",
    "moe_every_n_layer",
    "mlp_only_layers",
    "expert_layer_period",
    "expert_layer_offset",
    "first_k_dense_replace",
];

/// For each layer, whether it has a dense FFN. None: a problem was noted.
fn marks(f: &mut Fields, layers: u32, mtp: u32) -> Option<Vec<bool>> {
    PLACES.iter().for_each(|n| f.seen(n));
    if let Some(Value::Array(_)) = f.get("moe_layer_freq") {
        return f.per_layer("moe_layer_freq", layers, mtp).map(|l| l.iter().map(off).collect());
    }
    if f.get("mlp_layer_types").is_some() {
        let list = f.per_layer("mlp_layer_types", layers, mtp)?;
        return Some(list.iter().map(|v| v.as_str() == Some("dense")).collect());
    }
    for name in ["moe_layers_enum", "moe_layers"] {
        if f.get(name).is_some_and(|v| v.as_array().is_none_or(|l| !l.is_empty())) {
            let with: Vec<u32> = f.layer_numbers(name, layers)?;
            return Some((0..layers).map(|i| !with.contains(&i)).collect());
        }
    }
    if f.class.has(Rule::MoeRange) {
        let first = f.or(&["moe_layer_start_index"], 0, 10_000, 0)?;
        let last = match f.get("moe_layer_end_index").and_then(Value::as_i64) {
            Some(-1) => layers,
            _ => f.or(&["moe_layer_end_index"], 0, 10_000, layers)?,
        };
        let every = f.or(&["moe_layer_interval"], 1, 10_000, 1)?;
        return Some((0..layers).map(|i| i < first || i > last || !(i + 1).is_multiple_of(every)).collect());
    }
    if f.get("expert_layer_period").is_some() {
        let period = f.or(&["expert_layer_period"], 1, 10_000, 1)?;
        let offset = f.or(&["expert_layer_offset"], 0, 10_000, 0)?;
        return Some((0..layers).map(|i| i % period != offset).collect());
    }
    let every = f.or(&["interleave_moe_layer_step", "decoder_sparse_step", "moe_every_n_layer"], 1, 10_000, 1)?;
    let only = f.layer_numbers("mlp_only_layers", layers);
    if only.is_none() && f.get("mlp_only_layers").is_some() {
        return None;
    }
    let only = only.unwrap_or_default();
    let first = f.or(&["first_k_dense_replace"], 0, 10_000, 0)?;
    let freq = f.or(&["moe_layer_freq"], 1, 10_000, 1)?;
    let dense = |i: u32| i < first || !i.is_multiple_of(freq) || !(i + 1).is_multiple_of(every) || only.contains(&i);
    Some((0..layers).map(dense).collect())
}
