//! Deployment plans: which GPUs do what. `None` means "choose for me".

use serde::{Deserialize, Serialize};

use super::hardware::Device;

fn one() -> u32 {
    1
}

/// How one worker is split. `tp*dp*cp == ep*moe_tp`; `ep` none means `tp*dp*cp/moe_tp`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parallel {
    #[serde(default = "one")]
    pub tp: u32,
    #[serde(default = "one")]
    pub dp: u32,
    #[serde(default = "one")]
    pub pp: u32,
    /// Context parallelism (prefill only).
    #[serde(default = "one")]
    pub cp: u32,
    #[serde(default)]
    pub ep: Option<u32>,
    #[serde(default = "one")]
    pub moe_tp: u32,
}

impl Default for Parallel {
    fn default() -> Self {
        Parallel { tp: 1, dp: 1, pp: 1, cp: 1, ep: None, moe_tp: 1 }
    }
}

impl Parallel {
    /// GPUs of one worker.
    pub fn gpus(&self) -> u32 {
        self.tp * self.dp * self.cp * self.pp
    }

    /// GPUs of one pipeline stage.
    pub fn stage_gpus(&self) -> u32 {
        self.tp * self.dp * self.cp
    }

    pub fn ep(&self) -> u32 {
        self.ep.unwrap_or(self.stage_gpus() / self.moe_tp.max(1)).max(1)
    }
}

/// `count` equal workers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Workers {
    pub count: u32,
    pub parallel: Parallel,
    /// Decode: sequences per attention rank. Prefill: sequences per step and attention rank.
    #[serde(default)]
    pub batch: Option<u32>,
    #[serde(default)]
    pub chunk_tokens: Option<u32>,
}

/// Chunked prefill and decode on the same GPUs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Aggregated {
    pub parallel: Parallel,
    /// Sequences per attention rank.
    #[serde(default)]
    pub batch: Option<u32>,
    #[serde(default)]
    pub chunk_tokens: Option<u32>,
    #[serde(default = "one")]
    pub replicas: u32,
}

/// One pool of an AFD unit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PoolPlan {
    pub gpus: u32,
    #[serde(default = "one")]
    pub tp: u32,
    /// FFN pool: expert-parallel width; none: as wide as the pool allows.
    #[serde(default)]
    pub ep: Option<u32>,
    #[serde(default = "one")]
    pub moe_tp: u32,
    /// Hardware of this pool; none: the cluster's.
    #[serde(default)]
    pub device: Option<Device>,
}

/// Which side a shared part of the layer sits on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Side {
    Attention,
    Ffn,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Duplex {
    Full,
    Half,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PipelineMode {
    /// Micro-batch m starts its next token as soon as its own last layer is done.
    Overlapped,
    /// Every step starts on an empty pipeline.
    Alone,
}

/// GPU ids of each pool.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Placement {
    pub attention: Vec<u32>,
    pub ffn: Vec<u32>,
    pub prefill: Vec<u32>,
    pub decode: Vec<u32>,
}

fn overlapped() -> PipelineMode {
    PipelineMode::Overlapped
}
fn full() -> Duplex {
    Duplex::Full
}
fn attention_side() -> Side {
    Side::Attention
}
fn ffn_side() -> Side {
    Side::Ffn
}

/// Attention and experts on different GPUs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AfdPlan {
    pub attention: PoolPlan,
    pub ffn: PoolPlan,
    #[serde(default)]
    pub microbatches: Option<u32>,
    /// Sequences per attention rank, all micro-batches together.
    #[serde(default)]
    pub batch: Option<u32>,
    #[serde(default)]
    pub chunk_tokens: Option<u32>,
    #[serde(default = "overlapped")]
    pub pipeline: PipelineMode,
    #[serde(default = "full")]
    pub duplex: Duplex,
    #[serde(default = "attention_side")]
    pub router: Side,
    #[serde(default = "ffn_side")]
    pub shared_expert: Side,
    #[serde(default = "attention_side")]
    pub dense: Side,
    #[serde(default)]
    pub prereduce: bool,
    #[serde(default)]
    pub placement: Option<Placement>,
    #[serde(default = "one")]
    pub units: u32,
}

/// What fills the prefill or the decode slot of a P/D plan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Slot {
    Workers(Workers),
    Afd(AfdPlan),
}

/// Prefill and decode on different GPUs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PdPlan {
    pub prefill: Slot,
    pub decode: Slot,
}

/// Any deployment plan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Plan {
    Aggregated(Aggregated),
    Pd(PdPlan),
    Afd(AfdPlan),
}

impl Plan {
    /// `aggregated`, `pd`, `aggregated+afd` or `pd+afd`.
    pub fn level(&self) -> &'static str {
        match self {
            Plan::Aggregated(_) => "aggregated",
            Plan::Afd(_) => "aggregated+afd",
            Plan::Pd(PdPlan { prefill: Slot::Workers(_), decode: Slot::Workers(_) }) => "pd",
            Plan::Pd(_) => "pd+afd",
        }
    }
}
