//! Mamba-2. Source: arXiv:2405.21060; sizes as `config.json` of Nemotron-H names them.
//!
//! Limit: sizes and state of Mamba-2; the first Mamba is `mamba1`.

use serde::{Deserialize, Serialize};

use super::facts::{Facts, HEAD, Running};
use crate::spec::hf::fields::Fields;
use crate::spec::limits::Check;

/// A Mamba-2 layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mamba2 {
    pub heads: u32,
    pub head_dim: u32,
    /// Groups of heads that share what goes into and out of the state.
    pub groups: u32,
    /// Width of the state.
    pub state: u32,
    pub conv: u32,
}

impl Mamba2 {
    /// Its sizes as a config names them. None: a problem was noted.
    pub(crate) fn sizes(f: &mut Fields) -> Option<Mamba2> {
        let heads = f.need(&["mamba_num_heads"], HEAD);
        let head_dim = f.need(&["mamba_head_dim"], HEAD);
        let groups = f.need(&["n_groups"], HEAD);
        let state = f.need(&["ssm_state_size"], HEAD);
        let conv = f.need(&["conv_kernel"], 64);
        // What the sizes of heads say already, and how the kernel walks.
        ["expand", "chunk_size", "time_step_rank"].iter().for_each(|n| f.seen(n));
        Some(Mamba2 { heads: heads?, head_dim: head_dim?, groups: groups?, state: state?, conv: conv? })
    }
}

impl Facts for Mamba2 {
    fn name(&self) -> &'static str {
        "Mamba-2"
    }

    fn heads(&self) -> (u32, &'static str) {
        (self.heads, "Mamba-2 heads")
    }

    fn running(&self) -> Option<Running> {
        let inner = f64::from(self.heads) * f64::from(self.head_dim);
        let heads = f64::from(self.heads);
        let convolved = inner + 2.0 * f64::from(self.groups) * f64::from(self.state);
        Some(Running {
            heads: self.heads,
            cuts: self.heads,
            head_state: f64::from(self.head_dim) * f64::from(self.state),
            columns_in: convolved + inner + heads,
            convolved,
            columns_out: inner,
            conv: self.conv,
            small: convolved * f64::from(self.conv + 1) + 3.0 * heads + inner,
            rows: None,
        })
    }

    fn check(&self, c: &mut Check) {
        let sizes =
            [("heads", self.heads), ("head_dim", self.head_dim), ("groups", self.groups), ("state", self.state)];
        for (field, n) in sizes {
            c.count(field, n, 1, HEAD);
        }
        c.count("conv", self.conv, 1, 64);
    }
}
