//! Pairs that miss the TTFT limit only because decode takes so many: fewer sequences there, up to the limit.
//!
//! KV on its way slows the prompts, and where the router waits for it a first token takes a step of decode: both grow with
//! what decode holds. Beside the pairs that lead close to the TTFT limit, every decode layout as large as theirs is tried
//! with the most sequences at which the prompts keep it, found by halving (TTFT does not fall as a batch grows, but for
//! micro-batches of unequal size). Limits: only the prompts and the sizes of leaders are looked at.

use super::aim::{Aim, order};
use super::constants::prompts::{BOUND, GAIN, LEADERS};
use super::fine_decode::Fine;
use super::row::{Part, Row};
use super::sides::{Candidate, Prompts};
use super::slots::Slots;
use super::task::Task;
use crate::error::Result;
use crate::serving::pd::{DecodeSide, PrefillSide};
use crate::serving::steady_state;
use crate::spec::Level;

impl Task<'_> {
    /// Pairs with the prompts of those that lead `rows`, and in decode as many sequences as their TTFT bears.
    pub(crate) fn calmed(
        &self,
        level: Level,
        rows: &[Row],
        prompts: &Prompts,
        decode: &Fine<'_, '_>,
        aim: &Aim,
    ) -> Result<Vec<Row>> {
        let bound = |r: &Row| steady_state::excess([r.point.ttft_s, 0.0], &aim.slo) > BOUND;
        let mut leading: Vec<(Part, Part, (u8, f64))> =
            rows.iter().filter_map(|r| Some((r.prefill.filter(|_| bound(r))?, r.main, aim.score(&r.point)))).collect();
        leading.retain(|(.., score)| score.0 == 2);
        leading.sort_by(|a, b| order(&b.2, &a.2));
        let best = leading.first().map_or(0.0, |l| l.2.1);
        let mut seen = Vec::new();
        let mut out = Vec::new();
        for (p, d, _) in leading {
            let key = (p.layout, p.batch, p.chunk, d.layout.gpus());
            if seen.len() == LEADERS || seen.contains(&key) {
                continue;
            }
            seen.push(key);
            let Some(p) = self.prompts_as(&p, prompts)? else { continue };
            for j in (0..decode.len()).step_by(2).filter(|j| decode.at(*j).most.gpus == d.layout.gpus()) {
                self.control.check()?;
                let most = (self.budget / d.layout.gpus()).saturating_sub(1).max(1);
                if f64::from(most) * decode.at(j).most.rate >= best * (1.0 + GAIN) {
                    out.extend(self.held_by_prompts(level, &p, decode.get(j), aim));
                }
            }
        }
        Ok(out)
    }

    /// A pair with the most sequences in decode at which its prompts keep their limit; none where all keep it.
    fn held_by_prompts(
        &self,
        level: Level,
        p: &Candidate<PrefillSide>,
        d: &Candidate<DecodeSide>,
        aim: &Aim,
    ) -> Option<Row> {
        let keeps = |r: &Row| aim.score(&r.point).0 == 2;
        let micro = d.layout.microbatches();
        let (mut low, mut high) = (0, d.batch);
        if self.best_numbers(level, p, d).is_none_or(|r| keeps(&r)) {
            return None;
        }
        let mut best = None;
        while high - low > micro {
            let batch = low.midpoint(high);
            let side = d.clock.decode_side(&self.load, f64::from(batch)).with_ports(&d.clock, &self.load);
            let row = self.best_numbers(level, p, &Candidate { batch, side, ..d.clone() })?;
            if keeps(&row) {
                (low, best) = (batch, Some(row));
            } else {
                high = batch;
            }
        }
        best
    }
}
