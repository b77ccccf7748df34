//! The rows of an AFD unit's pipeline, in the order of its layers.

use super::pipeline::{self, Rows, Stages};
use super::stepper::{ROWS, Unit};

impl Unit {
    /// Stages of the micro-batches in the order of the layers, from those of full-attention, sliding and dense
    /// layers, ends, first and further draft passes. `drafts`: whether any of them decodes.
    pub(super) fn assemble<'a>(
        &self,
        [full, sliding, dense, ends, draft, more]: [&'a [Stages]; ROWS],
        drafts: bool,
    ) -> Vec<Rows<'a>> {
        let mut out = Vec::with_capacity(self.groups.len() + 4);
        self.for_each_row([full, sliding, dense, ends, draft, more], drafts, |r| out.push(r));
        out
    }

    fn for_each_row<'a>(
        &self,
        [full, sliding, dense, ends, draft, more]: [&'a [Stages]; ROWS],
        drafts: bool,
        mut take: impl FnMut(Rows<'a>),
    ) {
        let dense_layers = (self.unit.counts.dense[0] + self.unit.counts.dense[1]) as u32;
        let mtp = self.unit.library().serving.mtp;
        if dense_layers > 0 {
            take(Rows { layers: dense_layers, stages: dense });
        }
        for (layers, is_sliding) in &self.groups {
            take(Rows { layers: *layers, stages: if *is_sliding { sliding } else { full } });
        }
        if mtp > 0 {
            take(Rows { layers: 1, stages: draft });
            if drafts && mtp > 1 {
                take(Rows { layers: mtp - 1, stages: more });
            }
        }
        take(Rows { layers: 1, stages: ends });
    }

    /// The closed form of `m` equal micro-batches with one entry a kind of layer, where there is one.
    pub(super) fn uniform(&self, one: [&[Stages]; ROWS], drafts: bool, m: usize, overlapped: bool) -> Option<f64> {
        let mut rows = [Rows { layers: 0, stages: &[] }; ROWS];
        if self.groups.len() > 2 {
            return None;
        }
        let mut n = 0;
        self.for_each_row(one, drafts, |r| {
            rows[n] = r;
            n += 1;
        });
        pipeline::closed_form(&rows[..n], m, overlapped)
    }
}
