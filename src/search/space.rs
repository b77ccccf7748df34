//! Which sizes, splits and options a plan may have: one list of each, for every level and slot.
//!
//! | what | workers | AFD units |
//! |---|---|---|
//! | GPUs of one | [`sizes`] | [`sizes`], attention and FFN share it in any way |
//! | attention TP | [`TENSOR`] | [`TENSOR`] |
//! | pipeline stages | [`STAGES`] | [`STAGES`] |
//! | expert TP | [`EXPERT_TENSOR`] | [`EXPERT_TENSOR`] |
//! | context-parallel prefill | [`CONTEXT`] | none: an attention pool has no such split |
//! | cadence of prompts, where the server has it | `cadence::INTERVALS` | the same, for a unit that serves both |
//! | batches in turn | two-batch overlap, where the server has it | micro-batches and attention groups |
//! | batches and chunks of a step | [`batches`], `choose::chunk_grid` | the same |
//!
//! Workers are listed whole. Units are 60 times as many: they are listed on a coarse grid of sizes and shares, and
//! climbed from there over the whole of these lists (`units`). Law, tested: what one level may choose, another may,
//! or the table says why not (tests/rust/fair.rs). Limit: above [`EVERY`] GPUs sizes lie a 32nd of an octave apart,
//! beside those that divide the budget.

use super::row::Layout;
use crate::cost::Library;
use crate::serving::scan;
use crate::spec::{Dtype, Model, Parallel, Rules, servers};

/// Head-parallel widths.
pub const TENSOR: [u32; 5] = [1, 2, 4, 8, 16];
/// Pipeline stages.
pub const STAGES: [u32; 3] = [1, 2, 4];
/// Ranks that share the chunk of a prompt.
pub const CONTEXT: [u32; 4] = [1, 2, 4, 8];
/// Splits of one expert.
pub const EXPERT_TENSOR: [u32; 5] = [1, 2, 4, 8, 16];
/// Micro-batches of a unit, in decode and mixed steps; groups of attention GPUs; micro-batches of both at most.
pub const MICROBATCHES: [u32; 4] = [1, 2, 3, 4];
pub const GROUPS: [u32; 3] = [1, 2, 4];
pub const MOST_IN_TURN: u32 = 4;
/// Micro-batches of AFD prefill, where a prompt is cut into as many chunks.
pub const PREFILL_MICROBATCHES: [u32; 5] = [1, 2, 4, 8, 16];
/// Micro-batches and groups on the coarse grid of units that decode, and of those for prompts alone; others are climbed
/// to. With pipeline stages the first alone.
pub const TURNS: [[u32; 2]; 5] = [[2, 1], [1, 1], [4, 1], [1, 2], [2, 2]];
pub const PREFILL_TURNS: [[u32; 2]; 4] = [[2, 1], [1, 1], [4, 1], [16, 1]];

/// Choices that workers have and AFD units have not, or the other way round, each with its reason.
pub const NOT_SHARED: [(&str, &str); 4] = [
    (
        "cp",
        "context-parallel prefill cuts a chunk over ranks of one worker; no server and no table has it for attention pools",
    ),
    ("groups", "groups take turns on one FFN pool, which a worker has not; its two half-batches are the twin"),
    ("groups of prefill units", "the chunks of a prompt fill the FFN pool already"),
    ("microbatches", "of a worker they are two half-batches that overlap, where the server has it"),
];

/// Up to this many GPUs a worker or unit may have any size.
pub const EVERY: u32 = 128;

/// GPUs that a worker or a unit may have: every number up to [`EVERY`], then a 32nd of an octave apart; and what
/// divides the budget, rounded down, into any number of equal ones.
pub fn sizes(budget: u32) -> Vec<u32> {
    let mut all: Vec<u32> = (1..=budget.min(EVERY)).collect();
    if budget > EVERY {
        let apart = (0..).map(|k| (f64::from(EVERY) * 2f64.powf(f64::from(k) / 32.0)).round() as u32);
        all.extend(apart.take_while(|g| *g <= budget));
        all.extend((1..=budget / EVERY).map(|n| budget / n));
        all.sort_unstable();
        all.dedup();
    }
    all
}

/// Of those a grid for what is priced by the engine alone: all up to 8, four an octave, and the largest of which a few
/// fit.
pub(crate) fn coarse_sizes(budget: u32) -> Vec<u32> {
    let mut all: Vec<u32> = (1..=budget.min(8)).collect();
    let apart = (0..).flat_map(|k| [8u32, 10, 12, 14].map(|x| x << k));
    all.extend(apart.take_while(|g| *g <= budget).filter(|g| *g > 8));
    all.extend((1..=8).map(|n| budget / n).filter(|g| *g > 0));
    all.sort_unstable();
    all.dedup();
    all
}

/// GPUs of the units that are climbed from: all up to 8, each doubling, and the largest of which a few fit.
pub(crate) fn unit_sizes(budget: u32) -> Vec<u32> {
    let doublings = (4..u32::BITS).map(|k| 1 << k).take_while(|g| *g <= budget);
    let mut all: Vec<u32> = (1..=budget.min(8)).chain(doublings).collect();
    all.extend((1..=4).map(|n| budget / n).filter(|g| *g > 0));
    all.sort_unstable();
    all.dedup();
    all
}

/// Head-parallel widths the model's attention divides into.
pub(crate) fn tensor_widths(model: &Model, most: u32) -> impl Iterator<Item = u32> + use<> {
    let heads = model.attention.heads();
    TENSOR.into_iter().filter(move |tp| *tp <= most && heads.is_multiple_of(*tp))
}

/// Splits of one expert's width that its format allows (whole blocks: `spec::blocks`).
pub(crate) fn moe_widths(model: &Model, moe: Dtype, gpus: u32) -> Vec<u32> {
    // A dense FFN is split like an expert of its width (on an FFN pool; workers split it by TP).
    let wide = model.moe.as_ref().map_or(model.dense_intermediate, |m| m.intermediate);
    EXPERT_TENSOR.into_iter().filter(|t| gpus.is_multiple_of(*t) && moe.cuts(wide, *t)).collect()
}

/// Whether workers may overlap two half-batches where nobody says: in frameworks that have it.
fn overlaps(lib: &Library) -> bool {
    lib.serving
        .two_batch_overlap
        .unwrap_or_else(|| scan::tabulates(lib) && servers::two_batch_overlap(lib.framework).is_some())
}

/// What may be chosen: on this library and budget, under these rules of what servers start (none: all that can be priced).
#[derive(Clone, Copy)]
pub struct Choices<'a> {
    pub lib: &'a Library,
    pub budget: u32,
    pub rules: Option<&'a Rules>,
}

impl Choices<'_> {
    fn takes(&self, layout: &Layout) -> bool {
        self.rules.is_none_or(|r| r.shape(&layout.shape()))
    }
}

/// Layouts of workers up to the budget. `prefill` adds context parallelism.
pub fn workers(choices: &Choices<'_>, prefill: bool) -> Vec<Layout> {
    let (lib, budget) = (choices.lib, choices.budget);
    let model = &lib.model;
    let experts = model.moe.as_ref().map_or(1, |m| m.experts);
    let domain = lib.cluster.fabric.domain_gpus;
    let overlaps = overlaps(lib);
    let mut out = Vec::new();
    let cps = if prefill { &CONTEXT[..] } else { &CONTEXT[..1] };
    let sizes = if scan::tabulates(lib) { sizes(budget) } else { coarse_sizes(budget) };
    for g in sizes {
        for pp in STAGES.into_iter().filter(|pp| g.is_multiple_of(*pp) && *pp <= model.layers) {
            let stage = g / pp;
            for tp in tensor_widths(model, stage.min(domain)) {
                for &cp in cps.iter().filter(|cp| stage.is_multiple_of(tp * **cp)) {
                    let dp = stage / (tp * cp);
                    // Dense FFNs are split by TP.
                    let widths = if model.moe.is_some() { moe_widths(model, lib.formats.moe, stage) } else { vec![1] };
                    for moe_tp in widths {
                        let ep = stage / moe_tp;
                        if model.moe.is_some() && ep > experts || model.moe.is_none() && dp * cp > 1 {
                            continue;
                        }
                        let ep = model.moe.as_ref().map(|_| ep);
                        let parallel = Parallel { tp, dp, pp, cp, ep, moe_tp };
                        let exchanges = lib.serving.two_batch_overlap.is_some() || dp * cp > 1 && parallel.ep() > 1;
                        let overlap = overlaps && ep.is_some() && exchanges;
                        out.push(Layout::Worker { parallel, overlap });
                    }
                }
            }
        }
    }
    out.retain(|l| choices.takes(l));
    out
}

/// Attention shares of a unit on the coarse grid: few of either pool, and quarters.
fn attention_shares(unit: u32) -> Vec<u32> {
    let few = [1, 2, 4, 16];
    let mut a: Vec<u32> = few.into_iter().chain(few.into_iter().map(|f| unit.saturating_sub(f))).collect();
    a.extend((1..4).map(|k| k * unit / 4));
    a.retain(|x| *x >= 1 && *x < unit);
    a.sort_unstable();
    a.dedup();
    a
}

/// How a unit of these pools is laid out, if it can be.
pub fn unit(
    choices: &Choices<'_>,
    [attention_gpus, ffn_gpus]: [u32; 2],
    tp: u32,
    moe_tp: u32,
    [microbatches, groups, pp]: [u32; 3],
) -> Option<Layout> {
    let lib = choices.lib;
    let model = &lib.model;
    let ep = match &model.moe {
        Some(moe) => (ffn_gpus / moe_tp.max(1)).min(moe.experts),
        // Copies of the dense FFNs on every moe-TP group.
        None => u32::from(ffn_gpus >= moe_tp),
    };
    let stands = attention_gpus > 0
        && ep > 0
        && attention_gpus.is_multiple_of(tp * groups)
        && ffn_gpus.is_multiple_of(ep * moe_tp)
        && tensor_widths(model, attention_gpus.min(lib.cluster.fabric.domain_gpus)).any(|t| t == tp)
        && moe_widths(model, lib.formats.moe, ffn_gpus).contains(&moe_tp)
        && (groups == 1 || groups * microbatches <= MOST_IN_TURN && lib.assumptions.knows_groups())
        && (pp == 1 || STAGES.contains(&pp) && pp <= model.layers && lib.assumptions.knows_groups());
    let layout = Layout::Afd { attention_gpus, tp, ffn_gpus, ep, moe_tp, microbatches, groups, pp };
    (stands && choices.takes(&layout)).then_some(layout)
}

/// AFD unit layouts of the coarse grid up to the budget, with each of some micro-batches and groups.
pub fn units(choices: &Choices<'_>, turns: &[[u32; 2]]) -> Vec<Layout> {
    let lib = choices.lib;
    let experts = lib.model.moe.as_ref().map_or(1, |m| m.experts);
    let mut out = Vec::new();
    for size in unit_sizes(choices.budget).into_iter().filter(|g| *g >= 2) {
        for a in attention_shares(size) {
            let f = size - a;
            for tp in TENSOR {
                for moe_tp in moe_widths(&lib.model, lib.formats.moe, f) {
                    // Wide experts first: one is split here only where the pool cannot be filled otherwise, or is small.
                    if moe_tp > 1 && f > 16 && f / moe_tp < experts {
                        continue;
                    }
                    let all = turns.iter().map(|[m, g]| [*m, *g, 1]);
                    out.extend(all.filter_map(|turn| unit(choices, [a, f], tp, moe_tp, turn)));
                    // Small units with pipeline stages as well: they are far from large ones without.
                    let [m, g] = turns[0];
                    let stages = STAGES.into_iter().filter(|pp| *pp > 1 && size * pp <= choices.budget && size <= 8);
                    out.extend(stages.filter_map(|pp| unit(choices, [a, f], tp, moe_tp, [m, g, pp])));
                }
            }
        }
    }
    out
}

/// Layouts one step from a unit's, over the whole of the lists above.
pub fn beside(choices: &Choices<'_>, layout: &Layout, microbatches: &[u32], groups: &[u32]) -> Vec<Layout> {
    let (lib, budget) = (choices.lib, choices.budget);
    let Layout::Afd { attention_gpus: a, tp, ffn_gpus: f, moe_tp, microbatches: m, groups: g, pp, .. } = *layout else {
        return Vec::new();
    };
    let experts = lib.model.moe.as_ref().map_or(1, |x| x.experts);
    let mut out: Vec<Layout> = Vec::new();
    let mut add = |a: i64, f: i64, tp: u32, moe_tp: u32, m: u32, g: u32, pp: u32| {
        let (Ok(a), Ok(f)) = (u32::try_from(a), u32::try_from(f)) else { return };
        if a == 0 || f == 0 || (a + f) * pp > budget {
            return;
        }
        if let Some(l) = unit(choices, [a, f], tp, moe_tp, [m, g, pp])
            && l != *layout
            && !out.contains(&l)
        {
            out.push(l);
        }
    };
    let (wa, wf) = (i64::from(a), i64::from(f));
    let (da, df) = (i64::from(tp * g), i64::from(moe_tp));
    for k in [1, 2, 4, 8] {
        for sign in [-1, 1] {
            add(wa + sign * k * da, wf, tp, moe_tp, m, g, pp);
            add(wa, wf + sign * k * df, tp, moe_tp, m, g, pp);
            add(wa + sign * k * da, wf - sign * k * da, tp, moe_tp, m, g, pp);
        }
    }
    // The least pool that holds one expert a rank more, or one less.
    let held = experts.div_ceil((f / moe_tp).max(1));
    for k in [held - 1, held + 1] {
        if k > 0 {
            let kink = i64::from(experts.div_ceil(k) * moe_tp);
            add(wa, kink, tp, moe_tp, m, g, pp);
            add(wa + wf - kink, kink, tp, moe_tp, m, g, pp);
        }
    }
    let near = |all: &[u32], x: u32| -> [Option<u32>; 2] {
        let at = all.iter().position(|y| *y == x).unwrap_or(0);
        [at.checked_sub(1), Some(at + 1)].map(|i| i.and_then(|i| all.get(i).copied()))
    };
    let [fewer, more] = near(microbatches, m);
    let n = budget / ((a + f) * pp).max(1);
    let whole = |n: u32| budget.checked_div(n).map(|size| size / pp);
    let share = |g: u32| (f64::from(g) * f64::from(a) / f64::from(a + f) / da as f64).round() as i64 * da;
    // One unit more or less on the budget: in the same proportion, or with one pool as it is.
    for size in [n.saturating_sub(1), n, n + 1].into_iter().filter_map(whole) {
        let (first, all) = (share(size), i64::from(size));
        add(first, all - first, tp, moe_tp, m, g, pp);
        add(wa, all - wa, tp, moe_tp, m, g, pp);
        add(all - wf, wf, tp, moe_tp, m, g, pp);
    }
    // Half as many, or twice: the longer exchanges of a larger one often want another micro-batch.
    for (n, m) in [(n / 2, Some(m)), (n / 2, more), (2 * n, Some(m)), (2 * n, fewer)] {
        let (Some(size), Some(m)) = (whole(n), m) else { continue };
        add(share(size), i64::from(size) - share(size), tp, moe_tp, m, g, pp);
    }
    for wide in [tp * 2, tp / 2] {
        add(wa, wf, wide, moe_tp, m, g, pp);
        add(wa * i64::from(wide) / i64::from(tp), wf, wide, moe_tp, m, g, pp);
    }
    for moe_tp in [moe_tp * 2, moe_tp / 2] {
        add(wa, wf, tp, moe_tp, m, g, pp);
    }
    for m in [fewer, more].into_iter().flatten() {
        add(wa, wf, tp, moe_tp, m, g, pp);
    }
    for g in near(groups, g).into_iter().flatten() {
        add(wa, wf, tp, moe_tp, m, g, pp);
        add(wa, wf, tp, moe_tp, (m / 2).max(1), g, pp);
        add(wa, wf, tp, moe_tp, m * 2, g, pp);
    }
    for stages in near(&STAGES, pp).into_iter().flatten() {
        add(wa, wf, tp, moe_tp, m, g, stages);
        add(wa * i64::from(pp) / i64::from(stages), wf * i64::from(pp) / i64::from(stages), tp, moe_tp, m, g, stages);
    }
    out
}

/// Batches per doubling on the grid of AFD units, of which there are many: what lies between two is judged by them
/// (`marks`), and priced where it may lead.
pub(crate) fn sparser(per_octave: u32) -> u32 {
    per_octave.div_ceil(2)
}

/// Batches of a search, `per_octave` each doubling, and the largest that fits.
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
