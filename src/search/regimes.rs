//! Which level wins where: a map over lengths, limits and clusters, best against best in every cell.
//!
//! A cell says what `explore` says of the same question, to the bit: both take the same steps over the same rows,
//! and only what they share is done once (of a level that keeps no limits the map says what stops it, not the plan).
//! Cells that differ in nothing but limits share one scan of the space (`scene`), whose points do not depend on
//! limits; what a finer grid and the engine have priced for one cell is kept for the others; and rows that cannot
//! lead under a cell's limits are passed over (`leaders::Tiers`). Every framework compared has a scan of its own; in a
//! cell each level takes the best of them. Held against `explore` in tests/rust/regimes.rs.
//!
//! Limit: a cell is a point: where a border runs between two cells is not looked for.

mod map;
mod scene;
mod table;

use std::sync::{Arc, Mutex, PoisonError};

use ndarray::{Array1, Array2, Array3, ArrayViewMut2};

pub use self::map::{Cell, Map, Reach};
use self::map::{best_of, winner};
use self::scene::Scene;
pub use self::table::regimes;
use super::aim::Aim;
use super::compiled::Compiled;
use super::explore::explore;
use super::objective::Objective;
use super::question::Question;
use super::row::Row;
use super::study::Verdict;
use super::task::Task;
use crate::control::Control;
use crate::cost::Library;
use crate::error::{Error, Result};
use crate::kernels::KernelDb;
use crate::serving::Binding;
use crate::serving::queueing::Arrivals;
use crate::spec::{Case, Cluster, Framework, Rules, Slo, Workload};

/// Cells by cluster, workload and limits; none where the search was stopped before it came there.
pub type Cells = Array3<Option<Cell>>;

/// Every cell. Stopped and `partial`: those that are done.
pub fn cells(db: &Arc<KernelDb>, map: &Map, control: &Control, partial: bool) -> Result<Cells> {
    let compared = map.compared(db)?;
    let mut out = Cells::from_elem((map.clusters.len(), map.workloads.len(), map.slos.len()), None);
    control.set_total(out.len() as u64);
    let searched =
        out.outer_iter_mut().zip(&compared).zip(&map.clusters).try_for_each(|((own, frameworks), cluster)| {
            if map.arrivals == Arrivals::Poisson {
                with_arrivals(db, map, cluster, frameworks, own, control)
            } else {
                in_scenes(db, map, cluster, frameworks, own, control)
            }
        });
    match searched {
        Err(Error::Cancelled) if partial && out.iter().any(Option::is_some) => {}
        other => other?,
    }
    Ok(out)
}

/// The cells of a cluster, by workload and limits, in a closed loop: one scan for all limits of a workload.
fn in_scenes(
    db: &Arc<KernelDb>,
    map: &Map,
    cluster: &Cluster,
    frameworks: &[Framework],
    mut out: ArrayViewMut2<'_, Option<Cell>>,
    control: &Control,
) -> Result<()> {
    let at = map.on(cluster);
    let lanes: Vec<(Arc<Library>, Arc<Compiled>, Option<Rules>)> = frameworks
        .iter()
        .map(|f| {
            let lib = at.library(db, *f)?;
            let rules = map.runnable.then(|| Rules::new(*f, None, &at.model, &at.cluster)).transpose()?;
            let compiled = Compiled::of(&lib);
            Ok((lib, compiled, rules))
        })
        .collect::<Result<_>>()?;
    let scene = |of: &Workload| -> (Vec<Option<Cell>>, Result<()>) {
        // What each framework reaches under each pair of limits. A cell is done when all frameworks are.
        let found = Mutex::new(Array2::<Option<Vec<Reach>>>::from_elem((map.slos.len(), lanes.len()), None));
        let searched = lanes.iter().enumerate().try_for_each(|(framework, (lib, compiled, rules))| {
            // Its layouts and cells count for themselves; progress is in cells that all frameworks have done.
            let part = control.part();
            let task = Task::sharing(compiled, lib, of, at.cluster.gpus, framework as u8, &part, true);
            Scene::new(map, task.within(rules.clone()).under(map.loosest()))?.cells(map, &part, |slo, reached| {
                let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
                found[[slo, framework]] = Some(reached);
                control.advance(u64::from(found.row(slo).iter().all(Option::is_some)));
            })
        });
        let found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
        let cells = found.outer_iter().zip(&map.slos).map(|(by, slo)| {
            let all: Option<Vec<&[Reach]>> = by.iter().map(Option::as_deref).collect();
            Some(map.merged(slo, &all?))
        });
        (cells.collect(), searched)
    };
    // Two at a time, so that what one has no more work for the other has; from both ends, since neighbours often share
    // their prompts.
    let left = Mutex::new(0..map.workloads.len());
    let out = Mutex::new(&mut out);
    let next = |last: bool| {
        let mut left = left.lock().unwrap_or_else(PoisonError::into_inner);
        if last { left.next_back() } else { left.next() }
    };
    let side = |last: bool| -> Result<()> {
        while let Some(i) = next(last) {
            let (cells, searched) = scene(&map.workloads[i]);
            out.lock().unwrap_or_else(PoisonError::into_inner).row_mut(i).assign(&Array1::from(cells));
            searched?;
        }
        Ok(())
    };
    let (first, second) = crate::pool::install(|| rayon::join(|| side(false), || side(true)))?;
    first.and(second)
}

impl Map {
    /// A cell of what each framework reaches.
    fn merged(&self, slo: &Slo, by: &[&[Reach]]) -> Cell {
        let aim = Aim { slo: *slo, objective: Objective::TokensPerS };
        let levels = 0..self.asked().len();
        let reached: Vec<Reach> = levels.map(|k| best_of(by.iter().map(|r| &r[k]), &aim)).collect();
        let winners: Vec<usize> = by.iter().filter_map(|r| winner(r)).collect();
        let agreed = winners.iter().all(|w| Some(*w) == winner(&reached));
        Cell { reached, agreed }
    }
}

/// The cells of a cluster, by workload and limits, each with arrivals of its own.
fn with_arrivals(
    db: &Arc<KernelDb>,
    map: &Map,
    cluster: &Cluster,
    frameworks: &[Framework],
    mut out: ArrayViewMut2<'_, Option<Cell>>,
    control: &Control,
) -> Result<()> {
    for ((workload, slo), cell) in out.indexed_iter_mut() {
        control.check()?;
        let (workload, named) = (map.workloads[workload].clone(), Some(frameworks.to_vec()));
        let case = Case { workload, frameworks: named, ..map.on(cluster) };
        *cell = Some(arrived(db, map, case, map.slos[slo], control)?);
        control.advance(1);
    }
    Ok(())
}

/// A cell with arrivals of its own: each level's leader at the rate that its limits allow.
fn arrived(db: &Arc<KernelDb>, map: &Map, case: Case, slo: Slo, control: &Control) -> Result<Cell> {
    let frameworks = case.named().len();
    let mut q = Question::new(case, slo);
    q.levels = map.asked();
    (q.arrivals, q.confirm, q.batches_per_octave) = (map.arrivals, false, map.batches_per_octave);
    q.runnable = map.runnable;
    let study = explore(db, &q, &control.part())?;
    let reach = |v: &Verdict| {
        let row = v.row.zip(study.said(v)).map(|(i, point)| Row { point, ..study.rows[i] });
        Reach { row, binding: if v.feasible { Binding::None } else { v.binding } }
    };
    let of = |f: usize| -> Vec<Reach> {
        study.by_framework.iter().filter(|(k, _)| *k == f).map(|(_, v)| reach(v)).collect()
    };
    let reached: Vec<Reach> = study.verdicts.iter().map(reach).collect();
    let best = winner(&reached);
    let agreed = (0..frameworks).filter_map(|f| winner(&of(f))).all(|w| Some(w) == best);
    Ok(Cell { reached, agreed })
}
