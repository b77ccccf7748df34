//! Pairs whose prompts hold decode just below its limit: a batch too many for the TPOT limit, served slowly enough.
//!
//! A decode slot at whole batches steps over the limit from one batch to the next. At the first batch beyond it the slot
//! still keeps the limit while its prompts come at no more than `mu`, its rate at a step of the limit. Prefill slots are
//! chosen for their most rate at a latency, so one that gives just under `mu / nd` need not be among them; here every way of
//! cutting prompts on every layout as large as the leader's is looked at, from `mu` down. Limits: only beside the decode
//! layouts and prefill sizes of the pairs that lead; AFD units on large budgets are tried with fewer numbers of pieces.

use std::sync::Arc;

use rayon::prelude::*;

use super::aim::{Aim, order};
use super::constants::prompts::{GAIN, LEADERS, SEQUENCES, SMALL, THINNED, THROTTLES};
use super::fine_decode::Fine;
use super::prompts::cuts;
use super::row::{Layout, Part, Row};
use super::sides::{Candidate, PromptSide, Prompts, Slot};
use super::task::Task;
use crate::error::Result;
use crate::serving::pd::{DecodeSide, PrefillSide};
use crate::serving::steady_state;
use crate::spec::Level;

impl Task<'_> {
    /// Pairs that lead `rows` with a decode batch more, each held below the limits by the prompts.
    pub(crate) fn throttled(
        &self,
        level: Level,
        rows: &[Row],
        prompts: &Prompts,
        decode: &Fine<'_, '_>,
        aim: &Aim,
    ) -> Result<Vec<Row>> {
        let mut leading: Vec<(Part, Part, (u8, f64))> =
            rows.iter().filter_map(|r| Some((r.prefill?, r.main, aim.score(&r.point)))).collect();
        leading.retain(|(.., score)| score.0 == 2);
        leading.sort_by(|a, b| order(&b.2, &a.2));
        let mut seen: Vec<(u32, Layout)> = Vec::new();
        leading.retain(|(p, d, _)| {
            let pair = (p.layout.gpus(), d.layout);
            let new = seen.len() < LEADERS && !seen.contains(&pair);
            seen.extend(new.then_some(pair));
            new
        });
        let best = leading.first().map_or(0.0, |l| l.2.1);
        let mut out = Vec::new();
        for (p, d, _) in leading {
            self.control.check()?;
            let Some(next) = decode.beyond_limit(&d.layout) else { continue };
            if f64::from(d.count) * next.side.rate < best * (1.0 + GAIN) {
                continue;
            }
            out.extend(self.held_below(level, &self.prompts_of(&p.layout, prompts)?, next, best, aim));
        }
        Ok(out)
    }

    /// The first few pairs of `decode` with prompts, from the most rate down, until one keeps the limits.
    fn held_below(
        &self,
        level: Level,
        prompts: &[Candidate<PrefillSide>],
        decode: &Candidate<DecodeSide>,
        best: f64,
        aim: &Aim,
    ) -> Option<Row> {
        let soon = |p: &PrefillSide| steady_state::excess([p.prefill.latency_s, 0.0], &aim.slo) <= 1.0;
        let takes = |p: &&Candidate<PrefillSide>| soon(&p.side) && self.pairs_up(&p.layout, &decode.layout);
        let (gp, gd) = (prompts.first()?.layout.gpus(), decode.layout.gpus());
        let mut found: Vec<(f64, u32, u32, &Candidate<PrefillSide>)> = Vec::new();
        for np in 1..=self.budget.saturating_sub(gd) / gp {
            let nd = self.most((np, gp), gd);
            let most = f64::from(nd) * decode.side.rate;
            if most < best * (1.0 + GAIN) {
                break;
            }
            let of = |rate: f64| prompts.partition_point(|p| f64::from(np) * p.side.rate <= rate);
            let fit = prompts[of(best)..of(most)].iter().filter(takes);
            found.extend(fit.map(|p| (f64::from(np) * p.side.rate, np, nd, p)));
        }
        let row = |&(_, np, nd, p): &(f64, u32, u32, &Candidate<PrefillSide>)| self.pair_of(level, p, np, decode, nd);
        // Of as many decode slots TPOT rises with what comes: from the most that keeps it down to what keeps TTFT as well.
        found.sort_by(|a, b| a.2.cmp(&b.2).then(b.0.total_cmp(&a.0)));
        let slow = |r: &Row| steady_state::excess([0.0, r.point.tpot_s], &aim.slo) > 1.0;
        let first = |of: &[(f64, u32, u32, &Candidate<PrefillSide>)]| {
            let from = of.partition_point(|f| slow(&row(f)));
            of[from..].iter().take(THROTTLES).map(row).find(|r| aim.score(&r.point).0 == 2)
        };
        found
            .chunk_by(|a, b| a.2 == b.2)
            .filter_map(first)
            .max_by(|a, b| order(&aim.score(&a.point), &aim.score(&b.point)))
    }

    /// Ways of cutting prompts on every layout of one's kind and size, by rising rate.
    fn prompts_of(&self, layout: &Layout, prompts: &Prompts) -> Result<Arc<Vec<Candidate<PrefillSide>>>> {
        prompts.of_size.get((layout.is_afd(), layout.gpus()), || {
            let alike = |l: &Layout| l.is_afd() == layout.is_afd() && l.gpus() == layout.gpus();
            let of: Vec<&Slot<PromptSide>> = prompts.all.iter().filter(|(l, ..)| alike(l)).collect();
            let large = self.budget > SMALL;
            let nth = if layout.is_afd() && large { THINNED } else { 1 };
            let sequences = if large { &SEQUENCES[..4] } else { &SEQUENCES };
            let one = |(layout, clock, _): &&Slot<PromptSide>| {
                let cuts = cuts(self.load.isl, layout, nth, sequences);
                let sides =
                    cuts.map(|(n, chunk)| (n, chunk, clock.prefill_side(&self.load, f64::from(n), f64::from(chunk))));
                let stands = sides.filter(|(.., side)| side.short.is_none());
                let make =
                    |(batch, chunk, side)| Candidate { layout: *layout, clock: clock.clone(), batch, chunk, side };
                stands.map(make).collect::<Vec<_>>()
            };
            let found: Vec<Vec<_>> = crate::pool::install(|| of.par_iter().map(one).collect())?;
            let mut all: Vec<Candidate<PrefillSide>> = found.into_iter().flatten().collect();
            // Stable: equals keep their order.
            all.sort_by(|a, b| a.side.rate.total_cmp(&b.side.rate));
            Ok(all)
        })
    }
}
