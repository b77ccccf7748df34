//! The rows of an AFD unit's pipeline, in the order of its layers.
//!
//! Limit: one order for all micro-batches; layers of one kind are equal, wherever they stand.

use std::sync::Arc;

use super::pipeline;
use super::stages::{Rows, Stages};
use super::timeline::{self, Bar};
use crate::cost::afd::MicroRow;
use crate::cost::program::{Ffn, MOST_MIXERS};
use crate::cost::{AfdUnit, Program};
use crate::spec::AfdPlan;
use crate::spec::plan::{Duplex, stage_layers};

/// Most rows of a unit: kinds of layer, ends, first and further draft passes.
pub(super) const MOST_ROWS: usize = 2 * MOST_MIXERS + 3;

/// The order in which a unit's layers are scheduled, and what the schedule needs of the plan.
pub struct LayerSequence {
    unit: Arc<AfdUnit>,
    pub half_duplex: bool,
    /// Pipeline stages, each with both pools.
    pub pp: u32,
}

impl LayerSequence {
    pub(super) fn new(unit: &Arc<AfdUnit>, plan: &AfdPlan) -> LayerSequence {
        LayerSequence { unit: unit.clone(), half_duplex: plan.duplex == Duplex::Half, pp: plan.pp.max(1) }
    }

    fn program(&self) -> &Program {
        &self.unit.library().program
    }

    /// Rows of stages of a unit: one a kind of layer of the program, then ends, first and further draft passes.
    pub(super) fn rows(&self) -> usize {
        self.program().kinds().len() + 3
    }

    /// The place of a micro-batch's row among them.
    #[inline]
    pub(super) fn row(&self, row: MicroRow) -> usize {
        let ends = self.program().kinds().len();
        match row {
            MicroRow::Kind(kind) => kind,
            MicroRow::Ends => ends,
            MicroRow::Draft => ends + 1,
            MicroRow::MoreDrafts => ends + 2,
        }
    }

    /// Stages of the micro-batches in the order of the layers, from those of each row. `drafts`: whether any of them
    /// decodes.
    pub(super) fn assemble<'a>(&self, row: impl Fn(usize) -> &'a [Stages], drafts: bool) -> Vec<Rows<'a>> {
        let mut out = Vec::with_capacity(self.program().runs().len() + 3);
        self.for_each_row(row, drafts, |r| out.push(r));
        out
    }

    fn for_each_row<'a>(&self, row: impl Fn(usize) -> &'a [Stages], drafts: bool, mut take: impl FnMut(Rows<'a>)) {
        let mtp = self.unit.library().serving.mtp;
        for (layers, kind) in self.program().runs() {
            take(Rows { layers: *layers, stages: row(*kind) });
        }
        if mtp > 0 {
            take(Rows { layers: 1, stages: row(self.row(MicroRow::Draft)) });
            if drafts && mtp > 1 {
                take(Rows { layers: mtp - 1, stages: row(self.row(MicroRow::MoreDrafts)) });
            }
        }
        take(Rows { layers: 1, stages: row(self.row(MicroRow::Ends)) });
    }

    /// Rows of the dense layers that come first.
    pub(super) fn dense_first(&self) -> usize {
        let program = self.program();
        program.runs().iter().take_while(|(_, k)| program.kinds()[*k].ffn == Ffn::Dense).count()
    }

    /// The rows of each pipeline stage: its share of the layers, and in the last one what comes after them.
    pub(super) fn cut<'a>(&self, rows: &[Rows<'a>]) -> Vec<Vec<Rows<'a>>> {
        let layers = self.unit.library().model.layers;
        stage_layers(layers, self.pp)
            .map(|stage| {
                let mut at = 0;
                let of_stage = rows.iter().filter_map(|r| {
                    let (from, to) = (at, at + r.layers);
                    at = to;
                    let inside = to.min(stage.end).saturating_sub(from.max(stage.start));
                    let n = if from >= layers && stage.end == layers { r.layers } else { inside };
                    (n > 0).then_some(Rows { layers: n, stages: r.stages })
                });
                of_stage.collect()
            })
            .collect()
    }

    /// Schedule of the slowest pipeline stage.
    pub(super) fn slowest_stage(&self, rows: &[Rows<'_>], overlapped: bool) -> f64 {
        let time = |rows: &[Rows<'_>]| pipeline::step_time_of(rows, self.unit.groups, self.half_duplex, overlapped);
        if self.pp == 1 {
            return time(rows);
        }
        let mut stages = self.cut(rows);
        stages.dedup();
        stages.iter().fold(0.0, |most, stage| most.max(time(stage)))
    }

    /// A stretch of the schedule, in the first pipeline stage.
    pub(super) fn stretch(&self, rows: &[Rows<'_>]) -> Vec<Bar> {
        let groups = self.unit.groups as usize;
        match self.cut(rows).first() {
            Some(first) if self.pp > 1 => timeline::stretch(first, groups, self.half_duplex),
            _ => timeline::stretch(rows, groups, self.half_duplex),
        }
    }

    /// The closed form of `m` equal micro-batches with one entry a row, where there is one.
    pub(super) fn uniform(&self, one: &[Stages; MOST_ROWS], drafts: bool, m: usize, overlapped: bool) -> Option<f64> {
        let mut rows = [Rows { layers: 0, stages: &[] }; MOST_ROWS];
        if self.program().runs().len() + 3 > MOST_ROWS {
            return None;
        }
        let mut n = 0;
        self.for_each_row(
            |row| std::slice::from_ref(&one[row]),
            drafts,
            |r| {
                rows[n] = r;
                n += 1;
            },
        );
        let time = |rows: &[Rows<'_>]| pipeline::closed_form(rows, m, self.unit.groups, overlapped);
        if self.pp == 1 {
            return time(&rows[..n]);
        }
        let mut stages = self.cut(&rows[..n]);
        stages.dedup();
        stages.iter().map(|stage| time(stage)).try_fold(0.0, |most: f64, t| Some(most.max(t?)))
    }
}
