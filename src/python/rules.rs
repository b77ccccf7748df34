//! Plans against a model and a cluster: what is wrong, and what starts them.
//!
//! Limit: rules of the table at hand; a server that no rule speaks of starts everything.

use std::sync::Arc;

use super::give::Rows;
use pyo3::prelude::*;

use super::catalog::not_a_plan;
use super::data::Data;
use super::data::Spec;
use super::errors::guard;
use super::give;
use crate::error::{Error, Result};
use crate::serving::launch::{self as starting, Ask, Starter};
use crate::spec::rules::Table;
use crate::spec::{Case, Cluster, Framework, Model, Quant, Rules, Serving, Workload};

/// Everything that is wrong with a plan for a model and a cluster.
#[pyfunction]
#[pyo3(signature = (plan, model, cluster, quant=None))]
pub fn check_plan(plan: &Spec, model: &Spec, cluster: &Spec, quant: Option<&Spec>) -> PyResult<()> {
    guard(|| {
        let made = plan.data().plan().ok_or_else(|| not_a_plan(plan))?;
        let (model, cluster) = question(model, cluster)?;
        let quant = quant_of(quant)?;
        let mut problems = made.check(model, cluster);
        problems.nest("", made.check_blocks(model, &model.formats(&quant)));
        problems.into_result()
    })
}

fn quant_of(quant: Option<&Spec>) -> Result<Quant> {
    match quant.map(Spec::data) {
        None => Ok(Quant::default()),
        Some(Data::Quant(q)) => Ok(*q),
        Some(_) => Err(Error::spec("quant", "is not a Quant", "")),
    }
}

fn question<'a>(model: &'a Spec, cluster: &'a Spec) -> Result<(&'a Model, &'a Cluster)> {
    match (model.data(), cluster.data()) {
        (Data::Model(model), Data::Cluster(cluster)) => Ok((model, cluster)),
        (Data::Model(_), _) => Err(Error::spec("cluster", "is not a Cluster", "")),
        _ => Err(Error::spec("model", "is not a Model", "")),
    }
}

/// Whether a server of the framework starts the plan: `runnable`, `server`, `why_not`, as JSON.
#[pyfunction]
#[pyo3(signature = (plan, model, cluster, framework, version=None, table=None))]
pub fn plan_verdict(
    plan: &Spec,
    model: &Spec,
    cluster: &Spec,
    framework: &str,
    version: Option<&str>,
    table: Option<&str>,
) -> PyResult<String> {
    guard(|| {
        let made = plan.data().plan().ok_or_else(|| not_a_plan(plan))?;
        let (model, cluster) = question(model, cluster)?;
        made.check(model, cluster).into_result()?;
        let table = match table {
            Some(text) => Arc::new(Table::parse(text)?),
            None => Table::shipped()?.clone(),
        };
        let verdict =
            Rules::of(table, Framework::asked(framework, "framework")?, version, model, cluster)?.verdict(&made);
        crate::spec::json::to_json(&verdict, "verdict")
    })
}

/// The rules of a table (none: the shipped one): a dict a rule.
#[pyfunction]
#[pyo3(signature = (table=None))]
pub fn rules_table<'py>(py: Python<'py>, table: Option<&str>) -> PyResult<Rows<'py>> {
    let rows = guard(|| {
        let table = match table {
            Some(text) => Arc::new(Table::parse(text)?),
            None => Table::shipped()?.clone(),
        };
        crate::spec::json::to_value(&table.rules, "rules")
    })?;
    give::rows(py, &rows)
}

/// Commands and files that start a plan, as JSON.
#[pyfunction]
#[pyo3(signature = (framework, plan, model, cluster, workload, quant, serving, engine, force))]
#[allow(clippy::too_many_arguments)]
pub fn launch(
    framework: &str,
    plan: &Spec,
    model: &Spec,
    cluster: &Spec,
    workload: Option<&Spec>,
    quant: Option<&Spec>,
    serving: Option<&Spec>,
    engine: &str,
    force: bool,
) -> PyResult<String> {
    guard(|| {
        let plan = plan.data().plan().ok_or_else(|| not_a_plan(plan))?;
        let (model, cluster) = question(model, cluster)?;
        let workload = match workload.map(Spec::data) {
            None => None,
            Some(Data::Workload(w)) => Some(w.clone()),
            Some(_) => return Err(Error::spec("workload", "is not a Workload", "")),
        };
        let longest = workload.as_ref().map(|w| w.peak_tokens().ceil().max(1.0) as u32);
        // Of a workload only the longest sequence counts: without one the server's own limit stays.
        let served = workload.unwrap_or_else(|| Workload::fixed("", 0.0, 1.0, 1.0));
        let mut case = Case::new(model.clone(), cluster.clone(), served);
        case.quant = quant_of(quant)?;
        case.serving = match serving.map(Spec::data) {
            None => Serving::default(),
            Some(Data::Serving(s)) => s.clone(),
            Some(_) => return Err(Error::spec("serving", "is not a Serving", "")),
        };
        let starter = Starter::named(framework, engine)?;
        let ask = Ask { case: &case, plan: &plan, longest, starter, force };
        crate::spec::json::to_json(&starting::launch(&ask)?, "launch")
    })
}
