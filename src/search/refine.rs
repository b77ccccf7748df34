//! Best against best: the leaders of a level priced on a fine grid, whatever the grid that found them.
//!
//! The coarse pass gives levels different grids (AFD units half of a worker's batches). So the
//! layouts that lead a level are searched again, on every whole batch around their best and on finer
//! chunks; and P/D takes, for each of the decode layouts that lead their size, the largest whole batch
//! that keeps the TPOT limit (a rate below it is reached by lowering that batch, which is exact), beside
//! every prefill candidate that no other beats, their prompts cut finer (`pairs`). What is priced is
//! appended to the rows; nothing is taken away. Limits: layouts beyond the leaders keep their coarse
//! prices; loss against a much finer exhaustive grid: tests/rust/refine.rs.

use std::collections::BTreeMap;
use std::sync::PoisonError;

use rayon::prelude::*;
use rustc_hash::FxHashMap;

use super::explore::Question;
use super::frontier::Class;
use super::levels::{Group, Slot, Task};
use super::marks::Judged;
use super::pairs::Sides;
use super::row::{Layout, Part, Row};
use super::slots;
use super::timer::Timer;
use crate::error::Result;
use crate::math::climb::Climb;
use crate::serving::choose::{self, Cycle};
use crate::serving::pd::{DecodeSide, PrefillSide};
use crate::serving::{Binding, Point};
use crate::spec::Slo;

/// Layouts of a mixed level that are searched again at most, and side by side.
const LEADERS: usize = 96;
const ROUND: usize = 4;
/// What a finer grid is taken to add at most to the prospect of a layout (`marks`), and how far behind a layout's best
/// cadence another may be (at 1.1 aggregated serving was short by over 1 % in 14 of 894 cells of maps, at 1.2 in 9). No
/// bounds, nor is the next: what they lose is held in tests/rust/fair.rs.
const FINER: f64 = 1.1;
const PACES: f64 = 1.2;
/// How far behind the best a layout may be by what it is judged to give for a closer look; links of marks that are halved
/// for the look, and how often.
const DOUBTFUL: f64 = 1.5;
const LINKS: usize = 2;
const HALVED: usize = 3;
/// Decode layouts per size that are looked at closer.
const PER_SIZE: usize = 6;

/// How good a point is under the limits: within them by its gain, else by how near it is.
#[derive(Clone, Copy, Debug)]
pub struct Aim {
    pub slo: Slo,
    pub per_user: bool,
}

impl Aim {
    pub fn of(q: &Question) -> Aim {
        Aim { slo: q.slo, per_user: q.objective == "tokens_per_s_per_user" }
    }

    /// What is optimised; more is better.
    pub fn gain(&self, p: &Point) -> f64 {
        if self.per_user { 1.0 / p.tpot_s.max(1e-12) } else { p.requests_per_s }
    }

    /// Class (2 within the limits, 1 standing, 0 not) and value; more is better in both.
    pub fn score(&self, p: &Point) -> (u8, f64) {
        if !p.stands() {
            (0, -p.memory_bytes)
        } else if p.binding_under(&self.slo) == Binding::None {
            (2, self.gain(p))
        } else {
            (1, -p.excess(&self.slo))
        }
    }
}

/// What is known of a layout beside its coarse rows: points by batch and chunk, and the most sequences it holds.
#[derive(Default)]
pub struct Known {
    points: FxHashMap<At, Point>,
    most: Option<u32>,
}

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
pub(super) fn rounds(
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

/// The share of a batch and of a chunk at which polishing ends.
const FINEST: u32 = 512;

/// Batch, chunk and cadence of a mixed step.
pub type At = [u32; 3];

/// The best batch, chunk and cadence around one, at halving distance down to whole sequences and tokens. `within`: least
/// and most batch; `cadences`: those there are.
pub(super) fn polish(
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
        if !moved {
            if share >= FINEST {
                return (at, score);
            }
            share *= 4;
        }
    }
}

/// Pieces that a prompt may be cut into, finely, and prompts that a step may carry.
const PIECES: [f64; 22] = [
    64.0, 48.0, 32.0, 24.0, 20.0, 16.0, 14.0, 12.0, 11.0, 10.0, 9.0, 8.0, 7.0, 6.0, 5.0, 4.0, 3.5, 3.0, 2.5, 2.0, 1.5,
    1.0,
];
const PROMPTS: [f64; 14] = [1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 12.0, 16.0, 24.0, 32.0, 48.0, 64.0];

/// Chunk budgets of the fine grid at a cadence, ascending.
pub fn fine_chunks(isl: f64, osl: f64, batch: u32, per_decode: f64, interval: u32) -> Vec<u32> {
    let beside = f64::from(batch) * per_decode;
    let pieces = PIECES.iter().map(|n| (isl / n).ceil().max(1.0)).filter(|c| *c >= 16.0 || *c >= isl);
    let cycle = Cycle { osl, interval };
    let whole = PROMPTS.iter().filter(|n| cycle.brings(**n, batch) && cycle.holds(**n, **n * isl)).map(|n| n * isl);
    let mut out: Vec<u32> = pieces.chain(whole).map(|c| (c + beside).min(4e9) as u32).collect();
    out.dedup();
    out
}

/// `fine_chunks` of every batch, from one table: what is beside the prompts only shifts it, and the more sequences
/// decode the more whole prompts there are.
#[derive(Clone, Debug)]
pub struct FineGrid {
    /// Tokens of prompts, ascending, and how many whole ones they are (none: a piece of one).
    tokens: Vec<(u32, Option<f64>)>,
    isl: f64,
    osl: f64,
    per_decode: f64,
}

impl FineGrid {
    pub fn new(isl: f64, osl: f64, per_decode: f64) -> FineGrid {
        let pieces = fine_chunks(isl, osl.max(2.0), 0, 0.0, 1).into_iter().map(|c| (c, None));
        let mut tokens: Vec<(u32, Option<f64>)> = pieces.collect();
        tokens.extend(PROMPTS.iter().map(|n| ((n * isl).min(4e9) as u32, Some(*n))));
        tokens.dedup_by_key(|t| t.0);
        FineGrid { tokens, isl, osl, per_decode }
    }

    /// Number of chunks beside `batch` at a cadence.
    pub fn width(&self, batch: u32, interval: u32) -> usize {
        let cycle = Cycle { osl: self.osl, interval };
        let stands = |n: f64| cycle.brings(n, batch) && cycle.holds(n, n * self.isl);
        self.tokens.partition_point(|(_, n)| n.is_none_or(stands))
    }

    pub fn chunk(&self, batch: u32, i: usize) -> u32 {
        (f64::from(self.tokens[i].0) + f64::from(batch) * self.per_decode).min(4e9) as u32
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
    /// What layouts of a mixed level are judged to give, by a closer look at those not far behind the best.
    pub(super) fn closer(&self, groups: &[&Group], mut judged: Vec<Judged>, aim: &Aim) -> Vec<Judged> {
        let mut leaders: Vec<usize> = (0..judged.len()).filter(|i| judged[*i].score.0 == 2).collect();
        leaders.sort_by(|a, b| order(&judged[*b].score, &judged[*a].score));
        leaders.truncate(LEADERS);
        let Some(best) = leaders.first().map(|i| judged[*i].score) else { return judged };
        for i in leaders {
            let score = &mut judged[i].score;
            if worth_more(*score, best, DOUBTFUL) {
                score.1 = self.halved(groups[i], aim).max(score.1);
            }
        }
        judged
    }

    /// The best gain within the limits on a layout's most promising links: the batches between their ends are halved.
    fn halved(&self, group: &Group, aim: &Aim) -> f64 {
        let Group { timer, rows: coarse, marks, known } = group;
        let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
        let mut best = f64::NEG_INFINITY;
        for [a, b] in marks.links(aim).into_iter().take(LINKS) {
            let (mut low, mut high) = (coarse[a].main, coarse[b].main);
            for _ in 0..HALVED {
                let middle = low.batch.midpoint(high.batch);
                if middle <= low.batch || middle >= high.batch {
                    break;
                }
                let at = [middle, low.chunk.midpoint(high.chunk), low.interval];
                let point = known.points.entry(at).or_insert_with(|| timer.mixed(&self.load, at, low.count));
                let part = Part { batch: middle, chunk: at[1], ..low };
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
        mut take: impl FnMut(&Point, &dyn Fn() -> Option<Row>),
    ) {
        let Group { timer, rows: coarse, marks, known } = group;
        let Some(first) = coarse.first() else { return };
        let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
        let (layout, count) = (first.main.layout, first.main.count);
        let most = *known.most.get_or_insert_with(|| choose::most_sequences(timer, 1.0).min(4096.0) as u32);
        let better = |a: &(u8, f64), b: &(u8, f64)| order(a, b).is_gt();
        let grid = &self.fine_grid;
        let mut priced: Vec<At> = Vec::new();
        let mut price = |at: At| {
            let price = || timer.mixed(&self.load, at, count);
            priced.push(at);
            aim.score(known.points.entry(at).or_insert_with(price))
        };
        let cadences = self.cadences(timer);
        // Of each cadence the best batch, and the best of the others: the limits often bind beside the first.
        let best = marks.best_batches(aim, |i| coarse[i].main.interval);
        let Some(top) = best.iter().filter_map(|(_, b)| Some(b.first()?.1)).max_by(order) else { return };
        for (interval, best) in best {
            if !best.first().is_some_and(|b| worth_more(b.1, top, PACES)) {
                continue;
            }
            let batches = best.iter().take(2).map(|(i, _)| coarse[*i].main.batch);
            let mut fine: Vec<u32> = batches.flat_map(|b| around(b, per_octave, layout.microbatches(), most)).collect();
            fine.sort_unstable();
            fine.dedup();
            let mut climb = Climb::new(fine.iter().map(|b| (0, grid.width(*b, interval))), better);
            let starts = crate::math::climb::spread(fine.len(), 7);
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
                let (level, framework, scanned) = (first.level, first.framework, timer.scans());
                let row = Row { level, framework, main, prefill: None, point: *point, scanned, leads: false };
                (!of_coarse(at)).then_some(row)
            };
            take(point, &row);
        }
    }

    /// For each decode layout that leads its size, its best whole batch within the TPOT limit.
    pub fn fine_decode(&self, sides: &Sides, aim: &Aim) -> Result<slots::Fine<'_, '_>> {
        let limit = aim.slo.tpot_ms.map_or(f64::INFINITY, |t| t * 1e-3 * self.progress());
        let beyond = match sides.decode.first() {
            Some((layout, ..)) if layout.is_afd() => self.decode_beyond(&sides.decode, sides.per_octave, limit)?,
            _ => Vec::new(),
        };
        let priced: Vec<&Slot<DecodeSide>> = sides.decode.iter().chain(beyond.iter().map(|s| &**s)).collect();
        // Rate at the limit, between the coarse batches around it.
        let mut by_size: BTreeMap<Class, Vec<(f64, usize)>> = BTreeMap::new();
        let ways = self.decode_class();
        for (k, (layout, stepper, sides)) in priced.iter().enumerate() {
            let Some(rate) = rate_within(sides, limit) else { continue };
            by_size.entry(ways(layout, stepper).class(rate)).or_default().push((rate, k));
        }
        let mut chosen: Vec<usize> = Vec::new();
        for found in by_size.values_mut() {
            found.sort_by(|a, b| b.0.total_cmp(&a.0));
            chosen.extend(found.iter().take(PER_SIZE).map(|f| f.1));
        }
        Ok(slots::Fine::new(self, limit, chosen.into_iter().map(|k| priced[k])))
    }

    /// The known ways of cutting prompts on one layout and finer ones beside `best` (sequences, chunk), as far as the
    /// next coarse ones.
    pub(super) fn finer_prefill(
        &self,
        layout: &Layout,
        stepper: &Timer,
        known: &[(u32, u32, PrefillSide)],
        best: &[(u32, u32)],
    ) -> Vec<(u32, u32, PrefillSide)> {
        let near = |a: f64, b: f64| (0.49..2.05).contains(&(a / b));
        let mut sides = known.to_vec();
        for piece in PIECES {
            let chunk = (self.load.isl / piece).ceil().max(1.0);
            let whole = layout.is_afd() && piece < f64::from(layout.microbatches()) / 2.0;
            if (chunk < 16.0 && piece > 1.0) || whole {
                continue;
            }
            for sequences in [1u32, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28, 32, 40, 48] {
                let tokens = f64::from(sequences) * chunk;
                let seen = known.iter().any(|(s, c, _)| *s == sequences && *c == chunk as u32);
                let beside =
                    |(s, c): &(u32, u32)| near(f64::from(sequences), f64::from(*s)) && near(chunk, f64::from(*c));
                if sequences > 1 && tokens > 65_536.0 || seen || !best.iter().any(beside) {
                    continue;
                }
                let side = stepper.prefill_side(&self.load, f64::from(sequences), chunk);
                if side.short.is_none() {
                    sides.push((sequences, chunk as u32, side));
                }
            }
        }
        sides
    }
}

pub(super) fn order(a: &(u8, f64), b: &(u8, f64)) -> std::cmp::Ordering {
    a.0.cmp(&b.0).then(a.1.total_cmp(&b.1))
}

/// Rate of a decode slot at the largest batch within a step time, between the batches priced around it.
pub(super) fn rate_within(sides: &[DecodeSide], limit: f64) -> Option<f64> {
    let within = sides.iter().rposition(|s| s.step.seconds <= limit)?;
    let (a, b) = (&sides[within], sides.get(within + 1));
    Some(b.map_or(a.rate, |b| {
        let w = (limit - a.step.seconds) / (b.step.seconds - a.step.seconds).max(1e-12);
        a.rate + w.clamp(0.0, 1.0) * (b.rate - a.rate).max(0.0)
    }))
}

/// What makes two rows the same plan.
pub type Key = (u8, u8, [u32; 2 * PART]);

/// Numbers of a slot.
pub(super) const PART: usize = 12;

/// A slot of a plan: layout, batch, chunk, count (the last three last).
pub(super) fn part_key(p: &Part) -> [u32; PART] {
    match p.layout {
        Layout::Worker { parallel: w, overlap } => {
            [0, w.tp, w.dp, w.pp, w.cp, w.ep(), w.moe_tp, u32::from(overlap), p.interval, p.batch, p.chunk, p.count]
        }
        Layout::Afd { attention_gpus, tp, ffn_gpus, ep, moe_tp, microbatches, groups, pp } => {
            [microbatches, attention_gpus, tp, ffn_gpus, ep, moe_tp, groups, pp, p.interval, p.batch, p.chunk, p.count]
        }
    }
}

pub fn key(r: &Row) -> Key {
    let mut k = [0; 2 * PART];
    k[..PART].copy_from_slice(&part_key(&r.main));
    if let Some(p) = &r.prefill {
        k[PART..].copy_from_slice(&part_key(p));
    }
    (r.level, r.framework, k)
}

/// Appends rows of `more` that are not among `rows` from `first` on, each once.
pub fn append_new(rows: &mut Vec<Row>, first: usize, more: Vec<Row>) {
    let wanted: std::collections::BTreeSet<Key> = more.iter().map(key).collect();
    let rows_of = &rows[first..];
    let known = super::near::filter(rows_of, |r| wanted.contains(&key(r)));
    let mut seen: std::collections::BTreeSet<Key> = known.into_iter().map(|i| key(&rows_of[i])).collect();
    rows.extend(more.into_iter().filter(|r| seen.insert(key(r))));
}
