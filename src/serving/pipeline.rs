//! The AFD pipeline: attention, A2F, FFN and F2A of M micro-batches over L layers.
//!
//! Each micro-batch walks attention -> A2F -> FFN -> F2A once a layer; each of the four is one
//! resource that serves one micro-batch at a time, first in first out. Single servers in a ring
//! never let micro-batches overtake, so with full duplex the order is fixed (0, 1, .., M-1 at
//! every layer) and the schedule is a max-plus recurrence, one row of M cells a layer. Equal
//! layers and micro-batches have closed forms (design/physics.md 5), with S the sum of the stages:
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
//! Half duplex (A2F and F2A share one resource; FIFO by ready time, F2A first on ties) has no
//! fixed order and no closed form: the events themselves are run.
//!
//! Limits: one attention pool, one FFN pool, no jitter; copies beyond M in flight need memory
//! that is checked elsewhere.

use crate::error::{Problems, Result};

/// Stage times of one micro-batch at one layer, seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stages {
    pub attention: f64,
    pub a2f: f64,
    pub ffn: f64,
    pub f2a: f64,
}

impl Stages {
    /// Time of one micro-batch through all four stages.
    pub fn sum(&self) -> f64 {
        self.attention + self.a2f + self.ffn + self.f2a
    }

    /// The slowest stage.
    pub fn max(&self) -> f64 {
        self.attention.max(self.a2f).max(self.ffn).max(self.f2a)
    }

    fn attention_only(&self) -> bool {
        self.a2f == 0.0 && self.ffn == 0.0 && self.f2a == 0.0
    }
}

/// `layers` equal layers; one entry of `stages` per micro-batch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rows<'a> {
    pub layers: u32,
    pub stages: &'a [Stages],
}

impl Rows<'_> {
    fn attention_only(&self) -> bool {
        self.stages.iter().all(Stages::attention_only)
    }

    /// All micro-batches cost the same.
    fn uniform(&self) -> bool {
        self.stages.iter().all(|s| *s == self.stages[0])
    }
}

/// Up to this many micro-batches nothing is allocated.
pub const INLINE_MICROBATCHES: usize = 16;

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
pub fn schedule_flat(
    times: &[f64],
    shape: &[usize],
    layers: u32,
    microbatches: u32,
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
    let row = |c: &[f64]| Stages { attention: c[0], a2f: c[1], ffn: c[2], f2a: c[3] };
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
    Ok(step_time(&rows, duplex_half, overlapped))
}

/// Makespan of a prefill whose micro-batches are consecutive chunks of the same sequence.
///
/// Chunk i+1 at layer l reads the KV that chunk i's attention writes at l. Attention is one FIFO
/// resource and chunks keep their order on it, so chunk i has always finished its attention at l
/// before chunk i+1 starts there: the dependency never binds and this is a step alone.
pub fn prefill_chunks(groups: &[(u32, Vec<Stages>)], duplex_half: bool) -> f64 {
    schedule(groups, duplex_half, false)
}

/// [`schedule`] for the hot loop: no allocation up to [`INLINE_MICROBATCHES`] micro-batches, the
/// closed form where it is exact (equal micro-batches and layers, attention-only layers around them).
pub fn step_time(rows: &[Rows<'_>], duplex_half: bool, overlapped: bool) -> f64 {
    let m = rows.iter().find(|r| r.layers > 0).map_or(0, |r| r.stages.len());
    if m == 0 {
        return 0.0;
    }
    debug_assert!(rows.iter().all(|r| r.layers == 0 || r.stages.len() == m), "one entry per micro-batch");
    if !rows.iter().any(|r| r.layers > 0 && !r.attention_only()) {
        return rows.iter().map(|r| f64::from(r.layers) * r.stages.iter().map(|s| s.attention).sum::<f64>()).sum();
    }
    if duplex_half {
        return super::half_duplex::step_time(rows, m, overlapped);
    }
    if let Some(t) = closed_form(rows, m, overlapped) {
        return t;
    }
    if m <= INLINE_MICROBATCHES {
        let mut ready = [0.0; INLINE_MICROBATCHES];
        let mut extra = [0.0; INLINE_MICROBATCHES];
        let mut history = [0.0; (INLINE_MICROBATCHES + 4) * (INLINE_MICROBATCHES + 5)];
        recurrence(rows, overlapped, &mut ready[..m], &mut extra[..m], &mut history[..(m + 4) * (m + 5)])
    } else {
        recurrence(rows, overlapped, &mut vec![0.0; m], &mut vec![0.0; m], &mut vec![0.0; (m + 4) * (m + 5)])
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
pub(super) fn closed_form(rows: &[Rows<'_>], m: usize, overlapped: bool) -> Option<f64> {
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
    let (tau, sum) = (stages.max(), stages.sum());
    let gap = (m * tau).max(sum);
    let (first, first_sum) = (dense + stages.attention, dense + sum);
    Some(if overlapped {
        let beside = stages.a2f.max(stages.ffn).max(stages.f2a);
        let resources = (m * (first + (layers - 1.0) * stages.attention)).max(layers * m * beside);
        let one_pass = first_sum + (layers - 1.0) * gap;
        let round = if layers >= 2.0 { first_sum + (m - 1.0) * first + tau + (layers - 2.0) * gap } else { 0.0 };
        resources.max(one_pass).max(round)
    } else {
        (layers - 1.0) * gap + first_sum + (m - 1.0) * first.max(tau)
    })
}

/// Time each of the four resources is free again.
type Free = [f64; 4];

/// One layer of all micro-batches; `ready` enters as the time each may start it, leaves as the
/// time it is done. `extra`: attention-only time that each micro-batch does first.
fn row(ready: &mut [f64], free: &mut Free, stages: &[Stages], extra: Option<&[f64]>) {
    let [mut a, mut x, mut f, mut y] = *free;
    for (i, (ready, s)) in ready.iter_mut().zip(stages).enumerate() {
        a = ready.max(a) + s.attention + extra.map_or(0.0, |e| e[i]);
        x = a.max(x) + s.a2f;
        f = x.max(f) + s.ffn;
        y = f.max(y) + s.f2a;
        *ready = y;
    }
    *free = [a, x, f, y];
}

/// `layers` equal rows. A row that moves every entry of the state by the same time is followed by
/// rows that all do (max-plus maps commute with shifts), so those are added at once.
fn rows_of(ready: &mut [f64], free: &mut Free, stages: &[Stages], layers: u32) {
    let m = ready.len();
    let mut left = layers;
    let mut inline = [0.0; INLINE_MICROBATCHES];
    while left > 0 {
        let before = *free;
        let watch = m <= INLINE_MICROBATCHES && left > 2;
        if watch {
            inline[..m].copy_from_slice(ready);
        }
        row(ready, free, stages, None);
        left -= 1;
        if watch && let Some(shift) = shift_of(&inline[..m], ready, &before, free) {
            let jump = f64::from(left) * shift;
            ready.iter_mut().chain(free.iter_mut()).for_each(|t| *t += jump);
            return;
        }
    }
}

/// The common distance between two states, if there is one.
fn shift_of(before: &[f64], after: &[f64], free_before: &Free, free_after: &Free) -> Option<f64> {
    let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
    for (b, a) in before.iter().chain(free_before).zip(after.iter().chain(free_after)) {
        let d = a - b;
        if !d.is_finite() {
            return None;
        }
        low = low.min(d);
        high = high.max(d);
    }
    let scale = free_after.iter().fold(0.0_f64, |s, t| s.max(t.abs()));
    (high - low <= 1e-15 * scale).then_some(high)
}

/// One step. `extra` enters and leaves holding the attention-only time not yet done (trailing
/// layers wait for the attention of the next step, or for `finish`).
fn step(rows: &[Rows<'_>], ready: &mut [f64], free: &mut Free, extra: &mut [f64]) {
    for r in rows.iter().filter(|r| r.layers > 0) {
        if r.attention_only() {
            extra.iter_mut().zip(r.stages).for_each(|(e, s)| *e += f64::from(r.layers) * s.attention);
        } else if extra.iter().any(|e| *e != 0.0) {
            row(ready, free, r.stages, Some(extra));
            extra.fill(0.0);
            rows_of(ready, free, r.stages, r.layers - 1);
        } else {
            rows_of(ready, free, r.stages, r.layers);
        }
    }
}

fn recurrence(rows: &[Rows<'_>], overlapped: bool, ready: &mut [f64], extra: &mut [f64], history: &mut [f64]) -> f64 {
    let mut free: Free = [0.0; 4];
    step(rows, ready, &mut free, extra);
    if !overlapped {
        for (r, e) in ready.iter_mut().zip(extra.iter()) {
            free[0] = r.max(free[0]) + e;
            *r = if *e > 0.0 { free[0] } else { *r };
        }
        return ready.iter().fold(0.0, |t, r| t.max(*r));
    }
    // Three steps usually settle it: an even shift of the whole state is the period, exactly.
    let m = ready.len();
    for _ in 0..3 {
        let before = free;
        history[..m].copy_from_slice(ready);
        step(rows, ready, &mut free, extra);
        if let Some(shift) = shift_of(&history[..m], ready, &before, &free) {
            return shift;
        }
    }
    // Else Karp's theorem: with x(k) the state k steps after a single finite entry,
    // period = max_i min_k (x_i(n) - x_i(k)) / (n - k), n the size of the state.
    // (`extra` already holds the trailing layers of a previous step, as on the ring.)
    let n = m + 4;
    ready.fill(f64::NEG_INFINITY);
    ready[0] = 0.0;
    free = [f64::NEG_INFINITY; 4];
    for k in 0..=n {
        let state = &mut history[k * n..(k + 1) * n];
        state[..m].copy_from_slice(ready);
        state[m..].copy_from_slice(&free);
        if k < n {
            step(rows, ready, &mut free, extra);
        }
    }
    let (past, last) = history.split_at(n * n);
    let mut period = 0.0_f64;
    for (i, end) in last.iter().enumerate() {
        let mean = (0..n)
            .filter(|k| past[k * n + i].is_finite())
            .map(|k| (end - past[k * n + i]) / (n - k) as f64)
            .fold(f64::INFINITY, f64::min);
        if mean.is_finite() {
            period = period.max(mean);
        }
    }
    period
}
