//! Which layouts, batches and pool sizes are worth a price: everything the model and the budget
//! allow on the grids stated here, counted once.

use crate::cost::Library;
use crate::search::Layout;
use crate::spec::{Attention, Dtype, Model, Parallel};

/// Worker sizes: powers of two, the budget itself, and its divisors by small factors (a 72-GPU
/// rack divides into 36, 24, 18, 12, 9).
pub fn worker_sizes(budget: u32) -> Vec<u32> {
    let mut sizes: Vec<u32> = (0..=12).map(|i| 1u32 << i).filter(|g| *g <= budget).collect();
    for d in [1, 2, 3, 4, 6, 8] {
        if budget.is_multiple_of(d) {
            sizes.push(budget / d);
        }
    }
    sizes.sort_unstable();
    sizes.dedup();
    sizes
}

/// Head-parallel widths the model's attention divides into.
pub fn tensor_widths(model: &Model, most: u32) -> Vec<u32> {
    [1, 2, 4, 8, 16].into_iter().filter(|tp| *tp <= most && model.attention.heads().is_multiple_of(*tp)).collect()
}

/// Splits of one expert's width that its format allows (whole blocks: `spec::blocks`).
pub fn moe_widths(model: &Model, moe: Dtype, gpus: u32) -> Vec<u32> {
    let Some(m) = &model.moe else { return vec![1] };
    [1, 2, 4, 8].into_iter().filter(|t| gpus.is_multiple_of(*t) && moe.cuts(m.intermediate, *t)).collect()
}

/// Layouts of workers up to `budget` GPUs. `prefill` adds context parallelism.
pub fn workers(lib: &Library, budget: u32, prefill: bool) -> Vec<Parallel> {
    let model = &lib.model;
    let experts = model.moe.as_ref().map_or(1, |m| m.experts);
    let domain = lib.cluster.fabric.domain_gpus;
    let mut out = Vec::new();
    let cps: &[u32] = if prefill { &[1, 2, 4, 8] } else { &[1] };
    for g in worker_sizes(budget) {
        for pp in [1, 2, 4] {
            if !g.is_multiple_of(pp) || pp > model.layers {
                continue;
            }
            let stage = g / pp;
            for tp in tensor_widths(model, stage.min(domain)) {
                for &cp in cps {
                    if !stage.is_multiple_of(tp * cp) {
                        continue;
                    }
                    let dp = stage / (tp * cp);
                    for moe_tp in moe_widths(model, lib.formats.moe, stage) {
                        let ep = stage / moe_tp;
                        if model.moe.is_some() && ep > experts || model.moe.is_none() && (moe_tp > 1 || dp * cp > 1) {
                            continue;
                        }
                        out.push(Parallel { tp, dp, pp, cp, ep: model.moe.as_ref().map(|_| ep), moe_tp });
                    }
                }
            }
        }
    }
    out
}

/// AFD unit sizes: those of workers, three quarters of the powers of two, and seven nodes.
fn unit_sizes(budget: u32) -> Vec<u32> {
    let mut sizes = worker_sizes(budget);
    sizes.extend([3, 6, 12, 24, 48, 56, 96].into_iter().filter(|g| *g <= budget));
    sizes.retain(|g| *g >= 2);
    sizes.sort_unstable();
    sizes.dedup();
    sizes
}

/// Attention shares of a unit: small counts, powers of two, sevenths and eighths, and mirrored FFN sizes.
fn attention_shares(unit: u32) -> Vec<u32> {
    let mut a: Vec<u32> = vec![1, 2, 3, 4, 6, 8, 12, 16, 24, 28, 32, 48, 64, 80, 96, 112];
    a.extend([unit / 8, unit / 4, unit / 3, unit / 2, 2 * unit / 3, 3 * unit / 4, 7 * unit / 8]);
    a.extend([1, 2, 4, 8, 16, 32].into_iter().map(|f| unit.saturating_sub(f)));
    a.retain(|x| *x >= 1 && *x < unit);
    a.sort_unstable();
    a.dedup();
    a
}

/// Micro-batches of all groups of a unit at most.
const MOST_IN_TURN: u32 = 4;

/// AFD unit layouts up to `budget` GPUs, for each number of micro-batches and of attention groups.
pub fn units(lib: &Library, budget: u32, microbatches: &[u32], groups: &[u32]) -> Vec<Layout> {
    let model = &lib.model;
    let Some(moe) = &model.moe else { return Vec::new() };
    let mut out = Vec::new();
    let widest = match &model.attention {
        Attention::Gqa { kv_heads, .. } => (*kv_heads).max(8),
        Attention::Mla { .. } => 8,
    };
    for unit in unit_sizes(budget) {
        for a in attention_shares(unit) {
            let f = unit - a;
            for tp in tensor_widths(model, a.min(widest).min(lib.cluster.fabric.domain_gpus)) {
                if !a.is_multiple_of(tp) {
                    continue;
                }
                for moe_tp in moe_widths(model, lib.formats.moe, f) {
                    // Wide experts first: split one only where the pool cannot be filled otherwise, or is small.
                    let ep = (f / moe_tp).min(moe.experts);
                    if !f.is_multiple_of(ep * moe_tp) || (moe_tp > 1 && f > 16 && f / moe_tp < moe.experts) {
                        continue;
                    }
                    let turns = groups.iter().flat_map(|g| microbatches.iter().map(move |m| (*g, *m)));
                    for (groups, microbatches) in turns {
                        let few = groups == 1 || groups * microbatches <= MOST_IN_TURN;
                        if few && (a / tp).is_multiple_of(groups) {
                            let (attention_gpus, ffn_gpus) = (a, f);
                            out.push(Layout::Afd { attention_gpus, tp, ffn_gpus, ep, moe_tp, microbatches, groups });
                        }
                    }
                }
            }
        }
    }
    out
}

/// Batches of a search: 1..=8, then about ten per octave... thinned to `per_octave`.
pub fn batches(most: f64, per_octave: u32) -> Vec<u32> {
    let most = most.min(4096.0);
    let mut out: Vec<u32> = Vec::new();
    let mut x = 1.0f64;
    while x <= most {
        let b = x.round() as u32;
        if out.last() != Some(&b) {
            out.push(b);
        }
        x *= 2f64.powf(1.0 / f64::from(per_octave));
    }
    // The largest that fits is always worth a price.
    let top = most.floor() as u32;
    if top >= 1 && out.last() != Some(&top) {
        out.push(top);
    }
    out
}
