//! GQA attention kernels. Prefill grid: (sequences, length), stretched over a past by its share of
//! query-key pairs; decode grid: (sequences, context), context = measured step + 1 (the new token sees itself).
//! No lane of these kernels was measured in eager mode (floors of 4-20 us are the kernels' own), so
//! `launch="graph"` changes nothing.
//! Lanes: the framework's default kernel of the architecture (`kernels` of `serving/defaults.json`) where it was
//! measured, else the source with most rows; trtllm and vllm have one source per shape.
//!
//! Limit: equal lengths within a batch; a mixed batch is priced by its means.

use crate::error::Result;
use crate::kernels::evidence::Evidence;
use crate::kernels::grid::Scale;
use crate::kernels::grid::lattice::{Floors, Recipe};
use crate::kernels::grid::points::Points;
use crate::kernels::roofline::kernels::ATTENTION;
use crate::kernels::roofline::{self, Attend, Roofline, Work};
use crate::kernels::surface::{Node, Surface};
use crate::spec::servers::{self, KernelPart};
use crate::spec::{Device, Dtype};

use super::Source;
use super::rows::{Rows, Site, bake, blend, bracket, compile, compile_baked, octaves, table};

pub(super) const BF16: &[&str] = &["bfloat16", "float16", "half"];
/// Two spellings of one lane.
pub(super) const FP8: &[&str] = &["fp8", "fp8_e4m3"];

/// Coordinate of the length of a prefill kernel.
pub(super) const PARABOLA: Scale = Scale::Parabola(2048.0);

/// Labels of a KV or attention format, the wanted one first.
pub(super) fn formats(dtype: Dtype) -> [&'static [&'static str]; 2] {
    if dtype == Dtype::Bf16 { [BF16, FP8] } else { [FP8, BF16] }
}

pub(super) fn kv_bytes(kv: Dtype) -> f64 {
    if kv == Dtype::Bf16 { 2.0 } else { 1.0 }
}

#[derive(Clone, Copy)]
struct Shape {
    heads: f64,
    kv_heads: f64,
    head_dim: f64,
    window: u32,
}

fn attend(device: &Device, s: Shape, attention: Dtype, kv: Dtype) -> Attend {
    let bw = roofline::bandwidth(device);
    let rate = roofline::flops(device, if attention == Dtype::Bf16 { Dtype::Bf16 } else { Dtype::Fp8 });
    Attend {
        pair: 4.0 * s.heads * s.head_dim / rate,
        io: 4.0 * s.heads * s.head_dim / bw,
        kv: 2.0 * s.kv_heads * s.head_dim * kv_bytes(kv) / bw,
        window: if s.window == 0 { f64::INFINITY } else { f64::from(s.window) },
        sparse: false,
    }
}

/// The default kernel source among these rows.
fn default_source<'a>(source: &Source, rows: Rows<'a>) -> Rows<'a> {
    // trtllm and vllm switch kernels by shape, one for each: all sources together are the lane.
    let Some(rule) = servers::kernel_rule(&source.framework, source.device.sm, KernelPart::Attention) else {
        return rows;
    };
    let (chosen, rank) = rows.first_text("kernel_source", &[&[&rule.lane]]);
    if rank.is_some() {
        return chosen;
    }
    match rows.labels("kernel_source").first() {
        Some(most) => rows.text("kernel_source", |l| l == most),
        None => rows,
    }
}

/// Points at the shape: exact heads, else blended between head counts of the same grouping, else the nearest.
fn points(
    source: &Source,
    rows: &Rows,
    shape: Shape,
    axes: &[(&str, f64)],
    roof: impl Fn(Shape) -> Roofline,
    fallback: Evidence,
) -> (Points, String) {
    let near = |name: &str, at: f64| {
        let values = rows.sites([name]);
        values.iter().map(|v| v.0[0]).min_by(|a, b| (*a as f64 / at).ln().abs().total_cmp(&(*b as f64 / at).ln().abs()))
    };
    let mut evidence = fallback;
    let head_dim = near("head_dim", shape.head_dim).unwrap_or(shape.head_dim as i64);
    let rows = rows.clone().int("head_dim", head_dim);
    let windows: Vec<i64> = rows.sites(["window_size"]).iter().map(|v| v.0[0]).collect();
    // A window that was not measured is full attention with the window's share of pairs.
    let window = if windows.contains(&i64::from(shape.window)) { i64::from(shape.window) } else { 0 };
    if head_dim as f64 != shape.head_dim || window != i64::from(shape.window) {
        evidence = Evidence::Extrapolated;
    }
    let rows = default_source(source, rows.int("window_size", window));
    let measured: Vec<(i64, i64)> =
        rows.sites(["num_heads", "num_key_value_heads"]).iter().map(|s| (s.0[0], s.0[1])).collect();
    let (h, g) = (shape.heads, shape.heads / shape.kv_heads);
    let mut near: Vec<((i64, i64), f64)> = Vec::new();
    if measured.contains(&(shape.heads as i64, shape.kv_heads as i64)) {
        near.push(((shape.heads as i64, shape.kv_heads as i64), 1.0));
    } else {
        // Sites of the nearest grouping (query heads per KV head), then between their head counts.
        let off = |s: &(i64, i64)| ((s.0 as f64 / s.1 as f64) / g).ln().abs();
        let least = measured.iter().map(off).fold(f64::INFINITY, f64::min);
        let mut same: Vec<(i64, i64)> = measured.iter().copied().filter(|s| off(s) <= least + 1e-9).collect();
        same.sort_unstable();
        same.dedup_by_key(|s| s.0);
        if !same.is_empty() {
            let counts: Vec<f64> = same.iter().map(|s| s.0 as f64).collect();
            let (lo, hi, w, e) = bracket(&counts, h);
            evidence = evidence.max(e).max(if least > 1e-9 { Evidence::Extrapolated } else { Evidence::Interpolated });
            near.push((same[lo], 1.0 - w));
            if w > 0.0 {
                near.push((same[hi], w));
            }
        }
    }
    let sites: Vec<Site> = near
        .iter()
        .map(|&((heads, kv_heads), weight)| Site {
            points: rows.clone().int("num_heads", heads).int("num_key_value_heads", kv_heads).points(axes),
            roofline: roof(Shape {
                heads: heads as f64,
                kv_heads: kv_heads as f64,
                head_dim: head_dim as f64,
                window: window as u32,
            }),
            weight,
        })
        .collect();
    (blend(&sites, &roof(shape), evidence), rows.source())
}

/// GQA prefill attention kernel over a past. Axes: sequences, new tokens per sequence, past tokens per sequence.
/// `window` 0: full attention. Heads are those of one TP rank.
pub fn context_attention(
    source: &Source,
    heads: u32,
    kv_heads: u32,
    head_dim: u32,
    window: u32,
    attention: Dtype,
    kv: Dtype,
) -> Result<Surface> {
    let shape = Shape { heads: f64::from(heads), kv_heads: f64::from(kv_heads), head_dim: f64::from(head_dim), window };
    let device = &source.device;
    let roof = |s: Shape| Roofline {
        work: Work::Context(attend(device, s, attention, kv)),
        launch: ATTENTION * device.launch_s,
    };
    let floor = roof(shape);
    let Some(t) = table(source, &source.framework, "context_attention")? else {
        return Ok(Surface::new(Node::Roofline(floor), "roofline (context_attention)", Vec::new()));
    };
    let (rows, kv_rank) = Rows::new(&t).first_text("kv_cache_dtype", &formats(kv));
    let (rows, rank) = rows.first_text("attn_dtype", &formats(attention));
    let fallback = if kv_rank == Some(0) && rank == Some(0) { Evidence::Measured } else { Evidence::Extrapolated };
    let (points, lane) = points(source, &rows, shape, &[("batch_size", 0.0), ("isl", 0.0)], roof, fallback);
    let length = if window == 0 { PARABOLA } else { Scale::Linear };
    let recipe = Recipe { scales: vec![Scale::Linear, length], roofline: floor, floors: Floors::None };
    let kernel = compile(&points, &recipe, &lane);
    let window = if window == 0 { f64::INFINITY } else { f64::from(window) };
    let node = Node::Past { inner: Box::new(kernel.node().clone()), window, floor };
    let node = compile_baked(&bake(&node, &points, &octaves()), length, floor);
    Ok(kernel.with(node, kernel.source()))
}

/// GQA decode attention kernel. Axes: sequences, context tokens.
pub fn generation_attention(
    source: &Source,
    heads: u32,
    kv_heads: u32,
    head_dim: u32,
    window: u32,
    kv: Dtype,
) -> Result<Surface> {
    let shape = Shape { heads: f64::from(heads), kv_heads: f64::from(kv_heads), head_dim: f64::from(head_dim), window };
    let device = &source.device;
    let roof = |s: Shape| Roofline {
        work: Work::Decode(attend(device, s, Dtype::Bf16, kv)),
        launch: ATTENTION * device.launch_s,
    };
    let floor = roof(shape);
    let Some(t) = table(source, &source.framework, "generation_attention")? else {
        return Ok(Surface::new(Node::Roofline(floor), "roofline (generation_attention)", Vec::new()));
    };
    let (rows, rank) = Rows::new(&t).first_text("kv_cache_dtype", &formats(kv));
    let fallback = if rank == Some(0) { Evidence::Measured } else { Evidence::Extrapolated };
    let (points, lane) = points(source, &rows, shape, &[("batch_size", 0.0), ("step", 1.0)], roof, fallback);
    let recipe = Recipe { scales: vec![Scale::Linear, Scale::Linear], roofline: floor, floors: Floors::None };
    Ok(compile(&points, &recipe, &lane))
}
