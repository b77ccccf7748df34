//! Communication: how far the laws are from the tables they were fitted to (`fit`), and from what was
//! kept from them (`check`): larger groups, sizes between the measured ones, tables of others.
//!
//! A row stands for a table, or for the tables of one kernel on all systems: `predicted` is the mean
//! absolute relative error, `target` the largest that design and literature allow (NaN: none is set).
//! Source of the targets and of the split: network.md 4.7 and 5.
//! Limit: no public table of A2F or F2A exists; they take alpha and efficiency of dispatch and
//! combine on the same fabric, and are quoted at +-20 to 30 %.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;

use serde::Deserialize;

use super::row::{CheckedRow, Section};
use crate::control::Control;
use crate::error::{Error, Result};
use crate::kernels::KernelDb;
use crate::math::combinatorics::distinct_groups;
use crate::network::a2a::FEW_EXPERTS;
use crate::network::params::{Fitted, Misfit, Params, TableId};
use crate::network::samples::{self, CollectiveTable, ExchangeTable};
use crate::network::{A2aKind, A2aShape, Comm};
use crate::spec::{Dtype, catalog, json};
use crate::units::US;

const PUBLISHED: &str = include_str!("../../python/disagg/data/network/published.json");

/// A table of someone else's, never fitted to.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Published {
    pub name: String,
    pub kernel: String,
    pub system: String,
    pub source: String,
    pub note: String,
    pub columns: Vec<String>,
    pub rows: Vec<Vec<f64>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    tables: Vec<Published>,
}

/// The published tables that predictions are held against.
pub fn published() -> Result<Vec<Published>> {
    Ok(json::parse::<File>(PUBLISHED, "network/published.json")?.tables)
}

#[derive(Clone, Copy, PartialEq)]
enum Set {
    Fit,
    Check,
}

/// Largest errors: mean, and 95th percentile where one is set.
#[derive(Clone, Copy)]
struct Target {
    mape: f64,
    p95: f64,
}

const NONE: Target = Target { mape: f64::NAN, p95: f64::INFINITY };
const COLLECTIVE: Target = Target { mape: 0.05, p95: 0.12 };
const IN_DOMAIN: Target = Target { mape: 0.08, p95: f64::INFINITY };
const TWICE_DISPATCH: Target = Target { mape: 0.10, p95: f64::INFINITY };
const TWICE_COMBINE: Target = Target { mape: 0.15, p95: f64::INFINITY };
const OTHERS: Target = Target { mape: 0.12, p95: f64::INFINITY };

/// Why some tables are missed, by the start of their name.
const CAUSES: &[(&str, &str)] = &[
    ("sglang all_reduce eager, gb300", "from eight ranks on this path calls NCCL"),
    (
        "sglang all_reduce graph, gb300",
        "from eight ranks on this path calls NCCL: 27 us for the smallest message, 3.8 us at four",
    ),
    (
        "trtllm all_reduce graph, gb300",
        "from eight ranks on another kernel runs (multicast over MNNVL, one-shot and two-shot)",
    ),
    ("sglang all_reduce eager", "launches without a graph: jitter of the host"),
    ("vllm all_reduce eager", "launches without a graph: jitter of the host"),
    ("deepep_normal combine across nodes, EP64", "suspect rows: notify up to 17 ms"),
    (
        "deepep_normal dispatch across nodes, EP64",
        "suspect rows: 40 % of the NIC rate of four nodes, notify up to 2 ms",
    ),
    (
        "fabric-lib-deepep-prefill dispatch",
        "the source's dispatch at EP8 takes twice its combine, which moves twice the bytes",
    ),
    ("nvl72-all-reduce", "launch grows linearly in ranks from groups of two and four to 72"),
];

/// (predicted, measured) seconds.
type Pairs = Vec<(f64, f64)>;

fn row(
    name: String,
    system: &str,
    set: Set,
    target: Target,
    pairs: Pairs,
    source: &str,
    note: &str,
) -> Option<CheckedRow> {
    let spread = Misfit::of(pairs.iter().copied())?;
    let bias = pairs.iter().map(|(p, m)| (p / m).ln()).sum::<f64>() / pairs.len() as f64;
    let set = if set == Set::Fit { "fit" } else { "check" };
    let verdict = match target.mape {
        m if m.is_nan() => "no target",
        m if spread.mape <= m && spread.p95 <= target.p95 => "met",
        _ => "missed",
    };
    let cause = CAUSES.iter().find(|(start, _)| name.starts_with(start)).map_or("", |(_, why)| why);
    let note = [note, cause].iter().filter(|s| !s.is_empty()).copied().collect::<Vec<_>>().join("; ");
    let mut note = if note.is_empty() { String::new() } else { format!("{note}; ") };
    let _ = write!(note, "on average {:+.1} %", 100.0 * bias.exp_m1());
    Some(CheckedRow {
        section: Section::Network,
        name,
        system: system.into(),
        model: String::new(),
        framework: String::new(),
        metric: "mape",
        target: target.mape,
        predicted: spread.mape,
        source: source.into(),
        status: format!("ok:{set}:{verdict}"),
        note,
        spread: Some(spread),
    })
}

/// Pairs by kernel, all systems and versions together.
type Pooled = BTreeMap<String, (Pairs, Vec<String>)>;

fn pool(into: &mut Pooled, name: String, id: &TableId, pairs: Pairs) {
    if pairs.is_empty() {
        return;
    }
    let entry = into.entry(name).or_default();
    entry.0.extend(pairs);
    if !entry.1.contains(&id.system) {
        entry.1.push(id.system.clone());
    }
}

fn pooled(
    rows: &mut Vec<CheckedRow>,
    from: Pooled,
    set: Set,
    target: impl Fn(&str) -> Target,
    source: &str,
    note: &str,
) {
    for (name, (pairs, systems)) in from {
        rows.extend(row(name.clone(), &systems.join(" "), set, target(&name), pairs, source, note));
    }
}

fn law_of<'a, L>(fits: &'a [Fitted<L>], id: &TableId) -> Option<&'a Fitted<L>> {
    fits.iter().find(|f| f.id == *id)
}

fn collective_rows(params: &Params, tables: &[CollectiveTable]) -> Vec<CheckedRow> {
    let (mut fit, mut sizes, mut larger) = (Pooled::new(), Pooled::new(), Pooled::new());
    for table in tables {
        let Some(fitted) = law_of(&params.collectives, &table.id) else { continue };
        let id = &table.id;
        let name = match id.table.as_str() {
            "nccl" => format!("nccl {} {}", id.op, id.variant),
            _ => format!("{} all_reduce {}", id.framework, id.variant),
        };
        let by_law = |seen: bool| -> Pairs {
            let wanted = table.samples.iter().filter(|s| fitted.ranks.contains(&s.ranks) == seen);
            wanted.map(|s| (fitted.law.seconds(s.ranks, s.bytes, table.bytes_per_s), s.seconds)).collect()
        };
        pool(&mut fit, format!("{name}, n = 2 and 4"), id, by_law(true));
        pool(&mut sizes, format!("{name}, sizes between rows"), id, samples::held_out_sizes(&table.samples));
        let beyond = if id.system == "gb300" { "gb300 n = 8 and 16" } else { "n = 8" };
        pool(&mut larger, format!("{name}, {beyond} from n <= 4"), id, by_law(false));
    }
    let source = "measured tables of the pack";
    let mut rows = Vec::new();
    pooled(&mut rows, fit, Set::Fit, |_| COLLECTIVE, source, "");
    pooled(
        &mut rows,
        sizes,
        Set::Check,
        |_| COLLECTIVE,
        source,
        "every second size left out, twice as coarse as the table",
    );
    pooled(&mut rows, larger, Set::Check, |_| NONE, source, "");
    rows
}

fn exchange_rows(params: &Params, tables: &[ExchangeTable]) -> Vec<CheckedRow> {
    let (mut fit, mut tokens, mut larger) = (Pooled::new(), Pooled::new(), Pooled::new());
    for table in tables {
        let Some(fitted) = law_of(&params.exchanges, &table.id) else { continue };
        let id = &table.id;
        let most = fitted.ranks.last().copied().unwrap_or(0);
        let across = if fitted.law.per_log2_domains > 0.0 || fitted.law.step > 0.0 { " across nodes" } else { "" };
        let name = format!("{} {}{across}", id.variant, id.op);
        // Few experts starve the low-latency kernel: not fitted, priced from their own rows.
        let low_latency = id.variant == "deepep_low_latency";
        let by_law = |seen: bool| -> Pairs {
            let wanted =
                table.samples.iter().filter(|e| (e.ep <= most) == seen && !(low_latency && e.experts <= FEW_EXPERTS));
            wanted.map(|e| (fitted.law.seconds(&e.moved, &table.links), e.seconds)).collect()
        };
        pool(&mut fit, format!("{name}, EP <= {most}"), id, by_law(true));
        pool(&mut tokens, format!("{name}, tokens between rows"), id, samples::held_out_tokens(&table.samples));
        pool(&mut larger, format!("{name}, EP{} from EP <= {most}", 2 * most), id, by_law(false));
    }
    let source = "measured tables of the pack";
    let mut rows = Vec::new();
    let near = |name: &str| {
        let near = name.starts_with("deepep_low_latency") || name.starts_with("NVLinkOneSided");
        if near { IN_DOMAIN } else { NONE }
    };
    let twice = |name: &str| if name.contains("dispatch") { TWICE_DISPATCH } else { TWICE_COMBINE };
    pooled(&mut rows, fit, Set::Fit, near, source, "");
    pooled(&mut rows, tokens, Set::Check, near, source, "every second row left out of the table");
    pooled(&mut rows, larger, Set::Check, twice, source, "");
    rows
}

/// DeepEP low-latency in one node as a model without rows of its own is priced: each shape of the table in turn
/// is left out and asked for. No clean check: the shape's rows did take part in the fit of one number.
fn unseen_shapes(db: &Arc<KernelDb>) -> Result<Vec<CheckedRow>> {
    let (mut out, mut back, mut systems) = (Pairs::new(), Pairs::new(), Vec::new());
    for system in db.systems() {
        let Some(table) = db.find(&system, "sglang", "wideep_deepep_ll", Some("0.5.12"))? else { continue };
        let cluster = catalog::cluster(&system, 8)?;
        let column = |name: &str, row: usize| table.key(name).map_or(0, |k| k.code(row)) as u32;
        let shape = |row: usize| (column("hidden_size", row), column("num_topk", row), column("num_experts", row));
        let shapes: BTreeSet<(u32, u32, u32)> =
            (0..table.rows()).map(shape).filter(|(_, _, experts)| *experts > FEW_EXPERTS).collect();
        for (i, left_out) in shapes.into_iter().enumerate() {
            let (asked, kept): (Vec<u32>, Vec<u32>) =
                (0..table.rows() as u32).partition(|row| shape(*row as usize) == left_out);
            let without = db.with_tables(&format!("without shape {i}"), vec![table.subset(&kept)])?;
            let comm = Comm::new(without, &cluster, "sglang", 1.0)?;
            let (hidden, topk, experts) = left_out;
            for row in asked.into_iter().map(|r| r as usize) {
                let asked = A2aShape {
                    hidden,
                    topk,
                    experts,
                    groups: 0,
                    topk_groups: 0,
                    ep: cluster.fabric.node_gpus,
                    dispatch_dtype: Dtype::Fp8,
                };
                let tokens = f64::from(column("num_token", row));
                let measured = |name| table.seconds(row, name).unwrap_or(f64::NAN);
                let kind = A2aKind::LowLatency;
                out.push((comm.dispatch(&asked, tokens, kind).seconds, measured("dispatch_avg_t_us")));
                back.push((comm.combine(&asked, tokens, kind).seconds, measured("combine_avg_t_us")));
            }
        }
        systems.push(system);
    }
    let note = "each shape in turn left out of the table, not out of the fit of the cost per expert";
    let one = |op: &str, pairs: Pairs| {
        let name = format!("deepep_low_latency {op}, unseen shapes");
        row(name, &systems.join(" "), Set::Fit, IN_DOMAIN, pairs, "measured tables of the pack", note)
    };
    Ok([one("dispatch", out), one("combine", back)].into_iter().flatten().collect())
}

fn published_rows(db: &Arc<KernelDb>) -> Result<Vec<CheckedRow>> {
    let mut rows = Vec::new();
    for table in published()? {
        let gpus = table.rows.iter().map(|r| r[0] as u32).max().unwrap_or(8);
        let comm = Comm::new(db.clone(), &catalog::cluster(&table.system, gpus)?, "sglang", 1.0)?;
        let target = if table.name.ends_with("ep8") { NONE } else { OTHERS };
        let mut push = |name: String, pairs| {
            rows.extend(row(name, &table.system, Set::Check, target, pairs, &table.source, &table.note));
        };
        if table.kernel == "all_reduce" {
            let pair = |r: &Vec<f64>| {
                let (ranks, bytes, bus) = (r[0], r[1], r[2] * 1e9);
                (comm.all_reduce(bytes, ranks as u32, false).seconds, 2.0 * (ranks - 1.0) / ranks * bytes / bus)
            };
            push(table.name.clone(), table.rows.iter().map(pair).collect());
            continue;
        }
        let (kind, dtype) = match table.kernel.as_str() {
            "one_sided" => (A2aKind::OneSided, Dtype::Bf16),
            "low_latency" => (A2aKind::LowLatency, Dtype::Fp8),
            "normal" => (A2aKind::Normal, Dtype::Fp8),
            other => return Err(Error::data("network/published.json", format!("unknown kernel '{other}'"))),
        };
        for (op, column) in [("dispatch", 2), ("combine", 3)] {
            let pair = |r: &Vec<f64>| {
                let (ep, mut tokens) = (r[0] as u32, r[1]);
                let shape = A2aShape {
                    hidden: 7168,
                    topk: 8,
                    experts: 256,
                    groups: 0,
                    topk_groups: 0,
                    ep,
                    dispatch_dtype: dtype,
                };
                if kind == A2aKind::OneSided {
                    // A balanced router reaches min(EP, k) GPUs, a random one fewer.
                    tokens *= f64::from(ep.min(8)) / distinct_groups(256, ep, 8);
                }
                let t = if op == "dispatch" {
                    comm.dispatch(&shape, tokens, kind)
                } else {
                    comm.combine(&shape, tokens, kind)
                };
                (t.seconds, r[column] * US)
            };
            push(format!("{} {op}", table.name), table.rows.iter().map(pair).collect());
        }
    }
    Ok(rows)
}

/// One row a table.
pub fn rows(db: &Arc<KernelDb>, control: &Control) -> Result<Vec<CheckedRow>> {
    let params = Params::shipped()?;
    let mut rows = collective_rows(params, &samples::collectives(db)?);
    control.check()?;
    rows.extend(exchange_rows(params, &samples::exchanges(db)?));
    control.check()?;
    rows.extend(unseen_shapes(db)?);
    control.check()?;
    rows.extend(published_rows(db)?);
    Ok(rows)
}

/// The rows as a markdown table.
pub fn report(rows: &[CheckedRow]) -> String {
    let percent = |x: f64| if x.is_finite() { format!("{:.1} %", 100.0 * x) } else { "-".into() };
    let mut out = String::from(
        "| table | set | n | MAPE | median | p95 | target | verdict | systems | note |\n|---|---|---:|---:|---:|---:|---:|---|---|---|\n",
    );
    for r in rows {
        let mut status = r.status.split(':').skip(1);
        let (set, verdict) = (status.next().unwrap_or(""), status.next().unwrap_or(""));
        if let Some(s) = &r.spread {
            let (mape, median, p95, target) = (percent(s.mape), percent(s.median), percent(s.p95), percent(r.target));
            let _ = writeln!(
                out,
                "| {} | {set} | {} | {mape} | {median} | {p95} | {target} | {verdict} | {} | {} |",
                r.name, s.rows, r.system, r.note
            );
        }
    }
    out
}
