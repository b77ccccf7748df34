//! A dense GEMM as other frameworks measured it on the same device, where the framework's own rows carry more than the kernel.
//!
//! One library's product of a format is one kernel, whoever calls it. A lane whose calls with one row take `SUSPECT` times
//! what the fastest other framework's take, in the median over the shapes that both measured, was timed with something
//! around the kernel (trtllm FP8: 12.4 us at the least against 4.6, packing inside the timed call; NVFP4 1.7x; block-scaled
//! FP8 of vllm: 150 us against DeepGEMM's 5, a Triton kernel compiled for no shape). Of such a lane every point takes the
//! least time of all frameworks at that shape, and is tagged as interpolated where it is not its own.
//! Source: the tables themselves, `SUSPECT` between what noise makes (BF16: 0.97 to 1.03 in every pair of frameworks and
//! every system) and the mildest lane that is known to be wrong. Limits: what a user imported is never second-guessed; a
//! framework whose kernel really is that much slower is priced too fast.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::error::Result;
use crate::kernels::KernelDb;
use crate::kernels::evidence::Evidence;
use crate::kernels::grid::points::Points;
use crate::kernels::table::Table;
use crate::recent::Recent;
use crate::spec::Dtype;

use super::Source;
use super::rows::{Rows, table};

/// Median time of one row over that of the fastest other framework from which on a lane is not believed.
const SUSPECT: f64 = 1.5;
const FRAMEWORKS: [&str; 3] = ["trtllm", "sglang", "vllm"];

/// The tables to take the least of, the framework's own first; none: its own rows stand.
pub(super) fn trusted(source: &Source, own: &Table, format: Dtype) -> Result<Vec<Arc<Table>>> {
    let imported = |t: &Table| Rows::new(t).text("gemm_dtype", |l| l == format.name()).imports_any();
    if !source.by_rule || imported(own) {
        return Ok(Vec::new());
    }
    let mut others: Vec<Arc<Table>> = Vec::new();
    for framework in FRAMEWORKS.iter().filter(|f| **f != source.framework) {
        others.extend(table(source, framework, "gemm")?.filter(|t| !imported(t)));
    }
    Ok(if slowness(source, own, &others, format) >= SUSPECT { others } else { Vec::new() })
}

/// Seconds of one row of every shape.
fn of_one_row(t: &Table, format: Dtype) -> BTreeMap<[i64; 2], f64> {
    let rows = Rows::new(t).int("m", 1).text("gemm_dtype", |l| l == format.name());
    rows.points(&[("n", 0.0), ("k", 0.0)]).iter().map(|(x, s, _)| ([x[0] as i64, x[1] as i64], s)).collect()
}

/// What was judged: (database, system, framework, format) and how slow its lane is.
type Judged = (Arc<KernelDb>, String, String, Dtype, f64);

static JUDGED: Recent<Judged> = Recent::new(64);

/// Median of the lane's time of one row over the least of the others', over shapes that both have; 1 without any.
fn slowness(source: &Source, own: &Table, others: &[Arc<Table>], format: Dtype) -> f64 {
    let same =
        |j: &Judged| Arc::ptr_eq(&j.0, &source.db) && j.1 == source.system && j.2 == source.framework && j.3 == format;
    if let Some(known) = JUDGED.find(same) {
        return known.4;
    }
    let mut least: BTreeMap<[i64; 2], f64> = BTreeMap::new();
    for other in others {
        for (shape, s) in of_one_row(other, format) {
            least.entry(shape).and_modify(|l| *l = l.min(s)).or_insert(s);
        }
    }
    let mut ratios: Vec<f64> =
        of_one_row(own, format).iter().filter_map(|(shape, s)| least.get(shape).map(|l| s / l)).collect();
    ratios.sort_by(f64::total_cmp);
    let ratio = ratios.get(ratios.len() / 2).copied().unwrap_or(1.0);
    JUDGED.keep((source.db.clone(), source.system.clone(), source.framework.clone(), format, ratio));
    ratio
}

/// The least of the lane's points and those of the others at one shape. Frameworks differ from row to row, so that the
/// least of them may fall with more rows: fewer can be run as more, and no number of them takes longer than the next.
pub(super) fn least(own: &Points, others: &[Arc<Table>], format: Dtype, [n, k]: [i64; 2]) -> Points {
    if others.is_empty() {
        return own.clone();
    }
    let mut out = own.clone();
    for other in others {
        let rows = Rows::new(other).int("n", n).int("k", k).text("gemm_dtype", |l| l == format.name());
        for (x, seconds, _) in rows.points(&[("m", 0.0)]).iter() {
            if out.get(&x).is_some_and(|s| seconds < s) {
                out.insert(x, seconds, Evidence::Interpolated);
            }
        }
    }
    let mut next = f64::INFINITY;
    let rising: Vec<([f64; 3], f64, Evidence)> = out.iter().collect();
    for (x, seconds, _) in rising.into_iter().rev() {
        if seconds > next {
            out.insert(x, next, Evidence::Interpolated);
        }
        next = next.min(seconds);
    }
    out
}
