//! Rows of a table by column, and the blending of lanes measured at other shapes.
//!
//! Limit: blends the nearest measured shapes; beyond the outermost one the utilisation is held.

use std::collections::BTreeMap;

use crate::error::Result;
use crate::kernels::evidence::Evidence;
use crate::kernels::grid::Scale;
use crate::kernels::grid::build::{build, build_held};
use crate::kernels::grid::held::Held;
use crate::kernels::grid::lattice::{Floors, Recipe};
use crate::kernels::grid::points::Points;
use crate::kernels::roofline::Roofline;
use crate::kernels::surface::{Node, Surface};
use crate::kernels::table::{Table, TableKey};

use std::sync::Arc;

use super::Source;

/// Rows of a table that are still in play.
#[derive(Clone)]
pub(super) struct Rows<'a> {
    pub table: &'a Table,
    keep: Vec<u32>,
}

impl<'a> Rows<'a> {
    pub(crate) fn new(table: &'a Table) -> Rows<'a> {
        let n = table.measures.first().map_or(0, |m| m.1.len());
        Rows { table, keep: (0..n as u32).collect() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.keep.is_empty()
    }

    fn key(&self, name: &str) -> Option<&'a TableKey> {
        self.table.keys.iter().find(|k| match k {
            TableKey::Int { name: n, .. } | TableKey::Text { name: n, .. } => n == name,
        })
    }

    /// Rows whose text column is accepted; a table without the column keeps all.
    pub(crate) fn text(mut self, name: &str, accept: impl Fn(&str) -> bool) -> Rows<'a> {
        if let Some(TableKey::Text { codes, labels, .. }) = self.key(name) {
            let good: Vec<bool> = labels.iter().map(|l| accept(l)).collect();
            self.keep.retain(|&i| good[codes[i as usize] as usize]);
        }
        self
    }

    /// Rows of the first of `choices` (each a set of equivalent labels) that has any; its rank, or
    /// `None` when the table has no such column or none of the choices.
    pub(crate) fn first_text(&self, name: &str, choices: &[&[&str]]) -> (Rows<'a>, Option<usize>) {
        for (rank, labels) in choices.iter().enumerate() {
            let rows = self.clone().text(name, |l| labels.contains(&l));
            if !rows.is_empty() {
                return (rows, Some(rank));
            }
        }
        (self.clone(), None)
    }

    /// Rows with that value; a table without the column keeps all.
    pub(crate) fn int(mut self, name: &str, value: i64) -> Rows<'a> {
        if let Some(TableKey::Int { values, .. }) = self.key(name) {
            self.keep.retain(|&i| values[i as usize] == value);
        }
        self
    }

    /// Rows whose values in two columns satisfy a condition (missing columns read as zero).
    pub(crate) fn retain2(mut self, a: &str, b: &str, keep: impl Fn(i64, i64) -> bool) -> Rows<'a> {
        let (a, b) = (self.column(a), self.column(b));
        let at = |c: Option<&[i64]>, i: u32| c.map_or(0, |v| v[i as usize]);
        self.keep.retain(|&i| keep(at(a, i), at(b, i)));
        self
    }

    fn column(&self, name: &str) -> Option<&'a [i64]> {
        match self.key(name) {
            Some(TableKey::Int { values, .. }) => Some(values),
            _ => None,
        }
    }

    /// Distinct values of some columns, sorted, with the number of rows of each.
    pub(crate) fn sites<const N: usize>(&self, names: [&str; N]) -> Vec<([i64; N], usize)> {
        let columns = names.map(|n| self.column(n));
        let mut found: BTreeMap<[i64; N], usize> = BTreeMap::new();
        for &i in &self.keep {
            *found.entry(columns.map(|c| c.map_or(0, |v| v[i as usize]))).or_default() += 1;
        }
        found.into_iter().collect()
    }

    /// Labels of a text column among these rows, most frequent first (ties by name).
    pub(crate) fn labels(&self, name: &str) -> Vec<String> {
        let Some(TableKey::Text { codes, labels, .. }) = self.key(name) else { return Vec::new() };
        let mut count = vec![0usize; labels.len()];
        for &i in &self.keep {
            count[codes[i as usize] as usize] += 1;
        }
        let mut order: Vec<usize> = (0..labels.len()).filter(|&l| count[l] > 0).collect();
        order.sort_by(|&a, &b| count[b].cmp(&count[a]).then(labels[a].cmp(&labels[b])));
        order.into_iter().map(|l| labels[l].clone()).collect()
    }

    /// Points over the named axes; repeated keys (columns that do not matter) give their median.
    /// `shift` is added to each axis' value.
    pub(crate) fn points(&self, axes: &[(&str, f64)]) -> Points {
        let columns: Vec<(Option<&[i64]>, f64)> = axes.iter().map(|(n, s)| (self.column(n), *s)).collect();
        let latency = self
            .table
            .measures
            .iter()
            .find(|m| m.0 == "latency")
            .or_else(|| self.table.measures.first())
            .map_or(&[][..], |m| &m.1[..]);
        let mut found: BTreeMap<[u64; 3], Vec<f64>> = BTreeMap::new();
        for &i in &self.keep {
            let mut x = [0.0; 3];
            for (to, (column, shift)) in x.iter_mut().zip(&columns) {
                *to = column.map_or(0.0, |v| v[i as usize] as f64) + shift;
            }
            found.entry(x.map(f64::to_bits)).or_default().push(f64::from(latency[i as usize]) * 1e-3);
        }
        let mut points = Points::default();
        for (x, mut times) in found {
            times.sort_by(f64::total_cmp);
            let (m, n) = (times.len() / 2, times.len());
            let median = if n % 2 == 1 { times[m] } else { 0.5 * (times[m - 1] + times[m]) };
            points.insert(x.map(f64::from_bits), median, Evidence::Measured);
        }
        points
    }

    /// `sglang 0.5.14 gemm [kernel source]`.
    pub(crate) fn source(&self) -> String {
        format!("{} [{}]", self.table.named(&self.keep), self.labels("kernel_source").join(", "))
    }

    /// Whether any of these rows is an import's.
    pub(crate) fn imports_any(&self) -> bool {
        self.table.imports_any(&self.keep)
    }
}

/// Measured sites (two keys each) around a wanted one, with their weights.
pub(super) type Weighted = Vec<((i64, i64), f64)>;

/// One measured shape taking part in a blend.
pub(super) struct Site {
    pub points: Points,
    pub roofline: Roofline,
    pub weight: f64,
}

/// Points at a shape that was not measured: the ratios to the smooth roofline of the measured shapes,
/// blended in logarithms, times the shape's own roofline. A single site of the same roofline passes
/// through untouched when `evidence` is `Measured`.
pub(super) fn blend(sites: &[Site], target: &Roofline, evidence: Evidence) -> Points {
    if let ([only], Evidence::Measured) = (sites, evidence) {
        return only.points.clone();
    }
    let mut sums: BTreeMap<[u64; 3], (f64, f64, Evidence)> = BTreeMap::new();
    let total: f64 = sites.iter().map(|s| s.weight).sum();
    for site in sites {
        for (x, seconds, e) in site.points.iter() {
            let sum = sums.entry(x.map(f64::to_bits)).or_insert((0.0, 0.0, evidence));
            sum.0 += site.weight * (seconds / site.roofline.smooth(&x)).ln();
            sum.1 += site.weight;
            sum.2 = sum.2.max(e);
        }
    }
    let mut points = Points::default();
    for (x, (sum, weight, e)) in sums {
        // A point that only some of the sites have would make a step; the grid fills it better.
        if weight > 0.75 * total {
            let x = x.map(f64::from_bits);
            points.insert(x, (sum / weight).exp() * target.smooth(&x), e);
        }
    }
    points
}

/// Points of a block at a number of heads: measured, blended between the neighbouring counts, or beyond
/// them by the marginal cost of a head, T(h) = T(h0) + kappa [S(h) - S(h0)] with kappa from the two last
/// counts. (Holding the utilisation instead takes a third off an MLA block whose indexer, latent
/// projections and launches do not shrink with the heads.)
pub(super) fn at_heads(
    rows: &Rows,
    heads: u32,
    axes: &[(&str, f64)],
    roof: impl Fn(f64) -> Roofline,
    fallback: Evidence,
) -> Points {
    let counts: Vec<f64> = rows.sites(["num_heads"]).iter().map(|s| s.0[0] as f64).collect();
    if counts.is_empty() {
        return Points::default();
    }
    let h = f64::from(heads);
    let target = roof(h);
    let fetch = |i: usize| rows.clone().int("num_heads", counts[i] as i64).points(axes);
    let (lo, hi, w, evidence) = bracket(&counts, h);
    if evidence == Evidence::Extrapolated && counts.len() > 1 {
        let next = if lo == 0 { 1 } else { lo - 1 };
        let (near, far) = (fetch(lo), fetch(next));
        let (s0, s1) = (roof(counts[lo]), roof(counts[next]));
        let mut points = Points::default();
        for (x, t, _) in near.iter() {
            let average = t / s0.smooth(&x);
            let ds = s0.smooth(&x) - s1.smooth(&x);
            // Never more than holding the utilisation would change.
            let kappa = far.get(&x).map_or(average, |f| ((t - f) / ds).clamp(0.0, average));
            let seconds = t + kappa * (target.smooth(&x) - s0.smooth(&x));
            points.insert(x, seconds.max(target.least(&x).min(t)), Evidence::Extrapolated);
        }
        return points;
    }
    let sites: Vec<Site> = [(lo, 1.0 - w), (hi, w)]
        .into_iter()
        .filter(|s| s.1 > 0.0)
        .map(|(i, weight)| Site { points: fetch(i), roofline: roof(counts[i]), weight })
        .collect();
    blend(&sites, &target, evidence.max(fallback))
}

/// Whether a time at the smallest size is the host's and not the device's (physics.md section 3).
pub(super) fn is_floor(seconds: f64, least: f64) -> bool {
    seconds > 3.0 * least + 5e-6
}

/// Whether a block's lane was measured in eager mode: at every number of heads its smallest point is a
/// floor. Judged for the lane as a whole, or one rank's share of the heads would lose its floor and another not.
pub(super) fn eager_at_heads(rows: &Rows, axes: &[(&str, f64)], roof: impl Fn(f64) -> Roofline) -> bool {
    rows.sites(["num_heads"]).iter().all(|(h, _)| {
        let points = rows.clone().int("num_heads", h[0]).points(axes);
        points.iter().next().is_some_and(|(x, t, _)| is_floor(t, roof(h[0] as f64).least(&x)))
    })
}

/// Weights of the two neighbours of `at` among sorted `values` on a log axis: indices, weight of the
/// upper, and whether `at` is one of them (Measured), between (Interpolated) or outside (Extrapolated).
pub(super) fn bracket(values: &[f64], at: f64) -> (usize, usize, f64, Evidence) {
    let n = values.len();
    let up = values.partition_point(|&v| v < at);
    if up < n && values[up] == at {
        return (up, up, 0.0, Evidence::Measured);
    }
    if up == 0 {
        return (0, 0, 0.0, Evidence::Extrapolated);
    }
    if up == n {
        return (n - 1, n - 1, 0.0, Evidence::Extrapolated);
    }
    let (a, b) = (values[up - 1], values[up]);
    (up - 1, up, (at / a).ln() / (b / a).ln(), Evidence::Interpolated)
}

/// A surface from points, or from the bare roofline (tagged) when there are none.
pub(super) fn compile(points: &Points, recipe: &Recipe, lane: &str) -> Surface {
    compile_held(points, recipe, lane, None)
}

/// The same; with `held`, a utilisation is held where no row is.
pub(super) fn compile_held(points: &Points, recipe: &Recipe, lane: &str, held: Option<&Held>) -> Surface {
    match build_held(points, recipe, held) {
        Some((grid, dropped)) => {
            let dropped = dropped.into_iter().map(|d| format!("{lane}: {d}")).collect();
            Surface::new(Node::Grid(Arc::new(grid)), lane, dropped)
        }
        None => Surface::new(Node::Roofline(recipe.roofline), format!("roofline ({lane})"), Vec::new()),
    }
}

/// Values of a prefill node at every (sequences, new, past) of a box, so that it can be compiled to one grid:
/// evaluated at once instead of part by part, and kept in order along the past as well.
pub(super) fn bake(node: &Node, points: &Points, pasts: &[f64]) -> Points {
    let axis = |a: usize| {
        let mut v: Vec<f64> = points.iter().map(|p| p.0[a]).collect();
        v.sort_by(f64::total_cmp);
        v.dedup();
        v
    };
    let mut baked = Points::default();
    for &b in &axis(0) {
        for &new in &axis(1) {
            for &past in pasts {
                let r = node.eval(&[b, new, past]);
                baked.insert([b, new, past], r.seconds, r.evidence);
            }
        }
    }
    baked
}

/// Nodes of a past axis that no table has: zero and every octave from 16 tokens to a million.
pub(super) fn octaves() -> Vec<f64> {
    std::iter::once(0.0).chain((4..=20).map(|o| f64::from(1u32 << o))).collect()
}

/// A baked box compiled; the floors are already off and the outliers out.
pub(super) fn compile_baked(points: &Points, length: Scale, roofline: Roofline) -> Node {
    let recipe = Recipe { scales: vec![Scale::Linear, length, Scale::Linear], roofline, floors: Floors::None };
    build(points, &recipe).map_or(Node::Roofline(roofline), |(g, _)| Node::Grid(Arc::new(g)))
}

/// A table of the source's framework; `None` where the pack has none, an error where it is damaged.
pub(super) fn table(source: &Source, framework: &str, name: &str) -> Result<Option<Arc<Table>>> {
    let found = source.db.find(&source.system, framework, name, None)?;
    Ok(found.filter(|t| t.measures.first().is_some_and(|m| !m.1.is_empty())))
}
