//! The communication tables of the kernel database as curves: which rows, which unit, which lane.
//!
//! | table | size | time |
//! |---|---|---|
//! | `nccl` (half) | 2 x `message_size` bytes, full buffer per rank | `latency` |
//! | `custom_allreduce` | 2 x `message_size` bytes | `latency`, graph or eager rows |
//! | `wideep_deepep_ll` | tokens per GPU, FP8 out and BF16 back | `dispatch_avg_t_us`, `combine_avg_t_us` |
//! | `wideep_deepep_normal` | tokens per GPU, at 20 SMs | transmit + notify |
//! | `trtllm_alltoall` (one-sided) | tokens per GPU, NVFP4 out and BF16 back | `latency` |
//!
//! `moe_a2a` is the same DeepEP kernels with 30 to 300 us of host work around them, which a CUDA
//! graph does not pay: only what another planner makes of them reads it (one_node). The one-sided kernel beats the two-sided one with its
//! prepare step at every size, so only that is read. Suspect rows left out: DeepEP normal on
//! 8 nodes (dispatch at 40 % of the NIC rate of 4 nodes, notify up to 17 ms).
//!
//! Limit: kernels at the SM count of their rows; a table of another system with the same fabric is tagged extrapolated.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::constants::{NORMAL_SMS, twin};
use super::curve::Curve;
use crate::error::Result;
use crate::kernels::table::Value;
use crate::kernels::{Evidence, KernelDb, Table};

/// A table and the best evidence its rows may claim here.
type Found = Option<(Arc<Table>, Evidence)>;

/// The table, or that of a system with the same fabric.
fn open_or_twin(db: &KernelDb, system: &str, framework: &str, name: &str, version: Option<&str>) -> Result<Found> {
    if let Some(table) = db.find(system, framework, name, version)? {
        return Ok(Some((table, Evidence::Measured)));
    }
    let Some(twin) = twin(system) else { return Ok(None) };
    Ok(db.find(twin, framework, name, version)?.map(|t| (t, Evidence::Extrapolated)))
}

/// Points (size, seconds) of `rows`, by the values of the `by` columns. The measures are added up.
fn points(
    table: &Table,
    rows: &[u32],
    by: &[&str],
    size: &str,
    scale: f64,
    measures: &[&str],
) -> BTreeMap<Vec<i64>, Vec<(f64, f64)>> {
    let mut out: BTreeMap<Vec<i64>, Vec<(f64, f64)>> = BTreeMap::new();
    let Some(x) = table.key(size) else { return out };
    for &row in rows {
        let row = row as usize;
        let seconds: f64 = measures.iter().map(|m| table.seconds(row, m).unwrap_or(0.0)).sum();
        let id: Option<Vec<i64>> = by.iter().map(|name| table.key(name).map(|k| k.code(row))).collect();
        if let Some(id) = id {
            out.entry(id).or_default().push((scale * x.code(row) as f64, seconds));
        }
    }
    out
}

/// Curves over bytes of one collective by ranks.
pub type ByRanks = BTreeMap<u32, Curve>;

fn by_ranks(points: BTreeMap<Vec<i64>, Vec<(f64, f64)>>, floor: Evidence) -> ByRanks {
    points
        .into_iter()
        .filter_map(|(id, p)| Some((u32::try_from(*id.first()?).ok()?, Curve::new(&p, floor)?)))
        .filter(|(n, _)| *n >= 2)
        .collect()
}

/// NCCL, BF16: `op` is `all_reduce`, `all_gather`, `reduce_scatter` or `alltoall`.
pub(crate) fn nccl(db: &KernelDb, system: &str, op: &str) -> Result<ByRanks> {
    let Some((table, floor)) = open_or_twin(db, system, "nccl", "nccl", None)? else { return Ok(ByRanks::new()) };
    let rows = table.find(&[("op_name", Value::from(op)), ("nccl_dtype", Value::from("half"))]);
    Ok(by_ranks(points(&table, &rows, &["num_gpus"], "message_size", 2.0, &["latency"]), floor))
}

/// The framework's own all-reduce, CUDA graph or eager; a table without that distinction serves
/// both. Where several kernels measured one size (one-shot, two-shot) the framework takes the best.
/// Ranks that only a twin system has measured are added as extrapolated.
pub(crate) fn custom_all_reduce(db: &KernelDb, system: &str, framework: &str, graph: bool) -> Result<ByRanks> {
    let mut out = ByRanks::new();
    let own = db.find(system, framework, "custom_allreduce", None)?.map(|t| (t, Evidence::Measured));
    let lent = match twin(system) {
        Some(twin) => db.find(twin, framework, "custom_allreduce", None)?.map(|t| (t, Evidence::Extrapolated)),
        None => None,
    };
    for (table, floor) in [own, lent].into_iter().flatten() {
        let source = table.key("kernel_source");
        let eager = |row: u32| source.is_some_and(|k| k.show(k.code(row as usize)).contains("eager"));
        let all: Vec<u32> = (0..table.rows() as u32).collect();
        let has_both = all.iter().any(|r| eager(*r)) && !all.iter().all(|r| eager(*r));
        let rows: Vec<u32> = all.into_iter().filter(|r| !has_both || eager(*r) != graph).collect();
        for (n, curve) in by_ranks(points(&table, &rows, &["num_gpus"], "message_size", 2.0, &["latency"]), floor) {
            out.entry(n).or_insert(curve);
        }
    }
    Ok(out)
}

/// One measured shape of an all-to-all: seconds over tokens per GPU.
#[derive(Clone, Debug)]
pub struct Shaped {
    pub hidden: u32,
    pub topk: u32,
    pub experts: u32,
    pub curve: Curve,
}

/// Curves of dispatch and of combine by EP ranks and shape.
pub type ByEp = BTreeMap<u32, Vec<Shaped>>;

fn by_ep(points: BTreeMap<Vec<i64>, Vec<(f64, f64)>>, node: u32, floor: Evidence) -> ByEp {
    let mut out = ByEp::new();
    for (id, p) in points {
        let ids: Option<Vec<u32>> = id.iter().map(|v| u32::try_from(*v).ok()).collect();
        if let (Some(ids), Some(curve)) = (ids, Curve::new(&p, floor))
            && let [nodes, hidden, topk, experts] = ids[..]
        {
            out.entry(nodes * node).or_default().push(Shaped { hidden, topk, experts, curve });
        }
    }
    out
}

/// DeepEP, (dispatch, combine). The newest table has one node; more nodes are in 0.5.6.post2 only,
/// whose h200 file repeats h100's values and so is no measurement of h200.
pub(crate) fn deepep(db: &KernelDb, system: &str, node: u32, normal: bool) -> Result<(ByEp, ByEp)> {
    let name = if normal { "wideep_deepep_normal" } else { "wideep_deepep_ll" };
    let (out_measures, back_measures): (&[&str], &[&str]) = if normal {
        (&["dispatch_transmit_us", "dispatch_notify_us"], &["combine_transmit_us", "combine_notify_us"])
    } else {
        (&["dispatch_avg_t_us"], &["combine_avg_t_us"])
    };
    let (mut out, mut back) = (ByEp::new(), ByEp::new());
    let new = open_or_twin(db, system, "sglang", name, Some("0.5.12"))?;
    // Without that version: whatever there is (an import).
    let new = if new.is_none() { db.find(system, "sglang", name, None)?.map(|t| (t, Evidence::Measured)) } else { new };
    let copied = if system == "h100_sxm" { Evidence::Measured } else { Evidence::Interpolated };
    let old = db.find(system, "sglang", name, Some("0.5.6.post2"))?.map(|t| (t, copied));
    for (table, floor) in [new, old].into_iter().flatten() {
        let nodes = table.key("node_num");
        let rows: Vec<u32> =
            (0..table.rows() as u32).filter(|r| !normal || nodes.is_none_or(|k| k.code(*r as usize) < 8)).collect();
        let by = ["node_num", "hidden_size", "num_topk", "num_experts"];
        let sms = |rows: &[u32], key: &str| -> Vec<u32> {
            let Some(k) = table.key(key) else { return rows.to_vec() };
            rows.iter().copied().filter(|r| k.code(*r as usize) == NORMAL_SMS).collect()
        };
        for (into, measures, key) in
            [(&mut out, out_measures, "dispatch_sms"), (&mut back, back_measures, "combine_sms")]
        {
            for (ep, shapes) in by_ep(points(&table, &sms(&rows, key), &by, "num_token", 1.0, measures), node, floor) {
                into.entry(ep).or_insert(shapes);
            }
        }
    }
    Ok((out, back))
}

/// One-sided all-to-all over NVLink in a rack, (dispatch of NVFP4, combine of BF16); measured with a
/// balanced router: every token reaches min(EP, k) GPUs.
pub(crate) fn one_sided(db: &KernelDb, system: &str) -> Result<(ByEp, ByEp)> {
    let Some((table, floor)) = open_or_twin(db, system, "trtllm", "trtllm_alltoall", Some("1.3.0rc10"))? else {
        return Ok((ByEp::new(), ByEp::new()));
    };
    let read = |op: &str| {
        let rows = table.find(&[
            ("kernel_source", Value::from("NVLinkOneSided")),
            ("op_name", Value::from(op)),
            ("moe_dtype", Value::from("nvfp4")),
        ]);
        let by = ["moe_ep_size", "hidden_size", "topk", "num_experts"];
        by_ep(points(&table, &rows, &by, "num_tokens", 1.0, &["latency"]), 1, floor)
    };
    Ok((read("alltoall_dispatch"), read("alltoall_combine")))
}
