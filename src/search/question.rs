//! What a search is asked, and the pieces of it that can be searched alone.
//!
//! Limit: one cluster, one workload, one pair of limits; maps of several are `regimes`.

use std::sync::Arc;

use super::aim::Aim;
use super::objective::Objective;
use crate::cost::Library;
use crate::error::{Error, Problems, Result};
use crate::kernels::KernelDb;
use crate::serving::engine::contradictions_of;
use crate::serving::framework;
use crate::serving::queueing::Arrivals;
use crate::serving::residuals::{self, Served};
use crate::spec::assumptions::RequestPath;
use crate::spec::{Case, Framework, Level, Rules, Slo};

/// Everything `explore` is asked.
#[derive(Clone)]
pub struct Question {
    /// It names the frameworks that are compared, at least one.
    pub case: Case,
    pub slo: Slo,
    pub levels: Vec<Level>,
    pub objective: Objective,
    /// How requests come; with arrivals of their own the levels are led by what they serve so (`arrivals`).
    pub arrivals: Arrivals,
    /// Whether leaders with arrivals of their own are simulated.
    pub confirm: bool,
    /// Batches priced per doubling.
    pub batches_per_octave: u32,
    /// Whether only plans that a server starts are searched (AFD: those that keep the layout rules of the framework).
    pub runnable: bool,
    /// Whether the space is scanned by lines where it can be; else the engine prices every plan of it.
    pub scan: bool,
    /// The chance with which what is measured must keep the limits, strictly between 0 and 1; none: the figures
    /// themselves must.
    pub confidence: Option<f64>,
}

impl Question {
    pub fn new(case: Case, slo: Slo) -> Question {
        Question {
            case,
            slo,
            levels: Level::ALL.to_vec(),
            objective: Objective::TokensPerS,
            arrivals: Arrivals::Closed,
            confirm: true,
            batches_per_octave: 2,
            runnable: true,
            scan: true,
            confidence: None,
        }
    }

    /// `known`: frameworks with kernels for the system.
    pub(super) fn check(&self, known: &[Framework]) -> Result<()> {
        let mut p = Problems::new();
        if self.levels.is_empty() {
            p.push("levels", "no level to explore", format!("known: {}", Level::NAMES.join(", ")));
        }
        p.nest("", self.case.check());
        p.nest("slo", self.slo.check());
        self.arrivals.check(&self.slo, &mut p);
        if let Some(c) = self.confidence.filter(|c| !(*c > 0.0 && *c < 1.0)) {
            let hint = if c > 1.0 && c < 100.0 { format!("did you mean {}?", c / 100.0) } else { "such as 0.8".into() };
            p.push("confidence", format!("must be between 0 and 1, both excluded, is {c}"), hint);
        }
        let service = self.case.assumptions.request_path == RequestPath::Service;
        if self.confidence.is_some() && self.slo.ttft_ms.is_some() && service {
            let text = "the TTFT that was measured is a client's, and the limit is on the steps that serve alone";
            p.push("confidence", text, "assumptions=Assumptions(request_path='client'), or a TPOT limit alone");
        }
        if self.arrivals == Arrivals::Poisson && self.objective == Objective::TokensPerSPerUser {
            let text = "is no rate: with arrivals of their own levels are compared by the rate within the limits";
            p.push("objective", text, "'tokens_per_s', or arrivals='closed'");
        }
        contradictions_of(&mut p, &self.case.model, &self.case.serving);
        if self.case.named().is_empty() {
            p.push("frameworks", "no framework to compare", "name one whose kernels are known for the system");
        }
        p.nest("", framework::check(self.case.named(), known, &self.case.cluster.system));
        if self.objective == Objective::TokensPerSPerUser && self.case.workload.means().osl <= 1.0 {
            let text = "one output token a request: nothing is decoded, and no user has a rate";
            p.push("objective", text, "objective='tokens_per_s' under a TTFT limit, or an osl above 1");
        }
        let peak = self.case.workload.peak_tokens();
        if self.case.workload.strict_context && peak > f64::from(self.case.model.max_context) {
            let text =
                format!("context_exceeded: {peak:.0} tokens on a model trained for {}", self.case.model.max_context);
            p.push("workload", text, "leave strict_context off to price it all the same");
        }
        p.into_result()
    }
}

/// A piece of a question that can be searched alone: the levels of one framework that share what is priced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkUnit {
    /// Index into the frameworks that the case names.
    pub framework: u8,
    pub kind: UnitKind,
}

/// What the levels of a unit are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnitKind {
    /// `aggregated`.
    Workers,
    /// `aggregated+afd`.
    Units,
    /// `pd` and `pd+afd`: they share slots.
    Pairs,
}

impl UnitKind {
    const ALL: [UnitKind; 3] = [UnitKind::Workers, UnitKind::Units, UnitKind::Pairs];

    pub(crate) fn levels(self) -> &'static [Level] {
        match self {
            UnitKind::Workers => &[Level::Aggregated],
            UnitKind::Units => &[Level::AggregatedAfd],
            UnitKind::Pairs => &[Level::Pd, Level::PdAfd],
        }
    }
}

impl Question {
    pub(crate) fn wants(&self, level: Level) -> bool {
        self.levels.contains(&level)
    }

    /// What a plan of a level on a framework's library is judged by.
    pub(crate) fn aim(&self, lib: &Library, level: Level) -> Aim {
        Aim { slo: self.limits(lib, level), objective: self.objective }
    }

    /// Limits that the figures of such a plan must keep.
    pub(crate) fn limits(&self, lib: &Library, level: Level) -> Slo {
        match self.confidence {
            Some(chance) => residuals::tightened(&Served::of(lib, level), &self.slo, chance),
            None => self.slo,
        }
    }

    /// Its units, in the order in which `explore` searches them: frameworks outermost.
    pub fn units(&self) -> Result<Vec<WorkUnit>> {
        let mut units = Vec::new();
        for framework in 0..self.case.named().len() {
            let framework = u8::try_from(framework).map_err(|_| Error::spec("frameworks", "too many", ""))?;
            let asked = UnitKind::ALL.into_iter().filter(|k| k.levels().iter().any(|l| self.wants(*l)));
            units.extend(asked.map(|kind| WorkUnit { framework, kind }));
        }
        Ok(units)
    }

    /// A unit's levels in words.
    pub fn label(&self, unit: &WorkUnit) -> String {
        let asked = unit.kind.levels().iter().filter(|l| self.wants(**l));
        let levels: Vec<&str> = asked.map(|l| l.name()).collect();
        format!("{} on {}", levels.join(" and "), self.case.named()[usize::from(unit.framework)])
    }

    /// Checks it and gives the library of every framework.
    pub(crate) fn libraries(&self, db: &Arc<KernelDb>) -> Result<Vec<Arc<Library>>> {
        self.check(&framework::with_kernels(db, &self.case.cluster.system)?)?;
        self.case.named().iter().map(|f| self.case.library(db, *f)).collect()
    }

    /// What servers of a framework start; none: the rules are lifted.
    pub(super) fn rules(&self, framework: Framework) -> Result<Option<Rules>> {
        self.runnable.then(|| Rules::new(framework, None, &self.case.model, &self.case.cluster)).transpose()
    }
}
