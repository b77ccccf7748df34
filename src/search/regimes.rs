//! Which level wins where: a map over lengths, limits and clusters, best against best in every cell.
//!
//! Cells that differ only in limits share one scan of the space (its points do not depend on limits). For each
//! cell the best of every level is then looked for on the finer grids of `refine`: mixed levels around the layouts
//! that lead under its limits, P/D beside each decode layout's largest batch within TPOT and the finer cuts of
//! the prompts on the leading prefill layouts. What a cell says is priced by the engine. Limits: fewer leaders
//! than `explore` follows up. Of 100 random cells on 16 to 36 GPUs the winner was that of `explore` in 99 and tied
//! with it in one; 341 of 351 rates were its to the bit, six 1 to 5 % short, a winner's among them.

mod table;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use rayon::prelude::*;

pub use self::table::regimes;
use super::explore::LEVELS;
use super::levels::{self, Candidate, Compiled, Priced, Task};
use super::refine::{self, Aim, Key, order};
use super::row::{Layout, Row};
use super::timer::Timer;
use crate::control::Control;
use crate::cost::Library;
use crate::error::{Problems, Result, near};
use crate::kernels::KernelDb;
use crate::serving::engine::contradictions_of;
use crate::serving::framework::default_framework;
use crate::serving::pd::{DecodeSide, PrefillSide};
use crate::serving::{Binding, Point};
use crate::spec::{Assumptions, Cluster, Model, Quant, Serving, Slo, Workload};

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
}

/// Layouts of a mixed level that are searched again in a cell, and prefill layouts cut finer.
const LEADERS: usize = 8;
const PREFILL_LEADERS: usize = 2;
/// How far over the TTFT limit a prefill slot may be to be cut finer.
const NEARLY: f64 = 1.5;
/// Prefill slots that a decode slot over the TPOT limit is tried with.
const TRIES: u32 = 8;
/// Pairs of one decode slot that are handed to the engine.
const ALIKE: usize = 3;
/// Least step, as a share of the limit, of the decode slots that are paired beside the largest within it.
const BELOW: f64 = 0.6;
/// Rows of a level that the engine prices at most before it is given up, a few at a time.
const PRICED: usize = 24;

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
        }
        p.into_result()
    }

    fn wants(&self, level: usize) -> bool {
        self.levels.iter().any(|l| l == LEVELS[level])
    }

    /// Levels asked for, in their order.
    fn asked(&self) -> Vec<usize> {
        (0..LEVELS.len()).filter(|l| self.wants(*l)).collect()
    }
}

/// A layout of a mixed level with the points of it that no other beats on rate and both latencies.
struct Group {
    timer: Timer,
    rows: Vec<Row>,
    /// (TTFT, TPOT) of the rows, to be run through for every cell.
    latencies: Vec<[f64; 2]>,
}

/// Finer cuts of prompts, by slot and layout.
type Finer = BTreeMap<(usize, usize), Arc<Vec<Candidate<PrefillSide>>>>;

/// The scan that all cells of one cluster and workload share. Workers first, units second.
struct Scene<'a> {
    task: Task<'a>,
    octave: u32,
    mixed: [Vec<Group>; 2],
    prefill: [Priced<(u32, u32, PrefillSide)>; 2],
    fronts: [Vec<Candidate<PrefillSide>>; 2],
    decode: [Priced<DecodeSide>; 2],
    paired: [Vec<Candidate<DecodeSide>>; 2],
    finer: Mutex<Finer>,
    exact: Mutex<BTreeMap<Key, Point>>,
}

/// Drops what another point of the layout beats on rate and both latencies; something always stays.
fn thinned(rows: &mut Vec<Row>) {
    rows.sort_by(|a, b| b.point.requests_per_s.total_cmp(&a.point.requests_per_s));
    let mut kept: Vec<Row> = Vec::new();
    for r in rows.iter() {
        let beaten = |k: &Row| k.point.ttft_s <= r.point.ttft_s && k.point.tpot_s <= r.point.tpot_s;
        if kept.is_empty() || r.point.stands() && !kept.iter().any(beaten) {
            kept.push(*r);
        }
    }
    *rows = kept;
}

fn lock<T>(m: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<'a> Scene<'a> {
    fn new(map: &Map, task: Task<'a>) -> Result<Scene<'a>> {
        let (lib, gpus, octave) = (task.lib, task.budget, map.batches_per_octave.max(1));
        let workers = levels::worker_layouts(lib, gpus, false);
        let units = levels::unit_layouts(lib, gpus);
        let groups = |level: u8, layouts: &[Layout], octave: u32| -> Result<Vec<Group>> {
            if !map.wants(usize::from(level)) {
                return Ok(Vec::new());
            }
            let priced = task.mixed_groups(level, layouts, octave)?;
            let group = |(timer, mut rows): (Timer, Vec<Row>)| {
                thinned(&mut rows);
                let latencies = rows.iter().map(|r| [r.point.ttft_s, r.point.tpot_s]).collect();
                Group { timer, rows, latencies }
            };
            crate::pool::install(|| priced.into_par_iter().map(group).collect())
        };
        let mixed = [groups(0, &workers, octave)?, groups(2, &units, (octave / 2).max(1))?];
        let (pd, afd) = (map.wants(1) || map.wants(3), map.wants(3) && !units.is_empty());
        let prompts = |units: bool, wanted: bool| {
            if !wanted {
                return Ok(Vec::new());
            }
            let make = if units { levels::prefill_unit_layouts } else { prefill_workers };
            task.prefill(&make(lib, gpus))
        };
        let prefill = [prompts(false, pd)?, prompts(true, afd)?];
        let decode = [
            if pd { task.decode(&workers, octave * 2)? } else { Vec::new() },
            if afd { task.decode(&units, (octave - 1).max(1))? } else { Vec::new() },
        ];
        let fronts = prefill.each_ref().map(|p| levels::prefill_frontier(p, &task.load));
        let paired = decode.each_ref().map(|d| levels::decode_frontier(d, &task.load));
        Ok(Scene {
            octave,
            mixed,
            prefill,
            fronts,
            decode,
            paired,
            finer: Mutex::default(),
            exact: Mutex::default(),
            task,
        })
    }

    /// A row with its point by the engine; the cells of a scene often share it.
    fn exact(&self, r: &Row) -> Result<Row> {
        if !r.scanned {
            return Ok(*r);
        }
        let key = refine::key(r);
        let known = lock(&self.exact).get(&key).copied();
        let point = match known {
            Some(p) => p,
            None => {
                let p = self.task.exact(r)?;
                lock(&self.exact).insert(key, p);
                p
            }
        };
        Ok(Row { point, scanned: false, ..*r })
    }

    /// The best of scanned rows by the engine: as many as may be it, best first.
    fn best_of(&self, rows: Vec<Row>, aim: &Aim) -> Result<Reach> {
        let mut ranked: Vec<((u8, f64), usize)> =
            rows.iter().enumerate().map(|(i, r)| (aim.score(&r.point), i)).collect();
        ranked.sort_by(|a, b| order(&b.0, &a.0));
        let mut best: Option<(Row, (u8, f64))> = None;
        for r in ranked.iter().take(PRICED).map(|(_, i)| &rows[*i]) {
            if let Some((_, (2, v))) = best
                && r.point.requests_per_s < v * (1.0 + 1e-4)
            {
                break;
            }
            let r = self.exact(r)?;
            let s = aim.score(&r.point);
            if best.as_ref().is_none_or(|b| order(&s, &b.1).is_gt()) {
                best = Some((r, s));
            }
        }
        let binding = best.map_or(Binding::Divisibility, |(r, _)| r.point.binding_under(&aim.slo));
        Ok(Reach { row: best.map(|b| b.0), binding })
    }

    /// A mixed level in one cell.
    fn mixed(&self, units: bool, aim: &Aim) -> Result<Reach> {
        let (level, octave) = if units { (2, (self.octave / 2).max(1)) } else { (0, self.octave) };
        let groups = &self.mixed[usize::from(units)];
        // Rows fall in rate: the first within the limits is the layout's best.
        let limits = [aim.slo.ttft_ms, aim.slo.tpot_ms].map(|t| t.unwrap_or(f64::INFINITY));
        let within = |t: &[f64; 2]| t[0] * 1e3 <= limits[0] && t[1] * 1e3 <= limits[1];
        let mut leaders: Vec<(&Group, &Row)> =
            groups.iter().filter_map(|g| g.latencies.iter().position(within).map(|i| (g, &g.rows[i]))).collect();
        if leaders.is_empty() {
            let nearest = |g: &Group| g.rows.iter().map(|r| aim.score(&r.point)).max_by(order);
            let best = groups.iter().filter_map(|g| nearest(g).map(|s| (g, s)));
            let mut all: Vec<(&Group, (u8, f64))> = best.collect();
            all.sort_by(|a, b| order(&b.1, &a.1));
            all.truncate(LEADERS);
            leaders.extend(all.iter().flat_map(|(g, _)| g.rows.iter().map(move |r| (*g, r))));
        }
        leaders.sort_by(|a, b| order(&aim.score(&b.1.point), &aim.score(&a.1.point)));
        let mut rows: Vec<Row> = leaders.iter().take(PRICED).map(|l| *l.1).collect();
        let mut seen: Vec<Layout> = Vec::new();
        for (group, row) in leaders {
            if seen.contains(&row.main.layout) || !row.point.stands() {
                continue;
            }
            if seen.len() == LEADERS {
                break;
            }
            seen.push(row.main.layout);
            rows.extend(self.task.around_layout(level, &group.timer, &group.rows, octave, aim));
        }
        self.best_of(rows, aim)
    }

    /// The finer cuts of prompts on one prefill layout: of its frontier, and kept for other cells.
    fn finer(&self, slot: usize, layout: &Layout) -> Arc<Vec<Candidate<PrefillSide>>> {
        let priced = &self.prefill[slot];
        let Some(i) = priced.iter().position(|p| p.0 == *layout) else { return Arc::default() };
        let known = lock(&self.finer).get(&(slot, i)).cloned();
        known.unwrap_or_else(|| {
            let (layout, timer, sides) = &priced[i];
            let sides = self.task.finer_prefill(layout, timer, sides);
            let made = Arc::new(levels::prefill_every(&vec![(*layout, timer.clone(), sides)], &self.task.load));
            lock(&self.finer).entry((slot, i)).or_insert(made).clone()
        })
    }

    /// Rates that pairs may reach, best first; KV beside the steps only lowers them.
    fn promises(
        &self,
        prefill: &[Candidate<PrefillSide>],
        decode: &[Candidate<DecodeSide>],
    ) -> Vec<(f64, usize, usize)> {
        let mut all = Vec::new();
        for (j, d) in decode.iter().enumerate() {
            all.extend(prefill.iter().enumerate().map(|(i, p)| (promise(self.task.budget, p, d), i, j)));
        }
        all.retain(|a| a.0 > 0.0);
        all.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then((a.1, a.2).cmp(&(b.1, b.2))));
        all
    }

    /// The best pairs among promises under the limits, best first.
    fn kept(
        &self,
        level: u8,
        promises: &[(f64, usize, usize)],
        prefill: &[Candidate<PrefillSide>],
        decode: &[Candidate<DecodeSide>],
        aim: &Aim,
    ) -> Vec<Row> {
        let ttft = aim.slo.ttft_ms.map_or(f64::INFINITY, |t| t * 1e-3);
        let mut rows: Vec<Row> = Vec::new();
        let mut best = 0.0;
        // KV beside its steps may push a decode slot over the limit, whoever it is paired with.
        let mut slow = vec![0u32; decode.len()];
        for (promise, i, j) in promises.iter().filter(|(_, i, _)| prefill[*i].side.prefill.latency_s <= ttft) {
            if *promise < best {
                break;
            }
            if slow[*j] >= TRIES {
                continue;
            }
            let Some(row) = self.task.best_numbers(level, &prefill[*i], &decode[*j]) else { continue };
            match aim.score(&row.point) {
                (2, rate) => {
                    best = f64::max(best, rate);
                    rows.push(row);
                }
                _ => slow[*j] += u32::from(row.point.binding_under(&aim.slo) == Binding::Tpot),
            }
        }
        rows.sort_by(|a, b| order(&aim.score(&b.point), &aim.score(&a.point)));
        // One that the engine finds just over a limit is over it beside any other: not all eggs in one basket.
        let mut kept: Vec<Row> = Vec::new();
        for r in rows {
            let alike = kept.iter().filter(|k| k.main.layout == r.main.layout && k.main.batch == r.main.batch).count();
            if alike < ALIKE && kept.len() < PRICED {
                kept.push(r);
            }
        }
        kept
    }

    /// A level of pairs under limits of one TPOT.
    fn pairs(&self, level: u8, slos: &[(usize, Slo)]) -> Result<Vec<(usize, Reach)>> {
        let combos: &[(usize, usize)] = if level == 1 { &[(0, 0)] } else { &[(0, 1), (1, 0), (1, 1)] };
        let Some((_, first)) = slos.first() else { return Ok(Vec::new()) };
        let of = |slo: &Slo| Aim { slo: *slo, per_user: false };
        let limit = first.tpot_ms.map_or(f64::INFINITY, |t| t * 1e-3 * self.task.progress());
        let candidates = |slot: usize| {
            let mut all = self.task.fine_decode(&self.decode[slot], &of(first), false)?;
            let near = |c: &&Candidate<DecodeSide>| {
                let step = c.side.step.seconds;
                step <= limit && (step >= BELOW * limit || limit.is_infinite())
            };
            all.extend(self.paired[slot].iter().filter(near).cloned());
            Ok::<_, crate::Error>(all)
        };
        let decode = [candidates(0)?, candidates(1)?];
        let promised: Vec<_> = combos.iter().map(|(p, d)| self.promises(&self.fronts[*p], &decode[*d])).collect();
        let mut out = Vec::new();
        for (index, slo) in slos {
            self.task.control.check()?;
            let aim = of(slo);
            let mut rows: Vec<Row> = Vec::new();
            for ((p, d), promises) in combos.iter().zip(&promised) {
                let mut found = self.kept(level, promises, &self.fronts[*p], &decode[*d], &aim);
                let mut layouts: Vec<Layout> = Vec::new();
                // Those of the best pairs; then those that promise most and whose finer cuts may yet keep TTFT.
                let near = |c: &Candidate<PrefillSide>| {
                    c.side.prefill.latency_s * 1e3 <= NEARLY * slo.ttft_ms.unwrap_or(f64::INFINITY)
                };
                let promised = promises.iter().map(|(_, i, _)| &self.fronts[*p][*i]).filter(|c| near(c));
                let leading = found.iter().filter_map(|r| r.prefill.map(|p| (p.layout, PREFILL_LEADERS)));
                for (layout, most) in leading.chain(promised.map(|c| (c.layout, 2 * PREFILL_LEADERS))) {
                    if !layouts.contains(&layout) && layouts.len() < most {
                        layouts.push(layout);
                    }
                    if layouts.len() == 2 * PREFILL_LEADERS {
                        break;
                    }
                }
                for layout in layouts {
                    let finer = self.finer(*p, &layout);
                    let promises = self.promises(&finer, &decode[*d]);
                    found.extend(self.kept(level, &promises, &finer, &decode[*d], &aim));
                }
                rows.extend(found);
            }
            if rows.is_empty() {
                rows.extend(self.nearest(level, combos, &aim));
            }
            out.push((*index, self.best_of(rows, &aim)?));
        }
        Ok(out)
    }

    /// The pairs of least latency in each slot: the nearest miss where none keeps the limits.
    fn nearest(&self, level: u8, combos: &[(usize, usize)], aim: &Aim) -> Vec<Row> {
        let mut rows = Vec::new();
        for (p, d) in combos {
            let mut prefill: Vec<&Candidate<PrefillSide>> = self.fronts[*p].iter().collect();
            prefill.sort_by(|a, b| a.side.prefill.latency_s.total_cmp(&b.side.prefill.latency_s));
            let mut decode: Vec<&Candidate<DecodeSide>> = self.paired[*d].iter().collect();
            decode.sort_by(|a, b| a.side.step.seconds.total_cmp(&b.side.step.seconds));
            for p in prefill.into_iter().take(6) {
                rows.extend(decode.iter().take(6).filter_map(|d| self.task.best_numbers(level, p, d)));
            }
            if rows.is_empty() {
                rows.extend(self.task.closest_pair(level, &self.prefill[*p], &self.decode[*d]));
            }
        }
        rows.sort_by(|a, b| order(&aim.score(&b.point), &aim.score(&a.point)));
        rows
    }

    /// Every cell of limits, in their order.
    fn cells(&self, map: &Map, control: &Control) -> Result<Vec<Vec<Reach>>> {
        let asked = map.asked();
        // Limits of one TPOT share their decode candidates.
        let mut by_tpot: BTreeMap<u64, Vec<(usize, Slo)>> = BTreeMap::new();
        for (i, slo) in map.slos.iter().enumerate() {
            by_tpot.entry(slo.tpot_ms.unwrap_or(f64::INFINITY).to_bits()).or_default().push((i, *slo));
        }
        let bands: Vec<&Vec<(usize, Slo)>> = by_tpot.values().collect();
        let found: Vec<Result<Vec<(usize, usize, Reach)>>> = crate::pool::install(|| {
            bands
                .par_iter()
                .map(|slos| {
                    let mut out = Vec::new();
                    for &level in &asked {
                        if level % 2 == 1 {
                            let reached = self.pairs(level as u8, slos)?;
                            out.extend(reached.into_iter().map(|(i, r)| (i, level, r)));
                            continue;
                        }
                        for (i, slo) in slos.iter() {
                            control.check()?;
                            let aim = Aim { slo: *slo, per_user: false };
                            out.push((*i, level, self.mixed(level == 2, &aim)?));
                        }
                    }
                    control.advance(slos.len() as u64);
                    Ok(out)
                })
                .collect()
        })?;
        let mut cells: Vec<BTreeMap<usize, Reach>> = vec![BTreeMap::new(); map.slos.len()];
        for part in found {
            for (i, level, reach) in part? {
                cells[i].insert(level, reach);
            }
        }
        Ok(cells.into_iter().map(|c| c.into_values().collect()).collect())
    }
}

/// Rate of a pair at the best whole numbers when neither domains nor KV cost anything.
fn promise(budget: u32, p: &Candidate<PrefillSide>, d: &Candidate<DecodeSide>) -> f64 {
    let (gp, gd) = (p.layout.gpus(), d.layout.gpus());
    if gp + gd > budget {
        return 0.0;
    }
    let (supply, demand) = (p.side.rate, d.side.rate);
    let most = (budget - gd) / gp;
    let balance = f64::from(budget) * demand / (supply * f64::from(gd) + demand * f64::from(gp));
    let mut best = 0.0_f64;
    // Above the balance supply waits for demand; below it fewer prefill slots only supply less.
    for np in (1..=(balance as u32 + 1).clamp(1, most)).rev() {
        let demand = f64::from((budget - np * gp) / gd) * demand;
        let supply = f64::from(np) * supply;
        best = best.max(supply.min(demand));
        if supply <= demand {
            break;
        }
    }
    best
}

fn prefill_workers(lib: &Library, gpus: u32) -> Vec<Layout> {
    levels::worker_layouts(lib, gpus, true)
}

/// Every cell, clusters outermost, then workloads, then limits.
pub fn cells(db: &Arc<KernelDb>, map: &Map, control: &Control) -> Result<Vec<Cell>> {
    map.check(db)?;
    control.set_total((map.clusters.len() * map.workloads.len() * map.slos.len()) as u64);
    let mut out = Vec::new();
    for (c, cluster) in map.clusters.iter().enumerate() {
        let framework = framework_on(db, map, cluster)?;
        let lib = Library::shared(db, &map.model, cluster, &framework, &map.quant, &map.serving, &map.assumptions)?;
        let compiled = Arc::new(Compiled::default());
        for (w, workload) in map.workloads.iter().enumerate() {
            // Its layouts count for themselves; progress here is in cells.
            let part = control.part();
            let task = Task::sharing(&compiled, &lib, workload, cluster.gpus, 0, &part, true);
            let reached = Scene::new(map, task)?.cells(map, control)?;
            out.extend(reached.into_iter().enumerate().map(|(slo, reached)| Cell {
                cluster: c,
                workload: w,
                slo,
                reached,
            }));
        }
    }
    Ok(out)
}

fn framework_on(db: &Arc<KernelDb>, map: &Map, cluster: &Cluster) -> Result<String> {
    match &map.framework {
        Some(f) => Ok(f.clone()),
        None => default_framework(db, &map.model, cluster, &map.quant),
    }
}
