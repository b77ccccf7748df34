//! The measured communication tables as samples: what each row moved and how long it took.
//!
//! Both the fits and their validation read these, so that a byte is counted once and in one way:
//!
//! | table | bytes |
//! |---|---|
//! | `nccl` | `message_size` elements of the full buffer per rank (BF16 2, INT8 1) |
//! | `custom_allreduce` | 2 x `message_size`; of several kernels at one size the fastest |
//! | `wideep_deepep_ll`, `moe_a2a` low-latency | k copies, FP8 with scales out, BF16 back |
//! | `wideep_deepep_normal`, `moe_a2a` high-throughput | distinct nodes over the NIC, distinct GPUs over NVLink |
//! | `trtllm_alltoall` | balanced router: min(EP, k) copies, dtype of the row out, BF16 back (low precision: 1 byte) |
//!
//! Limits: DeepEP normal on 8 nodes is suspect (dispatch at 40 % of the NIC rate of 4 nodes, notify up
//! to 17 ms, network.md 2.5) and, being held out, never fitted; `moe_a2a` of vLLM does not name its dtype, FP8 is assumed.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::curve::Curve;
use super::law::{Links, Moved, Pattern};
use super::params::TableId;
use super::traffic::{self, Ports, packed, payload_bytes, return_bytes};
use crate::error::Result;
use crate::kernels::{Evidence, KernelDb, Table};
use crate::spec::{Dtype, Fabric, catalog};

/// Its rows repeat h100's value for value: no measurement of h200.
const COPIED: (&str, &str) = ("h200_sxm", "0.5.6.post2");

/// One row of a collective.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    pub ranks: u32,
    pub bytes: f64,
    pub seconds: f64,
}

/// One operation of one table.
#[derive(Clone, Debug)]
pub struct CollectiveTable {
    pub id: TableId,
    pub bytes_per_s: f64,
    pub samples: Vec<Sample>,
}

impl CollectiveTable {
    /// Patterns that the library has: its own all-reduce sends everything to everyone when small.
    pub(crate) fn patterns(&self) -> &'static [Pattern] {
        if self.id.table == "nccl" {
            &[Pattern::Ring, Pattern::Ring, Pattern::Ring]
        } else {
            &[Pattern::OneShot, Pattern::Ring, Pattern::Ring]
        }
    }
}

/// One row of an all-to-all.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Exchange {
    pub hidden: u32,
    pub topk: u32,
    pub experts: u32,
    pub ep: u32,
    pub tokens: f64,
    pub moved: Moved,
    pub seconds: f64,
}

/// One phase of one table.
#[derive(Clone, Debug)]
pub struct ExchangeTable {
    pub id: TableId,
    pub links: Links,
    pub samples: Vec<Exchange>,
}

fn id(table: &Table, op: &str, variant: &str) -> TableId {
    TableId {
        system: table.system.clone(),
        framework: table.framework.clone(),
        version: table.version.clone(),
        table: table.name.clone(),
        op: op.into(),
        variant: variant.into(),
    }
}

/// Every version of the named table in the pack, systems and versions in order.
fn versions(db: &KernelDb, name: &str) -> Result<Vec<(Arc<Table>, Fabric)>> {
    let mut out = Vec::new();
    for system in db.systems() {
        for framework in db.sources(&system)? {
            for info in db.tables(&system, &framework)? {
                if info.name == name && info.provenance.import.is_empty() {
                    let table = db.table(&system, &framework, name, Some(&info.version))?;
                    out.push((table, catalog::cluster(&system, 8)?.fabric));
                }
            }
        }
    }
    Ok(out)
}

/// Collectives of NCCL and of the frameworks, by operation and variant.
pub fn collectives(db: &KernelDb) -> Result<Vec<CollectiveTable>> {
    let mut out = Vec::new();
    for name in ["nccl", "custom_allreduce"] {
        for (table, fabric) in versions(db, name)? {
            let by = split(&table, name == "nccl");
            for ((op, variant), rows) in by {
                let samples = rows.into_iter().map(|((ranks, _), (bytes, seconds))| Sample { ranks, bytes, seconds });
                out.push(CollectiveTable {
                    id: id(&table, &op, &variant),
                    bytes_per_s: fabric.nvlink_bytes_per_s,
                    samples: samples.collect(),
                });
            }
        }
    }
    Ok(out)
}

type ByVariant = BTreeMap<(String, String), BTreeMap<(u32, i64), (f64, f64)>>;

fn split(table: &Table, nccl: bool) -> ByVariant {
    let mut by = ByVariant::new();
    for row in 0..table.rows() {
        let text = |key: &str| table.key(key).map_or_else(String::new, |k| k.show(k.code(row)));
        let number = |key: &str| table.key(key).map_or(0, |k| k.code(row));
        let (op, variant, width) = if nccl {
            let dtype = text("nccl_dtype");
            let width = if dtype == "int8" { 1.0 } else { 2.0 };
            (text("op_name"), dtype, width)
        } else {
            let source = text("kernel_source");
            let launch = if source.ends_with("eager") { "eager" } else { "graph" };
            ("all_reduce".to_string(), launch.to_string(), 2.0)
        };
        let (ranks, size) = (u32::try_from(number("num_gpus")).unwrap_or(0), number("message_size"));
        let Some(seconds) = table.seconds(row, "latency").filter(|t| *t > 0.0) else { continue };
        if ranks < 2 || size <= 0 {
            continue;
        }
        let best = by.entry((op, variant)).or_default().entry((ranks, size)).or_insert((width * size as f64, seconds));
        best.1 = best.1.min(seconds);
    }
    by
}

/// How a kernel moves a token.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Scheme {
    LowLatency,
    Normal,
    /// Rows of a balanced router, one copy per GPU, one domain.
    Balanced,
}

fn moved(scheme: Scheme, e: &Exchange, payload: f64, fabric: &Fabric, sms: f64) -> Moved {
    let domain = fabric.domain_gpus;
    let (inside, _, domains) = packed(e.ep, domain);
    let ports = match scheme {
        Scheme::LowLatency => traffic::low_latency(e.topk, e.ep, domain),
        Scheme::Normal => traffic::normal(e.experts, e.topk, 0, 0, e.ep, domain),
        Scheme::Balanced => Ports { nvlink: f64::from(e.topk.min(e.ep)) * (1.0 - 1.0 / f64::from(e.ep)), nic: 0.0 },
    };
    // Every copy that ends in a GPU of this domain passes its SMs, the local one too.
    let copies = ports.nvlink * f64::from(inside) / f64::from(inside.max(2) - 1);
    let bytes = e.tokens * payload;
    Moved { ports: ports.scale(bytes), handled: copies * bytes, sms, inside, domains, experts: e.experts }
}

struct Columns<'a> {
    table: &'a Table,
    fabric: &'a Fabric,
    scheme: Scheme,
    /// Names of the columns: tokens, top-k, ranks (none: nodes), SMs (none: not told).
    tokens: &'a str,
    topk: &'a str,
    ep: Option<&'a str>,
    sms: Option<&'a str>,
    measures: &'a [&'a str],
}

impl Columns<'_> {
    fn samples(&self, keep: impl Fn(usize) -> bool, payload: impl Fn(u32) -> f64) -> Vec<Exchange> {
        let number = |key: &str, row: usize| self.table.key(key).map_or(0, |k| k.code(row));
        let count = |key: &str, row: usize| u32::try_from(number(key, row)).unwrap_or(0);
        let mut out = Vec::new();
        for row in (0..self.table.rows()).filter(|r| keep(*r)) {
            let seconds: f64 = self.measures.iter().map(|m| self.table.seconds(row, m).unwrap_or(0.0)).sum();
            let ep = self.ep.map_or_else(|| count("node_num", row) * self.fabric.node_gpus, |key| count(key, row));
            let mut e = Exchange {
                hidden: count("hidden_size", row),
                topk: count(self.topk, row),
                experts: count("num_experts", row),
                ep,
                tokens: number(self.tokens, row) as f64,
                moved: Moved { ports: Ports::default(), handled: 0.0, sms: 0.0, inside: 1, domains: 1, experts: 0 },
                seconds,
            };
            if e.ep < 2 || e.tokens <= 0.0 || seconds <= 0.0 {
                continue;
            }
            let sms = self.sms.map_or(0.0, |key| number(key, row) as f64);
            e.moved = moved(self.scheme, &e, payload(e.hidden), self.fabric, sms);
            out.push(e);
        }
        out
    }
}

fn fp8(hidden: u32) -> f64 {
    payload_bytes(hidden, Dtype::Fp8)
}

fn links(fabric: &Fabric) -> Links {
    Links { nvlink: fabric.nvlink_bytes_per_s, nic: fabric.nic_bytes_per_s }
}

/// DeepEP in SGLang, both kernels, dispatch and combine.
fn deepep(db: &KernelDb, normal: bool, out: &mut Vec<ExchangeTable>) -> Result<()> {
    let name = if normal { "wideep_deepep_normal" } else { "wideep_deepep_ll" };
    for (table, fabric) in versions(db, name)? {
        if (table.system.as_str(), table.version.as_str()) == COPIED {
            continue;
        }
        for (op, measures, sms) in [
            ("dispatch", ["dispatch_transmit_us", "dispatch_notify_us", "dispatch_avg_t_us"], "dispatch_sms"),
            ("combine", ["combine_transmit_us", "combine_notify_us", "combine_avg_t_us"], "combine_sms"),
        ] {
            let columns = Columns {
                table: &table,
                fabric: &fabric,
                scheme: if normal { Scheme::Normal } else { Scheme::LowLatency },
                tokens: "num_token",
                topk: "num_topk",
                ep: None,
                sms: normal.then_some(sms),
                measures: &measures,
            };
            let payload = if op == "dispatch" { fp8 } else { return_bytes };
            let variant = if normal { "deepep_normal" } else { "deepep_low_latency" };
            out.push(ExchangeTable {
                id: id(&table, op, variant),
                links: links(&fabric),
                samples: columns.samples(|_| true, payload),
            });
        }
    }
    Ok(())
}

fn dtype_bytes(name: &str) -> fn(u32) -> f64 {
    match name {
        "bfloat16" => return_bytes,
        "nvfp4" | "fp4" => |h| payload_bytes(h, Dtype::Nvfp4),
        _ => fp8,
    }
}

/// Tables whose rows name their variant in text columns; each combination is one table.
fn named(db: &KernelDb, name: &str, keys: &[&str], out: &mut Vec<ExchangeTable>) -> Result<()> {
    for (table, fabric) in versions(db, name)? {
        let mut groups: BTreeMap<Vec<String>, Vec<usize>> = BTreeMap::new();
        for row in 0..table.rows() {
            let words = keys.iter().filter_map(|key| table.key(key).map(|k| k.show(k.code(row))));
            groups.entry(words.collect()).or_default().push(row);
        }
        for (words, rows) in groups {
            let [kernel, dtype, phase] = &words[..] else { continue };
            let op = phase.trim_start_matches("alltoall_");
            // Moves counts and indices, no payload.
            if op == "prepare" {
                continue;
            }
            let balanced = name == "trtllm_alltoall";
            let scheme = match kernel.as_str() {
                _ if balanced => Scheme::Balanced,
                k if k.ends_with("_ll") || k.ends_with("generation") => Scheme::LowLatency,
                _ => Scheme::Normal,
            };
            let columns = Columns {
                table: &table,
                fabric: &fabric,
                scheme,
                tokens: "num_tokens",
                topk: "topk",
                ep: Some(if balanced { "moe_ep_size" } else { "ep_size" }),
                sms: None,
                measures: &["latency"],
            };
            let payload = match op {
                "combine" => return_bytes,
                "combine_low_precision" => fp8,
                _ => dtype_bytes(dtype),
            };
            let keep: std::collections::BTreeSet<usize> = rows.into_iter().collect();
            out.push(ExchangeTable {
                id: id(&table, op, &format!("{kernel} {dtype}")),
                links: links(&fabric),
                samples: columns.samples(|r| keep.contains(&r), payload),
            });
        }
    }
    Ok(())
}

/// Dispatch and combine of every all-to-all kernel in the pack.
pub fn exchanges(db: &KernelDb) -> Result<Vec<ExchangeTable>> {
    let mut out = Vec::new();
    deepep(db, false, &mut out)?;
    deepep(db, true, &mut out)?;
    named(db, "trtllm_alltoall", &["kernel_source", "moe_dtype", "op_name"], &mut out)?;
    named(db, "moe_a2a", &["comm_backend", "comm_dtype", "phase"], &mut out)?;
    Ok(out)
}

/// Pairs (interpolated, measured): every second size of a curve priced from the others, which is how
/// a size between two measured ones is priced.
fn between(curve: &mut [(f64, f64)]) -> Vec<(f64, f64)> {
    curve.sort_by(|a, b| a.0.total_cmp(&b.0));
    let kept: Vec<(f64, f64)> = curve.iter().copied().step_by(2).collect();
    let Some(known) = Curve::new(&kept, Evidence::Measured) else { return Vec::new() };
    let inside = curve.iter().skip(1).step_by(2).filter(|(x, _)| kept.last().is_some_and(|k| *x < k.0));
    inside.map(|&(x, t)| (known.at(x).seconds, t)).collect()
}

/// See `between`; by ranks.
pub(crate) fn held_out_sizes(samples: &[Sample]) -> Vec<(f64, f64)> {
    let mut by: BTreeMap<u32, Vec<(f64, f64)>> = BTreeMap::new();
    for s in samples {
        by.entry(s.ranks).or_default().push((s.bytes, s.seconds));
    }
    by.values_mut().flat_map(|curve| between(curve)).collect()
}

/// See `between`; by group, shape and SM budget.
pub(crate) fn held_out_tokens(samples: &[Exchange]) -> Vec<(f64, f64)> {
    let mut by: BTreeMap<[u32; 5], Vec<(f64, f64)>> = BTreeMap::new();
    for e in samples {
        let id = [e.ep, e.hidden, e.topk, e.experts, e.moved.sms as u32];
        by.entry(id).or_default().push((e.tokens, e.seconds));
    }
    by.values_mut().flat_map(|curve| between(curve)).collect()
}
