//! What a map is asked, and what a cell of it holds.
//!
//! Limit: every cluster with every workload and every pair of limits; no cell can be left out.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::cost::what_if;
use crate::error::{Problems, Result};
use crate::kernels::KernelDb;
use crate::search::aim::Aim;
use crate::search::leaders::leader;
use crate::search::row::Row;
use crate::serving::Binding;
use crate::serving::engine::contradictions_of;
use crate::serving::framework;
use crate::serving::queueing::Arrivals;
use crate::spec::{Case, Cluster, Framework, Level, Slo, Workload};

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
    pub(crate) fn rate(&self) -> f64 {
        self.row.filter(|_| self.binding == Binding::None).map_or(0.0, |r| r.point.requests_per_s)
    }
}

/// The best of what frameworks reach on one level, as `explore` compares them.
pub(crate) fn best_of<'a>(reached: impl Iterator<Item = &'a Reach> + Clone, aim: &Aim) -> Reach {
    let rows = reached.clone().filter_map(|r| r.row.as_ref());
    let row = leader(rows.clone(), |_| *aim).and_then(|i| rows.clone().nth(i)).copied();
    Reach { row, binding: row.map_or(Binding::Divisibility, |r| r.point.binding_under(&aim.slo)) }
}

/// The level with the highest rate within the limits: index into the levels asked for.
pub(crate) fn winner(reached: &[Reach]) -> Option<usize> {
    let mut best: Option<(usize, f64)> = None;
    for (i, rate) in reached.iter().map(Reach::rate).enumerate() {
        if rate > best.map_or(0.0, |b| b.1) {
            best = Some((i, rate));
        }
    }
    best.map(|b| b.0)
}

/// One cell: what every level asked for reaches.
#[derive(Clone, Debug)]
pub struct Cell {
    pub reached: Vec<Reach>,
    /// Whether every framework that keeps the limits names the same level as the best.
    pub agreed: bool,
}

impl Map {
    /// What is asked on one of its clusters.
    pub(super) fn on(&self, cluster: &Cluster) -> Case {
        Case { cluster: cluster.clone(), ..self.case.clone() }
    }

    pub(super) fn check(&self, db: &KernelDb) -> Result<()> {
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
            p.nest("", framework::check(self.case.named(), &framework::with_kernels(db, &c.system)?, &c.system));
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
    pub(crate) fn compared(&self, db: &Arc<KernelDb>) -> Result<Vec<Vec<Framework>>> {
        self.check(db)?;
        self.clusters.iter().map(|c| Ok(self.on(c).compared(db)?.frameworks)).collect()
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

    /// The loosest of the limits asked for.
    pub(super) fn loosest(&self) -> Slo {
        let most = |of: fn(&Slo) -> Option<f64>| self.slos.iter().map(of).reduce(|a, b| Some(a?.max(b?))).flatten();
        Slo { ttft_ms: most(|s| s.ttft_ms), tpot_ms: most(|s| s.tpot_ms), percentile: None }
    }

    pub(super) fn wants(&self, level: Level) -> bool {
        self.levels.contains(&level)
    }

    /// Levels asked for, in their order.
    pub(super) fn asked(&self) -> Vec<Level> {
        Level::ALL.iter().copied().filter(|l| self.wants(*l)).collect()
    }
}
