//! What the four stages of a layer cost, and how long each is busy.

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
        let reads = self.reads.min(own);
        let own = reads + (own - reads) * s;
        if self.inner > 0.0 {
            return [a, x, self.inner.max(own), y];
        }
        let [out, home] = self.starts;
        [a, out, (x - out).max(y - home).max(own), home]
    }

    /// Operator time of all four.
    pub fn work(&self) -> Total {
        self.attention.plus(&self.a2f).plus(&self.ffn).plus(&self.f2a)
    }
}
