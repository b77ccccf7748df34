//! Lanes that look wrong, found by rule and listed, never by name and never repaired here.

use std::collections::BTreeMap;

use super::{ask, probe, subset, text};
use crate::error::Result;
use crate::kernels::ops::Source;
use crate::kernels::surface::Surface;
use crate::kernels::table::{Key, Table};

/// A lane that looks wrong, and why.
#[derive(Clone, Debug, PartialEq)]
pub struct Suspect {
    pub table: String,
    pub lane: String,
    pub reason: String,
}

/// Lanes of the source's framework that look wrong: outliers, eager-mode floors, times out of order,
/// balanced loads slower than skewed ones. One lane per group of the table's columns is looked at.
pub fn suspects(source: &Source, table: &str) -> Result<Vec<Suspect>> {
    let Some(probe) = probe(table) else { return Ok(Vec::new()) };
    let whole = source.db.table(&source.system, &source.framework, table, None)?;
    let measured = Source { graph: false, ..source.clone() };
    // Of each group the row in the middle stands for it.
    let mut groups: BTreeMap<Vec<i64>, Vec<usize>> = BTreeMap::new();
    for r in 0..whole.rows() {
        groups.entry(probe.group.iter().filter_map(|n| whole.key(n).map(|k| k.code(r))).collect()).or_default().push(r);
    }
    let mut found: BTreeMap<String, Suspect> = BTreeMap::new();
    for rows in groups.values() {
        let Some((surface, x)) = ask(&measured, &whole, rows[rows.len() / 2]) else { continue };
        let lane = surface.source().to_string();
        let mut push = |kind: &str, reason: String| {
            found.entry(format!("{lane} {kind}")).or_insert(Suspect {
                table: table.to_string(),
                lane: lane.clone(),
                reason,
            });
        };
        for d in surface.dropped().iter().take(1) {
            push("outlier", format!("{} points not used, the first: {d}", surface.dropped().len()));
        }
        for check in surface.checks() {
            if check.eager && check.floor > 3.0 * check.least + 5e-6 {
                push(
                    "floor",
                    format!("floor {:.0} us against a roofline of {:.0} us", check.floor * 1e6, check.least * 1e6),
                );
            }
            if check.altered * 20 > check.points {
                push(
                    "order",
                    format!("{} of {} points cost less than 0.9x of smaller ones", check.altered, check.points),
                );
            }
        }
        let distribution = text(&whole, "distribution", rows[0]);
        if matches!(distribution, "balanced" | "uniform")
            && let Some(skewed) = skewed(&measured, &whole, rows[rows.len() / 2])
        {
            let (even, hot) = (surface.at(&[16384.0]).seconds, skewed.at(&[16384.0]).seconds);
            if even > 1.1 * hot {
                let message = format!(
                    "balanced {:.2} ms against skewed {:.2} ms at 16,384 tokens ({x:?} looked at)",
                    even * 1e3,
                    hot * 1e3
                );
                push("balanced", message);
            }
        }
    }
    Ok(found.into_values().collect())
}

fn skewed(source: &Source, table: &Table, row: usize) -> Option<Surface> {
    let mut one = subset(table, |r| r == row);
    for key in &mut one.keys {
        if let Key::Text { name, codes, labels } = key
            && (name == "distribution" || name == "kernel_source")
        {
            *labels = vec![if name == "distribution" { "power_law_1.01".to_string() } else { String::new() }];
            codes[0] = 0;
        }
    }
    ask(source, &one, 0).map(|s| s.0)
}
