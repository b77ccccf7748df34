//! What makes two rows the same plan.
//!
//! Limit: the same plan in other words (one replica of two, say) has another key.

use std::collections::BTreeSet;

use super::blocks;
use super::row::{Layout, Part, Row};
use crate::spec::Level;

/// What makes two rows the same plan.
pub type PlanKey = (Level, u8, [u32; 2 * PART]);

/// Numbers of a slot.
pub(super) const PART: usize = 12;

/// A slot of a plan: layout, batch, chunk, count (the last three last).
pub(super) fn part_key(p: &Part) -> [u32; PART] {
    match p.layout {
        Layout::Worker { parallel: w, overlap } => {
            [0, w.tp, w.dp, w.pp, w.cp, w.ep(), w.moe_tp, u32::from(overlap), p.interval, p.batch, p.chunk, p.count]
        }
        Layout::Afd { attention_gpus, tp, ffn_gpus, ep, moe_tp, microbatches, groups, pp } => {
            [microbatches, attention_gpus, tp, ffn_gpus, ep, moe_tp, groups, pp, p.interval, p.batch, p.chunk, p.count]
        }
    }
}

pub fn key(r: &Row) -> PlanKey {
    let mut k = [0; 2 * PART];
    k[..PART].copy_from_slice(&part_key(&r.main));
    if let Some(p) = &r.prefill {
        k[PART..].copy_from_slice(&part_key(p));
    }
    (r.level, r.framework, k)
}

/// Appends rows of `more` that are not among `rows` from `first` on, each once.
pub(crate) fn append_new(rows: &mut Vec<Row>, first: usize, more: Vec<Row>) {
    let wanted: BTreeSet<PlanKey> = more.iter().map(key).collect();
    let rows_of = &rows[first..];
    let known = blocks::filter(rows_of, |r| wanted.contains(&key(r)));
    let mut seen: BTreeSet<PlanKey> = known.into_iter().map(|i| key(&rows_of[i])).collect();
    rows.extend(more.into_iter().filter(|r| seen.insert(key(r))));
}
