//! The tables of an estimate as columns: memory, breakdown, pipeline stages and the bars of a schedule.
//!
//! Limit: columns of what the engine has; nothing is priced here.

use super::Tables;
use crate::columns::{Column, Columns};
use crate::network::Tier;
use crate::serving::operators::BreakdownRow;
use crate::serving::phase::Phase;

impl Tables {
    pub fn memory_columns(&self) -> Columns {
        let mut c = Columns::new();
        c.push("pool", Column::from_strings(self.memory.iter().map(|r| r.pool.name())));
        c.push("item", Column::from_strings(self.memory.iter().map(|r| r.item.name())));
        c.push("gib", Column::F64(self.memory.iter().map(|r| r.gib).collect()));
        c
    }

    pub fn breakdown_columns(&self) -> Columns {
        breakdown_columns(&self.breakdown)
    }

    pub fn pipeline_columns(&self) -> Columns {
        let mut c = Columns::new();
        c.push("phase", Column::from_strings(self.pipeline.iter().map(|r| r.phase.name())));
        c.push("stage", Column::from_strings(self.pipeline.iter().map(|r| r.stage.name())));
        c.push("ms", Column::F64(self.pipeline.iter().map(|r| r.ms).collect()));
        c.push("utilization", Column::F64(self.pipeline.iter().map(|r| r.utilization).collect()));
        c
    }

    /// Bars of the schedule in microseconds.
    pub fn timeline_columns(&self) -> Columns {
        let rows = &self.timeline;
        let mut c = Columns::new();
        c.push("phase", Column::from_strings(rows.iter().map(|r| r.phase.name())));
        c.push("stage", Column::from_strings(rows.iter().map(|r| r.bar.stage.name())));
        c.push("attention_group", Column::I64(rows.iter().map(|r| r.bar.group as i64).collect()));
        c.push("microbatch", Column::I64(rows.iter().map(|r| r.bar.microbatch as i64).collect()));
        c.push("layer", Column::I64(rows.iter().map(|r| i64::from(r.bar.layer)).collect()));
        c.push("start_us", Column::F64(rows.iter().map(|r| r.bar.start * 1e6).collect()));
        c.push("end_us", Column::F64(rows.iter().map(|r| r.bar.end * 1e6).collect()));
        c
    }
}

/// Breakdown rows as columns; `share` is the share of the phase's operator time.
pub fn breakdown_columns(rows: &[BreakdownRow]) -> Columns {
    let phase_ms = |phase: Phase| rows.iter().filter(|r| r.phase == phase).map(|r| r.ms).sum::<f64>();
    let mut c = Columns::new();
    c.push("phase", Column::from_strings(rows.iter().map(|r| r.phase.name())));
    c.push("pool", Column::from_strings(rows.iter().map(|r| r.pool.name())));
    c.push("op", Column::from_strings(rows.iter().map(|r| r.op.name())));
    c.push("ms", Column::F64(rows.iter().map(|r| r.ms).collect()));
    c.push("share", Column::F64(rows.iter().map(|r| r.ms / phase_ms(r.phase).max(1e-300)).collect()));
    c.push("evidence", Column::from_strings(rows.iter().map(|r| r.evidence.name())));
    c.push("tier", Column::from_strings(rows.iter().map(|r| r.tier.map_or("", Tier::name))));
    c
}
