//! Deployment plans: which GPUs do what. `None` means "choose for me".
//!
//! Limit: equal workers in a slot, one plan a deployment; changes over time are other plans.

use serde::{Deserialize, Deserializer, Serialize};

use super::hardware::Device;
use super::json::{self, json_methods};
use super::level::{Level, Role};
use super::record::{choices, record};

record! {
    /// How one worker is split over GPUs.
    #[derive(Copy, Eq, Hash)]
    pub struct Parallel as parallel {
        /// Tensor-parallel width of attention and dense layers.
        pub tp: u32 = 1,
        /// Data-parallel attention ranks.
        pub dp: u32 = 1,
        /// Pipeline stages.
        pub pp: u32 = 1,
        /// Context-parallel ranks (prefill only).
        pub cp: u32 = 1,
        /// Expert-parallel width; None: ``tp * dp * cp / moe_tp``.
        pub ep: Option<u32> = None,
        /// Tensor-parallel width of the experts.
        pub moe_tp: u32 = 1,
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

record! {
    /// Equal workers that fill the prefill or the decode slot of a `PD` plan.
    pub struct Workers as workers or { count: 1, parallel: Parallel::default() } {
        /// Number of workers.
        pub count: u32,
        /// How each is split.
        pub parallel: Parallel,
        /// Decode: sequences per attention rank. Prefill: sequences per step and attention rank. None: chosen.
        pub batch: Option<u32> = None,
        /// Token budget of a prefill step; None: chosen.
        pub chunk_tokens: Option<u32> = None,
        /// Whether two half batches may overlap compute and communication; None: as `Serving` says.
        pub two_batch_overlap: Option<bool> = None,
        /// Hardware of these workers; None: the cluster's.
        pub device: Option<Device> = None,
    }
}

record! {
    /// Chunked prefill and decode on the same GPUs.
    pub struct Aggregated as aggregated or { parallel: Parallel::default() } {
        /// How each replica is split.
        pub parallel: Parallel,
        /// Sequences per attention rank; None: chosen.
        pub batch: Option<u32> = None,
        /// Token budget of a step per attention rank; None: chosen.
        pub chunk_tokens: Option<u32> = None,
        /// Equal copies.
        pub replicas: u32 = 1,
        /// Whether two half batches may overlap compute and communication; None: as `Serving` says.
        pub two_batch_overlap: Option<bool> = None,
        /// Prompt tokens join every n-th step at most; None: as `Serving` says.
        pub prefill_interval: Option<u32> = None,
    }
}

record! {
    /// One pool of an AFD unit.
    pub struct PoolPlan as pool {
        /// GPUs of the pool; odd sizes are welcome.
        pub gpus: u32,
        /// Attention pool: tensor-parallel width of a rank.
        pub tp: u32 = 1,
        /// FFN pool: expert-parallel width; None: as wide as the pool allows.
        pub ep: Option<u32> = None,
        /// FFN pool: tensor-parallel width of the experts.
        pub moe_tp: u32 = 1,
        /// Hardware of this pool; None: the cluster's.
        pub device: Option<Device> = None,
    }
}

choices! {
    /// Which side a shared part of the layer sits on.
    Side { Attention = "attention", Ffn = "ffn" }
    /// Whether both directions of the fabric work at once.
    Duplex { Full = "full", Half = "half" }
    /// How steps follow one another in the micro-batch pipeline.
    PipelineMode {
        /// Micro-batch m starts its next token as soon as its own last layer is done.
        Overlapped = "overlapped",
        /// Every step starts on an empty pipeline.
        Alone = "alone",
    }
}

record! {
    /// GPU ids of each pool; empty lists are chosen.
    #[derive(Eq, Hash)]
    pub struct Placement as placement {
        /// Ids of the attention pool of an AFD unit.
        pub attention: Vec<u32> = Vec::new(),
        /// Ids of the FFN pool of an AFD unit.
        pub ffn: Vec<u32> = Vec::new(),
        /// Ids of the prefill side of a `PD` plan.
        pub prefill: Vec<u32> = Vec::new(),
        /// Ids of the decode side of a `PD` plan.
        pub decode: Vec<u32> = Vec::new(),
    }
}

record! {
    /// Attention and experts on different GPUs (attention-FFN disaggregation).
    ///
    /// Alone it serves prefill and decode (level ``aggregated+afd``); in a slot of `PD` the slot decides.
    pub struct AfdPlan as afd {
        /// The attention pool.
        pub attention: PoolPlan,
        /// The FFN pool.
        pub ffn: PoolPlan,
        /// Micro-batches in flight; None: chosen.
        pub microbatches: Option<u32> = None,
        /// Sequences per attention rank, all micro-batches together; None: chosen.
        pub batch: Option<u32> = None,
        /// Token budget of a prefill step per attention rank; None: chosen.
        pub chunk_tokens: Option<u32> = None,
        /// ``"overlapped"``: a micro-batch starts its next token as soon as its own last layer is done;
        /// ``"alone"``: every step starts on an empty pipeline.
        pub pipeline: PipelineMode = PipelineMode::Overlapped,
        /// ``"full"``: both directions of the fabric at once; ``"half"``: they share one resource.
        pub duplex: Duplex = Duplex::Full,
        /// Side that holds the router.
        pub router: Side = Side::Attention,
        /// Side that holds the shared expert.
        pub shared_expert: Side = Side::Ffn,
        /// Side that holds the FFNs of dense layers; those of a model without experts always stand on the FFN pool.
        pub dense: Side = Side::Attention,
        /// Whether the FFN side adds up the experts' outputs before sending them back.
        pub prereduce: bool = false,
        /// GPU ids; None: best found. Groups, then pipeline stages, then units follow one another.
        pub placement: Option<Placement> = None,
        /// Equal groups of each attention pool's GPUs (whole attention ranks) that step on their own, each with
        /// ``microbatches`` of its own, and take turns on one FFN pool. The pool is kept busy by other groups while one
        /// computes attention, with no finer cut of a rank's batch. FFN GPUs serve, and read their weights for,
        /// ``attention_groups * microbatches`` micro-batches a layer.
        pub attention_groups: u32 = 1,
        /// Pipeline stages of a unit: each has both pools (a unit has ``pp`` times their GPUs) and ``layers / pp`` layers,
        /// uneven splits rounded up; dense layers in the first, LM head in the last. Decode keeps a batch a stage in
        /// flight: `batch` is of one of them.
        pub pp: u32 = 1,
        /// Equal AFD units side by side.
        pub units: u32 = 1,
        /// Of a unit that serves prefill and decode: prompt tokens join every n-th step at most; None: as `Serving` says.
        pub prefill_interval: Option<u32> = None,
    }
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

record! {
    /// Prefill and decode on different GPUs.
    pub struct PdPlan as pd {
        /// What fills the prefill slot: `Workers` or `AFD`.
        pub prefill: Slot,
        /// What fills the decode slot: `Workers` or `AFD`.
        pub decode: Slot,
    }
}

/// What a role of a plan runs on.
#[derive(Clone, Debug)]
pub(crate) struct Hardware<'a> {
    pub role: Role,
    /// The field that names it.
    pub path: String,
    pub gpus: u32,
    /// None: the cluster's.
    pub device: Option<&'a Device>,
}

impl Slot {
    fn hardware(&self, role: Role, path: &'static str) -> Vec<Hardware<'_>> {
        match self {
            Slot::Afd(a) => a.hardware(role, path),
            Slot::Workers(w) => {
                let gpus = w.count.saturating_mul(w.parallel.gpus());
                vec![Hardware { role, path: format!("{path}.device"), gpus, device: w.device.as_ref() }]
            }
        }
    }
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

json_methods! {
    Parallel => "parallel",
    Workers => "workers",
    Aggregated => "plan",
    PdPlan => "plan",
    AfdPlan => "plan",
    PoolPlan => "pool",
    Placement => "placement",
    Plan => "plan",
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
    pub(crate) fn gpus(&self) -> u32 {
        self.count.saturating_mul(self.parallel.gpus())
    }
}

impl Aggregated {
    pub(crate) fn gpus(&self) -> u32 {
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
    /// Side that holds the FFNs of dense layers. A model without experts has nothing else for an FFN pool.
    pub(crate) fn dense_side(&self, experts: bool) -> Side {
        if experts { self.dense } else { Side::Ffn }
    }

    /// GPUs of all units.
    pub(crate) fn gpus(&self) -> u32 {
        self.unit_gpus().saturating_mul(self.units)
    }

    /// GPUs of one unit: both pools of every pipeline stage.
    pub(crate) fn unit_gpus(&self) -> u32 {
        self.attention.gpus.saturating_add(self.ffn.gpus).saturating_mul(self.pp)
    }

    /// Its two pools, all units and stages together.
    pub(crate) fn hardware(&self, role: Role, path: &'static str) -> Vec<Hardware<'_>> {
        let pools = [("attention", &self.attention), ("ffn", &self.ffn)];
        let each = pools.into_iter().map(|(pool, p)| Hardware {
            role,
            path: format!("{path}.{pool}.device"),
            gpus: p.gpus.saturating_mul(self.stages()),
            device: p.device.as_ref(),
        });
        each.collect()
    }

    /// Pairs of pools: the stages of all units.
    pub(crate) fn stages(&self) -> u32 {
        self.units.saturating_mul(self.pp)
    }

    /// Attention GPUs of one group of one stage.
    pub(crate) fn group_gpus(&self) -> u32 {
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
    pub(crate) fn gpus(&self) -> u32 {
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
    /// The roles that may have hardware of their own.
    pub(crate) fn hardware(&self) -> Vec<Hardware<'_>> {
        match self {
            Plan::Aggregated(_) => Vec::new(),
            Plan::Afd(a) => a.hardware(Role::Both, "plan"),
            Plan::Pd(pd) => {
                [pd.prefill.hardware(Role::Prompts, "plan.prefill"), pd.decode.hardware(Role::Decode, "plan.decode")]
                    .concat()
            }
        }
    }

    pub(crate) fn afd_units(&self) -> Vec<&AfdPlan> {
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
