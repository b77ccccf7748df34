//! An AFD unit's parts priced operator by operator: `stages` puts them together.
//!
//! Limit: prices what `AfdUnit` was made for; a part that hangs on more than one micro-batch has no place here.

use super::stages::{LayerStages, UnitParts};
use super::{AfdUnit, behind_attention};
use crate::cost::Batch;
use crate::cost::ledger::{Ledger, Seconds, Sum};
use crate::cost::piecewise::Tokens;

/// Parts priced operator by operator.
impl UnitParts for AfdUnit {
    type At = Batch;

    fn at(&self, batch: &Batch) -> Batch {
        *batch
    }

    fn embedding<S: Ledger>(&self, b: &Batch, ledger: &mut S) {
        self.ends.embedding(b.tokens(), !b.has_prefill(), ledger);
    }

    fn projection<S: Ledger>(&self, b: &Batch, ledger: &mut S) {
        self.ends.projection(b.tokens(), !b.has_prefill(), 1.0, ledger);
    }

    fn logits<S: Ledger>(&self, b: &Batch, rows: f64, ledger: &mut S) {
        self.ends.logits(rows, !b.has_prefill(), 1.0, ledger);
    }

    fn attention<S: Ledger>(&self, b: &Batch, mixer: usize, ledger: &mut S) {
        self.price_attention(b, mixer, ledger);
    }

    fn hop<S: Ledger>(&self, b: &Batch, back: bool, ledger: &mut S) {
        self.hops.price(b, back, ledger);
    }

    fn ffn<S: Ledger>(&self, b: &Batch, ledger: &mut S) -> f64 {
        self.price_ffn(b, ledger)
    }

    fn ports(&self, b: &Batch) -> [f64; 2] {
        self.hops.ports(b, self.router_on_ffn)
    }

    fn fused(&self, b: &Batch) -> ([f64; 2], f64, f64) {
        let reads = self.slowed.map(|_| self.reads(self.ranks() * b.mean_tokens()));
        (self.starts, reads.unwrap_or(0.0), self.between)
    }

    fn hidden(&self, b: &Batch, mixer: usize) -> f64 {
        if !self.lib.serving.attention_streams || b.has_prefill() {
            return 0.0;
        }
        let (mut all, mut rest) = (Seconds::default(), Tokens::default());
        self.price_attention(b, mixer, &mut all);
        self.price_attention(b, mixer, &mut rest);
        behind_attention(self.attention_traffic(mixer), rest.0, all.0 - rest.0)
    }

    fn dense<S: Sum>(&self, b: &Batch, mixer: usize) -> LayerStages<S> {
        let mut s = LayerStages::default();
        self.price_dense(b, mixer, &mut s.attention);
        if self.dense_on_ffn {
            self.hops.price_home(b, false, &mut s.a2f);
            self.price_dense_ffn(b, &mut s.ffn);
            self.hops.price_home(b, true, &mut s.f2a);
            s.ports = self.hops.ports(b, true);
        }
        s
    }
}
