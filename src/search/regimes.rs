//! Which level wins where: a map over lengths, limits and clusters, best against best in every cell.
//!
//! A cell says what `explore` says of the same question, to the bit: both take the same steps over the same rows,
//! and only what they share is done once (of a level that keeps no limits the map says what stops it, not the plan).
//! Cells that differ in nothing but limits share one scan of the space (`scene`), whose points do not depend on
//! limits; what a finer grid and the engine have priced for one cell is kept for the others; and rows that cannot
//! lead under a cell's limits are passed over (`leaders::Tiers`). Every framework compared has a scan of its own; in a
//! cell each level takes the best of them. Held against `explore` in tests/rust/regimes.rs.

mod map;
mod scene;
mod table;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

pub use self::map::{Cell, Map, Reach};
use self::map::{best_of, winner};
use self::scene::Scene;
pub use self::table::regimes;
use super::aim::Aim;
use super::compiled::Compiled;
use super::explore::explore;
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
use crate::spec::{Case, Rules};

/// Every cell, clusters outermost, then workloads, then limits. Stopped and `partial`: those that are done.
pub fn cells(db: &Arc<KernelDb>, map: &Map, control: &Control, partial: bool) -> Result<Vec<Cell>> {
    let compared = map.compared(db)?;
    control.set_total((map.clusters.len() * map.workloads.len() * map.slos.len()) as u64);
    let mut out: Vec<Cell> = Vec::new();
    let one = |cluster: usize, out: &mut Vec<Cell>| -> Result<()> {
        let at = map.on(&map.clusters[cluster]);
        if map.arrivals == Arrivals::Poisson {
            for workload in 0..map.workloads.len() {
                for slo in 0..map.slos.len() {
                    control.check()?;
                    out.push(arrived(db, map, [cluster, workload, slo], &compared[cluster], control)?);
                    control.advance(1);
                }
            }
            return Ok(());
        }
        let lanes: Vec<(Arc<Library>, Arc<Compiled>, Option<Rules>)> = compared[cluster]
            .iter()
            .map(|f| {
                let lib = at.library(db, f)?;
                let rules = map.runnable.then(|| Rules::new(f, None, &at.model, &at.cluster)).transpose()?;
                let compiled = Compiled::of(&lib);
                Ok((lib, compiled, rules))
            })
            .collect::<Result<_>>()?;
        for (workload, of) in map.workloads.iter().enumerate() {
            // By limits, then by framework. A cell is done when all frameworks are.
            let found: Mutex<BTreeMap<usize, BTreeMap<u8, Vec<Reach>>>> = Mutex::default();
            let lock = || found.lock().unwrap_or_else(PoisonError::into_inner);
            let mut searched = Ok(());
            for (framework, (lib, compiled, rules)) in (0u8..).zip(&lanes) {
                // Its layouts and cells count for themselves; progress is in cells that all frameworks have done.
                let part = control.part();
                let task =
                    Task::sharing(compiled, lib, of, at.cluster.gpus, framework, &part, true).within(rules.clone());
                searched = Scene::new(map, task).and_then(|scene| {
                    scene.cells(map, &part, |slo, reached| {
                        let mut found = lock();
                        let by = found.entry(slo).or_default();
                        by.insert(framework, reached);
                        control.advance(u64::from(by.len() == lanes.len()));
                    })
                });
                if searched.is_err() {
                    break;
                }
            }
            let done = std::mem::take(&mut *lock()).into_iter().filter(|(_, by)| by.len() == lanes.len());
            out.extend(done.map(|(slo, by)| map.merged(cluster, workload, slo, by.into_values().collect())));
            searched?;
        }
        Ok(())
    };
    match (0..map.clusters.len()).try_for_each(|cluster| one(cluster, &mut out)) {
        Err(Error::Cancelled) if partial && !out.is_empty() => {}
        other => other?,
    }
    Ok(out)
}

impl Map {
    /// A cell of what each framework reaches.
    fn merged(&self, cluster: usize, workload: usize, slo: usize, by: Vec<Vec<Reach>>) -> Cell {
        let aim = Aim { slo: self.slos[slo], per_user: false };
        let levels = 0..self.asked().len();
        let reached: Vec<Reach> = levels.map(|k| best_of(by.iter().map(|r| &r[k]), &aim)).collect();
        let winners: Vec<usize> = by.iter().filter_map(|r| winner(r)).collect();
        let agreed = winners.iter().all(|w| Some(*w) == winner(&reached));
        Cell { cluster, workload, slo, reached, agreed }
    }
}

/// A cell with arrivals of their own: each level's leader at the rate that its limits allow.
fn arrived(
    db: &Arc<KernelDb>,
    map: &Map,
    [cluster, workload, slo]: [usize; 3],
    frameworks: &[String],
    control: &Control,
) -> Result<Cell> {
    let (workload_of, frameworks_of) = (map.workloads[workload].clone(), Some(frameworks.to_vec()));
    let case = Case { workload: workload_of, frameworks: frameworks_of, ..map.on(&map.clusters[cluster]) };
    let mut q = Question::new(case, map.slos[slo]);
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
    let agreed = (0..frameworks.len()).filter_map(|f| winner(&of(f))).all(|w| Some(w) == best);
    Ok(Cell { cluster, workload, slo, reached, agreed })
}
