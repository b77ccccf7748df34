//! DeepEP as it was measured inside one node, taken for any number of nodes: what another planner does where no
//! rows of so many nodes are.
//!
//! `moe_a2a` of trtllm and vllm (eager: host work is in the rows), `wideep_deepep_*` of sglang, and there only where
//! the asked number of nodes has no rows. Decode takes low-latency rows, prefill those of the normal kernel, at any
//! number of tokens; formats as that planner asks for them. Source: aiconfigurator 0.12 (Apache-2.0),
//! moe_comm_resolver.py and operations/moe_comm.py. Limits: no fabric is crossed, so the time is too short by
//! whatever the NICs take; never better than extrapolated; rows that fall with tokens are lowered as in any curve
//! (1 % at 128 tokens on GB200, a fifth at 64 on H200 with vLLM).

use std::collections::BTreeMap;

use super::a2a::A2aShape;
use super::constants::NORMAL_SMS;
use super::curve::{CommTime, Curve};
use super::tables;
use crate::error::Result;
use crate::kernels::table::Value;
use crate::kernels::{Evidence, KernelDb, Table};
use crate::spec::{Dtype, Framework};

/// Dispatch and combine of one kernel over tokens per GPU.
type Pair = [Curve; 2];

/// Both kernels of one shape.
#[derive(Debug)]
pub struct OneNode {
    low_latency: Pair,
    normal: Pair,
}

impl OneNode {
    /// Rows of `node` GPUs for this shape with experts in `moe`; none where there are no such rows, or rows of the
    /// asked size.
    pub fn new(
        db: &KernelDb,
        system: &str,
        framework: Framework,
        node: u32,
        shape: &A2aShape,
        moe: Dtype,
    ) -> Result<Option<OneNode>> {
        let pair = |normal: bool| match framework {
            Framework::Sglang => legacy(db, system, node, shape, normal),
            _ => unified(db, system, framework, node, shape, moe, normal),
        };
        Ok(match (pair(false)?, pair(true)?) {
            (Some(low_latency), Some(normal)) => Some(OneNode { low_latency, normal }),
            _ => None,
        })
    }

    /// Dispatch (`back`: combine) of `tokens` per GPU.
    pub fn at(&self, tokens: f64, back: bool, decode: bool) -> CommTime {
        let pair = if decode { &self.low_latency } else { &self.normal };
        pair[usize::from(back)].at(tokens)
    }
}

/// Rows by node count; no answer where the asked count has its own.
fn legacy(db: &KernelDb, system: &str, node: u32, shape: &A2aShape, normal: bool) -> Result<Option<Pair>> {
    let (out, back) = tables::deepep(db, system, node, normal)?;
    let find = |by: &tables::ByEp, ep: u32| {
        let fits = |s: &&tables::Shaped| (s.hidden, s.topk, s.experts) == (shape.hidden, shape.topk, shape.experts);
        by.get(&ep).and_then(|shapes| shapes.iter().find(fits)).map(|s| s.curve.clone().at_best(Evidence::Extrapolated))
    };
    if find(&out, shape.ep).is_some() {
        return Ok(None);
    }
    Ok(find(&out, node).zip(find(&back, node)).map(|(out, back)| [out, back]))
}

/// The format that a phase is looked up in.
fn format(framework: Framework, moe: Dtype, normal: bool, back: bool) -> &'static str {
    match (framework, moe, normal) {
        (Framework::Trtllm, Dtype::Nvfp4, false) if back => "fp4",
        (Framework::Trtllm, Dtype::Nvfp4, _) => "nvfp4",
        (Framework::Trtllm, Dtype::Fp8 | Dtype::Fp8Block, false) => "fp8",
        (Framework::Trtllm, ..) => "bfloat16",
        _ => "default",
    }
}

fn unified(
    db: &KernelDb,
    system: &str,
    framework: Framework,
    node: u32,
    shape: &A2aShape,
    moe: Dtype,
    normal: bool,
) -> Result<Option<Pair>> {
    let Some(table) = db.find(system, framework.name(), "moe_a2a", None)? else { return Ok(None) };
    let read = |back: bool| {
        let kernel = format!(
            "{}deepep_{}",
            if framework == Framework::Trtllm { "trtllm_" } else { "" },
            ["ll", "ht"][usize::from(normal)]
        );
        let numbers = [
            ("ep_size", node),
            ("node_num", 1),
            ("hidden_size", shape.hidden),
            ("topk", shape.topk),
            ("num_experts", shape.experts),
        ];
        let mut wanted: Vec<(&str, Value)> = numbers.map(|(k, v)| (k, Value::from(i64::from(v)))).into();
        wanted.push(("comm_backend", Value::from(kernel.as_str())));
        wanted.push(("phase", Value::from(["dispatch", "combine"][usize::from(back)])));
        wanted.push(("comm_dtype", Value::from(format(framework, moe, normal, back))));
        curve(&table, &table.find(&wanted))
    };
    Ok(read(false).zip(read(true)).map(|(out, back)| [out, back]))
}

/// Time over tokens at the SMs that servers take; rows without a choice of them count too.
fn curve(table: &Table, rows: &[u32]) -> Option<Curve> {
    let (tokens, sms) = (table.key("num_tokens")?, table.key("sms"));
    let usual = |r: usize| sms.is_none_or(|k| [0, NORMAL_SMS].contains(&k.code(r)));
    let mut times: BTreeMap<i64, f64> = BTreeMap::new();
    for r in rows.iter().map(|r| *r as usize).filter(|r| usual(*r)) {
        times.insert(tokens.code(r), table.seconds(r, "latency")?);
    }
    let points: Vec<(f64, f64)> = times.into_iter().map(|(x, t)| (x as f64, t)).collect();
    Curve::new(&points, Evidence::Extrapolated)
}
