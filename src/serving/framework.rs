//! Which framework's kernels price a question when the user names none.
//!
//! The lane with the largest measured or interpolated share of compute time wins, on a reference
//! pair of steps (decode of 32 sequences at 4,096 tokens, prefill of 4,096 tokens, one node of
//! attention-DP and EP). Ties go to the order trtllm, sglang, vllm.

use std::sync::Arc;

use crate::cost::{Batch, Total, Worker};
use crate::error::{Error, Result};
use crate::kernels::KernelDb;
use crate::spec::{Assumptions, Cluster, Model, Parallel, Quant, Serving};

/// Frameworks that serve, in the order ties are broken.
pub const FRAMEWORKS: [&str; 3] = ["trtllm", "sglang", "vllm"];

/// Measured share of compute time of each framework that has tables for the system, best first.
pub fn measured_shares(
    db: &Arc<KernelDb>,
    model: &Model,
    cluster: &Cluster,
    quant: &Quant,
) -> Result<Vec<(String, f64)>> {
    let known = db.frameworks(&cluster.system)?;
    let node = cluster.fabric.node_gpus.min(cluster.gpus).max(1);
    let dp = if model.moe.is_some() { node } else { 1 };
    let parallel = Parallel { dp, ..Parallel::default() };
    let mut out: Vec<(String, f64)> = Vec::new();
    for f in FRAMEWORKS.iter().filter(|f| known.iter().any(|k| k == *f)) {
        let lib =
            super::defaults::library(db, model, cluster, f, quant, &Serving::default(), &Assumptions::physical())?;
        let worker = Worker::new(&lib, parallel)?;
        let total: Total =
            worker.step(&Batch::decode(32.0, 4096.0, 1.0)).plus(&worker.step(&Batch::prefill(1.0, 4096.0, 0.0)));
        let all: f64 = total.compute.iter().sum();
        out.push(((*f).to_string(), (total.compute[0] + total.compute[1]) / all.max(1e-300)));
    }
    if out.is_empty() {
        return Err(Error::data(cluster.system.clone(), "no framework has kernel tables for this system"));
    }
    // Stable: equal shares (to a tenth of a percent) keep the order of FRAMEWORKS.
    out.sort_by(|a, b| (b.1 * 1e3).round().total_cmp(&(a.1 * 1e3).round()));
    Ok(out)
}

/// The framework of [`measured_shares`] that comes first.
pub fn default_framework(db: &Arc<KernelDb>, model: &Model, cluster: &Cluster, quant: &Quant) -> Result<String> {
    Ok(measured_shares(db, model, cluster, quant)?.swap_remove(0).0)
}
