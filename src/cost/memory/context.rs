//! What the memory formulas are asked with, and the weights they add up.
//!
//! Limit: bytes at rest; peaks while weights are loaded or graphs are captured are not counted.

use crate::cost::program::Program;
use crate::spec::dtype::Formats;
use crate::spec::{Assumptions, Device, Framework, Model, Quant, Serving, Workload};

/// What all memory formulas need.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    pub model: &'a Model,
    pub program: &'a Program,
    pub quant: &'a Quant,
    pub formats: &'a Formats,
    pub serving: &'a Serving,
    pub assumptions: &'a Assumptions,
    pub workload: &'a Workload,
    pub device: &'a Device,
    /// Whose memory manager.
    pub framework: Framework,
    pub node_gpus: u32,
}

/// Weight bytes of the parts of a model on one rank.
pub(super) struct Weights {
    pub attention: f64,
    pub dense: f64,
    pub router: f64,
    pub shared: f64,
    pub expert: f64,
    pub embedding: f64,
    pub head: f64,
    /// Projection of the MTP module; 0 without drafts.
    pub draft: f64,
}
