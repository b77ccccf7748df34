//! Gaps between tokens, kept per instance as runs of equal gaps and summed up per request at its end.
//!
//! Limit: gaps at steps of the instance; what a client sees between bursts of a stream is not told.

use std::collections::VecDeque;

/// A run of decode steps with about equal gaps (the mean is kept).
#[derive(Clone, Copy)]
struct Gap {
    first: u32,
    count: u32,
    ps: u64,
}

/// Gaps of one instance's decode steps, numbered from 1 on: step i ends gap i.
#[derive(Default)]
pub struct Log {
    gaps: VecDeque<Gap>,
    /// When the last decode step ended.
    pub last_end_ps: u64,
    next_sweep: usize,
}

/// Largest gaps of one request, enough of them to know a percentile: (gap, how many), largest first.
#[derive(Clone, Default)]
pub struct Largest {
    top: Vec<(u64, u32)>,
    weight: u64,
    wanted: u64,
}

impl Largest {
    /// For `gaps` gaps: the 99th percentile by nearest rank is the `wanted`-th largest.
    pub(crate) fn of(gaps: u32) -> Largest {
        let n = u64::from(gaps);
        Largest { top: Vec::new(), weight: 0, wanted: n + 1 - (99 * n).div_ceil(100).max(1) }
    }

    pub(crate) fn add(&mut self, ps: u64, count: u32) {
        if self.weight >= self.wanted && self.top.last().is_some_and(|l| l.0 >= ps) {
            return;
        }
        let at = self.top.partition_point(|g| g.0 > ps);
        self.top.insert(at, (ps, count));
        self.weight += u64::from(count);
        while let Some(&(_, c)) = self.top.last() {
            if self.weight - u64::from(c) < self.wanted {
                break;
            }
            self.weight -= u64::from(c);
            self.top.pop();
        }
    }

    pub(crate) fn p99(&self) -> u64 {
        self.top.last().map_or(0, |g| g.0)
    }

    pub(crate) fn max(&self) -> u64 {
        self.top.first().map_or(0, |g| g.0)
    }

    pub(crate) fn entries(&self) -> &[(u64, u32)] {
        &self.top
    }
}

impl Log {
    /// `count` decode steps after step `done` took until `end_ps`, the first of them including any pause before it.
    pub(crate) fn push(&mut self, done: u32, count: u32, start_ps: u64, end_ps: u64) {
        let pause = start_ps.saturating_sub(self.last_end_ps);
        let each = (end_ps - start_ps) / u64::from(count.max(1));
        let mut first = done + 1;
        let mut count = count;
        if pause > 0 {
            self.gaps.push_back(Gap { first, count: 1, ps: each + pause });
            first += 1;
            count -= 1;
        }
        match self.gaps.back_mut() {
            Some(g) if g.ps == each && count > 0 && g.first + g.count == first => g.count += count,
            _ if count > 0 => self.gaps.push_back(Gap { first, count, ps: each }),
            _ => {}
        }
        self.last_end_ps = end_ps;
    }

    /// Adds the gaps of steps `join + 1 ..= last`; the first is shorter by `lag_ps`.
    pub(crate) fn collect(&self, join: u32, last: u32, lag_ps: u64, into: &mut Largest) {
        let from = self.gaps.partition_point(|g| g.first + g.count <= join + 1);
        for g in self.gaps.range(from..) {
            if g.first > last {
                break;
            }
            let (a, b) = (g.first.max(join + 1), (g.first + g.count).min(last + 1));
            let mut count = b - a;
            if a == join + 1 && lag_ps > 0 {
                into.add(g.ps.saturating_sub(lag_ps), 1);
                count -= 1;
            }
            if count > 0 {
                into.add(g.ps, count);
            }
        }
    }

    /// Whether it is time to forget what no running sequence needs; doubles as what is left grows.
    pub(crate) fn wants_sweep(&self) -> bool {
        self.gaps.len() >= self.next_sweep.max(4096)
    }

    /// Forgets steps up to `join`.
    pub(crate) fn sweep(&mut self, join: u32) {
        while self.gaps.front().is_some_and(|g| g.first + g.count <= join + 1) {
            self.gaps.pop_front();
        }
        self.next_sweep = 2 * self.gaps.len();
    }
}
