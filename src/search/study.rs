//! The outcome of a search: best against best, nearest misses, and every point behind them.

use std::sync::Arc;

use super::arrivals::{self, Leader};
use super::explore::{LEVELS, Question};
use super::near;
use super::refine::Aim;
use super::row::{self, Layout, Part, Row};
use crate::columns::{Column, Columns};
use crate::control::Control;
use crate::cost::Library;
use crate::error::{Error, Result, near};
use crate::serving::queueing::Arrivals;
use crate::serving::{Binding, Engine, Estimate, Point};

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
    pub verdicts: Vec<Verdict>,
    /// Of each verdict's level with arrivals of their own; none in a closed loop.
    pub leaders: Option<Vec<Option<Leader>>>,
}

impl Study {
    pub fn new(question: Question, libraries: Vec<Arc<Library>>, rows: Vec<Row>) -> Study {
        let mut study = Study { question, libraries, rows, verdicts: Vec::new(), leaders: None };
        study.verdicts = (0..LEVELS.len())
            .filter(|l| study.question.levels.iter().any(|q| q == LEVELS[*l]))
            .map(|l| study.verdict(l))
            .collect();
        study.mark_dominated();
        study
    }

    /// With arrivals of their own: the verdicts are those on what each level serves so.
    ///
    /// # Errors
    /// As the simulator, or `Cancelled`.
    pub fn arrived(mut self, control: &Control) -> Result<Study> {
        if self.question.arrivals == Arrivals::Closed {
            return Ok(self);
        }
        let levels: Vec<usize> = self.verdicts.iter().map(|v| v.level).collect();
        let leaders = arrivals::leaders(&self.question, &self.libraries, &self.rows, &levels, control)?;
        for (v, leader) in self.verdicts.iter_mut().zip(&leaders) {
            let Some(l) = leader else {
                // Not even at the least load: the nearest miss stays, by what it misses.
                if v.feasible || v.binding == Binding::Dominated {
                    (v.feasible, v.binding) = (false, Binding::Ttft);
                }
                continue;
            };
            v.row = Some(self.rows.len());
            (v.feasible, v.binding) = (true, Binding::None);
            self.rows.push(Row { leads: true, ..l.row });
        }
        self.leaders = Some(leaders);
        self.mark_dominated();
        Ok(self)
    }

    /// Requests a second that a verdict says, and the point it says them of.
    pub(super) fn said(&self, v: usize) -> Option<Point> {
        let row = self.verdicts[v].row.map(|i| self.rows[i].point)?;
        let leader = self.leaders.as_ref().and_then(|l| l[v].as_ref());
        Some(leader.map_or(row, |l| l.held.point))
    }

    /// Value of the objective; more is better.
    fn gain_of(&self, p: &Point) -> f64 {
        match self.question.objective.as_str() {
            "tokens_per_s_per_user" => 1.0 / p.tpot_s.max(1e-12),
            _ => p.requests_per_s,
        }
    }

    fn verdict(&self, level: usize) -> Verdict {
        let slo = &self.question.slo;
        let mut v = Verdict {
            level,
            row: None,
            feasible: false,
            binding: Binding::Divisibility,
            least_ttft_s: f64::INFINITY,
            least_tpot_s: f64::INFINITY,
            points: 0,
        };
        // What is scanned is told, but nothing rests on it.
        let of_block = |(k, rows): (usize, &[Row])| {
            let own = rows.iter().enumerate().filter(|(_, r)| usize::from(r.level) == level);
            let mut exact: Vec<usize> = Vec::new();
            let mut n = 0;
            for (i, r) in own {
                n += 1;
                if !r.scanned {
                    exact.push(k * near::BLOCK + i);
                }
            }
            (n, exact)
        };
        let mut own: Vec<usize> = Vec::new();
        for (n, exact) in near::by_block(&self.rows, of_block) {
            v.points += n;
            own.extend(exact);
        }
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

    fn mark_dominated(&mut self) {
        let gains: Vec<f64> = self
            .verdicts
            .iter()
            .enumerate()
            .map(|(k, v)| if v.feasible { self.said(k).map_or(0.0, |p| self.gain_of(&p)) } else { 0.0 })
            .collect();
        let top = gains.iter().copied().fold(0.0, f64::max);
        for (v, g) in self.verdicts.iter_mut().zip(gains) {
            if v.feasible && g < top {
                v.binding = Binding::Dominated;
            }
        }
    }

    /// The verdict on a level; `afd` means the better of the two AFD levels.
    pub fn verdict_of(&self, level: &str) -> Result<&Verdict> {
        if level == "afd" {
            let mut found: Option<&Verdict> = None;
            let gain = |v: &Verdict| {
                let k = self.verdicts.iter().position(|x| x.level == v.level);
                k.and_then(|k| self.said(k)).map_or(0.0, |p| self.gain_of(&p))
            };
            for v in self.verdicts.iter().filter(|v| v.level >= 2) {
                let better = match found {
                    None => true,
                    Some(b) => match (v.feasible, b.feasible) {
                        (true, false) => true,
                        (false, true) => false,
                        (true, true) => gain(v) > gain(b),
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
        let k = self.verdicts.iter().position(|x| x.level == v.level);
        let rate = k.and_then(|k| self.leaders.as_ref()?[k].as_ref()).map(|l| l.held.rate);
        let engine = match rate {
            Some(rate) => engine.loaded(rate)?,
            None => engine,
        };
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
        let vs = &self.verdicts;
        let row = |v: &Verdict| v.row.map(|i| &self.rows[i]);
        let num = |f: &dyn Fn(&Row) -> f64| -> Column {
            Column::F64(vs.iter().map(|v| row(v).map_or(f64::NAN, f)).collect())
        };
        let osl = self.osl();
        let gpus = f64::from(self.question.cluster.gpus);
        let mut c = Columns::new();
        c.push("level", Column::from_strings(vs.iter().map(|v| LEVELS[v.level])));
        c.push("feasible", Column::Bool(vs.iter().map(|v| v.feasible).collect()));
        c.push("binding", Column::from_strings(vs.iter().map(|v| v.binding.label())));
        let said = |f: &dyn Fn(&Point) -> f64| -> Column {
            Column::F64((0..vs.len()).map(|k| self.said(k).map_or(f64::NAN, |p| f(&p))).collect())
        };
        c.push("tokens_per_s", said(&|p| p.requests_per_s * osl));
        c.push("tokens_per_s_per_gpu", said(&|p| p.requests_per_s * osl / gpus));
        c.push("tokens_per_s_per_user", said(&|p| if p.tpot_s > 0.0 { 1.0 / p.tpot_s } else { f64::NAN }));
        c.push("ttft_ms", said(&|p| p.ttft_s * 1e3));
        c.push("tpot_ms", said(&|p| p.tpot_s * 1e3));
        c.push("concurrency", said(&|p| p.concurrency));
        if let Some(leaders) = &self.leaders {
            let led = |f: &dyn Fn(&Leader) -> f64| -> Column {
                Column::F64(leaders.iter().map(|l| l.as_ref().map_or(f64::NAN, f)).collect())
            };
            let simulated = |f: &dyn Fn(&arrivals::Simulated) -> f64| {
                led(&|l| l.simulated.as_ref().map_or(f64::NAN, |s| f(s) * osl / gpus))
            };
            c.push("closed_tokens_per_s_per_gpu", led(&|l| l.row.point.requests_per_s * osl / gpus));
            c.push("simulated_tokens_per_s_per_gpu", simulated(&|s| s.rate));
            c.push("simulated_low", simulated(&|s| s.low));
            c.push("simulated_high", simulated(&|s| s.high));
            let proved = |l: &Option<Leader>| l.as_ref().is_some_and(|l| l.proved);
            c.push("proved", Column::Bool(leaders.iter().map(proved).collect()));
        }
        c.push("gpus_used", num(&|r| f64::from(r.gpus())));
        c.push("idle_gpus", num(&|r| gpus - f64::from(r.gpus())));
        c.push(
            "framework",
            Column::from_strings(
                vs.iter().map(|v| row(v).map_or("", |r| self.question.frameworks[usize::from(r.framework)].as_str())),
            ),
        );
        c.push("plan", Column::from_strings(vs.iter().map(|v| row(v).map_or(String::new(), describe))));
        c.push(
            "measured_share",
            num(&|r| {
                let e = r.point.evidence.by_evidence;
                (e[0] + e[1]) / e.iter().sum::<f64>().max(1e-300)
            }),
        );
        c.push(
            "compute_measured_share",
            num(&|r| {
                let e = r.point.evidence.compute;
                (e[0] + e[1]) / e.iter().sum::<f64>().max(1e-300)
            }),
        );
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
