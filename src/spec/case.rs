//! What a question is about: one model served on one cluster for one workload, with whose kernels and how.
//!
//! A price, a search, a map, a sweep, a sensitivity, a simulation and a fit are all asked of a case; what each adds (a
//! plan, limits, a trace) is its own. Limits: whether a plan fits it, and whether its way of serving fits its model,
//! is told together by the engine (`serving::engine`).

use super::{Assumptions, Cluster, Framework, Model, Quant, Serving, Workload};
use crate::error::Problems;

/// Everything that questions have in common.
#[derive(Clone, Debug, PartialEq)]
pub struct Case {
    pub model: Model,
    pub cluster: Cluster,
    pub workload: Workload,
    /// Whose kernels. None: of one plan those whose tables know most of the model, of a comparison all that know it.
    pub frameworks: Option<Vec<Framework>>,
    pub quant: Quant,
    pub serving: Serving,
    pub assumptions: Assumptions,
}

impl Case {
    /// Nobody's kernels named, formats and serving as the server has them, physical assumptions.
    pub fn new(model: Model, cluster: Cluster, workload: Workload) -> Case {
        Case {
            model,
            cluster,
            workload,
            frameworks: None,
            quant: Quant::default(),
            serving: Serving::default(),
            assumptions: Assumptions::physical(),
        }
    }

    /// The same with the kernels of one framework.
    #[must_use]
    pub fn on(self, framework: Framework) -> Case {
        Case { frameworks: Some(vec![framework]), ..self }
    }

    /// Frameworks that it names.
    pub fn named(&self) -> &[Framework] {
        self.frameworks.as_deref().unwrap_or_default()
    }

    /// Everything wrong with its parts, and with the formats on its device.
    pub(crate) fn check(&self) -> Problems {
        let mut p = Problems::new();
        p.nest("model", self.model.check());
        p.nest("cluster", self.cluster.check());
        p.nest("workload", self.workload.check());
        p.nest("quant", self.quant.check_on(&self.model.quant, &self.cluster.device));
        p.nest("serving", self.serving.check());
        p.nest("assumptions", self.assumptions.check());
        p
    }
}
