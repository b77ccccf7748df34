//! The AFD pipeline: attention, A2F, FFN and F2A of M micro-batches over L layers.
//!
//! Each micro-batch walks attention -> A2F -> FFN -> F2A once a layer; each of the four is one
//! resource that serves one micro-batch at a time, first in first out. Single servers in a ring
//! never let micro-batches overtake, so with full duplex the order is fixed (0, 1, .., M-1 at
//! every layer) and the schedule is a max-plus recurrence, one row of M cells a layer. Equal
//! layers and micro-batches have closed forms (physics.md 5), with S the sum of the stages:
//!
//! ```text
//! one step alone    T = (L-1) max(M tau_max, S) + (M-1) tau_max + S
//! steps overlapped  T = L max(M tau_max, S)
//! ```
//!
//! Attention-only layers (dense first layers, LM head on the attention side) do not touch the
//! other three. A micro-batch keeps the attention pool through them and the attention that
//! follows: it would only be giving up its place for work that is no more urgent, and doing all
//! micro-batches layer by layer is never faster. So the ring order survives them too.
//!
//! Attention groups: G equal groups of attention GPUs, each with M micro-batches of its own, take turns on one FFN
//! pool (micro-batch 0 of every group, then micro-batch 1, ..). A group has its own attention server and its own
//! ends of the two hops; all share the FFN stage and the FFN side's ports, which a hop keeps for `ports` of its
//! time from its start (it takes the longer of both sides' ports, so `ports` is at most the hop, and hops of other
//! groups fit in beside it). The pool serves in a fixed turn, so the schedule is the same recurrence with more
//! servers, and with tau_S the slowest shared one the closed forms are
//!
//! ```text
//! one step alone    T = (L-1) max(M tau, S) + (M-1) tau + (G-1) tau_S + S
//! steps overlapped  T = L max(M tau, S)        tau = max(A, X, Y, G tau_S), tau_S = max(F, ports)
//! ```
//!
//! Half duplex (A2F and F2A share one resource; FIFO by ready time, F2A first on ties) has no
//! fixed order and no closed form: the events themselves are run.
//!
//! Limits: one FFN pool, a fixed turn of the groups, no jitter; copies beyond M in flight need memory
//! that is checked elsewhere.

use super::max_plus::{self, One, Recurrence};
pub use super::stages::{INLINE_MICROBATCHES, Rows, Stages};
use crate::error::{Problems, Result};

/// One step on an empty pipeline: equal layers, equal micro-batches, full duplex.
pub fn uniform_alone(stages: &Stages, layers: u32, m: u32) -> f64 {
    if layers == 0 || m == 0 {
        return 0.0;
    }
    let (tau, sum, m) = (stages.max(), stages.sum(), f64::from(m));
    f64::from(layers - 1) * (m * tau).max(sum) + (m - 1.0) * tau + sum
}

/// Time per step when every micro-batch starts its next token as soon as its own last layer is
/// done: equal layers, equal micro-batches, full duplex.
pub fn uniform_overlapped(stages: &Stages, layers: u32, m: u32) -> f64 {
    f64::from(layers) * (f64::from(m) * stages.max()).max(stages.sum())
}

/// Seconds per step of any program: `(number of layers, stages per micro-batch)` in order.
///
/// `overlapped`: the period of the steady state, else one step on an empty pipeline.
/// Every group must hold the same number of micro-batches.
pub fn schedule(groups: &[(u32, Vec<Stages>)], duplex_half: bool, overlapped: bool) -> f64 {
    let rows: Vec<Rows<'_>> = groups.iter().map(|(layers, stages)| Rows { layers: *layers, stages }).collect();
    step_time(&rows, duplex_half, overlapped)
}

/// [`schedule`] of a plain array: `times` holds (attention, a2f, ffn, f2a) of one micro-batch and
/// layer, or one such row a layer, or one a layer and micro-batch (layer by layer). Same unit out as in.
/// Attention groups that share the FFN pool share its ports for the whole of each hop: the slowest it can be.
pub fn schedule_flat(
    times: &[f64],
    shape: &[usize],
    layers: u32,
    microbatches: u32,
    attention_groups: u32,
    duplex_half: bool,
    overlapped: bool,
) -> Result<f64> {
    let mut p = Problems::new();
    if !(1..=100_000).contains(&layers) {
        p.push("layers", format!("must be from 1 to 100000, is {layers}"), "");
    }
    if !(1..=64).contains(&microbatches) {
        p.push("microbatches", format!("must be from 1 to 64, is {microbatches}"), "");
    }
    if !(1..=64).contains(&attention_groups) {
        p.push("attention_groups", format!("must be from 1 to 64, is {attention_groups}"), "");
    }
    let (l, m) = (layers as usize, microbatches as usize);
    let fits = match *shape {
        [4] => true,
        [rows, 4] => rows == l,
        [rows, parts, 4] => rows == l && parts == m,
        _ => false,
    };
    if !fits {
        let hint = format!("give 4 numbers, {layers} rows of 4, or {layers} x {microbatches} rows of 4");
        p.push("stage_ms", format!("has shape {shape:?}"), hint);
    }
    if let Some(t) = times.iter().find(|t| !(t.is_finite() && **t >= 0.0)) {
        p.push("stage_ms", format!("{t} is not a time"), "give finite numbers >= 0");
    }
    p.into_result()?;
    let row = |c: &[f64]| Stages { ports: [c[1], c[3]], ..Stages::new(c[0], c[1], c[2], c[3]) };
    let parts: Vec<Stages> = if shape.len() == 3 {
        times.chunks_exact(4).map(row).collect()
    } else {
        times.chunks_exact(4).flat_map(|c| std::iter::repeat_n(row(c), m)).collect()
    };
    // Equal neighbours are one group: the closed form sees them, and the recurrence skips ahead.
    let mut rows: Vec<Rows<'_>> = Vec::new();
    for stages in parts.chunks_exact(m) {
        match rows.last_mut() {
            Some(last) if last.stages == stages => last.layers += 1,
            _ => rows.push(Rows { layers: 1, stages }),
        }
    }
    if let ([only], 1) = (&mut rows[..], shape.len()) {
        only.layers = layers;
    }
    Ok(step_time_of(&rows, attention_groups, duplex_half, overlapped))
}

/// Makespan of a prefill whose micro-batches are consecutive chunks of the same sequence.
///
/// Chunk i+1 at layer l reads the KV that chunk i's attention writes at l. Attention is one FIFO
/// resource and chunks keep their order on it, so chunk i has always finished its attention at l
/// before chunk i+1 starts there: the dependency never binds and this is a step alone.
pub fn prefill_chunks(groups: &[(u32, Vec<Stages>)], duplex_half: bool) -> f64 {
    schedule(groups, duplex_half, false)
}

/// [`schedule`] for the hot loop: hardly ever an allocation up to [`INLINE_MICROBATCHES`] micro-batches, the
/// closed form where it is exact (equal micro-batches and layers, attention-only layers around them).
pub fn step_time(rows: &[Rows<'_>], duplex_half: bool, overlapped: bool) -> f64 {
    step_time_of(rows, 1, duplex_half, overlapped)
}

/// The same of `groups` equal groups of attention GPUs; `rows` hold the micro-batches of one.
pub fn step_time_of(rows: &[Rows<'_>], groups: u32, duplex_half: bool, overlapped: bool) -> f64 {
    let m = rows.iter().find(|r| r.layers > 0).map_or(0, |r| r.stages.len());
    if m == 0 {
        return 0.0;
    }
    debug_assert!(rows.iter().all(|r| r.layers == 0 || r.stages.len() == m), "one entry per micro-batch");
    if !rows.iter().any(|r| r.layers > 0 && !r.attention_only()) {
        return rows.iter().map(|r| f64::from(r.layers) * r.stages.iter().map(|s| s.attention).sum::<f64>()).sum();
    }
    if duplex_half {
        return super::half_duplex::step_time(rows, m, groups, overlapped);
    }
    if let Some(t) = closed_form(rows, m, groups, overlapped) {
        return t;
    }
    if groups > 1 {
        return max_plus::of_groups(rows, m, groups, overlapped);
    }
    if m <= INLINE_MICROBATCHES {
        let mut state = [0.0; INLINE_MICROBATCHES + 4];
        let mut before = state;
        let mut extra = [0.0; INLINE_MICROBATCHES];
        let mut start = state;
        let n = m + 4;
        let (state, before) = (&mut state[..n], &mut before[..n]);
        Recurrence { law: One, m, state, before, extra: &mut extra[..m] }.run(rows, overlapped, &mut start[..n])
    } else {
        max_plus::on_heap(One, rows, m, m + 4, overlapped)
    }
}

/// Equal micro-batches, one group of equal layers, attention-only layers before it (overlapped:
/// before or after it, which is the same thing on a ring). The attention-only time d of a
/// micro-batch makes one row's attention longer, A' = d + A, S' = d + S. A path from row to row
/// either follows its micro-batch (costs S) or goes once round the ring (M resource steps). With
/// G = max(M tau_max, S), where the M - 1 steps that need not be tau_max are best spent decides:
///
/// ```text
/// alone       (L-1) G + S' + (M-1) max(A', tau_max)
/// overlapped  max(S' + (L-1) G, S' + (M-1) A' + tau_max + (L-2) G, M (A' + (L-1) A), L M max(X, F, Y))
/// ```
///
/// (second overlapped term only for L >= 2; the last two never leave their resource).
///
/// With G groups a path that goes once round the ring takes M steps of its group's servers or G M of a shared one,
/// so tau_max has G tau_S in place of the FFN stage; alone, the last group's turn comes (G-1) tau_S after the first's.
pub(super) fn closed_form(rows: &[Rows<'_>], m: usize, groups: u32, overlapped: bool) -> Option<f64> {
    let mut main: Option<(f64, Stages)> = None;
    let mut dense = 0.0;
    for row in rows.iter().filter(|r| r.layers > 0) {
        if !row.uniform() {
            return None;
        }
        let stages = row.stages[0];
        let layers = f64::from(row.layers);
        if stages.attention_only() {
            if main.is_some() && !overlapped {
                return None;
            }
            dense += layers * stages.attention;
        } else {
            match &mut main {
                None => main = Some((layers, stages)),
                // Two groups of equal layers with dense ones in between are not one group.
                Some(_) => return None,
            }
        }
    }
    let (layers, stages) = main?;
    let m = m as f64;
    let (shared, sum) = (stages.shared(groups), stages.sum());
    let tau = stages.attention.max(stages.a2f).max(shared).max(stages.f2a);
    let gap = (m * tau).max(sum);
    let (first, first_sum) = (dense + stages.attention, dense + sum);
    Some(if overlapped {
        let beside = stages.a2f.max(shared).max(stages.f2a);
        let resources = (m * (first + (layers - 1.0) * stages.attention)).max(layers * m * beside);
        let one_pass = first_sum + (layers - 1.0) * gap;
        let round = if layers >= 2.0 { first_sum + (m - 1.0) * first + tau + (layers - 2.0) * gap } else { 0.0 };
        resources.max(one_pass).max(round)
    } else {
        let turn = shared - shared / f64::from(groups);
        (layers - 1.0) * gap + first_sum + (m - 1.0) * first.max(tau) + turn
    })
}
