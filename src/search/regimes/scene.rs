//! What the cells of one cluster and workload share, and what each of them finds in it.
//!
//! The steps are those of `explore`, in its order: the coarse grid, the finer grid around the leaders, the engine
//! for what may lead. The coarse grid is priced once; a layout keeps its points on the finer grid; decode slots are
//! looked for once a TPOT limit. A cell first reads how far each layout reaches under its limits from the rows that
//! none of the same layout beats in rate and both latencies, and then takes up only rows near the best.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use rayon::prelude::*;

use super::{Map, Reach};
use crate::control::Control;
use crate::error::Result;
use crate::search::frontier::Candidate;
use crate::search::levels::{Layouts, Task};
use crate::search::near::{self, Tiers};
use crate::search::pairs::{Sides, ways};
use crate::search::refine::{self, Aim, Key, Known, append_new};
use crate::search::row::{Layout, Row};
use crate::search::timer::Timer;
use crate::serving::pd::DecodeSide;
use crate::serving::{Binding, Point, point};
use crate::spec::Slo;

/// Rate and latencies of a standing row, and which row it is.
#[derive(Clone, Copy)]
struct Mark {
    rate: f64,
    latencies: [f64; 2],
    part: u32,
    row: u32,
}

impl Mark {
    /// Those of the standing rows of a list, by falling rate.
    fn of(part: usize, rows: &[Row]) -> Vec<Mark> {
        let standing = rows.iter().enumerate().filter(|(_, r)| r.point.stands());
        let mark = |(row, r): (usize, &Row)| {
            let p = &r.point;
            Mark { rate: p.requests_per_s, latencies: [p.ttft_s, p.tpot_s], part: part as u32, row: row as u32 }
        };
        let mut all: Vec<Mark> = standing.map(mark).collect();
        all.sort_by(|a, b| b.rate.total_cmp(&a.rate));
        all
    }

    fn excess(&self, slo: &Slo) -> f64 {
        point::excess(self.latencies, slo)
    }
}

/// What marks by falling rate reach under limits. Below one that surely keeps them nothing reaches further.
fn reach(marks: &[Mark], slo: &Slo) -> Tiers {
    let mut tiers = Tiers::default();
    for m in marks {
        tiers.add(m.rate, m.excess(slo));
        if tiers.is_sure() {
            break;
        }
    }
    tiers
}

/// A layout of a mixed level.
struct Group {
    timer: Arc<Timer>,
    rows: Vec<Row>,
    known: Mutex<Known>,
}

/// What a layout reaches: the least of each latency, and its marks that no other beats on rate and both latencies.
struct Peaks {
    group: usize,
    least: [f64; 2],
    marks: std::ops::Range<usize>,
}

/// Marks of a layout that no other of it beats.
fn unbeaten(rows: &[Row]) -> Vec<Mark> {
    let mut best: Vec<Mark> = Vec::new();
    for m in Mark::of(0, rows) {
        let beats = |k: &Mark| k.latencies[0] <= m.latencies[0] && k.latencies[1] <= m.latencies[1];
        if !best.iter().any(beats) {
            best.push(m);
        }
    }
    best
}

/// A mixed level.
struct Mixed {
    level: u8,
    octave: u32,
    groups: Vec<Group>,
    /// By falling rate of what they reach without limits; the marks of all stand together, as they are read.
    peaks: Vec<Peaks>,
    marks: Vec<Mark>,
    /// What lacks the least memory, if nothing stands.
    least: Option<Row>,
}

/// A level of pairs: the coarse ones.
struct Paired {
    level: u8,
    /// One list a decode slot.
    parts: Vec<Vec<Row>>,
    /// Of all, each with the numbers of its list and of its row in it.
    marks: Vec<Mark>,
    /// What lacks the least memory, if nothing stands.
    least: Option<Row>,
}

pub struct Scene<'a> {
    task: Task<'a>,
    mixed: [Option<Mixed>; 2],
    sides: [Option<Sides>; 2],
    paired: [Option<Paired>; 2],
    exact: Mutex<HashMap<Key, Point>>,
}

/// Decode slots under one TPOT limit: of workers, of units.
type Decode = [Vec<Candidate<DecodeSide>>; 2];

fn lock<T>(m: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<'a> Scene<'a> {
    pub fn new(map: &Map, task: Task<'a>) -> Result<Scene<'a>> {
        let of = Layouts::of(&task.choices());
        let octave = map.batches_per_octave.max(1);
        let mixed = [mixed(map, &task, 0, &of.workers, octave)?, mixed(map, &task, 2, &of.units, octave)?];
        let (pd, afd) = (map.wants(1) || map.wants(3), map.wants(3) && !of.units.is_empty());
        let workers = || task.sides(task.prompts_shared("workers", &of.prefill_workers)?, &of.workers, 2 * octave);
        let units = || task.sides(task.prompts_shared("units", &of.prefill_units)?, &of.units, 2 * octave);
        let sides = [pd.then(workers).transpose()?, afd.then(units).transpose()?];
        let paired = [
            map.wants(1).then(|| paired(&task, &sides, 1)).transpose()?,
            afd.then(|| paired(&task, &sides, 3)).transpose()?,
        ];
        Ok(Scene { task, mixed, sides, paired, exact: Mutex::default() })
    }

    /// A row's point by the engine; the cells of a scene often share it.
    fn exact(&self, r: &Row) -> Result<Point> {
        let key = refine::key(r);
        if let Some(p) = lock(&self.exact).get(&key) {
            return Ok(*p);
        }
        let p = self.task.exact(r)?;
        lock(&self.exact).insert(key, p);
        Ok(p)
    }

    /// The leader of the rows that may lead.
    fn settled(&self, mut rows: Vec<Row>, aim: &Aim) -> Result<Reach> {
        near::settle(&mut rows, aim, self.task.control, |r| self.exact(r))?;
        let row = near::leader(rows.iter(), aim).map(|i| Row { scanned: false, ..rows[i] });
        Ok(Reach { binding: row.map_or(Binding::Divisibility, |r| r.point.binding_under(&aim.slo)), row })
    }

    /// What each layout reaches, and all of them. Those that cannot come near, not even on a finer grid, are left out:
    /// too slow in rate, or further over a limit than what keeps them or is nearest to them.
    fn reached(&self, level: &Mixed, slo: &Slo) -> (Vec<Tiers>, Tiers) {
        let finer = refine::reach(level.octave);
        let mut reached: Vec<Tiers> = vec![Tiers::default(); level.groups.len()];
        let mut tiers = Tiers::default();
        for peak in &level.peaks {
            let marks = &level.marks[peak.marks.clone()];
            if marks.first().is_none_or(|m| m.rate * finer < tiers.floor()) {
                break;
            }
            let (class, value) = tiers.score();
            let allowed = if class == 2 { finer } else { -value * finer };
            if point::excess(peak.least, slo) <= allowed || class == 0 {
                reached[peak.group] = reach(marks, slo);
                tiers = tiers.and(reached[peak.group]);
            }
        }
        (reached, tiers)
    }

    /// Units beyond the coarse grid, climbed to from what leads it under these limits.
    fn beyond(&self, level: &Mixed, reached: &[Tiers], aim: &Aim) -> Result<Vec<Group>> {
        if level.level != 2 {
            return Ok(Vec::new());
        }
        let leading = level.groups.iter().zip(reached).filter(|(_, t)| t.score().0 > 0);
        let layouts = level.groups.iter().filter_map(|g| g.rows.first()).map(|r| r.main.layout);
        let rows = leading.map(|(g, _)| g.rows.as_slice());
        let found = self.task.mixed_beyond(level.level, rows, layouts, level.octave, aim)?;
        Ok(found.into_iter().map(|(timer, rows)| Group { timer, rows, known: Mutex::default() }).collect())
    }

    fn in_mixed(&self, level: &Mixed, aim: &Aim) -> Result<Reach> {
        let (mut reached, mut tiers) = self.reached(level, &aim.slo);
        let beyond = self.beyond(level, &reached, aim)?;
        for g in &beyond {
            let own = Tiers::of(&g.rows, aim);
            tiers = tiers.and(own);
            reached.push(own);
        }
        let groups: Vec<&Group> = level.groups.iter().chain(&beyond).collect();
        let mut fine: Vec<Row> = Vec::new();
        refine::rounds(reached.iter().map(Tiers::score), level.octave, |live| {
            let mut best: Option<(u8, f64)> = None;
            for i in live {
                let g = groups[*i];
                self.task.around_layout(&g.timer, &g.rows, level.octave, aim, &mut lock(&g.known), |r| {
                    let (gain, excess) = (r.point.requests_per_s, r.point.excess(&aim.slo));
                    best = best.into_iter().chain([aim.score(&r.point)]).max_by(refine::order);
                    if r.point.stands() {
                        tiers.add(gain, excess);
                        if tiers.takes(gain, excess) {
                            fine.push(r);
                        }
                    }
                });
            }
            Ok(best)
        })?;
        let takes = |r: &&Row| r.point.stands() && tiers.takes(r.point.requests_per_s, r.point.excess(&aim.slo));
        let near = groups.iter().zip(&reached).filter(|(_, own)| tiers.meets(own));
        let mut rows: Vec<Row> = near.flat_map(|(g, _)| g.rows.iter().filter(takes)).copied().collect();
        rows.extend(fine.iter().filter(takes));
        if rows.is_empty() {
            rows.extend(level.least);
        }
        self.settled(rows, aim)
    }

    fn in_paired(&self, level: &Paired, decode: &Decode, aim: &Aim) -> Result<Reach> {
        let mut tiers = reach(&level.marks, &aim.slo);
        let mut fine: Vec<Row> = Vec::new();
        for [p, d] in ways(level.level) {
            let Some(sides) = &self.sides[*p] else { continue };
            fine.extend(self.task.best_pairs(level.level, &sides.prompts.every, &decode[*d], aim, tiers)?);
        }
        tiers = tiers.and(Tiers::of(&fine, aim));
        let floor = tiers.floor();
        let near = level.marks.iter().take_while(|m| m.rate >= floor);
        let near = near.filter(|m| tiers.takes(m.rate, m.excess(&aim.slo)));
        let mut near: Vec<(usize, usize)> = near.map(|m| (m.part as usize, m.row as usize)).collect();
        near.sort_unstable();
        let mut rows: Vec<Row> = near.into_iter().map(|(part, i)| level.parts[part][i]).collect();
        fine.retain(|r| tiers.takes(r.point.requests_per_s, r.point.excess(&aim.slo)));
        append_new(&mut rows, fine);
        if rows.is_empty() {
            rows.extend(level.least);
        }
        self.settled(rows, aim)
    }

    /// What every level asked for reaches under each pair of limits, in their order; handed over as each is done.
    pub fn cells(&self, map: &Map, control: &Control, done: impl Fn(usize, Vec<Reach>) + Sync) -> Result<()> {
        let aim = |slo: &Slo| Aim { slo: *slo, per_user: false };
        let key = |slo: &Slo| slo.tpot_ms.unwrap_or(f64::INFINITY).to_bits();
        let by_tpot: BTreeMap<u64, &Slo> = map.slos.iter().map(|slo| (key(slo), slo)).collect();
        let of = |slo: &Slo, side: &Option<Sides>| match side {
            Some(s) => self.task.fine_decode(s, &aim(slo)),
            None => Ok(Vec::new()),
        };
        let found: Vec<Result<(u64, Decode)>> = crate::pool::install(|| {
            by_tpot.par_iter().map(|(k, slo)| Ok((*k, [of(slo, &self.sides[0])?, of(slo, &self.sides[1])?]))).collect()
        })?;
        let decode: BTreeMap<u64, Decode> = found.into_iter().collect::<Result<_>>()?;
        let asked = map.asked();
        let one = |(i, slo): (usize, &Slo)| -> Result<()> {
            control.check()?;
            let nothing = || Ok(Reach { row: None, binding: Binding::Divisibility });
            let reached: Result<Vec<Reach>> = asked
                .iter()
                .map(|level| match level {
                    0 | 2 => self.mixed[level / 2].as_ref().map_or_else(nothing, |m| self.in_mixed(m, &aim(slo))),
                    _ => self.paired[level / 2]
                        .as_ref()
                        .map_or_else(nothing, |p| self.in_paired(p, &decode[&key(slo)], &aim(slo))),
                })
                .collect();
            done(i, reached?);
            control.advance(1);
            Ok(())
        };
        crate::pool::install(|| map.slos.par_iter().enumerate().map(one).collect::<Result<Vec<()>>>())??;
        Ok(())
    }
}

fn mixed(map: &Map, task: &Task<'_>, level: u8, layouts: &[Layout], octave: u32) -> Result<Option<Mixed>> {
    if !map.wants(usize::from(level)) {
        return Ok(None);
    }
    let priced = task.mixed_groups(level, layouts, octave)?;
    let best: Vec<Vec<Mark>> = crate::pool::install(|| priced.par_iter().map(|(_, rows)| unbeaten(rows)).collect())?;
    let groups: Vec<Group> =
        priced.into_iter().map(|(timer, rows)| Group { timer, rows, known: Mutex::default() }).collect();
    let least = if best.iter().all(Vec::is_empty) { least(groups.iter().flat_map(|g| &g.rows)) } else { None };
    let top = |i: usize| best[i].first().map_or(f64::NEG_INFINITY, |m| m.rate);
    let mut order: Vec<usize> = (0..groups.len()).collect();
    order.sort_by(|a, b| top(*b).total_cmp(&top(*a)).then(a.cmp(b)));
    let (mut peaks, mut marks) = (Vec::with_capacity(order.len()), Vec::new());
    for group in order {
        let (start, own) = (marks.len(), &best[group]);
        marks.extend_from_slice(own);
        let least = [0, 1].map(|k| own.iter().map(|m| m.latencies[k]).fold(f64::INFINITY, f64::min));
        peaks.push(Peaks { group, least, marks: start..marks.len() });
    }
    Ok(Some(Mixed { level, octave, groups, peaks, marks, least }))
}

fn paired(task: &Task<'_>, sides: &[Option<Sides>; 2], level: u8) -> Result<Paired> {
    let ways = ways(level);
    let mut parts = Vec::new();
    for [p, d] in ways {
        if let (Some(p), Some(d)) = (&sides[*p], &sides[*d]) {
            parts.extend(task.pair_each(level, &p.prompts.front, &d.front)?);
        }
    }
    let marks = crate::pool::install(|| {
        let each: Vec<Vec<Mark>> = parts.par_iter().enumerate().map(|(k, rows)| Mark::of(k, rows)).collect();
        let mut all: Vec<Mark> = each.into_iter().flatten().collect();
        all.par_sort_by(|a, b| b.rate.total_cmp(&a.rate));
        all
    })?;
    let least = match (&sides[ways[0][0]], &sides[ways[0][1]]) {
        (Some(p), Some(d)) if parts.iter().all(Vec::is_empty) => task.closest_pair(level, &p.prompts.all, &d.decode),
        _ if marks.is_empty() => least(parts.iter().flatten()),
        _ => None,
    };
    Ok(Paired { level, parts, marks, least })
}

fn least<'a>(rows: impl Iterator<Item = &'a Row>) -> Option<Row> {
    let lacking = rows.filter(|r| !r.point.stands());
    lacking.min_by(|a, b| a.point.memory_bytes.total_cmp(&b.point.memory_bytes)).copied()
}
