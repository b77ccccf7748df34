//! Whole measured blocks of mixers with facts of their own: projections, indexer, attention and output of one layer on one
//! rank (compressed attention, block-sparse attention).
//!
//! Tables name the model that was measured; what decides is its sizes, which are those of its preset. A model of other
//! sizes takes the rows of the nearest, by the ratio of the two rooflines at its own heads, tagged as extrapolated. Heads,
//! formats and eager floors as in `dsa`. Axes: prefill (sequences, new, past), decode (sequences, context).
//!
//! Some lanes measured a past only at a few short lengths and along a diagonal, new + past = L. The line of past L is then
//! made from it, each time moved along the past by the ratio of the rooflines (of few percent where new is small against L):
//! else the box between the shortest pasts and L would rest on one chunk size each. Others measured no past worth the name:
//! its utilisation is held along the past, tagged as extrapolated. A lane of which more than a quarter of the steps to more
//! tokens fall by over a fifth is noise and not used. Limits: rows of a model without a preset are not read.

use std::collections::BTreeMap;

use crate::error::Result;
use crate::kernels::evidence::Evidence;
use crate::kernels::grid::Scale;
use crate::kernels::grid::lattice::{Floors, Recipe};
use crate::kernels::grid::points::Points;
use crate::kernels::roofline::Roofline;
use crate::kernels::surface::{Node, Surface};
use crate::kernels::table::Table;
use crate::spec::{Dtype, Model, catalog};

use super::Source;
use super::attention::formats;
use super::dsa::gemm_types;
use super::rows::{Rows, at_heads, compile, eager_at_heads, table};

/// What makes a block of its kind: sizes, and the work by them.
pub(super) trait Sizes: Copy + PartialEq {
    /// The blocks of this kind that a model has, in layers of which the table holds rows.
    fn of(model: &Model, like: &Self) -> Option<Self>;

    /// The whole block with `heads` of them on a rank.
    fn roofline(&self, source: &Source, heads: f64, gemm: Dtype, kv: Dtype, decode: bool) -> Roofline;
}

/// A block as it is asked for.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a, S> {
    pub source: &'a Source,
    pub table: &'a str,
    pub sizes: S,
    /// On one rank.
    pub heads: u32,
    pub gemm: Dtype,
    pub kv: Dtype,
    pub decode: bool,
}

const CONTEXT: &[(&str, f64)] = &[("batch_size", 0.0), ("isl", 0.0), ("step", 0.0)];
const DECODE: &[(&str, f64)] = &[("batch_size", 0.0), ("step", 0.0)];

impl<S: Sizes> Asked<'_, S> {
    fn roofline(&self, sizes: &S, heads: f64) -> Roofline {
        sizes.roofline(self.source, heads, self.gemm, self.kv, self.decode)
    }

    /// The measured model whose blocks are nearest, and its sizes.
    fn nearest(&self, rows: &Rows) -> Option<(String, S)> {
        let far = |s: &S| {
            let x = [16.0, 1024.0, 0.0];
            let heads = f64::from(self.heads);
            (self.roofline(s, heads).smooth(&x) / self.roofline(&self.sizes, heads).smooth(&x)).ln().abs()
        };
        let sizes = |label: String| {
            let model = catalog::model(&label).ok()?;
            S::of(&model, &self.sizes).map(|s| (label, s))
        };
        let found = rows.labels("model").into_iter().filter_map(sizes);
        let rank = |s: &S| if *s == self.sizes { -1.0 } else { far(s) };
        found.min_by(|a, b| rank(&a.1).total_cmp(&rank(&b.1)).then_with(|| a.0.cmp(&b.0)))
    }

    /// Points at the wanted heads, whether the lane is an eager one, and its name.
    fn points(&self, t: &Table) -> Option<(Points, bool, String)> {
        let axes = if self.decode { DECODE } else { CONTEXT };
        let (label, sizes) = self.nearest(&Rows::new(t))?;
        let rows = Rows::new(t).text("model", |l| l == label);
        let (rows, format) = rows.first_text("kv_cache_dtype", &formats(self.kv));
        let (rows, gemm) = rows.first_text("gemm_type", gemm_types(self.gemm));
        let asked = sizes == self.sizes && format == Some(0) && gemm == Some(0);
        let known = if asked { Evidence::Measured } else { Evidence::Extrapolated };
        let roof = |h: f64| self.roofline(&sizes, h);
        let mut points = at_heads(&rows, self.heads, axes, roof, known);
        let eager = eager_at_heads(&rows, axes, roof);
        if sizes != self.sizes {
            let heads = f64::from(self.heads);
            let (own, with) = (self.roofline(&self.sizes, heads), roof(heads));
            let mut moved = Points::default();
            for (x, seconds, _) in points.iter() {
                moved.insert(x, seconds * own.smooth(&x) / with.smooth(&x), Evidence::Extrapolated);
            }
            points = moved;
        }
        (!points.is_empty()).then(|| (points, eager, rows.source()))
    }
}

/// The block of a rank; `None` where the framework measured none of its kind.
pub(super) fn block<S: Sizes>(asked: Asked<S>) -> Result<Option<Surface>> {
    let t = table(asked.source, &asked.source.framework, asked.table)?;
    let Some((points, eager, lane)) = t.and_then(|t| asked.points(&t)) else { return Ok(None) };
    let roofline = asked.roofline(&asked.sizes, f64::from(asked.heads));
    if is_noise(&points) {
        return Ok(None);
    }
    let axes = if asked.decode { 2 } else { 3 };
    let points = if asked.decode { points } else { with_held_past(with_far_past(points, &roofline), &roofline) };
    let floors = Floors::new(eager, asked.source.graph);
    Ok(Some(compile(&points, &Recipe { scales: vec![Scale::Linear; axes], roofline, floors }, &lane)))
}

/// A block that is no better known than its roofline.
pub(super) fn bare<S: Sizes>(asked: Asked<S>) -> Surface {
    let roofline = asked.roofline(&asked.sizes, f64::from(asked.heads));
    Surface::new(Node::Roofline(roofline), format!("roofline ({} {})", asked.source.framework, asked.table), Vec::new())
}

/// The points, and the line of the longest past where only a diagonal was measured there.
fn with_far_past(mut points: Points, roofline: &Roofline) -> Points {
    let mut totals: Vec<f64> = points.iter().filter(|p| p.0[2] > 0.0).map(|p| p.0[1] + p.0[2]).collect();
    totals.sort_by(f64::total_cmp);
    let Some(end) = totals.last().copied() else { return points };
    let mut news: Vec<f64> = points.iter().map(|p| p.0[1]).collect();
    news.sort_by(f64::total_cmp);
    news.dedup();
    let diagonal: Vec<([f64; 3], f64)> =
        points.iter().filter(|p| p.0[2] > 0.0 && p.0[1] + p.0[2] == end).map(|p| (p.0, p.1)).collect();
    let mut on: Vec<f64> = diagonal.iter().map(|p| p.0[1]).collect();
    on.sort_by(f64::total_cmp);
    on.dedup();
    if 2 * on.len() <= news.len() {
        return points;
    }
    for (x, seconds) in diagonal {
        let to = [x[0], x[1], end];
        if points.get(&to).is_none() {
            points.insert(to, seconds * roofline.smooth(&to) / roofline.smooth(&x), Evidence::Interpolated);
        }
    }
    points
}

/// Pasts that a lane without any is continued to.
const PASTS: [f64; 8] = [1024.0, 4096.0, 16_384.0, 32_768.0, 65_536.0, 131_072.0, 262_144.0, 1_048_576.0];

/// The points, and the lines of longer pasts where the lane has hardly one.
fn with_held_past(mut points: Points, roofline: &Roofline) -> Points {
    let anchor = points.iter().map(|p| p.0[2]).fold(0.0, f64::max);
    if anchor >= PASTS[0] {
        return points;
    }
    let last: Vec<([f64; 3], f64)> = points.iter().filter(|p| p.0[2] == anchor).map(|p| (p.0, p.1)).collect();
    for (x, seconds) in last {
        for past in PASTS {
            let to = [x[0], x[1], past];
            points.insert(to, seconds * roofline.smooth(&to) / roofline.smooth(&x), Evidence::Extrapolated);
        }
    }
    points
}

/// Whether times say nothing: they fall where there is more to do, step after step.
fn is_noise(points: &Points) -> bool {
    // Lines along the tokens: everything else equal.
    let mut lines: BTreeMap<[u64; 2], Vec<(f64, f64)>> = BTreeMap::new();
    for (x, seconds, _) in points.iter() {
        lines.entry([x[0], x[2]].map(f64::to_bits)).or_default().push((x[1], seconds));
    }
    let (mut steps, mut falls) = (0, 0);
    for line in lines.values_mut() {
        line.sort_by(|a, b| a.0.total_cmp(&b.0));
        steps += line.len() - 1;
        falls += line.windows(2).filter(|w| w[1].1 < 0.8 * w[0].1).count();
    }
    4 * falls > steps
}
