//! The outcome of a search: best against best, nearest misses, and every point behind them.

use std::sync::Arc;

use super::explore::{LEVELS, Question};
use super::near;
use super::refine::Aim;
use super::row::{self, Layout, Part, Row};
use crate::columns::{Column, Columns};
use crate::cost::Library;
use crate::error::{Error, Result, near};
use crate::serving::{Binding, Engine, Estimate};

/// One level's verdict.
#[derive(Clone, Debug)]
pub struct Verdict {
    pub level: usize,
    /// Index of the best plan within the limits, or of the nearest miss.
    pub row: Option<usize>,
    pub feasible: bool,
    pub binding: Binding,
    /// Least latencies any plan of the level reaches, each on its own.
    pub least_ttft_s: f64,
    pub least_tpot_s: f64,
    pub points: usize,
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
    pub fn new(question: Question, libraries: Vec<Arc<Library>>, rows: Vec<Row>) -> Study {
        let mut study = Study { question, libraries, rows, verdicts: Vec::new(), by_framework: Vec::new() };
        let frameworks = study.question.frameworks.len();
        let asked = (0..LEVELS.len()).filter(|l| study.question.levels.iter().any(|q| q == LEVELS[*l]));
        let asked: Vec<usize> = asked.collect();
        let lists = study.exact_rows();
        for &level in &asked {
            let own = level * frameworks..(level + 1) * frameworks;
            let each: Vec<Verdict> = lists[own].iter().map(|(n, rows)| study.verdict(level, *n, rows)).collect();
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
        study.verdicts = study.with_dominated(study.verdicts.clone());
        for framework in 0..frameworks {
            let own: Vec<usize> = (0..asked.len()).map(|k| k * frameworks + framework).collect();
            let marked = study.with_dominated(own.iter().map(|i| study.by_framework[*i].1.clone()).collect());
            for (i, v) in own.into_iter().zip(marked) {
                study.by_framework[i].1 = v;
            }
        }
        study
    }

    /// Of every level and framework: how many rows, and those that are exact. What is scanned is told, but nothing
    /// rests on it.
    fn exact_rows(&self) -> Vec<(usize, Vec<usize>)> {
        let frameworks = self.question.frameworks.len();
        let empty = || vec![(0, Vec::new()); LEVELS.len() * frameworks];
        let of_block = |(k, rows): (usize, &[Row])| {
            let mut out: Vec<(usize, Vec<usize>)> = empty();
            for (i, r) in rows.iter().enumerate() {
                let (n, exact) = &mut out[usize::from(r.level) * frameworks + usize::from(r.framework)];
                *n += 1;
                if !r.scanned {
                    exact.push(k * near::BLOCK + i);
                }
            }
            out
        };
        near::by_block(&self.rows, of_block).into_iter().fold(empty(), |mut all, block| {
            for ((n, exact), (more, found)) in all.iter_mut().zip(block) {
                *n += more;
                exact.extend(found);
            }
            all
        })
    }

    /// Value of the objective; more is better.
    pub(super) fn gain(&self, r: &Row) -> f64 {
        match self.question.objective.as_str() {
            "tokens_per_s_per_user" => 1.0 / r.point.tpot_s.max(1e-12),
            _ => r.point.requests_per_s,
        }
    }

    /// Of the rows `own`, of `points` that were looked at.
    fn verdict(&self, level: usize, points: usize, own: &[usize]) -> Verdict {
        let slo = &self.question.slo;
        let mut v = Verdict {
            level,
            row: None,
            feasible: false,
            binding: Binding::Divisibility,
            least_ttft_s: f64::INFINITY,
            least_tpot_s: f64::INFINITY,
            points,
        };
        for r in own.iter().map(|i| &self.rows[*i]).filter(|r| r.point.stands()) {
            v.least_ttft_s = v.least_ttft_s.min(r.point.ttft_s);
            v.least_tpot_s = v.least_tpot_s.min(r.point.tpot_s);
        }
        v.row = near::leader(own.iter().map(|i| &self.rows[*i]), &Aim::of(&self.question)).map(|k| own[k]);
        if let Some(i) = v.row {
            v.binding = self.rows[i].point.binding_under(slo);
            v.feasible = v.binding == Binding::None;
        }
        v
    }

    fn with_dominated(&self, mut verdicts: Vec<Verdict>) -> Vec<Verdict> {
        let gains: Vec<f64> = verdicts
            .iter()
            .map(|v| v.row.map_or(0.0, |i| if v.feasible { self.gain(&self.rows[i]) } else { 0.0 }))
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
            let mut found: Option<&Verdict> = None;
            for v in self.verdicts.iter().filter(|v| v.level >= 2) {
                let better = match found {
                    None => true,
                    Some(b) => match (v.feasible, b.feasible) {
                        (true, false) => true,
                        (false, true) => false,
                        (true, true) => match (v.row, b.row) {
                            (Some(x), Some(y)) => self.gain(&self.rows[x]) > self.gain(&self.rows[y]),
                            _ => false,
                        },
                        (false, false) => match (v.row, b.row) {
                            (Some(x), Some(y)) => {
                                self.rows[x].point.excess(&self.question.slo)
                                    < self.rows[y].point.excess(&self.question.slo)
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
        self.verdicts.iter().find(|v| LEVELS[v.level] == level).ok_or_else(|| {
            let known: Vec<&str> = self.verdicts.iter().map(|v| LEVELS[v.level]).chain(["afd"]).collect();
            Error::spec("level", format!("'{level}' was not explored"), near(level, known))
        })
    }

    /// The best plan of a level (or its nearest miss), as a full estimate.
    pub fn best(&self, level: &str) -> Result<Estimate> {
        let v = self.verdict_of(level)?;
        let Some(i) = v.row else {
            return Err(Error::Infeasible {
                reason: format!("no plan of level {} exists for this model and budget", LEVELS[v.level]),
                need: "a layout that divides".into(),
                have: format!("{} GPUs", self.question.cluster.gpus),
            });
        };
        let row = &self.rows[i];
        let engine = Engine::new(&self.libraries[usize::from(row.framework)], &self.question.workload, &row.plan())?;
        let mut e = engine.estimate()?;
        e.scalars.feasible = v.feasible;
        e.scalars.binding = v.binding.label();
        Ok(e)
    }

    pub fn points(&self) -> Columns {
        row::columns(
            &self.rows,
            &LEVELS,
            &self.question.frameworks,
            &self.question.cluster.system,
            self.osl(),
            self.question.cluster.gpus,
            &self.question.slo,
        )
    }

    fn osl(&self) -> f64 {
        self.question.workload.means().osl.max(1.0)
    }

    /// One row a level: the verdict in words and numbers.
    pub fn table(&self) -> Columns {
        let vs: Vec<&Verdict> = self.verdicts.iter().collect();
        let name =
            |v: &&Verdict| v.row.map_or("", |i| self.question.frameworks[usize::from(self.rows[i].framework)].as_str());
        self.columns(&vs, &vs.iter().map(name).collect::<Vec<_>>())
    }

    /// One row a level and framework compared.
    pub fn frameworks(&self) -> Columns {
        let vs: Vec<&Verdict> = self.by_framework.iter().map(|(_, v)| v).collect();
        let names: Vec<&str> = self.by_framework.iter().map(|(f, _)| self.question.frameworks[*f].as_str()).collect();
        self.columns(&vs, &names)
    }

    fn columns(&self, vs: &[&Verdict], frameworks: &[&str]) -> Columns {
        let row = |v: &Verdict| v.row.map(|i| &self.rows[i]);
        let num = |f: &dyn Fn(&Row) -> f64| -> Column {
            Column::F64(vs.iter().map(|v| row(v).map_or(f64::NAN, f)).collect())
        };
        let osl = self.osl();
        let gpus = f64::from(self.question.cluster.gpus);
        let mut c = Columns::new();
        c.push("level", Column::from_strings(vs.iter().map(|v| LEVELS[v.level])));
        c.push("framework", Column::from_strings(frameworks));
        c.push("plan", Column::from_strings(vs.iter().map(|v| row(v).map_or(String::new(), describe))));
        c.push("feasible", Column::Bool(vs.iter().map(|v| v.feasible).collect()));
        c.push("binding", Column::from_strings(vs.iter().map(|v| v.binding.label())));
        c.push("tokens_per_s", num(&|r| r.point.requests_per_s * osl));
        c.push("tokens_per_s_per_gpu", num(&|r| r.point.requests_per_s * osl / gpus));
        c.push("tokens_per_s_per_user", num(&|r| if r.point.tpot_s > 0.0 { 1.0 / r.point.tpot_s } else { f64::NAN }));
        c.push("ttft_ms", num(&|r| r.point.ttft_s * 1e3));
        c.push("tpot_ms", num(&|r| r.point.tpot_s * 1e3));
        c.push("concurrency", num(&|r| r.point.concurrency));
        c.push("gpus_used", num(&|r| f64::from(r.gpus())));
        c.push("idle_gpus", num(&|r| gpus - f64::from(r.gpus())));
        c.push("measured_share", num(&|r| r.point.evidence.share()));
        c.push("tpot_measured_share", num(&|r| r.point.evidence.tpot.share()));
        c.push("ttft_measured_share", num(&|r| r.point.evidence.ttft.share()));
        c.push("compute_measured_share", num(&|r| r.point.evidence.compute_share()));
        c.push("least_ttft_ms", Column::F64(vs.iter().map(|v| v.least_ttft_s * 1e3).collect()));
        c.push("least_tpot_ms", Column::F64(vs.iter().map(|v| v.least_tpot_s * 1e3).collect()));
        c.push("points", Column::I64(vs.iter().map(|v| v.points as i64).collect()));
        c
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

/// A plan in a few words: `2x tp1 dp8 ep8 b32 c544`, `1x 16A(tp1)+112F m3 b8`.
pub fn describe(r: &Row) -> String {
    let chunk = |p: &Part| if p.chunk > 0 { format!(" c{}", p.chunk) } else { String::new() };
    match &r.prefill {
        Some(p) => format!("P {}{} | D {}", describe_part(p), chunk(p), describe_part(&r.main)),
        None => format!("{}{}", describe_part(&r.main), chunk(&r.main)),
    }
}
