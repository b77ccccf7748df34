//! Mamba-1: a state of every channel, steered by a step of low rank. Source: arXiv:2312.00752; sizes as `config.json` of
//! Jamba names them (`JambaMambaMixer` of transformers 5.24.0).
//!
//! Limit: sizes and state; no table measured these kernels, so they are rooflines.

use serde::{Deserialize, Serialize};

use super::facts::{Facts, Found, HEAD, Reading, Running};
use crate::spec::limits::Check;

/// A Mamba-1 layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mamba1 {
    /// Channels.
    pub inner: u32,
    /// Width of the state of a channel.
    pub state: u32,
    /// Columns that the step goes through.
    pub dt_rank: u32,
    pub conv: u32,
}

impl Facts for Mamba1 {
    fn name(&self) -> &'static str {
        "Mamba-1"
    }

    fn heads(&self) -> (u32, &'static str) {
        (self.inner, "Mamba-1 channels")
    }

    fn check(&self, c: &mut Check) {
        c.count("inner", self.inner, 1, 1_000_000);
        c.count("state", self.state, 1, HEAD);
        c.count("dt_rank", self.dt_rank, 1, HEAD);
        c.count("conv", self.conv, 1, 64);
    }

    fn read(Reading { f, layers, .. }: &mut Reading) -> Option<Option<Found<Mamba1>>> {
        if !f.says("mamba_dt_rank") {
            return Some(None);
        }
        let hidden = f.need(&["hidden_size"], 1_000_000);
        let expand = f.need(&["mamba_expand"], 64);
        let state = f.need(&["mamba_d_state"], HEAD);
        let conv = f.need(&["mamba_d_conv"], 64);
        let dt_rank = match f.get("mamba_dt_rank").and_then(|v| v.as_str()) {
            Some("auto") => hidden.map(|h| h.div_ceil(16)),
            _ => f.need(&["mamba_dt_rank"], HEAD),
        };
        let period = f.need(&["attn_layer_period"], 10_000);
        let offset = f.or(&["attn_layer_offset"], 0, 10_000, 0);
        let inner = expand?.saturating_mul(hidden?);
        let mixer = Mamba1 { inner, state: state?, dt_rank: dt_rank?, conv: conv? };
        let (period, offset) = (period?, offset?);
        let layer_mixers = (0..*layers).map(|l| vec![u32::from(l % period != offset)]).collect();
        Some(Some(Found { attention: None, mixers: vec![mixer], layer_mixers }))
    }

    fn running(&self) -> Option<Running> {
        let (inner, state, rank) = (f64::from(self.inner), f64::from(self.state), f64::from(self.dt_rank));
        Some(Running {
            heads: self.inner,
            cuts: self.inner,
            head_state: state,
            columns_in: 2.0 * inner,
            convolved: inner,
            columns_out: inner,
            conv: self.conv,
            // The convolution with its bias; step, input and output of the state, and norms of the three; the step's way
            // back with its bias; decay and skip of each channel.
            small: inner * f64::from(self.conv + 1)
                + inner * (rank + 2.0 * state)
                + (rank + 2.0 * state)
                + (rank + 1.0) * inner
                + inner * (state + 1.0),
            rows: None,
        })
    }
}
