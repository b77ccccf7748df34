//! How many prompts share a step when each takes several, and what that does to the mean step.
//!
//! A crowd (`crowd`) lets prompts begin when they come; servers begin them at the next step, or with steps scheduled ahead
//! at one later, so that two prompts share fewer steps than they overlap in time and more steps carry prompts. Steps with
//! prompts, t_m, come in runs; with p = exp(-lambda t_m) and p_d = exp(-lambda t_d) the odds that nobody comes in a step
//! with prompts and in one without, and c steps a prompt, a run and the gap after it last, in steps (nobody for c steps in
//! a row ends a run):
//!
//! ```text
//! a = 0   run  (p^-c - 1)/(1 - p)                gap  1/(1 - p_d)
//! a = 1   run  (p^-c - 1)/(1 - p) + 1 - p_d/p    gap  1 + p/(1 - p_d)
//! m = lambda c (run t_m + gap t_d) / run         prompts in a step with prompts
//! ```
//!
//! Against x/(1 - exp(-x)), x = lambda c t_m, of prompts that begin at once, this gives the share of company that is kept.
//! Limits: ranks without end (the crowd's own law holds for few), equal steps, one step scheduled ahead at most, prompts in
//! every step.

/// Prompts at a time beyond which every step has some, to the last digit.
const EVERY: f64 = 500.0;

/// An instance's steps, seconds, and the prompts that come to it.
pub(super) struct Steps<'a> {
    /// Prompts a second, and steps of each.
    pub arrivals: f64,
    pub chunks: f64,
    pub empty_s: f64,
    /// A step by the prompts in it.
    pub with_s: &'a dyn Fn(f64) -> f64,
    /// Steps scheduled ahead.
    pub ahead: f64,
}

impl Steps<'_> {
    /// Prompts in a step with prompts, those that begin at once against those that wait for a step.
    fn company(&self, with_s: f64) -> [f64; 2] {
        let offered = self.arrivals * self.chunks;
        let x = offered * with_s;
        if x > EVERY {
            return [x, x];
        }
        // Odds that somebody comes in a step, to the last digit where they are small.
        let somebody = |s: f64| -(-self.arrivals * s).exp_m1();
        let (q, some) = (somebody(with_s), somebody(self.empty_s));
        let (p, none) = ((-self.arrivals * with_s).exp(), (-self.arrivals * self.empty_s).exp());
        let (mut run, mut gap) = (x.exp_m1() / q, 1.0 / some);
        if self.ahead >= 1.0 {
            (run, gap) = (run + 1.0 - none / p, 1.0 + p / some);
        }
        [-x / (-x).exp_m1(), offered * (with_s + gap / run * self.empty_s)]
    }

    /// Mean step where `together` prompts share one.
    fn mean(&self, together: f64) -> f64 {
        let with_s = (self.with_s)(together);
        let with = (self.arrivals * self.chunks / together).min(1.0 / with_s);
        1.0 / (with + (1.0 - with * with_s) / self.empty_s)
    }

    /// How much longer the mean step is than where prompts begin at once, `together` of them in a step.
    pub(super) fn longer(&self, together: f64) -> f64 {
        let mut now = together;
        for _ in 0..8 {
            let [at_once, stepped] = self.company((self.with_s)(now));
            // Hardly anybody: no company to lose.
            let kept = if at_once > 1.0 { ((stepped - 1.0) / (at_once - 1.0)).clamp(0.0, 1.0) } else { 1.0 };
            now = 0.5 * (now + 1.0 + kept * (together - 1.0));
        }
        self.mean(now) / self.mean(together)
    }
}

#[cfg(test)]
mod tests {
    use rand_pcg::Pcg64;
    use rand_pcg::rand_core::{Rng, SeedableRng};

    use super::*;

    /// Prompts in a step with prompts, step by step, on ranks without end.
    fn walked(s: &Steps<'_>, seconds: f64) -> f64 {
        let mut rng = Pcg64::seed_from_u64(5);
        let mut gap = || -(1.0 - (rng.next_u64() >> 11) as f64 / (1_u64 << 53) as f64).ln() / s.arrivals;
        let (mut clock, mut next, mut sum, mut with) = (0.0, gap(), 0.0, 0.0);
        let mut left: Vec<f64> = Vec::new();
        let mut scheduled = std::collections::VecDeque::from(vec![0; s.ahead as usize]);
        while clock < seconds {
            sum += left.len() as f64;
            with += f64::from(u8::from(!left.is_empty()));
            clock += if left.is_empty() { s.empty_s } else { (s.with_s)(1.0) };
            left.iter_mut().for_each(|n| *n -= 1.0);
            left.retain(|n| *n > 0.0);
            let mut came = 0;
            while next < clock {
                (came, next) = (came + 1, next + gap());
            }
            scheduled.push_back(came);
            left.extend(std::iter::repeat_n(s.chunks, scheduled.pop_front().unwrap_or(0)));
        }
        sum / with
    }

    #[test]
    fn company_is_that_of_a_walk() {
        for (arrivals, chunks, empty_s, step) in
            [(1.8, 5.0, 0.035, 0.14), (0.9, 5.0, 0.035, 0.14), (3.0, 3.0, 0.03, 0.1), (0.6, 10.0, 0.03, 0.1)]
        {
            for ahead in [0.0, 1.0] {
                let with_s = |_: f64| step;
                let s = Steps { arrivals, chunks, empty_s, with_s: &with_s, ahead };
                let [at_once, stepped] = s.company(step);
                let seen = walked(&s, 40_000.0);
                assert!((stepped / seen - 1.0).abs() < 0.02, "{arrivals} {chunks} {ahead}: {stepped} {seen}");
                assert!(stepped < at_once && s.longer(at_once) > 1.0);
            }
        }
    }

    /// Hardly anybody, and more than any instance holds.
    #[test]
    fn the_ends_are_numbers() {
        let with_s = |_: f64| 0.14;
        for arrivals in [1e-300, 1e-17, 1e-15, 1e-12, 1e-6, 10.0, 100.0, 300.0, 700.0, 1e3, 1e4] {
            for ahead in [0.0, 1.0] {
                let s = Steps { arrivals, chunks: 5.0, empty_s: 0.035, with_s: &with_s, ahead };
                assert!(s.company(0.14).iter().all(|n| n.is_finite() && *n >= 1.0 - 1e-9), "{arrivals} {ahead}");
                for together in [1.0 + 1e-12, 2.0, 500.0] {
                    let longer = s.longer(together);
                    assert!(longer.is_finite() && longer > 0.0, "{arrivals} {ahead} {together}: {longer}");
                }
            }
        }
    }
}
