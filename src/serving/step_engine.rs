//! What takes steps: a worker, or an AFD unit whose micro-batches run through four stages a layer.
//!
//! Limit: a step's batch is even over the ranks but for the slowest one's context.

use std::sync::Arc;

pub use super::step_time::{Prefill, StepTime};
use super::strategies::{KvStrategy, RoomStrategy, StepStrategy};
pub use super::unit::Unit;
use crate::cost::memory::{self, Memory};
use crate::cost::{AfdUnit, Batch, Library, Total, Worker};
use crate::error::Result;
use crate::math::normal;
use crate::network::CommTime;
use crate::spec::{AfdPlan, Parallel, Pool, Workload};

pub enum EngineKind {
    Worker(Arc<Worker>, Memory),
    Afd(Box<Unit>),
}

/// A worker or an AFD unit, compiled.
pub struct StepEngine {
    pub kind: EngineKind,
    lib: Arc<Library>,
    gpus: u32,
    /// E[max] over the synchronised ranks of a slot's KV above its mean, for one sequence a rank.
    straggle: f64,
    /// Longest sequence of the workload.
    peak: f64,
    /// How its steps are counted.
    pub(super) strategy: StepStrategy,
    /// Way of KV between slots; read by the simulator too.
    pub kv: KvStrategy,
    pub(super) room: RoomStrategy,
}

impl StepEngine {
    pub fn worker(lib: &Arc<Library>, parallel: Parallel, workload: &Workload) -> Result<StepEngine> {
        StepEngine::overlapping(lib, parallel, None, workload)
    }

    /// The same; `overlap`: whether two half-batches may overlap, none: as serving says.
    pub fn overlapping(
        lib: &Arc<Library>,
        parallel: Parallel,
        overlap: Option<bool>,
        workload: &Workload,
    ) -> Result<StepEngine> {
        let overlap = overlap.or(lib.serving.two_batch_overlap).unwrap_or(false);
        let worker = Worker::overlapping(lib, parallel, overlap)?;
        Ok(StepEngine::worker_of(lib, Arc::new(worker), workload))
    }

    /// The same on a worker that is compiled already, for another workload.
    pub(crate) fn worker_of(lib: &Arc<Library>, worker: Arc<Worker>, workload: &Workload) -> StepEngine {
        let memory = memory::worker(&context(lib, workload), &worker.parallel);
        StepEngine {
            straggle: straggle(lib, workload, worker.ranks()),
            peak: workload.peak_tokens(),
            strategy: StepStrategy::of(&lib.assumptions),
            kv: KvStrategy::of(&lib.assumptions),
            room: RoomStrategy::of(&lib.assumptions, lib.framework, false),
            gpus: worker.parallel.gpus(),
            kind: EngineKind::Worker(worker, memory),
            lib: lib.clone(),
        }
    }

    /// An AFD unit; each pool on the library of its own device, if the plan names one.
    pub fn afd(lib: &Arc<Library>, plan: &AfdPlan, workload: &Workload) -> Result<StepEngine> {
        let (attention, ffn) = (lib.on(plan.attention.device.as_ref())?, lib.on(plan.ffn.device.as_ref())?);
        let unit = Arc::new(AfdUnit::new(&attention, &ffn, plan)?);
        StepEngine::afd_of(lib, unit, plan, workload)
    }

    /// The same on a unit that is compiled already: plans that differ only in batch, chunk and micro-batches.
    pub fn afd_of(lib: &Arc<Library>, unit: Arc<AfdUnit>, plan: &AfdPlan, workload: &Workload) -> Result<StepEngine> {
        let (attention, ffn) = (lib.on(plan.attention.device.as_ref())?, lib.on(plan.ffn.device.as_ref())?);
        let cx = context(&attention, workload);
        let (a, f) = memory::afd(&cx, plan, unit.ep, &ffn.cluster.device);
        let unit = Unit::new(unit, plan, [a, f]);
        Ok(StepEngine {
            straggle: straggle(lib, workload, unit.ranks()),
            peak: workload.peak_tokens(),
            strategy: StepStrategy::of(&lib.assumptions),
            kv: KvStrategy::of(&lib.assumptions),
            room: RoomStrategy::of(&lib.assumptions, lib.framework, true),
            kind: EngineKind::Afd(Box::new(unit)),
            lib: lib.clone(),
            gpus: plan.unit_gpus(),
        })
    }

    pub fn is_afd(&self) -> bool {
        matches!(self.kind, EngineKind::Afd(_))
    }

    pub fn library(&self) -> &Arc<Library> {
        &self.lib
    }

    /// GPUs of one worker or unit.
    pub fn gpus(&self) -> u32 {
        self.gpus
    }

    /// Attention-DP ranks, of all groups: the FFN pool serves groups in turn, so all wait for the slowest of them.
    pub fn ranks(&self) -> f64 {
        match &self.kind {
            EngineKind::Worker(w, _) => w.ranks(),
            EngineKind::Afd(u) => u.ranks(),
        }
    }

    /// Pipeline stages that each keep a batch in flight.
    pub fn stages_in_flight(&self) -> f64 {
        match &self.kind {
            EngineKind::Worker(w, _) => f64::from(w.parallel.pp),
            EngineKind::Afd(u) => f64::from(u.sequence.pp),
        }
    }

    /// GPUs that hold a sequence's KV between them, and so can send or receive it side by side.
    pub fn kv_links(&self) -> u32 {
        match &self.kind {
            EngineKind::Worker(w, _) => w.parallel.tp * w.parallel.cp * w.parallel.pp,
            EngineKind::Afd(u) => u.unit.attention_tp * u.sequence.pp,
        }
    }

    /// GPUs that hold KV (all of a worker, the attention pool of a unit).
    pub fn kv_gpus(&self) -> u32 {
        match &self.kind {
            EngineKind::Worker(w, _) => w.parallel.gpus(),
            EngineKind::Afd(u) => u.unit.attention_gpus * u.unit.groups * u.sequence.pp,
        }
    }

    pub fn memory(&self) -> &[Memory] {
        match &self.kind {
            EngineKind::Worker(_, m) => std::slice::from_ref(m),
            EngineKind::Afd(u) => u.memory(),
        }
    }

    /// The pool that does not hold `sequences` per rank with `tokens` in flight, and the fullest GPU.
    pub(crate) fn memory_check(&self, sequences: f64, tokens: f64) -> (Option<Pool>, f64) {
        let mut short = None;
        let mut most: f64 = 0.0;
        for m in self.memory() {
            let bytes = m.bytes(sequences, tokens);
            if bytes > m.limit(tokens) && short.is_none() {
                short = Some(m.pool);
            }
            most = most.max(bytes);
        }
        (short, most)
    }

    /// KV tokens that one attention rank holds beside `tokens` in flight, in sequences of `length`, and the bytes of
    /// one of them.
    pub fn kv_tokens(&self, tokens: f64, length: f64) -> (f64, f64) {
        let lib = &self.lib;
        let tp = match &self.kind {
            EngineKind::Worker(w, _) => w.parallel.tp,
            EngineKind::Afd(u) => u.unit.attention_tp,
        };
        let length = length.max(1.0);
        let drafts = lib.kv_layers() / f64::from(lib.model.layers);
        let per_token = lib.program.state_bytes(length, lib.formats.kv, tp) * drafts / length;
        let holds = |m: &&Memory| m.kv_per_sequence > 0.0 || m.kv_shared > 0.0;
        let free = self.memory().iter().filter(holds).map(|m| m.free(tokens)).fold(f64::INFINITY, f64::min);
        ((free * self.stages_in_flight() / per_token).max(0.0), per_token)
    }

    /// Wall time of one step as decode sees it: with PP, of all stages in turn.
    pub fn step(&self, batch: &Batch) -> StepTime {
        match &self.kind {
            EngineKind::Worker(w, _) => {
                let (t, pp) = (w.stage(batch), f64::from(w.parallel.pp));
                StepTime { seconds: t.seconds * pp, work: t.work.times(pp) }
            }
            EngineKind::Afd(u) => u.step(batch, u.overlapped),
        }
    }

    /// Mean context of the rank that all others wait for, at `batch` sequences per rank whose mean is
    /// `context`: `E[max]` over the ranks of the mean of a micro-batch's slots (physics.md section 6).
    pub fn slowest_context(&self, batch: f64, context: f64) -> f64 {
        let together = match &self.kind {
            EngineKind::Worker(..) => batch,
            EngineKind::Afd(u) => batch / f64::from(u.microbatches.max(1)).min(batch.ceil().max(1.0)),
        };
        (context + self.straggle / together.max(1.0).sqrt()).min(self.peak.max(context))
    }

    /// Decode step of `batch` sequences per rank at `context`.
    pub fn decode(&self, batch: f64, context: f64) -> StepTime {
        self.step(&Batch::decode(batch, context, 1.0 + f64::from(self.lib.serving.mtp)))
    }

    /// Prefill of rounds of `sequences` per rank, `isl` new tokens over `prefix`, in chunks.
    pub fn prefill(&self, sequences: f64, isl: f64, prefix: f64, chunk: f64) -> Prefill {
        let chunks = chunks_of(isl, chunk);
        let parts = self.prefill_parts(sequences, isl, prefix, chunk);
        match &self.kind {
            EngineKind::Worker(w, _) => {
                let pp = f64::from(w.parallel.pp);
                let mut work = Total::default();
                let (mut seconds, mut slowest) = (0.0, 0.0_f64);
                for b in &parts {
                    let t = w.stage(b);
                    seconds += t.seconds;
                    slowest = slowest.max(t.seconds);
                    work = work.plus(&t.work);
                }
                // Chunks follow one another through the stages; the pipeline fills once.
                let latency_s = seconds + (pp - 1.0) * slowest;
                Prefill {
                    latency_s,
                    period_s: seconds,
                    requests: sequences * w.ranks(),
                    chunks,
                    together: sequences,
                    work: work.times(pp),
                }
            }
            EngineKind::Afd(u) => u.prefill(&parts, sequences, chunks),
        }
    }

    /// The steps (worker) or micro-batches (AFD unit) of such a round, in order.
    pub(crate) fn prefill_parts(&self, sequences: f64, isl: f64, prefix: f64, chunk: f64) -> Vec<Batch> {
        let chunks = chunks_of(isl, chunk);
        if let EngineKind::Afd(u) = &self.kind
            && u.strategy.one_sequence
            && u.microbatches > 1
        {
            let mut part = u.micro(&Batch::prefill(sequences, isl, prefix), u.microbatches);
            part.ending = sequences / f64::from(u.microbatches);
            return vec![part; u.microbatches as usize];
        }
        let groups = match &self.kind {
            EngineKind::Worker(..) => 1.0,
            EngineKind::Afd(u) => u.prefill_groups(sequences, chunks),
        };
        let each = sequences / groups;
        let size = isl / chunks;
        let mut parts = Vec::with_capacity((groups * chunks) as usize);
        for _ in 0..groups as u32 {
            for i in 0..chunks as u32 {
                let mut b = Batch::prefill(each, size, prefix + f64::from(i) * size);
                b.ending = if f64::from(i) + 1.0 >= chunks { each } else { 0.0 };
                parts.push(b);
            }
        }
        parts
    }
}

/// E[max] over `ranks` of the KV tokens of a slot, above the mean; 0 where the barrier is not charged.
fn straggle(lib: &Library, workload: &Workload, ranks: f64) -> f64 {
    if lib.assumptions.attention_barrier { workload.slot_load_std() * normal::expected_max(ranks) } else { 0.0 }
}

/// Equal chunks of a prompt under a budget.
fn chunks_of(isl: f64, chunk: f64) -> f64 {
    (isl / chunk.max(1.0)).ceil().max(1.0)
}

fn context<'a>(lib: &'a Library, workload: &'a Workload) -> memory::Context<'a> {
    memory::Context {
        model: &lib.model,
        program: &lib.program,
        quant: &lib.quant,
        formats: &lib.formats,
        serving: &lib.serving,
        assumptions: &lib.assumptions,
        workload,
        device: &lib.cluster.device,
        framework: lib.framework,
        node_gpus: lib.cluster.fabric.node_gpus,
    }
}

/// KV transfer between a prefill rank and decode ranks, `together` requests of the one at a time, each to or
/// from another rank of the other: seconds until the last has arrived, of the whole and of one layer.
///
/// The prefill rank's links carry all of them, a decode rank's its own one only. `share`: of its ports that KV gets.
pub fn kv_seconds(
    prefill: &StepEngine,
    decode: &StepEngine,
    tokens: f64,
    together: f64,
    lib: &Library,
    same_domain: bool,
    share: f64,
) -> (CommTime, CommTime) {
    let (many, one) = (prefill.kv_links().max(1), decode.kv_links().max(1));
    let bytes = lib.kv_bytes(tokens) / share;
    let layers = lib.kv_layers();
    let last = |time: &dyn Fn(f64, u32) -> CommTime, bytes: f64| {
        let (sent, received) = (time(bytes * together.max(1.0), many), time(bytes, one.min(many)));
        if sent.seconds > received.seconds { sent } else { received }
    };
    (
        last(&|b, links| lib.comm.kv_transfer(b, links, same_domain), bytes),
        last(&|b, links| lib.comm.kv_layer(b, links, same_domain), bytes / layers),
    )
}
