//! The central question: which level of disaggregation serves this workload within its limits,
//! how fast, on which partition, and what stops the others?
//!
//! Each level is searched over its own whole space at the same GPU budget; whole workers and units
//! fill the budget and what is left over idles, but is counted. P/D pairs the Pareto frontiers of
//! its two slots (rate, latency and ways for KV, per worker size): a slot candidate that another
//! beats on all of them cannot be in the best pair of that size. A step of a frontier gains at least 2 %,
//! and batches and chunks lie on a coarse grid; the leaders of every level are therefore priced again on a
//! fine one (`refine`), so that levels are compared best against best. The space is scanned by lines
//! (`serving::scan`); what is said of it is priced by the engine (`exact`), and every row tells which it is.
//!
//! Limit: one model and workload on a whole budget; budgets shared between models and plans that change over a day are
//! not searched.

use std::sync::Arc;

use rayon::prelude::*;

use super::aim::{Aim, order};
use super::key::append_new;
use super::layouts::Layouts;
use super::leaders::Tiers;
use super::marks::Judged;
use super::objective::Objective;
use super::question::{Question, UnitKind, WorkUnit};
use super::refine;
use super::row::{Layout, Row};
use super::sides::{Sides, ways};
use super::space::{self, Choices};
use super::study::Study;
use super::task::Task;
use crate::control::Control;
use crate::cost::Library;
use crate::error::{Error, Result};
use crate::kernels::KernelDb;
use crate::serving::framework;
use crate::spec::{Level, Rules};

/// Layouts that a unit of work prices.
fn priced(of: &Layouts, kind: UnitKind, q: &Question) -> u64 {
    let priced: &[&[Layout]] = match kind {
        UnitKind::Workers => &[&of.workers],
        UnitKind::Units => &[&of.units],
        UnitKind::Pairs if q.wants(Level::PdAfd) => &[&of.prefill_workers, &of.workers, &of.units, &of.prefill_units],
        UnitKind::Pairs => &[&of.prefill_workers, &of.workers],
    };
    priced.iter().map(|l| l.len() as u64).sum()
}

/// Searches every level asked for.
pub fn explore(db: &Arc<KernelDb>, q: &Question, control: &Control) -> Result<Study> {
    let libraries = q.libraries(db)?;
    let units = q.units()?;
    let rules: Vec<Option<Rules>> = q.case.named().iter().map(|f| q.rules(*f)).collect::<Result<_>>()?;
    let choices = |(lib, rules): (&Arc<Library>, &Option<Rules>)| {
        Layouts::of(&Choices { lib, budget: q.case.cluster.gpus, rules: rules.as_ref() })
    };
    let layouts: Vec<Layouts> = libraries.iter().zip(&rules).map(|(l, r)| choices((l, r))).collect();
    let total: u64 = units.iter().map(|u| priced(&layouts[usize::from(u.framework)], u.kind, q)).sum();
    // On top of what the same caller has already done: an audit explores many times.
    control.set_total(control.progress().0 + total);
    let mut rows: Vec<Row> = Vec::new();
    for same in units.chunk_by(|a, b| a.framework == b.framework) {
        let framework = same[0].framework;
        let (lib, layouts) = (&libraries[usize::from(framework)], &layouts[usize::from(framework)]);
        // What one unit has compiled and priced serves the next.
        let task = Task::new(lib, &q.case.workload, q.case.cluster.gpus, framework, control, q.scan)
            .within(rules[usize::from(framework)].clone());
        for unit in same {
            task.unit(unit.kind, layouts, q, &mut rows)?;
        }
    }
    Study::new(q.clone(), libraries, rows).arrived(control)
}

/// Searches one unit alone: the same rows, to the bit, as in `explore`.
pub fn search(db: &Arc<KernelDb>, q: &Question, unit: &WorkUnit, control: &Control) -> Result<Vec<Row>> {
    q.check(&framework::with_kernels(db, &q.case.cluster.system)?)?;
    let framework = q.case.named()[usize::from(unit.framework)];
    let (lib, rules) = (q.case.library(db, framework)?, q.rules(framework)?);
    let layouts = Layouts::of(&Choices { lib: &lib, budget: q.case.cluster.gpus, rules: rules.as_ref() });
    control.set_total(priced(&layouts, unit.kind, q));
    let task = Task::new(&lib, &q.case.workload, q.case.cluster.gpus, unit.framework, control, q.scan).within(rules);
    let mut rows = Vec::new();
    task.unit(unit.kind, &layouts, q, &mut rows)?;
    Ok(rows)
}

/// The study of the rows of all units, in the order of `Question::units`.
pub fn join(db: &Arc<KernelDb>, q: &Question, parts: Vec<Vec<Row>>) -> Result<Study> {
    let libraries = q.libraries(db)?;
    let units = q.units()?;
    if parts.len() != units.len() {
        let text = format!("{} parts for {} units", parts.len(), units.len());
        return Err(Error::spec("parts", text, "give the rows of every unit"));
    }
    for (i, (unit, part)) in units.iter().zip(&parts).enumerate() {
        let own = |r: &Row| r.framework == unit.framework && unit.kind.levels().contains(&r.level) && q.wants(r.level);
        if !part.iter().all(own) {
            let text = format!("has rows of another unit than {}", q.label(unit));
            return Err(Error::spec(format!("parts[{i}]"), text, "give them in the order of the units"));
        }
    }
    let mut rows = Vec::new();
    crate::pool::append(&mut rows, parts)?;
    Study::new(q.clone(), libraries, rows).arrived(&Control::new())
}

impl Task<'_> {
    /// Appends every level of a unit of work, one after the other.
    fn unit(&self, kind: UnitKind, of: &Layouts, q: &Question, rows: &mut Vec<Row>) -> Result<()> {
        let octave = q.batches_per_octave.max(1);
        let aim = |level| q.aim(self.lib, level);
        match kind {
            UnitKind::Workers => {
                self.mixed_level(Level::Aggregated, &of.workers, octave, rows, &aim(Level::Aggregated))?
            }
            UnitKind::Units => {
                let (level, octave) = (Level::AggregatedAfd, space::sparser(octave));
                self.mixed_level(level, &of.units, octave, rows, &aim(level))?;
            }
            UnitKind::Pairs => {
                let prompts = Arc::new(self.prompts(&of.prefill_workers)?);
                let workers = self.sides(prompts, &of.workers, octave)?;
                if q.wants(Level::Pd) {
                    self.paired(Level::Pd, &[&workers], &aim(Level::Pd), rows)?;
                }
                if q.wants(Level::PdAfd) && !of.units.is_empty() {
                    let prompts = Arc::new(self.prompts(&of.prefill_units)?);
                    let units = self.sides(prompts, &of.units, octave)?;
                    self.paired(Level::PdAfd, &[&workers, &units], &aim(Level::PdAfd), rows)?;
                }
            }
        }
        Ok(())
    }

    /// A level of one slot, both passes, what it says of them priced by the engine.
    fn mixed_level(&self, level: Level, layouts: &[Layout], octave: u32, rows: &mut Vec<Row>, aim: &Aim) -> Result<()> {
        let grid = self.mixed_groups(level, layouts, octave)?;
        let mut judged: Vec<Judged> = crate::pool::install(|| grid.par_iter().map(|g| g.marks.judge(aim)).collect())?;
        let best = judged.iter().fold(Tiers::default(), |all, own| all.and(own.tiers)).score();
        let behind = |own: &&mut Judged| !refine::may_lead(own.tiers.score(), own.prospect, best, octave);
        judged.iter_mut().filter(behind).for_each(|own| *own = Judged::default());
        let mut fine: Vec<Row> = Vec::new();
        let beyond = self.finer_mixed(level, &grid, &judged, octave, aim, |groups| {
            let found = self.around_layouts(groups, octave, aim)?;
            let best = |rows: &Vec<Row>| rows.iter().map(|r| aim.score(&r.point)).max_by(order);
            let scores = found.iter().map(best).collect();
            fine.extend(found.into_iter().flatten());
            Ok(scores)
        })?;
        let mut parts: Vec<Vec<Row>> = grid.into_iter().map(|g| g.rows).collect();
        parts.extend(beyond.iter().map(|(g, _)| g.rows.clone()));
        parts.push(fine);
        let first = rows.len();
        crate::pool::append(rows, parts)?;
        self.settle(&mut rows[first..], aim)
    }

    /// A level of pairs, both passes; `sides`: workers, units. A level none of whose plans fits still says what is
    /// short, on its nearest miss.
    fn paired(&self, level: Level, sides: &[&Sides], aim: &Aim, rows: &mut Vec<Row>) -> Result<()> {
        let ways: Vec<(&Sides, &Sides)> = ways(level).iter().map(|[p, d]| (sides[*p], sides[*d])).collect();
        let mut coarse = Vec::new();
        for (p, d) in &ways {
            coarse.extend(self.pair_each(level, &p.prompts.front, &d.front)?);
        }
        let first = rows.len();
        crate::pool::append(rows, coarse)?;
        let tiers = Tiers::of(&rows[first..], &Aim { objective: Objective::TokensPerS, ..*aim });
        let mut fine = Vec::new();
        for (p, d) in &ways {
            let decode = self.fine_decode(d, aim)?;
            fine.extend(self.best_pairs(level, &p.prompts, &decode, aim, tiers)?);
        }
        append_new(rows, first, fine);
        self.settle(&mut rows[first..], aim)?;
        if let (true, Some((p, d))) = (rows.len() == first, ways.first()) {
            rows.extend(self.closest_pair(level, &p.prompts.all, &d.decode));
        }
        Ok(())
    }
}
