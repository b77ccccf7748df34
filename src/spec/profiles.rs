//! Named sets of assumptions: what the physics says, and what published planners have instead.
//!
//! A profile is the physical one with the switches that its source sets otherwise; `assumptions` says what each means.
//!
//! Limit: three sources at the versions named; a profile says what a source does, not whether it is right.

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use super::assumptions::*;
use super::json;
use crate::error::{Error, Result, near};

impl Default for Assumptions {
    fn default() -> Self {
        Self::physical()
    }
}

/// Names of the profiles.
pub const PROFILES: [&str; 3] = ["physical", "paper", "aiconfigurator-0.12"];

impl Assumptions {
    /// A profile by name; a trailing `*` (switches changed) is ignored.
    pub fn profile(name: &str) -> Result<Self> {
        match name.trim_end_matches('*') {
            "physical" => Ok(Self::physical()),
            "paper" => Ok(Self::paper()),
            "aiconfigurator-0.12" | "aiconfigurator" => Ok(Self::aiconfigurator()),
            other => Err(Error::spec("profile", format!("'{other}' is not a profile"), near(other, PROFILES))),
        }
    }

    /// What the physics says.
    pub fn physical() -> Self {
        Assumptions {
            profile: "physical".into(),
            launch_floors: LaunchFloors::ByPhase,
            dense_layers: DenseLayers::Dense,
            exchange: Exchange::Best,
            collectives: Collectives::Rails,
            gather_format: GatherFormat::Model,
            lanes: Lanes::ByRule,
            beyond_tables: BeyondTables::Slope,
            all_reduce_rows: AllReduceRows::ByPhase,
            attention_elementwise: AttentionElementwise::Bytes,
            shared_expert_split: SharedExpertSplit::Tp,
            mixed_attention: MixedAttention::Counted,
            wide_attention: WideAttention::Block,
            group_routing: GroupRouting::Counted,
            far_exchange: FarExchange::Law,
            wide_ep_decode: WideEpDecode::Whole,
            missing_formats: MissingFormats::Nearest,
            listed_norms: ListedNorms::Norms,
            prefill_sync: PrefillSync::Uncoordinated,
            mixed_steps: MixedSteps::SteadyState,
            first_token_from: FirstToken::Server,
            kv_transfer: KvTransfer::LayerWise,
            kv_reserve: KvReserve::Full,
            copies: Copies::Expected,
            afd_wire: AfdWire::Calibrated,
            afd_reductions: true,
            ffn_pool: FfnPool::Spread,
            pipeline_formula: PipelineFormula::Schedule,
            microbatch_split: MicrobatchSplit::Even,
            prefill_split: PrefillSplit::Chunks,
            sparse_attention_memory: SparseAttentionMemory::Counted,
            activations: Activations::AliveRows,
            out_of_memory: OutOfMemory::Unplaced,
            ttft_queue: TtftQueue::None,
            request_path: RequestPath::Client,
            worker_corrections: WorkerCorrections::None,
            shared_expert_overlap: true,
            attention_barrier: true,
            kv_contention: true,
            afd_alpha_scale: 1.0,
            dispatch_alpha_scale: 1.0,
        }
    }

    /// What the public code behind arXiv 2605.28302 does. Left as in `physical`: how tables are
    /// interpolated, who holds the shared expert and the LM head, and whole pools counted as GPUs.
    pub fn paper() -> Self {
        Assumptions {
            profile: "paper".into(),
            launch_floors: LaunchFloors::Measured,
            dense_layers: DenseLayers::AsMoe,
            exchange: Exchange::Gather,
            lanes: Lanes::AsMeasured,
            collectives: Collectives::Stretched,
            mixed_steps: MixedSteps::Counted,
            first_token_from: FirstToken::Decode,
            kv_transfer: KvTransfer::Ignored,
            copies: Copies::HalfOfWorst,
            afd_wire: AfdWire::Bandwidth,
            afd_reductions: false,
            pipeline_formula: PipelineFormula::SlowestStage,
            microbatch_split: MicrobatchSplit::Floor,
            prefill_split: PrefillSplit::OneSequence,
            sparse_attention_memory: SparseAttentionMemory::Ignored,
            activations: Activations::Coefficients,
            ttft_queue: TtftQueue::Factors,
            request_path: RequestPath::Service,
            worker_corrections: WorkerCorrections::Fixed,
            attention_barrier: false,
            kv_contention: false,
            ..Self::physical()
        }
    }

    /// What aiconfigurator 0.12 does, as far as switches go.
    pub fn aiconfigurator() -> Self {
        Assumptions {
            profile: "aiconfigurator-0.12".into(),
            launch_floors: LaunchFloors::Measured,
            dense_layers: DenseLayers::AsMoe,
            exchange: Exchange::GatherInNode,
            collectives: Collectives::Stretched,
            gather_format: GatherFormat::Framework,
            lanes: Lanes::AsMeasured,
            beyond_tables: BeyondTables::Utilisation,
            all_reduce_rows: AllReduceRows::Graph,
            attention_elementwise: AttentionElementwise::Launches,
            shared_expert_split: SharedExpertSplit::Whole,
            mixed_attention: MixedAttention::ByName,
            wide_attention: WideAttention::WideEp,
            group_routing: GroupRouting::Ignored,
            far_exchange: FarExchange::OneNode,
            wide_ep_decode: WideEpDecode::Discounted,
            missing_formats: MissingFormats::Error,
            listed_norms: ListedNorms::Block,
            mixed_steps: MixedSteps::Counted,
            first_token_from: FirstToken::Decode,
            kv_transfer: KvTransfer::Ignored,
            copies: Copies::OneLink,
            afd_wire: AfdWire::NodeLink,
            ffn_pool: FfnPool::Whole,
            pipeline_formula: PipelineFormula::Cycle,
            microbatch_split: MicrobatchSplit::Ceil,
            activations: Activations::Framework,
            out_of_memory: OutOfMemory::Error,
            ttft_queue: TtftQueue::Factors,
            request_path: RequestPath::Service,
            worker_corrections: WorkerCorrections::Fixed,
            attention_barrier: false,
            kv_contention: false,
            ..Self::physical()
        }
    }

    /// Switches that name a published formula of AFD, which knows one attention group a pool (and, the first two, one
    /// stage a unit).
    pub const OF_ONE_GROUP: [&str; 5] = ["pipeline_formula", "activations", "copies", "afd_wire", "ffn_pool"];

    /// Whether several attention groups can be priced: none of those switches is set.
    pub(crate) fn knows_groups(&self) -> bool {
        let own = Self::physical();
        self.pipeline_formula == own.pipeline_formula
            && self.activations == own.activations
            && self.copies == own.copies
            && self.afd_wire == own.afd_wire
            && self.ffn_pool == own.ffn_pool
    }
}

impl Serialize for Assumptions {
    fn serialize<S: serde::Serializer>(&self, to: S) -> std::result::Result<S::Ok, S::Error> {
        // The inherent function that the derivation gives.
        Assumptions::serialize(self, to)
    }
}

/// Switches that are left out are those of the profile named, and the name is kept only by what is the profile.
impl<'de> Deserialize<'de> for Assumptions {
    fn deserialize<D: Deserializer<'de>>(from: D) -> std::result::Result<Self, D::Error> {
        let given = Map::<String, Value>::deserialize(from)?;
        let profile = match given.get("profile") {
            None => "physical",
            Some(Value::String(name)) => name,
            Some(other) => return Err(json::nested("profile", &format!("wrong type: {other}, expected a string"))),
        };
        let known = || format!("'{profile}' is not a profile; {}", near(profile, PROFILES));
        let base = Assumptions::profile(profile).map_err(|_| json::nested("profile", &known()))?;
        let mut all = base.fields();
        all.extend(given);
        let mut track = serde_path_to_error::Track::new();
        let read = serde_path_to_error::Deserializer::new(Value::Object(all), &mut track);
        let found = Assumptions::deserialize(read);
        let mut found = found.map_err(|e| json::nested(&track.path().to_string(), &e.to_string()))?;
        found.profile.clone_from(&base.profile);
        if found != base {
            // The profile's name stays, marked as no longer the profile itself.
            found.profile.push('*');
        }
        Ok(found)
    }
}
