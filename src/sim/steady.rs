//! Whether a run shows a steady state: long enough to see one, and with the capacity for what arrives.
//!
//! ```text
//! stay       median time in the system of the first requests (a twentieth of them, at least 20)
//! settled    from two stays after the first arrival on, while the last ones are yet to come
//! X          requests in the system at 21 times of equal distance over the settled part; d its 20 differences
//! unstable   mean(d) > 2.5 sd(d) / sqrt(20): they pile up as no steady state does
//! lacks      (X_20 - X_0) / time between: requests a second that arrive beyond what is served
//! ```
//!
//! In a steady state what piles up goes again, so that differences undo one another and the test errs far less often
//! than independent ones would: none of 4,000 runs at 50, 80 and 95 % load, of 3,000 and 30,000 requests, was called
//! unstable; of runs of 3,000 at 110 % nine in ten were, at 114 % all. Limits: a load within some per cent of
//! the capacity looks either way; closed loops are steady by themselves.

use super::request::Requests;
use super::statistics::Interval;
use super::{NEVER, Outcome, Status, to_s};

const SLOTS: usize = 20;
const SURE: f64 = 2.5;
/// Stays that arrivals must last for a run that says something about a steady state.
const STAYS: f64 = 10.0;

/// What a run shows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Steady {
    Yes,
    /// Arrivals last `window_s`, and a request stays for `stay_s`.
    Short {
        window_s: f64,
        stay_s: f64,
    },
    /// Requests a second that arrive and that are served, once settled.
    Unstable {
        arrive: f64,
        served: f64,
    },
}

/// Median stay of the first requests that finished, picoseconds.
pub(super) fn stay_ps(o: &Outcome) -> Option<u64> {
    let first = (o.arrival_ps.len() / 20).max(20);
    let mut stays: Vec<u64> = (0..o.arrival_ps.len())
        .filter(|i| o.status[*i] == Status::Finished)
        .take(first)
        .map(|i| o.finish_ps[i] - o.arrival_ps[i])
        .collect();
    stays.sort_unstable();
    stays.get(stays.len() / 2).copied()
}

/// What a run of `requests` shows.
pub fn steady(requests: &Requests, o: &Outcome) -> Steady {
    if requests.closed.is_some() {
        return Steady::Yes;
    }
    let came = |i: &usize| o.status[*i] != Status::Rejected && o.arrival_ps[*i] != NEVER;
    let in_turn: Vec<usize> = (0..requests.len()).filter(came).collect();
    let (Some(&first), Some(&last), Some(stay)) = (in_turn.first(), in_turn.last(), stay_ps(o)) else {
        return Steady::Yes;
    };
    let (begin, end) = (o.arrival_ps[first], o.arrival_ps[last]);
    let settled = begin.saturating_add(2 * stay);
    let window = end - begin;
    let short = Steady::Short { window_s: to_s(window), stay_s: to_s(stay) };
    // Too few to tell, or all of it is the way in.
    if 4 * stay > window || in_turn.len() < 5 * SLOTS {
        return short;
    }
    let mut ends: Vec<u64> = in_turn.iter().map(|i| o.finish_ps[*i]).collect();
    ends.sort_unstable();
    let inside: Vec<f64> = (0..=SLOTS)
        .map(|k| {
            let at = settled + ((end - settled) as f64 * k as f64 / SLOTS as f64) as u64;
            let came = in_turn.partition_point(|i| o.arrival_ps[*i] <= at);
            came as f64 - ends.partition_point(|f| *f <= at) as f64
        })
        .collect();
    let grown: Vec<f64> = inside.windows(2).map(|w| w[1] - w[0]).collect();
    let n = SLOTS as f64;
    let mean = grown.iter().sum::<f64>() / n;
    let error = (grown.iter().map(|d| (d - mean).powi(2)).sum::<f64>() / (n - 1.0) / n).sqrt();
    // At least one more in each slot: what grows slower may be the end of the way in.
    if mean > SURE * error && mean >= 1.0 {
        let since = in_turn.len() - in_turn.partition_point(|i| o.arrival_ps[*i] <= settled);
        let arrive = since as f64 / to_s(end - settled);
        return Steady::Unstable { arrive, served: arrive - mean * n / to_s(end - settled) };
    }
    if STAYS * to_s(stay) > to_s(window) { short } else { Steady::Yes }
}

/// From when to when requests must have come to be counted in means: the system had filled, and had not begun to empty.
/// At most a fifth of the requests are left out on either side.
pub(super) fn window_ps(o: &Outcome) -> (u64, u64) {
    let mut came: Vec<u64> = o.arrival_ps.iter().copied().filter(|a| *a != NEVER).collect();
    came.sort_unstable();
    let (Some(&begin), Some(&end), Some(stay)) = (came.first(), came.last(), stay_ps(o)) else { return (0, NEVER) };
    if came.len() < 100 {
        return (0, NEVER);
    }
    let fifth = came.len() / 5;
    let from = begin.saturating_add(2 * stay).min(came[fifth]);
    (from, end.saturating_sub(stay).max(came[came.len() - 1 - fifth]))
}

/// Independent values that an interval should rest on.
const INDEPENDENT: f64 = 50.0;

/// What a run shows, in one word.
pub(super) fn shows(steady: Steady) -> &'static str {
    match steady {
        Steady::Yes => "steady",
        Steady::Short { .. } => "short",
        Steady::Unstable { .. } => "unstable",
    }
}

/// What a run shows of a steady state, in words; nothing where it shows one.
pub(super) fn said(steady: Steady, arrivals: usize) -> Option<String> {
    match steady {
        Steady::Yes => None,
        Steady::Short { window_s, stay_s } => {
            let more = (arrivals as f64 * (10.0 * stay_s / window_s.max(f64::MIN_POSITIVE)).max(2.0)).min(1e9);
            Some(format!(
                "short: arrivals last {window_s:.3} s and a request stays {stay_s:.3} s, so the system hardly leaves its \
                 way in and out; about {more:.0} requests would show a steady state"
            ))
        }
        Steady::Unstable { arrive, served } => Some(format!(
            "unstable: {arrive:.4} requests/s arrive and {served:.4} are served, the capacity lacks {:.4} \
             ({:.0} %); latencies grow as long as this lasts",
            arrive - served,
            100.0 * (arrive - served) / arrive
        )),
    }
}

/// Which intervals rest on too little.
pub(super) fn firm(name: &str, i: &Interval) -> Option<String> {
    let rests = i.independent?;
    let more = i.values as f64 * (2.0 * INDEPENDENT / rests.max(1.0)).max(4.0);
    if i.error? > 0.0 && i.half_95.is_none() {
        return Some(format!(
            "short: bursts of {name} are too few for an upper end of its interval: as far as this run shows, its mean \
             errs by {:.1} %; about {more:.0} requests may show it",
            100.0 * i.error? / i.mean.abs()
        ));
    }
    let more = i.values as f64 * (2.0 * INDEPENDENT / rests.max(1.0));
    (rests < INDEPENDENT).then(|| {
        format!(
            "short: {name} rests on about {rests:.0} independent values, so its interval misses more often than it says; \
             about {more:.0} requests would do"
        )
    })
}
