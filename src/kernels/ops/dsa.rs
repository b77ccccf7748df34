//! DeepSeek sparse attention (DSA): whole measured blocks, projections, indexer, top-k, sparse MLA and output.
//!
//! Keyed by architecture, KV format, GEMM format, heads, batch, new tokens and past; `model` and
//! `tp_size` do not matter (repeats: median), `*_skip_indexer` rows are another operator.
//! Two kernels: up to top-k (2,048) tokens in all the block attends densely, beyond that it indexes;
//! each is a grid of its own, so nothing is blended across the switch. Only sglang measured a dense
//! past axis; trtllm and vllm have {0, 128} and take sglang's growth from there on:
//! T(new, past) = T_lane(new, 128) + [T_sglang(new, past) - T_sglang(new, 128)] of the same system,
//! with sglang's eager launch floors (0.8 and 1.4 ms a layer on b200) taken off first, for they are its
//! own and would add 0.6 ms a layer to lanes that need 0.2.

use crate::error::Result;
use crate::kernels::grid::build::{Points, Recipe};
use crate::kernels::grid::{Blend, Scale};
use crate::kernels::roofline::{Roofline, Work};
use crate::kernels::surface::{Evidence, Node, Surface};
use crate::spec::{Dtype, Model};

use super::Source;
use super::attention::formats;
use super::mla::{self, Dims};
use super::rows::{Rows, at_heads, compile, table};

/// Formats of the projections to try, nearest first.
pub(super) fn gemm_types(gemm: Dtype) -> &'static [&'static [&'static str]] {
    const BF16: &[&str] = &["bfloat16"];
    const FP8: &[&str] = &["fp8"];
    const BLOCK: &[&str] = &["fp8_block"];
    const FP4: &[&str] = &["nvfp4"];
    match gemm {
        Dtype::Bf16 | Dtype::Int4Wo | Dtype::W4a16Mxfp4 => &[BF16, BLOCK, FP8],
        Dtype::Fp8 => &[FP8, BLOCK, BF16],
        Dtype::Fp8Block | Dtype::W4a8Mxfp4Mxfp8 => &[BLOCK, FP8, BF16],
        Dtype::Nvfp4 => &[FP4, BLOCK, FP8, BF16],
    }
}

/// Architectures the tables name, by the size of their indexer.
fn architecture(model: &Model, dims: &Dims) -> [String; 3] {
    let (v32, glm) = ("DeepseekV32ForCausalLM".to_string(), "GlmMoeDsaForCausalLM".to_string());
    let big = dims.indexer.is_some_and(|i| i.heads >= 64);
    let (first, second) = if big { (v32, glm) } else { (glm, v32) };
    [model.architecture.clone(), first, second]
}

/// Points of one lane at the wanted heads, over (batch, isl, step) or (batch, step).
fn points(source: &Source, framework: &str, name: &str, model: &Model, dims: &Dims, heads: u32, gemm: Dtype, kv: Dtype, axes: &[(&str, f64)]) -> Option<(Points, String)> {
    let t = table(source, framework, name)?;
    let rows = Rows::new(&t).text("op_name", |l| !l.contains("skip_indexer"));
    let names = architecture(model, dims);
    let labels: Vec<[&str; 1]> = names.iter().map(|n| [n.as_str()]).collect();
    let labels: Vec<&[&str]> = labels.iter().map(|l| &l[..]).collect();
    let (rows, arch) = rows.first_text("architecture", &labels);
    let (rows, format) = rows.first_text("kv_cache_dtype", &formats(kv));
    let (rows, gemm_rank) = rows.first_text("gemm_type", gemm_types(gemm));
    let asked = arch.is_none_or(|r| r < 2) && format == Some(0) && gemm_rank == Some(0);
    let fallback = if asked { Evidence::Measured } else { Evidence::Extrapolated };
    let decode = axes.len() == 2;
    let points = at_heads(&rows, heads, axes, |h| roofline(source, dims, h, gemm, kv, decode), fallback);
    (!points.is_empty()).then(|| (points, rows.source()))
}

fn roofline(source: &Source, dims: &Dims, heads: f64, gemm: Dtype, kv: Dtype, decode: bool) -> Roofline {
    let block = mla::block(&source.device, dims, heads, gemm, kv, decode);
    let work = if decode { Work::BlockDecode(block) } else { Work::BlockContext(block) };
    Roofline { work, launch: source.device.launch_s }
}

/// The two kernels of a prefill lane, each a grid of its own.
fn regimes(points: &Points, roofline: Roofline, graph: bool, topk: f64, lane: &str) -> (Node, Vec<String>) {
    let recipe = |graph| Recipe { scales: vec![Scale::Linear, Scale::Linear, Scale::Linear], blend: Blend::Time, roofline, graph };
    let dense = points.filter(|x| x[1] + x[2] <= topk);
    let sparse = points.filter(|x| x[1] + x[2] > topk);
    let (below, above) = (compile(&dense, &recipe(graph), lane), compile(&sparse, &recipe(graph), lane));
    let mut dropped = below.dropped().to_vec();
    dropped.extend_from_slice(above.dropped());
    let node = if dense.is_empty() || sparse.is_empty() {
        compile(points, &recipe(graph), lane).node().clone()
    } else {
        Node::Regimes { split: topk, below: Box::new(below.node().clone()), above: Box::new(above.node().clone()) }
    };
    (node, dropped)
}

const CONTEXT: [(&str, f64); 3] = [("batch_size", 0.0), ("isl", 0.0), ("step", 0.0)];

pub(super) fn context(source: &Source, model: &Model, dims: &Dims, heads: u32, gemm: Dtype, kv: Dtype) -> Result<Surface> {
    let name = "dsa_context_module";
    let topk = dims.indexer.map_or(f64::INFINITY, |i| f64::from(i.topk));
    let floor = roofline(source, dims, f64::from(heads), gemm, kv, false);
    let fetch = |framework: &str| points(source, framework, name, model, dims, heads, gemm, kv, &CONTEXT);
    let Some((own, lane)) = fetch(&source.framework) else {
        return Ok(Surface::new(Node::Roofline(floor), format!("roofline ({} {name})", source.framework), Vec::new()));
    };
    let (node, dropped) = regimes(&own, floor, source.graph, topk, &lane);
    let anchor = own.iter().map(|p| p.0[2]).fold(0.0, f64::max);
    // A dense past axis reaches tens of thousands of tokens; {0, 128} is none.
    if anchor > 1024.0 {
        return Ok(Surface::new(node, lane, dropped));
    }
    let (donor, donor_lane) = match fetch("sglang") {
        Some((points, lane)) => (regimes(&points, floor, true, topk, &lane).0, lane),
        None => (Node::Roofline(floor), "roofline".to_string()),
    };
    let node = Node::Increment { lane: Box::new(node), donor: Box::new(donor), anchor };
    Ok(Surface::new(node, format!("{lane}, past beyond {anchor} by increments of {donor_lane}"), dropped))
}

pub(super) fn generation(source: &Source, model: &Model, dims: &Dims, heads: u32, gemm: Dtype, kv: Dtype) -> Result<Surface> {
    let name = "dsa_generation_module";
    let floor = roofline(source, dims, f64::from(heads), gemm, kv, true);
    let axes = [("batch_size", 0.0), ("step", 0.0)];
    let Some((points, lane)) = points(source, &source.framework, name, model, dims, heads, gemm, kv, &axes) else {
        return Ok(Surface::new(Node::Roofline(floor), format!("roofline ({} {name})", source.framework), Vec::new()));
    };
    let recipe = Recipe { scales: vec![Scale::Linear, Scale::Linear], blend: Blend::Time, roofline: floor, graph: false };
    Ok(compile(&points, &recipe, &lane))
}
