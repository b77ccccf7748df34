//! Which level wins where: a map over lengths, limits and clusters, best against best in every cell.
//!
//! A cell says what `explore` says of the same question, to the bit: both take the same steps over the same rows,
//! and only what they share is done once (of a level that keeps no limits the map says what stops it, not the plan).
//! Cells that differ in nothing but limits share one scan of the space (`scene`), whose points do not depend on
//! limits; what a finer grid and the engine have priced for one cell is kept for the others; and rows that cannot
//! lead under a cell's limits are passed over (`near::Tiers`). Held against `explore` in tests/rust/regimes.rs.

mod scene;
mod table;

use std::sync::{Arc, Mutex, PoisonError};

use self::scene::Scene;
pub use self::table::regimes;
use super::explore::{LEVELS, Question, explore};
use super::levels::{Compiled, Task};
use super::row::Row;
use crate::control::Control;
use crate::error::{Error, Problems, Result, near};
use crate::kernels::KernelDb;
use crate::serving::Binding;
use crate::serving::defaults;
use crate::serving::engine::contradictions_of;
use crate::serving::framework::default_framework;
use crate::serving::queueing::Arrivals;
use crate::spec::{Assumptions, Cluster, Model, Quant, Rules, Serving, Slo, Workload};

/// What a map is asked: every cluster with every workload under every pair of limits.
#[derive(Clone)]
pub struct Map {
    pub model: Model,
    pub clusters: Vec<Cluster>,
    pub workloads: Vec<Workload>,
    pub slos: Vec<Slo>,
    pub levels: Vec<String>,
    /// None: on each system the one with the largest measured share.
    pub framework: Option<String>,
    pub quant: Quant,
    pub serving: Serving,
    pub assumptions: Assumptions,
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

/// One cell: its indices into the question, and what every level asked for reaches.
#[derive(Clone, Debug)]
pub struct Cell {
    pub cluster: usize,
    pub workload: usize,
    pub slo: usize,
    pub reached: Vec<Reach>,
}

impl Map {
    fn check(&self, db: &KernelDb) -> Result<()> {
        let mut p = Problems::new();
        for (i, l) in self.levels.iter().enumerate().filter(|(_, l)| !LEVELS.contains(&l.as_str())) {
            p.push(format!("levels[{i}]"), format!("'{l}' is not a level"), near(l, LEVELS));
        }
        let empty = [
            ("levels", self.levels.is_empty()),
            ("cluster", self.clusters.is_empty()),
            ("workloads", self.workloads.is_empty()),
            ("slo", self.slos.is_empty()),
        ];
        for (name, _) in empty.into_iter().filter(|(_, e)| *e) {
            p.push(name, "is empty: there is no cell", "give at least one");
        }
        if !(0.0..1.0).contains(&self.tolerance) {
            p.push("tolerance", format!("{} is not a share below one", self.tolerance), "0.01 is one per cent");
        }
        p.nest("model", self.model.check());
        p.nest("serving", self.serving.check());
        p.nest("assumptions", self.assumptions.check());
        contradictions_of(&mut p, &self.model, &self.serving);
        for (i, c) in self.clusters.iter().enumerate() {
            p.nest(&format!("cluster[{i}]"), c.check());
            let known = db.frameworks(&c.system)?;
            if let Some(f) = self.framework.as_ref().filter(|f| !known.contains(f)) {
                let text = format!("'{f}' is not a framework with kernels for {}", c.system);
                p.push("framework", text, near(f, &known));
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

    /// Checks it and tells whose kernels each cluster is priced with.
    pub fn frameworks(&self, db: &Arc<KernelDb>) -> Result<Vec<String>> {
        self.check(db)?;
        self.clusters.iter().map(|c| framework_on(db, self, c)).collect()
    }

    fn wants(&self, level: usize) -> bool {
        self.levels.iter().any(|l| l == LEVELS[level])
    }

    /// Levels asked for, in their order.
    fn asked(&self) -> Vec<usize> {
        (0..LEVELS.len()).filter(|l| self.wants(*l)).collect()
    }
}

/// Every cell, clusters outermost, then workloads, then limits. Stopped and `partial`: those that are done.
pub fn cells(db: &Arc<KernelDb>, map: &Map, control: &Control, partial: bool) -> Result<Vec<Cell>> {
    map.check(db)?;
    control.set_total((map.clusters.len() * map.workloads.len() * map.slos.len()) as u64);
    let out: Mutex<Vec<Cell>> = Mutex::default();
    let lock = || out.lock().unwrap_or_else(PoisonError::into_inner);
    let one = |cluster: usize| -> Result<()> {
        let at = &map.clusters[cluster];
        let framework = framework_on(db, map, at)?;
        if map.arrivals == Arrivals::Poisson {
            for workload in 0..map.workloads.len() {
                for slo in 0..map.slos.len() {
                    control.check()?;
                    let reached = arrived(db, map, [cluster, workload, slo], &framework, control)?;
                    lock().push(Cell { cluster, workload, slo, reached });
                    control.advance(1);
                }
            }
            return Ok(());
        }
        let lib = defaults::library(db, &map.model, at, &framework, &map.quant, &map.serving, &map.assumptions)?;
        let rules = map.runnable.then(|| Rules::new(&framework, None, &map.model, at)).transpose()?;
        let compiled = Arc::new(Compiled::default());
        for (workload, of) in map.workloads.iter().enumerate() {
            // Its layouts count for themselves; progress here is in cells.
            let part = control.part();
            let task = Task::sharing(&compiled, &lib, of, at.gpus, 0, &part, true).within(rules.clone());
            Scene::new(map, task)?
                .cells(map, control, |slo, reached| lock().push(Cell { cluster, workload, slo, reached }))?;
        }
        Ok(())
    };
    match (0..map.clusters.len()).try_for_each(one) {
        Err(Error::Cancelled) if partial && !lock().is_empty() => {}
        other => other?,
    }
    let mut out = out.into_inner().unwrap_or_else(PoisonError::into_inner);
    // Threads finish in any order.
    out.sort_by_key(|c| (c.cluster, c.workload, c.slo));
    Ok(out)
}

/// A cell with arrivals of their own: each level's leader at the rate that its limits allow.
fn arrived(
    db: &Arc<KernelDb>,
    map: &Map,
    [cluster, workload, slo]: [usize; 3],
    framework: &str,
    control: &Control,
) -> Result<Vec<Reach>> {
    let (model, at) = (map.model.clone(), map.clusters[cluster].clone());
    let mut q = Question::new(model, at, map.workloads[workload].clone(), map.slos[slo], framework);
    q.levels = map.asked().iter().map(|l| LEVELS[*l].to_string()).collect();
    (q.quant, q.serving) = (map.quant, map.serving.clone());
    q.assumptions = map.assumptions.clone();
    (q.arrivals, q.confirm, q.batches_per_octave) = (map.arrivals, false, map.batches_per_octave);
    q.runnable = map.runnable;
    let study = explore(db, &q, &control.part())?;
    let reach = |k: usize| {
        let v = &study.verdicts[k];
        let point = study.said(k);
        let row = v.row.zip(point).map(|(i, point)| Row { point, ..study.rows[i] });
        Reach { row, binding: if v.feasible { Binding::None } else { v.binding } }
    };
    Ok((0..study.verdicts.len()).map(reach).collect())
}

fn framework_on(db: &Arc<KernelDb>, map: &Map, cluster: &Cluster) -> Result<String> {
    match &map.framework {
        Some(f) => Ok(f.clone()),
        None => default_framework(db, &map.model, cluster, &map.quant),
    }
}
