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
        let nobody = |s: f64| (-self.arrivals * s).exp();
        let (p, none) = (nobody(with_s), nobody(self.empty_s));
        let (mut run, mut gap) = ((p.powf(-self.chunks) - 1.0) / (1.0 - p), 1.0 / (1.0 - none));
        if self.ahead >= 1.0 {
            (run, gap) = (run + 1.0 - none / p, 1.0 + p / (1.0 - none));
        }
        let offered = self.arrivals * self.chunks;
        let x = offered * with_s;
        [x / (1.0 - (-x).exp()), offered * (run * with_s + gap * self.empty_s) / run]
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
            let kept = ((stepped - 1.0) / (at_once - 1.0)).clamp(0.0, 1.0);
            now = 0.5 * (now + 1.0 + kept * (together - 1.0));
        }
        self.mean(now) / self.mean(together)
    }
}
