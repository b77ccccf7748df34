//! What would flip a study's answer, from the plans it has looked at: other limits, other budgets.
//!
//! Of each level, the most that its plans give as one limit moves and the other stays is a staircase over that
//! limit; where the highest of the staircases changes, the answer flips. A flip is told when the other level leads by
//! more than [`LEAD`], since plans that were scanned are off by up to that much. A budget of another size takes
//! a plan's workers or units in the same proportions, as many times as they fit: half the GPUs never get
//! what only the whole could build. Limits: levels were searched finely for the limits asked for; far from
//! them the plans looked at are those of the coarse grid, and a flip there is a hint, not a verdict.

use super::blocks;
use super::objective::Objective;
use super::row::Row;
use super::study::Study;
use crate::columns::{Column, Columns};
use crate::spec::{Level, choices};

/// By how much another level has to lead.
pub const LEAD: f64 = 0.01;
/// Factors on a limit and on the budget whose answer is told whatever it is.
const LIMITS: [f64; 2] = [0.8, 1.2];
const BUDGETS: [f64; 2] = [0.5, 2.0];

choices! {
    /// What is moved until the answer changes.
    Moved {
        Ttft = "ttft_ms",
        Tpot = "tpot_ms",
        Gpus = "gpus",
    }
    /// Where an answer holds: at a value, or on one side of it.
    FlipSide {
        At = "at",
        Below = "below",
        Above = "above",
    }
}

/// One step of a level's staircase: from this limit on this row leads the level.
#[derive(Clone, Copy, Debug)]
struct Step {
    limit: f64,
    gain: f64,
    row: usize,
}

/// The answer somewhere: limit or factor, and who leads there (none: nothing keeps the limits).
#[derive(Clone, Debug)]
pub struct Flip {
    pub what: Moved,
    /// Where that is, seen from the value.
    pub side: FlipSide,
    pub value: f64,
    /// Value over the one asked for.
    pub ratio: f64,
    pub row: Option<usize>,
    /// Times that the row's workers or units are taken, over the row's own.
    pub times: f64,
    /// GPUs of that budget.
    pub gpus: f64,
}

impl Study {
    /// Staircases of the levels over one latency (0: TTFT, 1: TPOT), the other kept; seconds.
    fn stairs(&self, which: usize) -> Vec<Vec<Step>> {
        let slo = &self.question.slo;
        let other = [slo.tpot_ms, slo.ttft_ms][which].map_or(f64::INFINITY, |ms| ms * 1e-3);
        // Latencies as the limits count them: longer where these are tightened for a chance.
        let tight = self.limits().mapv(|l| {
            let factor = |asked: Option<f64>, own: Option<f64>| asked.zip(own).map_or(1.0, |(a, o)| a / o);
            [factor(slo.ttft_ms, l.ttft_ms), factor(slo.tpot_ms, l.tpot_ms)]
        });
        let latencies = |r: &Row| {
            let [a, b] = tight[[usize::from(r.framework), r.level.index()]];
            let [ttft, tpot] = [r.point.ttft_s * a, r.point.tpot_s * b];
            if which == 0 { [ttft, tpot] } else { [tpot, ttft] }
        };
        let of_block = |(k, rows): (usize, &[Row])| {
            let mut out = vec![Vec::new(); Level::ALL.len()];
            for (i, r) in rows.iter().enumerate().filter(|(_, r)| r.point.stands()) {
                let [own, kept] = latencies(r);
                if kept <= other {
                    out[r.level.index()].push(Step { limit: own, gain: self.gain(r), row: k * blocks::BLOCK + i });
                }
            }
            out.into_iter().map(rising).collect::<Vec<_>>()
        };
        let mut all = vec![Vec::new(); Level::ALL.len()];
        for block in blocks::by_block(&self.rows, of_block) {
            all.iter_mut().zip(block).for_each(|(a, b)| a.extend(b));
        }
        all.into_iter().map(rising).collect()
    }

    /// Who leads under each limit, where the nearest flips are on both sides, and what other budgets give.
    pub fn flips(&self) -> Vec<Flip> {
        let slo = &self.question.slo;
        let best = self.winner(self.verdicts.iter()).and_then(|v| v.row);
        let gpus = f64::from(self.question.case.cluster.gpus);
        let mut out = Vec::new();
        for (which, what, asked) in [(0, Moved::Ttft, slo.ttft_ms), (1, Moved::Tpot, slo.tpot_ms)] {
            let Some(asked) = asked else { continue };
            let stairs = self.stairs(which);
            let flip = |side, seconds: f64, row| {
                let value = seconds * 1e3;
                Flip { what, side, value, ratio: value / asked, row, times: 1.0, gpus }
            };
            for factor in LIMITS {
                let limit = asked * 1e-3 * factor;
                out.push(flip(FlipSide::At, limit, self.leads(&stairs, limit, best)));
            }
            out.extend(
                self.nearest(&stairs, asked * 1e-3, best).into_iter().map(|(side, limit, row)| flip(side, limit, row)),
            );
        }
        out.extend(BUDGETS.into_iter().filter(|f| gpus * f >= 1.0).map(|f| self.at_budget((gpus * f).floor(), f)));
        out
    }

    /// The row that leads under a limit; of levels nearer than `LEAD` that of the study's answer.
    fn leads(&self, stairs: &[Vec<Step>], limit: f64, best: Option<usize>) -> Option<usize> {
        let at = |s: &Vec<Step>| s[..s.partition_point(|x| x.limit <= limit)].last().copied();
        let top = stairs.iter().filter_map(at).reduce(|a, b| if b.gain > a.gain { b } else { a })?;
        let own = best.and_then(|b| at(&stairs[self.rows[b].level.index()]));
        Some(own.filter(|o| o.gain * (1.0 + LEAD) >= top.gain).unwrap_or(top).row)
    }

    /// The nearest limits on both sides where another level leads, or nothing does.
    fn nearest(&self, stairs: &[Vec<Step>], asked: f64, best: Option<usize>) -> Vec<(FlipSide, f64, Option<usize>)> {
        let level = |row: Option<usize>| row.map(|i| self.rows[i].level);
        let own = level(best);
        let mut limits: Vec<f64> = stairs.iter().flatten().map(|s| s.limit).collect();
        limits.sort_by(f64::total_cmp);
        limits.dedup();
        let mut out = Vec::new();
        // Below a step stands what led from the step before it on.
        let up_to = limits.partition_point(|l| *l <= asked);
        for i in (0..up_to).rev() {
            let row = i.checked_sub(1).and_then(|k| self.leads(stairs, limits[k], best));
            if level(row) != own {
                out.push((FlipSide::Below, limits[i], row));
                break;
            }
        }
        for limit in &limits[up_to..] {
            let row = self.leads(stairs, *limit, best);
            if level(row) != own {
                out.push((FlipSide::Above, *limit, row));
                break;
            }
        }
        out
    }

    /// What leads on `gpus` GPUs, of the plans within the limits taken in their proportions.
    fn at_budget(&self, gpus: f64, ratio: f64) -> Flip {
        let limits = self.limits();
        let keeps = |r: &Row| r.point.excess(&limits[[usize::from(r.framework), r.level.index()]]) <= 1.0;
        let of_block = |(k, rows): (usize, &[Row])| {
            let within = rows.iter().enumerate().filter(|(_, r)| r.point.stands() && keeps(r));
            let one = |(i, r): (usize, &Row)| {
                let copies = r.prefill.map_or(r.main.count, |p| gcd(p.count, r.main.count)).max(1);
                let unit = f64::from(r.gpus()) / f64::from(copies);
                let times = (gpus / unit).floor() / f64::from(copies);
                let per_user = self.question.objective == Objective::TokensPerSPerUser;
                let gain = if per_user && times > 0.0 { self.gain(r) } else { self.gain(r) * times };
                (gain, times, k * blocks::BLOCK + i)
            };
            within.map(one).filter(|x| x.0 > 0.0).reduce(|a, b| if b.0 > a.0 { b } else { a })
        };
        let all = blocks::by_block(&self.rows, of_block).into_iter().flatten();
        let top = all.reduce(|a, b| if b.0 > a.0 { b } else { a });
        let (row, times) = (top.map(|t| t.2), top.map_or(0.0, |t| t.1));
        Flip { what: Moved::Gpus, side: FlipSide::At, value: gpus, ratio, row, times, gpus }
    }

    /// The flips as a table: `what side value ratio level framework tokens_per_s_per_gpu tokens_per_s_per_user`.
    pub fn flip_columns(&self) -> Columns {
        let flips = self.flips();
        let row = |f: &Flip| f.row.map(|i| &self.rows[i]);
        let osl = self.question.case.workload.means().osl.max(1.0);
        let names = self.question.case.named();
        let number = |f: &dyn Fn(&Flip) -> f64| Column::F64(flips.iter().map(f).collect());
        let mut c = Columns::new();
        c.push("what", Column::from_strings(flips.iter().map(|f| f.what.name())));
        c.push("side", Column::from_strings(flips.iter().map(|f| f.side.name())));
        c.push("value", number(&|f| f.value));
        c.push("ratio", number(&|f| f.ratio));
        c.push("level", Column::from_strings(flips.iter().map(|f| row(f).map_or("", |r| r.level.name()))));
        let framework = |f: &Flip| row(f).map_or("", |r| names[usize::from(r.framework)].name());
        c.push("framework", Column::from_strings(flips.iter().map(framework)));
        let per_gpu = |f: &Flip| row(f).map_or(0.0, |r| r.point.requests_per_s * osl * f.times / f.gpus);
        c.push("tokens_per_s_per_gpu", number(&per_gpu));
        let user = |r: &Row| if r.point.tpot_s > 0.0 { 1.0 / r.point.tpot_s } else { f64::NAN };
        c.push("tokens_per_s_per_user", number(&|f| row(f).map_or(f64::NAN, user)));
        c
    }
}

/// Steps by limit, those that gain over all before them.
fn rising(mut steps: Vec<Step>) -> Vec<Step> {
    steps.sort_by(|a, b| a.limit.total_cmp(&b.limit).then(b.gain.total_cmp(&a.gain)).then(a.row.cmp(&b.row)));
    let mut best = f64::NEG_INFINITY;
    steps.retain(|s| {
        let gains = s.gain > best;
        best = best.max(s.gain);
        gains
    });
    steps
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}
