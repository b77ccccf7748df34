//! Stages of a micro-batch at one layer of an AFD unit, and rows of them: what a schedule is made of.
//!
//! Limit: four stages, one time each; what a stage does inside is not seen.

/// Stage times of one micro-batch at one layer, seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Stages {
    pub attention: f64,
    pub a2f: f64,
    pub ffn: f64,
    pub f2a: f64,
    /// Of A2F and F2A: seconds that the FFN side's ports are taken, at most the hop. They matter only where
    /// groups of attention GPUs share them.
    pub ports: [f64; 2],
}

impl Stages {
    /// Stages of one group of attention GPUs.
    pub const fn new(attention: f64, a2f: f64, ffn: f64, f2a: f64) -> Stages {
        Stages { attention, a2f, ffn, f2a, ports: [0.0; 2] }
    }

    /// Attention and nothing else.
    pub const fn attention(seconds: f64) -> Stages {
        Stages::new(seconds, 0.0, 0.0, 0.0)
    }

    /// The slowest of what `groups` groups share, all of them together.
    pub(super) fn shared(&self, groups: u32) -> f64 {
        if groups == 1 { self.ffn } else { f64::from(groups) * self.ffn.max(self.ports[0]).max(self.ports[1]) }
    }

    /// Time of one micro-batch through all four stages.
    pub fn sum(&self) -> f64 {
        self.attention + self.a2f + self.ffn + self.f2a
    }

    /// The slowest stage.
    pub fn max(&self) -> f64 {
        self.attention.max(self.a2f).max(self.ffn).max(self.f2a)
    }

    pub(super) fn attention_only(&self) -> bool {
        self.a2f == 0.0 && self.ffn == 0.0 && self.f2a == 0.0
    }
}

/// `layers` equal layers; one entry of `stages` per micro-batch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rows<'a> {
    pub layers: u32,
    pub stages: &'a [Stages],
}

impl Rows<'_> {
    pub(super) fn attention_only(&self) -> bool {
        self.stages.iter().all(Stages::attention_only)
    }

    /// All micro-batches cost the same.
    pub(super) fn uniform(&self) -> bool {
        self.stages.iter().all(|s| *s == self.stages[0])
    }
}

/// Up to this many micro-batches nothing is allocated.
pub const INLINE_MICROBATCHES: usize = 16;

/// Seconds by which stages of one layer are longer: attention, A2F, F2A, and the attention of a dense layer.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Extra {
    pub attention: f64,
    pub a2f: f64,
    pub f2a: f64,
    pub dense: f64,
}
