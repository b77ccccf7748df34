//! Which level wins where: a map over lengths, limits and clusters, best against best in every cell.
//!
//! A cell says what `explore` says of the same question, to the bit: both take the same steps over the same rows,
//! and only what they share is done once (of a level that keeps no limits the map says what stops it, not the plan).
//! Cells that differ in nothing but limits share one scan of the space (`scene`), whose points do not depend on
//! limits; what a finer grid and the engine have priced for one cell is kept for the others; and rows that cannot
//! lead under a cell's limits are passed over (`leaders::Tiers`). Every framework compared has a scan of its own; in a
//! cell each level takes the best of them. Held against `explore` in tests/rust/regimes.rs.

mod scene;
mod table;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use self::scene::Scene;
pub use self::table::regimes;
use super::aim::Aim;
use super::compiled::Compiled;
use super::explore::{Question, explore};
use super::leaders::leader;
use super::row::Row;
use super::study::Verdict;
use super::task::Task;
use crate::control::Control;
use crate::cost::{Library, what_if};
use crate::error::{Error, Problems, Result, near};
use crate::kernels::KernelDb;
use crate::serving::Binding;
use crate::serving::engine::contradictions_of;
use crate::serving::queueing::Arrivals;
use crate::spec::{Case, Cluster, Level, Rules, Slo, Workload};

/// What a map is asked: every cluster with every workload under every pair of limits.
#[derive(Clone)]
pub struct Map {
    /// What all cells share; each puts a cluster and a workload of its own into it.
    pub case: Case,
    pub clusters: Vec<Cluster>,
    pub workloads: Vec<Workload>,
    pub slos: Vec<Slo>,
    pub levels: Vec<Level>,
    /// Levels whose rates are nearer than this are tied.
    pub tolerance: f64,
    pub batches_per_octave: u32,
    /// How requests come; with arrivals of their own a cell has what `explore` finds so, not simulated.
    pub arrivals: Arrivals,
    /// Whether only plans that a server starts are searched.
    pub runnable: bool,
}

/// What one level reaches in one cell.
#[derive(Clone, Debug)]
pub struct Reach {
    /// The best plan within the limits, or the nearest miss.
    pub row: Option<Row>,
    pub binding: Binding,
}

impl Reach {
    fn rate(&self) -> f64 {
        self.row.filter(|_| self.binding == Binding::None).map_or(0.0, |r| r.point.requests_per_s)
    }
}

/// The best of what frameworks reach on one level, as `explore` compares them.
fn best_of<'a>(reached: impl Iterator<Item = &'a Reach> + Clone, aim: &Aim) -> Reach {
    let rows = reached.clone().filter_map(|r| r.row.as_ref());
    let row = leader(rows.clone(), aim).and_then(|i| rows.clone().nth(i)).copied();
    Reach { row, binding: row.map_or(Binding::Divisibility, |r| r.point.binding_under(&aim.slo)) }
}

/// One cell: its indices into the question, and what every level asked for reaches.
#[derive(Clone, Debug)]
pub struct Cell {
    pub cluster: usize,
    pub workload: usize,
    pub slo: usize,
    pub reached: Vec<Reach>,
    /// Whether every framework that keeps the limits names the same level as the best.
    pub agreed: bool,
}

impl Map {
    /// What is asked on one of its clusters.
    fn on(&self, cluster: &Cluster) -> Case {
        Case { cluster: cluster.clone(), ..self.case.clone() }
    }

    fn check(&self, db: &KernelDb) -> Result<()> {
        let mut p = Problems::new();
        let empty = [
            ("levels", self.levels.is_empty()),
            ("cluster", self.clusters.is_empty()),
            ("workloads", self.workloads.is_empty()),
            ("slo", self.slos.is_empty()),
            ("frameworks", self.case.frameworks.as_ref().is_some_and(Vec::is_empty)),
        ];
        for (name, _) in empty.into_iter().filter(|(_, e)| *e) {
            p.push(name, "is empty: there is no cell", "give at least one");
        }
        if !(0.0..1.0).contains(&self.tolerance) {
            p.push("tolerance", format!("{} is not a share below one", self.tolerance), "0.01 is one per cent");
        }
        p.nest("model", self.case.model.check());
        p.nest("serving", self.case.serving.check());
        p.nest("assumptions", self.case.assumptions.check());
        contradictions_of(&mut p, &self.case.model, &self.case.serving);
        for (i, c) in self.clusters.iter().enumerate() {
            p.nest(&format!("cluster[{i}]"), c.check());
            let known = db.frameworks(&c.system)?;
            let named = self.case.named().iter().enumerate();
            for (i, f) in named.filter(|(_, f)| !known.contains(f)) {
                let text = format!("'{f}' is not a framework with kernels for {}", c.system);
                p.push(format!("frameworks[{i}]"), text, near(f, &known));
            }
        }
        for (i, w) in self.workloads.iter().enumerate() {
            p.nest(&format!("workloads[{i}]"), w.check());
        }
        for (i, s) in self.slos.iter().enumerate() {
            p.nest(&format!("slo[{i}]"), s.check());
            self.arrivals.check(s, &mut p);
        }
        p.into_result()
    }

    /// Checks it and tells whose kernels are compared on each cluster.
    pub fn compared(&self, db: &Arc<KernelDb>) -> Result<Vec<Vec<String>>> {
        self.check(db)?;
        self.clusters.iter().map(|c| Ok(self.on(c).compared(db)?.names)).collect()
    }

    /// What should be known beside the map: whose tables stand in for what-if hardware, which frameworks are left out.
    pub fn caveats(&self, db: &Arc<KernelDb>) -> Result<Vec<String>> {
        let mut out: Vec<String> = Vec::new();
        for c in &self.clusters {
            let from = what_if::tables_of(c)?;
            out.extend(what_if::words(c, &from.system, &from.device));
            out.extend(self.on(c).compared(db)?.left_out);
        }
        let mut seen = BTreeSet::new();
        out.retain(|w| seen.insert(w.clone()));
        Ok(out)
    }

    fn wants(&self, level: Level) -> bool {
        self.levels.contains(&level)
    }

    /// Levels asked for, in their order.
    fn asked(&self) -> Vec<Level> {
        Level::ALL.into_iter().filter(|l| self.wants(*l)).collect()
    }
}

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
        let winners: Vec<usize> = by.iter().filter_map(|r| table::winner(r)).collect();
        let agreed = winners.iter().all(|w| Some(*w) == table::winner(&reached));
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
    let winner = table::winner(&reached);
    let agreed = (0..frameworks.len()).filter_map(|f| table::winner(&of(f))).all(|w| Some(w) == winner);
    Ok(Cell { cluster, workload, slo, reached, agreed })
}
