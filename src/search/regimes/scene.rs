//! What the cells of one cluster and workload share, and what each of them finds in it.
//!
//! The steps are those of `explore`, in its order: the coarse grid, the finer grid around the leaders, the engine
//! for what may lead. The grid is priced once, and so is every unit that a cell climbs to; a layout keeps its points
//! on the finer grid; decode slots are looked for once a TPOT limit. A cell first reads how far each layout reaches
//! under its limits from the rows that none of the same layout beats in rate and both latencies, and then takes up
//! only rows near the best. Pairs are not listed: of each cell those near its best are found by their bounds.
//!
//! Limit: a closed loop only; cells with arrivals of their own are explored one by one.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use rayon::prelude::*;

use super::map::{Map, Reach};
use crate::control::Control;
use crate::error::Result;
use crate::search::aim::{Aim, order};
use crate::search::fine_decode::Fine;
use crate::search::group::Group;
use crate::search::kept::Kept;
use crate::search::key::{PlanKey, append_new, key};
use crate::search::layouts::Layouts;
use crate::search::leaders::{self, Tiers};
use crate::search::marks::{Judged, Mark, prospect};
use crate::search::objective::Objective;
use crate::search::refine;
use crate::search::row::{Layout, Row};
use crate::search::sides::{Sides, ways};
use crate::search::slots::{Front, PairMarks};
use crate::search::space;
use crate::search::task::Task;
use crate::serving::{Binding, SteadyState, steady_state};
use crate::spec::{Level, Slo};

/// What a layout reaches: the least of each latency, and its marks that no other beats on rate and both latencies.
struct Peaks {
    group: usize,
    least: [f64; 2],
    marks: std::ops::Range<usize>,
}

/// Marks of a layout that no other of it beats, by falling rate.
fn unbeaten(group: &Group) -> Vec<Mark> {
    let mut all: Vec<Mark> = group.marks.iter().filter(|m| m.stands()).copied().collect();
    all.sort_by(|a, b| b.rate.total_cmp(&a.rate));
    let mut best: Vec<Mark> = Vec::new();
    for m in all {
        let beats = |k: &Mark| k.latencies[0] <= m.latencies[0] && k.latencies[1] <= m.latencies[1];
        if !best.iter().any(beats) {
            best.push(m);
        }
    }
    best
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

/// A mixed level.
struct Mixed {
    level: Level,
    octave: u32,
    groups: Vec<Group>,
    /// By falling rate of what they reach without limits; the marks of all stand together, as they are read.
    peaks: Vec<Peaks>,
    marks: Vec<Mark>,
    /// What lacks the least memory, if nothing stands.
    least: Option<Row>,
}

pub struct Scene<'a> {
    task: Task<'a>,
    mixed: [Option<Mixed>; 2],
    sides: [Option<Sides>; 2],
    /// What pairs of (prompts, decode) of each kind give.
    paired: [OnceLock<PairMarks>; 4],
    /// Of the levels of pairs: what lacks the least memory where nothing stands, once asked for.
    closest: [OnceLock<Option<Row>>; 2],
    exact: Kept<PlanKey, SteadyState>,
}

/// Decode slots under one TPOT limit: of workers, of units.
type Decode<'a, 't> = [Option<Fine<'a, 't>>; 2];

impl<'a> Scene<'a> {
    pub(crate) fn new(map: &Map, task: Task<'a>) -> Result<Scene<'a>> {
        let of = Layouts::of(&task.choices());
        let octave = map.batches_per_octave.max(1);
        let of_units = space::sparser(octave);
        let mixed = [
            mixed(map, &task, Level::Aggregated, &of.workers, octave)?,
            mixed(map, &task, Level::AggregatedAfd, &of.units, of_units)?,
        ];
        let (pd, afd) =
            (map.wants(Level::Pd) || map.wants(Level::PdAfd), map.wants(Level::PdAfd) && !of.units.is_empty());
        let workers = || task.sides(task.prompts_shared("workers", &of.prefill_workers)?, &of.workers, octave);
        let units = || task.sides(task.prompts_shared("units", &of.prefill_units)?, &of.units, octave);
        let sides = [pd.then(workers).transpose()?, afd.then(units).transpose()?];
        Ok(Scene {
            task,
            mixed,
            sides,
            paired: Default::default(),
            closest: Default::default(),
            exact: Kept::default(),
        })
    }

    /// A row's point by the engine; the cells of a scene often share it.
    fn exact(&self, r: &Row) -> Result<SteadyState> {
        Ok(*self.exact.get(key(r), || self.task.exact(r))?)
    }

    /// The leader of the rows that may lead.
    fn settled(&self, mut rows: Vec<Row>, aim: &Aim) -> Result<Reach> {
        leaders::settle(&mut rows, aim, self.task.control, |r| self.exact(r))?;
        let row = leaders::leader(rows.iter(), |_| *aim).map(|i| Row { scanned: false, ..rows[i] });
        Ok(Reach { binding: row.map_or(Binding::Divisibility, |r| r.point.binding_under(&aim.slo)), row })
    }

    /// What each layout reaches, and all of them. Those that cannot come near, not even on a finer grid, are left out:
    /// too slow in rate, or further over a limit than what keeps them or is nearest to them.
    fn reached(&self, level: &Mixed, aim: &Aim) -> (Vec<Judged>, Tiers) {
        let finer = refine::reach(level.octave);
        let mut near: Vec<(usize, Tiers, f64)> = Vec::new();
        let mut tiers = Tiers::default();
        for peak in &level.peaks {
            let marks = &level.marks[peak.marks.clone()];
            if marks.first().is_none_or(|m| m.rate * finer < tiers.floor()) {
                break;
            }
            let (class, value) = tiers.score();
            let allowed = if class == 2 { finer } else { -value * finer };
            if steady_state::excess(peak.least, &aim.slo) <= allowed || class == 0 {
                let own = reach(marks, &aim.slo);
                near.push((peak.group, own, prospect(marks.iter(), aim)));
                tiers = tiers.and(own);
            }
        }
        let mut judged: Vec<Judged> = vec![Judged::default(); level.groups.len()];
        for (group, own, prospect) in near {
            if refine::may_lead(own.score(), prospect, tiers.score(), level.octave) {
                judged[group] = level.groups[group].marks.judge(aim);
            }
        }
        (judged, tiers)
    }

    fn in_mixed(&self, level: &Mixed, aim: &Aim) -> Result<Reach> {
        let (mut judged, mut tiers) = self.reached(level, aim);
        let mut fine: Vec<Row> = Vec::new();
        let beyond = self.task.finer_mixed(level.level, &level.groups, &judged, level.octave, aim, |groups| {
            let one = |group: &&Group| {
                let mut best: Option<(u8, f64)> = None;
                self.task.around_layout(group, level.octave, aim, |point, row| {
                    let (gain, excess) = (point.requests_per_s, point.excess(&aim.slo));
                    best = best.into_iter().chain([aim.score(point)]).max_by(order);
                    if point.stands() {
                        tiers.add(gain, excess);
                        if tiers.takes(gain, excess) {
                            fine.extend(row());
                        }
                    }
                });
                best
            };
            Ok(groups.iter().map(one).collect())
        })?;
        for (_, own) in &beyond {
            tiers = tiers.and(own.tiers);
            judged.push(*own);
        }
        let groups: Vec<&Group> = level.groups.iter().chain(beyond.iter().map(|(g, _)| &**g)).collect();
        let takes = |rate: f64, excess: f64| rate > f64::NEG_INFINITY && tiers.takes(rate, excess);
        let near = groups.iter().zip(&judged).filter(|(_, own)| tiers.meets(&own.tiers));
        let rows_of = |g: &&Group| -> Vec<Row> {
            let marks = g.marks.iter().zip(&g.rows);
            marks.filter(|(m, _)| takes(m.rate, m.excess(&aim.slo))).map(|(_, r)| *r).collect()
        };
        let mut rows: Vec<Row> = near.flat_map(|(g, _)| rows_of(g)).collect();
        rows.extend(fine.iter().filter(|r| takes(r.point.requests_per_s, r.point.excess(&aim.slo))));
        if rows.is_empty() {
            rows.extend(level.least);
        }
        self.settled(rows, aim)
    }

    /// `level`: of pairs.
    fn in_paired(&self, level: Level, decode: &Decode<'_, '_>, aim: &Aim) -> Result<Reach> {
        let sides = |[p, d]: &[usize; 2]| self.sides[*p].as_ref().zip(self.sides[*d].as_ref()).map(|s| (s, [*p, *d]));
        let mut rows: Vec<Row> = Vec::new();
        let mut tiers = Tiers::default();
        for ((p, d), [from, to]) in ways(level).iter().filter_map(sides) {
            let marks = self.paired[2 * from + to].get_or_init(|| PairMarks::new(p.prompts.front.len(), d.front.len()));
            rows.extend(self.task.near_best(level, &p.prompts.front, &Front::new(d, marks), aim, tiers)?);
            tiers = tiers.and(Tiers::of(&rows, aim));
        }
        let mut fine: Vec<Row> = Vec::new();
        for ((p, _), [_, to]) in ways(level).iter().filter_map(sides) {
            let Some(slots) = &decode[to] else { continue };
            fine.extend(self.task.best_pairs(level, &p.prompts, slots, aim, tiers)?);
        }
        tiers = tiers.and(Tiers::of(&fine, aim));
        let takes = |r: &Row| tiers.takes(r.point.requests_per_s, r.point.excess(&aim.slo));
        rows.retain(takes);
        fine.retain(takes);
        append_new(&mut rows, 0, fine);
        if rows.is_empty() {
            rows.extend(self.closest(level));
        }
        self.settled(rows, aim)
    }

    /// The pair that lacks the least memory, of a level none of whose pairs stands.
    fn closest(&self, level: Level) -> Option<Row> {
        let [p, d] = ways(level)[0];
        *self.closest[usize::from(level.has_afd())].get_or_init(|| {
            let (p, d) = self.sides[p].as_ref().zip(self.sides[d].as_ref())?;
            self.task.closest_pair(level, &p.prompts.all, &d.decode)
        })
    }

    /// What every level asked for reaches under each pair of limits, in their order; handed over as each is done.
    pub(crate) fn cells(&self, map: &Map, control: &Control, done: impl Fn(usize, Vec<Reach>) + Sync) -> Result<()> {
        let aim = |slo: &Slo| Aim { slo: *slo, objective: Objective::TokensPerS };
        let key = |slo: &Slo| slo.tpot_ms.unwrap_or(f64::INFINITY).to_bits();
        let by_tpot: BTreeMap<u64, &Slo> = map.slos.iter().map(|slo| (key(slo), slo)).collect();
        let of =
            |slo: &Slo, kind: usize| self.sides[kind].as_ref().map(|s| self.task.fine_decode(s, &aim(slo))).transpose();
        let found: Vec<Result<(u64, Decode<'_, '_>)>> =
            crate::pool::install(|| by_tpot.par_iter().map(|(k, slo)| Ok((*k, [of(slo, 0)?, of(slo, 1)?]))).collect())?;
        let decode: BTreeMap<u64, Decode<'_, '_>> = found.into_iter().collect::<Result<_>>()?;
        let asked = map.asked();
        let one = |(i, slo): (usize, &Slo)| -> Result<()> {
            control.check()?;
            let nothing = || Ok(Reach { row: None, binding: Binding::Divisibility });
            let reached: Result<Vec<Reach>> = asked
                .iter()
                .map(|level| match level {
                    Level::Aggregated | Level::AggregatedAfd => {
                        let mixed = self.mixed[usize::from(level.has_afd())].as_ref();
                        mixed.map_or_else(nothing, |m| self.in_mixed(m, &aim(slo)))
                    }
                    Level::Pd | Level::PdAfd if self.sides[usize::from(level.has_afd())].is_none() => nothing(),
                    Level::Pd | Level::PdAfd => self.in_paired(*level, &decode[&key(slo)], &aim(slo)),
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

fn mixed(map: &Map, task: &Task<'_>, level: Level, layouts: &[Layout], octave: u32) -> Result<Option<Mixed>> {
    if !map.wants(level) {
        return Ok(None);
    }
    let groups = task.mixed_groups(level, layouts, octave)?;
    let best: Vec<Vec<Mark>> = crate::pool::install(|| groups.par_iter().map(unbeaten).collect())?;
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

fn least<'a>(rows: impl Iterator<Item = &'a Row>) -> Option<Row> {
    let lacking = rows.filter(|r| !r.point.stands());
    lacking.min_by(|a, b| a.point.memory_bytes.total_cmp(&b.point.memory_bytes)).copied()
}
