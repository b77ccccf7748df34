//! What servers do when nobody says otherwise, as data with a source for every entry.
//!
//! `python/disagg/data/serving/defaults.json`, compiled in. Here are its shape and the look-ups; what follows for
//! memory is in `cost::memory::server`, for formats, budgets and cadence in `serving::defaults`. Limits: of a
//! framework's many versions those with another rule are told apart, no more.

use std::sync::LazyLock;

use serde::Deserialize;

use super::assumptions::FirstToken;
use super::dtype::Dtype;
use super::json;
use super::serving::{Launch, Serving};
use super::{Device, Framework, Model};
use crate::units::GIB;

const TEXT: &str = include_str!("../../python/disagg/data/serving/defaults.json");

/// The whole file.
#[derive(Clone, Debug, Deserialize)]
pub struct Servers {
    pub about: String,
    pub devices: Vec<Reported>,
    pub context_gib: Sourced,
    pub communicators: Communicators,
    pub padding: Vec<Padding>,
    pub towers: Vec<Tower>,
    pub exchange: ExchangeBuffers,
    pub formats: Vec<FormatRule>,
    /// What drafts are worth where nobody says it.
    pub speculation: Speculation,
    /// Frameworks that overlap two half-batches.
    pub two_batch_overlap: Vec<Knob>,
    /// Frameworks that hold prompts back between ranks of attention data parallelism; nothing without those.
    pub cadence: Vec<Knob>,
    /// Which phases run from CUDA graphs.
    pub launch: Vec<LaunchRule>,
    /// Kernels that servers choose where tables have several.
    pub kernels: Vec<KernelRule>,
    /// Expert kernels that servers are set up with by layout.
    pub experts: Vec<ExpertRule>,
    /// What requests wait for outside of the steps that serve them.
    pub request_path: RequestPaths,
    pub frameworks: std::collections::BTreeMap<Framework, Vec<Server>>,
}

/// How a framework launches the kernels of each phase.
#[derive(Clone, Debug, Deserialize)]
pub struct LaunchRule {
    pub framework: Framework,
    pub decode: Launch,
    pub prefill: Launch,
    pub versions: String,
    pub source: String,
}

/// How a framework launches, if it is known.
pub fn launch(framework: Framework) -> Option<&'static LaunchRule> {
    servers().launch.iter().find(|r| r.framework == framework)
}

/// The kernel that a framework takes for a part of the model; conditions left out hold always.
#[derive(Clone, Debug, Deserialize)]
pub struct KernelRule {
    pub part: KernelPart,
    pub framework: Framework,
    /// First and last architecture.
    #[serde(default)]
    pub sm: Option<[u32; 2]>,
    /// Part of the name in the tables.
    pub lane: String,
    /// Tokens up to which it is taken.
    #[serde(default)]
    pub most_tokens: Option<f64>,
    pub source: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KernelPart {
    Attention,
    Moe,
}

/// The rule for a part on a device, if the framework whose tables are so called has one.
pub fn kernel_rule(tables: &str, sm: u32, part: KernelPart) -> Option<&'static KernelRule> {
    let holds = |r: &&KernelRule| {
        r.part == part && r.framework.name() == tables && r.sm.is_none_or(|[first, last]| (first..=last).contains(&sm))
    };
    servers().kernels.iter().find(holds)
}

/// The expert kernel that a framework takes for few tokens: part of its name, and tokens up to which.
pub(crate) fn few_tokens_kernel(tables: &str, sm: u32) -> Option<(&'static str, f64)> {
    kernel_rule(tables, sm, KernelPart::Moe).and_then(|r| Some((r.lane.as_str(), r.most_tokens?)))
}

/// The expert kernel that servers of a framework are set up with for a layout.
#[derive(Clone, Debug, Deserialize)]
pub struct ExpertRule {
    pub framework: String,
    /// First and last architecture.
    pub sm: [u32; 2],
    pub formats: Vec<Dtype>,
    /// With attention data parallelism, or without.
    pub attention_dp: bool,
    /// As one kernel with dispatch and combine.
    #[serde(default)]
    pub fused_dispatch: bool,
    /// Part of the name in the tables.
    pub lane: String,
    /// Frameworks whose tables hold that kernel, in the order to be asked; none: its own.
    #[serde(default)]
    pub of: Vec<String>,
    pub versions: String,
    pub source: String,
}

/// The rule for a layout, if a framework has one.
pub(crate) fn expert_rule(
    framework: &str,
    sm: u32,
    format: Dtype,
    attention_dp: bool,
    fused_dispatch: bool,
) -> Option<&'static ExpertRule> {
    servers().experts.iter().find(|r| {
        r.framework == framework
            && (r.sm[0]..=r.sm[1]).contains(&sm)
            && r.formats.contains(&format)
            && r.attention_dp == attention_dp
            && r.fused_dispatch == fused_dispatch
    })
}

/// A setting that a framework has, and since when.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Knob {
    pub framework: Framework,
    pub setting: String,
    pub versions: String,
    pub source: String,
}

/// How a framework overlaps two half-batches, if it can.
pub(crate) fn two_batch_overlap(framework: Framework) -> Option<&'static Knob> {
    servers().two_batch_overlap.iter().find(|k| k.framework == framework)
}

/// How a framework holds prompts back, if it can.
pub fn cadence(framework: Framework) -> Option<&'static Knob> {
    servers().cadence.iter().find(|k| k.framework == framework)
}

/// Drafts of MTP modules and EAGLE heads.
#[derive(Clone, Debug, Deserialize)]
pub struct Speculation {
    /// That a draft is accepted where those before it were.
    pub probability: f64,
    pub source: String,
}

/// What drafts are worth.
pub(crate) fn speculation() -> &'static Speculation {
    &servers().speculation
}

impl Serving {
    /// Tokens that one decode step adds to a sequence: 1 and the accepted draft tokens.
    pub fn tokens_per_step(&self) -> f64 {
        1.0 + self.accepted()
    }

    /// Mean accepted draft tokens per step: those said, else the drafts of each length that are accepted to their end,
    /// p1 + p1 p2 + p1 p2 p3 ...
    pub fn accepted(&self) -> f64 {
        if self.mtp == 0 {
            return 0.0;
        }
        self.acceptance.unwrap_or_else(|| {
            let default = [speculation().probability];
            let by_draft = self.draft_acceptance.as_deref().filter(|p| !p.is_empty()).unwrap_or(&default);
            let last = by_draft.len() - 1;
            let (mut sum, mut reached) = (0.0, 1.0);
            for draft in 0..self.mtp as usize {
                reached *= by_draft[draft.min(last)];
                sum += reached;
            }
            sum
        })
    }
}

/// A number and where it is from.
#[derive(Clone, Debug, Deserialize)]
pub struct Sourced {
    pub value: f64,
    pub source: String,
}

/// Capacity of a device as the driver reports it.
#[derive(Clone, Debug, Deserialize)]
pub struct Reported {
    pub device: String,
    pub nominal_gib: f64,
    pub reported_gib: f64,
    pub source: String,
}

/// Memory that is not PyTorch's: communicators, their buffers, workspaces.
#[derive(Clone, Debug, Deserialize)]
pub struct Communicators {
    pub alone_gib: f64,
    pub hopper_gib: f64,
    pub blackwell_gib: f64,
    pub least_device_gib: f64,
}

/// Sizes that a framework rounds up for its expert kernels: [hidden, intermediate].
#[derive(Clone, Debug, Deserialize)]
pub struct Padding {
    pub formats: Vec<Dtype>,
    pub hopper: [u32; 2],
    pub blackwell: [u32; 2],
    /// Whether the experts have biases (BF16), which their format does not count.
    pub biases: bool,
    pub source: String,
}

/// A part of a checkpoint beside its language model, whole on every rank.
#[derive(Clone, Debug, Deserialize)]
pub struct Tower {
    /// Part of the model's name.
    pub model: String,
    pub parameters: f64,
    pub source: String,
}

/// A number format that a server takes where the user names none; conditions left out hold always.
#[derive(Clone, Debug, Deserialize)]
pub struct FormatRule {
    pub part: FormatPart,
    pub format: Dtype,
    pub frameworks: Vec<Framework>,
    #[serde(default)]
    pub blackwell: Option<bool>,
    #[serde(default)]
    pub attention: Option<AttentionKind>,
    /// Formats of the checkpoint.
    #[serde(default)]
    pub gemm: Option<Vec<Dtype>>,
    #[serde(default)]
    pub moe: Option<Vec<Dtype>>,
    pub source: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FormatPart {
    Moe,
    Kv,
}

/// Latent attention without and with an indexer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AttentionKind {
    Mla,
    Dsa,
}

impl FormatRule {
    fn holds(&self, model: &Model, device: &Device, framework: Framework) -> bool {
        let attention = match (model.is_mla(), model.is_dsa()) {
            (_, true) => Some(AttentionKind::Dsa),
            (true, _) => Some(AttentionKind::Mla),
            _ => None,
        };
        let of = |wanted: &Option<Vec<Dtype>>, has: Option<Dtype>| {
            wanted.as_ref().is_none_or(|w| has.is_some_and(|h| w.contains(&h)))
        };
        self.frameworks.contains(&framework)
            && self.blackwell.is_none_or(|b| b == (device.is_blackwell() && device.has_fp4()))
            && (self.attention.is_none() || self.attention == attention)
            && of(&self.gemm, model.quant.gemm)
            && of(&self.moe, model.quant.moe)
    }
}

/// The rule for a part, if a server has one.
pub(crate) fn format_rule(
    model: &Model,
    device: &Device,
    framework: Framework,
    part: FormatPart,
) -> Option<&'static FormatRule> {
    servers().formats.iter().find(|r| r.part == part && r.holds(model, device, framework))
}

/// What requests wait for outside of the steps that serve them.
#[derive(Clone, Debug, Deserialize)]
pub struct RequestPaths {
    pub tokenizer_us_per_token: Sourced,
    /// Of the API server, for each request in turn.
    pub front_ms: Sourced,
    /// Of the router of P/D.
    pub router_ms: Sourced,
    pub rules: Vec<PathRule>,
}

/// How the engine of a framework takes requests in.
#[derive(Clone, Debug, Deserialize)]
pub struct PathRule {
    pub framework: Framework,
    /// First version (major, minor) it no longer holds for.
    pub before: Option<[u32; 2]>,
    /// Steps that are scheduled before the one that takes in what has just come.
    pub steps_ahead: f64,
    /// Steps of decode between a prompt's end on another worker and its first token, KV on its way and decode's own step not counted.
    pub hand_over_steps: f64,
    /// What the host takes to launch a layer of prompts kernel by kernel, of models with latent attention and experts; 0 where nobody published it.
    pub launch_ms_per_layer: f64,
    pub source: String,
}

/// The rule of a version; none: the newest.
pub fn path_rule(framework: Framework, version: Option<[u32; 2]>) -> Option<&'static PathRule> {
    let holds = |r: &&PathRule| r.framework == framework && r.before.is_none_or(|b| version.is_some_and(|v| v < b));
    servers().request_path.rules.iter().find(holds)
}

/// Buffers of the all-to-all kernels.
#[derive(Clone, Debug, Deserialize)]
pub struct ExchangeBuffers {
    /// Tokens a rank that the low-latency kernels of DeepEP are set up for.
    pub low_latency_tokens: std::collections::BTreeMap<Framework, u32>,
    pub one_sided_mib: std::collections::BTreeMap<Framework, f64>,
}

/// How a framework counts its share of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Law {
    /// A share of all there is, everything but the CUDA context inside it (vLLM).
    OfTotal,
    /// A share of what is free before loading, for weights and KV; activations and graphs outside (SGLang).
    OfFreeBefore,
    /// A share of what is free after loading and a run at the token budget, for KV alone (TensorRT-LLM).
    OfFreeAfter,
}

/// One framework, of a range of versions.
#[derive(Clone, Debug, Deserialize)]
pub struct Server {
    pub versions: String,
    /// First version (major, minor) it no longer holds for.
    pub before: Option<[u32; 2]>,
    pub law: Law,
    /// None: by formula (`static`).
    pub fraction: Option<f64>,
    pub graphs_inside: bool,
    pub graph_mib_per_layer: f64,
    pub max_num_seqs: u32,
    /// FP32 words that the sampler takes for each logit of `max_num_seqs` rows, and more of them where TP ranks
    /// gather logits.
    pub sampler_words: f64,
    pub gathered_words: f64,
    /// Tokens of one step.
    pub budget_tokens: u32,
    /// Whether the attention ranks of a worker share the budget.
    pub budget_of_worker: bool,
    /// Whether waiting prompts go before decoding requests (else beside them).
    pub prompts_first: bool,
    /// Prompt tokens join every n-th step at most.
    pub prefill_interval: u32,
    /// Who sends the first token of a P/D deployment.
    pub first_token: FirstToken,
    pub first_token_source: String,
    #[serde(rename = "static")]
    pub formula: Option<Static>,
    pub source: String,
}

/// SGLang's own estimate of what must stay outside its pool, MiB.
#[derive(Clone, Debug, Deserialize)]
pub struct Static {
    pub meta_mib: f64,
    pub per_token_mib: f64,
    pub least_tokens: f64,
    pub per_graph_batch_mib: f64,
    pub per_gpu_mib: f64,
    pub dp_per_batch_mib: f64,
    pub dp_large_per_batch_mib: f64,
    pub dp_large_from: f64,
    pub least_mib: f64,
    pub least_from_gib: f64,
    pub draft_mib: f64,
    /// Attention over several nodes, where the formula leaves nothing.
    pub wide_fraction: f64,
    pub buckets: Vec<Bucket>,
}

/// Token budget and largest captured batch by device memory.
#[derive(Clone, Debug, Deserialize)]
pub struct Bucket {
    pub below_gib: Option<f64>,
    pub tokens: f64,
    pub graph_batch: f64,
    pub graph_batch_tp4: f64,
}

impl Static {
    pub(crate) fn bucket(&self, gib: f64) -> Option<&Bucket> {
        self.buckets.iter().find(|b| b.below_gib.is_none_or(|below| gib < below))
    }
}

static SERVERS: LazyLock<Servers> =
    LazyLock::new(|| json::parse(TEXT, "serving/defaults.json").expect("compiled in, and read by a test"));

/// The data.
pub fn servers() -> &'static Servers {
    &SERVERS
}

/// Ranges of versions of a framework, oldest first.
pub(crate) fn versions(framework: Framework) -> &'static [Server] {
    servers().frameworks.get(&framework).map_or(&[], Vec::as_slice)
}

/// The newest of them.
pub fn newest(framework: Framework) -> Option<&'static Server> {
    versions(framework).last()
}

/// Who sends the first token of a P/D deployment where the assumptions leave it to the server.
pub(crate) fn first_token(framework: Framework, asked: FirstToken) -> FirstToken {
    match asked {
        FirstToken::Server => newest(framework).map_or(FirstToken::Decode, |s| s.first_token),
        other => other,
    }
}

/// BF16 bytes of what a checkpoint has beside its language model.
pub fn tower_bytes(model: &str) -> f64 {
    let mine = servers().towers.iter().find(|t| model.contains(&t.model));
    mine.map_or(0.0, |t| t.parameters * Dtype::Bf16.weight_bytes())
}

impl Device {
    /// Bytes that the driver reports: a preset's own, in proportion where its size was changed; all of any other.
    pub fn reported_bytes(&self) -> f64 {
        let known = servers().devices.iter().find(|d| d.device == self.name);
        self.hbm_bytes * known.map_or(1.0, |d| d.reported_gib / d.nominal_gib)
    }

    /// Whether it runs CUDA and NCCL as GPUs do.
    pub(crate) fn is_gpu(&self) -> bool {
        self.hbm_bytes >= servers().communicators.least_device_gib * GIB
    }

    /// Blackwell or newer.
    pub(crate) fn is_blackwell(&self) -> bool {
        self.sm >= 100
    }
}
