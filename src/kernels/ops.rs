//! The operators a layer program is made of, each compiled to a `Surface` from the default lane
//! of its table, or to its roofline (tagged) where the pack holds nothing.
//!
//! How a time is found (physics.md section 2): exact grid point - the measured value; inside -
//! interpolated; beyond along tokens, context and batch - the marginal cost goes on; along every other
//! axis the utilisation of the nearest measured points is held. A lane that lacks a format falls back
//! on the nearest one that exists, tagged as extrapolated; nothing here fails for want of data.
//!
//! Limit: an operator alone on its GPU; what runs beside it is `cost::overlap`'s business.

mod attention;
mod block;
mod block_sparse;
mod compressed;
mod dsa;
mod gemm;
mod latent;
mod memory;
mod mla;
mod moe;
mod peers;
mod rows;
mod running;

use std::sync::Arc;

use super::table::KernelDb;
use crate::spec::Device;

pub use attention::{context_attention, generation_attention};
pub use block_sparse::{block_sparse_block, block_sparse_kernel};
pub use compressed::{compressed_block, compressed_kernel};
pub use gemm::gemm;
pub use memory::{by_roofline, memory};
pub use mla::{mla_context, mla_context_wide, mla_generation, mla_kernel, sparse_generation_held};
pub(crate) use moe::{BALANCED_EXCESS, COMPARED_TOKENS};
pub use moe::{Served, grouped_moe, moe, served_moe};
pub use running::running;

/// Where kernel times come from.
#[derive(Clone, Debug)]
pub struct Source {
    pub db: Arc<KernelDb>,
    pub system: String,
    pub framework: String,
    pub device: Device,
    /// True: eager-mode launch floors are replaced by roofline + slope (`launch="graph"`).
    pub graph: bool,
    /// True: a lane that rows of other frameworks contradict is read by rule (`peers`, `moe`); false: as it was measured.
    pub by_rule: bool,
}

/// Shape of one expert layer as one rank sees it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ExpertShape {
    pub hidden: u32,
    pub intermediate: u32,
    pub topk: u32,
    pub experts: u32,
    pub moe_tp: u32,
    pub ep: u32,
    /// Three matrices, else two.
    pub gated: bool,
}
