//! Best against best: the leaders of a level of one slot priced on a fine grid, whatever the grid that found them.
//!
//! The coarse pass gives levels different grids (AFD units half of a worker's batches). So the layouts that lead a level
//! are searched again, on every whole batch around their best and on finer chunks; units besides climb from what leads
//! their grid (`units`). P/D has a finer pass of its own: whole batches of decode (`fine_decode`) beside every prefill
//! candidate that no other beats, their prompts cut finer (`prompts`, `pairs`). What is priced is appended to the rows;
//! nothing is taken away. Limits: layouts beyond the leaders keep their coarse prices; loss against a much finer
//! exhaustive grid: tests/rust/refine.rs.

use std::sync::{Arc, PoisonError};

use rayon::prelude::*;
use rustc_hash::FxHashSet;

use super::aim::{Aim, order};
use super::constants::climb::VAIN;
use super::constants::finer::{DOUBTFUL, FINER, FINEST, HALVED, LEADERS, LINKS, PACES, ROUND};
use super::fine_grid::At;
use super::group::Group;
use super::marks::{Judged, Placed};
use super::row::{Layout, Part, Row};
use super::task::Task;
use super::units::{Found, climb};
use crate::error::Result;
use crate::math::climb::{Climb, spread};
use crate::serving::{SteadyState, choose};
use crate::spec::{Level, Role};

/// What a finer grid is taken to add to the rate of a row: a finer batch lies at most a step of the grid above a coarse
/// one and brings at most that much (Little's law at a step time that does not fall), finer chunks the rest.
pub(super) fn reach(per_octave: u32) -> f64 {
    FINER * 2f64.powf(1.0 / f64::from(per_octave))
}

/// Whether a layout may come near `best` on a finer grid, by the best of its marks and by their prospect.
pub(super) fn may_lead(own: (u8, f64), prospect: f64, best: (u8, f64), per_octave: u32) -> bool {
    let by_prospect = best.0 == 2 && worth_more((2, prospect), best, reach(per_octave));
    own.0 > 0 && (by_prospect || worth_more(own, best, reach(per_octave)))
}

/// Takes the layouts that lead a mixed level to `refine`, a round at a time, by their prospects; what a round finds
/// decides who is worth the next. `best`: what is known to be reached; `refine` gives the best score that it finds on
/// each. Gives who leads then.
fn rounds(
    judged: &[Judged],
    best: Option<(u8, f64)>,
    mut refine: impl FnMut(&[usize]) -> Result<Vec<Option<(u8, f64)>>>,
) -> Result<Option<(usize, (u8, f64))>> {
    let standing = || judged.iter().enumerate().filter(|(_, own)| own.score.0 > 0);
    let Some(first) = standing().map(|(_, own)| own.score).max_by(order) else { return Ok(None) };
    // Where nothing keeps the limits, the nearest to them leads.
    let rank = |own: &Judged| match own.score {
        score if first.0 < 2 || own.prospect <= 0.0 => score,
        (2, value) => (2, value.max(own.prospect)),
        _ => (2, own.prospect),
    };
    let mut leaders: Vec<(usize, (u8, f64))> = standing().map(|(i, own)| (i, rank(own))).collect();
    // Stable: equals keep their order.
    leaders.sort_by(|a, b| order(&b.1, &a.1));
    leaders.truncate(LEADERS);
    let mut best = best.map_or(first, |b| if order(&first, &b).is_gt() { first } else { b });
    let mut lead: Option<(usize, (u8, f64))> = None;
    for round in leaders.chunks(ROUND) {
        let live: Vec<usize> = round.iter().filter(|(_, s)| worth_more(*s, best, FINER)).map(|(i, _)| *i).collect();
        for (i, found) in live.iter().zip(refine(&live)?) {
            let Some(found) = found else { continue };
            if lead.is_none_or(|l| order(&found, &l.1).is_gt()) {
                lead = Some((*i, found));
            }
            if order(&found, &best).is_gt() {
                best = found;
            }
        }
    }
    Ok(lead)
}

/// Whether what has this score may yet be the best where a finer grid brings `reach` at most.
fn worth_more((class, value): (u8, f64), best: (u8, f64), reach: f64) -> bool {
    match (class, best.0) {
        (2, _) => value * reach >= best.1,
        (_, 2) => -value <= reach,
        _ => value >= best.1 * reach,
    }
}

/// The best batch, chunk and cadence around one, at halving distance down to whole sequences and tokens. `within`: least
/// and most batch; `cadences`: those there are.
fn polish(
    mut at: At,
    mut score: (u8, f64),
    within: (u32, u32),
    cadences: &[u32],
    mut price: impl FnMut(At) -> (u8, f64),
) -> (At, (u8, f64)) {
    let mut share = 8;
    loop {
        let steps = (i64::from((at[0] / share).max(1)), i64::from((at[1] / share).max(1)));
        let mut moved = false;
        for interval in cadences.iter().filter(|n| **n == 2 * at[2] || 2 * **n == at[2]) {
            let next = [at[0], at[1], *interval];
            let found = price(next);
            if order(&found, &score).is_gt() {
                (at, score, moved) = (next, found, true);
                break;
            }
        }
        for (db, dc) in [(1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, -1), (1, -1), (-1, 1)] {
            let batch = i64::from(at[0]) + db * steps.0;
            let chunk = i64::from(at[1]) + dc * steps.1;
            if batch < i64::from(within.0.max(1)) || batch > i64::from(within.1) || chunk < 1 {
                continue;
            }
            let (Ok(batch), Ok(chunk)) = (u32::try_from(batch), u32::try_from(chunk)) else { continue };
            let next = [batch, chunk, at[2]];
            let found = price(next);
            if order(&found, &score).is_gt() {
                (at, score, moved) = (next, found, true);
            }
        }
        // Kernels change their pace at sizes of their tables, which are powers of two: one more sequence may fit there alone.
        let power = at[1].checked_next_power_of_two().unwrap_or(at[1]);
        for (more, chunk) in [(0, power), (1, power), (0, power / 2), (1, power / 2)] {
            let batch = at[0] + more;
            if moved || batch > within.1 || chunk == 0 {
                break;
            }
            let next = [batch, chunk, at[2]];
            let found = price(next);
            if order(&found, &score).is_gt() {
                (at, score, moved) = (next, found, true);
            }
        }
        if !moved {
            if share >= FINEST {
                return (at, score);
            }
            share *= 4;
        }
    }
}

/// Whole batches from one coarse neighbour of `batch` to the other.
fn around(batch: u32, per_octave: u32, least: u32, most: u32) -> Vec<u32> {
    let step = 2f64.powf(1.05 / f64::from(per_octave));
    let low = ((f64::from(batch) / step).floor() as u32).min(batch.saturating_sub(1)).max(least);
    let high = ((f64::from(batch) * step).ceil() as u32).max(batch + 1).min(most);
    (low..=high).collect()
}

impl Task<'_> {
    /// A mixed level's finer pass: units climbed to from what leads its grid, the leaders of all taken to `refine`, and
    /// both once more around the unit that leads then, since what it was judged to give may not have led.
    /// `judged`: what each of the grid is judged to give; `refine` gives the best score that it finds on each. Gives the
    /// units climbed to, and what each is judged to give.
    pub fn finer_mixed(
        &self,
        level: Level,
        grid: &[Group],
        judged: &[Judged],
        per_octave: u32,
        aim: &Aim,
        mut refine: impl FnMut(&[&Group]) -> Result<Vec<Option<(u8, f64)>>>,
    ) -> Result<Vec<(Arc<Group>, Judged)>> {
        let price = |layout: &Layout| {
            let group = self.mixed.get((level, *layout), || self.mixed_group(level, layout, per_octave))?;
            let judged = group.marks.judge(aim);
            Ok((Found { layout: *layout, score: judged.score }, (group, judged)))
        };
        let mut known: FxHashSet<Layout> = grid.iter().filter_map(Group::layout).collect();
        let mut beyond = |from: Vec<Found>, vain: usize| -> Result<Vec<(Arc<Group>, Judged)>> {
            if level != Level::AggregatedAfd {
                return Ok(Vec::new());
            }
            let found = climb(self.control, from, vain, &mut known, |l| self.beside(l, Role::Both), price)?;
            Ok(found.into_iter().map(|(_, judged)| judged).collect())
        };
        let of_grid =
            grid.iter().zip(judged).filter_map(|(g, own)| Some(Found { layout: g.layout()?, score: own.score }));
        let mut units = beyond(of_grid.collect(), VAIN)?;
        let groups: Vec<&Group> = grid.iter().chain(units.iter().map(|(g, _)| &**g)).collect();
        let judged: Vec<Judged> = judged.iter().copied().chain(units.iter().map(|(_, own)| *own)).collect();
        let mut rounds = |judged: Vec<Judged>, groups: &[&Group], best| {
            let of = |live: &[usize]| live.iter().map(|i| groups[*i]).collect::<Vec<_>>();
            let judged = self.closer(groups, judged, aim);
            self::rounds(&judged, best, |live| refine(&of(live)))
        };
        let lead = rounds(judged.clone(), &groups, None)?;
        if let Some((i, best)) = lead
            && let Some(layout) = groups[i].layout()
        {
            let more = beyond(vec![Found { layout, score: judged[i].score }], 1)?;
            let (of_more, judged): (Vec<&Group>, Vec<_>) = more.iter().map(|(g, own)| (&**g, *own)).unzip();
            rounds(judged, &of_more, Some(best))?;
            units.extend(more);
        }
        Ok(units)
    }

    /// What layouts of a mixed level are judged to give, by a closer look at those not far behind the best.
    fn closer(&self, groups: &[&Group], mut judged: Vec<Judged>, aim: &Aim) -> Vec<Judged> {
        let mut leaders: Vec<usize> = (0..judged.len()).filter(|i| judged[*i].score.0 == 2).collect();
        leaders.sort_by(|a, b| order(&judged[*b].score, &judged[*a].score));
        leaders.truncate(LEADERS);
        let Some(best) = leaders.first().map(|i| judged[*i].score) else { return judged };
        for i in leaders {
            let score = &mut judged[i].score;
            if worth_more(*score, best, DOUBTFUL) {
                let filled = self.filled(groups[i], aim).into_iter().filter(|f| f.1.0 == 2).map(|f| f.1.1);
                score.1 = filled.fold(self.halved(groups[i], aim).max(score.1), f64::max);
            }
        }
        judged
    }

    /// Each cadence with the best score of budgets that the prompts just fill: they have the most room alone, and the
    /// coarse grid may step over all of them. Batches up to an octave from the best of the grid, halved towards the limits.
    fn filled(&self, group: &Group, aim: &Aim) -> Vec<(u32, (u8, f64))> {
        let Group { clock, rows: coarse, marks, known } = group;
        let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
        let best = marks.best_batches(aim, |i| coarse[i].main.interval);
        let least = group.layout().map_or(1, |l| l.microbatches());
        let mut of_cadence = |(interval, best): (u32, Vec<Placed>)| {
            let Part { batch: middle, count, .. } = coarse[best.first()?.0].main;
            let mut score = |batch: u32| {
                let chunk = choose::filled_budget(&self.load, batch, self.per_decode(), self.progress())?;
                let at = [batch, chunk, interval];
                let price = || clock.mixed(&self.load, at, count);
                Some(aim.score(known.points.entry(at).or_insert_with(price)))
            };
            let mut top = score(middle)?;
            let (mut low, mut high) = if top.0 == 2 { (middle, 2 * middle) } else { (middle / 2, middle) };
            for _ in 0..HALVED {
                let batch = low.midpoint(high);
                if batch <= low || batch < least {
                    break;
                }
                let found = score(batch)?;
                *(if found.0 == 2 { &mut low } else { &mut high }) = batch;
                top = if order(&found, &top).is_gt() { found } else { top };
            }
            Some((interval, top))
        };
        best.into_iter().filter_map(&mut of_cadence).collect()
    }

    /// The best gain within the limits on a layout's most promising links: what lies between their ends is halved.
    fn halved(&self, group: &Group, aim: &Aim) -> f64 {
        let Group { clock, rows: coarse, marks, known } = group;
        let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
        let mut best = f64::NEG_INFINITY;
        for [a, b] in marks.links(aim).into_iter().take(LINKS) {
            let (mut low, mut high) = (coarse[a].main, coarse[b].main);
            for _ in 0..HALVED {
                let [batch, chunk] = [low.batch.midpoint(high.batch), low.chunk.midpoint(high.chunk)];
                if [low, high].iter().any(|end| [end.batch, end.chunk] == [batch, chunk]) {
                    break;
                }
                let at = [batch, chunk, low.interval];
                let point = known.points.entry(at).or_insert_with(|| clock.mixed(&self.load, at, low.count));
                let part = Part { batch, chunk, ..low };
                let (class, gain) = aim.score(point);
                if class == 2 {
                    best = best.max(gain);
                    low = part;
                } else {
                    high = part;
                }
            }
        }
        best
    }

    /// The fine grid around the best rows of layouts of a mixed level, side by side; one list each.
    pub fn around_layouts(&self, groups: &[&Group], per_octave: u32, aim: &Aim) -> Result<Vec<Vec<Row>>> {
        let one = |group: &&Group| -> Result<Vec<Row>> {
            self.control.check()?;
            let mut out = Vec::new();
            self.around_layout(group, per_octave, aim, |_, row| out.extend(row()));
            Ok(out)
        };
        crate::pool::install(|| groups.par_iter().map(one).collect())?
    }

    /// The fine grid around the two best batches of each cadence of one layout: hands over what it has priced, and how to
    /// get its row, which is none where a coarse one has it.
    pub(super) fn around_layout(
        &self,
        group: &Group,
        per_octave: u32,
        aim: &Aim,
        mut take: impl FnMut(&SteadyState, &dyn Fn() -> Option<Row>),
    ) {
        let Group { clock, rows: coarse, marks, known } = group;
        let Some(first) = coarse.first() else { return };
        let filled = self.filled(group, aim);
        let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
        let (layout, count) = (first.main.layout, first.main.count);
        let most = *known.most.get_or_insert_with(|| choose::most_sequences(clock, 1.0).min(4096.0) as u32);
        let better = |a: &(u8, f64), b: &(u8, f64)| order(a, b).is_gt();
        let grid = &self.fine_grid;
        let mut priced: Vec<At> = Vec::new();
        let mut price = |at: At| {
            let price = || clock.mixed(&self.load, at, count);
            priced.push(at);
            aim.score(known.points.entry(at).or_insert_with(price))
        };
        let cadences = self.cadences(clock);
        // Of each cadence the best batch, and the best of the others: the limits often bind beside the first.
        let best = marks.best_batches(aim, |i| coarse[i].main.interval);
        let of_grid = best.iter().filter_map(|(_, b)| Some(b.first()?.1));
        let Some(top) = of_grid.chain(filled.iter().map(|f| f.1)).max_by(order) else { return };
        for (interval, best) in best {
            let scores = best.iter().take(1).map(|b| b.1).chain(filled.iter().filter(|f| f.0 == interval).map(|f| f.1));
            if !scores.max_by(order).is_some_and(|s| worth_more(s, top, PACES)) {
                continue;
            }
            let batches = best.iter().take(2).map(|(i, _)| coarse[*i].main.batch);
            let mut fine: Vec<u32> = batches.flat_map(|b| around(b, per_octave, layout.microbatches(), most)).collect();
            fine.sort_unstable();
            fine.dedup();
            let mut climb = Climb::new(fine.iter().map(|b| (0, grid.width(*b, interval))), better);
            let starts = spread(fine.len(), 7);
            climb.run(&starts, 2, |i, j| price([fine[i], grid.chunk(fine[i], j), interval]));
            if let Some((i, j, score)) = climb.best() {
                let at = [fine[i], grid.chunk(fine[i], j), interval];
                polish(at, score, (layout.microbatches(), most), &cadences, &mut price);
            }
        }
        priced.sort_unstable();
        priced.dedup();
        // Coarse rows rise in batch, rise in cadence and fall in chunk.
        let of_coarse = |[batch, chunk, interval]: At| {
            coarse
                .binary_search_by(|r| {
                    let m = &r.main;
                    m.batch.cmp(&batch).then(m.interval.cmp(&interval)).then(chunk.cmp(&m.chunk))
                })
                .is_ok()
        };
        for at in priced {
            let Some(point) = known.points.get(&at) else { continue };
            let row = || {
                let [batch, chunk, interval] = at;
                let main = Part { layout, batch, chunk, count, interval };
                let (level, framework, scanned) = (first.level, first.framework, clock.scans());
                let row = Row { level, framework, main, prefill: None, point: *point, scanned, leads: false };
                (!of_coarse(at)).then_some(row)
            };
            take(point, &row);
        }
    }
}
