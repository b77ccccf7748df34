//! The outcome of a search: best against best, nearest misses, and every point behind them.
//!
//! Limit: flips are told among the plans looked at, never by another search.

use std::sync::Arc;

use ndarray::Array2;

use super::aim::Aim;
use super::arrivals::{self, Leader};
use super::objective::Objective;
use super::question::Question;
use super::row::{self, Layout, Part, Row};
use super::{blocks, leaders};
use crate::columns::{Column, Columns};
use crate::control::Control;
use crate::cost::Library;
use crate::error::{Error, Result, near};
use crate::serving::queueing::Arrivals;
use crate::serving::residuals::{self, CHANCE, Quantity, Served};
use crate::serving::{Binding, Engine, Estimate, SteadyState};
use crate::spec::{Level, Slo};

/// One level's verdict.
#[derive(Clone, Debug)]
pub struct Verdict {
    pub level: Level,
    /// Index of the best plan within the limits, or of the nearest miss.
    pub row: Option<usize>,
    pub feasible: bool,
    pub binding: Binding,
    /// Least latencies any plan of the level reaches, each on its own.
    pub least_ttft_s: f64,
    pub least_tpot_s: f64,
    pub points: usize,
    /// What leads with arrivals of their own.
    pub leader: Option<Leader>,
}

impl Verdict {
    /// Takes the plan that leads with arrivals of their own; none: not even at the least load, so the nearest miss stays.
    fn lead(&mut self, leader: Option<Leader>, rows: &mut Vec<Row>) {
        match &leader {
            Some(l) => {
                self.row = Some(rows.len());
                (self.feasible, self.binding) = (true, Binding::None);
                rows.push(Row { leads: true, ..l.row });
            }
            None if self.feasible || self.binding == Binding::Dominated => {
                (self.feasible, self.binding) = (false, Binding::Ttft);
            }
            None => {}
        }
        self.leader = leader;
    }
}

pub struct Study {
    pub question: Question,
    pub libraries: Vec<Arc<Library>>,
    pub rows: Vec<Row>,
    /// One a level, over all frameworks.
    pub verdicts: Vec<Verdict>,
    /// One a level and framework, levels outermost; dominated is what another level of the same framework beats.
    pub by_framework: Vec<(usize, Verdict)>,
}

impl Study {
    pub(crate) fn new(question: Question, libraries: Vec<Arc<Library>>, rows: Vec<Row>) -> Study {
        let mut study = Study { question, libraries, rows, verdicts: Vec::new(), by_framework: Vec::new() };
        let lists = study.exact_rows();
        for level in Level::ALL.iter().copied().filter(|l| study.question.levels.contains(l)).collect::<Vec<_>>() {
            let own = lists.row(level.index());
            let each: Vec<Verdict> = own.iter().map(|(n, rows)| study.verdict(level, *n, rows)).collect();
            // The leader of all is among the leaders of each.
            let leaders: Vec<usize> = each.iter().filter_map(|v| v.row).collect();
            let mut all = study.verdict(level, each.iter().map(|v| v.points).sum(), &leaders);
            for v in &each {
                all.least_ttft_s = all.least_ttft_s.min(v.least_ttft_s);
                all.least_tpot_s = all.least_tpot_s.min(v.least_tpot_s);
            }
            study.verdicts.push(all);
            study.by_framework.extend(each.into_iter().enumerate());
        }
        study.mark_dominated();
        study
    }

    /// Marks what another level beats, over all frameworks and within each.
    fn mark_dominated(&mut self) {
        self.verdicts = self.with_dominated(self.verdicts.clone());
        let frameworks = self.question.case.named().len();
        for framework in 0..frameworks {
            let own: Vec<usize> = (0..self.verdicts.len()).map(|k| k * frameworks + framework).collect();
            let marked = self.with_dominated(own.iter().map(|i| self.by_framework[*i].1.clone()).collect());
            for (i, v) in own.into_iter().zip(marked) {
                self.by_framework[i].1 = v;
            }
        }
    }

    /// By level and framework: how many rows, and those that are exact. What is scanned is told, but nothing
    /// rests on it.
    fn exact_rows(&self) -> Array2<(usize, Vec<usize>)> {
        let frameworks = self.question.case.named().len();
        let empty = || Array2::from_elem((Level::ALL.len(), frameworks), (0, Vec::new()));
        let of_block = |(k, rows): (usize, &[Row])| {
            let mut out: Array2<(usize, Vec<usize>)> = empty();
            for (i, r) in rows.iter().enumerate() {
                let (n, exact) = &mut out[[r.level.index(), usize::from(r.framework)]];
                *n += 1;
                if !r.scanned {
                    exact.push(k * blocks::BLOCK + i);
                }
            }
            out
        };
        blocks::by_block(&self.rows, of_block).into_iter().fold(empty(), |mut all, block| {
            for ((n, exact), (more, found)) in all.iter_mut().zip(block) {
                *n += more;
                exact.extend(found);
            }
            all
        })
    }

    /// With arrivals of their own: the verdicts are those on what each level serves so.
    ///
    /// # Errors
    /// As the simulator, or `Cancelled`.
    pub(crate) fn arrived(mut self, control: &Control) -> Result<Study> {
        if self.question.arrivals == Arrivals::Closed {
            return Ok(self);
        }
        let of = |framework: usize, level: Level| {
            arrivals::leader(&self.question, &self.libraries, &self.rows, (framework as u8, level), control)
        };
        let found: Vec<Option<Leader>> =
            self.by_framework.iter().map(|(f, v)| of(*f, v.level)).collect::<Result<_>>()?;
        for ((_, v), leader) in self.by_framework.iter_mut().zip(found) {
            v.lead(leader, &mut self.rows);
        }
        for v in &mut self.verdicts {
            let each =
                self.by_framework.iter().filter(|(_, f)| f.level == v.level).filter_map(|(_, f)| f.leader.clone());
            let best = each.reduce(|a, b| if b.held.rate > a.held.rate { b } else { a });
            v.lead(best, &mut self.rows);
        }
        if self.question.confirm {
            arrivals::confirm_all(
                &self.question,
                &self.libraries,
                self.verdicts.iter_mut().filter_map(|v| v.leader.as_mut()).collect(),
                control,
            )?;
        }
        self.mark_dominated();
        Ok(self)
    }

    /// The point that a verdict says: with arrivals of their own at the rate that its limits allow.
    pub(super) fn said(&self, v: &Verdict) -> Option<SteadyState> {
        v.leader.as_ref().map(|l| l.held.point).or_else(|| v.row.map(|i| self.rows[i].point))
    }

    /// Value of the objective; more is better.
    pub(super) fn gain(&self, r: &Row) -> f64 {
        self.gain_of(&r.point)
    }

    fn gain_of(&self, p: &SteadyState) -> f64 {
        self.question.objective.gain(p)
    }

    /// Of the rows `own`, of `points` that were looked at.
    fn verdict(&self, level: Level, points: usize, own: &[usize]) -> Verdict {
        let mut v = Verdict {
            level,
            row: None,
            feasible: false,
            binding: Binding::Divisibility,
            least_ttft_s: f64::INFINITY,
            least_tpot_s: f64::INFINITY,
            points,
            leader: None,
        };
        for r in own.iter().map(|i| &self.rows[*i]).filter(|r| r.point.stands()) {
            v.least_ttft_s = v.least_ttft_s.min(r.point.ttft_s);
            v.least_tpot_s = v.least_tpot_s.min(r.point.tpot_s);
        }
        let limits = self.limits();
        let objective = self.question.objective;
        let aim = |r: &Row| Aim { slo: limits[[usize::from(r.framework), r.level.index()]], objective };
        v.row = leaders::leader(own.iter().map(|i| &self.rows[*i]), aim).map(|k| own[k]);
        if let Some(i) = v.row {
            v.binding = self.rows[i].point.binding_under(&aim(&self.rows[i]).slo);
            v.feasible = v.binding == Binding::None;
        }
        v
    }

    fn with_dominated(&self, mut verdicts: Vec<Verdict>) -> Vec<Verdict> {
        let gains: Vec<f64> = verdicts
            .iter()
            .map(|v| if v.feasible { self.said(v).map_or(0.0, |p| self.gain_of(&p)) } else { 0.0 })
            .collect();
        let top = gains.iter().copied().fold(0.0, f64::max);
        for (v, g) in verdicts.iter_mut().zip(gains) {
            if v.feasible && g < top {
                v.binding = Binding::Dominated;
            }
        }
        verdicts
    }

    /// The verdict on a level; `afd` means the better of the two AFD levels.
    pub fn verdict_of(&self, level: &str) -> Result<&Verdict> {
        if level == "afd" {
            let limits = self.limits();
            let mut found: Option<&Verdict> = None;
            let gain = |v: &Verdict| self.said(v).map_or(0.0, |p| self.gain_of(&p));
            for v in self.verdicts.iter().filter(|v| v.level.has_afd()) {
                let better = match found {
                    None => true,
                    Some(b) => match (v.feasible, b.feasible) {
                        (true, false) => true,
                        (false, true) => false,
                        (true, true) => gain(v) > gain(b),
                        (false, false) => match (v.row, b.row) {
                            (Some(x), Some(y)) => {
                                let over = |i: usize| {
                                    let r = &self.rows[i];
                                    r.point.excess(&limits[[usize::from(r.framework), r.level.index()]])
                                };
                                over(x) < over(y)
                            }
                            (Some(_), None) => true,
                            _ => false,
                        },
                    },
                };
                if better {
                    found = Some(v);
                }
            }
            return found.ok_or_else(|| {
                Error::spec("level", "no AFD level was explored", "add 'aggregated+afd' or 'pd+afd' to levels")
            });
        }
        self.verdicts.iter().find(|v| v.level.name() == level).ok_or_else(|| {
            let known: Vec<&str> = self.verdicts.iter().map(|v| v.level.name()).chain(["afd"]).collect();
            Error::spec("level", format!("'{level}' was not explored"), near(level, known))
        })
    }

    /// The best plan of a level (or its nearest miss), as a full estimate.
    pub fn best(&self, level: &str) -> Result<Estimate> {
        let (engine, v) = self.best_engine(level)?;
        let mut e = engine.estimate()?;
        e.scalars.feasible = v.feasible;
        e.scalars.binding = v.binding.label();
        Ok(e)
    }

    /// The same as an engine, and how the study judges it.
    pub(crate) fn best_engine(&self, level: &str) -> Result<(Engine, &Verdict)> {
        let v = self.verdict_of(level)?;
        let Some(i) = v.row else {
            return Err(Error::Infeasible {
                reason: format!("no plan of level {} exists for this model and budget", v.level.name()),
                need: "a layout that divides".into(),
                have: format!("{} GPUs", self.question.case.cluster.gpus),
            });
        };
        let row = &self.rows[i];
        let engine =
            Engine::new(&self.libraries[usize::from(row.framework)], &self.question.case.workload, &row.plan())?;
        let engine = match &v.leader {
            Some(l) => engine.loaded(l.held.rate)?,
            None => engine,
        };
        Ok((engine, v))
    }

    pub fn points(&self) -> Columns {
        row::columns(
            &self.rows,
            self.question.case.named(),
            &self.question.case.cluster.system,
            self.osl(),
            self.question.case.cluster.gpus,
            &self.limits(),
        )
    }

    /// Limits that plans must keep, by framework and level.
    pub(super) fn limits(&self) -> Array2<Slo> {
        Array2::from_shape_fn((self.libraries.len(), Level::ALL.len()), |(framework, level)| {
            self.question.limits(&self.libraries[framework], Level::ALL[level])
        })
    }

    /// What a row's kind of servers is known by.
    fn served(&self, r: &Row) -> Served {
        Served::of(&self.libraries[usize::from(r.framework)], r.level)
    }

    fn osl(&self) -> f64 {
        self.question.case.workload.means().osl.max(1.0)
    }

    /// One row a level: the verdict in words and numbers.
    pub fn table(&self) -> Columns {
        let vs: Vec<&Verdict> = self.verdicts.iter().collect();
        let name =
            |v: &&Verdict| v.row.map_or("", |i| self.question.case.named()[usize::from(self.rows[i].framework)].name());
        self.columns(&vs, &vs.iter().map(name).collect::<Vec<_>>())
    }

    /// One row a level and framework compared.
    pub fn frameworks(&self) -> Columns {
        let vs: Vec<&Verdict> = self.by_framework.iter().map(|(_, v)| v).collect();
        let names: Vec<&str> = self.by_framework.iter().map(|(f, _)| self.question.case.named()[*f].name()).collect();
        self.columns(&vs, &names)
    }

    fn columns(&self, vs: &[&Verdict], frameworks: &[&str]) -> Columns {
        let row = |v: &Verdict| v.row.map(|i| &self.rows[i]);
        let num = |f: &dyn Fn(&Row) -> f64| -> Column {
            Column::F64(vs.iter().map(|v| row(v).map_or(f64::NAN, f)).collect())
        };
        let osl = self.osl();
        let gpus = f64::from(self.question.case.cluster.gpus);
        let mut c = Columns::new();
        c.push("level", Column::from_strings(vs.iter().map(|v| v.level.name())));
        c.push("framework", Column::from_strings(frameworks));
        c.push("plan", Column::from_strings(vs.iter().map(|v| row(v).map_or(String::new(), describe))));
        c.push("feasible", Column::Bool(vs.iter().map(|v| v.feasible).collect()));
        c.push("binding", Column::from_strings(vs.iter().map(|v| v.binding.label())));
        let said = |f: &dyn Fn(&SteadyState) -> f64| -> Column {
            Column::F64(vs.iter().map(|v| self.said(v).map_or(f64::NAN, |p| f(&p))).collect())
        };
        c.push("tokens_per_s", said(&|p| p.requests_per_s * osl));
        c.push("tokens_per_s_per_gpu", said(&|p| p.requests_per_s * osl / gpus));
        c.push("tokens_per_s_per_user", said(&|p| if p.tpot_s > 0.0 { 1.0 / p.tpot_s } else { f64::NAN }));
        c.push("ttft_ms", said(&|p| p.ttft_s * 1e3));
        c.push("tpot_ms", said(&|p| p.tpot_s * 1e3));
        c.push("concurrency", said(&|p| p.concurrency));
        if self.question.arrivals == Arrivals::Poisson {
            let led = |f: &dyn Fn(&Leader) -> f64| -> Column {
                Column::F64(vs.iter().map(|v| v.leader.as_ref().map_or(f64::NAN, f)).collect())
            };
            let simulated = |f: &dyn Fn(&arrivals::Simulated) -> f64| {
                led(&|l| l.simulated.as_ref().map_or(f64::NAN, |s| f(s) * osl / gpus))
            };
            c.push("closed_tokens_per_s_per_gpu", led(&|l| l.row.point.requests_per_s * osl / gpus));
            c.push("simulated_tokens_per_s_per_gpu", simulated(&|s| s.rate));
            c.push("simulated_low", simulated(&|s| s.low));
            c.push("simulated_high", simulated(&|s| s.high));
            let proved = |v: &&Verdict| v.leader.as_ref().is_some_and(|l| l.proved);
            c.push("proved", Column::Bool(vs.iter().map(proved).collect()));
        }
        c.push("gpus_used", num(&|r| f64::from(r.gpus())));
        c.push("idle_gpus", num(&|r| gpus - f64::from(r.gpus())));
        c.push("measured_share", num(&|r| r.point.evidence.share()));
        c.push("tpot_measured_share", num(&|r| r.point.evidence.tpot.share()));
        c.push("ttft_measured_share", num(&|r| r.point.evidence.ttft.share()));
        c.push("compute_measured_share", num(&|r| r.point.evidence.compute_share()));
        self.push_known(&mut c, vs);
        c.push("least_ttft_ms", Column::F64(vs.iter().map(|v| v.least_ttft_s * 1e3).collect()));
        c.push("least_tpot_ms", Column::F64(vs.iter().map(|v| v.least_tpot_s * 1e3).collect()));
        c.push("points", Column::I64(vs.iter().map(|v| v.points as i64).collect()));
        c
    }
}

impl Study {
    /// Ends of the intervals of a verdict's figures, and whether what is known tells it from the best.
    fn push_known(&self, c: &mut Columns, vs: &[&Verdict]) {
        let chance = self.question.confidence.unwrap_or(CHANCE);
        let per_gpu = self.osl() / f64::from(self.question.case.cluster.gpus);
        type Figure = fn(&SteadyState) -> f64;
        let figures: [(&str, Quantity, f64, Figure); 3] = [
            ("ttft_ms", Quantity::Ttft, 1e3, |p| p.ttft_s),
            ("tpot_ms", Quantity::Tpot, 1e3, |p| p.tpot_s),
            ("tokens_per_s_per_gpu", Quantity::Rate, per_gpu, |p| p.requests_per_s),
        ];
        for (name, quantity, unit, of) in figures {
            let end = |v: &&Verdict, k: usize| {
                let (Some(i), Some(p)) = (v.row, self.said(v)) else { return f64::NAN };
                residuals::interval(&self.served(&self.rows[i]), quantity, chance).factors[k] * of(&p) * unit
            };
            for (k, side) in ["low", "high"].into_iter().enumerate() {
                c.push(format!("{name}_{side}"), Column::F64(vs.iter().map(|v| end(v, k)).collect()));
            }
        }
        let best = self.winner(self.verdicts.iter()).and_then(|v| Some((v.row?, self.gain_of(&self.said(v)?))));
        let quantity = match self.question.objective {
            Objective::TokensPerSPerUser => Quantity::Tpot,
            Objective::TokensPerS | Objective::TokensPerSPerGpu => Quantity::Rate,
        };
        let equal = |v: &&Verdict| {
            let (Some((best, most)), Some(i), Some(p)) = (best, v.row, self.said(v)) else { return false };
            let [served, first] = [i, best].map(|i| self.served(&self.rows[i]));
            v.feasible && self.gain_of(&p) * residuals::ratio(&served, &first, quantity, chance)[1] >= most
        };
        c.push("equal", Column::Bool(vs.iter().map(equal).collect()));
    }
}

fn describe_part(p: &Part) -> String {
    match p.layout {
        Layout::Worker { parallel: w, overlap } => {
            let mut s = format!("{}x tp{} dp{} ep{}", p.count, w.tp, w.dp, w.ep());
            for (name, n) in [("pp", w.pp), ("cp", w.cp), ("moe_tp", w.moe_tp)] {
                if n > 1 {
                    s.push_str(&format!(" {name}{n}"));
                }
            }
            if overlap {
                s.push_str(" tbo");
            }
            s.push_str(&format!(" b{}", p.batch));
            s
        }
        Layout::Afd { attention_gpus, tp, ffn_gpus, moe_tp, microbatches, groups, pp, .. } => {
            let groups = if groups > 1 { format!(" g{groups}") } else { String::new() };
            let mut split = if moe_tp > 1 { format!(" moe_tp{moe_tp}") } else { String::new() };
            if pp > 1 {
                split.push_str(&format!(" pp{pp}"));
            }
            format!("{}x {attention_gpus}A(tp{tp})+{ffn_gpus}F{split}{groups} m{microbatches} b{}", p.count, p.batch)
        }
    }
}

/// A plan in a few words: `2x tp1 dp8 ep8 b32 c544`, `1x 16A(tp1)+112F m3 b8`; `i4`: prompts come in every 4th step.
pub fn describe(r: &Row) -> String {
    let cadence = if r.main.interval > 1 { format!(" i{}", r.main.interval) } else { String::new() };
    let chunk = |p: &Part| if p.chunk > 0 { format!(" c{}", p.chunk) } else { String::new() };
    match &r.prefill {
        Some(p) => format!("P {}{} | D {}", describe_part(p), chunk(p), describe_part(&r.main)),
        None => format!("{}{}{cadence}", describe_part(&r.main), chunk(&r.main)),
    }
}
