//! An AFD unit as it takes steps: its micro-batches through four stages a layer, group by group and stage by stage.
//!
//! Attention groups step on their own and share the FFN pool; all are priced alike, each with the same micro-batches,
//! in turn (`pipeline`). Pipeline stages (PP) hold `layers / pp` each, dense layers in the first, draft passes and LM
//! head in the last: a stage takes the slowest one's schedule and one hop of hidden states, decode keeps a batch a
//! stage in flight, so a step as decode sees it is `pp` of those; a prefill round goes through in waves of M
//! micro-batches, with `pp - 1` waves of bubble. Source: physics.md sections 1 and 5.
//! Limits: groups keep the pace of the slowest, whose turn the pool waits for (one that served whoever is ready first
//! would let decode past another group's prompts); a hop between stages is not hidden behind other micro-batches.

use std::sync::Arc;

use super::layer_sequence::LayerSequence;
use super::published;
use super::stages::{Extra, INLINE_MICROBATCHES, Rows, Stages};
use super::step_time::{Prefill, StepTime};
use super::strategies::PipelineStrategy;
use crate::cost::afd::{MicroRow, rows as rows_of};
use crate::cost::ledger::Sum;
use crate::cost::memory::Memory;
use crate::cost::program::Ffn;
use crate::cost::{AfdUnit, Batch, LayerStages, Ledger, Op, Program, Total};
use crate::network::CommTime;
use crate::spec::AfdPlan;
use crate::spec::plan::PipelineMode;

/// An AFD unit with its pipeline.
pub struct Unit {
    pub unit: Arc<AfdUnit>,
    pub microbatches: u32,
    pub overlapped: bool,
    /// Whether all of them stand in one scale-up domain.
    pub(super) near: bool,
    /// Its layers in their order.
    pub sequence: LayerSequence,
    memory: [Memory; 2],
    /// How micro-batches are cut and put in a pipeline.
    pub(super) strategy: PipelineStrategy,
}

const NO_STAGES: Stages = Stages::attention(0.0);

impl Unit {
    /// A compiled unit with the schedule of this plan.
    pub(super) fn new(unit: Arc<AfdUnit>, plan: &AfdPlan, memory: [Memory; 2]) -> Unit {
        let lib = unit.library();
        Unit {
            microbatches: plan.microbatches.unwrap_or(1),
            overlapped: plan.pipeline == PipelineMode::Overlapped,
            near: plan.unit_gpus() <= lib.cluster.fabric.domain_gpus,
            sequence: LayerSequence::new(&unit, plan),
            memory,
            strategy: PipelineStrategy::of(&lib.assumptions),
            unit,
        }
    }

    pub(super) fn program(&self) -> &Program {
        &self.unit.library().program
    }

    /// How long a row keeps each stage busy; `own`: seconds of the attention pool beside its layer. A dense layer has
    /// no dispatch to fuse.
    #[inline]
    pub(super) fn stages_of<S: Sum>(&self, row: MicroRow, s: &LayerStages<S>, own: f64, slowed: Option<f64>) -> Stages {
        let dense = matches!(row, MicroRow::Kind(i) if self.program().kinds()[i].ffn == Ffn::Dense);
        let slowed = slowed.filter(|_| !dense);
        let [attention, a2f, ffn, f2a] = s.seconds(slowed);
        // A micro-batch alone has nothing to hide behind.
        let attention = if self.microbatches > 1 { attention - s.hidden } else { attention };
        Stages { attention: attention + own, a2f, ffn, f2a, ports: s.ports(slowed) }
    }

    /// Hidden states of a micro-batch on their way to the next pipeline stage.
    pub fn stage_hop(&self, b: &Batch) -> CommTime {
        self.unit.hops().stage_hop(b, self.near)
    }

    /// The longest of those hops; 0 with one stage.
    pub(super) fn hop_seconds(&self, parts: &[Batch]) -> f64 {
        if self.sequence.pp == 1 { 0.0 } else { parts.iter().map(|b| self.stage_hop(b).seconds).fold(0.0, f64::max) }
    }

    /// Attention-DP ranks of all groups.
    pub(crate) fn ranks(&self) -> f64 {
        f64::from(self.unit.groups) * self.unit.ranks()
    }

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
            take(batch.scaled(f64::from((self.strategy.size)(b, parts, i)) / batch.decode));
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

    /// Costs and schedule of micro-batches that may differ: a step as decode sees it, through all pipeline stages.
    pub fn schedule(&self, parts: &[Batch], overlapped: bool) -> StepTime {
        let pp = f64::from(self.sequence.pp);
        let of = |slowed| {
            self.with_rows_as(parts, slowed, |rows, work| StepTime {
                seconds: pp * self.pass(rows, parts, overlapped),
                work,
            })
        };
        let plain = of(None);
        // A fused kernel is one more way to the experts: taken where it is the faster.
        let fused = self.unit.slowed.map(|slowed| of(Some(slowed)));
        fused.filter(|f| f.seconds < plain.seconds).unwrap_or(plain)
    }

    /// What a fused dispatch does to the FFN stage, if these micro-batches take one.
    pub(crate) fn fused(&self, parts: &[Batch]) -> Option<f64> {
        let slowed = self.unit.slowed?;
        let pass = |slowed| self.with_rows_as(parts, slowed, |rows, _| self.pass(rows, parts, self.overlapped));
        (pass(Some(slowed)) < pass(None)).then_some(slowed)
    }

    /// The same with stages of micro-batch i longer by `extra(i)` (KV on the same ports): seconds of the step.
    pub fn schedule_beside(&self, parts: &[Batch], overlapped: bool, extra: impl Fn(usize) -> Extra) -> f64 {
        f64::from(self.sequence.pp) * self.pass_beside(parts, overlapped, extra)
    }

    /// [`Unit::schedule_beside`] of a prefill round: seconds until its last logits.
    pub(crate) fn round_beside(&self, parts: &[Batch], extra: impl Fn(usize) -> Extra) -> f64 {
        if self.sequence.pp == 1 {
            return self.pass_beside(parts, false, extra);
        }
        let wave = self.wave();
        let waves = parts.chunks(wave).enumerate();
        self.through(waves.map(|(k, w)| self.pass_beside(w, false, |i| extra(k * wave + i))))
    }

    fn pass_beside(&self, parts: &[Batch], overlapped: bool, extra: impl Fn(usize) -> Extra) -> f64 {
        let plain = self.pass_beside_as(parts, None, overlapped, &extra);
        let fused = self.unit.slowed.map(|slowed| self.pass_beside_as(parts, Some(slowed), overlapped, &extra));
        fused.map_or(plain, |f| f.min(plain))
    }

    fn pass_beside_as(
        &self,
        parts: &[Batch],
        slowed: Option<f64>,
        overlapped: bool,
        extra: &impl Fn(usize) -> Extra,
    ) -> f64 {
        let dense_first = self.sequence.dense_first();
        self.with_rows_as(parts, slowed, |rows, _| {
            let longer = |row: usize, i: usize, s: &Stages| {
                let x = extra(i);
                if row + 1 == rows.len() {
                    return *s;
                }
                if row < dense_first {
                    return Stages { attention: s.attention + x.dense, ..*s };
                }
                // A fused dispatch has its hop inside the FFN stage.
                let (a2f, ffn) = if s.a2f > 0.0 { (s.a2f + x.a2f, s.ffn) } else { (0.0, s.ffn + x.a2f) };
                Stages { attention: s.attention + x.attention, a2f, ffn, f2a: s.f2a + x.f2a, ..*s }
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

    /// Micro-batches that go through the stages of a pipeline together.
    pub(super) fn wave(&self) -> usize {
        self.microbatches.max(1) as usize
    }

    /// Waves of these times through all stages, one behind the other: the pipeline fills once.
    pub(super) fn through(&self, waves: impl Iterator<Item = f64>) -> f64 {
        let (sum, slowest) = waves.fold((0.0, 0.0_f64), |(sum, most), t| (sum + t, most.max(t)));
        sum + f64::from(self.sequence.pp - 1) * slowest
    }

    /// One pass of the slowest pipeline stage and the hop to the next, by the schedule or by a published formula.
    fn pass(&self, rows: &[Rows<'_>], parts: &[Batch], overlapped: bool) -> f64 {
        let Some(formula) = self.strategy.formula else {
            return self.sequence.slowest_stage(rows, overlapped) + self.hop_seconds(parts);
        };
        let prompts = parts.iter().all(|b| b.has_prefill() && b.decode == 0.0);
        formula(&sums_of(rows), parts.len() as u32, layers_of(rows), prompts)
    }

    /// One of `parts` equal micro-batches.
    pub(super) fn micro(&self, batch: &Batch, parts: u32) -> Batch {
        let mut b = batch.part(parts);
        if self.strategy.one_sequence && batch.has_prefill() && parts > 1 {
            (b.new, b.past) = published::one_sequence(batch.sequences, batch.new, batch.past, parts);
            b.sequences = 1.0;
        }
        b
    }

    /// Prices micro-batches and hands their stage times on, layer group by layer group in order.
    pub fn with_rows<T>(&self, parts: &[Batch], then: impl FnOnce(&[Rows<'_>], Total) -> T) -> T {
        self.with_rows_as(parts, self.fused(parts), then)
    }

    /// The same with a dispatch fused into the experts (`slowed`) or not.
    fn with_rows_as<T>(&self, parts: &[Batch], slowed: Option<f64>, then: impl FnOnce(&[Rows<'_>], Total) -> T) -> T {
        let (n, rows) = (parts.len(), self.sequence.rows());
        let mut all = vec![NO_STAGES; rows * n];
        let groups = f64::from(self.unit.groups);
        let mtp = self.unit.library().serving.mtp;
        let drafts = parts.iter().any(|b| b.decode > 0.0);
        let mut work = Total::default();
        let mut part_work = Total::default();
        for (i, b) in parts.iter().enumerate() {
            if i > 0 && *b == parts[i - 1] {
                (0..rows).for_each(|row| all[row * n + i] = all[row * n + i - 1]);
                work = work.plus(&part_work);
                continue;
            }
            part_work = Total::default();
            rows_of(&*self.unit, self.program(), mtp, b, |row, s: LayerStages, own, count| {
                all[self.sequence.row(row) * n + i] = self.stages_of(row, &s, own.seconds, slowed);
                let s = s.work(groups);
                part_work = match row {
                    // The order of a sum is part of its bits.
                    MicroRow::Draft => part_work.plus(&s).plus(&own),
                    _ => part_work.plus(&s.plus(&own).times(count)),
                };
            });
            if self.sequence.pp > 1 {
                part_work.add(Op::PipelineHop, f64::from(self.sequence.pp), self.stage_hop(b).into());
            }
            work = work.plus(&part_work);
        }
        let rows = self.sequence.assemble(|row| &all[row * n..][..n], drafts);
        then(&rows, work)
    }

    /// In how many groups the sequences of a prefill round go one after another: with few per rank, one by one.
    pub(super) fn prefill_groups(&self, sequences: f64, chunks: f64) -> f64 {
        let per_chunk =
            (sequences * chunks / f64::from(self.microbatches.max(1))).ceil().clamp(1.0, sequences.max(1.0));
        (sequences / per_chunk).ceil().max(1.0)
    }

    /// Rounds of prompts: consecutive chunks of each sequence are micro-batches. A chunk at layer l
    /// follows the one before it through the attention stage, which keeps causality.
    pub(super) fn prefill(&self, parts: &[Batch], sequences: f64, chunks: f64) -> Prefill {
        let together = sequences / self.prefill_groups(sequences, chunks);
        let requests = sequences * self.ranks();
        if self.sequence.pp > 1 {
            let (mut work, mut alone, mut period_s) = (Total::default(), Vec::new(), 0.0);
            for wave in parts.chunks(self.wave()) {
                self.with_rows(wave, |rows, of_wave| {
                    let t = self.pass(rows, wave, false);
                    period_s += if self.overlapped { self.pass(rows, wave, true).min(t) } else { t };
                    alone.push(t);
                    work = work.plus(&of_wave);
                });
            }
            let latency_s = self.through(alone.into_iter());
            return Prefill { latency_s, period_s, requests, chunks, together, work };
        }
        let alone = self.schedule(parts, false);
        let period =
            if self.overlapped { self.schedule(parts, true).seconds.min(alone.seconds) } else { alone.seconds };
        Prefill { latency_s: alone.seconds, period_s: period, requests, chunks, together, work: alone.work }
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
