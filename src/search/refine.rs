//! Best against best: the leaders of a level priced on a fine grid, whatever the grid that found them.
//!
//! The coarse pass gives levels different grids (AFD units a third of a worker's batches). So the
//! layouts that lead a level are searched again, on every whole batch around their best and on finer
//! chunks; and P/D takes, for each of the decode layouts that lead their size, the largest whole batch
//! that keeps the TPOT limit (a rate below it is reached by lowering that batch, which is exact), beside
//! every prefill candidate that no other beats and the leaders' own finer chunks. What is priced is
//! appended to the rows; nothing is taken away. Limits: layouts beyond the leaders keep their coarse
//! prices; loss against a much finer exhaustive grid: tests/rust/refine.rs.

use std::collections::BTreeMap;
use std::sync::Arc;

use rayon::prelude::*;

use super::explore::Question;
use super::levels::{self, Candidate, Priced, Task};
use super::row::{Layout, Part, Row};
use super::timer::Timer;
use crate::error::Result;
use crate::math::climb::Climb;
use crate::serving::pd::{DecodeSide, PrefillSide};
use crate::serving::{Binding, Point, choose};
use crate::spec::Slo;

/// Layouts of a mixed level that are searched again, and decode layouts per size.
const LEADERS: usize = 48;
const PER_SIZE: usize = 6;
/// Batches below the largest one that are looked at when not all are.
const FEW: u32 = 4;
/// Prefill layouts whose chunks are refined.
const PREFILL_LEADERS: usize = 12;
/// Pairs that are looked at in full, best rate first.
const PAIRS: usize = 256;

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

    /// Class (2 within the limits, 1 standing, 0 not) and value; more is better in both.
    pub fn score(&self, p: &Point) -> (u8, f64) {
        if !p.stands() {
            (0, -p.memory_bytes)
        } else if p.binding_under(&self.slo) == Binding::None {
            (2, if self.per_user { 1.0 / p.tpot_s.max(1e-12) } else { p.requests_per_s })
        } else {
            (1, -p.excess(&self.slo))
        }
    }

    fn better(&self, a: &Point, b: &Point) -> bool {
        let (a, b) = (self.score(a), self.score(b));
        a.0 > b.0 || a.0 == b.0 && a.1 > b.1
    }
}

/// Pieces that a prompt may be cut into, finely, and prompts that a step may carry.
const PIECES: [f64; 22] = [
    64.0, 48.0, 32.0, 24.0, 20.0, 16.0, 14.0, 12.0, 11.0, 10.0, 9.0, 8.0, 7.0, 6.0, 5.0, 4.0, 3.5, 3.0, 2.5, 2.0, 1.5,
    1.0,
];
const PROMPTS: [f64; 7] = [1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0];

/// Chunk budgets of the fine grid, ascending.
pub fn fine_chunks(isl: f64, osl: f64, batch: u32, per_decode: f64) -> Vec<u32> {
    let beside = f64::from(batch) * per_decode;
    let pieces = PIECES.iter().map(|n| (isl / n).ceil().max(1.0)).filter(|c| *c >= 16.0 || *c >= isl);
    let prompts =
        PROMPTS.iter().map(|n| n * isl).filter(|c| *c <= 32_768.0 && f64::from(batch) > 0.5 * c / isl * (osl - 1.0));
    let mut out: Vec<u32> = pieces.chain(prompts).map(|c| (c + beside).min(4e9) as u32).collect();
    out.dedup();
    out
}

/// Whole batches from one coarse neighbour of `batch` to the other.
fn around(batch: u32, per_octave: u32, least: u32, most: u32) -> Vec<u32> {
    let step = 2f64.powf(1.05 / f64::from(per_octave));
    let low = ((f64::from(batch) / step).floor() as u32).min(batch.saturating_sub(1)).max(least);
    let high = ((f64::from(batch) * step).ceil() as u32).max(batch + 1).min(most);
    (low..=high).collect()
}

impl Task<'_> {
    /// The fine grid around the best rows of the layouts that lead a mixed level.
    pub fn refine_mixed(&self, level: u8, coarse: &[Row], per_octave: u32, aim: &Aim) -> Result<Vec<Row>> {
        // Rows of a layout stand together.
        let groups: Vec<&[Row]> = coarse.chunk_by(|a, b| a.main.layout == b.main.layout).collect();
        let mut leaders: Vec<(&[Row], (u8, f64))> = groups
            .into_iter()
            .filter_map(|g| g.iter().map(|r| aim.score(&r.point)).max_by(order).map(|s| (g, s)))
            .filter(|(_, s)| s.0 > 0)
            .collect();
        leaders.sort_by(|a, b| order(&b.1, &a.1));
        leaders.truncate(LEADERS);
        let parts: Vec<Result<Vec<Row>>> = crate::pool::install(|| {
            leaders
                .par_iter()
                .map(|(rows, _)| {
                    self.control.check()?;
                    let Some(first) = rows.first() else { return Ok(Vec::new()) };
                    let timer = self.timer(&first.main.layout, self.workload)?;
                    Ok(self.around_layout(level, &timer, rows, per_octave, aim))
                })
                .collect()
        })?;
        let mut out = Vec::new();
        for p in parts {
            out.extend(p?);
        }
        Ok(out)
    }

    /// The fine grid around the two best batches of one layout.
    pub(super) fn around_layout(
        &self,
        level: u8,
        stepper: &Timer,
        coarse: &[Row],
        per_octave: u32,
        aim: &Aim,
    ) -> Vec<Row> {
        let Some(first) = coarse.first() else { return Vec::new() };
        let (layout, count) = (first.main.layout, first.main.count);
        let most = choose::most_sequences(stepper, 1.0).min(4096.0) as u32;
        // The best batch, and the best of the others: the limits often bind beside the first.
        let mut best: BTreeMap<u32, (u8, f64)> = BTreeMap::new();
        for r in coarse {
            let s = aim.score(&r.point);
            let known = best.entry(r.main.batch).or_insert(s);
            if order(&s, known).is_gt() {
                *known = s;
            }
        }
        let mut batches: Vec<(u32, (u8, f64))> = best.into_iter().collect();
        batches.sort_by(|a, b| order(&b.1, &a.1));
        let mut fine: Vec<u32> =
            batches.iter().take(2).flat_map(|b| around(b.0, per_octave, layout.microbatches(), most)).collect();
        fine.sort_unstable();
        fine.dedup();
        let rows: Vec<(u32, Vec<u32>)> =
            fine.into_iter().map(|b| (b, fine_chunks(self.load.isl, self.load.osl, b, self.per_decode()))).collect();
        let mut climb = Climb::new(rows.iter().map(|r| (0, r.1.len())), |a: &Point, b: &Point| aim.better(a, b));
        let starts = crate::math::climb::spread(rows.len(), 7);
        climb.run(&starts, 3, |i, j| stepper.mixed(&self.load, f64::from(rows[i].0), f64::from(rows[i].1[j]), count));
        let known = |batch: u32, chunk: u32| coarse.iter().any(|r| r.main.batch == batch && r.main.chunk == chunk);
        climb
            .priced()
            .filter(|(i, j, _)| !known(rows[*i].0, rows[*i].1[*j]))
            .map(|(i, j, point)| {
                let main = Part { layout, batch: rows[i].0, chunk: rows[i].1[j], count };
                Row { level, framework: self.framework, main, prefill: None, point, scanned: stepper.scans() }
            })
            .collect()
    }

    /// For each decode layout that leads its size, its largest whole batch within the TPOT limit; not `every`:
    /// found by halving, and the few batches below it.
    pub fn fine_decode(
        &self,
        priced: &Priced<DecodeSide>,
        aim: &Aim,
        every: bool,
    ) -> Result<Vec<Candidate<DecodeSide>>> {
        let limit = aim.slo.tpot_ms.map_or(f64::INFINITY, |t| t * 1e-3 * self.progress());
        // Rate at the limit, between the coarse batches around it.
        let mut by_size: BTreeMap<levels::Class, Vec<(f64, usize)>> = BTreeMap::new();
        for (k, (layout, stepper, sides)) in priced.iter().enumerate() {
            let Some(within) = sides.iter().rposition(|s| s.step.seconds <= limit) else { continue };
            let (a, b) = (&sides[within], sides.get(within + 1));
            let rate = b.map_or(a.rate, |b| {
                let w = (limit - a.step.seconds) / (b.step.seconds - a.step.seconds).max(1e-12);
                a.rate + w.clamp(0.0, 1.0) * (b.rate - a.rate).max(0.0)
            });
            by_size.entry(levels::class(layout, stepper, &self.load, rate)).or_default().push((rate, k));
        }
        let mut chosen: Vec<usize> = Vec::new();
        for found in by_size.values_mut() {
            found.sort_by(|a, b| b.0.total_cmp(&a.0));
            chosen.extend(found.iter().take(PER_SIZE).map(|f| f.1));
        }
        let found: Vec<Option<Candidate<DecodeSide>>> = crate::pool::install(|| {
            chosen
                .par_iter()
                .map(|&k| {
                    let (layout, stepper, sides) = &priced[k];
                    self.largest_within(stepper, sides, limit, every).map(|side| Candidate {
                        layout: *layout,
                        stepper: Arc::clone(stepper),
                        batch: side.batch as u32,
                        chunk: 0,
                        side: side.with_ports(stepper, &self.load),
                    })
                })
                .collect()
        })?;
        self.control.check()?;
        Ok(found.into_iter().flatten().collect())
    }

    /// The side of most rate among the whole batches from the last coarse one within the limit to the next.
    fn largest_within(&self, stepper: &Timer, sides: &[DecodeSide], limit: f64, every: bool) -> Option<DecodeSide> {
        let within = sides.iter().rposition(|s| s.step.seconds <= limit)?;
        let from = sides[within].batch as u32;
        let to = sides.get(within + 1).map_or(from, |s| s.batch as u32);
        let mut best = sides[within];
        for side in &sides[..within] {
            if side.step.seconds <= limit && side.rate > best.rate {
                best = *side;
            }
        }
        let at = |b: u32| stepper.decode_side(&self.load, f64::from(b));
        let (mut low, mut high) = (from, to);
        while !every && high - low > 1 {
            let middle = (low + high) / 2;
            let side = at(middle);
            *(if side.short.is_none() && side.step.seconds <= limit { &mut low } else { &mut high }) = middle;
        }
        // Micro-batches of unequal size make the step a saw: the largest batch within need not be the best.
        let (first, last) = if every { (from, to) } else { (low.saturating_sub(FEW).max(from), (low + 1).min(to)) };
        let stride = ((last - first) as usize).div_ceil(256).max(1);
        for b in (first + 1..last).step_by(stride) {
            let side = at(b);
            if side.short.is_none() && side.step.seconds <= limit && side.rate > best.rate {
                best = side;
            }
        }
        Some(best)
    }

    /// More ways of cutting prompts on the prefill layouts of the best pairs.
    pub fn fine_prefill(
        &self,
        coarse: &Priced<(u32, u32, PrefillSide)>,
        pairs: &[Row],
        aim: &Aim,
    ) -> Result<Priced<(u32, u32, PrefillSide)>> {
        let mut order_of: Vec<(usize, (u8, f64))> =
            pairs.iter().enumerate().map(|(i, r)| (i, aim.score(&r.point))).collect();
        order_of.sort_by(|a, b| order(&b.1, &a.1));
        let mut chosen: Vec<usize> = Vec::new();
        for (i, _) in order_of {
            let layout = pairs[i].prefill.map(|p| p.layout);
            if let Some(k) = coarse.iter().position(|c| Some(c.0) == layout)
                && !chosen.contains(&k)
            {
                chosen.push(k);
                if chosen.len() == PREFILL_LEADERS {
                    break;
                }
            }
        }
        let found: Priced<(u32, u32, PrefillSide)> = crate::pool::install(|| {
            chosen
                .par_iter()
                .map(|&k| {
                    let (layout, stepper, known) = &coarse[k];
                    let sides = self.finer_prefill(layout, stepper, known);
                    (*layout, Arc::clone(stepper), sides)
                })
                .collect()
        })?;
        self.control.check()?;
        Ok(found)
    }

    /// Every finer way of cutting prompts on one layout, beside the known ones.
    pub(super) fn finer_prefill(
        &self,
        layout: &Layout,
        stepper: &Timer,
        known: &[(u32, u32, PrefillSide)],
    ) -> Vec<(u32, u32, PrefillSide)> {
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
                if sequences > 1 && tokens > 65_536.0 || seen || self.control.is_cancelled() {
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

    /// The best pairs of two slots by rate, and among them those within the limits first.
    pub fn pair_best(
        &self,
        level: u8,
        prefill: &[Candidate<PrefillSide>],
        decode: &[Candidate<DecodeSide>],
        aim: &Aim,
    ) -> Result<Vec<Row>> {
        let ttft = aim.slo.ttft_ms.map_or(f64::INFINITY, |t| t * 1e-3);
        let mut found: Vec<(f64, usize, usize)> = crate::pool::install(|| {
            decode
                .par_iter()
                .enumerate()
                .flat_map_iter(|(j, d)| {
                    prefill.iter().enumerate().filter_map(move |(i, p)| {
                        // KV transfer only adds to the wait.
                        let late = p.side.prefill.latency_s > ttft || self.control.is_cancelled();
                        if late { None } else { self.numbers(p, d).map(|(rate, ..)| (rate, i, j)) }
                    })
                })
                .collect()
        })?;
        self.control.check()?;
        // Stable: equal rates keep their order.
        found.sort_by(|a, b| b.0.total_cmp(&a.0));
        let mut rows: Vec<Row> = Vec::new();
        let mut within = 0;
        for (_, i, j) in found.into_iter().take(8 * PAIRS) {
            let Some(row) = self.best_numbers(level, &prefill[i], &decode[j]) else { continue };
            within += usize::from(aim.score(&row.point).0 == 2);
            rows.push(row);
            if within == PAIRS {
                break;
            }
        }
        Ok(rows)
    }

    /// A level of pairs on its fine grid: rows that the coarse pass has not.
    pub fn refine_pairs(
        &self,
        level: u8,
        prefill: &Priced<(u32, u32, PrefillSide)>,
        decode: &Priced<DecodeSide>,
        coarse: &[Row],
        aim: &Aim,
    ) -> Result<Vec<Row>> {
        let decode = self.fine_decode(decode, aim, true)?;
        let every = levels::prefill_every(prefill, &self.load);
        let mut rows = self.pair_best(level, &every, &decode, aim)?;
        let leaders: Vec<Row> = rows.iter().chain(coarse).copied().collect();
        let finer = self.fine_prefill(prefill, &leaders, aim)?;
        rows.extend(self.pair_best(level, &levels::prefill_every(&finer, &self.load), &decode, aim)?);
        Ok(rows)
    }
}

pub(super) fn order(a: &(u8, f64), b: &(u8, f64)) -> std::cmp::Ordering {
    a.0.cmp(&b.0).then(a.1.total_cmp(&b.1))
}

/// What makes two rows the same plan.
pub type Key = (u8, u8, [u32; 20]);

/// A slot of a plan: layout, batch, chunk, count (the last three last).
pub(super) fn part_key(p: &Part) -> [u32; 10] {
    match p.layout {
        Layout::Worker(w) => [0, w.tp, w.dp, w.pp, w.cp, w.ep(), w.moe_tp, p.batch, p.chunk, p.count],
        Layout::Afd { attention_gpus, tp, ffn_gpus, ep, moe_tp, microbatches, groups } => {
            [microbatches, attention_gpus, tp, ffn_gpus, ep, moe_tp, groups, p.batch, p.chunk, p.count]
        }
    }
}

pub fn key(r: &Row) -> Key {
    let mut k = [0; 20];
    k[..10].copy_from_slice(&part_key(&r.main));
    if let Some(p) = &r.prefill {
        k[10..].copy_from_slice(&part_key(p));
    }
    (r.level, r.framework, k)
}

/// Rows of `more` that are not among `rows` yet, each once.
pub fn append_new(rows: &mut Vec<Row>, more: Vec<Row>) {
    let wanted: std::collections::BTreeSet<Key> = more.iter().map(key).collect();
    let mut seen: std::collections::BTreeSet<Key> = rows.iter().map(key).filter(|k| wanted.contains(k)).collect();
    rows.extend(more.into_iter().filter(|r| seen.insert(key(r))));
}
