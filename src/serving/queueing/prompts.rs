//! How long a prompt takes on ranks that step together, when prompts come at a rate of their own.
//!
//! A prompt that comes while a step runs waits for its end (the residual T^2/2T of the steps, longer ones being met more
//! often), perhaps for prompts before it, and then has its own steps. Two regimes:
//!
//! - *A step holds whole prompts* (room >= ISL): bulk service (`bulk`), q prompts in a step of T(q). Where prompts come in
//!   every n-th step only, T(q) includes what the last prompt of a rank has left for the step after.
//! - *A prompt takes several steps* (n = ceil(ISL/room) chunks): each rank is a server; a step is as long as the fullest
//!   rank makes it, so k prompts in service take T(k) a step: a crowd (`crowd`). Who finds a free rank waits for the step
//!   in flight; who finds all taken waits for a rank, where the end of a step is part of the wait already.
//!
//! Prompts fall on ranks by the requests in hand, decoding ones included, so a rank may get a prompt while another is
//! free. In equilibrium every arrival has a departure: half of the arrivals find a rank that an answer has just left, which
//! is any; the others find the ranks in turn. A step that holds whole prompts therefore mixes an even deal and a random one
//! in equal parts. Of prompts of many steps, one meets another's on its rank with odds rho E[1/x], x (the ranks with
//! the fewest in hand) even over 1..D, and waits half a prompt; longer lines are seen by the router.
//! Limits: prompts of equal length in a step; lockstep is that of one instance.

use super::bulk::{Bulk, Solved, poisson};
use super::crowd::Crowd;
use super::overlap::Steps;
use super::spread::{Spread, Wait};
use crate::cost::Batch;
use crate::serving::path;
use crate::serving::steady_state::Load;
use crate::serving::step_engine::{EngineKind, StepEngine};

/// Steps of one instance: its ranks, each with the sequences of all pipeline stages.
pub struct Clock<'a> {
    pub s: &'a StepEngine,
    pub load: &'a Load,
    pub stages: f64,
    pub ranks: f64,
    /// Tokens that a step of a rank holds.
    pub budget: f64,
    pub per_decode: f64,
    /// Steps between two that let prompts in.
    pub interval: f64,
    /// Least time of a step with prompts.
    launch_s: f64,
}

/// Prompts of one instance among equal ones.
pub struct Fast {
    pub spread: Spread,
    pub ttft_s: f64,
    /// Of that, its own steps.
    pub own_s: f64,
    /// Mean seconds of a step.
    pub step_s: f64,
    /// The same of the step after the one that an arrival meets, none where a line hides it.
    pub next_s: f64,
    /// Prompts in hand of an instance, and the share that found it full.
    pub in_hand: f64,
    pub lost: f64,
}

/// Levels of a step (prompts on the fullest rank) that are priced at most.
const LEVELS: usize = 64;

impl<'a> Clock<'a> {
    pub(crate) fn new(s: &'a StepEngine, load: &'a Load, budget: f64, interval: u32) -> Clock<'a> {
        let stages = s.stages_in_flight();
        let per_decode = 1.0 + f64::from(s.library().serving.mtp);
        let (launch_s, interval) = (path::launch_s(s.library()), f64::from(interval));
        Clock { s, load, stages, ranks: s.ranks(), budget: budget * stages, per_decode, interval, launch_s }
    }

    /// KV of the fullest rank: with the fewest-in-hand router ranks differ by one sequence, the fullest is half above the mean.
    fn context(&self, b: f64) -> f64 {
        let full = if self.ranks > 1.0 { ((b + 0.5) / b).min(2.0) } else { 1.0 };
        self.s.slowest_context(b / self.stages, self.load.context) * full
    }

    /// A step without prompts, `b` decoding on each rank.
    pub(crate) fn decode(&self, b: f64) -> f64 {
        if b > 0.0 { self.s.decode(b / self.stages, self.context(b)).seconds } else { 0.0 }
    }

    /// A step with `tokens` prompt tokens on the fullest rank and `busy` of that on the mean one.
    fn mixed(&self, b: f64, tokens: f64, past: f64, busy: f64) -> f64 {
        let context = if b > 0.0 { self.context(b) } else { 0.0 };
        let decode =
            Batch { decode: b / self.stages, context, per_decode: self.per_decode, busy: 1.0, ..Batch::default() };
        // Prompts fill the batches of as few stages of an AFD unit as hold them.
        let with = match self.s.kind {
            EngineKind::Afd(_) if b > 0.0 => (tokens * self.stages / self.budget).ceil().clamp(1.0, self.stages),
            _ => self.stages,
        };
        let sequences = (tokens / self.load.isl).max(1.0);
        let batch = Batch {
            sequences,
            new: tokens / sequences / with,
            past,
            busy,
            ending: tokens / self.load.isl / with,
            ..decode
        };
        let seconds = self.s.step(&batch).seconds.max(self.launch_s);
        if with == self.stages {
            return seconds;
        }
        (with * seconds + (self.stages - with) * self.s.step(&decode).seconds) / self.stages
    }

    /// `arrivals` prompts a second and instance, of which there are `twins`, beside `b` decoding on each rank. `decodes`:
    /// steps go on without prompts. `limit`: in hand at most. None: the queue grows without end.
    pub(crate) fn prompts(
        &self,
        arrivals: f64,
        b: f64,
        twins: f64,
        decodes: bool,
        limit: Option<usize>,
    ) -> Option<Fast> {
        let room = self.budget - b * self.per_decode;
        if room < 1.0 {
            return None;
        }
        if room >= self.load.isl {
            self.whole(arrivals, b, room, decodes, limit)
        } else {
            self.cut(arrivals, b, room, twins, decodes)
        }
    }

    /// Workers of one rank, each with one prompt at a time: the servers of one queue.
    pub(crate) fn servers(&self, rate: f64, count: f64) -> Option<Fast> {
        let (isl, prefix) = (self.load.isl, self.load.prefix);
        let chunks = (isl / self.budget).ceil().max(1.0);
        let rest = isl - (chunks - 1.0) * self.budget.min(isl);
        let full =
            if chunks > 1.0 { self.mixed(0.0, self.budget, prefix + (isl - self.budget) / 2.0, 1.0) } else { 0.0 };
        let own = (chunks - 1.0) * full + self.mixed(0.0, rest, prefix + isl - rest, 1.0);
        let crowd = Crowd::new(rate, count as usize, 0.0, |n| n / own)?;
        Some(Fast {
            spread: Spread { body: vec![(own, 1.0)], waits: [Wait::of(crowd.delay, crowd.wait_s), Wait::default()] },
            ttft_s: own + crowd.wait_s,
            own_s: own,
            step_s: own / chunks,
            next_s: 0.0,
            in_hand: crowd.inside + rate * crowd.wait_s,
            lost: 0.0,
        })
    }

    /// A step holds whole prompts.
    fn whole(&self, arrivals: f64, b: f64, room: f64, decodes: bool, limit: Option<usize>) -> Option<Fast> {
        let (isl, d) = (self.load.isl, self.ranks);
        // Under a cadence a prompt that the budget cuts goes on in the step after, where no other comes in.
        let paced = decodes && self.interval > 1.0;
        let held = if paced { (room / isl).ceil() } else { room / isl };
        let capacity = (d * held + 1e-9).floor().clamp(1.0, 1000.0);
        let levels = (room / isl).ceil().min(LEVELS as f64) as usize;
        // Of each level: one rank has so many prompts, or all have.
        let mut ends: Vec<(f64, f64)> = Vec::new();
        for l in 1..=levels {
            let tokens = (l as f64 * isl).min(room);
            let all = self.mixed(b, tokens, self.load.prefix, 1.0);
            let one = if d > 1.0 { self.mixed(b, tokens, self.load.prefix, isl / (tokens * d)) } else { all };
            let left = if paced { l as f64 * isl - tokens } else { 0.0 };
            let more = |busy: f64| {
                if left > 0.0 { self.mixed(b, left, self.load.prefix + isl - left, busy) - self.decode(b) } else { 0.0 }
            };
            ends.push((one + more(1.0 / d), all + more(1.0)));
            // Far more than come in a step that long.
            let holds = l as f64 * d;
            if holds > 2.0 * d + 2.0 * arrivals * (all + self.decode(b) * (self.interval - 1.0)) + 10.0 {
                break;
            }
        }
        let at = |q: f64, level: f64| {
            let level = (level as usize).clamp(1, ends.len());
            let (one, all) = ends[level - 1];
            let least = 1.0 / (level as f64 * d);
            if least >= 1.0 { all } else { one + (all - one) * ((q * least).min(1.0) - least) / (1.0 - least) }
        };
        let most = capacity.min(ends.len() as f64 * d) as usize;
        let mut time = vec![if decodes { self.decode(b) } else { 0.0 }];
        for q in 1..=most {
            let n = q as f64;
            let even = at(n, (n / d).ceil());
            time.push(if d > 1.0 && decodes {
                0.5 * (even + random_deal(q, d, ends.len(), |l| at(n, l)))
            } else {
                even
            });
        }
        let pause = if decodes { (self.interval - 1.0) * time[0] } else { 0.0 };
        let bulk = Bulk { arrivals, capacity: capacity as usize, time: &time, pause, rests: !decodes, limit };
        let solved: Solved = bulk.solve()?;
        let step_s = solved.round_s / if decodes { self.interval } else { 1.0 };
        Some(Fast {
            spread: Spread { body: bulk.body(&solved), ..Spread::default() },
            ttft_s: solved.stay_s,
            own_s: solved.stay_s - solved.residual_s,
            step_s,
            // Under a cadence: who comes in the step before one that lets prompts in waits for the next such.
            next_s: if paced { time[0] } else { step_s },
            in_hand: solved.in_hand,
            lost: solved.lost,
        })
    }

    /// A prompt takes several steps.
    fn cut(&self, arrivals: f64, b: f64, room: f64, twins: f64, decodes: bool) -> Option<Fast> {
        let (isl, prefix, d) = (self.load.isl, self.load.prefix, self.ranks);
        let chunks = (isl / room).ceil();
        let (share, rest) = (isl / room - chunks + 1.0, isl - (chunks - 1.0) * room);
        let empty = if decodes { self.decode(b) } else { 0.0 };
        let ends = |tokens: f64, past: f64| {
            let one = self.mixed(b, tokens, past, 1.0 / d);
            (one, if d > 1.0 { self.mixed(b, tokens, past, 1.0) } else { one })
        };
        let (full_ends, last_ends) = (ends(room, prefix + (isl - room) / 2.0), ends(rest, prefix + isl - rest));
        let line = |(one, all): (f64, f64), k: f64| {
            if d > 1.0 { one + (all - one) * (k - 1.0).max(0.0) / (d - 1.0) } else { one }
        };
        // Prompts in service on an instance when n are on all of them; the others' mean step carries isl/chunks tokens.
        let beside = |n: f64| (n / twins - 1.0).max(0.0);
        let full = |n: f64| line(full_ends, 1.0 + beside(n) * isl / room / chunks);
        // The last chunk has the step for itself if no other rank has a full one.
        let last = |n: f64| {
            let alone = chunks.powf(-beside(n));
            alone * line(last_ends, 1.0 + beside(n)) + (1.0 - alone) * line(full_ends, 1.0 + (beside(n) - 1.0).max(0.0))
        };
        let servers = d * twins;
        let stay = |n: f64, behind: f64| (chunks - 1.0) * full(n) + (1.0 - behind) * last(n) + behind * share * full(n);
        let mut behind = 0.0;
        let mut found: Option<Crowd> = None;
        // Odds that the next prompt fills the last step.
        for _ in 0..4 {
            match Crowd::new(arrivals * twins, servers as usize, 0.0, |n| n / stay(n.max(1.0), behind)) {
                Some(c) => {
                    let now = c.delay;
                    found = Some(c);
                    if (now - behind).abs() < 1e-3 {
                        break;
                    }
                    behind = now;
                }
                None if behind < 1.0 => behind = 1.0,
                None => break,
            }
        }
        let crowd = found?;
        let (mut residual, mut own, mut pace, mut next) = (0.0, 0.0, 0.0, 0.0);
        let mut body = Vec::new();
        // Mean step of an instance with prompts, and the mean of those that arrivals meet.
        let with_prompts = |n: f64| {
            let (f, l) = (full(n), last(n));
            let (many, lasts) = (chunks - 1.0 + behind * share, 1.0 - behind);
            let time = many * f + lasts * l;
            (time / (many + lasts), (many * f * f + lasts * l * l) / time)
        };
        // The same of an instance with x prompts in service on average.
        let step = |n: f64| {
            let x = n / twins;
            let (mean, met) = with_prompts(n.max(twins));
            if x >= 1.0 {
                (mean, met)
            } else {
                (1.0 / (x / mean + (1.0 - x) / empty.max(1e-12)), x * met + (1.0 - x) * empty)
            }
        };
        for (n, p) in crowd.law() {
            let n = n as f64;
            let (mean, met) = step(n);
            let free = n < servers;
            let met = if d > 1.0 { met } else { empty };
            next += if free { p * if d > 1.0 && self.interval <= 1.0 { mean } else { empty } } else { 0.0 };
            let met = if free { met } else { 0.0 } + (self.interval - 1.0) * mean * f64::from(u8::from(decodes));
            let with = (n + 1.0).min(servers);
            let steps = (chunks - 1.0) * full(with) + behind * full(with) + (1.0 - behind) * last(with);
            residual += p * 0.5 * met;
            own += p * steps;
            pace += p / mean.max(1e-12);
            for part in 0..4 {
                body.push(((f64::from(part) + 0.5) / 4.0 * met + steps, 0.25 * p));
            }
        }
        let mut step_s = if pace > 0.0 { 1.0 / pace } else { 0.0 };
        if decodes && self.interval <= 1.0 && empty > 0.0 {
            let at_once = |n: f64| (n / twins).min(d);
            let (some, all) = crowd
                .law()
                .map(|(n, p)| (p, at_once(n as f64)))
                .fold((0.0, 0.0), |(some, all), (p, n)| (some + p * n.min(1.0), all + p * n));
            let together = all / some;
            if together > 1.0 {
                let with_s = |n: f64| with_prompts(n * twins).0;
                let ahead = path::steps_ahead(self.s.library());
                let chunks = chunks - behind + behind * share;
                let steps = Steps { arrivals, chunks, empty_s: empty, with_s: &with_s, ahead };
                step_s *= steps.longer(together);
            }
        }
        let rho = crowd.inside / servers;
        let picked = (1..=servers as u32).map(|i| 1.0 / f64::from(i)).sum::<f64>() / servers;
        let (met_odds, met_s) = if servers > 1.0 && decodes { (picked * rho, 0.5 * own) } else { (0.0, 0.0) };
        // Instances share their waiting line only as far as the router deals in turn.
        let alone = if d > 1.0 && twins > 1.0 {
            Crowd::new(arrivals, d as usize, 0.0, |n| n / stay((n * twins).max(1.0), behind))
        } else {
            None
        };
        let (delay, wait_s) = alone
            .map_or((crowd.delay, crowd.wait_s), |a| (0.5 * (a.delay + crowd.delay), 0.5 * (a.wait_s + crowd.wait_s)));
        let queue = wait_s + met_odds * met_s;
        let odds = (delay + met_odds).min(1.0);
        let ttft_s = residual + queue + own;
        Some(Fast {
            spread: Spread { body, waits: [Wait::of(odds, queue), Wait::default()] },
            ttft_s,
            own_s: own,
            step_s,
            next_s: (1.0 - met_odds) * next,
            in_hand: arrivals * ttft_s,
            lost: 0.0,
        })
    }
}

/// Mean of `time(level)` when q prompts fall on d ranks at random; level: prompts on the fullest.
fn random_deal(q: usize, d: f64, levels: usize, time: impl Fn(f64) -> f64) -> f64 {
    let n = q as f64;
    let apart: f64 = if n <= d { (0..q).map(|i| 1.0 - i as f64 / d).product() } else { 0.0 };
    let odds = poisson(n / d);
    let (mut below, mut last, mut sum) = (0.0, 0.0, 0.0);
    for level in 0..=levels {
        below += odds.get(level).copied().unwrap_or(0.0);
        let now = match level {
            0 => 0.0,
            1 => apart,
            l if l == levels && levels > 1 => 1.0,
            // Ranks are about independent.
            _ => f64::min(below, 1.0).powf(d).max(last),
        };
        sum += (now - last) * time(level as f64);
        last = now;
    }
    sum + (1.0 - last) * time(levels as f64)
}
