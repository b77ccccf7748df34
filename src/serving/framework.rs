//! Frameworks whose kernels price a question: all that have kernels for the model, and the one for a single plan.
//!
//! A framework has kernels for a model on a system if each kind of the model's layers (attention of prefill and of
//! decode, with and without a window, experts, dense products) rests on rows of its tables; one that lacks a kind is left
//! out of a comparison, and said so: a bare roofline would win it. Where one has to do, it is the one with the
//! largest measured, interpolated or scaled share of compute time on a reference pair of steps (decode of 32 sequences
//! at 4,096 tokens, prefill of 4,096 tokens, one node of attention-DP and EP of the system's own device and links,
//! so that neither the number of GPUs nor what-if hardware moves the choice). Ties go to the order trtllm, sglang, vllm.
//!
//! Limit: asks for rows of each kind, not how many or how good; one reference pair of steps ranks all workloads.

use std::sync::Arc;

use crate::cost::program::Surfaces;
use crate::cost::{Batch, Library, Total, Worker};
use crate::error::{Error, Problems, Result, near};
use crate::kernels::{Evidence, KernelDb};
use crate::recent::Recent;
use crate::spec::{Assumptions, Case, Cluster, Framework, Model, Parallel, Quant, Serving, catalog};

/// Frameworks that serve on a system: those with a table of any kernel that computes.
///
/// # Errors
/// If the system has no tables at all.
pub fn with_kernels(db: &KernelDb, system: &str) -> Result<Vec<Framework>> {
    let known = db.frameworks(system)?;
    Ok(Framework::ALL.iter().copied().filter(|f| known.iter().any(|k| k == f.name())).collect())
}

/// What is wrong with frameworks that are named for a system: those without kernels, where everything would be a roofline.
pub fn check(named: &[Framework], known: &[Framework], system: &str) -> Problems {
    let mut p = Problems::new();
    for (i, f) in named.iter().enumerate().filter(|(_, f)| !known.contains(f)) {
        let cure = near(f.name(), known.iter().map(|k| k.name()));
        p.push(format!("frameworks[{i}]"), format!("'{f}' is not a framework with kernels for {system}"), cure);
    }
    p
}

/// A framework with tables for a system.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    pub framework: Framework,
    /// Share of compute time of the reference steps that rests on rows where they reach.
    pub share: f64,
    /// Kinds of the model's layers that none of its rows covers.
    pub lacks: Vec<String>,
}

/// Frameworks with tables for the system: those with kernels for all layers of the model first, best known first.
pub fn candidates(db: &Arc<KernelDb>, model: &Model, cluster: &Cluster, quant: &Quant) -> Result<Vec<Candidate>> {
    let known = with_kernels(db, &cluster.system)?;
    let node = cluster.fabric.node_gpus.max(1);
    // An imported system has no preset: its cluster as it stands.
    let at = match catalog::system(&cluster.system) {
        Ok((_, fabric)) => catalog::cluster(&cluster.system, fabric.node_gpus.max(1))?,
        Err(_) => Cluster { gpus: node, ..cluster.clone() },
    };
    let dp = if model.moe.is_some() { at.gpus } else { 1 };
    let parallel = Parallel { dp, ..Parallel::default() };
    let mut out: Vec<Candidate> = Vec::new();
    for framework in known {
        let lib =
            super::defaults::library(db, model, &at, framework, quant, &Serving::default(), &Assumptions::physical())?;
        let worker = Worker::new(&lib, parallel)?;
        let total: Total =
            worker.step(&Batch::decode(32.0, 4096.0, 1.0)).plus(&worker.step(&Batch::prefill(1.0, 4096.0, 0.0)));
        let all: f64 = total.compute.iter().sum();
        let rows: f64 = total.compute[..=Evidence::Scaled as usize].iter().sum();
        out.push(Candidate { framework, share: rows / all.max(1e-300), lacks: lacks(&lib, dp)? });
    }
    if out.is_empty() {
        return Err(Error::data(cluster.system.clone(), "no framework has kernel tables for this system"));
    }
    // Stable: equal shares (to a tenth of a percent) keep the order of `Framework::ALL`.
    let share = |c: &Candidate| (c.share * 1e3).round();
    out.sort_by(|a, b| a.lacks.is_empty().cmp(&b.lacks.is_empty()).reverse().then(share(b).total_cmp(&share(a))));
    Ok(out)
}

/// Kinds of layers without a row, on one rank of `ep`.
fn lacks(lib: &Library, ep: u32) -> Result<Vec<String>> {
    let model = &lib.model;
    let mut out = Vec::new();
    let mut need = |what: String, measured: bool| {
        if !measured {
            out.push(what);
        }
    };
    for mixer in lib.program.mixers() {
        let (kind, [prefill, decode]) = (mixer.name(), mixer.on_rank(lib, 1, 1)?.measured());
        need(format!("{kind} of prefill in {}", lib.formats.attention.name()), prefill);
        need(format!("{kind} of decode over {} KV", lib.formats.kv.name()), decode);
    }
    let gemm = lib.formats.attention_gemm;
    need(format!("products in {}", gemm.name()), lib.gemm(true, gemm, model.hidden, model.hidden)?.is_measured());
    if let Some(experts) = lib.experts_fused(true, ep, 1, true, false)? {
        let grouped = lib.experts_grouped(true, ep, false)?;
        need(format!("experts in {}", lib.formats.moe.name()), grouped.as_ref().unwrap_or(&experts).is_measured());
    }
    Ok(out)
}

/// Frameworks to compare, in the order of [`Framework::ALL`].
#[derive(Clone, Debug, PartialEq)]
pub struct Compared {
    pub frameworks: Vec<Framework>,
    /// Each that is not compared, and why, in words.
    pub left_out: Vec<String>,
}

/// A question and its framework: the same is asked again with every estimate.
type Chosen = Arc<(Arc<KernelDb>, Model, Cluster, Quant, Framework)>;

static CHOSEN: Recent<Chosen> = Recent::new(16);

impl Case {
    fn candidates(&self, db: &Arc<KernelDb>) -> Result<Vec<Candidate>> {
        candidates(db, &self.model, &self.cluster, &self.quant)
    }

    /// Whose kernels price one plan: those named, else those of the first of [`candidates`].
    ///
    /// # Errors
    /// If the system has no tables.
    pub fn framework(&self, db: &Arc<KernelDb>) -> Result<Framework> {
        match self.named().first() {
            Some(framework) => Ok(*framework),
            None => self.best_known(db),
        }
    }

    /// The first of [`candidates`], kept: the number of GPUs does not move it.
    fn best_known(&self, db: &Arc<KernelDb>) -> Result<Framework> {
        let own = &self.cluster;
        let joined = |c: &Cluster| c.system == own.system && c.fabric == own.fabric && c.device == own.device;
        let same = |chosen: &Chosen| {
            let (of, model, cluster, quant, _) = &**chosen;
            Arc::ptr_eq(of, db) && *quant == self.quant && joined(cluster) && *model == self.model
        };
        if let Some(chosen) = CHOSEN.find(same) {
            return Ok(chosen.4);
        }
        let framework = self.candidates(db)?.swap_remove(0).framework;
        CHOSEN.keep(Arc::new((db.clone(), self.model.clone(), own.clone(), self.quant, framework)));
        Ok(framework)
    }

    /// Whose kernels a comparison takes: those named, else all that have kernels for the model; where none has all,
    /// the best known ones.
    ///
    /// # Errors
    /// If the system has no tables.
    pub fn compared(&self, db: &Arc<KernelDb>) -> Result<Compared> {
        if let Some(frameworks) = &self.frameworks {
            return Ok(Compared { frameworks: frameworks.clone(), left_out: Vec::new() });
        }
        let mut found = self.candidates(db)?;
        let keep = found.iter().filter(|c| c.lacks.is_empty()).count().max(1);
        let system = &self.cluster.system;
        let words = |c: &Candidate| {
            format!("{} is left out: it has no measured kernels on {system} for {}", c.framework, c.lacks.join(", "))
        };
        let left_out = found.drain(keep..).map(|c| words(&c)).collect();
        found.sort_by_key(|c| c.framework);
        Ok(Compared { frameworks: found.into_iter().map(|c| c.framework).collect(), left_out })
    }
}
