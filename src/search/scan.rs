//! The coarse pass: layouts priced over batches and chunks, side by side, in a fixed order.
//!
//! Limit: a grid, and within 0.1 % of the engine (1 % beside jumps of the tables); never the last word on a plan.

use std::sync::{Arc, Mutex};

use super::candidate_clock::CandidateClock;
use super::constants::marks::NEAR as PROSPECT;
use super::group::Group;
use super::marks::Marks;
use super::row::{Layout, Part, Row};
use super::sides::{Priced, PromptSide, Slot};
use super::space;
use super::task::Task;
use crate::error::Result;
use crate::serving::choose::{chunk_grid, most_sequences};
use crate::serving::pd::DecodeSide;
use crate::serving::{StepEngine, aggregated};
use crate::spec::{Level, Slo, Workload};

impl Task<'_> {
    /// Chunked prefill and decode on the same GPUs, workers or AFD units, layout by layout.
    pub fn mixed_groups(&self, level: Level, layouts: &[Layout], per_octave: u32) -> Result<Vec<Group>> {
        self.each(layouts, |layout| self.mixed_group(level, layout, per_octave))
    }

    pub(super) fn mixed_group(&self, level: Level, layout: &Layout, per_octave: u32) -> Result<Group> {
        let (clock, rows) = self.mixed_rows(level, layout, per_octave)?;
        Ok(Group { marks: Marks::of(&rows, self.per_decode()), clock, rows, known: Mutex::default() })
    }

    fn mixed_rows(&self, level: Level, layout: &Layout, per_octave: u32) -> Result<(Arc<CandidateClock>, Vec<Row>)> {
        let clock = self.clock(layout)?;
        let count = self.most((0, 1), layout.gpus());
        let mut rows = Vec::new();
        let least = self.load.isl.min(512.0);
        let most = most_sequences(&clock, least);
        if most < 1.0 {
            rows.push(self.infeasible(level, *layout, &clock, least));
            return Ok((clock, rows));
        }
        let m = layout.microbatches();
        let cadences = self.cadences(&clock);
        let (framework, scanned) = (self.framework, clock.scans());
        let mut so_far = SoFar::default();
        let batches: Vec<u32> = space::batches(most, per_octave).into_iter().filter(|b| *b >= m).collect();
        for (k, &batch) in batches.iter().enumerate() {
            let start = rows.len();
            for (k, &interval) in cadences.iter().enumerate() {
                let chunks = coarse(chunk_grid(&self.load, batch, self.per_decode(), interval));
                // The first cadence with every budget; the others, which gather prompts, with the most room.
                rows.extend(chunks.take(if k == 0 { usize::MAX } else { 1 }).map(|chunk| {
                    let main = Part { layout: *layout, batch, chunk, count, interval };
                    let point = clock.mixed(&self.load, [batch, chunk, interval], count);
                    Row { level, framework, main, prefill: None, point, scanned, leads: false }
                }));
            }
            if self.loosest.is_some_and(|slo| so_far.is_beyond(&rows[start..], &slo)) {
                break;
            }
            if k == 0 {
                rows.reserve(rows.len() * (batches.len() - 1));
            }
        }
        rows.shrink_to_fit();
        Ok((clock, rows))
    }

    /// The smallest step of a layout whose memory does not hold it: a level's nearest miss.
    fn infeasible(&self, level: Level, layout: Layout, engine: &StepEngine, least: f64) -> Row {
        let batch = layout.microbatches();
        let chunk = (least + f64::from(batch) * self.per_decode()).ceil();
        let count = self.most((0, 1), layout.gpus()).max(1);
        let point = aggregated::solve(engine, &self.load, f64::from(batch), chunk, count);
        let main = Part { layout, batch, chunk: chunk as u32, count, interval: 1 };
        Row { level, framework: self.framework, main, prefill: None, point, scanned: false, leads: false }
    }

    /// Candidates for the decode slot, every batch priced.
    pub fn decode(&self, layouts: &[Layout], per_octave: u32) -> Result<Priced<DecodeSide>> {
        self.each(layouts, |layout| self.decode_of(layout, per_octave))
    }

    /// One candidate for the decode slot, every batch priced.
    pub(super) fn decode_of(&self, layout: &Layout, per_octave: u32) -> Result<Slot<DecodeSide>> {
        let clock = self.clock(layout)?;
        let most = most_sequences(&clock, 1.0);
        let m = layout.microbatches();
        let sides: Vec<DecodeSide> = if most < 1.0 {
            Vec::new()
        } else {
            space::batches(most, per_octave)
                .into_iter()
                .filter(|b| *b >= m)
                .map(|b| clock.decode_side(&self.load, f64::from(b)))
                .filter(|d| d.short.is_none())
                .collect()
        };
        Ok((*layout, clock, sides))
    }

    /// Candidates for the prefill slot: (layout, step engine, [(sequences per rank, chunk, side)]).
    pub fn prefill(&self, layouts: &[Layout]) -> Result<Priced<PromptSide>> {
        let prompts = self.workload.prefill_part();
        self.each(layouts, |layout| self.prefill_of(layout, &prompts))
    }

    /// One candidate for the prefill slot; `prompts`: the workload's prompts alone.
    pub(super) fn prefill_of(&self, layout: &Layout, prompts: &Workload) -> Result<Slot<PromptSide>> {
        let clock = Arc::new(CandidateClock::new(self.engine_of(layout, prompts)?, self.tables.as_ref()));
        let isl = self.load.isl;
        let mut sides = Vec::new();
        let pieces: Vec<f64> = match layout {
            Layout::Worker { .. } => vec![1.0, 2.0, 4.0, 8.0, 16.0, 32.0],
            // Each stage has its micro-batches in flight; finer cuts fill them sooner.
            Layout::Afd { microbatches, pp, .. } => {
                let mut pieces = vec![*microbatches, microbatches * pp, 2 * microbatches * pp];
                pieces.dedup();
                pieces.into_iter().map(f64::from).collect()
            }
        };
        for piece in pieces {
            let chunk = (isl / piece).ceil();
            if chunk < 16.0 && piece > 1.0 {
                continue;
            }
            for sequences in [1u32, 2, 4, 8, 16, 32] {
                if f64::from(sequences) * chunk > 65_536.0 && sequences > 1 {
                    continue;
                }
                // More sequences per rank only help while their chunk is small.
                if sequences > 1 && f64::from(sequences / 2) * chunk >= 16_384.0 {
                    continue;
                }
                let side = clock.prefill_side(&self.load, f64::from(sequences), chunk);
                if side.short.is_none() {
                    sides.push((sequences, chunk as u32, side));
                }
            }
        }
        Ok((*layout, clock, sides))
    }
}

/// What a layout has come to while its batches rise: whether any keeps the loosest limits, and its soonest first token.
#[derive(Default)]
struct SoFar {
    kept: bool,
    soonest: Option<f64>,
}

impl SoFar {
    /// Whether larger batches are of no more use once `rows`, of one batch, are known: a smaller one keeps the limits, all
    /// of these are further over them than what has any prospect, and none has its first token sooner. Limit: latencies
    /// are taken to go on rising with the batch.
    fn is_beyond(&mut self, rows: &[Row], loosest: &Slo) -> bool {
        let standing = || rows.iter().filter(|r| r.point.stands());
        let ttft = standing().map(|r| r.point.ttft_s).reduce(f64::min);
        let sooner = ttft.is_some_and(|t| self.soonest.is_none_or(|s| t < s));
        let excess = standing().map(|r| r.point.excess(loosest)).fold(f64::INFINITY, f64::min);
        let beyond = self.kept && !sooner && excess > PROSPECT;
        self.kept |= excess <= 1.0;
        self.soonest = if sooner { ttft } else { self.soonest };
        beyond
    }
}

/// Every other budget from the largest down: what leads is priced on a finer grid again.
fn coarse(chunks: Vec<u32>) -> impl Iterator<Item = u32> {
    chunks.into_iter().rev().step_by(2)
}
