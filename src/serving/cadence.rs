//! Prefill cadence: prompts are let in every n-th step only, so that those of all attention ranks share a step.
//!
//! Ranks of attention data parallelism wait for one another at the experts: one rank's prompt holds up all of them,
//! so prompts spread over many steps cost more than prompts gathered in few. Which server has which knob: `serving/defaults.json`.
//!
//! A rank needs p prompt tokens a step. In each step it gets a parcel of g = max(ISL, p) tokens with probability
//! f = p/g; in n steps it gathers K ~ Binomial(n, f) of them and deals them to the steps of the next cycle, r (the room
//! beside decode) a step. With m(K) = ceil(K g/r) steps and x_j(K) tokens in slot j of the cycle
//!
//! ```text
//! q_j   = E[m(K) in slot j]                       share of ranks that prefill in slot j
//! f_sys = (1/n) sum_j 1 - (1 - q_j)^D             uncoordinated ranks; aligned ones: (1/n) sum_j q_j
//! s     = mean over mixed slots of E[max over D ranks of x_j | any]     tokens on the fullest rank
//! busy  = p / (s f_sys)                           mean load of a rank by the fullest's
//! ```
//!
//! n = 1 gives f_sys = 1 - (1 - p/s)^D with s = min(r, g): the steady state of `aggregated`. A prompt waits (n - 1)/2
//! steps for its cycle, and behind those of its rank's burst. Limits: parcels of different steps are independent;
//! what overflows a cycle is added to the slots of the next. Closed loops of equal answers march more in step than that: the
//! simulator serves 10 to 15 % more on workers at every n, 1 included, and 16 to 28 % more on an AFD unit
//! (tests/rust/cadence.rs).

use super::defaults;
use crate::error::Problems;
use crate::spec::{Framework, Plan, Serving, servers};

/// Intervals worth trying where the knob acts.
pub const INTERVALS: [u32; 5] = [1, 2, 4, 8, 16];
/// Beyond every interval of a search.
const FEW: usize = 17;
/// Odds that are left out.
const NOTHING: f64 = 1e-13;

/// Whether an interval above 1 does anything on a worker or unit of `ranks` attention ranks.
pub fn acts(framework: Framework, ranks: f64) -> bool {
    ranks > 1.0 && servers::cadence(framework).is_some()
}

/// Steps between two that let prompts in: the plan's, else what `Serving` says where the knob acts, else the server's own default there.
pub(crate) fn interval(plan: Option<u32>, serving: &Serving, framework: Framework, ranks: f64) -> u32 {
    let general = || serving.prefill_interval.unwrap_or_else(|| defaults::prefill_interval(framework));
    plan.unwrap_or_else(|| if acts(framework, ranks) { general() } else { 1 }).max(1)
}

/// What a plan and a way of serving ask of a framework that does not have it.
pub fn check(problems: &mut Problems, plan: Option<&Plan>, serving: &Serving, framework: Framework) {
    let has = servers::servers()
        .cadence
        .iter()
        .map(|k| format!("{} ({})", k.framework, k.setting))
        .collect::<Vec<_>>()
        .join(", ");
    if serving.prefill_interval.unwrap_or(1) > 1 && servers::cadence(framework).is_none() {
        let message = format!("{framework} has no prefill cadence");
        problems.push("serving.prefill_interval", message, format!("1, or a framework that has one: {has}"));
    }
    let (asked, ranks) = match plan {
        Some(Plan::Aggregated(a)) => (a.prefill_interval, a.parallel.dp),
        Some(Plan::Afd(a)) => {
            (a.prefill_interval, a.attention.gpus / a.attention.tp.max(1) * a.attention_groups.max(1))
        }
        _ => return,
    };
    if asked.unwrap_or(1) <= 1 {
        return;
    }
    if servers::cadence(framework).is_none() {
        let message = format!("{framework} has no prefill cadence");
        problems.push("plan.prefill_interval", message, format!("1, or a framework that has one: {has}"));
    } else if ranks <= 1 {
        let message = "acts between ranks of attention data parallelism, the plan has one rank";
        problems.push("plan.prefill_interval", message, "1, or dp above 1");
    }
}

/// How prompts fall on steps.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pace {
    /// Share of a rank's, and of the system's, steps that carry prompt tokens.
    pub f: f64,
    pub f_sys: f64,
    /// Prompt tokens on the fullest rank of a mixed step, and the mean rank's share of that.
    pub carried: f64,
    pub busy: f64,
    /// Steps that a prompt waits for its cycle, and for prompts of its rank that came in the same cycle.
    pub held: f64,
    pub behind: f64,
}

/// `needed` prompt tokens a step and rank, `room` for them, prompts of `isl` tokens on `ranks` ranks.
pub fn pace(interval: u32, needed: f64, isl: f64, room: f64, ranks: f64, aligned: bool) -> Pace {
    let parcel = isl.max(needed);
    let system = |q: f64| if aligned { q } else { 1.0 - (1.0 - q).powi(ranks as i32) };
    if interval <= 1 {
        let carried = room.min(parcel);
        let f = (needed / carried).min(1.0);
        let f_sys = system(f);
        let busy = if f_sys > 0.0 { f / f_sys } else { 1.0 };
        return Pace { f, f_sys, carried, busy, held: 0.0, behind: 0.0 };
    }
    let n = interval as usize;
    // Of the few that a search asks for without the heap: odds, odds of the fullest rank, and three sums of each slot.
    let (mut few, mut many) = ([0.0; 5 * FEW], Vec::new());
    let all = if n < FEW {
        &mut few[..5 * (n + 1)]
    } else {
        many.resize(5 * (n + 1), 0.0);
        &mut many[..]
    };
    let (odds, rest) = all.split_at_mut(n + 1);
    let (fullest, slots) = rest.split_at_mut(n + 1);
    binomial(odds, (needed / parcel).min(1.0));
    // The odds of more parcels are nothing beside those of fewer.
    let mut left = 1.0;
    let top = odds.iter().position(|p| {
        left -= p;
        left < NOTHING
    });
    let top = top.unwrap_or(n).max(1);
    let (mut below, mut before) = (0.0, 0.0);
    for (most, p) in fullest.iter_mut().zip(odds.iter()).take(top + 1) {
        below += p;
        let now = f64::min(below, 1.0).powi(ranks as i32);
        *most = now - before;
        before = now;
    }
    let spread = if aligned { &*odds } else { &*fullest };
    let (q, rest) = slots.split_at_mut(n);
    let (any, most) = rest.split_at_mut(n);
    deal([&mut *q, &mut *any, &mut *most], &odds[..=top], spread, parcel, room);
    let (mut shares, mut system_shares, mut tokens) = (0.0, 0.0, 0.0);
    for j in (0..n).filter(|j| q[*j] > 0.0) {
        let q = q[j].min(1.0);
        let s = system(q);
        shares += q;
        system_shares += s;
        tokens += if any[j] > 0.0 { s * most[j] / any[j] } else { 0.0 };
    }
    let (f, f_sys) = (shares / n as f64, system_shares / n as f64);
    let carried = (tokens / system_shares.max(f64::MIN_POSITIVE)).max(needed / f_sys.max(f64::MIN_POSITIVE)).min(room);
    let carried = if carried > 0.0 { carried } else { room.min(parcel) };
    let busy = if f_sys > 0.0 { (needed / (carried * f_sys)).min(1.0) } else { 1.0 };
    // Steps until each prompt of a burst is done, beyond those of the first: the i-th takes max(i ISL/r, 1).
    let (each, own) = (isl / room, (isl / room).max(1.0));
    let at_once = (room / isl).floor();
    let (mut prompts, mut steps) = (0.0, 0.0);
    for (k, odds) in odds.iter().enumerate().take(top + 1).skip(1) {
        let count = (k as f64 * parcel / isl).round().max(1.0);
        let later = (count - at_once).max(0.0);
        prompts += odds * count;
        steps += odds * later * (each * (at_once + (later + 1.0) / 2.0) - own);
    }
    let behind = if prompts > 0.0 { steps / prompts } else { 0.0 };
    Pace { f, f_sys, carried, busy, held: (n as f64 - 1.0) / 2.0, behind }
}

/// Deals 1, 2, .. parcels of these odds (`spread`: those of the fullest rank) to the slots of a cycle, `room` tokens each:
/// odds that a slot has work, odds that the fullest rank has some there, and its tokens.
fn deal([q, any, most]: [&mut [f64]; 3], odds: &[f64], spread: &[f64], parcel: f64, room: f64) {
    let n = q.len();
    // Each is put in as what slots up to one have and summed from the end of the cycle.
    let put = |of: &mut [f64], last: usize, before: f64, there: f64| {
        of[last] += there;
        if last > 0 {
            of[last - 1] += before - there;
        }
    };
    for k in 1..odds.len() {
        let (load, odds, spread) = (k as f64 * parcel, odds[k], spread[k]);
        let steps = load / room;
        // A step with any prompt token is mixed.
        if load <= room * n as f64 {
            let last = (steps.ceil().max(1.0) as usize - 1).min(n - 1);
            put(q, last, odds, odds);
            put(any, last, spread, spread);
            put(most, last, spread * room, spread * (load - last as f64 * room).min(room));
            continue;
        }
        // What overflows the cycle fills steps with what comes next, on top of the next.
        let cycles = (steps / n as f64).floor();
        let rest = (steps - cycles * n as f64).max(0.0);
        put(q, n - 1, odds * cycles, odds * cycles);
        put(q, (rest as usize).min(n - 1), odds, odds * rest.fract());
        put(any, n - 1, spread, spread);
        put(most, n - 1, spread * room, spread * room);
    }
    for of in [&mut *q, &mut *any, &mut *most] {
        (0..n - 1).rev().for_each(|j| of[j] += of[j + 1]);
    }
}

/// Odds of 0 to n successes, of which there is one number more than n: from the likeliest outwards, by the ratio of
/// neighbours, and then as shares of their sum.
fn binomial(odds: &mut [f64], p: f64) {
    let n = odds.len() - 1;
    if p <= 0.0 || p >= 1.0 {
        odds.fill(0.0);
        odds[if p > 0.0 { n } else { 0 }] = 1.0;
        return;
    }
    let ratio = p / (1.0 - p);
    let likeliest = ((n as f64 + 1.0) * p).min(n as f64) as usize;
    odds[likeliest] = 1.0;
    let mut sum = 1.0;
    for k in likeliest + 1..=n {
        odds[k] = odds[k - 1] * ratio * (n + 1 - k) as f64 / k as f64;
        sum += odds[k];
    }
    for k in (0..likeliest).rev() {
        odds[k] = odds[k + 1] * (k + 1) as f64 / ((n - k) as f64 * ratio);
        sum += odds[k];
    }
    odds.iter_mut().for_each(|o| *o /= sum);
}

#[cfg(test)]
mod tests {
    use super::{binomial, deal};

    /// Slot by slot, what overflows a cycle on top of the next.
    fn dealt_slowly(n: usize, odds: &[f64], spread: &[f64], parcel: f64, room: f64) -> [Vec<f64>; 3] {
        let [mut q, mut any, mut most] = [vec![0.0; n], vec![0.0; n], vec![0.0; n]];
        for k in 1..odds.len() {
            let load = k as f64 * parcel;
            let overflows = load > room * n as f64;
            let mut at = 0;
            let mut carried = vec![0.0; n];
            while at == 0 || at as f64 * room < load {
                let tokens = (load - at as f64 * room).min(room);
                q[at % n] += odds[k] * if overflows { tokens / room } else { 1.0 };
                carried[at % n] += tokens;
                at += 1;
            }
            for j in (0..n).filter(|j| carried[*j] > 0.0) {
                any[j] += spread[k];
                most[j] += spread[k] * carried[j].min(room);
            }
        }
        [q, any, most]
    }

    #[test]
    fn parcels_are_dealt_as_one_by_one() {
        let mut judged = 0;
        for n in [2, 4, 8, 16, 40] {
            for (parcel, room) in [(100.0, 3000.0), (1024.0, 1000.0), (8192.0, 700.0), (50.0, 50.0), (900.0, 350.5)] {
                let mut odds = vec![0.0; n + 1];
                binomial(&mut odds, 0.3);
                let spread: Vec<f64> = odds.iter().rev().copied().collect();
                let mut all = vec![0.0; 3 * n];
                let (q, rest) = all.split_at_mut(n);
                let (any, most) = rest.split_at_mut(n);
                deal([&mut *q, &mut *any, &mut *most], &odds, &spread, parcel, room);
                let slow = dealt_slowly(n, &odds, &spread, parcel, room);
                for (fast, slow) in [&*q, &*any, &*most].into_iter().flatten().zip(slow.iter().flatten()) {
                    assert!((fast - slow).abs() <= 1e-11 * slow.max(1.0), "{n} {parcel} {room}: {fast} {slow}");
                    judged += usize::from(*slow > 0.0);
                }
            }
        }
        assert!(judged > 500, "{judged}");
    }

    #[test]
    fn odds_are_those_of_draws_added_one_by_one() {
        for n in [1, 2, 16, 400] {
            for p in [0.0, 1e-9, 0.03, 0.5, 0.97, 1.0 - 1e-9, 1.0] {
                let mut slow = vec![0.0; n + 1];
                slow[0] = 1.0;
                for done in 1..=n {
                    for k in (1..=done).rev() {
                        slow[k] = slow[k - 1] * p + slow[k] * (1.0 - p);
                    }
                    slow[0] *= 1.0 - p;
                }
                let mut fast = vec![f64::NAN; n + 1];
                binomial(&mut fast, p);
                assert!(fast.iter().zip(&slow).all(|(a, b)| (a - b).abs() <= 1e-12), "{n} {p}");
            }
        }
    }
}
