//! What the four stages of a layer cost, and how long each is busy.

use crate::cost::overlap;
use crate::cost::sink::Total;

/// The four stage costs of one micro-batch at one layer.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LayerStages {
    pub attention: Total,
    pub a2f: Total,
    pub ffn: Total,
    pub f2a: Total,
    /// Seconds of the exchange into the experts that stand inside `ffn` (router on the FFN side).
    pub inner: f64,
    /// Start-up of A2F and F2A, which no fused kernel hides; 0 where nothing is fused.
    pub starts: [f64; 2],
    /// Seconds of A2F and F2A that the ports of the FFN side are taken; told only where groups share the pool.
    pub ports: [f64; 2],
    /// Seconds of the FFN stage that HBM needs for the weights, however many SMs work; 0 where nothing is fused.
    pub reads: f64,
}

impl LayerStages {
    /// Seconds that (attention, A2F, FFN, F2A) are busy. `slowed`: what giving SMs to a fused
    /// dispatch does to the rest of the FFN stage; none: not fused.
    pub fn seconds(&self, slowed: Option<f64>) -> [f64; 4] {
        let (a, x, f, y) = (self.attention.seconds, self.a2f.seconds, self.ffn.seconds, self.f2a.seconds);
        let Some(s) = slowed else { return [a, x, f, y] };
        let own = f - self.inner;
        let own = overlap::beside_exchange(own, self.reads, s);
        if self.inner > 0.0 {
            return [a, x, self.inner.max(own), y];
        }
        let [out, home] = self.starts;
        [a, out, (x - out).max(y - home).max(own), home]
    }

    /// Seconds that (A2F, F2A) take the ports of the FFN side when they have stages of their own. A fused kernel
    /// moves its bytes inside the FFN stage.
    pub fn ports(&self, slowed: Option<f64>) -> [f64; 2] {
        if slowed.is_some() && self.inner <= 0.0 { [0.0; 2] } else { self.ports }
    }

    /// Operator time of all four, the FFN pool's for `groups` groups.
    pub fn work(&self, groups: f64) -> Total {
        let ffn = if groups == 1.0 { self.ffn } else { self.ffn.times(groups) };
        self.attention.plus(&self.a2f).plus(&ffn).plus(&self.f2a)
    }
}
