//! An import over the table below it: what the import lacks stays.
//!
//! A lane is what was measured of one kind and shape: every key but the sizes that a measurement sweeps, the kernel that ran
//! and how tokens were spread over experts. Rows of lanes that the import has hide all of the same lane below; number
//! formats and shapes that it lacks are still answered by the rows that were there. Each row keeps where it is from.
//! Limit: tables whose columns differ are not put together; there the import answers alone.

use std::collections::BTreeSet;

use rustc_hash::FxHashSet;

use super::import::RawColumn;
use super::lanes::is_swept;
use super::table::{Table, TableKey};

/// Where a row is from, while two tables are put together: the same for all rows of a lane, so that it moves none.
const ORIGIN: &str = "origin";
const KERNEL: &str = "kernel_source";

/// The import with the rows below it of lanes that it lacks; none: there are no such rows, or the columns differ.
pub(super) fn over(import: &Table, below: &Table) -> Option<Table> {
    let (import, below) = (&with_kernel(import, below), &with_kernel(below, import));
    let names = |t: &Table| t.keys.iter().map(|k| k.name().to_string()).collect::<BTreeSet<_>>();
    if names(import) != names(below) || import.measures.iter().any(|(n, _)| below.measure(n).is_none()) {
        return None;
    }
    let pairs: Vec<(&TableKey, &TableKey)> =
        import.keys.iter().map(|k| below.key(k.name()).map(|b| (k, b))).collect::<Option<_>>()?;
    let fixed: Vec<(&TableKey, &TableKey)> = pairs.iter().copied().filter(|(k, _)| !is_swept(k.name())).collect();
    let known: FxHashSet<Vec<i64>> =
        (0..import.rows()).map(|r| fixed.iter().map(|(k, _)| k.code(r)).collect()).collect();
    let hidden = |r: &usize| known.contains(&fixed.iter().map(|(k, b)| as_in(b, *r, k)).collect::<Vec<i64>>());
    let kept: Vec<usize> = (0..below.rows()).filter(|r| !hidden(r)).collect();
    if kept.is_empty() {
        return None;
    }
    let mut columns: Vec<(String, RawColumn)> = pairs.iter().map(|(k, b)| column(k, b, &kept)).collect();
    let own = std::iter::repeat_n(0, import.rows());
    let of = own.chain(kept.iter().map(|r| 1 + i64::from(below.origin_of.get(*r).copied().unwrap_or(0))));
    columns.push((ORIGIN.to_string(), RawColumn::Int(of.collect())));
    for (name, values) in &import.measures {
        let others = below.measure(name)?;
        let all = values.iter().copied().chain(kept.iter().map(|r| others[*r]));
        columns.push((name.clone(), RawColumn::Measure(all.map(f64::from).collect())));
    }
    let Table { system, framework, version, name, provenance, .. } = import;
    let mut out = Table::from_columns(system, framework, version, name, columns, provenance.clone()).ok()?;
    let at = out.key_index(ORIGIN)?;
    let TableKey::Int { values, .. } = out.keys.remove(at) else { return None };
    out.origin_of = values.iter().map(|v| u32::try_from(*v).ok()).collect::<Option<_>>()?;
    out.provenance = provenance.clone();
    let others = if below.origins.is_empty() { vec![below.origin().clone()] } else { below.origins.clone() };
    out.origins = std::iter::once(import.origin()).chain(others).collect();
    Some(out)
}

/// A table that does not say which kernels ran, beside one that does.
fn with_kernel(table: &Table, other: &Table) -> Table {
    let mut out = table.clone();
    if table.key(KERNEL).is_none() && other.key(KERNEL).is_some() {
        let (name, labels) = (KERNEL.to_string(), vec![String::new()]);
        out.keys.push(TableKey::Text { name, codes: vec![0; table.rows()], labels });
    }
    out
}

/// The code of a row's value in another column of the same name; -1 where that does not have it.
fn as_in(of: &TableKey, row: usize, other: &TableKey) -> i64 {
    match (of, other) {
        (TableKey::Text { codes, labels, .. }, TableKey::Text { labels: others, .. }) => {
            others.binary_search(&labels[usize::from(codes[row])]).map_or(-1, |i| i as i64)
        }
        (TableKey::Int { values, .. }, TableKey::Int { .. }) => values[row],
        _ => i64::MIN,
    }
}

/// A key column of both, the second's rows only as far as they are kept.
fn column(a: &TableKey, b: &TableKey, kept: &[usize]) -> (String, RawColumn) {
    let values = match (a, b) {
        (TableKey::Int { values, .. }, TableKey::Int { values: others, .. }) => {
            RawColumn::Int(values.iter().copied().chain(kept.iter().map(|r| others[*r])).collect())
        }
        _ => {
            let all = (0..a.len()).map(|r| a.show(a.code(r))).chain(kept.iter().map(|r| b.show(b.code(*r))));
            RawColumn::Text(all.collect())
        }
    };
    (a.name().to_string(), values)
}
