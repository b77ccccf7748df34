//! Who assumed what: the same question from one set of assumptions to another, one switch at a time.
//!
//! At every step all levels are searched again, best against best, so a switch may change the plan
//! as well as its price. The effect of a switch depends on those before it: both ends are fixed, the
//! order is stated (the order of the switches, or the caller's), and the steps add up to the whole
//! difference. Shapley values (the mean effect over orders) take the order out: over all subsets when
//! there are few switches, else over sampled orders, each with its reverse (antithetic). Source:
//! Shapley 1953; Castro, Gomez and Tejada 2009 for sampling. Limit: the value of a level that keeps
//! no limit is 0, so a switch that only makes feasibility possible for another shows on that other.

use std::collections::BTreeMap;

use rand_pcg::Pcg64;
use rand_pcg::rand_core::{Rng, SeedableRng};
use serde_json::Value;

use super::explore::explore;
use super::question::Question;
use super::study::{Study, describe};
use crate::columns::{Column, Columns};
use crate::control::Control;
use crate::error::{Error, Problems, Result, near};
use crate::kernels::KernelDb;
use crate::spec::{Assumptions, Level};
use std::sync::Arc;

/// How effects are told apart.
#[derive(Clone, Debug, PartialEq)]
pub enum Method {
    /// One walk; empty: the order of the switches.
    Order(Vec<String>),
    /// Mean over orders. `None`: all subsets.
    Shapley { orders: Option<u32>, seed: u64 },
}

/// Most switches for Shapley values over all subsets: 2^6 searches.
pub const MOST_EXACT: usize = 6;

/// What one level reached at one step.
#[derive(Clone, Debug, PartialEq)]
struct Reach {
    value: f64,
    feasible: bool,
    binding: String,
    ttft_ms: f64,
    tpot_ms: f64,
    least_ttft_ms: f64,
    least_tpot_ms: f64,
    plan: String,
}

struct Walker<'a> {
    db: &'a Arc<KernelDb>,
    question: Question,
    from: Assumptions,
    /// Switches that differ: name and the other end's value.
    switches: Vec<(&'static str, Value)>,
    control: &'a Control,
    seen: BTreeMap<u64, Vec<Reach>>,
}

impl Walker<'_> {
    fn assumptions(&self, set: u64, to: &Assumptions) -> Result<Assumptions> {
        if set + 1 == 1 << self.switches.len() {
            return Ok(to.clone());
        }
        let mut a = self.from.clone();
        for (i, (name, value)) in self.switches.iter().enumerate() {
            if set >> i & 1 == 1 {
                a = a.replace(name, value.clone())?;
            }
        }
        Ok(a)
    }

    /// What every level reaches with the switches of `set` at the other end.
    fn reach(&mut self, set: u64, to: &Assumptions) -> Result<Vec<Reach>> {
        if let Some(found) = self.seen.get(&set) {
            return Ok(found.clone());
        }
        self.question.case.assumptions = self.assumptions(set, to)?;
        let study = explore(self.db, &self.question, self.control)?;
        let found = reached(&study);
        self.seen.insert(set, found.clone());
        Ok(found)
    }
}

fn reached(study: &Study) -> Vec<Reach> {
    let osl = study.question.case.workload.means().osl.max(1.0);
    let gpus = f64::from(study.question.case.cluster.gpus);
    let objective = study.question.objective;
    study
        .verdicts
        .iter()
        .map(|v| {
            let row = v.row.map(|i| &study.rows[i]);
            let point = row.map(|r| r.point);
            let value = point.filter(|_| v.feasible).map_or(0.0, |p| objective.value(&p, osl, gpus));
            Reach {
                value,
                feasible: v.feasible,
                binding: v.binding.label(),
                ttft_ms: point.map_or(f64::NAN, |p| p.ttft_s * 1e3),
                tpot_ms: point.map_or(f64::NAN, |p| p.tpot_s * 1e3),
                least_ttft_ms: v.least_ttft_s * 1e3,
                least_tpot_ms: v.least_tpot_s * 1e3,
                plan: row.map_or(String::new(), describe),
            }
        })
        .collect()
}

/// The order asked for, as indices into the switches.
fn order_of(switches: &[(&'static str, Value)], asked: &[String]) -> Result<Vec<usize>> {
    if asked.is_empty() {
        return Ok((0..switches.len()).collect());
    }
    let mut p = Problems::new();
    let mut out = Vec::new();
    for (i, name) in asked.iter().enumerate() {
        match switches.iter().position(|(n, _)| n == name) {
            Some(at) if out.contains(&at) => p.push(format!("order[{i}]"), format!("'{name}' stands twice"), ""),
            Some(at) => out.push(at),
            None => {
                let known = switches.iter().map(|(n, _)| *n);
                p.push(format!("order[{i}]"), format!("'{name}' is not a switch that differs"), near(name, known));
            }
        }
    }
    for (at, (name, _)) in switches.iter().enumerate() {
        if p.is_empty() && !out.contains(&at) {
            p.push("order", format!("'{name}' is missing"), "name every switch that differs once");
        }
    }
    p.into_result()?;
    Ok(out)
}

/// Walks from the question's assumptions to `to`. One row a step and level; the first step is the
/// question's own end (`from`), the last the other (`to`).
pub fn audit(
    db: &Arc<KernelDb>,
    question: &Question,
    to: &Assumptions,
    method: &Method,
    control: &Control,
) -> Result<Columns> {
    let mut p = Problems::new();
    p.nest("to", to.check());
    p.into_result()?;
    let from = question.case.assumptions.clone();
    let switches: Vec<(&'static str, Value)> = from.diff(to).into_iter().map(|(n, _, v)| (n, v)).collect();
    if switches.len() > 60 {
        return Err(Error::spec("to", "differs in more than 60 switches", ""));
    }
    let mut w = Walker { db, question: question.clone(), from, switches, control, seen: BTreeMap::new() };
    let all = (1_u64 << w.switches.len()) - 1;
    let start = w.reach(0, to)?;
    let mut rows: Vec<Line> = Vec::new();
    let zero = vec![0.0; start.len()];
    rows.push(("from".into(), w.from.profile.clone(), zero, Some(start.clone())));
    let stated = match method {
        Method::Order(asked) => {
            let order = order_of(&w.switches, asked)?;
            let mut set = 0;
            let mut before = start;
            for at in &order {
                set |= 1 << at;
                let after = w.reach(set, to)?;
                let effect = after.iter().zip(&before).map(|(a, b)| a.value - b.value).collect();
                let (name, value) = &w.switches[*at];
                rows.push(((*name).to_string(), plain(value), effect, Some(after.clone())));
                before = after;
            }
            order.iter().map(|i| w.switches[*i].0).collect::<Vec<_>>().join(", ")
        }
        Method::Shapley { orders, seed } => {
            let effects = shapley(&mut w, to, *orders, *seed)?;
            for (at, effect) in effects.into_iter().enumerate() {
                let (name, value) = &w.switches[at];
                rows.push(((*name).to_string(), plain(value), effect, None));
            }
            orders.map_or("all subsets".into(), |n| format!("{n} sampled orders and their reverses, seed {seed}"))
        }
    };
    let end = w.reach(all, to)?;
    rows.push(("to".into(), to.profile.clone(), vec![0.0; end.len()], Some(end)));
    let mut c = table(question, &rows);
    c.attrs.insert("order".into(), quoted(&stated));
    c.attrs.insert("from".into(), quoted(&w.from.profile));
    c.attrs.insert("to".into(), quoted(&to.profile));
    c.attrs.insert("objective".into(), quoted(question.objective.name()));
    Ok(c)
}

fn quoted(text: &str) -> String {
    Value::String(text.to_string()).to_string()
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_string)
}

/// Mean effect of each switch on each level.
fn shapley(w: &mut Walker<'_>, to: &Assumptions, orders: Option<u32>, seed: u64) -> Result<Vec<Vec<f64>>> {
    let n = w.switches.len();
    let levels = w.reach(0, to)?.len();
    let mut effect = vec![vec![0.0; levels]; n];
    let Some(orders) = orders else {
        if n > MOST_EXACT {
            let text = format!("{n} switches differ: all subsets are {} searches", 1_u64 << n);
            return Err(Error::spec("orders", text, format!("give a number of orders (exact up to {MOST_EXACT})")));
        }
        let factorial = |k: usize| (1..=k).map(|i| i as f64).product::<f64>();
        for set in 0..1_u64 << n {
            let size = set.count_ones() as usize;
            let without = w.reach(set, to)?;
            for (i, effect) in effect.iter_mut().enumerate().filter(|(i, _)| set >> i & 1 == 0) {
                let with = w.reach(set | 1 << i, to)?;
                let weight = factorial(size) * factorial(n - size - 1) / factorial(n);
                for (e, (a, b)) in effect.iter_mut().zip(with.iter().zip(&without)) {
                    *e += weight * (a.value - b.value);
                }
            }
        }
        return Ok(effect);
    };
    if orders == 0 {
        return Err(Error::spec("orders", "must be at least 1, got 0", ""));
    }
    let mut rng = Pcg64::seed_from_u64(seed);
    for _ in 0..orders {
        let mut order: Vec<usize> = (0..n).collect();
        for i in (1..n).rev() {
            order.swap(i, (rng.next_u64() % (i as u64 + 1)) as usize);
        }
        let reverse: Vec<usize> = order.iter().rev().copied().collect();
        for walk in [order, reverse] {
            let mut set = 0;
            let mut before = w.reach(0, to)?;
            for at in walk {
                set |= 1 << at;
                let after = w.reach(set, to)?;
                for (e, (a, b)) in effect[at].iter_mut().zip(after.iter().zip(&before)) {
                    *e += (a.value - b.value) / f64::from(2 * orders);
                }
                before = after;
            }
        }
    }
    Ok(effect)
}

type Line = (String, String, Vec<f64>, Option<Vec<Reach>>);

fn table(question: &Question, rows: &[Line]) -> Columns {
    let levels: Vec<Level> = Level::ALL.iter().copied().filter(|l| question.levels.contains(l)).collect();
    let each = |f: &dyn Fn(usize, &Line, usize) -> f64| {
        let cells = rows.iter().enumerate().flat_map(|(i, r)| (0..levels.len()).map(move |l| (i, r, l)));
        Column::F64(cells.map(|(i, r, l)| f(i, r, l)).collect())
    };
    let text = |f: &dyn Fn(&Line, usize) -> String| {
        Column::from_strings(rows.iter().flat_map(|r| (0..levels.len()).map(move |l| (r, l))).map(|(r, l)| f(r, l)))
    };
    let reach = |f: fn(&Reach) -> f64| each(&move |_, r, l| r.3.as_ref().map_or(f64::NAN, |x| f(&x[l])));
    let mut c = Columns::new();
    c.push("step", Column::I64((0..rows.len()).flat_map(|i| levels.iter().map(move |_| i as i64)).collect()));
    c.push("switch", text(&|r, _| r.0.clone()));
    c.push("value", text(&|r, _| r.1.clone()));
    c.push("level", text(&|_, l| levels[l].name().to_string()));
    c.push("effect", each(&|_, r, l| r.2[l]));
    // Running total: where the level stands after the step.
    let starts = rows[0].3.as_ref().map_or_else(Vec::new, |x| x.iter().map(|r| r.value).collect::<Vec<f64>>());
    c.push(question.objective.name(), each(&|i, _, l| starts[l] + rows[..=i].iter().map(|r| r.2[l]).sum::<f64>()));
    c.push("feasible", text_bool(rows, levels.len()));
    c.push("binding", text(&|r, l| r.3.as_ref().map_or(String::new(), |x| x[l].binding.clone())));
    c.push("ttft_ms", reach(|x| x.ttft_ms));
    c.push("tpot_ms", reach(|x| x.tpot_ms));
    c.push("least_ttft_ms", reach(|x| x.least_ttft_ms));
    c.push("least_tpot_ms", reach(|x| x.least_tpot_ms));
    c.push("plan", text(&|r, l| r.3.as_ref().map_or(String::new(), |x| x[l].plan.clone())));
    c
}

/// Feasible after the step; Shapley rows, which are no state, say so of neither end.
fn text_bool(rows: &[Line], levels: usize) -> Column {
    let cells = rows.iter().flat_map(|r| (0..levels).map(move |l| r.3.as_ref().is_some_and(|x| x[l].feasible)));
    Column::Bool(cells.collect())
}
