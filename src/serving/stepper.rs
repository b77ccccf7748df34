//! What takes steps: a worker, or an AFD unit whose micro-batches run through four stages a layer.

use std::sync::Arc;

use super::pipeline::{self, Stages};
use crate::cost::memory::{self, Memory};
use crate::cost::{AfdUnit, Batch, LayerStages, Library, Total, Worker};
use crate::error::Result;
use crate::network::CommTime;
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
        Ok(Stepper {
            kind: Kind::Afd(Box::new(unit)),
            lib: lib.clone(),
            gpus: plan.attention.gpus + plan.ffn.gpus,
        })
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
        let chunks = (isl / chunk.max(1.0)).ceil().max(1.0);
        let size = isl / chunks;
        match &self.kind {
            Kind::Worker(w, _) => {
                let pp = f64::from(w.parallel.pp);
                let mut work = Total::default();
                let mut slowest: f64 = 0.0;
                for i in 0..chunks as u32 {
                    let past = prefix + f64::from(i) * size;
                    let mut b = Batch::prefill(sequences, size, past);
                    b.ending = if f64::from(i) + 1.0 >= chunks { sequences } else { 0.0 };
                    let t = w.stage(&b);
                    slowest = slowest.max(t.seconds);
                    work = work.plus(&t);
                }
                // Chunks follow one another through the stages; the pipeline fills once.
                let latency_s = work.seconds + (pp - 1.0) * slowest;
                Prefill { latency_s, period_s: work.seconds, requests: sequences * w.ranks(), chunks, work: work.times(pp) }
            }
            Kind::Afd(u) => u.prefill(sequences, size, prefix, chunks),
        }
    }
}

fn context<'a>(lib: &'a Library, workload: &'a Workload) -> memory::Context<'a> {
    memory::Context {
        model: &lib.model,
        formats: &lib.quant,
        serving: &lib.serving,
        assumptions: &lib.assumptions,
        workload,
        capacity: lib.cluster.device.hbm_bytes,
    }
}

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

    /// Sizes of the micro-batches of a step: whole sequences when the batch is whole.
    pub fn parts(&self, batch: &Batch) -> Vec<Batch> {
        let m = self.microbatches.max(1);
        let whole = batch.decode.fract() == 0.0 && batch.decode > 0.0;
        if !whole || batch.has_prefill() {
            let parts = if batch.has_prefill() { m } else { m.min(batch.decode.ceil().max(1.0) as u32) };
            return vec![micro(batch, parts); parts as usize];
        }
        let b = batch.decode as u32;
        let parts = m.min(b.max(1));
        (0..parts)
            .map(|i| {
                let size = b / parts + u32::from(i < b % parts);
                batch.scaled(f64::from(size) / batch.decode)
            })
            .collect()
    }

    /// One step of all micro-batches.
    pub fn step(&self, batch: &Batch, overlapped: bool) -> StepTime {
        let parts = self.parts(batch);
        self.schedule(&parts, overlapped)
    }

    /// Costs and schedule of micro-batches that may differ.
    fn schedule(&self, parts: &[Batch], overlapped: bool) -> StepTime {
        let counts = &self.unit.counts;
        let dense_layers = (counts.dense[0] + counts.dense[1]) as u32;
        let mut work = Total::default();
        // [0]: full attention, [1]: sliding; equal neighbours are priced once.
        let mut rows: [Vec<Stages>; 2] = [Vec::new(), Vec::new()];
        let mut dense: Vec<Stages> = Vec::new();
        let mut ends: Vec<Stages> = Vec::new();
        let mut last: Option<(Batch, [LayerStages; 2], Total, Total)> = None;
        for b in parts {
            let (stages, dense_cost, end) = match &last {
                Some((prev, s, d, e)) if prev == b => (*s, *d, *e),
                _ => {
                    let mut s = [LayerStages::default(); 2];
                    for (i, stage) in s.iter_mut().enumerate() {
                        if counts.moe[i] > 0.0 {
                            *stage = self.unit.stages(b, i == 1);
                        }
                    }
                    let d = if dense_layers > 0 { self.unit.dense(b, false) } else { Total::default() };
                    (s, d, self.unit.ends(b))
                }
            };
            for i in 0..2 {
                rows[i].push(stage_times(&stages[i]));
                let s = &stages[i];
                work = work.plus(&s.attention.plus(&s.a2f).plus(&s.ffn).plus(&s.f2a).times(counts.moe[i]));
            }
            dense.push(attention_only(&dense_cost));
            ends.push(attention_only(&end));
            work = work.plus(&dense_cost.times(f64::from(dense_layers))).plus(&end);
            last = Some((*b, stages, dense_cost, end));
        }
        let mut groups: Vec<(u32, Vec<Stages>)> = Vec::with_capacity(self.groups.len() + 2);
        if dense_layers > 0 {
            groups.push((dense_layers, dense));
        }
        for (n, sliding) in &self.groups {
            groups.push((*n, rows[usize::from(*sliding)].clone()));
        }
        groups.push((1, ends));
        StepTime { seconds: pipeline::schedule(&groups, self.half_duplex, overlapped), work }
    }

    /// Rounds of prompts: consecutive chunks of each sequence are micro-batches. A chunk at layer l
    /// follows the one before it through the attention stage, which keeps causality.
    fn prefill(&self, sequences: f64, size: f64, prefix: f64, chunks: f64) -> Prefill {
        let mut parts = Vec::new();
        // With few sequences per rank they go one by one; a rank's sequences are equal.
        let per_chunk = (sequences * chunks / f64::from(self.microbatches.max(1))).ceil().clamp(1.0, sequences.max(1.0));
        let groups = (sequences / per_chunk).ceil().max(1.0);
        for _ in 0..groups as u32 {
            for i in 0..chunks as u32 {
                let mut b = Batch::prefill(sequences / groups, size, prefix + f64::from(i) * size);
                b.ending = if f64::from(i) + 1.0 >= chunks { b.sequences } else { 0.0 };
                parts.push(b);
            }
        }
        let alone = self.schedule(&parts, false);
        let period = if self.overlapped { self.schedule(&parts, true).seconds.min(alone.seconds) } else { alone.seconds };
        Prefill {
            latency_s: alone.seconds,
            period_s: period,
            requests: sequences * self.unit.ranks(),
            chunks,
            work: alone.work,
        }
    }
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
    let bytes = memory::kv_sequence_bytes(&lib.model, lib.quant.kv, tokens, 1);
    let layers = f64::from(lib.model.layers);
    (lib.comm.kv_transfer(bytes, links, same_domain), lib.comm.kv_transfer(bytes / layers, links, same_domain))
}
