//! Multi-head latent attention without an indexer: whole blocks.
//!
//! trtllm and vllm measured the block as a module; its kernel part alone grows with a past, by the
//! increments of the attention kernel stretched over pairs (own kernel table, else module minus
//! projections). sglang measured kernels: the block is the sum of the projections (fused q_a + kv_a,
//! q_b, kv_b in prefill or the absorbed BMMs in decode, o) and the kernel.
//! Context: kernel tables count `step` + 1 (steps are 2^k - 1), module tables `step` (2^k).
//!
//! Limit: measured on DeepSeek-V3's block; other dimensions are that one's utilisation at their own work.

use std::sync::Arc;

use crate::error::Result;
use crate::kernels::evidence::Evidence;
use crate::kernels::grid::Scale;
use crate::kernels::grid::build::build;
use crate::kernels::grid::lattice::{Floors, Recipe};
use crate::kernels::grid::points::Points;
use crate::kernels::roofline::{self, Roofline, Work, kernels};
use crate::kernels::surface::{Node, Surface};
use crate::spec::{Dtype, MatrixPart, Model};

use super::attention::{PARABOLA, formats};
use super::latent::{Dims, attend, block, dims};
use super::rows::{Rows, Site, at_heads, bake, blend, compile, compile_baked, eager_at_heads, octaves, table};
use super::{Source, dsa, gemm};

/// The tables hold DeepSeek-V3's block; another model's is scaled by roofline.
fn as_measured(d: &Dims) -> Evidence {
    let v3 = [d.hidden, d.q_lora, d.kv_lora, d.nope, d.rope, d.v] == [7168.0, 1536.0, 512.0, 128.0, 64.0, 128.0];
    if v3 { Evidence::Measured } else { Evidence::Extrapolated }
}

const V3: Dims =
    Dims { hidden: 7168.0, q_lora: 1536.0, kv_lora: 512.0, nope: 128.0, rope: 64.0, v: 128.0, indexer: None };

fn kernel_roofline(source: &Source, d: &Dims, heads: f64, kv: Dtype, decode: bool) -> Roofline {
    let a = attend(&source.device, d, heads, kv, decode);
    Roofline {
        work: if decode { Work::Decode(a) } else { Work::Context(a) },
        launch: kernels::ATTENTION * source.device.launch_s,
    }
}

fn block_roofline(source: &Source, d: &Dims, heads: f64, gemm: Dtype, kv: Dtype, decode: bool) -> Roofline {
    let b = block(&source.device, d, heads, gemm, kv, decode);
    Roofline {
        work: if decode { Work::BlockDecode(b) } else { Work::BlockContext(b) },
        launch: kernels::MLA * source.device.launch_s,
    }
}

fn grid2(points: &Points, roofline: Roofline, second: Scale, floors: Floors, lane: &str) -> Surface {
    compile(points, &Recipe { scales: vec![Scale::Linear, second], roofline, floors }, lane)
}

/// Coordinate of the length of a block: mostly projections, which are linear, so a wider parabola.
const BLOCK: Scale = Scale::Parabola(8192.0);

/// Points of the attention kernel alone and their lane; `None` when the framework has no kernel table.
fn kernel_points(source: &Source, d: &Dims, heads: u32, kv: Dtype, decode: bool) -> Result<Option<(Points, String)>> {
    let name = if decode { "generation_mla" } else { "context_mla" };
    let Some(t) = table(source, &source.framework, name)? else { return Ok(None) };
    let (rows, rank) = Rows::new(&t).first_text("kv_cache_dtype", &formats(kv));
    let fallback = if rank == Some(0) { as_measured(d) } else { Evidence::Extrapolated };
    let axes: &[(&str, f64)] =
        if decode { &[("batch_size", 0.0), ("step", 1.0)] } else { &[("batch_size", 0.0), ("isl", 0.0)] };
    let points = at_heads(&rows, heads, axes, |h| kernel_roofline(source, d, h, kv, decode), fallback);
    Ok(Some((points, rows.source())))
}

fn kernel(source: &Source, d: &Dims, heads: u32, kv: Dtype, decode: bool) -> Result<Option<Surface>> {
    let Some((points, lane)) = kernel_points(source, d, heads, kv, decode)? else { return Ok(None) };
    let second = if decode { Scale::Linear } else { PARABOLA };
    let roofline = kernel_roofline(source, d, f64::from(heads), kv, decode);
    Ok(Some(grid2(&points, roofline, second, Floors::None, &lane)))
}

fn past(kernel: &Surface, floor: Roofline) -> Node {
    Node::Past { inner: Box::new(kernel.node().clone()), window: f64::INFINITY, floor }
}

/// Sums curves over tokens into one grid.
fn sum_curves(parts: &[(Points, Recipe)]) -> Node {
    let mut at: Vec<f64> = parts.iter().flat_map(|p| p.0.iter().map(|q| q.0[0]).collect::<Vec<_>>()).collect();
    at.sort_by(f64::total_cmp);
    at.dedup();
    let (mut math0, mut mem0, mut mem1, mut launch) = (0.0, 0.0, 0.0, 0.0);
    let mut nodes = Vec::new();
    for (points, recipe) in parts {
        let roofline = recipe.roofline;
        if let Work::Linear { math, memory0, memory } = roofline.work {
            math0 += math;
            mem0 += memory0;
            mem1 += memory;
            launch += roofline.launch;
        }
        nodes.push(build(points, recipe).map_or(Node::Roofline(roofline), |(g, _)| Node::Grid(Arc::new(g))));
    }
    let sum = Node::Sum(nodes);
    let mut points = Points::default();
    for m in at {
        let r = sum.eval(&[m, 0.0, 0.0]);
        points.insert([m, 0.0, 0.0], r.seconds, r.evidence);
    }
    let roofline = Roofline { work: Work::Linear { math: math0, memory0: mem0, memory: mem1 }, launch };
    // The floors are already off the parts.
    let recipe = Recipe { scales: vec![Scale::Linear], roofline, floors: Floors::None };
    build(&points, &recipe).map_or(Node::Roofline(roofline), |(g, _)| Node::Grid(Arc::new(g)))
}

/// Absorbed batched GEMMs of decode (latent queries in, per-head values out).
fn absorbed(source: &Source, d: &Dims, heads: u32, dtype: Dtype) -> Result<Vec<(Points, Recipe)>> {
    let bw = roofline::bandwidth(&source.device);
    let roof = |h: f64, width: f64| Roofline {
        work: Work::Linear {
            math: 2.0 * h * d.kv_lora * width / roofline::flops(&source.device, dtype),
            memory0: h * d.kv_lora * width * dtype.weight_bytes() / bw,
            memory: 2.0 * h * (d.kv_lora + width) / bw,
        },
        launch: source.device.launch_s,
    };
    let t = table(source, &source.framework, "mla_bmm")?;
    let parts = [("pre", d.nope), ("post", d.v)].into_iter().map(|(op, width)| {
        let points = t.as_deref().map_or_else(Points::default, |t| {
            let rows = Rows::new(t).text("op_name", |l| l.ends_with(op));
            let (rows, rank) = rows.first_text("bmm_dtype", &formats(dtype));
            let fallback = if rank == Some(0) { as_measured(d) } else { Evidence::Extrapolated };
            at_heads(&rows, heads, &[("num_tokens", 0.0)], |h| roof(h, width), fallback)
        });
        let roofline = roof(f64::from(heads), width);
        (points, Recipe { scales: vec![Scale::Linear], roofline, floors: Floors::None })
    });
    Ok(parts.collect())
}

/// Projections per token: fused down-projections, q_b, o, and kv_b (prefill) or the absorbed BMMs (decode).
/// `of`: the format of each part; fused parts run in the wider of theirs.
fn projections(source: &Source, d: &Dims, heads: u32, of: impl Fn(MatrixPart) -> Dtype, decode: bool) -> Result<Node> {
    let h = f64::from(heads);
    let q_out = h * (d.nope + d.rope);
    let down = d.kv_lora + d.rope;
    let mut shapes = vec![(d.hidden, h * d.v, of(MatrixPart::O))];
    if d.q_lora > 0.0 {
        let fused = if of(MatrixPart::QA) == Dtype::Bf16 { Dtype::Bf16 } else { of(MatrixPart::KvA) };
        shapes.extend([(d.q_lora + down, d.hidden, fused), (q_out, d.q_lora, of(MatrixPart::QB))]);
    } else {
        shapes.extend([(down, d.hidden, of(MatrixPart::KvA)), (q_out, d.hidden, of(MatrixPart::Q))]);
    }
    if !decode {
        shapes.push((h * (d.nope + d.v), d.kv_lora, of(MatrixPart::KvB)));
    }
    let mut parts: Vec<(Points, Recipe)> = shapes
        .into_iter()
        .map(|(n, k, dtype)| {
            let (points, recipe, _) = gemm::points(source, dtype, n as u32, k as u32)?;
            Ok((points, recipe))
        })
        .collect::<Result<_>>()?;
    if decode {
        parts.extend(absorbed(source, d, heads, of(MatrixPart::KvB))?);
    }
    Ok(sum_curves(&parts))
}

/// The measured module over (sequences, length or context); `None` when the framework has none.
fn module(
    source: &Source,
    d: &Dims,
    heads: u32,
    gemm: Dtype,
    kv: Dtype,
    decode: bool,
) -> Result<Option<(Points, bool, String)>> {
    let name = if decode { "mla_generation_module" } else { "mla_context_module" };
    let Some(t) = table(source, &source.framework, name)? else { return Ok(None) };
    let (rows, kv_rank) = Rows::new(&t).first_text("kv_cache_dtype", &formats(kv));
    let (rows, gemm_rank) = rows.first_text("gemm_type", dsa::gemm_types(gemm));
    // The arithmetic stays BF16 where both were measured: FP8 attention is the exception in practice.
    let (rows, _) = rows.first_text("mla_dtype", &[&["bfloat16"]]);
    let asked = kv_rank == Some(0) && gemm_rank == Some(0);
    let fallback = if asked { as_measured(d) } else { Evidence::Extrapolated };
    let axes: &[(&str, f64)] =
        if decode { &[("batch_size", 0.0), ("step", 0.0)] } else { &[("batch_size", 0.0), ("isl", 0.0)] };
    let measured = at_heads(&rows, heads, axes, |h| block_roofline(source, &V3, h, gemm, kv, decode), fallback);
    if measured.is_empty() {
        return Ok(None);
    }
    let site = Site {
        points: measured,
        roofline: block_roofline(source, &V3, f64::from(heads), gemm, kv, decode),
        weight: 1.0,
    };
    let points = blend(&[site], &block_roofline(source, d, f64::from(heads), gemm, kv, decode), as_measured(d));
    let eager = eager_at_heads(&rows, axes, |h| block_roofline(source, &V3, h, gemm, kv, decode));
    Ok(Some((points, eager, rows.source())))
}

/// The attention kernel of an MLA model alone; `None` when the framework has no kernel table.
/// Axes: (sequences, length) in prefill without a past, (sequences, context) in decode.
pub fn mla_kernel(source: &Source, model: &Model, heads: u32, kv: Dtype, decode: bool) -> Result<Option<Surface>> {
    kernel(source, &dims(model)?, heads, kv, decode)
}

/// The whole attention block of an MLA or DSA model in prefill, projections included. Axes: sequences, new tokens, past.
pub fn mla_context(source: &Source, model: &Model, heads: u32, gemm: Dtype, kv: Dtype) -> Result<Surface> {
    let d = dims(model)?;
    if d.indexer.is_some() {
        return dsa::context(source, model, &d, heads, gemm, kv);
    }
    let floor = kernel_roofline(source, &d, f64::from(heads), kv, false);
    let own = kernel(source, &d, heads, kv, false)?;
    let Some((points, eager, lane)) = module(source, &d, heads, gemm, kv, false)? else {
        let proj = Node::Tokens {
            inner: Box::new(projections(source, &d, heads, |part| model.part_format(part, gemm), false)?),
            axes: 2,
        };
        let (attend, lane, dropped) = match own {
            Some(k) => {
                let points = kernel_points(source, &d, heads, kv, false)?.map_or_else(Points::default, |p| p.0);
                let node = compile_baked(&bake(&past(&k, floor), &points, &octaves()), PARABOLA, floor);
                (node, k.source().to_string(), k.dropped().to_vec())
            }
            None => (Node::Roofline(floor), "roofline".to_string(), Vec::new()),
        };
        return Ok(Surface::new(Node::Sum(vec![proj, attend]), format!("projections (gemm) + {lane}"), dropped));
    };
    let roofline = block_roofline(source, &d, f64::from(heads), gemm, kv, false);
    let block = grid2(&points, roofline, BLOCK, Floors::new(eager, source.graph), &lane);
    let donor = match own {
        Some(kernel) => kernel,
        None => {
            // No kernel table: what the module costs beyond its projections.
            let proj = projections(source, &d, heads, |_| gemm, false)?;
            let mut rest = Points::default();
            for (x, t, e) in points.iter() {
                let p = proj.eval(&[x[0] * x[1], 0.0, 0.0]).seconds;
                rest.insert(x, (t - p).max(floor.least(&x)), e.max(Evidence::Interpolated));
            }
            grid2(&rest, floor, PARABOLA, Floors::new(eager, source.graph), &lane)
        }
    };
    let label = format!("{lane}, past by increments of {}", donor.source());
    let node =
        Node::Increment { lane: Box::new(block.node().clone()), donor: Box::new(past(&donor, floor)), anchor: 0.0 };
    let node = compile_baked(&bake(&node, &points, &octaves()), BLOCK, roofline);
    Ok(block.with(node, label))
}

/// Prefill attention of sglang's wide EP as it was measured; the block where it was not. Axes: sequences,
/// new tokens, past tokens. Asked by the profile of aiconfigurator 0.12 alone, and of FlashInfer as there: servers run
/// FA3 on Hopper in both phases.
pub fn mla_context_wide(source: &Source, model: &Model, heads: u32, gemm: Dtype, kv: Dtype) -> Result<Surface> {
    let d = dims(model)?;
    let found = match d.indexer {
        None => table(source, &source.framework, "wideep_context_mla")?,
        Some(_) => None,
    };
    let Some(t) = found else { return mla_context(source, model, heads, gemm, kv) };
    let (rows, _) = Rows::new(&t).first_text("kernel_source", &[&["flashinfer"]]);
    let axes = [("batch_size", 0.0), ("isl", 0.0)];
    let roofline = kernel_roofline(source, &d, f64::from(heads), kv, false);
    let roof = |h| kernel_roofline(source, &d, h, kv, false);
    let points = at_heads(&rows, heads, &axes, roof, as_measured(&d));
    let kernel = grid2(&points, roofline, PARABOLA, Floors::None, &rows.source());
    let node = compile_baked(&bake(&past(&kernel, roofline), &points, &octaves()), PARABOLA, roofline);
    Ok(kernel.with(node, kernel.source()))
}

/// The whole decode block as sglang measured it for wide EP, in the formats asked for; `None` where it did not.
fn wide_block(source: &Source, d: &Dims, heads: u32, gemm: Dtype, kv: Dtype) -> Result<Option<(Points, String)>> {
    let Some(t) = table(source, &source.framework, "wideep_generation_mla")? else { return Ok(None) };
    let (rows, kv_rank) = Rows::new(&t).first_text("kv_cache_dtype", &formats(kv));
    let (rows, gemm_rank) = rows.first_text("gemm_type", dsa::gemm_types(gemm));
    if (kv_rank, gemm_rank) != (Some(0), Some(0)) || as_measured(d) != Evidence::Measured {
        return Ok(None);
    }
    let (rows, _) = rows.first_text("kernel_source", &[&["fa3"]]);
    let axes = [("batch_size", 0.0), ("isl", 0.0)];
    let roof = |h| block_roofline(source, d, h, gemm, kv, true);
    let points = at_heads(&rows, heads, &axes, roof, Evidence::Measured);
    Ok((!points.is_empty()).then(|| (points, rows.source())))
}

/// Whether the attention kernel alone takes longer than the whole block does wherever both have real work:
/// then it is not the kernel that the block runs. (sglang on Hopper with FP8 KV: 4.2 ms against 0.3 ms with
/// projections; on Blackwell the two lanes agree.)
fn slower_than_block(kernel: &Surface, block: &Points) -> bool {
    let busy = |x: &[f64; 3]| x[0] * x[1] >= 65_536.0;
    let slower: Vec<bool> =
        block.iter().filter(|(x, ..)| busy(x)).map(|(x, t, _)| kernel.at(&x[..2]).seconds > t).collect();
    2 * slower.iter().filter(|s| **s).count() > slower.len()
}

/// The whole attention block of a DSA model in decode, the utilisation of `work` (arithmetic and traffic by heads)
/// held where no row is. Axes: sequences, context tokens. Other blocks as [`mla_generation`] has them.
pub fn sparse_generation_held(
    source: &Source,
    model: &Model,
    heads: u32,
    gemm: Dtype,
    kv: Dtype,
    work: &dyn Fn(f64) -> Work,
) -> Result<Surface> {
    let d = dims(model)?;
    if d.indexer.is_none() {
        return mla_generation(source, model, heads, gemm, kv);
    }
    dsa::generation(source, model, &d, heads, gemm, kv, Some(work))
}

/// The whole attention block of an MLA or DSA model in decode. Axes: sequences, context tokens.
pub fn mla_generation(source: &Source, model: &Model, heads: u32, gemm: Dtype, kv: Dtype) -> Result<Surface> {
    let d = dims(model)?;
    if d.indexer.is_some() {
        return dsa::generation(source, model, &d, heads, gemm, kv, None);
    }
    if let Some((points, eager, lane)) = module(source, &d, heads, gemm, kv, true)? {
        let roofline = block_roofline(source, &d, f64::from(heads), gemm, kv, true);
        return Ok(grid2(&points, roofline, Scale::Linear, Floors::new(eager, source.graph), &lane));
    }
    let proj = Node::Tokens {
        inner: Box::new(projections(source, &d, heads, |part| model.part_format(part, gemm), true)?),
        axes: 1,
    };
    let kernel = kernel(source, &d, heads, kv, true)?;
    if let (Some((points, lane)), Some(k)) = (wide_block(source, &d, heads, gemm, kv)?, &kernel)
        && slower_than_block(k, &points)
    {
        let roofline = block_roofline(source, &d, f64::from(heads), gemm, kv, true);
        let lane = format!("{lane} for a slower {}", k.source());
        return Ok(grid2(&points, roofline, Scale::Linear, Floors::None, &lane));
    }
    let (attend, lane, dropped) = match kernel {
        Some(k) => (k.node().clone(), k.source().to_string(), k.dropped().to_vec()),
        None => (
            Node::Roofline(kernel_roofline(source, &d, f64::from(heads), kv, true)),
            "roofline".to_string(),
            Vec::new(),
        ),
    };
    Ok(Surface::new(Node::Sum(vec![proj, attend]), format!("projections (gemm, mla_bmm) + {lane}"), dropped))
}
