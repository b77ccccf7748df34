//! Tables handed over in memory: plain columns of any row order become a [`Table`].
//!
//! Columns that do not matter are left out, rows are sorted by key, repeats become their median and their spread is kept.
//! Imports and the shipped pack go through here alike.
//!
//! Limit: a mean over repeats, or their number a row, is not kept; order of measuring is lost.

use std::collections::BTreeMap;

use super::table::{Noise, Provenance, Table, TableKey};
use crate::error::{Error, Result};

/// One column as it was read, rows in the order of the source.
#[derive(Clone, Debug, PartialEq)]
pub enum RawColumn {
    /// A key of whole numbers.
    Int(Vec<i64>),
    /// A key of text.
    Text(Vec<String>),
    /// A key of text as indices into labels in any order.
    Coded { codes: Vec<u32>, labels: Vec<String> },
    /// A measure: finite and not negative.
    Measure(Vec<f64>),
}

impl RawColumn {
    fn len(&self) -> usize {
        match self {
            RawColumn::Int(v) => v.len(),
            RawColumn::Text(v) => v.len(),
            RawColumn::Coded { codes, .. } => codes.len(),
            RawColumn::Measure(v) => v.len(),
        }
    }
}

/// Columns that repeat the path or describe the run.
const DESCRIPTIVE: [&str; 3] = ["framework", "version", "device"];
/// Of those that vary, the first of these is sorted last.
const LAST_AXIS: [&str; 6] = ["m", "num_tokens", "num_token", "message_size", "step", "isl"];

/// Key columns of a table that do not matter: an attention module is fixed by architecture, dtypes,
/// heads and lengths, and `model` and `tp_size` only say which run of the collector asked for it.
pub(crate) fn ignored(table: &str) -> &'static [&'static str] {
    let module = table.starts_with("dsa_") || table.contains("mla_context") || table.contains("mla_generation");
    match table {
        t if module || t.ends_with("_mla") => &["model", "tp_size"],
        // Models of one architecture differ in width there, so the model counts.
        t if t.starts_with("dsv4_") || t.starts_with("msa_") => &["tp_size"],
        _ => &[],
    }
}

/// One spelling per meaning: an 8-bit KV cache is e4m3 in every framework measured.
pub(crate) fn canonical<'a>(column: &str, value: &'a str) -> &'a str {
    if column == "kv_cache_dtype" && value == "fp8_e4m3" { "fp8" } else { value }
}

impl Table {
    /// A table from plain columns.
    ///
    /// `framework`, `version` and `device` columns are left out, as are key columns that do not
    /// matter. Rows with the same key become one whose measures are their medians; how far they
    /// spread is kept in the provenance.
    ///
    /// # Errors
    /// [`Error::Data`] that names column and row (counted from 0): a length that differs, a
    /// measure that is negative or not finite, a code without a label; no rows, key or measure.
    pub fn from_columns(
        system: &str,
        framework: &str,
        version: &str,
        name: &str,
        columns: Vec<(String, RawColumn)>,
        provenance: Provenance,
    ) -> Result<Table> {
        let path = if provenance.path.is_empty() {
            format!("{system}/{framework}/{version}/{name}")
        } else {
            provenance.path.clone()
        };
        let bad = |message: String| Error::data(path.clone(), message);
        let rows = columns.first().map_or(0, |(_, c)| c.len());
        if rows == 0 {
            return Err(bad("the table has no rows".into()));
        }
        if u32::try_from(rows).is_err() {
            return Err(bad(format!("{rows} rows are more than a table can hold")));
        }
        let mut keys: Vec<TableKey> = Vec::new();
        let mut raw: Vec<(String, Vec<f64>)> = Vec::new();
        for (column, values) in columns {
            if values.len() != rows {
                return Err(bad(format!("column '{column}' has {} rows, the first column {rows}", values.len())));
            }
            if DESCRIPTIVE.contains(&column.as_str()) || ignored(name).contains(&column.as_str()) {
                continue;
            }
            if keys.iter().any(|k| k.name() == column) || raw.iter().any(|(n, _)| *n == column) {
                return Err(bad(format!("column '{column}' is there twice")));
            }
            match values {
                RawColumn::Int(values) => keys.push(TableKey::Int { name: column, values }),
                RawColumn::Text(values) => {
                    let (codes, labels) = to_codes(values);
                    keys.push(text_key(column, codes, labels).map_err(bad)?);
                }
                RawColumn::Coded { codes, labels } => keys.push(text_key(column, codes, labels).map_err(bad)?),
                RawColumn::Measure(values) => {
                    if let Some(row) = values.iter().position(|v| !v.is_finite() || *v < 0.0) {
                        let v = values[row];
                        let what = if v < 0.0 { "negative" } else { "not a finite number" };
                        return Err(bad(format!("column '{column}', row {row}: {v} is {what}")));
                    }
                    raw.push((column, values));
                }
            }
        }
        if keys.is_empty() || raw.is_empty() {
            let what = if keys.is_empty() { "key" } else { "measured" };
            return Err(bad(format!("no {what} column")));
        }
        Ok(collapse(system, framework, version, name, keys, raw, provenance))
    }
}

fn to_codes(values: Vec<String>) -> (Vec<u32>, Vec<String>) {
    let mut known: BTreeMap<String, u32> = BTreeMap::new();
    let mut codes = Vec::with_capacity(values.len());
    let mut labels = Vec::new();
    for v in values {
        let next = labels.len() as u32;
        let code = *known.entry(v).or_insert_with_key(|v| {
            labels.push(v.clone());
            next
        });
        codes.push(code);
    }
    (codes, labels)
}

/// A text key with sorted, distinct labels of which each occurs.
fn text_key(name: String, codes: Vec<u32>, labels: Vec<String>) -> std::result::Result<TableKey, String> {
    if let Some(row) = codes.iter().position(|&c| c as usize >= labels.len()) {
        return Err(format!("column '{name}', row {row}: code {} has no label", codes[row]));
    }
    let used: std::collections::BTreeSet<u32> = codes.iter().copied().collect();
    let mut sorted: Vec<&str> = used.iter().map(|&c| canonical(&name, &labels[c as usize])).collect();
    sorted.sort_unstable();
    sorted.dedup();
    if sorted.len() > usize::from(u16::MAX) + 1 {
        return Err(format!("column '{name}' has {} different values, more than a key can", sorted.len()));
    }
    let new: Vec<u16> =
        labels.iter().map(|l| sorted.binary_search(&canonical(&name, l)).map_or(0, |i| i as u16)).collect();
    let codes = codes.into_iter().map(|c| new[c as usize]).collect();
    let labels = sorted.into_iter().map(str::to_string).collect();
    Ok(TableKey::Text { name, codes, labels })
}

fn collapse(
    system: &str,
    framework: &str,
    version: &str,
    name: &str,
    mut keys: Vec<TableKey>,
    raw: Vec<(String, Vec<f64>)>,
    mut provenance: Provenance,
) -> Table {
    let rows = keys[0].len();
    let varies = |k: &TableKey| (1..rows).any(|r| k.code(r) != k.code(0));
    let last = LAST_AXIS.iter().find(|n| keys.iter().any(|k| k.name() == **n && varies(k))).copied();
    keys.sort_by_key(|k| (!k.is_text(), Some(k.name()) == last));

    let mut order: Vec<u32> = (0..rows as u32).collect();
    let compare = |a: usize, b: usize| {
        keys.iter().map(|k| k.code(a).cmp(&k.code(b))).find(|o| o.is_ne()).unwrap_or(std::cmp::Ordering::Equal)
    };
    order.sort_by(|&a, &b| compare(a as usize, b as usize));
    let groups: Vec<&[u32]> = order.chunk_by(|&a, &b| compare(a as usize, b as usize).is_eq()).collect();

    let kept = |k: &TableKey| match k {
        TableKey::Int { name, values } => {
            TableKey::Int { name: name.clone(), values: groups.iter().map(|g| values[g[0] as usize]).collect() }
        }
        TableKey::Text { name, codes, labels } => TableKey::Text {
            name: name.clone(),
            codes: groups.iter().map(|g| codes[g[0] as usize]).collect(),
            labels: labels.clone(),
        },
    };
    let new_keys: Vec<TableKey> = keys.iter().map(kept).collect();
    let measures = raw
        .iter()
        .map(|(n, values)| {
            let medians = groups.iter().map(|g| {
                let mut repeats: Vec<f64> = g.iter().map(|&r| values[r as usize]).collect();
                repeats.sort_by(f64::total_cmp);
                median(&repeats) as f32
            });
            (n.clone(), medians.collect())
        })
        .collect();
    provenance.rows_in_source = rows;
    provenance.duplicates = "median".to_string();
    provenance.noise = noise(&groups, &raw[0].1);
    provenance.kernel_sources = match new_keys.iter().find(|k| k.name() == "kernel_source") {
        Some(TableKey::Text { labels, .. }) => labels.clone(),
        _ => Vec::new(),
    };
    Table {
        system: system.to_string(),
        framework: framework.to_string(),
        version: version.to_string(),
        name: name.to_string(),
        keys: new_keys,
        measures,
        provenance,
        ..Table::default()
    }
}

fn median(sorted: &[f64]) -> f64 {
    let n = sorted.len();
    if n % 2 == 1 { sorted[n / 2] } else { f64::midpoint(sorted[n / 2 - 1], sorted[n / 2]) }
}

fn noise(groups: &[&[u32]], values: &[f64]) -> Noise {
    let mut spread = Vec::new();
    let mut repeated_keys = 0;
    for g in groups.iter().filter(|g| g.len() > 1) {
        repeated_keys += 1;
        let times = || g.iter().map(|&r| values[r as usize]);
        let least = times().fold(f64::INFINITY, f64::min);
        if least > 0.0 {
            spread.push(times().fold(0.0, f64::max) / least - 1.0);
        }
    }
    spread.sort_by(f64::total_cmp);
    let quantile = |q: f64| {
        let at = q * (spread.len() as f64 - 1.0);
        let (low, high) = (at.floor() as usize, at.ceil() as usize);
        spread[low] + (spread[high] - spread[low]) * at.fract()
    };
    if spread.is_empty() {
        return Noise { repeated_keys, ..Noise::default() };
    }
    Noise { repeated_keys, spread_median: quantile(0.5), spread_p95: quantile(0.95), spread_max: quantile(1.0) }
}
