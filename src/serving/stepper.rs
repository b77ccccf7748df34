//! What takes steps: a worker, or an AFD unit whose micro-batches run through four stages a layer.

use std::sync::Arc;

use super::pipeline::{self, INLINE_MICROBATCHES, Rows, Stages};
use super::published;
use crate::cost::memory::{self, Memory};
use crate::cost::{AfdUnit, Batch, LayerStages, Library, Total, Worker};
use crate::error::Result;
use crate::network::CommTime;
use crate::spec::assumptions::{MicrobatchSplit, PipelineFormula, PrefillSplit};
use crate::spec::plan::{Duplex, PipelineMode};
use crate::spec::{AfdPlan, Parallel, Workload};

/// Wall time of one step and the operator time in it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct StepTime {
    /// From the first operator to the last (AFD: one pass of the pipeline).
    pub seconds: f64,
    pub work: Total,
}

/// An AFD unit with its pipeline.
pub struct Unit {
    pub unit: AfdUnit,
    pub microbatches: u32,
    pub half_duplex: bool,
    pub overlapped: bool,
    /// Sliding attention, per MoE layer group in order: (layers, sliding).
    groups: Vec<(u32, bool)>,
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
    pub work: Total,
}

impl Stepper {
    pub fn worker(lib: &Arc<Library>, parallel: Parallel, workload: &Workload, pool: &'static str) -> Result<Stepper> {
        let cx = context(lib, workload);
        let memory = memory::worker(&cx, &parallel, pool);
        let worker = Worker::new(lib, parallel)?;
        Ok(Stepper { kind: Kind::Worker(Box::new(worker), memory), lib: lib.clone(), gpus: parallel.gpus() })
    }

    pub fn afd(lib: &Arc<Library>, ffn_lib: &Arc<Library>, plan: &AfdPlan, workload: &Workload) -> Result<Stepper> {
        let unit = AfdUnit::new(lib, ffn_lib, plan)?;
        let cx = context(lib, workload);
        let capacity = plan.ffn.device.as_ref().map_or(lib.cluster.device.hbm_bytes, |d| d.hbm_bytes);
        let attention_capacity = plan.attention.device.as_ref().map_or(lib.cluster.device.hbm_bytes, |d| d.hbm_bytes);
        let cx = memory::Context { capacity: attention_capacity, ..cx };
        let (a, f) = memory::afd(&cx, plan, unit.experts.ep, capacity);
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
        Ok(Stepper { kind: Kind::Afd(Box::new(unit)), lib: lib.clone(), gpus: plan.attention.gpus + plan.ffn.gpus })
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
                let t = w.stage(batch).times(f64::from(w.parallel.pp));
                StepTime { seconds: t.seconds, work: t }
            }
            Kind::Afd(u) => u.step(batch, u.overlapped),
        }
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
                let mut slowest: f64 = 0.0;
                for b in &parts {
                    let t = w.stage(b);
                    slowest = slowest.max(t.seconds);
                    work = work.plus(&t);
                }
                // Chunks follow one another through the stages; the pipeline fills once.
                let latency_s = work.seconds + (pp - 1.0) * slowest;
                Prefill {
                    latency_s,
                    period_s: work.seconds,
                    requests: sequences * w.ranks(),
                    chunks,
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
    }
}

const NO_STAGES: Stages = Stages { attention: 0.0, a2f: 0.0, ffn: 0.0, f2a: 0.0 };

fn stage_times(s: &LayerStages) -> Stages {
    Stages { attention: s.attention.seconds, a2f: s.a2f.seconds, ffn: s.ffn.seconds, f2a: s.f2a.seconds }
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

    fn for_each_part(&self, batch: &Batch, mut take: impl FnMut(Batch)) {
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
        let n = parts.len();
        let mut inline = [[NO_STAGES; INLINE_MICROBATCHES]; 4];
        let mut heap: Vec<Stages> = Vec::new();
        // Four rows of one entry per micro-batch: full-attention and sliding MoE layers, dense layers, ends.
        let [full, sliding, dense, ends]: [&mut [Stages]; 4] = if n <= INLINE_MICROBATCHES {
            inline.each_mut().map(|row| &mut row[..n])
        } else {
            heap.resize(4 * n, NO_STAGES);
            let (a, rest) = heap.split_at_mut(n);
            let (b, rest) = rest.split_at_mut(n);
            let (c, d) = rest.split_at_mut(n);
            [a, b, c, d]
        };
        let counts = &self.unit.counts;
        let dense_layers = (counts.dense[0] + counts.dense[1]) as u32;
        let mut work = Total::default();
        let mut part_work = Total::default();
        for (i, b) in parts.iter().enumerate() {
            if i > 0 && *b == parts[i - 1] {
                for row in [&mut *full, &mut *sliding, &mut *dense, &mut *ends] {
                    row[i] = row[i - 1];
                }
            } else {
                part_work = Total::default();
                for (row, is_sliding) in [(&mut *full, false), (&mut *sliding, true)] {
                    let layers = counts.moe[usize::from(is_sliding)];
                    if layers > 0.0 {
                        let s = self.unit.stages(b, is_sliding);
                        row[i] = stage_times(&s);
                        part_work = part_work.plus(&s.attention.plus(&s.a2f).plus(&s.ffn).plus(&s.f2a).times(layers));
                    }
                }
                if dense_layers > 0 {
                    let d = self.unit.dense(b, false);
                    dense[i] = attention_only(&d);
                    part_work = part_work.plus(&d.times(f64::from(dense_layers)));
                }
                let e = self.unit.ends(b);
                ends[i] = attention_only(&e);
                part_work = part_work.plus(&e);
            }
            work = work.plus(&part_work);
        }
        let mut rows: Vec<Rows<'_>> = Vec::with_capacity(self.groups.len() + 2);
        if dense_layers > 0 {
            rows.push(Rows { layers: dense_layers, stages: dense });
        }
        for (layers, is_sliding) in &self.groups {
            rows.push(Rows { layers: *layers, stages: if *is_sliding { sliding } else { full } });
        }
        rows.push(Rows { layers: 1, stages: ends });
        let seconds = match self.unit.library().assumptions.pipeline_formula {
            PipelineFormula::Schedule => pipeline::step_time(&rows, self.half_duplex, overlapped),
            PipelineFormula::SlowestStage => {
                let sums = sums_of(&rows);
                published::pipeline_v2([sums.attention, sums.a2f, sums.ffn, sums.f2a], n as u32, layers_of(&rows))
            }
            PipelineFormula::Cycle => {
                let layers = f64::from(layers_of(&rows));
                let s = sums_of(&rows);
                let layer = Stages {
                    attention: s.attention / layers,
                    a2f: s.a2f / layers,
                    ffn: s.ffn / layers,
                    f2a: s.f2a / layers,
                };
                if parts.iter().all(|b| b.has_prefill() && b.decode == 0.0) {
                    published::cycle_prefill(&layer, n as u32, layers_of(&rows))
                } else {
                    published::cycle_step(&layer, n as u32, layers_of(&rows))
                }
            }
        };
        StepTime { seconds, work }
    }

    /// One of `parts` equal micro-batches, as the assumptions cut a prefill.
    fn micro(&self, batch: &Batch, parts: u32) -> Batch {
        let mut b = micro(batch, parts);
        if self.unit.library().assumptions.prefill_split == PrefillSplit::OneSequence
            && batch.has_prefill()
            && parts > 1
        {
            (b.new, b.past) = published::one_sequence(batch.sequences, batch.new, batch.past, parts);
            b.sequences = 1.0;
        }
        b
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

/// One of `parts` equal micro-batches of a step: decode sequences and prompt tokens both divided.
fn micro(batch: &Batch, parts: u32) -> Batch {
    let n = f64::from(parts.max(1));
    let mut b = batch.scaled(1.0 / n);
    if batch.has_prefill() {
        // Consecutive pieces of the same prompts rather than fractions of a sequence.
        b.sequences = batch.sequences;
        b.new = batch.new / n;
        b.past = batch.past + batch.new * (n - 1.0) / (2.0 * n);
    }
    b
}

/// KV transfer of one request from prefill to decode: seconds of the whole, and of one layer.
pub fn kv_seconds(from: &Stepper, to: &Stepper, tokens: f64, lib: &Library, same_domain: bool) -> (CommTime, CommTime) {
    let links = from.kv_links().min(to.kv_links()).max(1);
    let bytes = lib.model.kv_bytes(tokens, lib.formats.kv);
    let layers = f64::from(lib.model.layers);
    (lib.comm.kv_transfer(bytes, links, same_domain), lib.comm.kv_layer(bytes / layers, links, same_domain))
}
