//! Modelling choices that published tools make differently, each a named switch with a source.
//!
//! Profiles: `physical` (what the physics says), `paper` (what the public code behind arXiv
//! 2605.28302 does) and `aiconfigurator-0.12` (what NVIDIA's planner of that version does). The
//! switches are those of physics.md section 7; the order of the fields is the order in which an
//! audit walks from one profile to another. Limit: how a table is interpolated between its rows
//! is not a switch, so two profiles read the same measured kernels in the same way there; beyond the rows see
//! `beyond_tables` and `far_exchange`.

use serde::Serialize;
use serde_json::{Map, Value};

use crate::error::{Error, Problems, Result, near};

use super::json::{self, json_methods};
use super::limits::Check;
use super::record::{choices, record};
use super::switches::SWITCHES;

choices! {
    /// Start-up times in the kernel tables.
    LaunchFloors {
        /// Eager-mode floors stay in prefill and vanish from decode, which runs under graphs.
        ByPhase = "by-phase",
        /// As the tables have them.
        Measured = "measured",
    }
    /// The first layers of a model, whose FFN is dense.
    DenseLayers { Dense = "dense", AsMoe = "as-moe" }
    /// How tokens reach experts without AFD.
    Exchange {
        /// The fastest of all-reduce or all-gather and every all-to-all kernel there is.
        Best = "best",
        /// All-reduce or all-gather and reduce-scatter of all tokens.
        Gather = "gather",
        /// The same inside a node; an all-to-all between nodes wherever there is one.
        GatherInNode = "gather-in-node",
    }
    /// Format in which an all-gather carries tokens to the experts.
    GatherFormat {
        /// That of the model's exchange.
        Model = "model",
        /// BF16, unless the framework quantises before it (trtllm on SM 100).
        Framework = "framework",
    }
    /// Rows that other frameworks' rows of the same kernel contradict.
    Lanes {
        /// By rule: the kernel as it was measured elsewhere on the same device, tagged.
        ByRule = "by-rule",
        /// As the framework's own table has it.
        AsMeasured = "as-measured",
    }
    /// Experts at more tokens than any row has, sparse attention in decode at sequences and contexts that no row has.
    BeyondTables {
        /// The measured slope goes on.
        Slope = "slope",
        /// The utilisation of the last row is held; over several axes that of the four nearest rows.
        Utilisation = "utilisation",
    }
    /// Rows of all-reduce.
    AllReduceRows {
        /// Eager ones where steps are launched one by one, those under CUDA graphs elsewhere.
        ByPhase = "by-phase",
        /// Those under CUDA graphs in every phase.
        Graph = "graph",
    }
    /// Rotary embedding, query and key norms and the write to the cache of grouped-query attention.
    AttentionElementwise {
        /// The rows read and written.
        Bytes = "bytes",
        /// 13.2 us a layer of prefill, 39.6 us with query and key norms; nothing in decode.
        Launches = "launches",
    }
    /// The shared expert of sparse-attention models on TP ranks.
    SharedExpertSplit {
        /// Split over the ranks like every dense FFN.
        Tp = "tp",
        /// Whole on each rank, split only by MoE-TP.
        Whole = "whole",
    }
    /// Decode attention of whole measured MLA blocks beside prompt tokens.
    MixedAttention {
        Counted = "counted",
        /// Left out outside sglang: an operator looked up by a name that those blocks do not bear.
        ByName = "by-name",
    }
    /// Prefill attention of latent-attention models asked for in block-scaled FP8 (wide EP of sglang).
    WideAttention {
        /// The block as for any other layout.
        Block = "block",
        /// The table measured for wide EP, projections left out.
        WideEp = "wide-ep",
    }
    /// Traffic of group-limited routing through all-to-all kernels.
    GroupRouting {
        /// Fewer nodes a token.
        Counted = "counted",
        /// That of the measured rows, routed freely.
        Ignored = "ignored",
    }
    /// All-to-all of experts that span nodes.
    FarExchange {
        /// Rows of as many nodes, or the fabric's law.
        Law = "law",
        /// Without such rows those of DeepEP inside one node, whatever the number of nodes; eager ones for trtllm
        /// and vllm.
        OneNode = "one-node",
    }
    /// Decode layers of latent-attention models whose experts span nodes, trtllm.
    WideEpDecode {
        /// The sum of their kernels.
        Whole = "whole",
        /// Nine tenths of it: kernels overlap by programmatic dependent launch.
        Discounted = "discounted",
    }
    /// A table without the attention format asked for.
    MissingFormats {
        /// The nearest format stands in, tagged.
        Nearest = "nearest",
        /// An error.
        Error = "error",
    }
    /// A checkpoint whose exclusion list names the layer norms of latent attention.
    ListedNorms {
        /// Norms are in BF16 anyhow.
        Norms = "norms",
        /// The whole attention block is taken to be left in BF16.
        Block = "block",
    }
    /// All-gather and reduce-scatter over more GPUs than any table has.
    Collectives {
        /// Hierarchical over the rails, or the domain's own alpha and bandwidth.
        Rails = "rails",
        /// The largest measured group's whole time, stretched by ring share and link speed.
        Stretched = "stretched",
    }
    PrefillSync {
        /// Prefills of the attention ranks fall on different steps.
        Uncoordinated = "uncoordinated",
        /// All ranks prefill on the same steps.
        Aligned = "aligned",
    }
    /// How chunked prefill and decode share the steps.
    MixedSteps {
        /// A fixed point: mixed steps as often as prompts come.
        SteadyState = "steady-state",
        /// Steps counted for one full batch whose prompts all start together, cached tokens
        /// computed again when a prompt is cut.
        Counted = "counted",
    }
    FirstToken {
        /// As the framework's servers do (`serving/defaults.json`).
        Server = "server",
        /// The prefill worker's token travels with the KV and leaves when that has arrived at the decode worker.
        Decode = "decode",
        /// The prefill worker's token is thrown away: the decode worker makes it again in its first step.
        DecodeStep = "decode-step",
        /// The prefill worker sends the first token itself.
        Prefill = "prefill",
    }
    KvTransfer {
        Bulk = "bulk",
        LayerWise = "layer-wise",
        /// Left out: neither time nor bandwidth.
        Ignored = "ignored",
    }
    KvReserve {
        /// Every sequence is charged its final length.
        Full = "full",
        /// Every sequence is charged the stationary mean load (theta).
        Mean = "mean",
    }
    /// Copies of a token on the way to the experts of an AFD unit.
    Copies {
        /// Expected distinct expert groups, in the format of the model's exchange; as many back.
        Expected = "expected",
        /// (1 + min(k, F)) / 2 out and one back, BF16.
        HalfOfWorst = "half-of-worst",
        /// The share that crosses one link between two nodes, BF16.
        OneLink = "one-link",
    }
    /// Time of A2F and F2A.
    AfdWire {
        /// Start-up and efficiency of the all-to-all kernels of the same fabric.
        Calibrated = "calibrated",
        /// Bytes over the link of the smallest tier that holds the unit, plus 20 us.
        Bandwidth = "bandwidth",
        /// Bytes over the link between nodes, plus 10 us.
        NodeLink = "node-link",
    }
    /// Time of one pass of the micro-batch pipeline.
    PipelineFormula {
        /// The max-plus schedule itself.
        Schedule = "schedule",
        /// t = M s_max + (sum of the other stages) / L.
        SlowestStage = "slowest-stage",
        /// One fill, then M L - 1 cycles of max(t_A, t_F, t_A2F + t_F2A).
        Cycle = "cycle",
    }
    MicrobatchSplit {
        /// Whole sequences, the remainder spread.
        Even = "even",
        /// batch // M sequences each, the remainder credited but not computed.
        Floor = "floor",
        /// ceil(batch / M) sequences each.
        Ceil = "ceil",
    }
    /// Micro-batches of AFD prefill.
    PrefillSplit {
        /// Sequences, or consecutive chunks, each at its own past.
        Chunks = "chunks",
        /// The batch as one sequence of B ISL / M tokens, the prefix times their whole quotient.
        OneSequence = "one-sequence",
    }
    /// Weights of sparse attention and its indexer's cache.
    SparseAttentionMemory { Counted = "counted", Ignored = "ignored" }
    Activations {
        /// Rows that a layer keeps alive, of the new tokens in flight.
        AliveRows = "alive-rows",
        /// Published coefficients per token, cached tokens included.
        Coefficients = "coefficients",
        /// Coefficients of a framework with a least size, the same on both pools of AFD; embedding,
        /// head and sparse KV as that planner counts them.
        Framework = "framework",
    }
    /// A plan whose worker or unit does not fit into memory.
    OutOfMemory {
        /// A result that says which pool is too small.
        Unplaced = "unplaced",
        /// An error.
        Error = "error",
    }
    /// What the FFN pool of an AFD unit computes beside its experts.
    FfnPool {
        /// Each GPU its share of the tokens; the router on the attention side by default.
        Spread = "spread",
        /// Router and shared expert on every GPU for all tokens; the attention side adds up the
        /// results of the EP ranks.
        Whole = "whole",
    }
    /// Waiting before prefill in a closed loop.
    TtftQueue {
        /// None beyond what the closed loop itself makes.
        None = "none",
        /// TTFT x 1.9 to 4 (mixed steps) or x 1.8 (P/D).
        Factors = "factors",
    }
    /// What TTFT contains beside the steps that serve a request.
    RequestPath {
        /// All that its client waits for: API server, steps in flight and ahead, polling, hand-over.
        Client = "client",
        /// Nothing.
        Service = "service",
    }
    /// Corrections of P/D workers.
    WorkerCorrections {
        None = "none",
        /// Prefill x 1.1, decode x 1.08, rates x 0.90 and 0.92.
        Fixed = "fixed",
    }
}

record! {
    /// Modelling choices that published tools make differently, each a named switch.
    #[serde(default, remote = "Self")]
    pub struct Assumptions as assumptions {
        pub profile: String,
        pub launch_floors: LaunchFloors,
        pub dense_layers: DenseLayers,
        pub exchange: Exchange,
        pub collectives: Collectives,
        pub gather_format: GatherFormat,
        pub lanes: Lanes,
        pub beyond_tables: BeyondTables,
        pub all_reduce_rows: AllReduceRows,
        pub attention_elementwise: AttentionElementwise,
        pub shared_expert_split: SharedExpertSplit,
        pub mixed_attention: MixedAttention,
        pub wide_attention: WideAttention,
        pub group_routing: GroupRouting,
        pub far_exchange: FarExchange,
        pub wide_ep_decode: WideEpDecode,
        pub missing_formats: MissingFormats,
        pub listed_norms: ListedNorms,
        pub prefill_sync: PrefillSync,
        pub mixed_steps: MixedSteps,
        pub first_token_from: FirstToken,
        pub kv_transfer: KvTransfer,
        pub kv_reserve: KvReserve,
        pub copies: Copies,
        pub afd_wire: AfdWire,
        pub afd_reductions: bool,
        pub ffn_pool: FfnPool,
        pub pipeline_formula: PipelineFormula,
        pub microbatch_split: MicrobatchSplit,
        pub prefill_split: PrefillSplit,
        pub sparse_attention_memory: SparseAttentionMemory,
        pub activations: Activations,
        pub out_of_memory: OutOfMemory,
        pub ttft_queue: TtftQueue,
        pub request_path: RequestPath,
        pub worker_corrections: WorkerCorrections,
        pub shared_expert_overlap: bool,
        /// Whether a decode step waits for the attention rank with the longest contexts.
        pub attention_barrier: bool,
        /// Whether KV on its way shares the ports with the steps of both slots.
        pub kv_contention: bool,
        /// Scales every alpha of A2F and F2A, which no public measurement covers.
        pub afd_alpha_scale: f64,
        /// The same of dispatch and combine, so that a doubt about latencies can fall on every level.
        pub dispatch_alpha_scale: f64,
    }
}

json_methods!(Assumptions => "assumptions");

/// One modelling choice: what it is set to, what it may be, what it means and who says so.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Switch {
    pub name: &'static str,
    pub value: Value,
    pub allowed: &'static str,
    pub meaning: &'static str,
    pub source: &'static str,
}

impl Assumptions {
    pub(super) fn fields(&self) -> Map<String, Value> {
        match json::to_value(self, "assumptions") {
            Ok(Value::Object(map)) => map,
            // Plain enums, a bool and a number always make an object.
            _ => Map::new(),
        }
    }

    /// All switches with their values, meanings and sources.
    pub fn switches(&self) -> Vec<Switch> {
        let mut fields = self.fields();
        SWITCHES
            .iter()
            .map(|&(name, allowed, meaning, source)| Switch {
                name,
                value: fields.remove(name).unwrap_or(Value::Null),
                allowed,
                meaning,
                source,
            })
            .collect()
    }

    /// A copy with one switch set, by name.
    ///
    /// # Errors
    /// As [`Assumptions::with`].
    pub fn replace(&self, name: &str, value: Value) -> Result<Self> {
        self.with(&Map::from_iter([(name.to_string(), value)]))
    }

    /// A copy with some switches set, by name.
    ///
    /// # Errors
    /// All names that are no switch, and all values that do not fit.
    pub(crate) fn with(&self, switches: &Map<String, Value>) -> Result<Self> {
        if switches.is_empty() {
            return Ok(self.clone());
        }
        let mut problems = Problems::new();
        let (before, mut after) = (self.fields(), self.fields());
        for (name, value) in switches {
            if SWITCHES.iter().any(|s| s.0 == name) {
                after.insert(name.clone(), value.clone());
            } else {
                problems.push(
                    format!("assumptions.{name}"),
                    "unknown switch",
                    near(name, SWITCHES.iter().map(|s| s.0)),
                );
            }
        }
        let changed: Vec<(String, Value)> =
            after.iter().filter(|(n, v)| before.get(*n) != Some(v)).map(|(n, v)| (n.clone(), v.clone())).collect();
        match Assumptions::from_value(Value::Object(after)) {
            Ok(new) => {
                problems.nest("assumptions", new.check());
                json::checked(new, problems)
            }
            Err(first) => {
                // Reading ends with the first wrong value: each alone, so that all are named.
                for (name, value) in changed {
                    let mut one = before.clone();
                    one.insert(name, value);
                    if let Err(Error::Spec(found)) = Assumptions::from_value(Value::Object(one)) {
                        problems.0.extend(found.0);
                    }
                }
                problems.into_result()?;
                Err(first)
            }
        }
    }

    /// Switches on which two sets differ: name, this value, the other's.
    pub fn diff(&self, other: &Self) -> Vec<(&'static str, Value, Value)> {
        let pairs = self.switches().into_iter().zip(other.switches());
        pairs.filter(|(a, b)| a.value != b.value).map(|(a, b)| (a.name, a.value, b.value)).collect()
    }

    /// Everything that is wrong; paths are relative to it.
    pub fn check(&self) -> Problems {
        let mut c = Check::new();
        c.range("afd_alpha_scale", self.afd_alpha_scale, 0.0, 100.0);
        c.range("dispatch_alpha_scale", self.dispatch_alpha_scale, 0.0, 100.0);
        c.problems
    }
}
