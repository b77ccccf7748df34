//! One level at a time: its layouts priced over batches and chunks, in parallel, in a fixed order.

use std::sync::{Arc, Mutex};

use rayon::prelude::*;

use super::compiled::Compiled;
use super::exact::{Engines, Kept};
use super::frontier::Candidate;
use super::marks::Marks;
use super::refine::{At, FineGrid, Known};
use super::row::{Layout, Part, Row};
use super::space;
use super::timer::{self, Timer};
use crate::control::Control;
use crate::cost::Library;
use crate::error::Result;
use crate::network::packing;
use crate::serving::choose::{chunk_grid, most_sequences};
use crate::serving::pd::{self, DecodeSide, PrefillSide};
use crate::serving::{Load, Stepper, Tables, aggregated, cadence};
use crate::spec::assumptions::{MixedSteps, PrefillSync};
use crate::spec::{Rules, Workload};

/// Layouts with their clocks and what was priced on each.
pub type Priced<S> = Vec<Slot<S>>;
/// A layout with its clock and what was priced on it.
pub type Slot<S> = (Layout, Arc<Timer>, Vec<S>);

/// What a layout serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Serves {
    /// Prompts and decode on the same GPUs.
    Both,
    Prompts,
    Decode,
}

/// A layout of a mixed level: its clock, its rows on the grid, what they reach, and what is known beside them.
pub struct Group {
    pub timer: Arc<Timer>,
    pub rows: Vec<Row>,
    pub marks: Marks,
    pub(super) known: Mutex<Known>,
}

impl Group {
    pub fn layout(&self) -> Option<Layout> {
        self.rows.first().map(|r| r.main.layout)
    }
}

/// Sequences per rank and chunk of a round of prompts, and what it gives.
pub type PromptSide = (u32, u32, PrefillSide);

/// What a level is searched for.
pub struct Task<'a> {
    pub lib: &'a Arc<Library>,
    pub workload: &'a Workload,
    pub load: Load,
    pub budget: u32,
    /// What servers start; none: whatever can be priced.
    pub rules: Option<Rules>,
    pub framework: u8,
    pub control: &'a Control,
    /// Lines to scan by; none: everything is priced by the engine.
    pub tables: Option<Arc<Tables>>,
    /// What is compiled already, and what the engine has priced.
    pub compiled: Arc<Compiled>,
    pub engine: Engines,
    pub(super) fine_grid: FineGrid,
    /// The clocks of layouts for the whole workload.
    timers: Kept<Layout, Timer>,
    /// Prompts cut around those of leaders: sequences and chunk.
    pub(super) cuts: Kept<(Layout, u32, u32), PrefillSide>,
    /// Layouts one step from a unit's.
    pub(super) neighbours: Kept<(Layout, Serves), Vec<Layout>>,
    /// Units beyond the coarse grid, as they serve both phases and in either slot.
    pub(super) mixed: Kept<(u8, Layout), Group>,
    pub(super) decoded: Kept<Layout, Slot<DecodeSide>>,
    pub(super) prompted: Kept<Layout, Slot<PromptSide>>,
}

impl<'a> Task<'a> {
    /// Scans by lines where the steps of the library add up; not `scan`: prices everything by the engine.
    pub fn new(
        lib: &'a Arc<Library>,
        workload: &'a Workload,
        budget: u32,
        framework: u8,
        control: &'a Control,
        scan: bool,
    ) -> Task<'a> {
        Task::sharing(&Compiled::of(lib), lib, workload, budget, framework, control, scan)
    }

    /// The same with what other workloads of this library have compiled.
    pub fn sharing(
        compiled: &Arc<Compiled>,
        lib: &'a Arc<Library>,
        workload: &'a Workload,
        budget: u32,
        framework: u8,
        control: &'a Control,
        scan: bool,
    ) -> Task<'a> {
        let tables = if scan { Tables::new(lib, workload, compiled.lines()).map(Arc::new) } else { None };
        let (load, compiled) = (Load::of(workload), compiled.clone());
        let engine = Engines::default();
        let fine_grid = FineGrid::new(load.isl, load.osl, 1.0 + f64::from(lib.serving.mtp));
        Task {
            lib,
            workload,
            load,
            budget,
            rules: None,
            framework,
            control,
            tables,
            compiled,
            engine,
            fine_grid,
            timers: Kept::default(),
            cuts: Kept::default(),
            mixed: Kept::default(),
            neighbours: Kept::default(),
            decoded: Kept::default(),
            prompted: Kept::default(),
        }
    }
}

impl Task<'_> {
    /// The same within the rules of servers.
    pub fn within(self, rules: Option<Rules>) -> Self {
        Task { rules, ..self }
    }

    pub(super) fn choices(&self) -> space::Choices<'_> {
        space::Choices { lib: self.lib, budget: self.budget, rules: self.rules.as_ref() }
    }

    /// Cadences of prompts that a layout may have: what serving says, else all where the framework has the knob and
    /// it does something.
    pub(super) fn cadences(&self, s: &Stepper) -> Vec<u32> {
        let lib = self.lib;
        let free = lib.serving.prefill_interval.is_none()
            && lib.assumptions.mixed_steps == MixedSteps::SteadyState
            && lib.assumptions.prefill_sync == PrefillSync::Uncoordinated
            && self.load.osl > 1.0
            && cadence::acts(&lib.framework, s.ranks());
        if free { cadence::INTERVALS.to_vec() } else { vec![aggregated::interval(s, None)] }
    }

    /// Whether a prefill side hands its KV to a decode side.
    fn pairs_up(&self, prefill: &Layout, decode: &Layout) -> bool {
        self.rules.as_ref().is_none_or(|r| r.shapes(&prefill.shape(), &decode.shape()))
    }

    pub(super) fn stepper_of(&self, layout: &Layout, workload: &Workload) -> Result<Stepper> {
        let Layout::Afd { attention_gpus, tp, ffn_gpus, ep, moe_tp, groups, .. } = *layout else {
            let Layout::Worker { parallel, overlap } = *layout else { unreachable!("not an AFD layout") };
            let worker = self.compiled.worker(self.lib, parallel, overlap)?;
            return Ok(Stepper::worker_of(self.lib, worker, workload, "worker"));
        };
        let Some(plan) = layout.afd_plan(1, 1, None) else { unreachable!("an AFD layout") };
        let shape = [attention_gpus, tp, ffn_gpus, ep, moe_tp, groups];
        let unit = self.compiled.unit(self.lib, shape, &plan)?;
        Stepper::afd_of(self.lib, unit, &plan, workload)
    }

    /// A layout's clock.
    pub(super) fn timer(&self, layout: &Layout) -> Result<Arc<Timer>> {
        self.timers.get(*layout, || Ok(Timer::new(self.stepper_of(layout, self.workload)?, self.tables.as_ref())))
    }

    /// The most groups of `size` GPUs on the budget beside `placed`, none across more domains than it must.
    pub(super) fn most(&self, placed: (u32, u32), size: u32) -> u32 {
        packing::most(self.budget, self.lib.cluster.fabric.domain_gpus, placed, size)
    }

    /// Tokens that a decode step adds to a sequence.
    pub(super) fn progress(&self) -> f64 {
        1.0 + self.lib.serving.acceptance.unwrap_or(0.0)
    }

    pub(super) fn per_decode(&self) -> f64 {
        1.0 + f64::from(self.lib.serving.mtp)
    }

    /// The smallest step of a layout whose memory does not hold it: a level's nearest miss.
    fn infeasible(&self, level: u8, layout: Layout, stepper: &Stepper, least: f64) -> Row {
        let batch = layout.microbatches();
        let chunk = (least + f64::from(batch) * self.per_decode()).ceil();
        let count = self.most((0, 1), layout.gpus()).max(1);
        let point = aggregated::solve(stepper, &self.load, f64::from(batch), chunk, count);
        let main = Part { layout, batch, chunk: chunk as u32, count, interval: 1 };
        Row { level, framework: self.framework, main, prefill: None, point, scanned: false, leads: false }
    }

    /// The nearest miss of a level of pairs none of which stands: the pair whose fullest GPU is the least full.
    pub fn closest_pair(&self, level: u8, prefill: &Priced<PromptSide>, decode: &Priced<DecodeSide>) -> Option<Row> {
        let mut best: Option<(f64, usize, usize)> = None;
        let fill = |s: &Stepper, batch: f64, tokens: f64| {
            s.memory().iter().map(|m| m.bytes(batch, tokens) / m.capacity).fold(0.0, f64::max)
        };
        let chunk = |l: &Layout| (self.load.isl / f64::from(l.microbatches())).ceil();
        let prefills: Vec<f64> = prefill.iter().map(|(l, s, _)| fill(s, 1.0, chunk(l).min(self.load.isl))).collect();
        let decodes: Vec<f64> = decode
            .iter()
            .map(|(l, s, _)| fill(s, f64::from(l.microbatches()), f64::from(l.microbatches()) * self.per_decode()))
            .collect();
        for (i, (p, ..)) in prefill.iter().enumerate() {
            for (j, (d, ..)) in decode.iter().enumerate() {
                let full = prefills[i].max(decodes[j]);
                if best.is_none_or(|(b, ..)| full < b) && self.pairs_up(p, d) && self.most((1, p.gpus()), d.gpus()) > 0
                {
                    best = Some((full, i, j));
                }
            }
        }
        let (_, i, j) = best?;
        let ((p, ps, _), (d, ds, _)) = (&prefill[i], &decode[j]);
        let batch = d.microbatches();
        let side = pd::prefill_side(ps, &self.load, 1.0, chunk(p));
        let decode = pd::decode_side(ds, &self.load, f64::from(batch));
        let point = pd::combine(ps, &side, 1, ds, &decode, 1, &self.load);
        Some(Row {
            level,
            framework: self.framework,
            main: Part { layout: *d, batch, chunk: 0, count: 1, interval: 1 },
            prefill: Some(Part { layout: *p, batch: 1, chunk: chunk(p) as u32, count: 1, interval: 1 }),
            point,
            scanned: false,
            leads: false,
        })
    }

    /// Chunked prefill and decode on the same GPUs, workers or AFD units, layout by layout.
    pub fn mixed_groups(&self, level: u8, layouts: &[Layout], per_octave: u32) -> Result<Vec<Group>> {
        self.each(layouts, |layout| self.mixed_group(level, layout, per_octave))
    }

    pub(super) fn mixed_group(&self, level: u8, layout: &Layout, per_octave: u32) -> Result<Group> {
        let (timer, rows) = self.mixed_rows(level, layout, per_octave)?;
        Ok(Group { marks: Marks::of(&rows, self.per_decode()), timer, rows, known: Mutex::default() })
    }

    fn mixed_rows(&self, level: u8, layout: &Layout, per_octave: u32) -> Result<(Arc<Timer>, Vec<Row>)> {
        let timer = self.timer(layout)?;
        let count = self.most((0, 1), layout.gpus());
        let mut rows = Vec::new();
        let least = self.load.isl.min(512.0);
        let most = most_sequences(&timer, least);
        if most < 1.0 {
            rows.push(self.infeasible(level, *layout, &timer, least));
            return Ok((timer, rows));
        }
        let m = layout.microbatches();
        let cadences = self.cadences(&timer);
        let mut ats: Vec<At> = Vec::new();
        for batch in space::batches(most, per_octave).into_iter().filter(|b| *b >= m) {
            for (k, &interval) in cadences.iter().enumerate() {
                let chunks = coarse(chunk_grid(&self.load, batch, self.per_decode(), interval));
                // The first cadence with every budget; the others, which gather prompts, with the most room.
                ats.extend(chunks.take(if k == 0 { usize::MAX } else { 1 }).map(|chunk| [batch, chunk, interval]));
            }
        }
        rows.reserve_exact(ats.len());
        let (framework, scanned) = (self.framework, timer.scans());
        rows.extend(ats.into_iter().map(|at| {
            let [batch, chunk, interval] = at;
            let main = Part { layout: *layout, batch, chunk, count, interval };
            let point = timer.mixed(&self.load, at, count);
            Row { level, framework, main, prefill: None, point, scanned, leads: false }
        }));
        Ok((timer, rows))
    }

    /// Candidates for the decode slot, every batch priced.
    pub fn decode(&self, layouts: &[Layout], per_octave: u32) -> Result<Priced<DecodeSide>> {
        self.each(layouts, |layout| self.decode_of(layout, per_octave))
    }

    /// One candidate for the decode slot, every batch priced.
    pub(super) fn decode_of(&self, layout: &Layout, per_octave: u32) -> Result<Slot<DecodeSide>> {
        let stepper = self.timer(layout)?;
        let most = most_sequences(&stepper, 1.0);
        let m = layout.microbatches();
        let sides: Vec<DecodeSide> = if most < 1.0 {
            Vec::new()
        } else {
            space::batches(most, per_octave)
                .into_iter()
                .filter(|b| *b >= m)
                .map(|b| stepper.decode_side(&self.load, f64::from(b)))
                .filter(|d| d.short.is_none())
                .collect()
        };
        Ok((*layout, stepper, sides))
    }

    /// Candidates for the prefill slot: (layout, stepper, [(sequences per rank, chunk, side)]).
    pub fn prefill(&self, layouts: &[Layout]) -> Result<Priced<PromptSide>> {
        let prompts = self.workload.prefill_part();
        self.each(layouts, |layout| self.prefill_of(layout, &prompts))
    }

    /// One candidate for the prefill slot; `prompts`: the workload's prompts alone.
    pub(super) fn prefill_of(&self, layout: &Layout, prompts: &Workload) -> Result<Slot<PromptSide>> {
        let stepper = Arc::new(Timer::new(self.stepper_of(layout, prompts)?, self.tables.as_ref()));
        let isl = self.load.isl;
        let mut sides = Vec::new();
        let pieces: Vec<f64> = match layout {
            Layout::Worker { .. } => vec![1.0, 2.0, 4.0, 8.0, 16.0, 32.0],
            // Each stage has its micro-batches in flight; finer cuts fill them sooner.
            Layout::Afd { microbatches, pp, .. } => {
                let mut pieces = vec![*microbatches, microbatches * pp, 2 * microbatches * pp];
                pieces.dedup();
                pieces.into_iter().map(f64::from).collect()
            }
        };
        for piece in pieces {
            let chunk = (isl / piece).ceil();
            if chunk < 16.0 && piece > 1.0 {
                continue;
            }
            for sequences in [1u32, 2, 4, 8, 16, 32] {
                if f64::from(sequences) * chunk > 65_536.0 && sequences > 1 {
                    continue;
                }
                // More sequences per rank only help while their chunk is small.
                if sequences > 1 && f64::from(sequences / 2) * chunk >= 16_384.0 {
                    continue;
                }
                let side = stepper.prefill_side(&self.load, f64::from(sequences), chunk);
                if side.short.is_none() {
                    sides.push((sequences, chunk as u32, side));
                }
            }
        }
        Ok((*layout, stepper, sides))
    }

    /// Compiles the layouts and prices nothing; gives their number.
    pub fn compile(&self, layouts: &[Layout]) -> Result<usize> {
        Ok(self.each(layouts, |layout| self.timer(layout).map(|s| s.gpus()))?.len())
    }

    /// Those that pair up with any other under the rules of servers; the rest counts as done.
    pub(super) fn paired_up(&self, layouts: &[Layout], serves: Serves) -> Vec<Layout> {
        let some: Vec<Layout> = layouts.iter().copied().filter(|l| self.partners(l, serves) != 0).collect();
        self.control.advance((layouts.len() - some.len()) as u64);
        some
    }

    fn each<T: Send>(&self, layouts: &[Layout], work: impl Fn(&Layout) -> Result<T> + Sync) -> Result<Vec<T>> {
        crate::pool::install(|| {
            layouts
                .par_iter()
                .map(|layout| {
                    self.control.check()?;
                    let out = work(layout)?;
                    self.control.advance(1);
                    Ok(out)
                })
                .collect()
        })?
    }
}

/// Every other budget from the largest down: what leads is priced on a finer grid again.
pub(super) fn coarse(chunks: Vec<u32>) -> impl Iterator<Item = u32> {
    chunks.into_iter().rev().step_by(2)
}

/// Layouts of plain workers, whatever servers start.
pub fn worker_layouts(lib: &Library, budget: u32, prefill: bool) -> Vec<Layout> {
    space::workers(&space::Choices { lib, budget, rules: None }, prefill)
}

/// Layouts of the coarse grid of AFD units for decode and for mixed steps, whatever servers start.
pub fn unit_layouts(lib: &Library, budget: u32) -> Vec<Layout> {
    space::units(&space::Choices { lib, budget, rules: None }, &space::TURNS)
}

/// The same for prefill.
pub fn prefill_unit_layouts(lib: &Library, budget: u32) -> Vec<Layout> {
    space::units(&space::Choices { lib, budget, rules: None }, &space::PREFILL_TURNS)
}

/// Layouts of the slots: of workers all there are, of AFD units the coarse grid.
pub struct Layouts {
    pub workers: Vec<Layout>,
    pub units: Vec<Layout>,
    pub prefill_workers: Vec<Layout>,
    pub prefill_units: Vec<Layout>,
}

impl Layouts {
    pub fn of(choices: &space::Choices<'_>) -> Layouts {
        Layouts {
            workers: space::workers(choices, false),
            units: space::units(choices, &space::TURNS),
            prefill_workers: space::workers(choices, true),
            prefill_units: space::units(choices, &space::PREFILL_TURNS),
        }
    }
}

impl Task<'_> {
    /// Every pairing of the two slots' frontiers, with the best whole numbers of each within the budget.
    pub fn pair(
        &self,
        level: u8,
        prefill: &[Candidate<PrefillSide>],
        decode: &[Candidate<DecodeSide>],
    ) -> Result<Vec<Row>> {
        let mut rows = Vec::new();
        crate::pool::append(&mut rows, self.pair_each(level, prefill, decode)?)?;
        Ok(rows)
    }

    /// The same, one list a decode slot.
    pub fn pair_each(
        &self,
        level: u8,
        prefill: &[Candidate<PrefillSide>],
        decode: &[Candidate<DecodeSide>],
    ) -> Result<Vec<Vec<Row>>> {
        let rows: Vec<Vec<Row>> = crate::pool::install(|| {
            decode
                .par_iter()
                .map(|d| {
                    if self.control.is_cancelled() {
                        return Vec::new();
                    }
                    prefill.iter().filter_map(|p| self.best_numbers(level, p, d)).collect()
                })
                .collect()
        })?;
        self.control.check()?;
        Ok(rows)
    }

    /// (rate, workers or units of each slot) of the best whole numbers within the budget.
    pub(super) fn numbers(&self, p: &Candidate<PrefillSide>, d: &Candidate<DecodeSide>) -> Option<(f64, u32, u32)> {
        let (gp, gd) = (p.layout.gpus(), d.layout.gpus());
        if gp + gd > self.budget || !self.pairs_up(&p.layout, &d.layout) {
            return None;
        }
        let rate = |np: u32| {
            let nd = self.most((np, gp), gd);
            let wire = || pd::wire_rate(&p.stepper, np, &d.stepper, nd, &self.load);
            (nd > 0).then(|| ((f64::from(np) * p.side.rate).min(f64::from(nd) * d.side.rate).min(wire()), nd))
        };
        // Where supply meets demand lies the best number or its neighbour: what cannot reach that is not priced.
        let most = (self.budget - gd) / gp;
        let balance = f64::from(self.budget) * d.side.rate
            / (p.side.rate * f64::from(gd) + d.side.rate * f64::from(gp)).max(f64::MIN_POSITIVE);
        let near = rate((balance as u32).clamp(1, most)).map_or(0.0, |(r, _)| r);
        let mut best: Option<(f64, u32, u32)> = None;
        for np in 1..=most {
            let nd = (self.budget - np * gp) / gd;
            let bound = (f64::from(np) * p.side.rate).min(f64::from(nd) * d.side.rate);
            if best.is_some() && bound < near {
                continue;
            }
            let Some((rate, nd)) = rate(np) else { break };
            if best.is_none_or(|(r, ..)| rate > r * (1.0 + 1e-12)) {
                best = Some((rate, np, nd));
            }
        }
        best
    }

    pub(super) fn best_numbers(&self, level: u8, p: &Candidate<PrefillSide>, d: &Candidate<DecodeSide>) -> Option<Row> {
        let (_, np, nd) = self.numbers(p, d)?;
        let point = timer::combine(&p.stepper, &p.side, np, &d.stepper, &d.side, nd, &self.load);
        Some(Row {
            level,
            framework: self.framework,
            main: Part { layout: d.layout, batch: d.batch, chunk: 0, count: nd, interval: 1 },
            prefill: Some(Part { layout: p.layout, batch: p.batch, chunk: p.chunk, count: np, interval: 1 }),
            point,
            scanned: p.stepper.scans() || d.stepper.scans(),
            leads: false,
        })
    }
}
