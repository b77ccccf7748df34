//! Pairs of a prefill and a decode slot near the best.
//!
//! A pair's rate at whole numbers (np, nd) of slots is min(np mu_P, nd mu_D, wire) with np gP + nd gD <= budget, so
//! no more than budget / (gP/mu_P + gD/mu_D), nor than either slot gives on all that the other leaves; and of a decode
//! slot too slow when it is full, mu_D is no more than it gives at a step within the limit. Pairs are passed over only
//! where that cannot come near what is known to keep the limits ([`Tiers::floor`]): the rows found are the same as if
//! every pair were priced (tests/rust/pairs.rs). Limit: KV beside the steps only lowers a rate.

use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHashSet};

use super::aim::{Aim, order};
use super::constants::prompts::{LEADERS, TURNS};
use super::fine_decode::Fine;
use super::key::append_new;
use super::leaders::{LIMITS, Tiers};
use super::marks::Mark;
use super::objective::Objective;
use super::row::{Layout, Part, Row};
use super::sides::{Candidate, Cut, Offer, Prompts, Sides};
use super::slots::Slots;
use super::task::Task;
use crate::error::Result;
use crate::serving::pd::{DecodeSide, PrefillSide};
use crate::serving::steady_state;
use crate::spec::{Level, Role};

impl Task<'_> {
    /// Both slots of one kind, decode priced here.
    pub fn sides(&self, prompts: Arc<Prompts>, decode: &[Layout], per_octave: u32) -> Result<Sides> {
        let decode = self.decode(&self.paired_up(decode, Role::Decode), per_octave)?;
        let front = self.decode_frontier(&decode)?;
        let sides: FxHashMap<&Layout, &Vec<DecodeSide>> = decode.iter().map(|(l, _, sides)| (l, sides)).collect();
        let smaller = |c: &Candidate<DecodeSide>| -> Vec<DecodeSide> {
            let all = sides.get(&c.layout).into_iter().flat_map(|s| s.iter());
            all.take_while(|s| s.batch <= c.side.batch).copied().collect()
        };
        let below = front.iter().map(smaller).collect();
        Ok(Sides { prompts, per_octave, front, below, decode })
    }

    /// The pairs that may lead a level whose other rows reach `tiers`; in the order of decode, then of prefill.
    pub fn near_best(
        &self,
        level: Level,
        prefill: &[Candidate<PrefillSide>],
        decode: &impl Slots,
        aim: &Aim,
        mut tiers: Tiers,
    ) -> Result<Vec<Row>> {
        let aim = Aim { objective: Objective::TokensPerS, ..*aim };
        let least = |s: &PrefillSide| s.prefill.latency_s + s.waits_s;
        let soon: Vec<f64> = prefill.iter().map(|p| steady_state::excess([least(&p.side), 0.0], &aim.slo)).collect();
        let over = |seconds: f64| steady_state::excess([0.0, seconds / self.progress()], &aim.slo);
        let mut found: Vec<([usize; 2], Mark)> = Vec::new();
        // Prompts too late for the limits, of which a pair is known that no other betters by more than a thousandth.
        let mut settled = vec![false; prefill.len()];
        let mut look = |tiers: &mut Tiers, i: usize, j: usize| {
            if settled[i] {
                return;
            }
            let mark = decode.mark(i, j, |d| self.best_numbers(level, &prefill[i], d));
            if let Some(mark) = mark {
                let excess = mark.excess(&aim.slo);
                settled[i] = soon[i] > LIMITS[0] && excess <= soon[i] * 1.001;
                tiers.add(mark.rate, excess);
                found.push(([j, i], mark));
            }
        };
        // The soonest of both tell how near to the limits anything comes.
        let first = |n: usize, of: &dyn Fn(usize) -> f64| (0..n).min_by(|a, b| of(*a).total_cmp(&of(*b)));
        let soonest = first(prefill.len(), &|i| soon[i]).zip(first(decode.len(), &|j| decode.at(j).step));
        if let Some((i, j)) = soonest {
            look(&mut tiers, i, j);
        }
        let of = |p: &Candidate<PrefillSide>| Offer { gpus: p.layout.gpus(), rate: p.side.rate };
        let offers: Vec<Offer> = prefill.iter().map(of).collect();
        let mut prompts: Vec<usize> = (0..offers.len()).filter(|i| tiers.allows(soon[*i])).collect();
        densest(&mut prompts, |i| &offers[i]);
        // What keeps the limits goes at a step within them, so it has no more than a slot gives there.
        let within = LIMITS[0] * aim.slo.tpot_ms.map_or(f64::INFINITY, |t| t * 1e-3 * self.progress());
        let most: Vec<Offer> = (0..decode.len()).map(|j| decode.within(j, within)).collect();
        let mut slots: Vec<usize> = (0..most.len()).collect();
        densest(&mut slots, |j| &most[j]);
        for j in slots {
            self.control.check()?;
            let reach = |tiers: &Tiers, p: usize, d: &Offer| fluid(self.budget, &offers[p], d) >= tiers.floor();
            if !prompts.first().is_some_and(|p| reach(&tiers, *p, &most[j])) {
                break;
            }
            if !tiers.is_sure() && !tiers.allows(over(decode.at(j).step)) {
                continue;
            }
            for i in prompts.iter().copied() {
                // Once a slot is worked out its own rate bounds it.
                let own = Offer { rate: decode.worked_out(j).map_or(most[j].rate, |r| r.min(most[j].rate)), ..most[j] };
                if own.rate <= 0.0 || !reach(&tiers, i, &own) {
                    break;
                }
                let short = || tiers.is_sure() && promise(self.budget, &offers[i], &own) < tiers.floor();
                if tiers.allows(soon[i]) && soonest != Some((i, j)) && !short() {
                    look(&mut tiers, i, j);
                }
            }
        }
        found.retain(|(_, m)| tiers.takes(m.rate, m.excess(&aim.slo)));
        found.sort_by_key(|(at, _)| *at);
        let row = |([j, i], _): ([usize; 2], Mark)| self.best_numbers(level, &prefill[i], decode.get(j));
        Ok(found.into_iter().filter_map(row).collect())
    }

    /// [`Task::near_best`], and then around the prompts of those that lead it every number of prompts a round, until
    /// no others lead; at last those of them that serve a decode batch more, held below the limit by their prompts, and
    /// those that serve fewer, so that their prompts keep theirs.
    pub fn best_pairs(
        &self,
        level: Level,
        prompts: &Prompts,
        decode: &Fine<'_, '_>,
        aim: &Aim,
        tiers: Tiers,
    ) -> Result<Vec<Row>> {
        let prefill = &prompts.every;
        let mut rows = self.near_best(level, prefill, decode, aim, tiers)?;
        let aim = Aim { objective: Objective::TokensPerS, ..*aim };
        let cut = |p: &Part| (p.layout, p.batch, p.chunk);
        let mut known: FxHashSet<Cut> = prefill.iter().map(|c| (c.layout, c.batch, c.chunk)).collect();
        let mut around: FxHashSet<Cut> = FxHashSet::default();
        for _ in 0..TURNS {
            let mut leading: Vec<(Part, (u8, f64))> =
                rows.iter().filter_map(|r| Some((r.prefill?, aim.score(&r.point)))).collect();
            leading.sort_by(|a, b| order(&b.1, &a.1));
            let mut seen: FxHashSet<Cut> = FxHashSet::default();
            leading.retain(|(p, _)| seen.insert(cut(p)));
            let mut finer: Vec<Candidate<PrefillSide>> = Vec::new();
            for (part, _) in leading.iter().take(LEADERS).filter(|(p, _)| around.insert(cut(p))) {
                finer.extend(self.around_prompts(part, prompts, &mut known)?);
            }
            if finer.is_empty() {
                break;
            }
            let tiers = tiers.and(Tiers::of(&rows, &aim));
            let more = self.near_best(level, &finer, decode, &aim, tiers)?;
            append_new(&mut rows, 0, more);
        }
        let more = self.throttled(level, &rows, prompts, decode, &aim)?;
        append_new(&mut rows, 0, more);
        let more = self.calmed(level, &rows, prompts, decode, &aim)?;
        append_new(&mut rows, 0, more);
        Ok(rows)
    }
}

/// Puts those first of which a GPU gives the most; equals stay in their order.
fn densest<'a>(places: &mut [usize], offer: impl Fn(usize) -> &'a Offer) {
    let density = |i: usize| offer(i).rate / f64::from(offer(i).gpus);
    places.sort_by(|a, b| density(*b).total_cmp(&density(*a)));
}

/// Rate of a pair when slots could be cut at will.
fn fluid(budget: u32, p: &Offer, d: &Offer) -> f64 {
    f64::from(budget) / (f64::from(p.gpus) / p.rate + f64::from(d.gpus) / d.rate) * (1.0 + 1e-9)
}

/// Rate of a pair at the best whole numbers when neither domains nor KV cost anything.
pub(crate) fn promise(budget: u32, p: &Offer, d: &Offer) -> f64 {
    let (gp, gd) = (p.gpus, d.gpus);
    if gp + gd > budget {
        return f64::NEG_INFINITY;
    }
    let (supply, demand) = (p.rate, d.rate);
    let most = (budget - gd) / gp;
    let balance = f64::from(budget) * demand / (supply * f64::from(gd) + demand * f64::from(gp));
    let mut best = 0.0_f64;
    // Above the balance supply waits for demand; below it fewer prefill slots only supply less.
    for np in (1..=(balance as u32 + 1).clamp(1, most)).rev() {
        let demand = f64::from((budget - np * gp) / gd) * demand;
        let supply = f64::from(np) * supply;
        best = best.max(supply.min(demand));
        if supply <= demand {
            break;
        }
    }
    best
}
