//! What a level is searched for, and what all passes of the search share: clocks, what is compiled and what is kept.
//!
//! Limit: belongs to one search; nothing here outlives it but what `compiled` keeps.

use std::sync::Arc;

use rayon::prelude::*;

use super::candidate_clock::CandidateClock;
use super::compiled::Compiled;
use super::fine_grid::FineGrid;
use super::group::Group;
use super::kept::Kept;
use super::key::PART;
use super::row::Layout;
use super::sides::{PromptSide, Slot};
use super::space::{self, STAGES, TENSOR};
use crate::control::Control;
use crate::cost::Library;
use crate::error::Result;
use crate::network::packing;
use crate::serving::pd::{DecodeSide, PrefillSide};
use crate::serving::{Load, StepEngine, Tables, aggregated, cadence};
use crate::spec::assumptions::{MixedSteps, PrefillSync};
use crate::spec::rules::Shape;
use crate::spec::{Level, Role, Rules, Slo, Workload};

/// Slots that the engine has priced: the rows of one list share most of them.
#[derive(Default)]
pub struct Engines {
    pub mixed: Kept<[u32; PART], CandidateClock>,
    pub prefill: Kept<[u32; PART], (PrefillSide, CandidateClock)>,
    pub decode: Kept<[u32; PART], (DecodeSide, CandidateClock)>,
}

/// What a level is searched for.
pub struct Task<'a> {
    pub lib: &'a Arc<Library>,
    pub workload: &'a Workload,
    pub load: Load,
    pub budget: u32,
    /// What servers start; none: whatever can be priced.
    pub rules: Option<Rules>,
    /// The loosest limits that are asked for; none: all that is priced is shown, whatever its latencies.
    pub(super) loosest: Option<Slo>,
    pub framework: u8,
    pub control: &'a Control,
    /// Lines to scan by; none: everything is priced by the engine.
    pub tables: Option<Arc<Tables>>,
    /// What is compiled already, and what the engine has priced.
    pub compiled: Arc<Compiled>,
    pub engine: Engines,
    pub(super) fine_grid: FineGrid,
    /// The clocks of layouts for the whole workload.
    clocks: Kept<Layout, CandidateClock>,
    /// Layouts one step from a unit's.
    pub(super) neighbours: Kept<(Layout, Role), Vec<Layout>>,
    /// Units beyond the coarse grid, as they serve both phases and in either slot.
    pub(super) mixed: Kept<(Level, Layout), Group>,
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
    pub(crate) fn sharing(
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
            loosest: None,
            framework,
            control,
            tables,
            compiled,
            engine,
            fine_grid,
            clocks: Kept::default(),
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

    /// The same for limits none of which is looser.
    pub(super) fn under(self, loosest: Slo) -> Self {
        Task { loosest: Some(loosest), ..self }
    }

    pub(super) fn choices(&self) -> space::Choices<'_> {
        space::Choices { lib: self.lib, budget: self.budget, rules: self.rules.as_ref() }
    }

    /// Cadences of prompts that a layout may have: what serving says, else all where the framework has the knob and
    /// it does something.
    pub(super) fn cadences(&self, s: &StepEngine) -> Vec<u32> {
        let lib = self.lib;
        let free = lib.serving.prefill_interval.is_none()
            && lib.assumptions.mixed_steps == MixedSteps::SteadyState
            && lib.assumptions.prefill_sync == PrefillSync::Uncoordinated
            && self.load.osl > 1.0
            && cadence::acts(lib.framework, s.ranks());
        if free { cadence::INTERVALS.to_vec() } else { vec![aggregated::interval(s, None)] }
    }

    /// Whether a prefill side hands its KV to a decode side.
    pub(super) fn pairs_up(&self, prefill: &Layout, decode: &Layout) -> bool {
        self.rules.as_ref().is_none_or(|r| r.shapes(&prefill.shape(), &decode.shape()))
    }

    /// Which widths and stages the other side of a pair may have, a bit each; all where there is no other side.
    pub(super) fn partners(&self, layout: &Layout, role: Role) -> u32 {
        let Some(rules) = &self.rules else { return u32::MAX };
        let own = layout.shape();
        let other = |tp: u32, pp: u32| Shape { tp, pp, ..own };
        let others = TENSOR.iter().flat_map(|tp| STAGES.iter().map(move |pp| other(*tp, *pp)));
        let meets = |o: &Shape| match role {
            Role::Both => true,
            Role::Prompts => rules.shapes(&own, o),
            Role::Decode => rules.shapes(o, &own),
        };
        others.enumerate().filter(|(_, o)| meets(o)).fold(0, |bits, (i, _)| bits | 1 << i)
    }

    /// Those that pair up with any other under the rules of servers; the rest counts as done.
    pub(super) fn paired_up(&self, layouts: &[Layout], role: Role) -> Vec<Layout> {
        let some: Vec<Layout> = layouts.iter().copied().filter(|l| self.partners(l, role) != 0).collect();
        self.control.advance((layouts.len() - some.len()) as u64);
        some
    }

    pub(super) fn engine_of(&self, layout: &Layout, workload: &Workload) -> Result<StepEngine> {
        let Layout::Afd { attention_gpus, tp, ffn_gpus, ep, moe_tp, groups, .. } = *layout else {
            let Layout::Worker { parallel, overlap } = *layout else { unreachable!("not an AFD layout") };
            let worker = self.compiled.worker(self.lib, parallel, overlap)?;
            return Ok(StepEngine::worker_of(self.lib, worker, workload));
        };
        let Some(plan) = layout.afd_plan(1, 1, None) else { unreachable!("an AFD layout") };
        let shape = [attention_gpus, tp, ffn_gpus, ep, moe_tp, groups];
        let unit = self.compiled.unit(self.lib, shape, &plan)?;
        StepEngine::afd_of(self.lib, unit, &plan, workload)
    }

    /// A layout's clock.
    pub(super) fn clock(&self, layout: &Layout) -> Result<Arc<CandidateClock>> {
        self.clocks
            .get(*layout, || Ok(CandidateClock::new(self.engine_of(layout, self.workload)?, self.tables.as_ref())))
    }

    /// The most groups of `size` GPUs on the budget beside `placed`, none across more domains than it must.
    pub(super) fn most(&self, placed: (u32, u32), size: u32) -> u32 {
        packing::most(self.budget, self.lib.cluster.fabric.domain_gpus, placed, size)
    }

    /// Tokens that a decode step adds to a sequence.
    pub(super) fn progress(&self) -> f64 {
        self.lib.serving.tokens_per_step()
    }

    pub(super) fn per_decode(&self) -> f64 {
        1.0 + f64::from(self.lib.serving.mtp)
    }

    /// Compiles the layouts and prices nothing; gives their number.
    pub fn compile(&self, layouts: &[Layout]) -> Result<usize> {
        Ok(self.each(layouts, |layout| self.clock(layout).map(|s| s.gpus()))?.len())
    }

    pub(super) fn each<T: Send>(
        &self,
        layouts: &[Layout],
        work: impl Fn(&Layout) -> Result<T> + Sync,
    ) -> Result<Vec<T>> {
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
