//! Many servers that slow each other down: a birth-and-death law with its wait.
//!
//! n inside complete at `rate(n)` a second (n <= c), `rate(c)` when more wait. All inside advance at the same speed, so the
//! law of n <= c does not depend on how long they stay (symmetric queues: Kelly, Reversibility and Stochastic Networks,
//! 1979, section 3.3): p(n) ~ prod lambda/rate(k). The wait beyond c does depend: that of exponential stays is
//! `p(wait)/(rate(c) - lambda)`; equal stays wait less (Cosmetatos, Oper. Res. Quarterly 27, 1976), others lie between
//! (Kimura, J. Oper. Res. Soc. Japan 37, 1994, eq. 3.2). Limit: lulls and rushes last longer than a stay.

/// The law of how many are inside.
#[derive(Clone, Debug)]
pub struct Crowd {
    /// Odds of `first + i` inside, nobody waiting.
    odds: Vec<f64>,
    first: usize,
    /// Places.
    pub places: usize,
    /// Odds that an arrival waits, and the mean wait of all arrivals.
    pub delay: f64,
    pub wait_s: f64,
    /// Mean number inside, those who wait left out.
    pub inside: f64,
}

/// How much of the wait of exponential stays equal ones have, at `c` servers with load `rho`.
pub fn deterministic(c: f64, rho: f64) -> f64 {
    0.5 * (1.0 + (1.0 - rho) * (c - 1.0) * ((4.0 + 5.0 * c).sqrt() - 2.0) / (16.0 * rho * c)).min(2.0)
}

/// Odds below this share of the largest are left out.
const LEAST: f64 = 1e-12;

impl Crowd {
    /// `arrivals` a second on `places` places; `cs2`: squared coefficient of variation of the stays. None: it grows
    /// without end.
    pub fn new(arrivals: f64, places: usize, cs2: f64, rate: impl Fn(f64) -> f64) -> Option<Crowd> {
        let full = rate(places as f64);
        let rho = arrivals / full;
        if !(rho < 1.0 && places > 0) {
            return None;
        }
        // The most likely number: where completions overtake arrivals.
        let (mut low, mut high) = (0, places);
        while high - low > 1 {
            let middle = (low + high) / 2;
            if rate(middle as f64) < arrivals { low = middle } else { high = middle }
        }
        let peak = low;
        let mut down = Vec::new();
        let mut x = 1.0;
        for n in (1..=peak).rev() {
            x *= rate(n as f64) / arrivals;
            if x < LEAST {
                break;
            }
            down.push(x);
        }
        let first = peak - down.len();
        let mut odds: Vec<f64> = down.into_iter().rev().collect();
        odds.push(1.0);
        x = 1.0;
        for n in peak + 1..=places {
            x *= arrivals / rate(n as f64);
            if x < LEAST && n < places {
                break;
            }
            odds.push(x);
        }
        let at_all = if first + odds.len() > places { odds[places - first] } else { 0.0 };
        let beyond = at_all * rho / (1.0 - rho);
        let sum = odds.iter().sum::<f64>() + beyond;
        odds.iter_mut().for_each(|p| *p /= sum);
        let delay = at_all / sum / (1.0 - rho);
        let exponential = delay / (full - arrivals);
        let equal = exponential * deterministic(places as f64, rho);
        let wait_s = match cs2 {
            _ if exponential <= 0.0 => 0.0,
            c if c >= 1.0 => exponential * 0.5 * (1.0 + c),
            c => (1.0 + c) / (2.0 * c / exponential + (1.0 - c) / equal),
        };
        let inside =
            odds.iter().enumerate().map(|(i, p)| (first + i) as f64 * p).sum::<f64>() + places as f64 * beyond / sum;
        Some(Crowd { odds, first, places, delay, wait_s, inside })
    }

    /// (number inside, its odds); who waits counts as a full house.
    pub fn law(&self) -> impl Iterator<Item = (usize, f64)> + '_ {
        let rest = (1.0 - self.odds.iter().sum::<f64>()).max(0.0);
        let full = self.first + self.odds.len() > self.places;
        let each = self.odds.iter().enumerate().map(move |(i, p)| {
            let n = self.first + i;
            (n, p + if full && n == self.places { rest } else { 0.0 })
        });
        each.chain((!full && rest > 1e-15).then_some((self.places, rest)))
    }

    /// The number inside that is not exceeded with odds `q`.
    pub(crate) fn quantile(&self, q: f64) -> f64 {
        let mut sum = 0.0;
        for (n, p) in self.law() {
            sum += p;
            if sum >= q {
                return n as f64;
            }
        }
        self.places as f64
    }
}
