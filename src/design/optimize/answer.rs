//! What a search says: its certificate, what was priced, the best, or why there is none.
//!
//! Limit: says what was priced and proved and nothing of points outside the space; ties are told within 1e-9.

use std::collections::BTreeMap;

use super::bound::Proof;
use super::{Search, State, TIE};
use crate::columns::{Column, Columns};
use crate::design::{NOT_RUNNABLE, Outcome, Priced, columns};
use crate::error::{Error, Result};

impl Proof {
    fn name(self) -> &'static str {
        match self {
            Proof::Gpus => "gpus",
            Proof::Memory => "memory",
            Proof::Objective => "objective",
            Proof::Replica => "replica",
            Proof::Slot => "slot",
        }
    }

    /// In a sentence.
    fn why(self) -> &'static str {
        match self {
            Proof::Memory => "bytes never fall with batch or chunk, and a smaller one of the same plan does not fit",
            Proof::Slot => "a slot's memory knows nothing of the other slot, and one of the two does not fit",
            Proof::Replica => "replicas and units only multiply rates, and one alone does not stand",
            Proof::Gpus => "needs more GPUs than its cluster has",
            Proof::Objective => {
                "rate <= min(nP muP, nD muD) of the slots alone, or r times one replica; the best is better"
            }
        }
    }
}

/// Why a constraint leaves points out.
const BEYOND: &str = "no value within the bounds of the point keeps it";

impl Search {
    /// Points by their certificate: how many there are, were priced, and were left out by which proof.
    pub fn certificate(&self) -> Columns {
        let state = self.state();
        let barred = state.priced.values().filter(|(row, _)| row.outcome == Outcome::NotRunnable).count() as u64;
        let priced = state.priced.len() as u64 - barred;
        let mut rows: Vec<(String, u64, &str)> = vec![
            ("points".into(), self.points.len(), "in the space"),
            ("priced".into(), priced, "by the same engine as an estimate"),
        ];
        if barred > 0 {
            let why = "break a rule of what servers start (see status); runnable=False prices them";
            rows.push((NOT_RUNNABLE.into(), barred, why));
        }
        rows.extend(state.pruned.iter().map(|(by, n)| (by.name().to_string(), *n, by.why())));
        let broken = self.goal.constraints.iter().zip(&state.broken).filter(|(_, n)| **n > 0);
        rows.extend(broken.map(|(c, n)| (format!("constraint {}", c.text), *n, BEYOND)));
        let told: u64 = rows[1..].iter().map(|r| r.1).sum();
        if told < self.points.len() {
            rows.push(("not looked at".into(), self.points.len() - told, "nothing is proved of these"));
        }
        let mut out = Columns::new();
        out.push("what", Column::from_strings(rows.iter().map(|r| &r.0)));
        out.push("points", Column::I64(rows.iter().map(|r| r.1 as i64).collect()));
        out.push("why", Column::from_strings(rows.iter().map(|r| r.2)));
        out
    }

    /// Every point that was priced: axes, metrics, and whether it keeps the constraints.
    pub fn points(&self) -> Columns {
        let state = self.state();
        let points: Vec<u64> = state.priced.keys().copied().collect();
        let rows: Vec<Priced> = state.priced.values().map(|p| p.0.clone()).collect();
        let mut out = columns(&self.space, &points, &self.goal.metrics, &rows);
        out.push("kept", Column::Bool(points.iter().map(|p| state.kept(*p)).collect()));
        out
    }

    /// The number of the best point, the least of equals, and all that tie with it.
    pub fn best(&self) -> Result<(u64, Vec<u64>)> {
        let state = self.state();
        let Some((best, _)) = state.best else { return Err(self.nothing(&state)) };
        let tied = |(row, kept): &(Priced, Vec<bool>)| {
            let score = self.goal.score(row.metrics[0]);
            row.feasible && kept.iter().all(|k| *k) && score >= best - TIE * best.abs()
        };
        let ties: Vec<u64> = state.priced.iter().filter(|(_, p)| tied(p)).map(|(i, _)| *i).collect();
        let exact = |i: &&u64| self.goal.score(state.priced[*i].0.metrics[0]) == best;
        let first = ties.iter().find(exact).copied().ok_or_else(|| self.nothing(&state))?;
        Ok((first, ties))
    }

    pub fn complete(&self) -> bool {
        self.state().complete
    }

    /// Why there is no best point.
    fn nothing(&self, state: &State) -> Error {
        let metric = self.goal.metric.name();
        // Of points that were never looked at nothing is claimed.
        let priced = state.priced.len();
        let nobody_of = |whole: &str| {
            if state.complete { whole.to_string() } else { format!("none of the {priced} points priced") }
        };
        let stands = |(row, _): &&(Priced, Vec<bool>)| row.feasible && !row.metrics[0].is_nan();
        let standing: Vec<&(Priced, Vec<bool>)> = state.priced.values().filter(stands).collect();
        if !state.complete && state.priced.is_empty() {
            return Error::spec("optimize", "was stopped before any point was priced", "");
        }
        if standing.is_empty() && state.broken.iter().all(|n| *n == 0) {
            let mut why: BTreeMap<String, u64> = BTreeMap::new();
            for (row, _) in state.priced.values() {
                let told = match row.outcome {
                    Outcome::Priced(binding) => binding.label(),
                    Outcome::NotRunnable | Outcome::Error => row.status.clone(),
                };
                *why.entry(told).or_default() += 1;
            }
            let mut why: Vec<String> = why.iter().map(|(w, n)| format!("{n} x {w}")).collect();
            why.extend(state.pruned.iter().map(|(by, n)| format!("{n} x {}", by.name())));
            why.truncate(5);
            let barred = state.priced.values().any(|(row, _)| row.outcome == Outcome::NotRunnable);
            let lift = if barred { ", or runnable=False" } else { "" };
            let text = format!("{} has a {metric}: {}", nobody_of("no point of the space"), why.join("; "));
            return Error::spec("objective", text, format!("smaller batches, more GPUs, or other layouts{lift}"));
        }
        // Which constraints each point that stands keeps; what was never priced is known to break one.
        let all = vec![true; self.goal.constraints.len()];
        let mut patterns: Vec<Vec<bool>> = standing.iter().map(|(_, kept)| kept.clone()).collect();
        for (c, _) in state.broken.iter().enumerate().filter(|(_, n)| **n > 0) {
            let mut one = all.clone();
            one[c] = false;
            patterns.push(one);
        }
        patterns.sort_unstable();
        patterns.dedup();
        let nobody = |core: &[usize]| patterns.iter().all(|p| core.iter().any(|c| !p[*c]));
        let mut core: Vec<usize> = (0..all.len()).collect();
        let mut i = 0;
        while i < core.len() {
            let mut without = core.clone();
            without.remove(i);
            if nobody(&without) { core = without } else { i += 1 }
        }
        let texts: Vec<String> = core.iter().map(|c| format!("'{}'", self.goal.constraints[*c].text)).collect();
        let message = match texts.as_slice() {
            [one] => format!("{} keeps {one}", nobody_of("no point")),
            many => format!("{} keeps {} together", nobody_of("no point"), many.join(" and ")),
        };
        let mut spans = Vec::new();
        for (i, metric) in
            self.goal.metrics.iter().enumerate().filter(|(_, n)| texts.iter().any(|t| t.contains(n.name())))
        {
            let values = standing.iter().map(|(row, _)| row.metrics[i]);
            let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), x| (l.min(x), h.max(x)));
            if low <= high {
                spans.push(format!("{} was {low:.4} to {high:.4} where it was priced", metric.name()));
            }
        }
        spans.push("loosen a constraint or widen an axis".into());
        Error::spec("constraints", message, spans.join("; "))
    }
}
