//! The AFD pipeline as a max-plus recurrence: one row of cells a layer (`pipeline` says what is computed, and its
//! closed forms; this runs any program).
//!
//! The state is when each micro-batch may start its next layer and when each server is free again. A row is a
//! max-plus map of it. Steps overlapped take the growth of the state per step, exactly: an even shift,
//! bounds that meet, or else Karp's theorem.
//!
//! Limit: stage times do not change from step to step; at most 64 micro-batches and as many groups.

use super::stages::{Rows, Stages};

/// The servers of a pipeline, and what one layer of all micro-batches does to them.
pub(super) trait Law: Copy {
    /// One layer; `ready` enters as the time each micro-batch may start it, leaves as the time it is done.
    /// `extra`: attention-only time that each does first. Whether the servers may all be free later by the same time.
    fn row(self, ready: &mut [f64], free: &mut [f64], stages: &[Stages], extra: Option<&[f64]>) -> bool;

    /// Index into `free` of the attention server of micro-batch `i`.
    fn attention(self, i: usize) -> usize;

    /// Index into a row's stages of micro-batch `i`.
    fn part(self, i: usize) -> usize;
}

/// How far apart shifts may be that count as one, by the time that has passed: rounding.
const EVEN: f64 = 1e-15;

/// Cells from which on a long settling is cheaper than Karp's theorem; steps it may take, steps of a cycle that is looked
/// for, and how near the bounds of the period must be.
const MANY_CELLS: usize = 96;
const PATIENCE: usize = 64;
const LONGEST_CYCLE: usize = 16;
const SETTLED: f64 = 1e-13;

/// The later of two times, neither of which is NaN: `f64::max` asks for that too, at twice the price.
fn later(a: f64, b: f64) -> f64 {
    if a > b { a } else { b }
}

/// One attention pool: four servers.
#[derive(Clone, Copy)]
pub(super) struct One;

impl Law for One {
    fn row(self, ready: &mut [f64], free: &mut [f64], stages: &[Stages], extra: Option<&[f64]>) -> bool {
        let [mut a, mut x, mut f, mut y] = [free[0], free[1], free[2], free[3]];
        // From the end of a micro-batch's attention to its way back.
        let mut on = |attended: f64, s: &Stages| {
            x = later(attended, x) + s.a2f;
            f = later(x, f) + s.ffn;
            y = later(f, y) + s.f2a;
            y
        };
        let cells = ready.iter_mut().zip(stages);
        match extra {
            None => cells.for_each(|(ready, s)| {
                a = later(*ready, a) + s.attention;
                *ready = on(a, s);
            }),
            Some(extra) => cells.zip(extra).for_each(|((ready, s), extra)| {
                a = later(*ready, a) + s.attention + extra;
                *ready = on(a, s);
            }),
        }
        let shift = a - free[0];
        let near = |d: f64| (d - shift).abs() <= EVEN * later(later(a, x), later(f, y));
        let even = near(x - free[1]) && near(f - free[2]) && near(y - free[3]);
        free.copy_from_slice(&[a, x, f, y]);
        even
    }

    fn attention(self, _: usize) -> usize {
        0
    }

    fn part(self, i: usize) -> usize {
        i
    }
}

/// Groups of attention GPUs in turn on one FFN pool: micro-batch i is the (i / G)-th of group i % G. Servers: FFN,
/// its ports in and out, then attention, A2F and F2A of each group.
#[derive(Clone, Copy)]
pub(super) struct Turns(pub usize);

impl Law for Turns {
    fn row(self, ready: &mut [f64], free: &mut [f64], stages: &[Stages], extra: Option<&[f64]>) -> bool {
        let groups = self.0;
        let (shared, own) = free.split_at_mut(3);
        let [ffn, into, out] = shared else { return true };
        for (i, ready) in ready.iter_mut().enumerate() {
            let (group, part) = (i % groups, i / groups);
            let (s, own) = (&stages[part], &mut own[3 * group..3 * group + 3]);
            own[0] = later(*ready, own[0]) + s.attention + extra.map_or(0.0, |e| e[i]);
            let sent = later(later(own[0], own[1]), *into);
            *into = sent + s.ports[0];
            own[1] = sent + s.a2f;
            *ffn = later(own[1], *ffn) + s.ffn;
            let back = later(later(*ffn, own[2]), *out);
            *out = back + s.ports[1];
            own[2] = back + s.f2a;
            *ready = own[2];
        }
        // They are many: the whole state tells.
        true
    }

    fn attention(self, i: usize) -> usize {
        3 + 3 * (i % self.0)
    }

    fn part(self, i: usize) -> usize {
        i / self.0
    }
}

/// `groups` groups of `m` micro-batches each.
pub(super) fn of_groups(rows: &[Rows<'_>], m: usize, groups: u32, overlapped: bool) -> f64 {
    let groups = groups as usize;
    on_heap(Turns(groups), rows, m * groups, m * groups + 3 + 3 * groups, overlapped)
}

/// A run of `m` micro-batches whose state has `n` entries.
pub(super) fn on_heap<L: Law>(law: L, rows: &[Rows<'_>], m: usize, n: usize, overlapped: bool) -> f64 {
    let (mut state, mut before, mut extra) = (vec![0.0; n], vec![0.0; n], vec![0.0; m]);
    let start = &mut vec![0.0; n];
    Recurrence { law, m, state: &mut state, before: &mut before, extra: &mut extra }.run(rows, overlapped, start)
}

/// A run under way. `state`: when the `m` micro-batches are ready, then when the servers are free; `before`: room for
/// an earlier one; `extra`: attention-only time not yet done (trailing layers wait for the attention of the next
/// step, or for the end).
pub(super) struct Recurrence<'a, L> {
    pub law: L,
    pub m: usize,
    pub state: &'a mut [f64],
    pub before: &'a mut [f64],
    pub extra: &'a mut [f64],
}

impl<L: Law> Recurrence<'_, L> {
    fn row(&mut self, stages: &[Stages], extra: bool) -> bool {
        let (ready, free) = self.state.split_at_mut(self.m);
        self.law.row(ready, free, stages, extra.then_some(&*self.extra))
    }

    /// `layers` equal rows. A row that moves every entry of the state by the same time is followed by
    /// rows that all do (max-plus maps commute with shifts), so those are added at once. The servers, which rarely agree,
    /// are asked first; the row after one where they did is watched whole.
    fn rows_of(&mut self, stages: &[Stages], layers: u32) {
        let (mut left, mut watch) = (layers, false);
        while left > 0 {
            if watch {
                self.before.copy_from_slice(self.state);
            }
            let even = self.row(stages, false);
            left -= 1;
            let watched = std::mem::replace(&mut watch, even && left > 2);
            if watched && let Some(shift) = self.shift() {
                let jump = f64::from(left) * shift;
                self.state.iter_mut().for_each(|t| *t += jump);
                return;
            }
        }
    }

    /// The common distance of the state from the one before, if there is one. The servers, which rarely agree, are asked
    /// first.
    fn shift(&self) -> Option<f64> {
        let (now, before) = (&self.state[self.m..], &self.before[self.m..]);
        let apart = EVEN * now.iter().fold(0.0_f64, |s, t| s.max(t.abs()));
        let first = now[0] - before[0];
        // What is not finite is near nothing.
        let near = |d: f64| (d - first).abs() <= apart;
        if !now.iter().zip(before).all(|(a, b)| near(a - b)) {
            return None;
        }
        let (mut low, mut high, mut all_near) = (first, first, true);
        for (a, b) in self.state.iter().zip(self.before.iter()) {
            let d = a - b;
            all_near &= near(d);
            low = if d < low { d } else { low };
            high = later(high, d);
        }
        (all_near && high - low <= apart).then_some(high)
    }

    fn step(&mut self, rows: &[Rows<'_>]) {
        for r in rows.iter().filter(|r| r.layers > 0) {
            if r.attention_only() {
                for (i, e) in self.extra.iter_mut().enumerate() {
                    *e += f64::from(r.layers) * r.stages[self.law.part(i)].attention;
                }
            } else if self.extra.iter().any(|e| *e != 0.0) {
                self.row(r.stages, true);
                self.extra.fill(0.0);
                self.rows_of(r.stages, r.layers - 1);
            } else {
                self.rows_of(r.stages, r.layers);
            }
        }
    }

    /// The period of many cells, for which Karp's theorem is cubic: any state grows in `c` steps by `c` periods in the
    /// mean, by no less in the entry that grows most and by no more in that which grows least (Baccelli, Cohen, Olsder,
    /// Quadrat, Synchronization and Linearity, 3.7). Nothing where these stay apart.
    fn settled(&mut self, rows: &[Rows<'_>]) -> Option<f64> {
        if self.state.len() < MANY_CELLS {
            return None;
        }
        let mut past = std::collections::VecDeque::from([self.state.to_vec()]);
        for _ in 0..PATIENCE {
            self.step(rows);
            for (c, then) in past.iter().rev().enumerate() {
                let grown = self.state.iter().zip(then).map(|(a, b)| a - b);
                let (low, high) = grown.fold((f64::INFINITY, 0.0_f64), |(l, h), d| (l.min(d), h.max(d)));
                if high - low <= SETTLED * high {
                    return Some((low + high) / 2.0 / (c + 1) as f64);
                }
            }
            past.push_back(self.state.to_vec());
            if past.len() > LONGEST_CYCLE {
                past.pop_front();
            }
        }
        None
    }

    /// Seconds of a step from an empty pipeline, or (`overlapped`) between steps. `start`: room for a state.
    pub(super) fn run(mut self, rows: &[Rows<'_>], overlapped: bool, start: &mut [f64]) -> f64 {
        let m = self.m;
        self.step(rows);
        if !overlapped {
            let (ready, free) = self.state.split_at_mut(m);
            for (i, (r, e)) in ready.iter_mut().zip(self.extra.iter()).enumerate() {
                let server = &mut free[self.law.attention(i)];
                *server = r.max(*server) + e;
                *r = if *e > 0.0 { *server } else { *r };
            }
            return ready.iter().fold(0.0, |t, r| t.max(*r));
        }
        // Three steps usually settle it: an even shift of the whole state is the period, exactly.
        for _ in 0..3 {
            start.copy_from_slice(self.state);
            self.step(rows);
            self.before.copy_from_slice(start);
            if let Some(shift) = self.shift() {
                return shift;
            }
        }
        if let Some(period) = self.settled(rows) {
            return period;
        }
        self.karp(rows)
    }

    /// Karp's theorem: with x(k) the state k steps after a single finite entry,
    /// period = max_i min_k (x_i(n) - x_i(k)) / (n - k), n the size of the state.
    /// (`extra` already holds the trailing layers of a previous step, as on the ring.)
    fn karp(&mut self, rows: &[Rows<'_>]) -> f64 {
        let n = self.state.len();
        let mut history = vec![0.0; n * (n + 1)];
        self.state.fill(f64::NEG_INFINITY);
        self.state[0] = 0.0;
        for k in 0..=n {
            history[k * n..(k + 1) * n].copy_from_slice(self.state);
            if k < n {
                self.step(rows);
            }
        }
        let (past, last) = history[..n * (n + 1)].split_at(n * n);
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Groups of uneven micro-batches by the bounds of their period, and by Karp's theorem.
    #[test]
    fn bounds_that_meet_are_the_period() {
        let (layers, m, groups) = (7, 9, 12);
        let mut settled = 0;
        for seed in 1..=24_u64 {
            let draw = |i: usize| 1.0 + ((i as u64 * 7919 * seed) % 97) as f64 / 97.0;
            let row = |k: usize| -> Vec<Stages> {
                let of = |i: usize| Stages::new(draw(4 * i), draw(4 * i + 1), draw(4 * i + 2) / 9.0, draw(4 * i + 3));
                (0..m).map(|i| of(k * m + i)).collect()
            };
            let parts: Vec<Vec<Stages>> = (0..layers).map(row).collect();
            let rows: Vec<Rows<'_>> = parts.iter().map(|stages| Rows { layers: 1, stages }).collect();
            let n = m * groups + 3 + 3 * groups;
            let (mut state, mut before, mut extra) = (vec![0.0; n], vec![0.0; n], vec![0.0; m * groups]);
            let mut run = Recurrence {
                law: Turns(groups),
                m: m * groups,
                state: &mut state,
                before: &mut before,
                extra: &mut extra,
            };
            run.step(&rows);
            if let Some(period) = run.settled(&rows) {
                let karp = run.karp(&rows);
                // Karp's differences are of sums over all steps, and round as those do.
                assert!((period - karp).abs() <= 1e-11 * karp, "{seed}: {period} {karp}");
                settled += 1;
            }
        }
        assert!(settled > 12, "{settled} of 24 settled");
    }

    proptest! {
        /// One group by the law of many is the law of one, whatever the ports take.
        #[test]
        fn a_single_group_has_no_turns(
            times in prop::collection::vec((0.0..9.0f64, 0.1..9.0f64, 0.1..9.0f64, 0.1..9.0f64, 0.0..1.0f64), 1..6),
            layers in 1u32..9, dense in 0.0..5.0f64, overlapped: bool,
        ) {
            let m = times.len();
            let stages: Vec<Stages> = times
                .iter()
                .map(|(a, x, f, y, p)| Stages { ports: [p * x, p * y], ..Stages::new(*a, *x, *f, *y) })
                .collect();
            let front = vec![Stages::attention(dense); m];
            let rows = [Rows { layers: 1, stages: &front }, Rows { layers, stages: &stages }];
            let one = on_heap(One, &rows, m, m + 4, overlapped);
            let turns = of_groups(&rows, m, 1, overlapped);
            prop_assert!((one - turns).abs() <= 1e-12 * one, "{one} {turns}");
        }
    }
}
