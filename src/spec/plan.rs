//! Deployment plans: which GPUs do what. `None` means "choose for me".

use serde::{Deserialize, Deserializer, Serialize};

use super::hardware::Device;
use super::json;
use super::level::Level;

fn one() -> u32 {
    1
}

/// How one worker is split. `tp*dp*cp == ep*moe_tp`; `ep` none means `tp*dp*cp/moe_tp`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
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
        self.stage_gpus().saturating_mul(self.pp)
    }

    /// GPUs of one pipeline stage.
    pub fn stage_gpus(&self) -> u32 {
        self.tp.saturating_mul(self.dp).saturating_mul(self.cp)
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
    /// Whether two half batches may overlap compute and communication; none: as `Serving` says.
    #[serde(default)]
    pub two_batch_overlap: Option<bool>,
}

impl Default for Workers {
    fn default() -> Self {
        Workers { count: 1, parallel: Parallel::default(), batch: None, chunk_tokens: None, two_batch_overlap: None }
    }
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
    /// Whether two half batches may overlap compute and communication; none: as `Serving` says.
    #[serde(default)]
    pub two_batch_overlap: Option<bool>,
    /// Prompt tokens join every n-th step at most; none: as `Serving` says.
    #[serde(default)]
    pub prefill_interval: Option<u32>,
}

impl Default for Aggregated {
    fn default() -> Self {
        Aggregated {
            parallel: Parallel::default(),
            batch: None,
            chunk_tokens: None,
            replicas: 1,
            two_batch_overlap: None,
            prefill_interval: None,
        }
    }
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
    /// Equal parts of each attention pool that step on their own and share its FFN pool.
    #[serde(default = "one")]
    pub attention_groups: u32,
    /// Pipeline stages of a unit: each has both pools and `layers / pp` layers.
    #[serde(default = "one")]
    pub pp: u32,
    #[serde(default = "one")]
    pub units: u32,
    /// Of a unit that serves prefill and decode: prompt tokens join every n-th step at most; none: as `Serving` says.
    #[serde(default)]
    pub prefill_interval: Option<u32>,
}

/// What fills the prefill or the decode slot of a P/D plan.
// Plans are made one at a time and passed by reference: a box would cost more than the space.
#[allow(clippy::large_enum_variant)]
#[derive(Clone, Debug, PartialEq, Serialize)]
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
#[allow(clippy::large_enum_variant)]
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Plan {
    Aggregated(Aggregated),
    Pd(PdPlan),
    Afd(AfdPlan),
}

impl Plan {
    pub fn level(&self) -> Level {
        match self {
            Plan::Aggregated(_) => Level::Aggregated,
            Plan::Afd(_) => Level::AggregatedAfd,
            Plan::Pd(PdPlan { prefill: Slot::Workers(_), decode: Slot::Workers(_) }) => Level::Pd,
            Plan::Pd(_) => Level::PdAfd,
        }
    }
}

impl<'de> Deserialize<'de> for Slot {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (kind, inside) = json::tagged(deserializer, &["workers", "afd"])?;
        if kind == "afd" { json::inside(inside).map(Slot::Afd) } else { json::inside(inside).map(Slot::Workers) }
    }
}

impl<'de> Deserialize<'de> for Plan {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (kind, inside) = json::tagged(deserializer, &["aggregated", "pd", "afd"])?;
        match kind.as_str() {
            "aggregated" => json::inside(inside).map(Plan::Aggregated),
            "pd" => json::inside(inside).map(Plan::Pd),
            _ => json::inside(inside).map(Plan::Afd),
        }
    }
}

impl Workers {
    pub fn gpus(&self) -> u32 {
        self.count.saturating_mul(self.parallel.gpus())
    }
}

impl Aggregated {
    pub fn gpus(&self) -> u32 {
        self.replicas.saturating_mul(self.parallel.gpus())
    }
}

impl PoolPlan {
    /// Expert-parallel width of an FFN pool: as asked, or the widest that divides the pool and has
    /// an expert for every rank.
    pub fn ep_for(&self, experts: u32) -> u32 {
        let ranks = self.gpus / self.moe_tp.max(1);
        self.ep
            .unwrap_or_else(|| (1..=ranks.min(experts)).rev().find(|ep| ranks.is_multiple_of(*ep)).unwrap_or(1))
            .max(1)
    }

    /// Expert-parallel groups of an FFN pool; each holds all experts.
    pub fn groups_for(&self, experts: u32) -> u32 {
        self.gpus / self.ep_for(experts).saturating_mul(self.moe_tp).max(1)
    }

    /// Attention ranks of an attention pool.
    pub fn ranks(&self) -> u32 {
        self.gpus / self.tp.max(1)
    }
}

impl AfdPlan {
    /// GPUs of all units.
    pub fn gpus(&self) -> u32 {
        self.unit_gpus().saturating_mul(self.units)
    }

    /// GPUs of one unit: both pools of every pipeline stage.
    pub fn unit_gpus(&self) -> u32 {
        self.attention.gpus.saturating_add(self.ffn.gpus).saturating_mul(self.pp)
    }

    /// Pairs of pools: the stages of all units.
    pub fn stages(&self) -> u32 {
        self.units.saturating_mul(self.pp)
    }

    /// Attention GPUs of one group of one stage.
    pub fn group_gpus(&self) -> u32 {
        self.attention.gpus / self.attention_groups.max(1)
    }
}

/// Layers of each of `pp` pipeline stages, in order: as even as whole layers go, the first stages one more.
pub fn stage_layers(layers: u32, pp: u32) -> impl Iterator<Item = std::ops::Range<u32>> {
    let pp = pp.max(1);
    let start = move |stage: u32| stage * (layers / pp) + stage.min(layers % pp);
    (0..pp).map(move |s| start(s)..start(s + 1))
}

impl Slot {
    pub fn gpus(&self) -> u32 {
        match self {
            Slot::Workers(w) => w.gpus(),
            Slot::Afd(a) => a.gpus(),
        }
    }
}

impl Plan {
    /// GPUs that the plan takes; those of the cluster beyond it stand idle.
    pub fn gpus(&self) -> u32 {
        match self {
            Plan::Aggregated(a) => a.gpus(),
            Plan::Pd(p) => p.prefill.gpus().saturating_add(p.decode.gpus()),
            Plan::Afd(a) => a.gpus(),
        }
    }

    /// Its AFD units, in either slot.
    pub fn afd_units(&self) -> Vec<&AfdPlan> {
        match self {
            Plan::Aggregated(_) => Vec::new(),
            Plan::Afd(a) => vec![a],
            Plan::Pd(pd) => [&pd.prefill, &pd.decode]
                .into_iter()
                .filter_map(|s| if let Slot::Afd(a) = s { Some(a) } else { None })
                .collect(),
        }
    }
}
