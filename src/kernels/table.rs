//! Tables of measured rows: repeated rows collapsed to their median, provenance kept.
//!
//! Rows are sorted by their keys, first column slowest, and every key is distinct; finding rows is
//! a walk of binary searches. Measures keep the unit of the source; [`Table::unit`] says which.
//!
//! Limit: key columns of whole numbers or text, at most 65,536 labels; measures in f32.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::crc::crc32;
pub use super::db::KernelDb;
use crate::units::{MS, US};

/// A key column of a table.
#[derive(Clone, Debug, PartialEq)]
pub enum TableKey {
    Int {
        name: String,
        values: Vec<i64>,
    },
    /// `codes` index `labels`, which are sorted.
    Text {
        name: String,
        codes: Vec<u16>,
        labels: Vec<String>,
    },
}

impl TableKey {
    pub fn name(&self) -> &str {
        match self {
            TableKey::Int { name, .. } | TableKey::Text { name, .. } => name,
        }
    }

    pub(crate) fn len(&self) -> usize {
        match self {
            TableKey::Int { values, .. } => values.len(),
            TableKey::Text { codes, .. } => codes.len(),
        }
    }

    pub(crate) fn is_text(&self) -> bool {
        matches!(self, TableKey::Text { .. })
    }

    /// The value in `row` as a sortable number: the integer itself, or the code of the label.
    pub fn code(&self, row: usize) -> i64 {
        match self {
            TableKey::Int { values, .. } => values[row],
            TableKey::Text { codes, .. } => i64::from(codes[row]),
        }
    }

    /// Code of a label or number that occurs in the column's vocabulary.
    pub(crate) fn code_of(&self, value: &Value) -> Option<i64> {
        match (self, value) {
            (TableKey::Int { .. }, Value::Number(x)) if x.fract() == 0.0 && x.abs() < 9.0e15 => Some(*x as i64),
            (TableKey::Text { labels, .. }, Value::Text(t)) => labels.binary_search(t).ok().map(|i| i as i64),
            _ => None,
        }
    }

    /// A code as the user would write it.
    pub fn show(&self, code: i64) -> String {
        match self {
            TableKey::Int { .. } => code.to_string(),
            TableKey::Text { labels, .. } => labels.get(code as usize).cloned().unwrap_or_default(),
        }
    }
}

/// A value of a key column, as it is asked for.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Number(f64),
    Text(String),
}

impl From<i64> for Value {
    fn from(x: i64) -> Self {
        Value::Number(x as f64)
    }
}

impl From<&str> for Value {
    fn from(t: &str) -> Self {
        Value::Text(t.to_string())
    }
}

/// What a measured number counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeUnit {
    Milliseconds,
    Microseconds,
    /// Bandwidth, power: not a time.
    Other,
}

impl TimeUnit {
    /// Seconds in one of this unit; none where it is not a time.
    pub(crate) fn seconds(self) -> Option<f64> {
        match self {
            TimeUnit::Milliseconds => Some(MS),
            TimeUnit::Microseconds => Some(US),
            TimeUnit::Other => None,
        }
    }
}

/// Spread of rows that were measured more than once, as largest / least - 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Noise {
    pub repeated_keys: usize,
    pub spread_median: f64,
    pub spread_p95: f64,
    pub spread_max: f64,
}

/// Where a table comes from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Provenance {
    /// Name of the import, or empty for the shipped pack.
    pub import: String,
    /// Path inside the source.
    pub path: String,
    pub family: String,
    /// Of the source file; empty where it was handed over in memory.
    pub sha256: String,
    pub kernel_sources: Vec<String>,
    pub rows_in_source: usize,
    /// What was done with repeated rows.
    pub duplicates: String,
    pub noise: Noise,
}

/// One measured table: every row has a distinct key; measures are medians of repeats.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Table {
    pub system: String,
    pub framework: String,
    pub version: String,
    /// Parquet file stem without `_perf`.
    pub name: String,
    pub keys: Vec<TableKey>,
    /// (name, values as measured, f32) per measured column: milliseconds, or microseconds where
    /// [`Table::unit`] says so (the DeepEP and `moe_a2a` tables).
    pub measures: Vec<(String, Vec<f32>)>,
    pub provenance: Provenance,
    /// Of an import over another table, where rows may be from; empty: all are the table's own.
    pub origins: Vec<Origin>,
    /// Which of `origins` each row is from.
    pub origin_of: Vec<u32>,
}

/// Version and source of rows of a table.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Origin {
    pub version: String,
    pub import: String,
}

impl Table {
    pub fn rows(&self) -> usize {
        self.keys.first().map_or(0, TableKey::len)
    }

    /// CRC-32 of names, keys and measures.
    pub(super) fn checksum(&self) -> u32 {
        let mut bytes: Vec<u8> = Vec::new();
        for key in &self.keys {
            bytes.extend(key.name().as_bytes());
            match key {
                TableKey::Int { values, .. } => bytes.extend(values.iter().flat_map(|v| v.to_le_bytes())),
                TableKey::Text { codes, labels, .. } => {
                    labels.iter().for_each(|l| bytes.extend([l.as_bytes(), &[0]].concat()));
                    bytes.extend(codes.iter().flat_map(|c| c.to_le_bytes()));
                }
            }
        }
        for (name, values) in &self.measures {
            bytes.extend(name.as_bytes());
            bytes.extend(values.iter().flat_map(|v| v.to_le_bytes()));
        }
        crc32(&bytes)
    }

    /// Version and source of the table itself.
    pub(crate) fn origin(&self) -> Origin {
        Origin { version: self.version.clone(), import: self.provenance.import.clone() }
    }

    /// Where these rows are from: versions, and names of imports.
    pub(crate) fn origins_of(&self, rows: &[u32]) -> Vec<Origin> {
        let mut of: Vec<usize> =
            rows.iter().filter_map(|r| self.origin_of.get(*r as usize)).map(|o| *o as usize).collect();
        of.sort_unstable();
        of.dedup();
        if of.is_empty() { vec![self.origin()] } else { of.into_iter().map(|o| self.origins[o].clone()).collect() }
    }

    /// Whether any of these rows is an import's.
    pub fn imports_any(&self, rows: &[u32]) -> bool {
        self.origins_of(rows).iter().any(|o| !o.import.is_empty())
    }

    /// `system framework version table` of these rows, that of an import after its name.
    pub fn named(&self, rows: &[u32]) -> String {
        let one = |o: &Origin| {
            let from = if o.import.is_empty() { String::new() } else { format!("{}: ", o.import) };
            format!("{from}{} {} {} {}", self.system, self.framework, o.version, self.name)
        };
        self.origins_of(rows).iter().map(one).collect::<Vec<_>>().join(" and ")
    }

    pub(crate) fn key_index(&self, name: &str) -> Option<usize> {
        self.keys.iter().position(|k| k.name() == name)
    }

    pub fn key(&self, name: &str) -> Option<&TableKey> {
        self.keys.iter().find(|k| k.name() == name)
    }

    pub fn measure(&self, name: &str) -> Option<&[f32]> {
        self.measures.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_slice())
    }

    /// Unit of a measured column. Names that end in `_us` say it; `latency` is milliseconds but in
    /// `moe_a2a`, whose writer sums the microseconds of its phases.
    pub fn unit(&self, measure: &str) -> TimeUnit {
        if measure.ends_with("_us") || (self.name == "moe_a2a" && measure == "latency") {
            TimeUnit::Microseconds
        } else if measure == "latency" || measure.ends_with("_ms") {
            TimeUnit::Milliseconds
        } else {
            TimeUnit::Other
        }
    }

    /// A measured time in seconds; none where there is no such column or it is not a time.
    pub fn seconds(&self, row: usize, measure: &str) -> Option<f64> {
        let scale = self.unit(measure).seconds()?;
        self.measure(measure)?.get(row).map(|&v| f64::from(v) * scale)
    }

    /// The table with only these rows, which must rise.
    pub fn subset(&self, rows: &[u32]) -> Table {
        let keys = self.keys.iter().map(|k| match k {
            TableKey::Int { name, values } => {
                TableKey::Int { name: name.clone(), values: rows.iter().map(|&r| values[r as usize]).collect() }
            }
            TableKey::Text { name, codes, labels } => TableKey::Text {
                name: name.clone(),
                codes: rows.iter().map(|&r| codes[r as usize]).collect(),
                labels: labels.clone(),
            },
        });
        let measures =
            self.measures.iter().map(|(n, v)| (n.clone(), rows.iter().map(|&r| v[r as usize]).collect::<Vec<f32>>()));
        let origin_of = rows.iter().filter_map(|&r| self.origin_of.get(r as usize).copied()).collect();
        Table { keys: keys.collect(), measures: measures.collect(), origin_of, ..self.clone_head() }
    }

    fn clone_head(&self) -> Table {
        Table {
            system: self.system.clone(),
            framework: self.framework.clone(),
            version: self.version.clone(),
            name: self.name.clone(),
            provenance: self.provenance.clone(),
            origins: self.origins.clone(),
            ..Table::default()
        }
    }

    /// Codes that occur in key column `key` among `rows`, rising.
    pub(crate) fn distinct(&self, key: usize, rows: &[u32]) -> Vec<i64> {
        let mut codes: Vec<i64> = rows.iter().map(|&r| self.keys[key].code(r as usize)).collect();
        codes.sort_unstable();
        codes.dedup();
        codes
    }

    /// Rows whose key columns have the given values, rising; empty where a name or value is unknown.
    pub fn find(&self, wanted: &[(&str, Value)]) -> Vec<u32> {
        let mut codes = BTreeMap::new();
        for (name, value) in wanted {
            let Some(key) = self.key_index(name) else { return Vec::new() };
            let Some(code) = self.keys[key].code_of(value) else { return Vec::new() };
            codes.insert(key, code);
        }
        self.select(&codes)
    }

    /// Rows where key column `k` has code `codes[k]`, rising.
    pub(crate) fn select(&self, codes: &BTreeMap<usize, i64>) -> Vec<u32> {
        let mut out = Vec::new();
        let last = codes.keys().next_back().map_or(0, |&k| k + 1);
        self.walk(0, last, 0, self.rows(), codes, &mut out);
        out
    }

    fn walk(&self, k: usize, last: usize, from: usize, to: usize, want: &BTreeMap<usize, i64>, out: &mut Vec<u32>) {
        if k == last {
            out.extend(from as u32..to as u32);
            return;
        }
        let key = &self.keys[k];
        if let Some(&code) = want.get(&k) {
            let a = bound(key, from, to, code, Ordering::Less);
            let b = bound(key, a, to, code, Ordering::Equal);
            if a < b {
                self.walk(k + 1, last, a, b, want, out);
            }
            return;
        }
        let mut a = from;
        while a < to {
            let b = bound(key, a, to, key.code(a), Ordering::Equal);
            self.walk(k + 1, last, a, b, want, out);
            a = b;
        }
    }
}

/// First row in `from..to`, where the column rises, whose code is beyond `code` (`Equal`) or not
/// before it (`Less`).
fn bound(key: &TableKey, from: usize, to: usize, code: i64, upto: Ordering) -> usize {
    let (mut a, mut b) = (from, to);
    while a < b {
        let middle = a.midpoint(b);
        if key.code(middle).cmp(&code) <= upto {
            a = middle + 1;
        } else {
            b = middle;
        }
    }
    a
}
