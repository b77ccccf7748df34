//! What is varied: an estimate's question with its plan settled, and the numbers whose change is told.
//!
//! Limit: the plan stays as settled: what another device would have chosen is not looked for.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::kernels::KernelDb;
use crate::serving::Engine;
use crate::spec::{Case, Plan};

/// What an estimate was made from, its plan settled.
#[derive(Clone, Debug)]
pub struct Baseline {
    pub case: Case,
    pub plan: Plan,
    /// Requests per second of an open loop.
    pub load: Option<f64>,
}

/// Numbers whose change is told.
pub const METRICS: [&str; 5] = ["ttft_ms", "tpot_ms", "tokens_per_s_per_gpu", "usd_per_mtok", "joules_per_token"];

pub type Numbers = [f64; METRICS.len()];

impl Baseline {
    /// Prices it as it stands.
    pub fn engine(&self, db: &Arc<KernelDb>) -> Result<Engine> {
        self.case.check().into_result()?;
        let lib = self.case.library(db, self.case.framework(db)?)?;
        let engine = Engine::new(&lib, &self.case.workload, &self.plan)?;
        match self.load {
            Some(rate) => engine.loaded(rate),
            None => Ok(engine),
        }
    }

    /// Its numbers, or why it has none.
    pub(super) fn numbers(&self, db: &Arc<KernelDb>) -> Result<std::result::Result<Numbers, String>> {
        let engine = match self.engine(db) {
            Ok(e) => e,
            Err(Error::Cancelled) => return Err(Error::Cancelled),
            Err(e) => return Ok(Err(e.to_string().replace('\n', "; "))),
        };
        if !engine.point.stands() {
            return Ok(Err(engine.point.binding.label()));
        }
        let gpus = f64::from(engine.library().cluster.gpus);
        Ok(Ok([
            engine.point.ttft_s * 1e3,
            engine.point.tpot_s * 1e3,
            engine.tokens_per_s() / gpus,
            engine.usd_per_mtok(),
            engine.joules_per_token(),
        ]))
    }
}
