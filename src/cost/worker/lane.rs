//! How the parts of a MoE layer add up after its mixer: told once, whoever tells their seconds.
//!
//! ```text
//! whole layer       A + max(X + max(E, M) + Y, S)      S hides behind the routed path in a decode step, else
//!                   A + X + max(E, M) + Y + S
//! two half-batches  overlap::two_batches(attention + A, X, E + S, Y), of parts at half the tokens
//! ```
//!
//! A: reductions over TP ranks, norm and router. X, Y: the ways to the experts and back, of a fused kernel their
//! start-up. E: the experts. M: the bytes that a fused kernel moves beside them. S: the shared expert.
//!
//! [`LaneParts`] says what a part takes. `moe` prices it operator by operator, `lane_lines` reads it from lines that are
//! priced so: an operator that a part gains there counts in both. Limit: a part hangs on one number of [`LayerTokens`] alone.

use crate::cost::ledger::{Ledger, Op, Total};
use crate::cost::overlap;
use crate::kernels::Reading;

/// LayerTokens of a MoE layer (or where they lie among the knots of lines).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct LayerTokens<T> {
    /// Of the busiest attention rank's TP group: what A hangs on; S too where all GPUs hold all tokens.
    pub rank: T,
    /// Of one of its GPUs: what an all-to-all and S hang on.
    pub own: T,
    /// Of all ranks together: what E and collectives to the experts hang on.
    pub all: T,
}

/// What the parts of one lane take.
pub(super) trait LaneParts {
    /// Reductions over TP ranks, norm and router.
    fn around<S: Ledger>(&self, count: f64, ledger: &mut S);

    /// The way to the experts or (`back`) from them, of a fused kernel its start-up; gives its seconds.
    fn way<S: Ledger>(&self, back: bool, count: f64, ledger: &mut S) -> f64;

    /// The experts' kernel. A fused one has fewer SMs.
    fn experts(&self) -> Reading;

    /// Seconds that a fused kernel moves bytes beside the experts; 0: nothing moves there.
    fn moved(&self) -> f64;

    /// The shared expert, as far as it does not hide behind `beside` seconds.
    fn shared<S: Ledger>(&self, beside: f64, count: f64, ledger: &mut S);
}

/// One layer after its mixer. `hides`: whether the shared expert does, behind the routed path.
#[inline]
pub(super) fn layer<P: LaneParts, S: Ledger>(parts: &P, hides: bool, count: f64, ledger: &mut S) {
    parts.around(count, ledger);
    let out = parts.way(false, count, ledger);
    let experts = parts.experts();
    let kernel = Reading { seconds: experts.seconds.max(parts.moved()), ..experts };
    ledger.add(Op::Experts, count, kernel);
    let back = parts.way(true, count, ledger);
    let routed = out + kernel.seconds + back;
    parts.shared(if hides { routed } else { 0.0 }, count, ledger);
}

/// What two half-batches in turn are told beside the parts of one half.
#[derive(Clone, Copy, Debug)]
pub(super) struct Turns {
    /// Whether all GPUs hold all tokens: the two all-reduces are what travels.
    pub tensor: bool,
    /// How much slower SMs compute while the exchange is under way.
    pub slowed: f64,
}

impl Turns {
    /// Seconds of both halves through one layer, of which the attention takes `attention` seconds a half. Nothing of a
    /// half hides behind itself: the other half fills that time.
    #[inline]
    pub(crate) fn wall<P: LaneParts>(&self, parts: &P, attention: f64) -> f64 {
        let mut half = Half::default();
        layer(parts, false, 1.0, &mut half);
        let Half { before, out, experts, back } = half;
        if self.tensor {
            // Everything but the router in `before` is the two equal all-reduces; the router is small.
            let reduce = 0.5 * before;
            return overlap::two_batches(attention, reduce, experts, reduce, self.slowed);
        }
        overlap::two_batches(attention + before, out, experts, back, self.slowed)
    }
}

/// Seconds of a half-batch's layer by what its other half can hide behind.
#[derive(Default)]
struct Half {
    /// Blocking exchanges and the router: computed with attention.
    before: f64,
    out: f64,
    experts: f64,
    back: f64,
}

impl Ledger for Half {
    const DETAIL: bool = true;

    #[inline]
    fn add(&mut self, op: Op, count: f64, reading: Reading) {
        let part = match op {
            Op::Dispatch => &mut self.out,
            Op::Combine => &mut self.back,
            Op::Experts | Op::SharedExpert => &mut self.experts,
            _ => &mut self.before,
        };
        *part += count * reading.seconds;
    }

    fn merge(&mut self, total: &Total) {
        self.before += total.seconds;
    }
}
