//! What takes steps: a worker, or an AFD unit whose micro-batches run through four stages a layer.

use std::sync::Arc;

use super::contention::Extra;
use super::pipeline::{self, INLINE_MICROBATCHES, Rows, Stages};
use super::published;
use crate::cost::draft;
use crate::cost::memory::{self, Memory};
use crate::cost::{AfdUnit, Batch, LayerStages, Library, Total, Worker};
use crate::error::Result;
use crate::math::normal;
use crate::network::CommTime;
use crate::spec::assumptions::{MicrobatchSplit, PipelineFormula, PrefillSplit};
use crate::spec::plan::{Duplex, PipelineMode};
use crate::spec::{AfdPlan, Parallel, Workload};

/// Wall time of one step and the operator time in it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct StepTime<W = Total> {
    /// From the first operator to the last (AFD: one pass of the pipeline).
    pub seconds: f64,
    pub work: W,
}

/// An AFD unit with its pipeline.
pub struct Unit {
    pub unit: Arc<AfdUnit>,
    pub microbatches: u32,
    pub half_duplex: bool,
    pub overlapped: bool,
    /// Sliding attention, per MoE layer group in order: (layers, sliding).
    pub(super) groups: Vec<(u32, bool)>,
    memory: [Memory; 2],
}

pub enum Kind {
    Worker(Box<Worker>, Memory),
    Afd(Box<Unit>),
}

/// A worker or an AFD unit, compiled.
pub struct Stepper {
    pub kind: Kind,
    lib: Arc<Library>,
    gpus: u32,
    /// E[max] over the synchronised ranks of a slot's KV above its mean, for one sequence a rank.
    straggle: f64,
    /// Longest sequence of the workload.
    peak: f64,
}

/// Prefill of one request (or of one round of them) on a stepper.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Prefill {
    /// From the first chunk to the last logits.
    pub latency_s: f64,
    /// Time between rounds in steady state.
    pub period_s: f64,
    /// Requests finished per round, all ranks together.
    pub requests: f64,
    pub chunks: f64,
    /// Sequences per rank whose last chunks end together, so that their KV leaves together.
    pub together: f64,
    pub work: Total,
}

impl Stepper {
    pub fn worker(lib: &Arc<Library>, parallel: Parallel, workload: &Workload, pool: &'static str) -> Result<Stepper> {
        let cx = context(lib, workload);
        let memory = memory::worker(&cx, &parallel, pool);
        let worker = Worker::new(lib, parallel)?;
        Ok(Stepper {
            straggle: straggle(lib, workload, worker.ranks()),
            peak: workload.peak_tokens(),
            kind: Kind::Worker(Box::new(worker), memory),
            lib: lib.clone(),
            gpus: parallel.gpus(),
        })
    }

    /// An AFD unit; each pool on the library of its own device, if the plan names one.
    pub fn afd(lib: &Arc<Library>, plan: &AfdPlan, workload: &Workload) -> Result<Stepper> {
        let (attention, ffn) = (lib.on(plan.attention.device.as_ref())?, lib.on(plan.ffn.device.as_ref())?);
        let unit = Arc::new(AfdUnit::new(&attention, &ffn, plan)?);
        Stepper::afd_of(lib, unit, plan, workload)
    }

    /// The same on a unit that is compiled already: plans that differ only in batch, chunk and micro-batches.
    pub fn afd_of(lib: &Arc<Library>, unit: Arc<AfdUnit>, plan: &AfdPlan, workload: &Workload) -> Result<Stepper> {
        let (attention, ffn) = (lib.on(plan.attention.device.as_ref())?, lib.on(plan.ffn.device.as_ref())?);
        let cx = context(&attention, workload);
        let (a, f) = memory::afd(&cx, plan, unit.experts.ep, ffn.cluster.device.hbm_bytes);
        let mut groups: Vec<(u32, bool)> = Vec::new();
        for layer in lib.model.dense_layers..lib.model.layers {
            let sliding = crate::cost::worker::is_sliding(&lib.model, layer);
            match groups.last_mut() {
                Some((n, s)) if *s == sliding => *n += 1,
                _ => groups.push((1, sliding)),
            }
        }
        let unit = Unit {
            unit,
            microbatches: plan.microbatches.unwrap_or(1),
            half_duplex: plan.duplex == Duplex::Half,
            overlapped: plan.pipeline == PipelineMode::Overlapped,
            groups,
            memory: [a, f],
        };
        Ok(Stepper {
            straggle: straggle(lib, workload, unit.unit.ranks()),
            peak: workload.peak_tokens(),
            kind: Kind::Afd(Box::new(unit)),
            lib: lib.clone(),
            gpus: plan.attention.gpus + plan.ffn.gpus,
        })
    }

    pub fn is_afd(&self) -> bool {
        matches!(self.kind, Kind::Afd(_))
    }

    pub fn library(&self) -> &Arc<Library> {
        &self.lib
    }

    /// GPUs of one worker or unit.
    pub fn gpus(&self) -> u32 {
        self.gpus
    }

    /// Attention-DP ranks.
    pub fn ranks(&self) -> f64 {
        match &self.kind {
            Kind::Worker(w, _) => w.ranks(),
            Kind::Afd(u) => u.unit.ranks(),
        }
    }

    /// Pipeline stages that each keep a batch in flight.
    pub fn stages_in_flight(&self) -> f64 {
        match &self.kind {
            Kind::Worker(w, _) => f64::from(w.parallel.pp),
            Kind::Afd(_) => 1.0,
        }
    }

    /// GPUs that hold a sequence's KV between them, and so can send or receive it side by side.
    pub fn kv_links(&self) -> u32 {
        match &self.kind {
            Kind::Worker(w, _) => w.parallel.tp * w.parallel.cp * w.parallel.pp,
            Kind::Afd(u) => u.unit.attention_tp,
        }
    }

    /// GPUs that hold KV (all of a worker, the attention pool of a unit).
    pub fn kv_gpus(&self) -> u32 {
        match &self.kind {
            Kind::Worker(w, _) => w.parallel.gpus(),
            Kind::Afd(u) => u.unit.attention_gpus,
        }
    }

    pub fn memory(&self) -> &[Memory] {
        match &self.kind {
            Kind::Worker(_, m) => std::slice::from_ref(m),
            Kind::Afd(u) => &u.memory,
        }
    }

    /// The pool that does not hold `sequences` per rank with `tokens` in flight, and the fullest GPU.
    pub fn memory_check(&self, sequences: f64, tokens: f64) -> (Option<&'static str>, f64) {
        let mut short = None;
        let mut most: f64 = 0.0;
        for m in self.memory() {
            let bytes = m.bytes(sequences, tokens);
            if bytes > m.capacity && short.is_none() {
                short = Some(m.pool);
            }
            most = most.max(bytes);
        }
        (short, most)
    }

    /// Wall time of one step as decode sees it: with PP, of all stages in turn.
    pub fn step(&self, batch: &Batch) -> StepTime {
        match &self.kind {
            Kind::Worker(w, _) => {
                let (t, pp) = (w.stage(batch), f64::from(w.parallel.pp));
                StepTime { seconds: t.seconds * pp, work: t.work.times(pp) }
            }
            Kind::Afd(u) => u.step(batch, u.overlapped),
        }
    }

    /// Mean context of the rank that all others wait for, at `batch` sequences per rank whose mean is
    /// `context`: E[max] over the ranks of the mean of a micro-batch's slots (physics.md section 6).
    pub fn slowest_context(&self, batch: f64, context: f64) -> f64 {
        let together = match &self.kind {
            Kind::Worker(..) => batch,
            Kind::Afd(u) => batch / f64::from(u.microbatches.max(1)).min(batch.ceil().max(1.0)),
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
            Kind::Worker(w, _) => {
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
            Kind::Afd(u) => u.prefill(&parts, sequences, chunks),
        }
    }

    /// The steps (worker) or micro-batches (AFD unit) of such a round, in order.
    pub fn prefill_parts(&self, sequences: f64, isl: f64, prefix: f64, chunk: f64) -> Vec<Batch> {
        let chunks = chunks_of(isl, chunk);
        if let Kind::Afd(u) = &self.kind
            && self.lib.assumptions.prefill_split == PrefillSplit::OneSequence
            && u.microbatches > 1
        {
            let mut part = u.micro(&Batch::prefill(sequences, isl, prefix), u.microbatches);
            part.ending = sequences / f64::from(u.microbatches);
            return vec![part; u.microbatches as usize];
        }
        let groups = match &self.kind {
            Kind::Worker(..) => 1.0,
            Kind::Afd(u) => u.prefill_groups(sequences, chunks),
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
        quant: &lib.quant,
        formats: &lib.formats,
        serving: &lib.serving,
        assumptions: &lib.assumptions,
        workload,
        capacity: lib.cluster.device.hbm_bytes,
        framework: &lib.framework,
        node_gpus: lib.cluster.fabric.node_gpus,
    }
}

/// Kinds of layers of a unit: full-attention and sliding MoE, dense, ends, first and further draft passes.
pub(super) const ROWS: usize = 6;

const NO_STAGES: Stages = Stages { attention: 0.0, a2f: 0.0, ffn: 0.0, f2a: 0.0 };

fn stage_times(s: &LayerStages, slowed: Option<f64>) -> Stages {
    let [attention, a2f, ffn, f2a] = s.seconds(slowed);
    Stages { attention, a2f, ffn, f2a }
}

fn attention_only(t: &Total) -> Stages {
    Stages { attention: t.seconds, a2f: 0.0, ffn: 0.0, f2a: 0.0 }
}

impl Unit {
    pub fn memory(&self) -> &[Memory; 2] {
        &self.memory
    }

    /// Micro-batches of a step: whole sequences when the batch is whole, else equal parts.
    pub fn parts(&self, batch: &Batch) -> Vec<Batch> {
        let mut out = Vec::with_capacity(self.microbatches as usize);
        self.for_each_part(batch, |b| out.push(b));
        out
    }

    pub(super) fn for_each_part(&self, batch: &Batch, mut take: impl FnMut(Batch)) {
        let m = self.microbatches.max(1);
        let whole = batch.decode.fract() == 0.0 && batch.decode > 0.0;
        if !whole || batch.has_prefill() {
            let parts = if batch.has_prefill() { m } else { m.min(batch.decode.ceil().max(1.0) as u32) };
            let part = self.micro(batch, parts);
            (0..parts).for_each(|_| take(part));
            return;
        }
        let b = batch.decode as u32;
        let parts = m.min(b.max(1));
        for i in 0..parts {
            let size = match self.unit.library().assumptions.microbatch_split {
                MicrobatchSplit::Even => b / parts + u32::from(i < b % parts),
                MicrobatchSplit::Floor => (b / parts).max(1),
                MicrobatchSplit::Ceil => b.div_ceil(parts),
            };
            take(batch.scaled(f64::from(size) / batch.decode));
        }
    }

    /// One step of all micro-batches.
    pub fn step(&self, batch: &Batch, overlapped: bool) -> StepTime {
        if self.microbatches as usize > INLINE_MICROBATCHES {
            return self.schedule(&self.parts(batch), overlapped);
        }
        let mut parts = [Batch::default(); INLINE_MICROBATCHES];
        let mut n = 0;
        self.for_each_part(batch, |b| {
            parts[n] = b;
            n += 1;
        });
        self.schedule(&parts[..n], overlapped)
    }

    /// Costs and schedule of micro-batches that may differ.
    pub fn schedule(&self, parts: &[Batch], overlapped: bool) -> StepTime {
        self.with_rows(parts, |rows, work| StepTime { seconds: self.pass(rows, parts, overlapped), work })
    }

    /// The same with stages of micro-batch i longer by `extra(i)` (KV on the same ports): seconds of a pass.
    pub fn schedule_beside(&self, parts: &[Batch], overlapped: bool, extra: impl Fn(usize) -> Extra) -> f64 {
        let dense_first = self.unit.counts.dense[0] + self.unit.counts.dense[1] > 0.0;
        self.with_rows(parts, |rows, _| {
            let longer = |row: usize, i: usize, s: &Stages| {
                let x = extra(i);
                if row + 1 == rows.len() {
                    return *s;
                }
                if row == 0 && dense_first {
                    return Stages { attention: s.attention + x.dense, ..*s };
                }
                // A fused dispatch has its hop inside the FFN stage.
                let (a2f, ffn) = if s.a2f > 0.0 { (s.a2f + x.a2f, s.ffn) } else { (0.0, s.ffn + x.a2f) };
                Stages { attention: s.attention + x.attention, a2f, ffn, f2a: s.f2a + x.f2a }
            };
            let stages: Vec<Vec<Stages>> = rows
                .iter()
                .enumerate()
                .map(|(row, r)| r.stages.iter().enumerate().map(|(i, s)| longer(row, i, s)).collect())
                .collect();
            let longer: Vec<Rows<'_>> =
                rows.iter().zip(&stages).map(|(r, s)| Rows { layers: r.layers, stages: s }).collect();
            self.pass(&longer, parts, overlapped)
        })
    }

    /// One pass of the pipeline, by the schedule or by a published formula.
    fn pass(&self, rows: &[Rows<'_>], parts: &[Batch], overlapped: bool) -> f64 {
        let (m, layers, s) = (parts.len() as u32, layers_of(rows), sums_of(rows));
        match self.unit.library().assumptions.pipeline_formula {
            PipelineFormula::Schedule => pipeline::step_time(rows, self.half_duplex, overlapped),
            PipelineFormula::SlowestStage => published::pipeline_v2([s.attention, s.a2f, s.ffn, s.f2a], m, layers),
            PipelineFormula::Cycle => {
                let n = f64::from(layers);
                let layer = Stages { attention: s.attention / n, a2f: s.a2f / n, ffn: s.ffn / n, f2a: s.f2a / n };
                if parts.iter().all(|b| b.has_prefill() && b.decode == 0.0) {
                    published::cycle_prefill(&layer, m, layers)
                } else {
                    published::cycle_step(&layer, m, layers)
                }
            }
        }
    }

    /// One of `parts` equal micro-batches, as the assumptions cut a prefill.
    fn micro(&self, batch: &Batch, parts: u32) -> Batch {
        let mut b = batch.part(parts);
        if self.unit.library().assumptions.prefill_split == PrefillSplit::OneSequence
            && batch.has_prefill()
            && parts > 1
        {
            (b.new, b.past) = published::one_sequence(batch.sequences, batch.new, batch.past, parts);
            b.sequences = 1.0;
        }
        b
    }

    /// Prices micro-batches and hands their stage times on, layer group by layer group in order.
    pub fn with_rows<T>(&self, parts: &[Batch], then: impl FnOnce(&[Rows<'_>], Total) -> T) -> T {
        let n = parts.len();
        let mut inline = [[NO_STAGES; INLINE_MICROBATCHES]; ROWS];
        let mut heap: Vec<Stages> = Vec::new();
        let [full, sliding, dense, ends, draft, more]: [&mut [Stages]; ROWS] = if n <= INLINE_MICROBATCHES {
            inline.each_mut().map(|row| &mut row[..n])
        } else {
            heap.resize(ROWS * n, NO_STAGES);
            let mut rest = &mut heap[..];
            std::array::from_fn(|_| {
                let (row, after) = std::mem::take(&mut rest).split_at_mut(n);
                rest = after;
                row
            })
        };
        let counts = &self.unit.counts;
        let dense_layers = (counts.dense[0] + counts.dense[1]) as u32;
        let slowed = self.unit.slowed();
        let mtp = self.unit.library().serving.mtp;
        let drafts = parts.iter().any(|b| b.decode > 0.0);
        let mut work = Total::default();
        let mut part_work = Total::default();
        for (i, b) in parts.iter().enumerate() {
            if i > 0 && *b == parts[i - 1] {
                for row in [&mut *full, &mut *sliding, &mut *dense, &mut *ends, &mut *draft, &mut *more] {
                    row[i] = row[i - 1];
                }
                work = work.plus(&part_work);
                continue;
            }
            part_work = Total::default();
            for (row, is_sliding) in [(&mut *full, false), (&mut *sliding, true)] {
                let layers = counts.moe[usize::from(is_sliding)];
                if layers > 0.0 {
                    let s = self.unit.stages(b, is_sliding);
                    row[i] = stage_times(&s, slowed);
                    part_work = part_work.plus(&s.work().times(layers));
                }
            }
            if dense_layers > 0 {
                let d = self.unit.dense(b, false);
                dense[i] = stage_times(&d, None);
                part_work = part_work.plus(&d.work().times(f64::from(dense_layers)));
            }
            let e = self.unit.ends(b);
            ends[i] = attention_only(&e);
            part_work = part_work.plus(&e);
            if mtp > 0 {
                // A draft pass is one more layer; what comes before its attention runs with it.
                let [(first, _), (rest, passes)] = draft::passes(mtp, b);
                let (s, d) = (self.unit.stages(&first, false), self.unit.draft_ends(&first));
                draft[i] = stage_times(&s, slowed);
                draft[i].attention += d.seconds;
                part_work = part_work.plus(&s.work()).plus(&d);
                if passes > 0.0 {
                    let (s, d) = (self.unit.stages(&rest, false), self.unit.draft_ends(&rest));
                    more[i] = stage_times(&s, slowed);
                    more[i].attention += d.seconds;
                    part_work = part_work.plus(&s.work().plus(&d).times(passes));
                }
            }
            work = work.plus(&part_work);
        }
        let rows = self.assemble([full, sliding, dense, ends, draft, more], drafts);
        then(&rows, work)
    }

    /// In how many groups the sequences of a prefill round go one after another: with few per rank, one by one.
    fn prefill_groups(&self, sequences: f64, chunks: f64) -> f64 {
        let per_chunk =
            (sequences * chunks / f64::from(self.microbatches.max(1))).ceil().clamp(1.0, sequences.max(1.0));
        (sequences / per_chunk).ceil().max(1.0)
    }

    /// Rounds of prompts: consecutive chunks of each sequence are micro-batches. A chunk at layer l
    /// follows the one before it through the attention stage, which keeps causality.
    fn prefill(&self, parts: &[Batch], sequences: f64, chunks: f64) -> Prefill {
        let alone = self.schedule(parts, false);
        let period =
            if self.overlapped { self.schedule(parts, true).seconds.min(alone.seconds) } else { alone.seconds };
        Prefill {
            latency_s: alone.seconds,
            period_s: period,
            requests: sequences * self.unit.ranks(),
            chunks,
            together: sequences / self.prefill_groups(sequences, chunks),
            work: alone.work,
        }
    }
}

/// Stage sums over all layers of the first micro-batch.
fn sums_of(rows: &[Rows<'_>]) -> Stages {
    let mut sum = NO_STAGES;
    for r in rows.iter().filter(|r| !r.stages.is_empty()) {
        let (n, s) = (f64::from(r.layers), r.stages[0]);
        sum.attention += n * s.attention;
        sum.a2f += n * s.a2f;
        sum.ffn += n * s.ffn;
        sum.f2a += n * s.f2a;
    }
    sum
}

/// Layers of a model; its ends are no layer.
fn layers_of(rows: &[Rows<'_>]) -> u32 {
    rows.iter().map(|r| r.layers).sum::<u32>().saturating_sub(1).max(1)
}

/// KV transfer between a prefill rank and decode ranks, `together` requests of the one at a time, each to or
/// from another rank of the other: seconds until the last has arrived, of the whole and of one layer.
///
/// The prefill rank's links carry all of them, a decode rank's its own one only. `share`: of its ports that KV gets.
pub fn kv_seconds(
    prefill: &Stepper,
    decode: &Stepper,
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
