//! Gated DeltaNet: a gated delta rule over heads of keys and values. Source: arXiv:2412.06464; sizes as `config.json` of
//! Qwen3-Next names them.
//!
//! Limit: sizes and state; kernels are priced in `cost::family`.

use serde::{Deserialize, Serialize};

use super::facts::{Facts, HEAD, Rows, Running};
use crate::spec::hf::fields::Fields;
use crate::spec::limits::Check;

/// A gated delta rule over heads of keys and values (gated DeltaNet).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeltaNet {
    pub key_heads: u32,
    pub value_heads: u32,
    pub key_dim: u32,
    pub value_dim: u32,
    /// Tokens that the convolution before it sees.
    pub conv: u32,
}

impl DeltaNet {
    /// Its sizes as a config names them. None: a problem was noted.
    pub(crate) fn sizes(f: &mut Fields) -> Option<DeltaNet> {
        let key_heads = f.need(&["linear_num_key_heads"], HEAD);
        let value_heads = f.need(&["linear_num_value_heads"], HEAD);
        let key_dim = f.need(&["linear_key_head_dim"], HEAD);
        let value_dim = f.need(&["linear_value_head_dim"], HEAD);
        let conv = f.need(&["linear_conv_kernel_dim"], 64);
        Some(DeltaNet {
            key_heads: key_heads?,
            value_heads: value_heads?,
            key_dim: key_dim?,
            value_dim: value_dim?,
            conv: conv?,
        })
    }
}

impl Facts for DeltaNet {
    fn name(&self) -> &'static str {
        "gated DeltaNet"
    }

    fn heads(&self) -> (u32, &'static str) {
        (self.value_heads, "value heads of the gated DeltaNet")
    }

    fn running(&self) -> Option<Running> {
        let keys = f64::from(self.key_heads) * f64::from(self.key_dim);
        let values = f64::from(self.value_heads) * f64::from(self.value_dim);
        let heads = f64::from(self.value_heads);
        let convolved = 2.0 * keys + values;
        Some(Running {
            heads: self.value_heads,
            cuts: self.key_heads,
            head_state: f64::from(self.key_dim) * f64::from(self.value_dim),
            // Queries, keys and values; the output gate; decay and step of each head.
            columns_in: convolved + values + 2.0 * heads,
            convolved,
            columns_out: values,
            conv: self.conv,
            small: convolved * f64::from(self.conv) + 2.0 * heads + f64::from(self.value_dim),
            rows: Some(Rows { table: "gdn", keys: self.key_heads, values: self.value_heads }),
        })
    }

    fn check(&self, c: &mut Check) {
        let sizes = [("key_heads", self.key_heads), ("value_heads", self.value_heads)];
        for (field, n) in sizes.into_iter().chain([("key_dim", self.key_dim), ("value_dim", self.value_dim)]) {
            c.count(field, n, 1, HEAD);
        }
        c.count("conv", self.conv, 1, 64);
        if self.key_heads > 0 && !self.value_heads.is_multiple_of(self.key_heads) {
            let message = format!("{} key heads do not divide {} value heads", self.key_heads, self.value_heads);
            c.wrong("key_heads", message, "");
        }
    }
}
