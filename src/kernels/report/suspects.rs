//! Lanes that look wrong, found by rule and listed, never by name and never repaired here.
//!
//! Limit: four rules; a lane that is wrong by the same factor everywhere looks right to all of them.

use std::collections::BTreeMap;

use super::{ask, probe, text};
use crate::error::Result;
use crate::kernels::ops::{BALANCED_EXCESS, COMPARED_TOKENS, Source};
use crate::kernels::table::Table;

/// A lane that looks wrong, and why.
#[derive(Clone, Debug, PartialEq)]
pub struct Suspect {
    pub table: String,
    pub lane: String,
    pub reason: String,
}

/// Lanes of the source's framework that look wrong: outliers, eager-mode floors, times out of order,
/// balanced loads slower than skewed ones. One lane per group of the table's columns is looked at.
///
/// # Errors
/// If a table that is read for it is damaged.
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
        let Some((surface, _)) = ask(&measured, &whole, rows[rows.len() / 2])? else { continue };
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
    }
    for (lane, (ratio, site)) in slow_when_balanced(&whole) {
        let reason = format!(
            "balanced {ratio:.2}x of the skewed time from {COMPARED_TOKENS:.0} tokens on (median, worst at {site}): \
             serving takes the skewed rows"
        );
        found.insert(format!("{lane} balanced"), Suspect { table: table.to_string(), lane, reason });
    }
    Ok(found.into_values().collect())
}

/// Lanes with a (MoE-TP, EP) site whose balanced rows are slower than its skewed ones, with the worst ratio
/// and its site. All rows are looked at: a wrong load shows at some widths and not at others.
fn slow_when_balanced(table: &Table) -> BTreeMap<String, (f64, String)> {
    const SHAPE: [&str; 5] = ["moe_dtype", "hidden_size", "inter_size", "topk", "num_experts"];
    let mut out: BTreeMap<String, (f64, String)> = BTreeMap::new();
    let (Some(_), Some(tokens)) = (table.key("distribution"), table.key("num_tokens")) else { return out };
    // (lane, site) -> tokens -> (least balanced, least skewed).
    type Times = BTreeMap<i64, [f64; 2]>;
    let mut sites: BTreeMap<(String, String), Times> = BTreeMap::new();
    for r in 0..table.rows() {
        let (kernel, distribution) = (text(table, "kernel_source", r), text(table, "distribution", r));
        let (n, Some(seconds)) = (tokens.code(r), table.seconds(r, "latency")) else { continue };
        let known = ["balanced", "uniform", "power_law_1.01"].contains(&distribution);
        if (n as f64) < COMPARED_TOKENS || crate::kernels::lanes::is_nongated(kernel) || !known {
            continue;
        }
        let shape: Vec<String> = SHAPE.iter().filter_map(|c| table.key(c).map(|k| k.show(k.code(r)))).collect();
        let lane = format!("{} {} {} {}", table.system, table.framework, table.name, shape.join("/"));
        let at = |c: &str| table.key(c).map_or(1, |k| k.code(r));
        let site = format!("moe_tp {} ep {}", at("moe_tp_size"), at("moe_ep_size"));
        let slot = sites.entry((lane, site)).or_default().entry(n).or_insert([f64::INFINITY; 2]);
        let k = usize::from(distribution == "power_law_1.01");
        slot[k] = slot[k].min(seconds);
    }
    for ((lane, site), times) in sites {
        let mut ratios: Vec<f64> = times.values().map(|t| t[0] / t[1]).filter(|r| r.is_finite() && *r > 0.0).collect();
        ratios.sort_by(f64::total_cmp);
        let Some(&median) = ratios.get(ratios.len().saturating_sub(1) / 2) else { continue };
        if median > BALANCED_EXCESS && out.get(&lane).is_none_or(|(worst, _)| median > *worst) {
            out.insert(lane, (median, site));
        }
    }
    out
}
