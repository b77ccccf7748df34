//! What is asked of the system: lengths of prefix (cached), prompt (new) and answer.
//!
//! A correlation of prompt and answer is a mixture: a share of the requests has the two rise together
//! (or one rise as the other falls), the rest is independent. Both marginals and the correlation are
//! then exact, and every moment is the same mixture of two. Limit: only one of the shapes of joint
//! distributions that have these three; joint samples (`lengths`) keep the real one.

use serde::Serialize;

use crate::error::Problems;

use super::distribution::{Distribution, correlation_range, extreme_moment};
use super::json::json_methods;
use super::limits::{Check, LONG};
use super::record::{choices, record};

choices! {
    /// Where a prefix lives (memory) and how it is shared.
    #[derive(Default)]
    PrefixScope {
        /// Private KV per sequence (an agent's session).
        #[default]
        Request = "request",
        /// One copy per attention rank (a system prompt).
        Shared = "shared",
    }
    /// Which side of a P/D plan keeps the prefix.
    #[derive(Default)]
    PrefixHome {
        #[default]
        Both = "both",
        Prefill = "prefill",
        Decode = "decode",
    }
}

record! {
    /// What is asked of the system. `isl` counts NEW tokens, `prefix` cached ones.
    pub struct Workload as workload {
        /// What it is called.
        pub name: String,
        /// Where the lengths come from.
        pub source: String,
        /// Cached tokens before the prompt.
        pub prefix: Distribution,
        /// New prompt tokens.
        pub isl: Distribution,
        /// Output tokens.
        pub osl: Distribution,
        /// Pearson correlation of isl and osl.
        pub correlation: f64 = 0.0,
        /// Joint samples (prefix, isl, osl), if the workload is made of them; they replace the three marginals.
        pub lengths: Vec<[f64; 3]> = Vec::new(),
        /// ``"request"`` or ``"shared"``.
        pub prefix_scope: PrefixScope = PrefixScope::default(),
        /// ``"both"``, ``"prefill"`` or ``"decode"``.
        pub prefix_home: PrefixHome = PrefixHome::default(),
        /// Whether a sequence longer than the model's context is an error.
        pub strict_context: bool = false,
    }
}

json_methods!(Workload => "workload");

/// Means of one request.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Means {
    pub prefix: f64,
    pub isl: f64,
    pub osl: f64,
}

/// E[P], E[P^2], E[D], E[D^2], E[D^3], E[PD], E[P^2 D], E[P D^2] with P = prefix + isl and D = osl.
struct Moments {
    d: f64,
    dd: f64,
    ddd: f64,
    pd: f64,
    ppd: f64,
    pdd: f64,
}

impl Workload {
    /// A workload of constant lengths.
    pub fn fixed(name: &str, prefix: f64, isl: f64, osl: f64) -> Self {
        Workload {
            name: name.into(),
            source: String::new(),
            prefix: Distribution::fixed(prefix),
            isl: Distribution::fixed(isl),
            osl: Distribution::fixed(osl),
            correlation: 0.0,
            lengths: Vec::new(),
            prefix_scope: PrefixScope::default(),
            prefix_home: PrefixHome::default(),
            strict_context: false,
        }
    }

    /// The same requests up to their first token: what a prefill slot holds of them.
    pub fn prefill_part(&self) -> Workload {
        let lengths = self.lengths.iter().map(|l| [l[0], l[1], 1.0]).collect();
        Workload { osl: Distribution::fixed(1.0), correlation: 0.0, lengths, ..self.clone() }
    }

    /// Whether every request has the same lengths.
    pub fn is_fixed(&self) -> bool {
        if self.lengths.is_empty() {
            self.prefix.is_fixed() && self.isl.is_fixed() && self.osl.is_fixed()
        } else {
            self.lengths.iter().all(|l| *l == self.lengths[0])
        }
    }

    pub fn means(&self) -> Means {
        if self.lengths.is_empty() {
            return Means { prefix: self.prefix.mean(), isl: self.isl.mean(), osl: self.osl.mean() };
        }
        let n = self.lengths.len() as f64;
        let mean = |i: usize| self.lengths.iter().map(|l| l[i]).sum::<f64>() / n;
        Means { prefix: mean(0), isl: mean(1), osl: mean(2) }
    }

    /// Stationary mean KV tokens of a busy decode slot: `E[DP + D(D-1)/2] / E[D]` (arXiv 2601.21351).
    /// Exact for fixed lengths, joint samples and marginals, correlated or not.
    pub fn theta(&self) -> f64 {
        let m = self.moments();
        (m.pd + (m.dd - m.d) / 2.0) / m.d
    }

    /// Standard deviation of the KV tokens of a busy decode slot, seen at a random step.
    pub fn slot_load_std(&self) -> f64 {
        let m = self.moments();
        // Sum over k < D of (P + k)^2.
        let square = (m.ppd + (m.pdd - m.pd) + (2.0 * m.ddd - 3.0 * m.dd + m.d) / 6.0) / m.d;
        (square - self.theta().powi(2)).max(0.0).sqrt()
    }

    fn moments(&self) -> Moments {
        if self.lengths.is_empty() {
            let (x, i, d) = (&self.prefix, &self.isl, &self.osl);
            let p = x.mean() + i.mean();
            let pp = x.variance() + i.variance() + p * p;
            let (d1, d2) = (d.mean(), d.moment(2));
            let mut m = Moments { d: d1, dd: d2, ddd: d.moment(3), pd: p * d1, ppd: pp * d1, pdd: p * d2 };
            let (share, together) = self.coupled();
            if share > 0.0 {
                // What the coupled share adds to E[I^a D^b] of independent lengths.
                let more =
                    |a, b, alone: f64| share * (extreme_moment(i, d, [a, b], together) - i.moment(a as u32) * alone);
                let (id, iid, idd) = (more(1, 1, d1), more(2, 1, d1), more(1, 2, d2));
                m.pd += id;
                m.ppd += 2.0 * x.mean() * id + iid;
                m.pdd += idd;
            }
            return m;
        }
        let n = self.lengths.len() as f64;
        let mean = |f: &dyn Fn(f64, f64) -> f64| self.lengths.iter().map(|[x, i, d]| f(x + i, *d)).sum::<f64>() / n;
        Moments {
            d: mean(&|_, d| d),
            dd: mean(&|_, d| d * d),
            ddd: mean(&|_, d| d * d * d),
            pd: mean(&|p, d| p * d),
            ppd: mean(&|p, d| p * p * d),
            pdd: mean(&|p, d| p * d * d),
        }
    }

    /// Mean length of a finished sequence.
    pub(crate) fn mean_final_tokens(&self) -> f64 {
        let m = self.means();
        m.prefix + m.isl + m.osl
    }

    /// Longest sequence: the largest lengths together, or the 99.9 % points where there is no largest.
    pub fn peak_tokens(&self) -> f64 {
        if self.lengths.is_empty() {
            return self.prefix.peak() + self.isl.peak() + self.osl.peak();
        }
        self.lengths.iter().map(|l| l.iter().sum::<f64>()).fold(0.0, f64::max)
    }

    /// The share of the requests whose prompt and answer are coupled, and whether those rise together.
    fn coupled(&self) -> (f64, bool) {
        if self.correlation == 0.0 || !self.lengths.is_empty() {
            return (0.0, true);
        }
        let Some([least, most]) = correlation_range(&self.isl, &self.osl) else { return (0.0, true) };
        let together = self.correlation > 0.0;
        ((self.correlation / if together { most } else { least }).min(1.0), together)
    }

    /// Draws requests (prefix, isl, osl) in whole tokens from three uniforms in [0, 1); joint samples use the first.
    pub fn sampler(&self) -> impl Fn([f64; 3]) -> [u32; 3] + '_ {
        let coupled = self.coupled();
        move |u| self.draw(u, coupled)
    }

    /// One request.
    pub fn sample(&self, u: [f64; 3]) -> [u32; 3] {
        self.draw(u, self.coupled())
    }

    fn draw(&self, u: [f64; 3], (share, together): (f64, bool)) -> [u32; 3] {
        let drawn = if self.lengths.is_empty() {
            // The third uniform says first whether this request is coupled; what is left of it is uniform again.
            let answer = match u[2] {
                v if v >= share => (v - share) / (1.0 - share),
                _ if together => u[1],
                // Never the end of an endless tail.
                _ => (1.0 - u[1]).min(1.0 - f64::EPSILON),
            };
            [self.prefix.sample(u[0]), self.isl.sample(u[1]), self.osl.sample(answer)]
        } else {
            let i = (u[0].clamp(0.0, 1.0) * self.lengths.len() as f64) as usize;
            self.lengths[i.min(self.lengths.len() - 1)]
        };
        let whole = |x: f64, low: f64| x.round().clamp(low, LONG) as u32;
        [whole(drawn[0], 0.0), whole(drawn[1], 1.0), whole(drawn[2], 1.0)]
    }

    /// Everything that is wrong; paths are relative to it.
    pub fn check(&self) -> Problems {
        let mut c = Check::new();
        if self.lengths.is_empty() {
            self.prefix.check_from(&mut c, "prefix", 0.0);
            self.isl.check_from(&mut c, "isl", 1.0);
            self.osl.check_from(&mut c, "osl", 1.0);
        }
        self.check_correlation(&mut c);
        for (i, sample) in self.lengths.iter().enumerate() {
            for (name, (value, low)) in ["prefix", "isl", "osl"].iter().zip(sample.iter().zip([0.0, 1.0, 1.0])) {
                c.range(&format!("lengths[{i}].{name}"), *value, low, LONG);
            }
            // A bad file has one reason, not a hundred thousand.
            if c.problems.0.len() >= 10 {
                break;
            }
        }
        c.problems
    }

    fn check_correlation(&self, c: &mut Check) {
        let r = self.correlation;
        if !(-1.0..=1.0).contains(&r) {
            c.wrong("correlation", format!("must be from -1 to 1, is {r}"), "");
            return;
        }
        if r == 0.0 || !c.problems.is_empty() {
            return;
        }
        if !self.lengths.is_empty() {
            c.wrong("correlation", "stands beside lengths, which have their own", "leave one of the two out");
            return;
        }
        let Some([least, most]) = correlation_range(&self.isl, &self.osl) else {
            c.wrong("correlation", format!("is {r}, but a length that does not vary has none"), "0, or let both vary");
            return;
        };
        // The range is known to about 1e-4.
        if r < least - 1e-3 || r > most + 1e-3 {
            let text = format!("{r} is not possible for this isl and osl");
            c.wrong("correlation", text, format!("these marginals allow {least:.3} to {most:.3}"));
        }
    }
}
