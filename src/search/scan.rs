//! The coarse pass: layouts priced over batches and chunks, side by side, in a fixed order.

use std::sync::{Arc, Mutex};

use super::candidate_clock::CandidateClock;
use super::fine_grid::At;
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
use crate::spec::{Level, Workload};

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
        let mut ats: Vec<At> = Vec::new();
        for batch in space::batches(most, per_octave).into_iter().filter(|b| *b >= m) {
            for (k, &interval) in cadences.iter().enumerate() {
                let chunks = coarse(chunk_grid(&self.load, batch, self.per_decode(), interval));
                // The first cadence with every budget; the others, which gather prompts, with the most room.
                ats.extend(chunks.take(if k == 0 { usize::MAX } else { 1 }).map(|chunk| [batch, chunk, interval]));
            }
        }
        rows.reserve_exact(ats.len());
        let (framework, scanned) = (self.framework, clock.scans());
        rows.extend(ats.into_iter().map(|at| {
            let [batch, chunk, interval] = at;
            let main = Part { layout: *layout, batch, chunk, count, interval };
            let point = clock.mixed(&self.load, at, count);
            Row { level, framework, main, prefill: None, point, scanned, leads: false }
        }));
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

/// Every other budget from the largest down: what leads is priced on a finer grid again.
fn coarse(chunks: Vec<u32>) -> impl Iterator<Item = u32> {
    chunks.into_iter().rev().step_by(2)
}
