//! Dense GEMMs. A lane that others contradict takes their rows (`peers`). Axis: m. Sites: (n, k); between sites the utilisation is blended on log axes, outside it is held.
//!
//! Limit: no epilogues and no batched products; weight-only formats have no rows and follow BF16 by roofline.

use crate::error::Result;
use crate::kernels::evidence::Evidence;
use crate::kernels::grid::Scale;
use crate::kernels::grid::lattice::{Floors, Recipe};
use crate::kernels::grid::points::Points;
use crate::kernels::roofline;
use crate::kernels::surface::Surface;
use crate::spec::Dtype;

use super::Source;
use super::peers;
use super::rows::{Rows, Site, Weighted, blend, bracket, compile, is_floor, table};

/// Formats to try, nearest first. Weight-only formats have no dense GEMM rows; BF16 ones are scaled by roofline.
fn formats(dtype: Dtype) -> &'static [Dtype] {
    match dtype {
        Dtype::Bf16 => &[Dtype::Bf16],
        Dtype::Fp8 => &[Dtype::Fp8, Dtype::Fp8Block, Dtype::Bf16],
        Dtype::Fp8Block => &[Dtype::Fp8Block, Dtype::Fp8, Dtype::Bf16],
        Dtype::Nvfp4 => &[Dtype::Nvfp4, Dtype::Fp8Block, Dtype::Fp8, Dtype::Bf16],
        Dtype::Int4Wo | Dtype::W4a16Mxfp4 | Dtype::W4a16Nvfp4 => &[Dtype::Bf16],
        Dtype::W4a8Mxfp4Mxfp8 => &[Dtype::Fp8, Dtype::Fp8Block, Dtype::Bf16],
    }
}

/// Points of the (n, k) curve (none when the pack has no GEMM table), how to compile them, and their lane.
pub(super) fn points(source: &Source, dtype: Dtype, n: u32, k: u32) -> Result<(Points, Recipe, String)> {
    let device = &source.device;
    let target = roofline::gemm(device, dtype, f64::from(n), f64::from(k));
    let recipe = |floors| Recipe { scales: vec![Scale::Linear], roofline: target, floors };
    let Some(t) = table(source, &source.framework, "gemm")? else {
        return Ok((Points::default(), recipe(Floors::None), format!("{} gemm", source.framework)));
    };
    let all = Rows::new(&t);
    for (rank, &format) in formats(dtype).iter().enumerate() {
        let rows = all.clone().text("gemm_dtype", |l| l == format.name());
        if rows.is_empty() {
            continue;
        }
        let fallback = if rank == 0 { Evidence::Measured } else { Evidence::Extrapolated };
        let measured = rows.sites(["n", "k"]);
        let (near, evidence) = corners(&measured, f64::from(n), f64::from(k));
        let others = peers::trusted(source, &t, format)?;
        let sites: Vec<Site> = near
            .iter()
            .map(|&((sn, sk), weight)| {
                let own = rows.clone().retain2("n", "k", |a, b| a == sn && b == sk).points(&[("m", 0.0)]);
                let points = peers::least(&own, &others, format, [sn, sk]);
                Site { points, roofline: roofline::gemm(device, format, sn as f64, sk as f64), weight }
            })
            .collect();
        let points = blend(&sites, &target, evidence.max(fallback));
        let used = rows.clone().retain2("n", "k", |a, b| near.iter().any(|s| s.0 == (a, b)));
        if others.is_empty() {
            let floors = Floors::new(eager(source, &rows, &measured, format), source.graph);
            return Ok((points, recipe(floors), used.source()));
        }
        let names: Vec<&str> = others.iter().map(|t| t.framework.as_str()).collect();
        let lane = format!("{}, and where less those of {}", used.source(), names.join(" and "));
        return Ok((points, recipe(Floors::None), lane));
    }
    Ok((Points::default(), recipe(Floors::None), format!("{} gemm {}", source.framework, dtype.name())))
}

/// The measured sites around (n, k) with their weights: up to four corners of the cell, else the nearest.
fn corners(sites: &[([i64; 2], usize)], n: f64, k: f64) -> (Weighted, Evidence) {
    // A site with a handful of rows is a failed measurement.
    let most = sites.iter().map(|s| s.1).max().unwrap_or(0);
    let sites: Vec<(i64, i64)> = sites.iter().filter(|s| 2 * s.1 > most).map(|s| (s.0[0], s.0[1])).collect();
    let axis = |pick: fn(&(i64, i64)) -> i64| {
        let mut v: Vec<f64> = sites.iter().map(|s| pick(s) as f64).collect();
        v.sort_by(f64::total_cmp);
        v.dedup();
        v
    };
    let (ns, ks) = (axis(|s| s.0), axis(|s| s.1));
    let (n0, n1, wn, en) = bracket(&ns, n);
    let (k0, k1, wk, ek) = bracket(&ks, k);
    let mut near: Weighted = Vec::new();
    for (ni, wn) in [(n0, 1.0 - wn), (n1, wn)] {
        for (ki, wk) in [(k0, 1.0 - wk), (k1, wk)] {
            let site = (ns[ni] as i64, ks[ki] as i64);
            if wn * wk > 0.0 && sites.binary_search(&site).is_ok() {
                near.push((site, wn * wk));
            }
        }
    }
    if !near.is_empty() {
        return (near, en.max(ek));
    }
    // The site itself is missing from the cross of its row and column: both directions, half each.
    let mut along = |fixed_n: bool| {
        let line: Vec<f64> = sites
            .iter()
            .filter(|s| if fixed_n { s.0 as f64 == ns[n0] } else { s.1 as f64 == ks[k0] })
            .map(|s| if fixed_n { s.1 } else { s.0 } as f64)
            .collect();
        if line.is_empty() {
            return;
        }
        let (lo, hi, w, e) = bracket(&line, if fixed_n { k } else { n });
        for (i, w) in [(lo, 1.0 - w), (hi, w)] {
            if w > 0.0 && e == Evidence::Interpolated {
                near.push((
                    if fixed_n { (ns[n0] as i64, line[i] as i64) } else { (line[i] as i64, ks[k0] as i64) },
                    0.5 * w,
                ));
            }
        }
    };
    along(true);
    along(false);
    if !near.is_empty() {
        return (near, Evidence::Interpolated.max(en).max(ek));
    }
    let distance = |s: &(i64, i64)| (s.0 as f64 / n).ln().powi(2) + (s.1 as f64 / k).ln().powi(2);
    let nearest = sites.iter().min_by(|a, b| distance(a).total_cmp(&distance(b)));
    (nearest.map(|&s| (s, 1.0)).into_iter().collect(), Evidence::Extrapolated)
}

/// Whether the lane was measured in eager mode: its smallest GEMM, which has next to nothing to do, stands
/// over 3x + 5 us above its roofline. (A long thin GEMM may be as slow for want of parallelism, in a graph as well.)
fn eager(source: &Source, rows: &Rows, sites: &[([i64; 2], usize)], format: Dtype) -> bool {
    let Some(&([n, k], _)) = sites.iter().min_by_key(|s| s.0[0] * s.0[1]) else { return false };
    let points = rows.clone().retain2("n", "k", |a, b| (a, b) == (n, k)).points(&[("m", 0.0)]);
    let roofline = roofline::gemm(&source.device, format, n as f64, k as f64);
    points.iter().next().is_some_and(|(x, t, _)| is_floor(t, roofline.least(&x)))
}

/// Dense GEMM (m, k) x (k, n). Axis: m (rows = tokens).
pub fn gemm(source: &Source, dtype: Dtype, n: u32, k: u32) -> Result<Surface> {
    let (points, recipe, lane) = points(source, dtype, n, k)?;
    Ok(compile(&points, &recipe, &lane))
}
