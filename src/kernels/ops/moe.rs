//! Expert kernels of the hottest rank. Axis: tokens entering the layer, all ranks together.
//!
//! `num_tokens` is global in every table. Fused tables: by their documentation. Wide-EP tables
//! (sglang `wideep_{context,generation}_moe`, DeepSeek-V3 shape only): the token range of a row group
//! scales with ep (16..16,384 tokens per rank in context, 1..128 in generation), and the marginal time
//! per token falls as 1/ep - b200 uniform context 0.171, 0.087, 0.026, 0.016 us per token at ep 2, 4,
//! 16, 32, which is 2.1 PFLOP/s on tokens x 8 / ep rows; were the count per rank, the marginal time
//! would not depend on ep. trtllm `wideep_moe` has dp_num_tokens = num_tokens / ep beside it.
//!
//! A row already is the hottest rank of its load distribution: no imbalance factor is applied.
//! The fullest rank holds ceil(E/ep) experts; an ep that was not measured is blended between the
//! measured neighbours in log(local experts) at equal tokens (so at equal tokens per expert), as ratio
//! to the smooth roofline of the local experts. MoE-TP not measured: utilisation of the nearest held.
//! Lanes: of few tokens the framework's own (`kernels` of `serving/defaults.json`); kernels of experts without a gate only for
//! such experts.
//!
//! Limit: distributions that were measured (balanced, power laws); the hottest rank of another load lies between them.

use crate::error::{Error, Result};
use crate::kernels::evidence::Evidence;
use crate::kernels::grid::Scale;
use crate::kernels::grid::lattice::{Floors, Recipe};
use crate::kernels::grid::points::Points;
use crate::kernels::roofline::{self, Roofline, Work};
use crate::kernels::surface::Surface;
use crate::kernels::table::Table;
use crate::spec::servers;
use crate::spec::{Device, Dtype};

use super::rows::{Rows, Site, Weighted, blend, bracket, compile, is_floor, table};
use super::{ExpertShape, Source};

fn formats(dtype: Dtype) -> &'static [Dtype] {
    match dtype {
        Dtype::Bf16 => &[Dtype::Bf16],
        Dtype::Fp8 => &[Dtype::Fp8, Dtype::Fp8Block, Dtype::Bf16],
        Dtype::Fp8Block => &[Dtype::Fp8Block, Dtype::Fp8, Dtype::Bf16],
        Dtype::Nvfp4 => &[Dtype::Nvfp4, Dtype::W4a8Mxfp4Mxfp8, Dtype::Fp8Block, Dtype::Bf16],
        Dtype::Int4Wo => &[Dtype::Int4Wo, Dtype::W4a16Mxfp4, Dtype::Bf16],
        Dtype::W4a16Mxfp4 => &[Dtype::W4a16Mxfp4, Dtype::Int4Wo, Dtype::W4a8Mxfp4Mxfp8, Dtype::Bf16],
        Dtype::W4a16Nvfp4 => &[Dtype::W4a16Nvfp4, Dtype::W4a16Mxfp4, Dtype::Int4Wo, Dtype::Bf16],
        Dtype::W4a8Mxfp4Mxfp8 => &[Dtype::W4a8Mxfp4Mxfp8, Dtype::W4a16Mxfp4, Dtype::Nvfp4, Dtype::Bf16],
    }
}

/// Experts on the fullest rank; an ep beyond the number of experts leaves one.
fn local(experts: i64, ep: i64) -> f64 {
    (experts as f64 / ep.max(1) as f64).ceil().max(1.0)
}

fn roof(device: &Device, dtype: Dtype, s: &[i64; 4], gated: bool, tp: i64, ep: i64) -> Roofline {
    let [hidden, inter, topk, experts] = *s;
    roofline::experts(
        device,
        dtype,
        [hidden as f64, inter as f64 / tp.max(1) as f64],
        gated,
        experts as f64,
        local(experts, ep),
        topk as f64,
    )
}

/// Points of one (moe_tp, ep) site: one kernel source, or the two that share the token axis.
fn site_points(source: &Source, rows: &Rows) -> Points {
    let axis = [("num_tokens", 0.0)];
    let Some((lane, most)) = servers::few_tokens_kernel(&source.framework, source.device.sm) else {
        return main_source(rows).points(&axis);
    };
    let fast = rows.clone().text("kernel_source", |l| l.contains(lane));
    let rest = rows.clone().text("kernel_source", |l| !l.contains(lane));
    let has_source = !rows.labels("kernel_source").is_empty();
    if !has_source || fast.is_empty() {
        return main_source(&rest).points(&axis);
    }
    if rest.is_empty() {
        return fast.points(&axis);
    }
    let mut points = main_source(&rest).points(&axis).filter(|x| x[0] > most);
    for (x, t, e) in fast.points(&axis).filter(|x| x[0] <= most).iter() {
        points.insert(x, t, e);
    }
    points
}

/// The source that covers most of the rows, where several measured the same ones.
fn main_source<'a>(rows: &Rows<'a>) -> Rows<'a> {
    let labels = rows.labels("kernel_source");
    match labels.first() {
        Some(most) if labels.len() > 1 => {
            let all = rows.points(&[("num_tokens", 0.0)]).len();
            let one = rows.clone().text("kernel_source", |l| l == most);
            // Sources that split the token axis between them are one lane.
            if one.points(&[("num_tokens", 0.0)]).len() == all { one } else { rows.clone() }
        }
        _ => rows.clone(),
    }
}

/// Measured sites around (tp, ep) with weights.
fn sites(measured: &[(i64, i64)], experts: i64, tp: i64, ep: i64) -> (Weighted, Evidence) {
    if measured.contains(&(tp, ep)) {
        return (vec![((tp, ep), 1.0)], Evidence::Measured);
    }
    let want = local(experts, ep);
    // The nearest MoE-TP whose expert counts reach the wanted one.
    let mut best: Option<(f64, i64)> = None;
    for &(t, _) in measured {
        let locals = measured.iter().filter(|s| s.0 == t).map(|s| local(experts, s.1));
        let (lo, hi) = locals.fold((f64::INFINITY, 0.0f64), |(l, h), v| (l.min(v), h.max(v)));
        let cost = (t as f64 / tp as f64).ln().abs() + (lo / want).ln().max(0.0) + (want / hi).ln().max(0.0);
        if best.is_none_or(|b| cost < b.0 - 1e-12) {
            best = Some((cost, t));
        }
    }
    let Some((_, t)) = best else { return (Vec::new(), Evidence::Roofline) };
    let mut eps: Vec<(f64, i64)> = measured.iter().filter(|s| s.0 == t).map(|s| (local(experts, s.1), s.1)).collect();
    // Of two eps with the same fullest rank, the one nearer to the wanted ep stands for it.
    eps.sort_by(|a, b| a.0.total_cmp(&b.0).then((a.1 - ep).abs().cmp(&(b.1 - ep).abs())));
    eps.dedup_by_key(|s| s.0);
    let locals: Vec<f64> = eps.iter().map(|s| s.0).collect();
    let (lo, hi, w, evidence) = bracket(&locals, want);
    let mut near = vec![((t, eps[lo].1), 1.0 - w)];
    if w > 0.0 {
        near.push(((t, eps[hi].1), w));
    }
    let evidence = if t == tp { evidence.max(Evidence::Interpolated) } else { Evidence::Extrapolated };
    (near, evidence)
}

/// `gated`: whether the rows are of experts with a gate.
fn curve(
    source: &Source,
    rows: &Rows,
    shape: ExpertShape,
    dtype: Dtype,
    format: Dtype,
    fallback: Evidence,
    gated: bool,
) -> (Points, Roofline, String) {
    let device = &source.device;
    let want = [shape.hidden, shape.intermediate, shape.topk, shape.experts].map(i64::from);
    let (tp, ep) = (i64::from(shape.moe_tp.max(1)), i64::from(shape.ep.max(1)));
    let target = roof(device, dtype, &want, shape.gated, tp, ep);
    let columns = SHAPE;
    let shapes = rows.sites(columns);
    let distance = |s: &[i64; 4]| {
        let d = |i: usize| (s[i] as f64 / want[i] as f64).ln().powi(2);
        d(0) + d(1) + 2.0 * d(2) + 2.0 * d(3)
    };
    let Some(&(used, _)) = shapes.iter().min_by(|a, b| distance(&a.0).total_cmp(&distance(&b.0))) else {
        return (Points::default(), target, rows.source());
    };
    let mut rows = rows.clone();
    for (column, value) in columns.iter().zip(used) {
        rows = rows.int(column, value);
    }
    let measured: Vec<(i64, i64)> =
        rows.sites(["moe_tp_size", "moe_ep_size"]).iter().map(|s| (s.0[0], s.0[1])).collect();
    // At another number of experts the fullest rank's share is what carries over.
    let near_ep = if used[3] == want[3] { ep } else { (ep * used[3] / want[3]).max(1) };
    let (near, evidence) = sites(&measured, used[3], tp, near_ep);
    let fallback = if used == want && gated == shape.gated { fallback } else { Evidence::Extrapolated };
    let blended: Vec<Site> = near
        .iter()
        .map(|&((t, e), weight)| Site {
            points: site_points(source, &rows.clone().int("moe_tp_size", t).int("moe_ep_size", e)),
            roofline: roof(device, format, &used, gated, t, e),
            weight,
        })
        .collect();
    let lane = rows.retain2("moe_tp_size", "moe_ep_size", |t, e| near.iter().any(|n| n.0 == (t, e)));
    (blend(&blended, &target, evidence.max(fallback)), target, lane.source())
}

/// The floor of a hot rank is judged against a roofline that reads every expert its tokens can pick: a
/// skewed token may send all of its copies to one rank.
fn recipe(source: &Source, points: &Points, roofline: Roofline) -> Recipe {
    let eager = points.iter().next().is_some_and(|(x, t, _)| match roofline.work {
        Work::Experts(e) => is_floor(t, roofline.launch + e.local.min(x[0] * e.topk) * e.expert_memory),
        _ => false,
    });
    Recipe { scales: vec![Scale::Linear], roofline, floors: Floors::new(eager, source.graph) }
}

/// Distributions to try: the wanted one, its other names, then the skewed ones.
fn distributions(name: &str) -> Vec<Vec<&str>> {
    let even = EVEN.contains(&name);
    let mut order = vec![if even { EVEN.to_vec() } else { vec![name] }];
    if even {
        // Skewed experts evened out by moving them are nearest to a balanced load.
        order.push(vec![EVENED]);
    }
    for other in [SKEWED, "power_law_1.2"] {
        if other != name {
            order.push(vec![other]);
        }
    }
    if !even {
        order.push(EVEN.to_vec());
    }
    order
}

/// Names of a balanced load; the skewed load that most models have; the same after moving experts about.
const EVEN: [&str; 2] = ["balanced", "uniform"];
const SKEWED: &str = "power_law_1.01";
const EVENED: &str = "power_law_1.01_eplb";

fn pick<'a>(rows: Rows<'a>, distribution: &str) -> (Rows<'a>, Evidence) {
    let order = distributions(distribution);
    let order: Vec<&[&str]> = order.iter().map(Vec::as_slice).collect();
    let (rows, rank) = rows.first_text("distribution", &order);
    (rows, if rank == Some(0) { Evidence::Measured } else { Evidence::Extrapolated })
}

/// Tokens from which on two load distributions are compared: below it a rank's experts are few and chance decides.
pub(crate) const COMPARED_TOKENS: f64 = 1024.0;
/// A balanced load slower than a skewed one by more than this was not measured as one.
pub(crate) const BALANCED_EXCESS: f64 = 1.1;

/// Median of time over time at the points two lanes share, from `COMPARED_TOKENS` on.
fn median_ratio(a: &Points, b: &Points) -> Option<f64> {
    let mut ratios: Vec<f64> =
        a.iter().filter(|(x, ..)| x[0] >= COMPARED_TOKENS).filter_map(|(x, t, _)| b.get(&x).map(|u| t / u)).collect();
    ratios.sort_by(f64::total_cmp);
    ratios.get(ratios.len().saturating_sub(1) / 2).copied()
}

/// Fused MoE kernel of the hottest rank. Axis: tokens entering the layer (all ranks together).
pub fn moe(source: &Source, shape: ExpertShape, dtype: Dtype, distribution: &str) -> Result<Surface> {
    fused(source, shape, dtype, distribution, None)
}

/// The same as serving prices it, with attention data parallelism or without: the kernel that its servers are set up with
/// for the layout (`experts` of `serving/defaults.json`), from the rows of another framework where its own has none. A balanced lane that is slower than the skewed one of its own table
/// (sglang and vllm from ep 2 on: up to 2.5x, where trtllm's is 0.3x to 0.9x) is no balanced load, and the
/// skewed rows, an upper bound of it, stand in, tagged extrapolated.
pub fn served_moe(
    source: &Source,
    shape: ExpertShape,
    dtype: Dtype,
    distribution: &str,
    served: &Served,
) -> Result<Surface> {
    if let (Some(kernel), true) = (served.kernel, source.by_rule) {
        let found = named(source, shape, dtype, distribution, kernel)?;
        return found.map_or_else(|| Err(no_kernel(source, shape, dtype, kernel)?), |lane| Ok(surface(source, lane)));
    }
    fused(source, shape, dtype, distribution, Some(served))
}

/// How experts are served: what chooses among kernels that were all measured.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Served<'a> {
    /// Whether ranks of attention data parallelism bring the tokens.
    pub attention_dp: bool,
    /// Whether dispatch, experts and combine are one kernel.
    pub fused_dispatch: bool,
    /// Part of the name of the kernel asked for.
    pub kernel: Option<&'a str>,
}

fn surface(source: &Source, (points, target, lane): ExpertLane) -> Surface {
    compile(&points, &recipe(source, &points, target), &lane)
}

/// Rows at the very shape and format.
fn at_shape<'t>(t: &'t Table, shape: ExpertShape, dtype: Dtype) -> Rows<'t> {
    let want = [shape.hidden, shape.intermediate, shape.topk, shape.experts].map(i64::from);
    let rows = SHAPE.iter().zip(want).fold(Rows::new(t), |rows, (column, value)| rows.int(column, value));
    rows.text("moe_dtype", |l| l == dtype.name()).text("kernel_source", |l| l.contains("nongated") != shape.gated)
}

/// The kernel of that name in the framework's own table.
fn named(
    source: &Source,
    shape: ExpertShape,
    dtype: Dtype,
    distribution: &str,
    kernel: &str,
) -> Result<Option<ExpertLane>> {
    let Some(t) = table(source, &source.framework, "moe")? else { return Ok(None) };
    let (rows, known) = pick(at_shape(&t, shape, dtype).text("kernel_source", |l| l.contains(kernel)), distribution);
    Ok((!rows.is_empty()).then(|| curve(source, &rows, shape, dtype, dtype, known, shape.gated)))
}

fn no_kernel(source: &Source, shape: ExpertShape, dtype: Dtype, kernel: &str) -> Result<Error> {
    let labels = table(source, &source.framework, "moe")?.map(|t| at_shape(&t, shape, dtype).labels("kernel_source"));
    let known = labels.unwrap_or_default();
    let text = format!("{} has no rows of '{kernel}' for these experts in {}", source.framework, dtype.name());
    let hint = if known.is_empty() { "leave it out".to_string() } else { format!("one of {}", known.join(", ")) };
    Ok(Error::spec("serving.expert_kernel", text, hint))
}

const SHAPE: [&str; 4] = ["hidden_size", "inter_size", "topk", "num_experts"];

/// The lane that servers take for a layout, where it was measured at the very shape and format; an imported table of the
/// framework's own stands instead.
fn by_layout(
    source: &Source,
    shape: ExpertShape,
    dtype: Dtype,
    distribution: &str,
    served: &Served,
) -> Result<Option<ExpertLane>> {
    let rule = |fused| {
        servers::expert_rule(&source.framework, source.device.sm, dtype, served.attention_dp, fused)
            .filter(|_| source.by_rule)
    };
    // Where nothing is known of the fused kernel, that of the layout.
    let Some(rule) = rule(served.fused_dispatch).or_else(|| rule(false)) else { return Ok(None) };
    if table(source, &source.framework, "moe")?.is_some_and(|t| at_shape(&t, shape, dtype).imports_any()) {
        return Ok(None);
    }
    let own = [source.framework.clone()];
    let of: &[String] = if rule.of.is_empty() { &own } else { &rule.of };
    for framework in of {
        let Some(t) = table(source, framework, "moe")? else { continue };
        let rows = at_shape(&t, shape, dtype).text("kernel_source", |l| l.contains(&rule.lane));
        let (rows, skew) = pick(rows, distribution);
        let known = if rule.of.is_empty() { skew } else { skew.max(Evidence::Interpolated) };
        if !rows.is_empty() {
            return Ok(Some(curve(source, &rows, shape, dtype, dtype, known, shape.gated)));
        }
    }
    Ok(None)
}

/// Points of a lane, its roofline and where it is from.
type ExpertLane = (Points, Roofline, String);

/// `layout`: as serving prices it, with attention data parallelism or without.
fn fused(
    source: &Source,
    shape: ExpertShape,
    dtype: Dtype,
    distribution: &str,
    layout: Option<&Served>,
) -> Result<Surface> {
    let want = [shape.hidden, shape.intermediate, shape.topk, shape.experts].map(i64::from);
    let judge = layout.is_some();
    let mut best = match layout {
        Some(served) => by_layout(source, shape, dtype, distribution, served)?,
        None => None,
    };
    if best.is_none()
        && let Some(t) = table(source, &source.framework, "moe")?
    {
        // The right shape in another format is nearer than another shape in the right format.
        // Experts without a gate have kernels of their own; where none was measured, those with one are nearest.
        let kinds: &[bool] = if shape.gated { &[true] } else { &[false, true] };
        for (exact, gated) in [true, false].into_iter().flat_map(|e| kinds.iter().map(move |k| (e, *k))) {
            if best.is_some() {
                break;
            }
            // Numbers first: they leave few of a large table.
            let mut all = Rows::new(&t);
            if exact {
                for (column, value) in SHAPE.iter().zip(want) {
                    all = all.int(column, value);
                }
            }
            let all = all.text("kernel_source", |l| l.contains("nongated") != gated);
            for (rank, &format) in formats(dtype).iter().enumerate() {
                if best.is_some() {
                    break;
                }
                let rows = all.clone().text("moe_dtype", |l| l == format.name());
                if rows.is_empty() {
                    continue;
                }
                let (own, skew) = pick(rows.clone(), distribution);
                let fallback = if rank == 0 { skew } else { Evidence::Extrapolated };
                let asked = curve(source, &own, shape, dtype, format, fallback, gated);
                best = Some(asked);
                if judge && EVEN.contains(&distribution) && skew == Evidence::Measured {
                    let (skewed, _) = pick(rows, SKEWED);
                    let other = curve(source, &skewed, shape, dtype, format, Evidence::Extrapolated, gated);
                    best = best.map(|asked| match median_ratio(&asked.0, &other.0) {
                        Some(r) if r > BALANCED_EXCESS => {
                            let lane = format!("{} for balanced rows {r:.1}x slower", other.2);
                            (other.0, other.1, lane)
                        }
                        _ => asked,
                    });
                }
            }
        }
    }
    let (points, target, lane) = best.unwrap_or_else(|| {
        let (tp, ep) = (i64::from(shape.moe_tp.max(1)), i64::from(shape.ep.max(1)));
        let target = roof(&source.device, dtype, &want, shape.gated, tp, ep);
        (Points::default(), target, format!("{} moe", source.framework))
    });
    Ok(compile(&points, &recipe(source, &points, target), &lane))
}

/// Grouped wide-EP kernel (DeepEP layout); `None` where no such table exists for the shape. Axis as `moe`.
///
/// The rows are those of one expert size (7168 x 2048, top 8). Another number of experts of that size
/// (Kimi-K2) goes through tokens and experts per rank, and a framework without a table of its own in the
/// format takes sglang's, whose kernels it shares, or trtllm's (NVFP4); both are tagged extrapolated. Where
/// no balanced load was measured, skewed experts moved about (EPLB, no slot more) stand in.
pub fn grouped_moe(
    source: &Source,
    shape: ExpertShape,
    dtype: Dtype,
    distribution: &str,
    decode: bool,
) -> Result<Option<Surface>> {
    if shape.moe_tp > 1 || !shape.gated {
        return Ok(None);
    }
    let of = |format, all| grouped_of(source, shape, format, dtype, distribution, decode, all);
    // Half the bytes and twice the arithmetic of the FP8 kernel of the same layout. Another framework's NVFP4 kernel of
    // another layout, which would stand in else, takes 1.8 times as long as that FP8 kernel at 128 tokens a GPU and 4.3
    // times at 1,408 (permutations of 58 to 90 us in every call).
    let wider = source.by_rule && dtype == Dtype::Nvfp4 && source.framework != "trtllm";
    match of(dtype, !wider)? {
        None if wider => of(Dtype::Fp8Block, false)?.map_or_else(|| of(dtype, true), |s| Ok(Some(s))),
        found => Ok(found),
    }
}

/// Grouped rows in `format`, for experts in `dtype`. `all`: those of trtllm may stand in.
fn grouped_of(
    source: &Source,
    shape: ExpertShape,
    format: Dtype,
    dtype: Dtype,
    distribution: &str,
    decode: bool,
    all: bool,
) -> Result<Option<Surface>> {
    let (eplb, even) = (distribution.ends_with("_eplb"), EVEN.contains(&distribution));
    let sglang = if decode { "wideep_generation_moe" } else { "wideep_context_moe" };
    let own = if source.framework == "trtllm" { "wideep_moe" } else { sglang };
    // The framework's own kernel and sglang's at another number of experts before trtllm's at the right one.
    let shared = [(source.framework.as_str(), own), ("sglang", sglang)];
    let order = [true, false].into_iter().flat_map(|exact| shared.map(|lane| (exact, lane)));
    let last = [true, false].map(|exact| (exact, ("trtllm", "wideep_moe"))).into_iter().filter(|_| all);
    for (experts, (framework, name)) in order.chain(last) {
        let Some(t) = table(source, framework, name)? else { continue };
        let mut rows = Rows::new(&t)
            .text("moe_dtype", |l| l == format.name() || (format == Dtype::Fp8 && l == "fp8_block"))
            .text("op_name", |l| (l.ends_with("_eplb") == eplb) || (even && l.ends_with("_eplb")))
            .int("hidden_size", i64::from(shape.hidden))
            .int("inter_size", i64::from(shape.intermediate))
            .int("topk", i64::from(shape.topk));
        if experts {
            rows = rows.int("num_experts", i64::from(shape.experts));
        }
        // No slot beyond the experts (a table without the column has none).
        rows = rows.retain2("num_slots", "num_experts", |slots, experts| slots == 0 || slots == experts);
        if rows.is_empty() {
            continue;
        }
        let (rows, skew) = pick(rows, distribution);
        let lent = !experts || framework != source.framework || format != dtype;
        let fallback = if lent { Evidence::Extrapolated } else { skew };
        let (points, target, lane) = curve(source, &rows, shape, dtype, format, fallback, true);
        if name == "wideep_moe" {
            // 58-90 us at every number of experts down to one: permutation kernels, not the host.
            let recipe = Recipe { scales: vec![Scale::Linear], roofline: target, floors: Floors::None };
            return Ok(Some(compile(&points, &recipe, &lane)));
        }
        return Ok(Some(compile(&points, &recipe(source, &points, target), &lane)));
    }
    Ok(None)
}
