//! What questions are about, taken over from Python once: specs in, a checked case behind an `Arc`.
//!
//! Limit: checked as far as a case goes; a plan is held against it only when an engine is made.

use std::sync::Arc;

use pyo3::prelude::*;

use super::data::{Data, Spec};
use super::{errors, kernels};
use crate::error::{Error, Result, near};
use crate::serving::framework;
use crate::spec::{self, Assumptions, Cluster, Framework, Model, Plan, Quant, Serving, Slo, Workload};

macro_rules! take {
    ($name:ident, $kind:ident, $ty:ty) => {
        pub(super) fn $name(s: &Spec, path: &str) -> Result<$ty> {
            match s.data() {
                Data::$kind(x) => Ok(x.clone()),
                other => Err(Error::spec(path, format!("is a {}, not a {}", other.kind(), stringify!($kind)), "")),
            }
        }
    };
}
take!(model_of, Model, Model);
take!(cluster_of, Cluster, Cluster);
take!(workload_of, Workload, Workload);
take!(slo_of, SLO, Slo);
take!(quant_of, Quant, Quant);
take!(serving_of, Serving, Serving);
take!(assumptions_of, Assumptions, Assumptions);

pub(super) fn plan_of(s: &Spec) -> Result<Plan> {
    match s.data() {
        Data::Aggregated(a) => Ok(Plan::Aggregated(a.clone())),
        Data::PD(p) => Ok(Plan::Pd(p.clone())),
        Data::AFD(a) => Ok(Plan::Afd(a.clone())),
        other => Err(Error::spec("plan", format!("is a {}, not a plan", other.kind()), "give Aggregated, PD or AFD")),
    }
}

/// Frameworks as they are named: one under `framework`, several under `frameworks`; `vllm@0.31` means that version's tables.
#[derive(FromPyObject)]
enum Named {
    One(String),
    Several(Vec<String>),
}

impl Named {
    /// The frameworks, and the versions that are asked for by name.
    fn read(&self) -> Result<(Vec<Framework>, Vec<String>)> {
        let (names, path): (&[String], _) = match self {
            Named::One(name) => (std::slice::from_ref(name), None),
            Named::Several(names) => (names, Some("frameworks")),
        };
        let (mut frameworks, mut versions) = (Vec::new(), Vec::new());
        for (i, name) in names.iter().enumerate() {
            let path = path.map_or("framework".to_string(), |p| format!("{p}[{i}]"));
            let (plain, version) = name.split_once('@').map_or((name.as_str(), None), |(n, v)| (n, Some(v)));
            let framework = Framework::asked(plain, &path)?;
            if frameworks.contains(&framework) && version.is_some() {
                let hint = "ask once for each version, and compare";
                return Err(Error::spec(path, format!("'{plain}' is named twice"), hint));
            }
            frameworks.push(framework);
            versions.extend(version.map(|v| format!("{framework}@{v}")));
        }
        Ok((frameworks, versions))
    }
}

/// Whether the system has kernels of a framework.
pub(super) fn check_framework(asked: Framework, path: &str, system: &str) -> Result<()> {
    let known = framework::with_kernels(&*kernels::db()?, system)?;
    if known.contains(&asked) {
        return Ok(());
    }
    let names: Vec<&str> = known.iter().map(|f| f.name()).collect();
    let text = format!("'{asked}' is not a framework with kernels for {system}");
    Err(Error::spec(path, text, near(asked.name(), names)))
}

/// What every question is about.
#[pyclass(frozen, module = "disagg._core")]
pub struct Case {
    pub(super) inner: Arc<spec::Case>,
}

#[pymethods]
impl Case {
    #[new]
    #[pyo3(signature = (model, cluster, workload, frameworks=None, quant=None, serving=None, assumptions=None))]
    fn new(
        model: &Spec,
        cluster: &Spec,
        workload: &Spec,
        frameworks: Option<Named>,
        quant: Option<&Spec>,
        serving: Option<&Spec>,
        assumptions: Option<&Spec>,
    ) -> PyResult<Case> {
        errors::guard(|| {
            let mut case = spec::Case::new(
                model_of(model, "model")?,
                cluster_of(cluster, "cluster")?,
                workload_of(workload, "workload")?,
            );
            let named = frameworks.map(|named| named.read()).transpose()?;
            if let Some(q) = quant {
                case.quant = quant_of(q, "quant")?;
            }
            if let Some(s) = serving {
                case.serving = serving_of(s, "serving")?;
            }
            if let Some(a) = assumptions {
                case.assumptions = assumptions_of(a, "assumptions")?;
            }
            if let Some((frameworks, versions)) = named {
                case.frameworks = Some(frameworks);
                if !versions.is_empty() {
                    if case.serving.kernel_versions.is_some() {
                        let text = "versions are named in 'serving.kernel_versions' too";
                        return Err(Error::spec("framework", text, "name them in one place"));
                    }
                    case.serving.kernel_versions = Some(versions.join(","));
                }
            }
            case.check().into_result()?;
            Ok(Case { inner: Arc::new(case) })
        })
    }
}

/// The framework that prices one plan: the one named, if the system has kernels of it, else the best known.
pub(super) fn framework_of(case: &spec::Case) -> Result<Framework> {
    case.named().iter().try_for_each(|f| check_framework(*f, "framework", &case.cluster.system))?;
    case.framework(&kernels::db()?)
}
