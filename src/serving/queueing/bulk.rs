//! Bulk service: prompts that wait at the start of a step are computed in it, as many as fit.
//!
//! Chain over q, the prompts that stand at the start of a step: the step computes min(q, K) of them in T(q) seconds, and
//! Poisson(lambda T(q)) come meanwhile (Bailey, J. R. Stat. Soc. B 16, 1954, with a service time that depends on the batch;
//! an empty step is a server's vacation: Doshi, Queueing Systems 1, 1986). The stationary law by iteration, its tail
//! started at the decay z of z^K = exp(lambda T (z - 1)). An instance that has nothing to decode rests and starts at once
//! when a prompt comes.
//!
//! Limit: Poisson arrivals, prompts alike, an endless queue; prompts that a prefix cache shortens count by their mean.

/// Steps of one instance.
pub struct Bulk<'a> {
    /// Prompts a second.
    pub arrivals: f64,
    /// Prompts that a step holds at most.
    pub capacity: usize,
    /// Seconds of a step that starts with so many prompts; the last for all more.
    pub time: &'a [f64],
    /// Seconds between the end of one such step and the start of the next (prefill cadence).
    pub pause: f64,
    /// Whether it rests when there is no prompt.
    pub rests: bool,
    /// In hand at most, the others go elsewhere.
    pub limit: Option<usize>,
}

/// What is known of a prompt's way.
#[derive(Clone, Debug)]
pub struct Solved {
    pub odds: Vec<f64>,
    /// From arrival to the end of its step, and of that the step in flight when it came.
    pub stay_s: f64,
    pub residual_s: f64,
    /// Mean seconds of a step, pauses counted as steps of their own.
    pub round_s: f64,
    /// Mean number in hand, and the share of arrivals that went elsewhere.
    pub in_hand: f64,
    pub lost: f64,
}

/// Odds of 0, 1, 2... arrivals, until they no longer count.
pub(crate) fn poisson(mean: f64) -> Vec<f64> {
    let most = (mean + 8.0 * (mean + 1.0).sqrt()) as usize + 2;
    let mut log = -mean;
    (0..most)
        .map(|i| {
            let p = log.exp();
            log += (mean.max(1e-300) / (i as f64 + 1.0)).ln();
            p
        })
        .collect()
}

const STATES: usize = 600;
const ROUNDS: usize = 200;

impl Bulk<'_> {
    pub(crate) fn time(&self, q: usize) -> f64 {
        self.time[q.min(self.time.len() - 1)]
    }

    /// From the start of one step to that of the next.
    pub(crate) fn cycle(&self, q: usize) -> f64 {
        self.time(q) + self.pause
    }

    /// How fast the odds of a long queue fall.
    fn decay(&self) -> Option<f64> {
        let (k, sure) = (self.capacity as f64, self.arrivals * self.cycle(self.capacity.max(self.time.len())));
        if sure >= k {
            return None;
        }
        let gap = |z: f64| k * z.ln() - sure * (z - 1.0);
        let (mut low, mut high) = (k / sure, 2.0 * k / sure + 1.0);
        while gap(high) > 0.0 {
            high *= 2.0;
        }
        for _ in 0..50 {
            let middle = 0.5 * (low + high);
            if gap(middle) > 0.0 { low = middle } else { high = middle }
        }
        Some(1.0 / low)
    }

    /// None: it grows without end.
    pub(crate) fn solve(&self) -> Option<Solved> {
        let kinds = self.time.len();
        let rows: Vec<Vec<f64>> = (0..kinds).map(|q| poisson(self.arrivals * self.cycle(q))).collect();
        let (decay, most) = match self.limit {
            Some(limit) => (0.5, limit),
            None => {
                let decay = self.decay()?;
                let tail = (1e-7_f64.ln() / decay.ln()).min(STATES as f64) as usize;
                (decay, (self.capacity + tail + rows.iter().map(Vec::len).max().unwrap_or(0)).min(STATES))
            }
        };
        let least = usize::from(self.rests);
        let centre = (self.arrivals * self.cycle(kinds - 1)).min(most as f64);
        let mut odds: Vec<f64> = (0..=most).map(|q| decay.powf((q as f64 - centre).max(0.0) / 2.0)).collect();
        let mut next = vec![0.0; most + 1];
        let mut lost = 0.0;
        for round in 0..ROUNDS {
            let sum: f64 = odds.iter().sum();
            odds.iter_mut().for_each(|p| *p /= sum);
            next.fill(0.0);
            lost = 0.0;
            for (q, p) in odds.iter().enumerate().filter(|(_, p)| **p > 1e-13) {
                let left = q.saturating_sub(self.capacity);
                let room = self.limit.map_or(most, |l| l.saturating_sub(q));
                for (i, r) in rows[q.min(kinds - 1)].iter().enumerate() {
                    let come = i.min(room);
                    lost += p * r * (i - come) as f64;
                    next[(left + come).min(most).max(least)] += p * r;
                }
            }
            let gap: f64 = odds.iter().zip(&next).map(|(a, b)| (a - b).abs()).sum();
            std::mem::swap(&mut odds, &mut next);
            if gap < 2e-6 {
                break;
            }
            if round % 4 == 3 && self.limit.is_none() {
                self.level(&mut odds);
            }
        }
        let sum: f64 = odds.iter().sum();
        odds.iter_mut().for_each(|p| *p /= sum);
        Some(self.measure(odds, lost))
    }

    /// The mass beyond the capacity is what the iteration is slow to find: as much of it as keeps the mean number level.
    fn level(&self, odds: &mut [f64]) {
        let (mut body, mut tail) = (0.0, 0.0);
        for (q, p) in odds.iter().enumerate() {
            let drift = p * (self.arrivals * self.cycle(q) - q.min(self.capacity) as f64);
            if q <= self.capacity {
                // Who comes to a resting instance comes as well.
                body += drift + if self.rests { p * (-self.arrivals * self.cycle(q)).exp() } else { 0.0 };
            } else {
                tail += drift;
            }
        }
        if body > 0.0 && tail < 0.0 {
            let factor = (body / -tail).clamp(0.25, 4.0);
            odds[self.capacity + 1..].iter_mut().for_each(|p| *p *= factor);
        }
    }

    fn measure(&self, odds: Vec<f64>, lost: f64) -> Solved {
        let (mut total, mut inside, mut residual, mut came) = (0.0, 0.0, 0.0, 0.0);
        for (q, p) in odds.iter().enumerate() {
            let (t, cycle) = (self.time(q), self.cycle(q));
            total += p * cycle;
            // In the step; left over during the pause; and who comes meanwhile.
            let mean = self.arrivals * cycle;
            let come = self.limit.map_or(mean, |l| {
                let room = l.saturating_sub(q);
                poisson(mean).iter().enumerate().map(|(i, r)| r * i.min(room) as f64).sum()
            });
            inside += p * (q as f64 * t + q.saturating_sub(self.capacity) as f64 * self.pause + 0.5 * come * cycle);
            residual += p * 0.5 * come * cycle;
            came += p * come;
            if self.rests && q <= self.capacity {
                // Nobody came: it waits for the next one.
                let empty = p * self.nobody(q, mean);
                total += empty / self.arrivals;
                came += empty;
            }
        }
        let mean_round = odds.iter().enumerate().map(|(q, p)| p * self.cycle(q)).sum();
        Solved {
            stay_s: inside / came,
            residual_s: residual / came,
            round_s: mean_round,
            in_hand: inside / total,
            lost: lost / (lost + came),
            odds,
        }
    }

    /// Odds that a step that starts with q ends with nobody waiting.
    fn nobody(&self, q: usize, mean: f64) -> f64 {
        if self.limit.is_some_and(|l| l <= q) { 1.0 } else { (-mean).exp() }
    }

    /// The law of a prompt's stay: the rest of the step in flight, and steps until its own is done.
    pub(crate) fn body(&self, solved: &Solved) -> Vec<(f64, f64)> {
        const PARTS: usize = 6;
        let mut body = Vec::new();
        for (q, p) in solved.odds.iter().enumerate().filter(|(_, p)| **p > 1e-6) {
            let cycle = self.cycle(q);
            let mean = self.arrivals * cycle;
            let left = q.saturating_sub(self.capacity);
            let room = self.limit.map_or(usize::MAX, |l| l.saturating_sub(q));
            for (others, r) in poisson(mean).iter().enumerate().filter(|(i, r)| **r > 1e-4 && *i < room) {
                let together = left + others + 1;
                for part in 0..PARTS {
                    let at = (part as f64 + 0.5) / PARTS as f64;
                    // Those who came before it go first.
                    let ahead = left + ((1.0 - at) * others as f64).round() as usize;
                    let rounds = ahead / self.capacity.max(1);
                    let own = self.time(together - rounds * self.capacity.min(together));
                    let full = rounds as f64 * self.cycle(self.capacity.max(together));
                    body.push((at * cycle + full + own.max(self.time(1)), p * r * cycle / PARTS as f64));
                }
            }
            if self.rests && q <= self.capacity {
                body.push((self.time(1), p * self.nobody(q, mean) / self.arrivals.max(1e-12)));
            }
        }
        body
    }
}
