//! Kimi delta attention: a delta rule whose decay has a value for each of a head's. Source: arXiv:2510.26692; sizes as
//! `config.json` of Kimi-Linear names them.
//!
//! Limit: sizes and state; kernels are priced in `cost::family`.

use serde::{Deserialize, Serialize};

use super::facts::{Facts, Found, HEAD, Reading, Rows, Running};
use crate::spec::hf::fields::Fields;
use crate::spec::limits::Check;

/// Kimi delta attention: a delta rule whose decay has a value for each of a head's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KimiDelta {
    pub heads: u32,
    /// Width of keys and of values.
    pub head_dim: u32,
    pub conv: u32,
    /// Whether the output gate is one whole projection; else it goes through as many columns as a head has.
    pub full_gate: bool,
}

impl Facts for KimiDelta {
    fn name(&self) -> &'static str {
        "Kimi delta attention"
    }

    fn heads(&self) -> (u32, &'static str) {
        (self.heads, "heads of the Kimi delta attention")
    }

    fn running(&self) -> Option<Running> {
        let (heads, side) = (f64::from(self.heads), f64::from(self.head_dim));
        let wide = heads * side;
        let gate = if self.full_gate { wide } else { side };
        // From the narrow columns of decay (and gate) to all heads.
        let widened = side * wide * if self.full_gate { 1.0 } else { 2.0 };
        Some(Running {
            heads: self.heads,
            cuts: self.heads,
            head_state: side * side,
            columns_in: 3.0 * wide + heads + side + gate,
            convolved: 3.0 * wide,
            columns_out: wide,
            conv: self.conv,
            small: 3.0 * wide * f64::from(self.conv) + widened + heads + wide + side,
            rows: Some(Rows { table: "kda", keys: self.heads, values: self.heads }),
        })
    }

    fn check(&self, c: &mut Check) {
        c.count("heads", self.heads, 1, HEAD);
        c.count("head_dim", self.head_dim, 1, HEAD);
        c.count("conv", self.conv, 1, 64);
    }

    // Which layers have it; the others have the model's attention.
    fn read(Reading { f, layers, .. }: &mut Reading) -> Option<Option<Found<KimiDelta>>> {
        if !f.says("linear_attn_config") {
            // The newer form of GLM-5.3-Flash.
            return if f.says("linear_num_heads") { by_layer_types(f, *layers).map(Some) } else { Some(None) };
        }
        // Said twice.
        let again = ["linear_num_heads", "linear_head_dim", "linear_conv_kernel_dim", "linear_lower_bound"];
        again.iter().for_each(|n| f.seen(n));
        let layers = *layers;
        let heads = f.need(&["linear_attn_config.num_heads"], HEAD);
        let head_dim = f.need(&["linear_attn_config.head_dim"], HEAD);
        let conv = f.need(&["linear_attn_config.short_conv_kernel_size"], 64);
        let full_gate = f.flag("linear_attn_config.use_full_rank_gate").unwrap_or(false);
        let delta = f.layer_numbers("linear_attn_config.kda_layers", layers + 1);
        let full = f.layer_numbers("linear_attn_config.full_attn_layers", layers + 1);
        let (delta, full) = (delta?, full?);
        // GLM-5.3-Flash counts from zero, Kimi from one.
        let first = u32::from(!delta.contains(&0) && !full.contains(&0));
        if let Some(missing) = (first..layers + first).find(|l| delta.contains(l) == full.contains(l)) {
            let message = format!("and full_attn_layers do not share out the {layers} layers: see layer {missing}");
            f.wrong("linear_attn_config.kda_layers", message, "");
            return None;
        }
        let mixer = KimiDelta { heads: heads?, head_dim: head_dim?, conv: conv?, full_gate };
        let layer_mixers = (first..layers + first).map(|l| vec![u32::from(delta.contains(&l))]).collect();
        Some(Some(Found { attention: None, mixers: vec![mixer], layer_mixers }))
    }
}

/// Sizes by fields of their own, layers by `layer_types`. None: a problem was noted.
fn by_layer_types(f: &mut Fields, layers: u32) -> Option<Found<KimiDelta>> {
    let heads = f.need(&["linear_num_heads"], HEAD);
    let head_dim = f.need(&["linear_head_dim"], HEAD);
    let conv = f.need(&["linear_conv_kernel_dim"], 64);
    f.seen("linear_lower_bound");
    let linear = f.per_layer("layer_types", layers, 0)?.iter().map(|v| v.as_str() == Some("linear_attention"));
    let layer_mixers = linear.map(|l| vec![u32::from(l)]).collect();
    let mixer = KimiDelta { heads: heads?, head_dim: head_dim?, conv: conv?, full_gate: false };
    Some(Found { attention: None, mixers: vec![mixer], layer_mixers })
}
