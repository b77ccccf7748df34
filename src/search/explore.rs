//! The central question: which level of disaggregation serves this workload within its limits,
//! how fast, on which partition, and what stops the others?
//!
//! Each level is searched over its own whole space at the same GPU budget; whole workers and units
//! fill the budget and what is left over idles, but is counted. P/D pairs the Pareto frontiers of
//! its two slots (rate, latency and ways for KV, per worker size): a slot candidate that another
//! beats on all of them cannot be in the best pair of that size. A step of a frontier gains at least 2 %,
//! and batches and chunks lie on a coarse grid; the leaders of every level are therefore priced again on a
//! fine one (`refine`), so that levels are compared best against best. The space is scanned by lines
//! (`serving::scan`); what is said of it is priced by the engine (`exact`), and every row tells which it is.

use std::sync::Arc;

use super::levels::{self, Candidate, Priced, Task};
use super::near::Tiers;
use super::pairs::Prompts;
use super::refine::{Aim, append_new};
use super::row::{Layout, Row};
use super::study::Study;
use crate::control::Control;
use crate::cost::Library;
use crate::error::{Error, Problems, Result, near};
use crate::kernels::KernelDb;
use crate::serving::engine::contradictions_of;
use crate::serving::pd::DecodeSide;
use crate::spec::{Assumptions, Cluster, Model, Quant, Serving, Slo, Workload};

/// The four levels of disaggregation.
pub const LEVELS: [&str; 4] = ["aggregated", "pd", "aggregated+afd", "pd+afd"];

/// What a study optimises.
pub const OBJECTIVES: [&str; 3] = ["tokens_per_s", "tokens_per_s_per_gpu", "tokens_per_s_per_user"];

/// Everything `explore` is asked.
#[derive(Clone)]
pub struct Question {
    pub model: Model,
    pub cluster: Cluster,
    pub workload: Workload,
    pub slo: Slo,
    pub levels: Vec<String>,
    /// Frameworks whose kernels are compared; at least one.
    pub frameworks: Vec<String>,
    pub quant: Quant,
    pub serving: Serving,
    pub assumptions: Assumptions,
    pub objective: String,
    /// Batches priced per doubling.
    pub batches_per_octave: u32,
    /// Whether the space is scanned by lines where it can be; else the engine prices every plan of it.
    pub scan: bool,
}

impl Question {
    pub fn new(model: Model, cluster: Cluster, workload: Workload, slo: Slo, framework: &str) -> Question {
        Question {
            model,
            cluster,
            workload,
            slo,
            levels: LEVELS.iter().map(|l| (*l).to_string()).collect(),
            frameworks: vec![framework.to_string()],
            quant: Quant::default(),
            serving: Serving::default(),
            assumptions: Assumptions::physical(),
            objective: "tokens_per_s".into(),
            batches_per_octave: 5,
            scan: true,
        }
    }

    /// `known`: frameworks with kernels for the system.
    fn check(&self, known: &[String]) -> Result<()> {
        let mut p = Problems::new();
        for (i, l) in self.levels.iter().enumerate() {
            if !LEVELS.contains(&l.as_str()) {
                p.push(format!("levels[{i}]"), format!("'{l}' is not a level"), near(l, LEVELS));
            }
        }
        if self.levels.is_empty() {
            p.push("levels", "no level to explore", format!("known: {}", LEVELS.join(", ")));
        }
        if !OBJECTIVES.contains(&self.objective.as_str()) {
            p.push("objective", format!("'{}' is not an objective", self.objective), near(&self.objective, OBJECTIVES));
        }
        p.nest("model", self.model.check());
        p.nest("cluster", self.cluster.check());
        p.nest("workload", self.workload.check());
        p.nest("slo", self.slo.check());
        p.nest("serving", self.serving.check());
        p.nest("assumptions", self.assumptions.check());
        contradictions_of(&mut p, &self.model, &self.serving);
        if self.frameworks.is_empty() {
            p.push("frameworks", "no framework to compare", "name one whose kernels are known for the system");
        }
        for (i, f) in self.frameworks.iter().enumerate().filter(|(_, f)| !known.contains(f)) {
            // Without its tables everything would be a roofline.
            let text = format!("'{f}' is not a framework with kernels for {}", self.cluster.system);
            p.push(format!("frameworks[{i}]"), text, near(f, known));
        }
        let peak = self.workload.peak_tokens();
        if self.workload.strict_context && peak > f64::from(self.model.max_context) {
            let text = format!("context_exceeded: {peak:.0} tokens on a model trained for {}", self.model.max_context);
            p.push("workload", text, "leave strict_context off to price it all the same");
        }
        p.into_result()
    }
}

/// Searches every level asked for.
pub fn explore(db: &Arc<KernelDb>, q: &Question, control: &Control) -> Result<Study> {
    q.check(&db.frameworks(&q.cluster.system)?)?;
    let wants = |level: &str| q.levels.iter().any(|l| l == level);
    let paired = wants("pd") || wants("pd+afd");
    let mut spaces = Vec::new();
    let mut total = 0;
    for framework in &q.frameworks {
        let lib = Library::shared(db, &q.model, &q.cluster, framework, &q.quant, &q.serving, &q.assumptions)?;
        let workers = levels::worker_layouts(&lib, q.cluster.gpus, false);
        let units = levels::unit_layouts(&lib, q.cluster.gpus);
        let prefill_workers = levels::worker_layouts(&lib, q.cluster.gpus, true);
        let prefill_units = levels::prefill_unit_layouts(&lib, q.cluster.gpus);
        for (asked, layouts) in [
            (wants("aggregated"), &workers),
            (wants("aggregated+afd"), &units),
            (paired, &prefill_workers),
            (paired, &workers),
            (wants("pd+afd"), &units),
            (wants("pd+afd"), &prefill_units),
        ] {
            total += if asked { layouts.len() as u64 } else { 0 };
        }
        spaces.push((lib, workers, units, prefill_workers, prefill_units));
    }
    // On top of what the same caller has already done: an audit explores many times.
    control.set_total(control.progress().0 + total);
    let aim = Aim::of(q);
    let mut rows: Vec<Vec<Row>> = Vec::new();
    let mut libraries = Vec::new();
    for (i, (lib, workers, units, prefill_workers, prefill_units)) in spaces.into_iter().enumerate() {
        libraries.push(lib.clone());
        let framework = u8::try_from(i).map_err(|_| Error::spec("frameworks", "too many", ""))?;
        let task = Task::new(&lib, &q.workload, q.cluster.gpus, framework, control, q.scan);
        // Batches per doubling; AFD units have a space wider in every other way and take fewer.
        let octave = q.batches_per_octave.max(1);
        if wants("aggregated") {
            let coarse = task.mixed(0, &workers, octave)?;
            let fine = task.refine_mixed(&coarse, octave, &aim)?;
            rows.push(task.settled(coarse, fine, &aim)?);
        }
        if wants("aggregated+afd") {
            let octave = (octave / 2).max(1);
            let coarse = task.mixed(2, &units, octave)?;
            let fine = task.refine_mixed(&coarse, octave, &aim)?;
            rows.push(task.settled(coarse, fine, &aim)?);
        }
        if paired {
            let workers = task.sides(&prefill_workers, &workers, octave * 2)?;
            if wants("pd") {
                rows.push(task.paired(1, &[(&workers, &workers)], &aim)?);
            }
            if wants("pd+afd") && !units.is_empty() {
                let units = task.sides(&prefill_units, &units, (octave - 1).max(1))?;
                let ways = [(&workers, &units), (&units, &workers), (&units, &units)];
                rows.push(task.paired(3, &ways, &aim)?);
            }
        }
    }
    Ok(Study::new(q.clone(), libraries, crate::pool::concat(rows)?))
}

/// Workers or AFD units in both slots.
struct Sides {
    prompts: Prompts,
    decode: Priced<DecodeSide>,
    front: Vec<Candidate<DecodeSide>>,
}

impl Task<'_> {
    fn sides(&self, prefill: &[Layout], decode: &[Layout], octave: u32) -> Result<Sides> {
        let (prompts, decode) = (self.prompts(prefill)?, self.decode(decode, octave)?);
        Ok(Sides { prompts, front: levels::decode_frontier(&decode, &self.load)?, decode })
    }

    /// A level of pairs, both passes: `ways` to fill (prefill, decode). A level none of whose plans fits still says
    /// what is short, on its nearest miss.
    fn paired(&self, level: u8, ways: &[(&Sides, &Sides)], aim: &Aim) -> Result<Vec<Row>> {
        let coarse =
            ways.iter().map(|(p, d)| self.pair(level, &p.prompts.front, &d.front)).collect::<Result<Vec<_>>>()?;
        let mut found = crate::pool::concat(coarse)?;
        let tiers = Tiers::of(&found, &Aim { per_user: false, ..*aim });
        let mut fine = Vec::new();
        for (p, d) in ways {
            let decode = self.fine_decode(&d.decode, aim)?;
            fine.extend(self.near_best(level, &p.prompts.every, &decode, aim, tiers)?);
        }
        append_new(&mut found, fine);
        self.settle(&mut found, aim)?;
        if let (true, Some((p, d))) = (found.is_empty(), ways.first()) {
            found.extend(self.closest_pair(level, &p.prompts.all, &d.decode));
        }
        Ok(found)
    }

    /// Both passes of a level, what it says of them priced by the engine.
    fn settled(&self, coarse: Vec<Vec<Row>>, fine: Vec<Row>, aim: &Aim) -> Result<Vec<Row>> {
        let mut parts = coarse;
        parts.push(fine);
        let mut rows = crate::pool::concat(parts)?;
        self.settle(&mut rows, aim)?;
        Ok(rows)
    }
}
