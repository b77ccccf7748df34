//! How good the predictor is: leave-one-out over every table, and lanes that look wrong by rule.
//!
//! Leave-one-out takes measured rows away and asks the operators for them, as a user's call would:
//! `point` hides the one row; an axis name hides every row of the lane with that value on that axis,
//! so that the prediction must come from the neighbouring values (`edge`: it was the first or last
//! value, so the prediction is an extrapolation). Rows that no default lane uses are not asked for.
//!
//! Limit: errors against the same tables, drawn from one seed; how far tables are from a server is `validation`'s
//! question.

mod rows;
mod suspects;

use std::collections::BTreeMap;
use std::sync::Arc;

use super::db::KernelDb;
use super::evidence::Evidence;
use super::ops::Source;
use super::surface::Surface;
use super::table::{Table, TableKey};
use crate::error::{Error, Result};

pub use self::rows::TABLES;
use self::rows::{Probe, ask, int, probe, text};
pub use suspects::{Suspect, suspects};

/// Errors of one axis of one table.
#[derive(Clone, Debug, PartialEq)]
pub struct LooRow {
    pub table: String,
    /// Value of the column that tells the lanes apart (the number format).
    pub lane: String,
    /// `point`, or the hidden axis.
    pub axis: String,
    /// `first` or `last` when the hidden value was the end of its axis, so that it was extrapolated; else empty.
    pub edge: &'static str,
    pub n: usize,
    /// Relative errors |predicted / measured - 1|.
    pub median: f64,
    pub p90: f64,
    /// Median spread of repeated rows of the table (largest / least - 1): no predictor can do better. NaN where
    /// no row was measured twice (all GEMM tables).
    pub noise: f64,
    /// Median fall between neighbours of the lane that fall where there is more to do (earlier / later - 1):
    /// changes of kernel and noise together, which no smooth predictor follows. 0: times only rise.
    pub jitter: f64,
    /// Median error that is aimed at.
    pub aim: f64,
}

/// 90th percentile that is aimed at, every table.
pub const AIM_P90: f64 = 0.20;

impl LooRow {
    /// Whether the lane keeps the aims; one that does not is listed with its noise and jitter.
    pub fn within(&self) -> bool {
        self.median <= self.aim && self.p90 <= AIM_P90
    }
}

/// Median error aimed at: 2.5 % for GEMM (sglang: 5 %), 4 % for attention kernels, 5 % for experts and DSA blocks.
fn aim(framework: &str, table: &str) -> f64 {
    match table {
        "gemm" if framework == "sglang" => 0.05,
        "gemm" => 0.025,
        t if t.contains("attention") || t.contains("mla") => 0.04,
        _ => 0.05,
    }
}

/// Median fall along the first axis of a probe, over the lines of one lane (rows that agree in every other key).
fn jitter(table: &Table, probe: &Probe, lane: &str) -> f64 {
    let Some(axis) = table.key(probe.axes[0]) else { return 0.0 };
    let mut lines: BTreeMap<Vec<i64>, Vec<(i64, f64)>> = BTreeMap::new();
    for r in 0..table.rows() {
        if probe.group.first().is_some_and(|n| text(table, n, r) != lane) {
            continue;
        }
        // Columns that follow from the axis would part every line.
        let line = |k: &&TableKey| k.name() != axis.name() && !super::lanes::is_dependent(k.name());
        let others: Vec<i64> = table.keys.iter().filter(line).map(|k| k.code(r)).collect();
        if let Some(t) = table.seconds(r, "latency") {
            lines.entry(others).or_default().push((axis.code(r), t));
        }
    }
    let mut falls: Vec<f64> = Vec::new();
    for line in lines.values_mut() {
        line.sort_by_key(|p| p.0);
        falls.extend(line.windows(2).filter(|w| w[1].1 < w[0].1 && w[1].1 > 0.0).map(|w| w[0].1 / w[1].1 - 1.0));
    }
    falls.sort_by(f64::total_cmp);
    falls.get(falls.len().saturating_sub(1) / 2).copied().unwrap_or(0.0)
}

/// The table with only the rows that satisfy a condition.
fn subset(table: &Table, keep: impl Fn(usize) -> bool) -> Table {
    let rows: Vec<usize> = (0..table.rows()).filter(|&r| keep(r)).collect();
    let keys = table
        .keys
        .iter()
        .map(|k| match k {
            TableKey::Int { name, values } => {
                TableKey::Int { name: name.clone(), values: rows.iter().map(|&r| values[r]).collect() }
            }
            TableKey::Text { name, codes, labels } => TableKey::Text {
                name: name.clone(),
                codes: rows.iter().map(|&r| codes[r]).collect(),
                labels: labels.clone(),
            },
        })
        .collect();
    let measures = table.measures.iter().map(|(n, v)| (n.clone(), rows.iter().map(|&r| v[r]).collect())).collect();
    Table { keys, measures, ..empty(table) }
}

/// A table's names and provenance without its rows.
fn empty(table: &Table) -> Table {
    Table {
        system: table.system.clone(),
        framework: table.framework.clone(),
        version: table.version.clone(),
        name: table.name.clone(),
        provenance: table.provenance.clone(),
        ..Table::default()
    }
}

fn with(source: &Source, tables: Vec<Table>) -> Result<Source> {
    Ok(Source { db: KernelDb::empty().with_tables("leave-one-out", tables)?, ..source.clone() })
}

/// A small generator with a fixed stream: SplitMix64.
struct Draw(u64);

impl Draw {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) % n.max(1) as u64) as usize
    }
}

/// Leave-one-out errors of one table of the source's framework: `samples` rows, drawn with `seed`.
///
/// # Errors
/// If the table is none that is known, or one that is read for it is damaged.
pub fn leave_one_out(source: &Source, table: &str, samples: usize, seed: u64) -> Result<Vec<LooRow>> {
    let Some(probe) = probe(table) else {
        return Err(Error::spec(
            "table",
            format!("leave-one-out does not know '{table}'"),
            crate::error::near(table, TABLES),
        ));
    };
    let whole = source.db.table(&source.system, &source.framework, table, None)?;
    let mut draw = Draw(seed);
    let mut errors: BTreeMap<(String, usize, &'static str), Vec<f64>> = BTreeMap::new();
    let mut groups: BTreeMap<Vec<i64>, Arc<Table>> = BTreeMap::new();
    for _ in 0..samples {
        let row = draw.below(whole.rows());
        let key =
            |r: usize| -> Vec<i64> { probe.group.iter().filter_map(|n| whole.key(n).map(|k| k.code(r))).collect() };
        let wanted = key(row);
        let lane = probe.group.first().map_or(String::new(), |n| text(&whole, n, row).to_string());
        let group =
            groups.entry(wanted.clone()).or_insert_with(|| Arc::new(subset(&whole, |r| key(r) == wanted))).clone();
        // The same row inside its group.
        let at = (0..row).filter(|&r| key(r) == wanted).count();
        let here = with(source, vec![(*group).clone()])?;
        let asked = ask(&here, &group, at)?;
        let Some(seconds) = asked.and_then(|whole| rows::seconds(&group, at, &whole)) else { continue };
        // Repeats under keys that do not matter are one point.
        let same =
            |r: usize, names: &[&str]| names.iter().all(|n| group.key(n).is_none_or(|k| k.code(r) == k.code(at)));
        let mut all: Vec<&str> = probe.axes.to_vec();
        all.extend(["n", "k", "moe_tp_size"]);
        for axis in 0..=probe.axes.len() {
            let (hidden, edge) = match axis.checked_sub(1) {
                None => (subset(&group, |r| !same(r, &all)), ""),
                Some(a) => {
                    let name = probe.axes[a];
                    let runtime = matches!(name, "m" | "batch_size" | "isl" | "seq_len" | "step" | "num_tokens");
                    // A runtime axis is hidden on this lane only; a shape axis together with its whole lane.
                    let lane: Vec<&str> = all
                        .iter()
                        .copied()
                        .filter(|n| !matches!(*n, "m" | "batch_size" | "isl" | "seq_len" | "step" | "num_tokens"))
                        .collect();
                    let mut columns = if runtime { lane } else { Vec::new() };
                    if name == "moe_ep_size" {
                        columns = vec!["moe_tp_size"];
                    }
                    if !columns.contains(&name) {
                        columns.push(name);
                    }
                    let others: Vec<&str> = columns.iter().copied().filter(|c| *c != name).collect();
                    let (mut low, mut high) = (i64::MAX, i64::MIN);
                    for r in (0..group.rows()).filter(|&r| same(r, &others)) {
                        low = low.min(int(&group, name, r));
                        high = high.max(int(&group, name, r));
                    }
                    let value = int(&group, name, at);
                    let edge = if value == low {
                        "first"
                    } else if value == high {
                        "last"
                    } else {
                        ""
                    };
                    (subset(&group, |r| !same(r, &columns)), edge)
                }
            };
            if hidden.rows() == 0 || hidden.rows() == group.rows() {
                continue;
            }
            let without = with(source, vec![hidden])?;
            let Some((surface, x)) = predicted(&without, &group, at)? else { continue };
            let reading = surface.at(&x);
            if reading.evidence != Evidence::Roofline {
                errors.entry((lane.clone(), axis, edge)).or_default().push((reading.seconds / seconds - 1.0).abs());
            }
        }
    }
    let repeats = &whole.provenance.noise;
    let noise = if repeats.repeated_keys > 0 { repeats.spread_median } else { f64::NAN };
    let mut jitters: BTreeMap<String, f64> = BTreeMap::new();
    Ok(errors
        .into_iter()
        .map(|((lane, axis, edge), mut e)| {
            e.sort_by(f64::total_cmp);
            let jitter = *jitters.entry(lane.clone()).or_insert_with(|| jitter(&whole, probe, &lane));
            LooRow {
                table: table.to_string(),
                lane,
                axis: axis.checked_sub(1).map_or("point", |a| probe.axes[a]).to_string(),
                edge,
                n: e.len(),
                median: e[(e.len() - 1) / 2],
                p90: e[(e.len() - 1) * 9 / 10],
                noise,
                jitter,
                aim: aim(&source.framework, table),
            }
        })
        .collect())
}

/// As `ask`, with the row read from the whole group and the tables without it; the lane may have lost its label.
fn predicted(source: &Source, group: &Table, row: usize) -> Result<Option<(Surface, [f64; 3])>> {
    let mut plain = empty(group);
    plain.keys = group
        .keys
        .iter()
        .map(|k| match k {
            TableKey::Int { name, values } => TableKey::Int { name: name.clone(), values: vec![values[row]] },
            TableKey::Text { name, codes, labels } => {
                // The kernel source is the lane's to choose.
                let label = if name == "kernel_source" { String::new() } else { labels[codes[row] as usize].clone() };
                TableKey::Text { name: name.clone(), codes: vec![0], labels: vec![label] }
            }
        })
        .collect();
    ask(source, &plain, 0)
}
